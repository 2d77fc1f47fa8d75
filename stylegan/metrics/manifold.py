"""Fidelity and variety apart: precision, recall, density, coverage and a diversity ratio, all from distances.

N real and M fake pictures, D features, k nearest neighbours.
"""

from __future__ import annotations

import torch

from stylegan.errors import DataError

NUM_NEIGHBOURS = 5


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of every pair of features a [N, D] and b [M, D], float32 [N, M]."""
    centre = a.mean(0)  # what both share would eat the digits
    a, b = (a - centre).float(), (b - centre).float()
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T  # [N, M]
    return squares.clamp(min=0).sqrt()


def radii(within: torch.Tensor, num_neighbours: int = NUM_NEIGHBOURS) -> torch.Tensor:
    """Distance of each picture to its k-th nearest other, [N], from their own distances [N, N]."""
    if len(within) < 2:
        raise DataError("Neighbours need at least 2 pictures of each kind; give more pictures.")
    others = within.clone().fill_diagonal_(torch.inf)
    return others.kthvalue(min(num_neighbours, len(within) - 1), dim=1).values


def precision_recall(
    real: torch.Tensor, fake: torch.Tensor, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[float, float]:
    """Improved precision and recall of features real [N, D] and fake [M, D], 0 to 1 (arXiv 1904.06991, equation 1).

    Precision: fakes within reach of some real; recall: reals within reach of some fake. Both grow with the number of
    pictures, so compare only equal numbers. Recall also falls, to nothing, where fakes are merely softer than reals:
    they lie closer together and reach less far; `metrics.kinds` says whether kinds of picture are missing.
    """
    across = distances(real, fake)
    real_reach, fake_reach = (radii(distances(x, x), num_neighbours) for x in (real, fake))
    precision = (across <= real_reach[:, None]).any(0).float().mean().item()
    recall = (across <= fake_reach[None]).any(1).float().mean().item()
    return precision, recall


def density_coverage(
    real: torch.Tensor, fake: torch.Tensor, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[float, float]:
    """Density and coverage of features real [N, D] and fake [M, D] (arXiv 2002.09797, equations 3 and 4).

    Density: how many reals reach a fake, over k, about 1 when both are alike and above it for typical pictures only.
    Coverage, 0 to 1: reals that have a fake within their reach; it grows with the number of fakes a real.
    """
    across = distances(real, fake)
    within_reach = across <= radii(distances(real, real), num_neighbours)[:, None]  # [N, M]
    density = within_reach.float().sum(0).mean().item() / min(num_neighbours, len(real) - 1)
    return density, within_reach.any(1).float().mean().item()


def diversity(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Mean distance of two fakes over that of two reals: 1 when as varied, 0 when all fakes are one picture."""
    return _mean_distance(fake) / max(_mean_distance(real), 1e-12)


def _mean_distance(features: torch.Tensor) -> float:
    """Mean distance of two different pictures."""
    num = len(features)
    if num < 2:
        raise DataError("Diversity needs at least 2 pictures of each kind; give more pictures.")
    return distances(features, features).fill_diagonal_(0).double().sum().item() / (num * (num - 1))
