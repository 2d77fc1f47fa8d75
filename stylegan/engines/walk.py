"""What an engine is, and the walk over a network's pieces with one: from the last state that is still known, up to
where a picture is wanted, with edits that act on a part of the picture only.

Letters: N batch, C channels of a layer, H height, W width, R resolution.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

from stylegan.networks.pieces import Noise, Piece, State


class Engine(Protocol):
    """Runs single pieces of one network; `name` says in words what runs them, like `torch float32`."""

    name: str

    def run(self, index: int, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state after piece `index`; `styles` are the piece's own, [N, C] each."""
        ...


class Region(NamedTuple):
    """Another S space for a part of the picture: `mask` [1, 1, h, w] from 0 to 1, 1 where `styles` apply fully."""

    mask: torch.Tensor
    styles: list[torch.Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """All that decides a picture: the S space of each affine map [N, C_i], noise, the start, regions, and as `key`
    everything else in bytes: the model, the engine, the noise, the transform."""

    styles: list[torch.Tensor]
    noise: Noise
    start: State
    key: bytes
    regions: tuple[Region, ...] = ()


class Walked(NamedTuple):
    """Where a walk came to: the state, the piece it started with, and the seconds that each piece took."""

    state: State
    first: int
    seconds: list[float]


class Prefixes:
    """States after pieces, the last used ones, at most `max_bytes` of them; safe to share between threads."""

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._kept: OrderedDict[bytes, tuple[State, torch.Tensor | None, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: list[bytes]) -> tuple[int, State, torch.Tensor | None] | None:
        """(number of the next piece, state before it, its random state) behind the longest known prefix."""
        with self._lock:
            for index in range(len(keys) - 1, -1, -1):
                if keys[index] in self._kept:
                    self._kept.move_to_end(keys[index])
                    state, draws, _ = self._kept[keys[index]]
                    return index + 1, state, draws
        return None

    def keep(self, key: bytes, state: State, draws: torch.Tensor | None) -> None:
        """Remember a state; what is larger than a half of the room is not worth the others."""
        num_bytes = sum(part.nelement() * part.element_size() for part in (*state, draws) if part is not None)
        if num_bytes > self.max_bytes // 2:
            return
        with self._lock:
            self.num_bytes -= self._kept.pop(key, (None, None, 0))[2]
            self._kept[key] = (state, draws, num_bytes)
            self.num_bytes += num_bytes
            while self.num_bytes > self.max_bytes:
                self.num_bytes -= self._kept.popitem(last=False)[1][2]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.num_bytes = 0


def prefix_keys(pieces: list[Piece], plan: Plan) -> list[bytes]:
    """One key a piece, equal only where everything is equal that decides the state after it."""
    digest = hashlib.blake2b(plan.key, digest_size=24)
    keys = []
    for piece in pieces:
        for style in plan.styles[piece.styles]:
            digest.update(repr(tuple(style.shape)).encode() + style.contiguous().cpu().numpy().tobytes())
        for region in _regions_of(piece, plan):
            digest.update(b"region" + region.mask.contiguous().cpu().numpy().tobytes())
            for style in region.styles[piece.styles]:
                digest.update(style.contiguous().cpu().numpy().tobytes())
        keys.append(digest.digest())
    return keys


@torch.no_grad()
def walk(
    engine: Engine,
    pieces: list[Piece],
    plan: Plan,
    prefixes: Prefixes | None = None,
    stop: Callable[[int], int] | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Walked | None:
    """Run the pieces of a plan, from behind what `prefixes` knows up to the piece that `stop(first)` names or the last.

    None when `goes_on` said no before a piece. With the same engine the bits do not depend on `prefixes`: random noise
    continues from the random state that was kept with the features.
    """
    keys = prefix_keys(pieces, plan) if prefixes is not None else []
    first, state, draws = (prefixes.find(keys) if keys else None) or (0, plan.start, None)
    source = plan.noise.source if plan.noise.mode == "random" else None
    if draws is not None and source is not None:
        source.set_state(draws)
    end = len(pieces) - 1
    last = end if stop is None or first > end else max(stop(first), first)
    seconds = []
    for index in range(first, last + 1):
        if not goes_on():
            return None
        start = time.perf_counter()
        state = _step(engine, index, pieces[index], state, plan, source)
        seconds.append(time.perf_counter() - start)
        if keys:
            kept = State(None, state.image) if index == end else state
            prefixes.keep(keys[index], kept, None if source is None else source.get_state())
    return Walked(state, first, seconds)


def _step(engine: Engine, index: int, piece: Piece, state: State, plan: Plan, source: torch.Generator | None) -> State:
    """One piece, and for every region that differs here once more, laid over the first by the region's mask."""
    regions = _regions_of(piece, plan)
    draws = source.get_state() if regions and source is not None else None
    base = engine.run(index, state, plan.styles[piece.styles], plan.noise)
    x, image = base
    for region in regions:
        if draws is not None:
            source.set_state(draws)
        edited = engine.run(index, state, region.styles[piece.styles], plan.noise)
        if x is not None and edited.x is not None:
            x = x + (edited.x - base.x) * _on_grid(region.mask, x, piece.resolution)
        if image is not None:
            image = image + (edited.image - base.image) * _on_grid(region.mask, image, image.shape[3])
    return State(x, image)


def _regions_of(piece: Piece, plan: Plan) -> list[Region]:
    """The regions whose styles of a piece are not the picture's own."""
    mine = plan.styles[piece.styles]
    return [region for region in plan.regions
            if not all(map(torch.equal, mine, region.styles[piece.styles]))]


def _on_grid(mask: torch.Tensor, x: torch.Tensor, resolution: int) -> torch.Tensor:
    """The mask on the grid of x [N, C, H, W], of which the middle `resolution` pixels are the picture (StyleGAN3)."""
    smaller = resolution < mask.shape[3]
    mask = F.interpolate(mask.to(x), size=(resolution, resolution), mode="area" if smaller else "bilinear")
    down, right = x.shape[2] - resolution, x.shape[3] - resolution
    return F.pad(mask, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")
