"""New directions from old ones: less what others do (arXiv 1907.10786 section 3.3), or the weighted sum of two.

Shapes: L layers (num_ws), D w_dim, C_i channels of affine map i, M conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stylegan.directions.boundaries import Whitening, condition
from stylegan.directions.population import row_scale, sample_w
from stylegan.directions.styles import style_direction, style_ranges, style_shifts, style_spreads
from stylegan.errors import DirectionError
from stylegan.latents import Direction
from stylegan.networks.generator import Generator

_SAMPLES = 4_000
_LEFT = 1e-3  # a direction with less than this share of its length left is nothing but what it was freed from


@torch.no_grad()
def conditioned(generator: Generator, direction: Direction, against: Sequence[Direction],
                population: Tensor | None = None) -> Direction:
    """The direction less its part along the normals of `against`, calibrated again, so that it leaves them alone.

    In W the normals live in the population's own metric, layer by layer; in S space where every channel has unit
    spread, on the direction's own channels. Raises DirectionError when nothing is left.
    """
    if not against:
        return direction
    w = sample_w(generator, _SAMPLES) if population is None else population
    vector, channels = direction.vector, direction.channels
    if vector.any():
        rows = _free_rows(generator, direction, against, Whitening.of(w))
        if rows.norm() < _LEFT * vector.norm():
            raise _nothing(direction, against)
        vector = rows.float()
    if channels:
        alone = replace(direction, vector=torch.zeros_like(direction.vector))
        own = torch.cat(style_shifts(generator, alone))
        support = own != 0
        others = torch.stack([torch.cat(style_shifts(generator, other))[support] for other in against]).double()
        free = torch.zeros_like(own)
        free[support] = condition(own[support].double(), others[others.norm(dim=1) > 1e-9]).float()
        if free.norm() < _LEFT * own.norm():
            raise _nothing(direction, against)
        channels = _to_channels(generator, free)
    info = {**direction.info, "against": [other.name for other in against]}
    return calibrated_again(generator, replace(direction, vector=vector, channels=channels, rows=_rows(generator,
                            channels), info=info), w)  # fmt: skip


def merged(generator: Generator, first: Direction, second: Direction, name: str,
           weights: tuple[float, float] = (1.0, 1.0)) -> Direction:
    """The weighted sum of two directions, each on its own layers, as one that is calibrated again.

    Raises DirectionError when they belong to different models or cancel each other out.
    """
    owners = {first.model_hash, second.model_hash} - {""}
    if first.vector.shape != second.vector.shape or len(owners) > 1:
        raise DirectionError(f"{first.name} and {second.name} belong to different models, so they cannot be merged.")
    vector = torch.zeros_like(first.vector)
    channels: dict[int, Tensor] = {}
    for direction, weight in zip((first, second), weights, strict=True):
        low, high = direction.layers
        vector[low : high + 1] += weight * direction.vector[low : high + 1]
        for index, channel in (direction.channels or {}).items():
            channels[index] = channels.get(index, torch.zeros_like(channel)) + weight * channel
    whole = weights[0] * first.vector.norm() + weights[1] * second.vector.norm()
    if vector.norm() < 1e-6 * whole.abs():
        vector = torch.zeros_like(vector)
    layers = min(first.layers[0], second.layers[0]), max(first.layers[1], second.layers[1])
    info = {"method": f"{weights[0]:g} {first.name} + {weights[1]:g} {second.name}"}
    both = Direction(name, vector, layers, "merged", "".join(owners), info, channels or None,
                     _rows(generator, channels))  # fmt: skip
    return calibrated_again(generator, both, sample_w(generator, _SAMPLES))


@torch.no_grad()
def calibrated_again(generator: Generator, direction: Direction, population: Tensor) -> Direction:
    """The direction scaled so that strength 1 is one standard deviation of the population w [N, D].

    In W alone by its rows, otherwise in S space where every channel has unit spread. Raises DirectionError when it
    moves nothing.
    """
    if not direction.channels:
        return replace(direction, vector=(direction.vector * row_scale(direction.vector, population)).float())
    shifts = style_shifts(generator, direction)
    measured = style_direction(generator, direction.name, shifts, direction.kind, direction.info, population)
    before = torch.cat(shifts).double().norm()
    after = torch.cat(style_shifts(generator, measured)).double().norm()
    scale = float(after / before)
    channels = {index: channel * scale for index, channel in direction.channels.items()}
    return replace(direction, vector=direction.vector * scale, channels=channels)


def _free_rows(generator: Generator, direction: Direction, against: Sequence[Direction],
               whitening: Whitening) -> Tensor:
    """The direction's rows [L, D], each less its part along the others' normals in the population's metric."""
    normals = [_normals(generator, other, whitening) for other in against]  # each [L, D]
    rows = []
    for layer, row in enumerate(direction.vector.double().cpu()):
        others = torch.stack([normal[layer] for normal in normals])
        rows.append(condition(row @ whitening.forward, others[others.norm(dim=1) > 1e-9]) @ whitening.back)
    return torch.stack(rows)


def _normals(generator: Generator, direction: Direction, whitening: Whitening) -> Tensor:
    """The normals [L, D] in whitened W of what a direction moves: of its step, and of its channels as functions of w.

    A step v crosses the boundary with normal (root of the inverse covariance) v; the channel a . w has the normal
    (root of the covariance) a.
    """
    normals = direction.vector.double().cpu() @ whitening.forward
    for index, (row, weight) in enumerate(generator.style_weights()):
        if direction.channels and index in direction.channels:
            spread = style_spreads(generator)[index].double()
            pull = torch.where(spread > 0, direction.channels[index].double() / spread.square().clamp(min=1e-30), 0.0)
            normals[row] += (pull @ weight.double().cpu()) @ whitening.back
    return normals


def _to_channels(generator: Generator, shifts: Tensor) -> dict[int, Tensor]:
    """Shifts in standard deviations, all affine maps behind one another, as a direction's channels."""
    spreads = style_spreads(generator)
    parts = shifts.split([len(spread) for spread in spreads])
    return {index: part * spreads[index] for index, part in enumerate(parts) if part.any()}


def _rows(generator: Generator, channels: dict[int, Tensor] | None) -> dict[int, int] | None:
    """The layer of each affine map in `channels`."""
    return {index: style_ranges(generator)[index][1] for index in channels} if channels else None


def _nothing(direction: Direction, against: Sequence[Direction]) -> DirectionError:
    """The refusal of a direction that is only a sum of the others."""
    names = ", ".join(other.name for other in against)
    return DirectionError(f"Nothing is left of {direction.name} once it leaves {names[:200]} alone; choose fewer.")
