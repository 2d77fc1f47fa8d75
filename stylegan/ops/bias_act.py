"""Bias, activation, gain and clamp in as few passes as plain PyTorch allows.

Letters: N batch, C channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

SQRT2 = math.sqrt(2.0)
SLOPE = 0.2


def bias_act(
    x: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "linear", gain: float = 1.0, clamp: float = 0.0
) -> torch.Tensor:
    """activation(x + bias) * gain, clamped to +-clamp (0: no clamp); x [N, C, ...], bias [C].

    'lrelu' is leaky ReLU of slope 0.2; its usual gain is sqrt 2 (arXiv 1912.04958 appendix B), given by the caller.
    """
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([1, -1] + [1] * (x.ndim - 2))
    if activation == "lrelu":
        x = F.leaky_relu(x, SLOPE)
    if gain != 1.0:
        x = x * gain
    return x.clamp(-clamp, clamp) if clamp else x
