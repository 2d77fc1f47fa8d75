"""Zones of a direction: form, texture or colour, by the layers where it acts and by what is seen to change.

Shapes: N pictures, C image channels, S their side, P windows in each, C_i channels of affine map i.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.networks.generator import Generator

FORM, TEXTURE, COLOUR = ZONES = ("form", "texture", "colour")
MIN_STRUCTURE = 0.5  # share of the change at contours that no recolouring explains, from which shapes have changed
_FORM_SHARE, _TEXTURE_SHARE = 0.4, 0.75  # of StyleGAN3's layers, whose grids do not tell coarse from fine
_RIDGE = 1e-4  # variance in units of [-1, 1] squared


def style_zones(generator: Generator) -> list[str]:
    """The zone of each affine map's layer: form to 8 pixels, texture to 32, colour from 64 on (arXiv 1812.04948 §3.1).

    Smaller networks give their last resolution to colour and the one or two before to texture; StyleGAN3's layers go
    by their place, 40 %, 35 % and the rest; what styles only a ToRGB is colour anywhere (arXiv 2011.12799 section 3).
    """
    size, layers = generator.resolution, generator.synthesis.layers
    if generator.config.family == "stylegan3":
        shares = [index / len(layers) for index in range(len(layers))]
        rows = [FORM if share < _FORM_SHARE else TEXTURE if share < _TEXTURE_SHARE else COLOUR for share in shares]
    else:
        texture, colour = min(16, size // 2), min(64, size)
        rows = [FORM if layer.resolution < texture else TEXTURE if layer.resolution < colour else COLOUR
                for layer in layers]
    zones = [rows[row] for row, _ in generator.synthesis.affines()]
    if generator.config.family == "stylegan2":
        for piece in generator.synthesis.pieces():
            if piece.has_image:
                zones[piece.styles.stop - 1] = COLOUR
    return zones


def zone_of(zones: Sequence[str], shifts: Sequence[Tensor], strengths: Sequence[Tensor], base: Tensor,
            moved: Tensor) -> str:
    """The zone of a direction at a picture: colour when shapes stay, else where most of its energy acts.

    `zones` of each affine map; `shifts` [C_i], what the direction does to each channel, in standard deviations;
    `strengths` [C_i], what one of those does to the picture; the picture [1, C, S, S] and those at both ends.
    """
    if structure_share(base, moved) < MIN_STRUCTURE:
        return COLOUR
    energy = dict.fromkeys(ZONES, 0.0)
    for zone, shift, strength in zip(zones, shifts, strengths, strict=True):
        energy[zone] += float((shift * strength).square().sum())
    return max(ZONES, key=energy.__getitem__)


def structure_share(base: Tensor, moved: Tensor) -> float:
    """The share of the change at contours that no recolouring explains: 0 when shapes stay, about 1 when they move.

    A recolouring is an affine map of colours, the same for all pixels of a window of 5 x 5. What it leaves of the
    change's variance within the windows, from the base picture to the moved one (contours that come) and back (those
    that go), is compared with that variance.
    """
    window = 5 if base.shape[-1] >= 32 else 3
    base, moved = base.double(), moved.double()
    change = moved - base
    spread = _mean(change.square(), window).sum() - _mean(change, window).square().sum()
    left = _unexplained(base, change, window) + _unexplained(moved, change, window)
    return min(1.0, float(left / spread.clamp(min=1e-9)))


def _mean(values: Tensor, window: int) -> Tensor:
    """Means over windows that overlap by half."""
    return F.avg_pool2d(values, window, stride=max(1, window // 2))


def _unexplained(colours: Tensor, change: Tensor, window: int) -> Tensor:
    """The variance of the change [N, C, S, S] within windows that no affine map of the colours explains, summed."""
    colours = colours.expand_as(change)
    channels = change.shape[1]

    def covariance(a: Tensor, b: Tensor) -> Tensor:  # [N, P, C, C]
        pairs = _mean((a[:, :, None] * b[:, None]).flatten(1, 2), window).unflatten(1, (channels, channels))
        return (pairs - _mean(a, window)[:, :, None] * _mean(b, window)[:, None]).flatten(3).permute(0, 3, 1, 2)

    own, cross = covariance(colours, colours), covariance(colours, change)
    ridge = _RIDGE * torch.eye(channels, dtype=own.dtype)
    explained = (cross * torch.linalg.solve(own + ridge, cross)).sum((2, 3))
    spread = covariance(change, change).diagonal(dim1=2, dim2=3).sum(2)
    return (spread - explained).clamp(min=0).sum()
