"""Which directions change the picture on screen, how much, where, and through which layers.

Shapes: N pictures, C image channels, S their side, C_i channels of affine map i.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.device import full_precision
from stylegan.directions.channels import SIDE, channel_strengths, takes_gradients, top_channels
from stylegan.directions.small import draw, pieces_for
from stylegan.directions.styles import channel_direction, style_shifts, style_spreads
from stylegan.directions.zones import style_zones, zone_of
from stylegan.errors import DirectionError
from stylegan.latents import Direction, Latents
from stylegan.models import LoadedModel
from stylegan.networks.generator import Generator
from stylegan.pixels import to_pixels
from stylegan.render import Renderer
from stylegan.request import REGION_SIDE, RenderRequest, channel_of, decode_region

STRENGTH = 2.0
LEVELS = 255 / 2  # of 255, in a unit of [-1, 1]
MAX_REMEMBERED = 32  # pictures whose effects are kept
_SPARE = 2  # candidates rendered for each channel asked for
_SEEN: weakref.WeakKeyDictionary[Renderer, dict] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Effect:
    """What a direction does to one picture: mean absolute change of a pixel at -2 and +2 deviations, in levels of 255.

    `total` over the picture, `inside` over the painted mask, `inside_share` the part of the whole change that lies
    inside (0 to 1); without a mask `inside` is `total` and the share 1. `zone` is one of ZONES.
    """

    name: str
    total: float
    inside: float
    inside_share: float
    zone: str

    @property
    def score(self) -> float:
        """What the list is sorted by: much change inside the mask, and little outside."""
        return self.inside * self.inside_share


@dataclass(frozen=True)
class RankStep:
    """How far the ranking is (0 to 1), what it does, and the effects so far, sorted."""

    done: float
    message: str
    effects: tuple[Effect, ...]


def rank(renderer: Renderer, request: RenderRequest, names: Iterable[str] | None = None, mask: str | None = None,
         channels: int = 0) -> list[Effect]:
    """`rank_steps` to its end."""
    effects: tuple[Effect, ...] = ()
    for step in rank_steps(renderer, request, names, mask, channels):
        effects = step.effects
    return list(effects)


def rank_steps(renderer: Renderer, request: RenderRequest, names: Iterable[str] | None = None,
               mask: str | None = None, channels: int = 0) -> Iterator[RankStep]:
    """Measure directions (all of the model's without `names`) on the request's picture, one a step; sorted by effect.

    `mask` is the text of `encode_region`. `channels` adds that many channels of S space, where `takes_gradients`:
    gradients inside the mask choose twice as many, pictures tell which of them stay. The renderer's lane is taken for
    one direction at a time.
    Raises RequestError or DirectionError as `Renderer.latents` does.
    """
    model = renderer.model(request.model)
    latents = renderer.latents(request)
    weights = _weights(mask, min(SIDE, model.generator.resolution))
    directions = [_direction(model, name) for name in (model.directions if names is None else dict.fromkeys(names))]
    yield RankStep(0.0, "looking at the picture", ())
    chosen: list[Direction] = []
    if channels and takes_gradients(model.generator):
        with renderer.turn(), full_precision():
            asked = {direction.name for direction in directions}
            strengths = channel_strengths(model.generator, latents, weights, request)
            likely = top_channels(strengths, _SPARE * channels + len(asked))
            chosen = [channel_direction(model.generator, name) for name, _ in likely if name not in asked]
            chosen = chosen[: _SPARE * channels]
    measure = _Measure(renderer, model, latents, request, weights, mask)
    found: list[Effect] = []
    extra: list[Effect] = []
    for number, direction in enumerate([*directions, *chosen], start=1):
        effect = measure(direction)
        (found if number <= len(directions) else extra).append(effect)
        kept = sorted(extra, key=lambda one: -one.score)[:channels]
        yield RankStep(number / (len(directions) + len(chosen)), f"measuring {direction.name}",
                       tuple(sorted([*found, *kept], key=lambda one: -one.score)))


def strip(renderer: Renderer, request: RenderRequest, name: str,
          strengths: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3), side: int = SIDE) -> np.ndarray:
    """The picture moved along a direction, small, as pixels uint8 [len(strengths), S, S, C]."""
    model = renderer.model(request.model)
    direction, latents = _direction(model, name), renderer.latents(request)
    if not 1 <= len(strengths) <= 64 or not 8 <= side <= 1024:
        raise DirectionError("A strip has 1 to 64 pictures of 8 to 1024 pixels.")
    with renderer.turn(), full_precision():
        steps = [latents.move(direction, strength) for strength in strengths]
        return np.concatenate([to_pixels(draw(model.generator, step, side, request)) for step in steps])


def _direction(model: LoadedModel, name: str) -> Direction:
    """A direction of the model, or a channel, by name."""
    if channel_of(name):
        return channel_direction(model.generator, name)
    if name not in model.directions:
        raise DirectionError(f"The model {model.name!r} has no direction {name[:40]!r}.")
    return model.directions[name]


class _Measure:
    """Measures directions on one picture, and remembers what it measured."""

    def __init__(self, renderer: Renderer, model: LoadedModel, latents: Latents, request: RenderRequest,
                 weights: Tensor, mask: str | None) -> None:
        self.renderer, self.model, self.latents, self.request = renderer, model, latents, request
        self.weights, self.masked = weights, mask is not None
        pictures = _SEEN.setdefault(renderer, {})
        key = (model.hash, request.to_json(), mask)
        self.seen: dict[str, tuple[Direction, Effect]] = pictures.pop(key, {})
        pictures[key] = self.seen
        while len(pictures) > MAX_REMEMBERED:
            pictures.pop(next(iter(pictures)))
        self.bases: dict[int, Tensor] = {}
        self.zones = style_zones(model.generator)

    @cached_property
    def strengths(self) -> list[Tensor]:
        """What each channel does to the whole picture, [C_i] each; all alike where gradients cost too much."""
        if not takes_gradients(self.model.generator):
            return [torch.ones_like(spread) for spread in style_spreads(self.model.generator)]
        return channel_strengths(self.model.generator, self.latents, torch.ones_like(self.weights), self.request)

    def __call__(self, direction: Direction) -> Effect:
        """The effect of a direction on the picture; the lane is taken when it must be drawn."""
        known = self.seen.get(direction.name)
        if known and (known[0] is direction or channel_of(direction.name)):
            return known[1]
        with self.renderer.turn(), full_precision():
            effect = self._drawn(direction)
        self.seen[direction.name] = direction, effect
        return effect

    def _drawn(self, direction: Direction) -> Effect:
        """The effect, from pictures at either end."""
        generator = self.model.generator
        side = self.weights.shape[-1]
        reach = _reach(generator, direction, side)

        def look(latents: Latents) -> Tensor:
            pictures = draw(generator, latents, reach, self.request)
            return F.interpolate(pictures, (side, side), mode="area") if reach != side else pictures

        if reach not in self.bases:
            self.bases[reach] = look(self.latents)
        ends = torch.cat([look(self.latents.move(direction, sign * STRENGTH)) for sign in (-1, 1)])
        change = (ends - self.bases[reach]).abs().mean((0, 1)) * LEVELS  # [S, S]
        total, inside = float(change.mean()), float((change * self.weights).sum() / self.weights.sum())
        share = float((change * self.weights).sum() / change.sum().clamp(min=1e-9)) if self.masked else 1.0
        zone = zone_of(self.zones, style_shifts(generator, direction), self.strengths, self.bases[reach], ends)
        return Effect(direction.name, total, inside, min(1.0, share), zone)


def _reach(generator: Generator, direction: Direction, side: int) -> int:
    """The side up to which a network must run for a direction to show: all of it where it acts only on later layers."""
    pieces = generator.synthesis.pieces()
    drawn = pieces[pieces_for(generator, side) - 1].styles.stop
    first = min(direction.channels or (len(pieces) ** 2,))
    live = [row for row in range(direction.layers[0], direction.layers[1] + 1) if direction.vector[row].any()]
    if live:
        rows = [row for row, _ in generator.synthesis.affines()]
        first = min(first, *(rows.index(row) for row in live if row in rows))
    return side if first < drawn else generator.resolution


def _weights(mask: str | None, side: int) -> Tensor:
    """A painted mask, or none, as weights [S, S] from 0 to 1; DirectionError when nothing is painted."""
    if mask is None:
        return torch.ones(side, side)
    painted = torch.frombuffer(bytearray(decode_region(mask)), dtype=torch.uint8).float() / 255
    if not painted.any():
        raise DirectionError("Nothing is painted; mark the region in the picture first.")
    square = painted.reshape(1, 1, REGION_SIDE, REGION_SIDE)
    if side < REGION_SIDE:
        return F.interpolate(square, (side, side), mode="area")[0, 0]
    return F.interpolate(square, (side, side), mode="bilinear", align_corners=False)[0, 0]
