"""Penalties that are applied only every few steps (lazily, arXiv 1912.04958 section 3.1).

Letters: N batch, C channels, H height, W width, L rows of W+, D width of w.
"""

from __future__ import annotations

import torch


def r1_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared gradient norm [N] of logits [N, 1] by real images [N, C, H, W] (arXiv 1801.04406 equation 9)."""
    (gradient,) = torch.autograd.grad(logits.sum(), [images], create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_length_penalty(
    images: torch.Tensor, ws: torch.Tensor, mean: torch.Tensor, noise: torch.Tensor, decay: float = 0.01
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distance of each path length from its running mean (arXiv 1912.04958 eq. 4).

    images [N, C, H, W] made from ws [N, L, D]; noise of the images' shape, standard normal. Returns the penalty [N] and
    the new mean [].
    """
    projected = (images * noise).sum() / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad(projected, [ws], create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()  # [N]
    mean = mean.lerp(lengths.detach().mean(), decay)
    return (lengths - mean).square(), mean
