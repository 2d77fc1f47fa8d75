"""Points of W+ and ways to move them: truncation, style mixing, directions, interpolation.

N latents, L layers, D numbers per layer. Values are frozen: every operation returns a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from stylegan.errors import DirectionError, RequestError


@dataclass(frozen=True, eq=False)
class Direction:
    """A way to move in W+ or S space that means something, scaled so that strength 1 is one standard deviation.

    `vector` [L, D] moves the layers `layers` (first, last, both included) unless an edit names others; `kind` says
    how it was found (pca, sefa, attribute, ...), `info` holds its provenance as JSON-able values. `channels` [C_i]
    moves the styles behind affine map i, which `rows` says to belong to which layer; the vector may then be zero.
    """

    name: str
    vector: torch.Tensor
    layers: tuple[int, int]
    kind: str = ""
    model_hash: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    channels: Mapping[int, torch.Tensor] | None = None
    rows: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        if set(self.channels or {}) != set(self.rows or {}):
            raise DirectionError(f"The direction {self.name!r} does not say in which layer each of its styles is.")

    @property
    def num_channels(self) -> int:
        """How many channels of S space it moves by itself: the fewer, the purer."""
        return sum(int(channel.count_nonzero()) for channel in (self.channels or {}).values())


@dataclass(frozen=True, eq=False)
class Latents:
    """Points of W+: `ws` float32 [N, L, D], and `offsets` [N or 1, C_i] added in S space behind affine map i."""

    ws: torch.Tensor
    offsets: Mapping[int, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ws.ndim != 3:
            raise RequestError(f"Latents must be [N, layers, dimensions], not {list(self.ws.shape)}.")

    @classmethod
    def from_w(cls, w: torch.Tensor, num_ws: int) -> Latents:
        """The same w [N, D] at every one of `num_ws` layers."""
        return cls(w.unsqueeze(1).repeat(1, num_ws, 1))  # [N, L, D]

    @property
    def num_ws(self) -> int:
        """How many layers there are."""
        return self.ws.shape[1]

    def __len__(self) -> int:
        return self.ws.shape[0]

    def __getitem__(self, index: int | slice) -> Latents:
        """Some of the points; an int gives Latents of length 1."""
        if isinstance(index, int):
            index = range(len(self))[index]
            index = slice(index, index + 1)
        return Latents(self.ws[index], {i: row if len(row) == 1 else row[index] for i, row in self.offsets.items()})

    def truncate(self, w_avg: torch.Tensor, psi: float, cutoff: int | None = None) -> Latents:
        """Pull towards the average w [D]: psi 1 leaves all as it is, 0 gives the average; layers below `cutoff` only.

        The truncation trick of arXiv 1812.04948, appendix B.
        """
        weights = [psi if cutoff is None or layer < cutoff else 1.0 for layer in range(self.num_ws)]
        ws = torch.lerp(w_avg.to(self.ws).expand_as(self.ws), self.ws, self._column(weights))
        return Latents(ws, self.offsets)

    def mix(self, other: Latents, weights: float | Sequence[float], layers: tuple[int, int] | None = None) -> Latents:
        """Style mixing (arXiv 1812.04948, section 3.1): go from here (weight 0) to `other` (weight 1), layer by layer.

        `weights` is one number or one per layer; `layers` (first, last) limits it, both included. Offsets stay.
        """
        self._require_like(other)
        inside = self.layer_mask(layers)
        if isinstance(weights, Sequence):
            if len(weights) != self.num_ws:
                raise RequestError(f"Style mixing needs {self.num_ws} weights, one per layer, not {len(weights)}.")
        else:
            weights = [weights] * self.num_ws
        chosen = [weight if keep else 0.0 for weight, keep in zip(weights, inside, strict=True)]
        ws = torch.lerp(self.ws, other.ws.to(self.ws).expand_as(self.ws), self._column(chosen))
        return Latents(ws, self.offsets)

    def move(self, direction: Direction, strength: float, layers: tuple[int, int] | None = None) -> Latents:
        """Move `strength` standard deviations along a direction, on its own layers or on `layers`."""
        if tuple(direction.vector.shape) != tuple(self.ws.shape[1:]):
            raise DirectionError(f"The direction {direction.name!r} was made for another model: it is "
                                 f"{list(direction.vector.shape)}, this model needs {list(self.ws.shape[1:])}.")
        inside = [strength if keep else 0.0 for keep in self.layer_mask(layers or direction.layers)]
        offsets = dict(self.offsets)
        for index, channel in (direction.channels or {}).items():
            row = direction.rows[index]
            if not 0 <= row < self.num_ws:
                raise DirectionError(f"The direction {direction.name!r} was made for another model: it moves layer "
                                     f"{row}, this model has {self.num_ws}.")
            if inside[row]:
                shift = inside[row] * channel.to(self.ws)[None]  # [1, C_i]
                offsets[index] = offsets[index] + shift if index in offsets else shift
        return Latents(self.ws + self._column(inside) * direction.vector.to(self.ws), offsets)  # [N, L, D]

    def lerp(self, other: Latents, t: float) -> Latents:
        """The straight way: here at t = 0, `other` at t = 1, both exactly."""
        self._require_like(other)
        return Latents(torch.lerp(self.ws, other.ws.to(self.ws).expand_as(self.ws), t), self._lerp_offsets(other, t))

    def slerp(self, other: Latents, t: float) -> Latents:
        """The way along the great circle between the two, layer by layer; the straight way where they are parallel.

        Offsets always go the straight way.
        """
        self._require_like(other)
        a, b = self.ws, other.ws.to(self.ws).expand_as(self.ws)
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=2, eps=1e-12).clamp(-1, 1).unsqueeze(2)  # [N, L, 1]
        angle = torch.acos(cosine)
        sine = torch.sin(angle)
        curved = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine.clamp_min(1e-12)
        return Latents(torch.where(sine > 1e-4, curved, torch.lerp(a, b, t)), self._lerp_offsets(other, t))

    def layer_mask(self, layers: tuple[int, int] | None) -> list[bool]:
        """For each layer whether it lies in the range (first, last); RequestError when the range leaves the model."""
        first, last = layers or (0, self.num_ws - 1)
        if not 0 <= first <= last < self.num_ws:
            raise RequestError(f"Layers {first}-{last} do not exist; this model has layers 0 to {self.num_ws - 1}.")
        return [first <= layer <= last for layer in range(self.num_ws)]

    def _lerp_offsets(self, other: Latents, t: float) -> dict[int, torch.Tensor]:
        """The offsets on the straight way to `other`; a missing one counts as zero."""
        found = {}
        for index in sorted({*self.offsets, *other.offsets}):
            a, b = self.offsets.get(index), other.offsets.get(index)
            a = torch.zeros_like(b) if a is None else a
            b = torch.zeros_like(a) if b is None else b
            found[index] = torch.lerp(*torch.broadcast_tensors(a, b), t)
        return found

    def _column(self, values: Sequence[float]) -> torch.Tensor:
        """One number per layer as [L, 1] beside `ws`."""
        return torch.tensor(values, dtype=self.ws.dtype, device=self.ws.device).unsqueeze(1)

    def _require_like(self, other: Latents) -> None:
        """RequestError unless `other` has these layers and dimensions and as many points, or one."""
        if self.ws.shape[1:] != other.ws.shape[1:] or len(other) not in (1, len(self)):
            raise RequestError(f"These latents belong to different models: {list(self.ws.shape)} and "
                               f"{list(other.ws.shape)}.")
