"""A toy model whose W is known, and pictures with labels that are true of it, to check directions against."""

from __future__ import annotations

import types

import torch

from stylegan.directions.population import sample_w
from stylegan.latents import Latents

D, L = 12, 4
NORMALS = torch.nn.functional.normalize(torch.tensor(  # glasses and beard at 53 degrees, tan at right angles to both
    [[1.0] + [0.0] * 11, [0.6, 0.8] + [0.0] * 10, [0.0, 0.0, 1.0] + [0.0] * 9]), dim=1)
LAYER_OF = (1, 2, 3)  # the layer through which each attribute is drawn
NAMES = ("glasses", "beard", "tan")


class Toy:
    """w = z scaled by `spread` plus a mean; three bands of the 16 px picture show n . w of one layer each."""

    z_dim = w_dim = D
    num_ws, img_channels, resolution, num_classes = L, 3, 16, 0
    device = torch.device("cpu")

    def __init__(self, spread: torch.Tensor | None = None, num_classes: int = 0) -> None:
        self.spread = torch.ones(D) if spread is None else spread
        self.w_avg = torch.full((D,), 0.1)
        self.num_classes = num_classes

    def map(self, z, label=None):
        w = torch.as_tensor(z, dtype=torch.float32) * self.spread + self.w_avg
        if label is not None:
            w = w + 2.0 * torch.eye(D)[torch.as_tensor(label)]
        return Latents.from_w(w, L)

    def synthesize(self, ws):
        ws = getattr(ws, "ws", ws)
        image = torch.full((len(ws), 3, 16, 16), -0.8)
        for band, (normal, layer) in enumerate(zip(NORMALS, LAYER_OF, strict=True)):
            score = (ws[:, layer] - self.w_avg) @ normal  # [N]
            image[:, band, 5 * band : 5 * band + 5] = torch.tanh(2 * score)[:, None, None]
        return image

    def style_weights(self):
        weight = torch.zeros(6, D)
        weight[0, 3], weight[1, 3], weight[2, 5] = 3.0, 4.0, 2.0
        return [(0, weight), (1, torch.eye(D)[:4] * 0.5), (3, torch.eye(D)[7:8] * 9)]


def labelled(num: int = 500, spread: torch.Tensor | None = None) -> types.SimpleNamespace:
    """Pictures of the toy with labels that are true of them."""
    toy = Toy(spread)
    w = sample_w(toy, num, seed=99)
    pixels = (toy.synthesize(Latents.from_w(w, L)) * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1)
    scores = ((w - toy.w_avg) @ NORMALS.T).numpy()
    attributes = {"glasses": (scores[:, 0] > 0) * 1.0, "beard": (scores[:, 1] > 0) * 1.0, "tan": scores[:, 2]}
    return types.SimpleNamespace(labels=None, class_names=(), num_classes=0, attributes=attributes,
                                 array=lambda: pixels.numpy())
