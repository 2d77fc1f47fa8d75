"""Moving averages of the generator's weights (arXiv 1710.10196 section 5), with ramp-up (2006.06676 appendix C)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """One average of a generator; `half_life` in images, shortened to `ramp` of the images seen in early training."""

    def __init__(self, generator: nn.Module, half_life: float, ramp: float = 0.05):
        self.generator = copy.deepcopy(generator).eval().requires_grad_(False)
        self.half_life, self.ramp = half_life, ramp

    @torch.no_grad()
    def update(self, generator: nn.Module, nimg: int, batch: int, share: float = 1.0) -> None:
        """Move towards `generator` after a step of `batch` images that ended at `nimg`; buffers are copied.

        `share` of the half-life is used, where a schedule lets it grow.
        """
        half_life = max(min(self.half_life * share, nimg * self.ramp), 1e-8)
        beta = 0.5 ** (batch / half_life)
        averaged, current = list(self.generator.parameters()), list(generator.parameters())
        torch._foreach_lerp_(averaged, [p.detach() for p in current], 1 - beta)
        for mine, theirs in zip(self.generator.buffers(), generator.buffers(), strict=True):
            mine.copy_(theirs)
