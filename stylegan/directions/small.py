"""Small pictures for looking at what directions do: as many pieces of a network as the picture needs.

Shapes: N pictures, C image channels, S their side, C_i channels of affine map i.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.latents import Latents
from stylegan.networks.generator import Generator
from stylegan.networks.pieces import Noise, State
from stylegan.networks.stylegan3 import transform_matrix
from stylegan.request import RenderRequest

BATCH = 8  # a processor's caches like small batches


def pieces_for(generator: Generator, side: int) -> int:
    """How many pieces make a picture of at least `side` pixels: fewer than all where the family has early pictures."""
    for number, piece in enumerate(generator.synthesis.pieces(), start=1):
        if piece.has_image and piece.resolution >= side:
            return number
    return len(generator.synthesis.pieces())


def small_images(generator: Generator, styles: list[Tensor], side: int, request: RenderRequest | None = None) -> Tensor:
    """Pictures [N, C, S, S] of styles [N, C_i], averaged down to `side`, with the request's noise and transform.

    Random noise gives way to the network's own, the same for each picture. Can be differentiated.
    """
    mode = "const" if request is None or request.noise == "random" else request.noise
    noise = Noise(mode, 1.0 if request is None else request.noise_strength)
    moved = request is not None and request.transform is not None
    state = State(transform_matrix(request.transform) if moved else None)
    for piece in generator.synthesis.pieces()[: pieces_for(generator, side)]:
        state = piece(state, styles[piece.styles], noise)
    image = state.image.float()
    return image if image.shape[-1] <= side else F.interpolate(image, (side, side), mode="area")


@torch.no_grad()
def draw(generator: Generator, latents: Latents, side: int, request: RenderRequest | None = None) -> Tensor:
    """Small pictures [N, C, S, S] of latents in [-1, 1], on the CPU, a few at a time."""
    parts = []
    for start in range(0, len(latents), BATCH):
        part = latents[start : start + BATCH]
        styles = generator.synthesis.styles(part.ws.to(generator.device), part.offsets)
        parts.append(small_images(generator, styles, side, request).clamp(-1, 1).cpu())
    return torch.cat(parts)
