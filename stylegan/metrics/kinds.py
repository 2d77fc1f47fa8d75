"""Are all kinds of picture there? Pictures are sorted into kinds, and the shares of the kinds compared.

Recall asks whether real pictures lie within reach of fakes, so it also falls when fakes are merely a touch softer than
photographs: they lie closer together, and reach less far. Which kind a picture is hardly changes when it is softer.
After arXiv 1805.12462, section 3, with the overlap of the two histograms in the place of a count of tests.
N and M pictures, D features, K kinds.
"""

from __future__ import annotations

import torch

from stylegan.errors import DataError
from stylegan.metrics.manifold import distances

NUM_KINDS = 20
LEAST_OF_A_KIND = 10  # real pictures on average, below which there are fewer kinds
_ROUNDS = 20


def kinds(real: torch.Tensor, fake: torch.Tensor, seed: int = 0) -> float:
    """Overlap of how often features real [N, D] and fake [M, D] are of each kind, 0 to 1 (1: in the same shares).

    Kinds are up to 20 clusters of the real pictures. It needs no equal counts, but few pictures keep it below 1 even
    where both are real, so compare it with real against real.
    """
    if len(real) < 2 or len(fake) < 2:
        raise DataError("Kinds need at least 2 pictures of each kind; give more pictures.")
    centres = _centres(real, max(2, min(NUM_KINDS, len(real) // LEAST_OF_A_KIND)), seed)
    shares = [torch.bincount(_nearest(centres, x), minlength=len(centres)) / len(x) for x in (real, fake)]
    return torch.minimum(*shares).sum().item()


def _centres(features: torch.Tensor, num: int, seed: int) -> torch.Tensor:
    """The means of `num` clusters, [K, D], by Lloyd's rounds from pictures chosen at random."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    centres = features[order[:num]]
    for _ in range(_ROUNDS):
        mine = _nearest(centres, features)
        sums = torch.zeros_like(centres).index_add_(0, mine, features)
        counts = torch.bincount(mine, minlength=num)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def _nearest(centres: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Which centre each picture is nearest to, int64 [N]."""
    return distances(centres, features).argmin(0)
