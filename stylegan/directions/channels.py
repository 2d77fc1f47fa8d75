"""Which channels of S space change a picture, found by gradients (StyleSpace, arXiv 2011.12799).

Shapes: C_i channels of affine map i, S side of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.device import full_precision
from stylegan.directions.population import sample_w
from stylegan.directions.small import pieces_for, small_images
from stylegan.directions.styles import channel_direction, channel_name, style_spreads
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator
from stylegan.request import RenderRequest

SIDE = 64  # pixels of the pictures that are looked at
MAX_GRADIENT = 256  # pixels up to which a network is differentiated: what it keeps for that grows with the square
_PROBES = 8  # random signs for one picture


def takes_gradients(generator: Generator) -> bool:
    """Whether a small picture of the network can be differentiated without gigabytes: all but large ones of StyleGAN1
    and 3, which have no early picture."""
    side = min(SIDE, generator.resolution)
    return generator.synthesis.pieces()[pieces_for(generator, side) - 1].resolution <= MAX_GRADIENT


def channel_strengths(generator: Generator, latents: Latents, weights: Tensor, request: RenderRequest | None = None,
                      seed: int = 0) -> list[Tensor]:
    """How much one standard deviation of each channel changes a weighted [S, S] picture, to first order: [C_i] each.

    The norm of a column of the Jacobian, estimated by backward passes of random signs (Hutchinson): the square of a
    random projection is the squared norm on average, and one pass gives it for all channels at once.
    """
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        styles = generator.synthesis.styles(latents.ws.to(generator.device), latents.offsets)
    styles = [style.detach().clone().requires_grad_() for style in styles]
    squares = [torch.zeros(style.shape[1]) for style in styles]
    with torch.enable_grad():
        image = small_images(generator, styles, weights.shape[-1], request)
        if image.shape[-1] != weights.shape[-1]:
            image = F.interpolate(image, weights.shape, mode="area")
        for probe in range(_PROBES):
            signs = (torch.randint(0, 2, image.shape, generator=source) * 2.0 - 1) * weights
            found = torch.autograd.grad(image, styles, signs.to(image), retain_graph=probe + 1 < _PROBES,
                                        allow_unused=True)
            for square, gradient in zip(squares, found, strict=True):
                if gradient is not None:
                    square += gradient.square().mean(0).cpu() / _PROBES
    return [square.sqrt() * spread for square, spread in zip(squares, style_spreads(generator), strict=True)]


def top_channels(strengths: Sequence[Tensor], num: int) -> list[tuple[str, float]]:
    """The names of the channels with the largest of `strengths` [C_i], strongest first, and those strengths."""
    places = [(index, channel) for index, strength in enumerate(strengths) for channel in range(len(strength))]
    values, order = torch.cat(list(strengths)).topk(min(num, len(places)))
    return [(channel_name(*places[place]), value) for place, value in zip(order.tolist(), values.tolist(), strict=True)]


def search_channels(generator: Generator, num: int = 24, pictures: int = 6, psi: float = 0.7,
                    seed: int = 0) -> Iterator[tuple[float, list[Direction]]]:
    """The `num` channels that change pictures most, on average over some; yields (done, []) and at last (1, them).

    `info["change"]` is the root of the mean square change of a pixel, in levels of 255, to first order.
    """
    ws = Latents.from_w(sample_w(generator, max(2, pictures), seed), generator.num_ws)
    ws = ws.truncate(generator.w_avg.cpu(), psi)
    side = min(SIDE, generator.resolution)
    weights, total = torch.ones(side, side), None
    for number in range(pictures):
        yield number / pictures, []
        with full_precision():
            strengths = channel_strengths(generator, ws[number], weights, seed=seed + number)
        squares = [strength.square() / pictures for strength in strengths]
        total = squares if total is None else [a + b for a, b in zip(total, squares, strict=True)]
    pixels = side * side * generator.img_channels
    found = []
    for name, strength in top_channels([square.sqrt() for square in total], num):
        direction = channel_direction(generator, name)
        change = round(strength / pixels**0.5 * (255 / 2), 3)
        found.append(replace(direction, info={**direction.info, "change": change}))
    yield 1.0, found


def find_channels(generator: Generator, num: int = 24, pictures: int = 6, seed: int = 0) -> list[Direction]:
    """`search_channels` to its end."""
    return [one for _, found in search_channels(generator, num, pictures, seed=seed) for one in found]
