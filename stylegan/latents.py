"""Points of W+ and ways to move them: truncation, style mixing, directions, interpolation.

N latents, L layers, D numbers per layer. Values are frozen: every operation returns a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from stylegan.errors import DirectionError, RequestError


@dataclass(frozen=True, eq=False)
class Direction:
    """A way to move in W+ that means something, scaled so that strength 1 is one standard deviation.

    `vector` [L, D] moves the layers `layers` (first, last, both included) unless an edit names others; `kind` says
    how it was found (pca, sefa, attribute, ...), `info` holds its provenance as JSON-able values.
    """

    name: str
    vector: torch.Tensor
    layers: tuple[int, int]
    kind: str = ""
    model_hash: str = ""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Latents:
    """Points of W+: `ws` float32 [N, L, D]."""

    ws: torch.Tensor

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
        return Latents(self.ws[index])

    def truncate(self, w_avg: torch.Tensor, psi: float, cutoff: int | None = None) -> Latents:
        """Pull towards the average w [D]: psi 1 leaves all as it is, 0 gives the average; layers below `cutoff` only.

        The truncation trick of arXiv 1812.04948, appendix B.
        """
        weights = [psi if cutoff is None or layer < cutoff else 1.0 for layer in range(self.num_ws)]
        return Latents(torch.lerp(w_avg.to(self.ws).expand_as(self.ws), self.ws, self._column(weights)))

    def mix(self, other: Latents, weights: float | Sequence[float], layers: tuple[int, int] | None = None) -> Latents:
        """Style mixing (arXiv 1812.04948, section 3.1): go from here (weight 0) to `other` (weight 1), layer by layer.

        `weights` is one number or one per layer; `layers` (first, last) limits it, both included.
        """
        self._require_like(other)
        inside = self.layer_mask(layers)
        if isinstance(weights, Sequence):
            if len(weights) != self.num_ws:
                raise RequestError(f"Style mixing needs {self.num_ws} weights, one per layer, not {len(weights)}.")
        else:
            weights = [weights] * self.num_ws
        chosen = [weight if keep else 0.0 for weight, keep in zip(weights, inside, strict=True)]
        return Latents(torch.lerp(self.ws, other.ws.to(self.ws).expand_as(self.ws), self._column(chosen)))

    def move(self, direction: Direction, strength: float, layers: tuple[int, int] | None = None) -> Latents:
        """Move `strength` standard deviations along a direction, on its own layers or on `layers`."""
        if tuple(direction.vector.shape) != tuple(self.ws.shape[1:]):
            raise DirectionError(f"The direction {direction.name!r} was made for another model: it is "
                                 f"{list(direction.vector.shape)}, this model needs {list(self.ws.shape[1:])}.")
        inside = [strength if keep else 0.0 for keep in self.layer_mask(layers or direction.layers)]
        return Latents(self.ws + self._column(inside) * direction.vector.to(self.ws))  # [N, L, D]

    def lerp(self, other: Latents, t: float) -> Latents:
        """The straight way: here at t = 0, `other` at t = 1, both exactly."""
        self._require_like(other)
        return Latents(torch.lerp(self.ws, other.ws.to(self.ws).expand_as(self.ws), t))

    def slerp(self, other: Latents, t: float) -> Latents:
        """The way along the great circle between the two, layer by layer; the straight way where they are parallel."""
        self._require_like(other)
        a, b = self.ws, other.ws.to(self.ws).expand_as(self.ws)
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=2, eps=1e-12).clamp(-1, 1).unsqueeze(2)  # [N, L, 1]
        angle = torch.acos(cosine)
        sine = torch.sin(angle)
        curved = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine.clamp_min(1e-12)
        return Latents(torch.where(sine > 1e-4, curved, torch.lerp(a, b, t)))

    def layer_mask(self, layers: tuple[int, int] | None) -> list[bool]:
        """For each layer whether it lies in the range (first, last); RequestError when the range leaves the model."""
        first, last = layers or (0, self.num_ws - 1)
        if not 0 <= first <= last < self.num_ws:
            raise RequestError(f"Layers {first}-{last} do not exist; this model has layers 0 to {self.num_ws - 1}.")
        return [first <= layer <= last for layer in range(self.num_ws)]

    def _column(self, values: Sequence[float]) -> torch.Tensor:
        """One number per layer as [L, 1] beside `ws`."""
        return torch.tensor(values, dtype=self.ws.dtype, device=self.ws.device).unsqueeze(1)

    def _require_like(self, other: Latents) -> None:
        """RequestError unless `other` has these layers and dimensions and as many points, or one."""
        if self.ws.shape[1:] != other.ws.shape[1:] or len(other) not in (1, len(self)):
            raise RequestError(f"These latents belong to different models: {list(self.ws.shape)} and "
                               f"{list(other.ws.shape)}.")
