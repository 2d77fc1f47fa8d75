"""Kernel inception distance, without the inception: an unbiased squared MMD with a cubic kernel (arXiv 1801.01401).

N and M pictures, D features.
"""

from __future__ import annotations

import numpy as np
import torch

from stylegan.errors import DataError

NUM_SUBSETS = 100
MAX_SUBSET = 1000
MAX_IMAGES = 5000


def polynomial_kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(x.y / D + 1)^3 of every pair, float64 [N, M] (section 4)."""
    return ((x @ y.T).double() / x.shape[1] + 1) ** 3  # [N, M]


def kid(
    real: torch.Tensor,
    fake: torch.Tensor,
    *,
    subset_size: int | None = None,
    num_subsets: int = NUM_SUBSETS,
    seed: int = 0,
) -> tuple[float, float]:
    """KID between features real [N, D] and fake [M, D]: mean and standard deviation over random subsets.

    Unbiased whatever N and M: about 0, also below it, when both come from one distribution. subset_size None takes
    half of the smaller set, at most 1000; of more than 5000 features a random 5000 are used. Needs 4 of each.
    """
    rng = np.random.RandomState(seed)
    real, fake = _at_most(real, rng), _at_most(fake, rng)
    least = min(len(real), len(fake))
    size = min(MAX_SUBSET, least // 2) if subset_size is None else subset_size
    if not 2 <= size <= least:
        raise DataError(f"KID needs at least 4 pictures of each kind, not {len(real)} and {len(fake)}.")
    pick_real = _picks(len(real), size, num_subsets, rng)  # [S, N] zeros and ones
    pick_fake = _picks(len(fake), size, num_subsets, rng)  # [S, M]
    within = _mean_within(polynomial_kernel(real, real), pick_real, size)
    within += _mean_within(polynomial_kernel(fake, fake), pick_fake, size)
    across = ((pick_real @ polynomial_kernel(real, fake)) * pick_fake).sum(1) / size**2
    values = within - 2 * across  # [S] equation 4, U-statistic
    return values.mean().item(), values.std(correction=0).item()


def _at_most(features: torch.Tensor, rng: np.random.RandomState) -> torch.Tensor:
    """A random MAX_IMAGES of the rows, or all when there are not more."""
    if len(features) <= MAX_IMAGES:
        return features
    return features[torch.from_numpy(rng.permutation(len(features))[:MAX_IMAGES])]


def _picks(num: int, size: int, num_subsets: int, rng: np.random.RandomState) -> torch.Tensor:
    """Random subsets without replacement as rows of zeros and ones, float64 [S, num]."""
    picks = np.zeros((num_subsets, num))
    for row in picks:
        row[rng.permutation(num)[:size]] = 1
    return torch.from_numpy(picks)


def _mean_within(kernel: torch.Tensor, picks: torch.Tensor, size: int) -> torch.Tensor:
    """Mean kernel of distinct pairs within each subset, [S]."""
    return (((picks @ kernel) * picks).sum(1) - picks @ kernel.diagonal()) / (size * (size - 1))
