"""The Frechet distance between two sets of features, each taken as a Gaussian (arXiv 1706.08500, equation 6).

N pictures, D features.
"""

from __future__ import annotations

import torch

from stylegan.errors import DataError


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of features real [N, D] and fake [M, D], in float64.

    Called FID only with Inception features. Too large for few pictures, whatever they show: compare equal numbers.
    """
    if min(len(real), len(fake)) < 2:
        raise DataError("The Frechet distance needs at least 2 pictures of each kind; give more pictures.")
    real, fake = real.double(), fake.double()
    root_real, root_fake = _root(real), _root(fake)
    shared = torch.linalg.svdvals(root_real @ root_fake.T).sum()  # tr (C1 C2)^(1/2) is the nuclear norm of R1 R2^T
    traces = (root_real**2).sum() + (root_fake**2).sum()
    gap = ((real.mean(0) - fake.mean(0)) ** 2).sum()
    return max((gap + traces - 2 * shared).item(), 0.0)


def _root(features: torch.Tensor) -> torch.Tensor:
    """R [min(N, D), D] whose R^T R is the unbiased covariance of the features."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return centred if len(features) <= features.shape[1] else torch.linalg.qr(centred, mode="r").R
