"""Penalties, mostly applied only every few steps (lazily, arXiv 1912.04958 section 3.1).

Letters: N batch, C channels, H height, W width, L rows of W+, D width of w.
"""

from __future__ import annotations

import torch


def gradient_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared gradient norm [N] of logits [N, 1] by images [N, C, H, W] (arXiv 1801.04406 equations 9 and 10).

    R1 with real images, R2 with generated ones.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), [images], create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: torch.Tensor, ws: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """How far images move when ws does (arXiv 1912.04958 eq. 4): lengths [N] with a graph.

    images [N, C, H, W] made from ws [N, L, D]; noise of the images' shape, standard normal. The penalty is the squared
    distance of each length from their running mean.
    """
    projected = (images * noise).sum() / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad(projected, [ws], create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
