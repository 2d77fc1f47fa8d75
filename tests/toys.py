"""A toy model whose W is known, and pictures with labels that are true of it, to check directions against."""

from __future__ import annotations

import contextlib
import types

import torch

from stylegan.directions.population import sample_w
from stylegan.latents import Latents
from stylegan.networks.layers import FullyConnected
from stylegan.networks.pieces import LayerInfo, Piece, PiecewiseSynthesis, State

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


class Painter(Piece):
    """A piece that adds its patterns [C, 3, 16, 16] to the picture, each as strong as its style."""

    def __init__(self, index: int, patterns: torch.Tensor, is_last: bool) -> None:
        super().__init__()
        self.name, self.resolution, self.styles, self.has_image = f"p{index}", 16, slice(index, index + 1), is_last
        self.patterns = patterns

    def forward(self, state, styles, noise, dtype=torch.float32):
        x = torch.einsum("nc,cyhw->nyhw", styles[0], self.patterns)
        x = x if state.x is None else state.x + x
        return State(x, x if self.has_image else None)


class Painting(PiecewiseSynthesis):
    """Three linear pieces behind three affine maps, on the layers 0, 2 and 3."""

    ROWS = (0, 2, 3)

    def __init__(self, weights, patterns) -> None:
        super().__init__()
        self.maps = torch.nn.ModuleList()
        for weight in weights:
            affine = FullyConnected(weight.shape[1], weight.shape[0])
            affine.weight.data = weight / affine.weight_gain
            self.maps.append(affine.requires_grad_(False))
        self.painters = [Painter(i, pattern, i == len(patterns) - 1) for i, pattern in enumerate(patterns)]

    @property
    def layers(self):
        return [LayerInfo(f"row {row}", size, 0, row) for row, size in enumerate((4, 4, 8, 16))]

    def pieces(self):
        return self.painters

    def affines(self):
        return list(zip(self.ROWS, self.maps, strict=True))


class StyleToy(Toy):
    """A toy whose picture is linear in S space: channel c of style i paints a square of its own, COLUMN c, ROW i.

    Style i has 5 - i channels; each is one coordinate of w (or the given weights), and paints brighter by its number.
    """

    def __init__(self, spread: torch.Tensor | None = None, weights=None) -> None:
        super().__init__(spread)
        size = [5, 4, 3]
        if weights is None:
            eye = torch.eye(D)
            weights = [eye[0:5], eye[5:9], eye[9:12]]
        self.synthesis = Painting(weights, [self.squares(i, num) for i, num in enumerate(size)])
        self.config = types.SimpleNamespace(family="toy")

    @staticmethod
    def squares(row: int, num: int) -> torch.Tensor:
        """Patterns [num, 3, 16, 16]: a 3 x 3 square each, of the brightness 0.01 (number + 1)."""
        patterns = torch.zeros(num, 3, 16, 16)
        for c in range(num):
            patterns[c, :, 5 * row : 5 * row + 3, 3 * c : 3 * c + 3] = 0.01 * (c + 1)
        return patterns

    def style_weights(self):
        return [(row, affine.weight.detach() * affine.weight_gain) for row, affine in self.synthesis.affines()]

    def synthesize(self, latents):
        return self.synthesis(latents.ws, offsets=latents.offsets).detach()


class ToyRenderer:
    """A renderer of one toy, for what needs no more than latents, a model and turns."""

    def __init__(self, generator, latents: Latents, directions=()) -> None:
        self.generator, self.start, self.turns = generator, latents, 0
        found = {direction.name: direction for direction in directions}
        self.loaded = types.SimpleNamespace(name="toy", generator=generator, hash="a" * 64, directions=found)

    def model(self, name):
        return self.loaded

    def latents(self, request):
        return self.start

    @contextlib.contextmanager
    def turn(self):
        self.turns += 1
        yield
