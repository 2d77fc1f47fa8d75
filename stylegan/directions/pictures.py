"""Directions from pictures: the difference of two or of two groups, pictures sorted into yes and no, analogies.

Shapes: N pictures (P yes, M no), L layers (num_ws), D w_dim, C_i channels of affine map i.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stylegan.directions.boundaries import Whitening
from stylegan.directions.change import calibrated_again, conditioned
from stylegan.directions.channels import SIDE, channel_strengths, takes_gradients
from stylegan.directions.classifier import auc
from stylegan.directions.population import sample_w
from stylegan.directions.styles import STYLES, strongest, style_direction, style_ranges, style_spreads, styles_of
from stylegan.errors import DirectionError, RequestError
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator

_SAMPLES = 4_000
_PRIORS = torch.logspace(-6, 6, 121, dtype=torch.float64)  # strengths of the prior that are tried


def gather(several: Iterable[Latents]) -> Latents:
    """Latents one after another as one value [N, L, D]; RequestError when they belong to different models."""
    parts = list(several)
    if not parts or len({part.ws.shape[1:] for part in parts}) > 1:
        raise RequestError("Pictures can be gathered only when there are some, all of the same model.")
    offsets = {}
    for index in sorted({index for part in parts for index in part.offsets}):
        width = next(part.offsets[index].shape[1] for part in parts if index in part.offsets)
        rows = [part.offsets.get(index, torch.zeros(1, width)).to(parts[0].ws).expand(len(part), -1) for part in parts]
        offsets[index] = torch.cat(rows)  # [N, C_i]
    return Latents(torch.cat([part.ws for part in parts]), offsets)


def analogy(a: Latents, b: Latents, c: Latents) -> Latents:
    """A is to B as C is to the result: C + (B - A), in W+ and in the offsets."""
    for other in (a, b):
        if other.ws.shape[1:] != c.ws.shape[1:]:
            raise RequestError("The pictures of an analogy must be of the same model.")
    offsets = dict(c.offsets)
    for part, sign in ((b, 1.0), (a, -1.0)):
        for index, offset in part.offsets.items():
            offsets[index] = offsets.get(index, torch.zeros_like(offset)) + sign * offset
    return Latents(c.ws + (b.ws - a.ws).to(c.ws), offsets)


@torch.no_grad()
def find_difference(generator: Generator, a: Latents, b: Latents, name: str = "difference",
                    against: Sequence[Direction] = ()) -> Direction:
    """The way from the mean of `b` to the mean of `a`, both [N, L, D]; `against` are directions to leave alone.

    `info["distance"]` says how many standard deviations lie between the two. Raises DirectionError when they are the
    same.
    """
    vector = (a.ws.double().mean(0) - b.ws.double().mean(0)).cpu()  # [L, D]
    shift = {index: offset.double().mean(0).cpu() for index, offset in a.offsets.items()}
    for index, offset in b.offsets.items():
        nothing = torch.zeros(offset.shape[1], dtype=torch.float64)
        shift[index] = shift.get(index, nothing) - offset.double().mean(0).cpu()
    channels = {index: channel.float() for index, channel in shift.items() if channel.any()}
    if not vector.any() and not channels:
        raise DirectionError("These pictures have the same latent, so there is no way from one to the other.")
    rows = {index: style_ranges(generator)[index][1] for index in channels}
    info = {"method": "difference of pictures", "pictures": [len(a), len(b)]}
    raw = Direction(name, vector.float(), (0, generator.num_ws - 1), "difference", info=info,
                    channels=channels or None, rows=rows or None)
    w = sample_w(generator, _SAMPLES)
    direction = calibrated_again(generator, raw, w)
    distance = _length(raw) / _length(direction)
    direction = replace(direction, info={**info, "distance": round(distance, 3)})
    return conditioned(generator, direction, against, w)


@torch.no_grad()
def find_sorted(generator: Generator, yes: Latents, no: Latents, name: str = "sorted",
                against: Sequence[Direction] = (), num_channels: int | None = None) -> Direction:
    """The way across the boundary between pictures sorted into `yes` [P, L, D] and `no` [M, L, D].

    A linear discriminant with the population's covariance, shrunk as `_shrunk` says because twenty pictures are few;
    in W when every picture has one w, else in W+. With `num_channels`, only that many channels of S space, ranked by
    difference over spread within the groups (StyleSpace, arXiv 2011.12799 section 4), times what a channel does to
    the groups' mean picture, for channels that only go along are of no use. `info["separation"]` is the
    chance that a yes lies above a no, each picture judged by a direction found without it. Raises DirectionError with
    fewer than 2 pictures on a side.
    """
    if min(len(yes), len(no)) < 2:
        raise DirectionError(f"Sort at least 2 pictures into yes and 2 into no; there are {len(yes)} and {len(no)}.")
    w = sample_w(generator, _SAMPLES)
    info = {"pictures": [len(yes), len(no)]}
    if num_channels is not None:
        direction = _sorted_channels(generator, yes, no, name, num_channels, info, w)
        return conditioned(generator, direction, against, w)
    whitening, same = Whitening.of(w), _is_plain_w(yes) and _is_plain_w(no)
    groups = [latents.ws.double().cpu()[:, :1] if same else latents.ws.double().cpu() for latents in (yes, no)]
    points = [(group - whitening.mean) @ whitening.forward for group in groups]  # [P, L, D] and [M, L, D], L 1 in W
    energies = _energies(generator, whitening, same)
    normal = torch.stack([_shrunk(points[0][:, row], points[1][:, row], *energy)
                          for row, energy in enumerate(energies)])  # [L, D]
    rows = (normal @ whitening.back).expand(generator.num_ws, -1)
    separation = _separation(points[0], points[1], energies)
    info |= {"method": "linear boundary of sorted pictures, shrunk", "separation": round(separation, 3),
             "space": "W" if same else "W+"}
    raw = Direction(name, rows.float().contiguous(), (0, generator.num_ws - 1), "sorted", info=info)
    return conditioned(generator, calibrated_again(generator, raw, w), against, w)


def _energies(generator: Generator, whitening: Whitening, same: bool) -> list[tuple[Tensor, Tensor]]:
    """(energy [D], axes [D, D]) of what a step in whitened W does to the styles, of all layers or of each one.

    The axes are SeFa's (arXiv 2007.06600) in the population's own metric; energies have the mean 1.
    """
    grams = torch.zeros(1 if same else generator.num_ws, generator.w_dim, generator.w_dim, dtype=torch.float64)
    for row, weight in generator.style_weights():
        pull = weight.double().cpu() @ whitening.back  # [C_i, D]
        grams[0 if same else row] += pull.T @ pull
    found = []
    for gram in grams:
        values, axes = torch.linalg.eigh(gram)
        values = values.clamp(min=0)
        found.append((values / values.mean().clamp(min=1e-30), axes))
    return found


def _shrunk(yes: Tensor, no: Tensor, energy: Tensor, axes: Tensor) -> Tensor:
    """The normal [D] from `no` [M, D] to `yes` [P, D] in whitened W: their difference, shrunk along each axis.

    What people sort by is seen, so a difference is believed along an axis as far as the axis changes the styles: its
    prior variance is t times the axis' energy, the noise that of means of so few, and t is the most likely one.
    """
    difference = (yes.mean(0) - no.mean(0)) @ axes  # [D]
    freedom = max(1, len(yes) + len(no) - 2)
    within = ((yes - yes.mean(0)).square().sum() + (no - no.mean(0)).square().sum()) / (freedom * yes.shape[1])
    noise = (within * (1 / len(yes) + 1 / len(no))).clamp(min=1e-12)
    prior = _PRIORS[:, None] * energy  # [T, D]
    likelihood = -((prior + noise).log() + difference.square() / (prior + noise)).sum(1)
    best = prior[likelihood.argmax()]
    return (difference * best / (best + noise)) @ axes.T


def _separation(yes: Tensor, no: Tensor, energies: list[tuple[Tensor, Tensor]]) -> float:
    """The chance that a yes scores above a no, each picture [L, D] scored by the normal found without it."""
    def score(picture: Tensor, others: Tensor, rest: Tensor, sign: float) -> float:
        total = 0.0
        for row, energy in enumerate(energies):
            normal = _shrunk(others[:, row], rest[:, row], *energy) * sign
            middle = (others[:, row].mean(0) + rest[:, row].mean(0)) / 2
            total += float((picture[row] - middle) @ normal)
        return total

    scores = [score(yes[i], torch.cat([yes[:i], yes[i + 1 :]]), no, 1.0) for i in range(len(yes))]
    scores += [score(no[i], torch.cat([no[:i], no[i + 1 :]]), yes, -1.0) for i in range(len(no))]
    return auc(np.array(scores), np.arange(len(scores)) < len(yes))


def _sorted_channels(generator: Generator, yes: Latents, no: Latents, name: str, num_channels: int, info: dict,
                     population: Tensor) -> Direction:
    """The channels that tell `yes` from `no` best and are seen, each moved by its mean difference."""
    if num_channels < 1:
        raise DirectionError(f"A sparse direction moves at least 1 channel, not {num_channels}.")
    differences, scores = [], []
    for high, low, spread in zip(styles_of(generator, yes), styles_of(generator, no), style_spreads(generator),
                                 strict=True):
        unit = spread.clamp(min=1e-30)
        difference = torch.where(spread > 0, (high.mean(0) - low.mean(0)) / unit, 0.0)  # [C_i]
        squares = (high - high.mean(0)).square().sum(0) + (low - low.mean(0)).square().sum(0)
        within = (squares / max(1, len(high) + len(low) - 2)).sqrt() / unit
        differences.append(difference)
        scores.append(torch.where(spread > 0, difference / (within + 0.5), 0.0))  # half a deviation: few pictures lie
    if takes_gradients(generator):
        side = min(SIDE, generator.resolution)
        middle = Latents(torch.cat([yes.ws, no.ws]).mean(0, keepdim=True))
        seen = channel_strengths(generator, middle, torch.ones(side, side))
        scores = [score * strength for score, strength in zip(scores, seen, strict=True)]
    chosen = [torch.where(kept != 0, difference, 0.0)
              for kept, difference in zip(strongest(scores, num_channels), differences, strict=True)]
    info = {**info, "method": "channels that tell sorted pictures apart, arXiv 2011.12799"}
    return style_direction(generator, name, chosen, STYLES, info, population)


def _is_plain_w(latents: Latents) -> bool:
    """Whether every picture has the same w at each layer."""
    return torch.allclose(latents.ws, latents.ws[:, :1].expand_as(latents.ws), atol=1e-6)


def _length(direction: Direction) -> float:
    """The length of a direction over all that it moves."""
    parts = [direction.vector.double().norm(), *(c.double().norm() for c in (direction.channels or {}).values())]
    return float(torch.stack([part.reshape(()) for part in parts]).norm())
