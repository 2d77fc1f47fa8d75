"""Leaky ReLU between two low-pass filters, so that it makes no frequencies that the grid cannot hold.

arXiv 2106.12423 section 3.1: upsample, bend, downsample; the alias that a pointwise function makes is filtered away
at the higher rate. Separable filters run along one axis at a time, radial ones in two dimensions.

Letters: N batch, C channels, H height, W width, T filter taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stylegan.ops.bias_act import SLOPE, SQRT2
from stylegan.ops.upfirdn import upfirdn


def filtered_lrelu(
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    up_filter: torch.Tensor | None = None,
    down_filter: torch.Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = SQRT2,
    slope: float = SLOPE,
    clamp: float = 0.0,
) -> torch.Tensor:
    """Add bias [C], upsample, leaky ReLU times gain, clamp to +-clamp (0: no clamp), downsample; x [N, C, H, W].

    A filter is [T] (separable), [T, T] or None (a single tap of 1). `padding` (before, after) counts pixels of the
    upsampled picture and may be negative; the result has (H * up + sum(padding) - T_up + 1 - T_down) // down + 1 rows.
    `gain` must be positive. Differentiable to any order in x and bias. Fastest on a CPU when x is channels-last.
    """
    if bias is not None:
        x = x + bias.to(x.dtype).reshape(1, -1, 1, 1)
    # Leaky ReLU is positively homogeneous: its gain rides on the filter's.
    if up_filter is None and up == 1 and padding == (0, 0):
        x = x * gain  # [N, C, H, W]
    else:
        kernel = x.new_ones(1) if up_filter is None else up_filter
        x = upfirdn(x, kernel, up=up, padding=padding, gain=up**2 * gain)  # [N, C, H', W'] at the higher rate
    if torch.is_grad_enabled():
        x = F.leaky_relu(x, slope) if slope != 1 else x
        x = x.clamp(-clamp, clamp) if clamp else x
    else:
        x = F.leaky_relu_(x, slope) if slope != 1 else x
        x = x.clamp_(-clamp, clamp) if clamp else x
    if down_filter is None:
        return x[:, :, ::down, ::down]
    return upfirdn(x, down_filter, down=down)
