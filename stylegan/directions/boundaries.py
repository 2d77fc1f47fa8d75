"""Linear boundaries in W and their conditioning (InterFaceGAN, arXiv 1907.10786 §3.1 and §3.3).

Shapes: N points, D w_dim, M conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def fit_normal(points: Tensor, scores: Tensor, ridge: float = 0.1) -> Tensor:
    """The normal [D] of the boundary between low and high scores [N] over points [N, D] (arXiv 1907.10786 §3.1).

    Ridge regression of the judge's score, a clamped logit or a measure, instead of the paper's support vector machine
    on the surest samples: it uses every sample, so rare attributes need fewer. Points should be whitened.
    """
    points, scores = points.double(), scores.double()
    points, scores = points - points.mean(0), scores - scores.mean()
    gram = points.T @ points / len(points) + ridge * torch.eye(points.shape[1], dtype=points.dtype)
    return torch.linalg.solve(gram, points.T @ scores / len(points))


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
