"""Randomness that does not depend on how a batch is divided: each phase draws for the whole batch and uses its rows.

Everything is drawn from (seed, images seen, phase), the same on every rank and in every part of an accumulated batch;
the rows of a part lie at equal distances in the batch, so the discriminator's strided groups stay whole.

Letters: N batch, C channels, R resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stylegan.networks.pieces import Noise

PHASES = ("generator", "path_length", "discriminator", "r1", "reals")


class Draws:
    """Sources of randomness of one phase: `plain` on the CPU for decisions, `network` on the device for z and noise."""

    def __init__(self, seed: int, nimg: int, phase: str, device: torch.device):
        place = PHASES.index(phase)
        words = np.random.SeedSequence([seed, nimg, place]).generate_state(2, np.uint64) >> np.uint64(1)
        self.plain = torch.Generator().manual_seed(int(words[0]))
        self.network = torch.Generator(device).manual_seed(int(words[1]))


@dataclass(frozen=True)
class Share:
    """The rows of a batch of `total` pictures that one rank computes in one go."""

    rows: slice
    total: int

    def noise(self, source: torch.Generator) -> Noise:
        """Noise for these rows of the batch."""
        return _RowNoise("random", 1.0, source, self)

    def of_first(self, num: int) -> Share:
        """The same share of a smaller batch."""
        return Share(self.rows, num)


def shares_of(batch: int, rank: int, world: int, parts: int) -> list[Share]:
    """The rows rank, rank + world, ... of a batch in equal `parts`, whose number may differ from rank to rank."""
    return [Share(slice(rank + world * i, None, world * parts), batch) for i in range(parts)]


@dataclass
class _RowNoise(Noise):
    """Random noise that is drawn for the whole batch and cut to a share of it."""

    share: Share | None = None

    def of(self, layer: nn.Module, batch: int) -> torch.Tensor | None:
        """The layer's noise, [n, 1, R, R] (or [n, C, R, R]) of the share, or None."""
        if not layer.use_noise:
            return None
        return super().of(layer, self.share.total)[self.share.rows]
