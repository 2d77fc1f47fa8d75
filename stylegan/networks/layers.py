"""Layers that generators and discriminators share: equalised learning rate, styles, noise.

Letters: N batch, I input features or channels, O output, D width of w, K kernel, R resolution.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from stylegan.ops.bias_act import SQRT2, bias_act
from stylegan.ops.convolution import conv2d
from stylegan.ops.upfirdn import downsample, setup_filter, upfirdn


def normalize_2nd_moment(x: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """Scale rows of x [N, I] to unit mean square (arXiv 1710.10196 section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def drawn(*shape: int, divisor: float = 1.0) -> torch.Tensor:
    """Normal numbers over `divisor`, to begin a weight with; only room for them where a network is built as a mere
    shape, on the meta device, whose own way to draw imports 800 modules (2 s)."""
    if torch.get_default_device().type == "meta":
        return torch.empty(shape)
    return torch.randn(shape) if divisor == 1.0 else torch.randn(shape) / divisor


def dtype_at(dtype: torch.dtype, resolution: int, largest: int) -> torch.dtype:
    """What a layer computes in where `dtype` is asked: float16 only at the four largest resolutions, whose numbers stay
    in its range (arXiv 2006.06676 appendix C)."""
    return torch.float32 if dtype == torch.float16 and 16 * resolution <= largest else dtype


class FullyConnected(nn.Module):
    """Linear layer with run-time weight scaling (equalised learning rate, arXiv 1710.10196 section 4.1)."""

    def __init__(
        self, inputs: int, outputs: int, activation: str = "linear", lr_multiplier: float = 1.0, bias: float = 0.0
    ):
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, inputs, divisor=lr_multiplier))
        self.bias = nn.Parameter(torch.full([outputs], bias / lr_multiplier))
        self.activation = activation
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, I] -> [N, O]."""
        x = torch.addmm(self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain)  # [N, O]
        return bias_act(x, None, "lrelu", gain=SQRT2) if self.activation == "lrelu" else x


class Conv(nn.Module):
    """Convolution with equalised learning rate, leaky ReLU or linear, and optional halving (discriminator)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, activation="lrelu", bias=True, down=1, clamp=0.0):
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.activation, self.down, self.clamp = activation, down, clamp
        self.weight_gain = 1 / math.sqrt(inputs * kernel**2)
        self.register_buffer("resample_filter", setup_filter((1, 3, 3, 1)), persistent=False)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """x [N, I, R, R] -> [N, O, R / down, R / down]; `gain` scales result and clamp."""
        total = gain * (SQRT2 if self.activation == "lrelu" else 1.0)
        # Leaky ReLU is positively homogeneous: its gain can scale the (small) weight instead of the (large) result.
        weight = (self.weight * (self.weight_gain * total)).to(x.dtype)
        padding = weight.shape[-1] // 2
        if self.down == 1:
            x = conv2d(x, weight, padding=padding)
        elif weight.shape[-1] == 1:
            x = conv2d(downsample(x, self.resample_filter), weight)
        else:
            x = conv2d(self._smooth(x, padding), weight, stride=2)
        bias = None if self.bias is None else self.bias * total
        return bias_act(x, bias, self.activation, clamp=self.clamp * gain)

    def _smooth(self, x: torch.Tensor, padding: int) -> torch.Tensor:
        """Low-pass x before the strided convolution, with the padding of both in one go."""
        return upfirdn(x, self.resample_filter, padding=(padding + 1, padding + 1))
