"""Progressive growing: which resolution a run trains at which moment (arXiv 1710.10196 section 2). No torch.

    8 px | 8 -> 16 | 16 px | 16 -> 32 | 32 px ... to the end

Every part lasts `grow_kimg`, as in arXiv 1812.04948 appendix C, which also begins at 8 px. Only images seen decide, so
a resumed run stands where it stood.

Letters: N pictures, C channels, R resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FIRST_RESOLUTION = 8


@dataclass(frozen=True)
class Stage:
    """A part of a run, from `start` to `end` images: networks of one `resolution`, which in this part `fades` in."""

    resolution: int
    fades: bool = False
    start: float = 0.0
    end: float = math.inf

    @property
    def is_last(self) -> bool:
        """True when the networks have all their pixels for good."""
        return self.end == math.inf

    def fade(self, nimg: int) -> float:
        """The share of a picture that the resolution below still makes: 1 falling to 0 while it fades, else 0."""
        return 1 - (nimg - self.start) / (self.end - self.start) if self.fades else 0.0

    @property
    def sizes(self) -> str:
        """Its pixels, like `16 -> 32` or `32`."""
        return f"{self.resolution // 2} -> {self.resolution}" if self.fades else str(self.resolution)

    def words(self, nimg: int) -> str:
        """Where the stage stands, like `16 -> 32 px, 40 %` or `32 px, 40 %`."""
        share = "" if self.is_last else f", {100 * (nimg - self.start) / (self.end - self.start):.0f} %"
        return f"{self.sizes} px{share}"


def stages(resolution: int, grow_kimg: float) -> list[Stage]:
    """All stages of a run, in order; one for a run that does not grow (`grow_kimg` 0)."""
    if not grow_kimg or resolution <= FIRST_RESOLUTION:
        return [Stage(resolution)]
    sizes = [2**i for i in range(FIRST_RESOLUTION.bit_length() - 1, resolution.bit_length())]
    parts = [(size, fades) for size in sizes for fades in (True, False)][1:]  # the first size has nothing to fade from
    length = 1000 * grow_kimg
    ends = [*((i + 1) * length for i in range(len(parts) - 1)), math.inf]
    return [Stage(*part, i * length, end) for i, (part, end) in enumerate(zip(parts, ends, strict=True))]


def stage_at(resolution: int, grow_kimg: float, nimg: int) -> Stage:
    """The stage of a run that has seen so many images."""
    return next(stage for stage in stages(resolution, grow_kimg) if nimg < stage.end)


def stage_of(settings: Mapping[str, Any], nimg: int) -> Stage:
    """The stage of a run by its recorded settings, which an earlier version may have written."""
    return stage_at(settings.get("resolution") or 0, settings.get("grow_kimg") or 0.0, nimg)


def reduced(images: torch.Tensor, stage: Stage, nimg: int) -> torch.Tensor:
    """Real images [N, C, R, R] as the networks of a stage see them: averaged to its pixels, and faded as the fakes."""
    images = _averaged(images, stage.resolution)
    if not stage.fades:
        return images
    return images.lerp(enlarged(_averaged(images, stage.resolution // 2), stage.resolution), stage.fade(nimg))


def enlarged(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Images [N, C, r, r] with every pixel repeated to `resolution`."""
    times = resolution // images.shape[3]
    return images if times == 1 else images.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def _averaged(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Images [N, C, R, R] in squares of pixels, each their mean."""
    if images.shape[3] == resolution:
        return images
    return images.unflatten(3, (resolution, -1)).unflatten(2, (resolution, -1)).mean(dim=(3, 5))
