"""The blur through which StyleGAN3-R's discriminator looks at first (arXiv 2106.12423 appendix F)."""

from __future__ import annotations

import torch

from stylegan.ops.upfirdn import upfirdn


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """images [N, C, R, R] behind a Gaussian of `sigma` pixels, cut off at three; themselves below a third of one."""
    side = min(int(3 * sigma), images.shape[3] - 1)
    if side < 1:
        return images
    places = torch.arange(-side, side + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp2(-(places / sigma).square())
    return upfirdn(images, kernel / kernel.sum(), padding=(side, side))
