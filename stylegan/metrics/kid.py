"""Kernel inception distance, without the inception: an unbiased squared MMD with a cubic kernel (arXiv 1801.01401).

N and M pictures, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from stylegan.errors import DataError
from stylegan.metrics.features import FeatureExtractor
from stylegan.metrics.report import MetricReport
from stylegan.pixels import from_pixels, to_pixels

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


class KidMeter:
    """KID of a changing generator against fixed pictures, whose features are computed once.

    real_images are pixels uint8 [N, R, R, C]; `num` fakes are judged each time, against at most 2 * num reals.
    Every measurement uses the same subsets, so that two values differ only by the fakes.
    """

    def __init__(
        self, real_images: np.ndarray, num: int = 1000, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        if len(real_images) < 4:
            raise DataError(f"KID needs at least 4 real pictures, not {len(real_images)}.")
        self.num, self.seed = max(num, 4), seed
        self._extractor = FeatureExtractor(device)
        order = np.random.RandomState(seed).permutation(len(real_images))[: 2 * self.num]
        self._real = self._features_of_pixels(real_images, np.sort(order))
        self._floor: tuple[float, float] | None = None

    def measure(self, generate: Callable[[int], Iterable[torch.Tensor]]) -> MetricReport:
        """Judges `generate(num)`, images [n, C, H, W] in [-1, 1] a batch at a time, as 8-bit pictures show them."""
        found: list[torch.Tensor] = []
        for image in generate(self.num):
            if not torch.isfinite(image).all():
                raise DataError("The generator makes pictures that are not numbers, so they cannot be judged.")
            found.append(self._extractor(from_pixels(to_pixels(image))))
            if sum(map(len, found)) >= self.num:
                break
        fake = torch.cat(found)[: self.num] if found else torch.empty(0, self._extractor.num_features)
        value, spread = kid(self._real, fake, seed=self.seed)
        floor, floor_spread = self.floor()
        details = {"num_real": len(self._real), "floor": floor, "floor_spread": floor_spread, "seed": self.seed}
        return MetricReport(f"KID-{self._extractor.name}", value, spread, len(fake), self._extractor.name, details)

    def floor(self) -> tuple[float, float]:
        """KID between two disjoint random halves of the real pictures, and its spread: about 0."""
        if self._floor is None:
            order = torch.from_numpy(np.random.RandomState(self.seed).permutation(len(self._real)))
            half = len(order) // 2
            halves = self._real[order[:half]], self._real[order[half:]]
            self._floor = kid(*halves, seed=self.seed) if half >= 4 else (0.0, 0.0)
        return self._floor

    def _features_of_pixels(self, pixels: np.ndarray, indices: np.ndarray) -> torch.Tensor:
        """Features of some pictures, a batch at a time, [n, D]."""
        parts = np.array_split(indices, -(-len(indices) // 256))
        return torch.cat([self._extractor(from_pixels(np.array(pixels[part]))) for part in parts])
