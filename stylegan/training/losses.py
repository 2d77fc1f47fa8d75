"""What the two networks minimise: the logistic loss of the StyleGANs, or R3GAN's relativistic one.

arXiv 1406.2661 section 3 (non-saturating logistic), 1807.00734 and 2501.05441 section 3.1 (relativistic pairing).

Letters: N batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def generator_loss(fake_logits: torch.Tensor, real_logits: torch.Tensor | None = None) -> torch.Tensor:
    """softplus(-D(fake)) a picture, or with real logits softplus(-(D(fake) - D(real))); logits [N, 1] -> [N, 1]."""
    return F.softplus(-fake_logits if real_logits is None else real_logits - fake_logits)


def discriminator_loss(
    real_logits: torch.Tensor, fake_logits: torch.Tensor, relativistic: bool = False
) -> torch.Tensor:
    """softplus(-D(real)) + softplus(D(fake)), or softplus(-(D(real) - D(fake))); logits [N, 1] each -> [N, 1]."""
    if relativistic:
        return F.softplus(fake_logits - real_logits)
    return F.softplus(-real_logits) + F.softplus(fake_logits)
