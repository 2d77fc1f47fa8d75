"""The non-saturating logistic loss (arXiv 1406.2661 section 3; used by all StyleGANs).

Letters: N batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """softplus(-D(fake)) a picture; logits [N, 1] -> [N, 1]."""
    return F.softplus(-fake_logits)


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """softplus(-D(real)) + softplus(D(fake)); logits [N, 1] each -> [N, 1]."""
    return F.softplus(-real_logits) + F.softplus(fake_logits)
