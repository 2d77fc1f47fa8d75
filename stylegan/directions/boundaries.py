"""Linear boundaries in W and their conditioning (InterFaceGAN, arXiv 1907.10786 §3.1 and §3.3).

Shapes: N points, D w_dim, M conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.errors import DirectionError

MIN_SIDE = 40  # samples on each side of a boundary


@dataclass(frozen=True, eq=False)
class Whitening:
    """The population's own metric: `forward` [D, D] is the root of the inverse covariance, `back` of the covariance.

    A unit step along any axis of whitened W is one standard deviation, so a normal fitted there does not run off
    along axes where the population has hardly any spread.
    """

    mean: Tensor
    forward: Tensor
    back: Tensor

    @classmethod
    def of(cls, w: Tensor, floor: float = 1e-6) -> Whitening:
        """From samples w [N, D]; axes with less than `floor` of the largest variance count as having that much."""
        w = w.double()
        mean = w.mean(0)
        values, axes = torch.linalg.eigh((w - mean).T @ (w - mean) / (len(w) - 1))
        root = values.clamp(min=float(values.max()) * floor + 1e-30).sqrt()
        return cls(mean, (axes / root) @ axes.T, (axes * root) @ axes.T)

    def whiten(self, w: Tensor) -> Tensor:
        """w [N, D] in whitened coordinates, float64."""
        return (w.double() - self.mean) @ self.forward


def fit_normal(points: Tensor, scores: Tensor, continuous: bool, ridge: float = 1e-2) -> Tensor:
    """The normal [D] of the boundary between high and low scores [N] over points [N, D] (arXiv 1907.10786 §3.1).

    Continuous scores by ridge regression; yes/no scores (logits) by ridge logistic regression on the samples of which
    the judge is sure, both sides weighing the same. Points should be centred and of unit spread.
    Raises DirectionError when one side has fewer than MIN_SIDE samples.
    """
    points, scores = points.double(), scores.double()
    if continuous:
        target = (scores - scores.mean()) / scores.std().clamp(min=1e-12)
        return _solve(points, torch.ones_like(target), target, ridge)
    sure = scores.abs() > 1
    points, positive = points[sure], scores[sure] > 0
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if min(num_positive, num_negative) < MIN_SIDE:
        rarer = "with" if num_positive < num_negative else "without"
        raise DirectionError(f"only {min(num_positive, num_negative)} of {len(scores)} samples are clearly {rarer} it")
    balance = torch.where(positive, 0.5 / num_positive, 0.5 / num_negative) * len(positive)
    return _logistic(torch.cat([points, torch.ones(len(points), 1, dtype=torch.float64)], 1), positive, balance, ridge)


def _solve(points: Tensor, weights: Tensor, target: Tensor, ridge: float) -> Tensor:
    """Weighted ridge regression: argmin over n of mean weights (points n - target)^2 + ridge |n|^2, [D]."""
    weighted = points * weights[:, None]
    gram = weighted.T @ points / len(points) + ridge * torch.eye(points.shape[1], dtype=points.dtype)
    return torch.linalg.solve(gram, weighted.T @ target / len(points))


def _logistic(points: Tensor, positive: Tensor, balance: Tensor, ridge: float, steps: int = 12) -> Tensor:
    """Ridge logistic regression by iteratively reweighted least squares; the last column of points is the offset."""
    normal = torch.zeros(points.shape[1], dtype=points.dtype)
    for _ in range(steps):
        logit = points @ normal
        chance = torch.sigmoid(logit)
        curvature = (chance * (1 - chance)).clamp(min=1e-3)
        update = _solve(points, balance * curvature, logit + (positive.double() - chance) / curvature, ridge)
        if (update - normal).norm() <= 1e-6 * update.norm():
            break
        normal = update
    return update[:-1]


def condition(normal: Tensor, others: Tensor) -> Tensor:
    """The normal [D] less its part in the span of the others [M, D], so that moving along it leaves them alone.

    Conditional manipulation, arXiv 1907.10786 §3.3, for any number of conditions.
    """
    if not len(others):
        return normal
    unit = others / others.norm(dim=1, keepdim=True).clamp(min=1e-30)
    _, spread, rows = torch.linalg.svd(unit, full_matrices=False)
    basis = rows[spread > 1e-2 * spread[0]]  # [rank, D]
    return normal - (normal @ basis.T) @ basis
