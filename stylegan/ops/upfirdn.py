"""Upsample, filter with a FIR kernel, downsample (arXiv 1812.04948 section 2; 1912.04958 appendix B).

Letters: N batch, C channels, H height, W width, T filter taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def setup_filter(taps: tuple[float, ...] | torch.Tensor) -> torch.Tensor:
    """A separable kernel [T, T] with sum 1 from 1-D taps."""
    taps = torch.as_tensor(taps, dtype=torch.float32, device="cpu")
    kernel = taps.ger(taps)  # [T, T]
    return kernel / kernel.sum()


def upfirdn(
    x: torch.Tensor,
    kernel: torch.Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> torch.Tensor:
    """Insert up-1 zeros, pad (before, after) both axes, convolve with kernel [T, T] or [T], keep every down-th pixel.

    x [N, C, H, W] -> [N, C, H', W'] with H' = (H * up + sum(padding) - T) // down + 1. A 1-D kernel runs per axis.
    It is true convolution (the kernel is flipped). Differentiable to any order in x, not in the kernel.
    """
    return _UpFirDn.apply(x, kernel, up, down, (*padding, *padding), gain)


def upsample(x: torch.Tensor, kernel: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Double the picture's size; the mean is kept."""
    taps = kernel.shape[-1]
    return upfirdn(x, kernel, up=2, padding=((taps + 1) // 2, (taps - 2) // 2), gain=4 * gain)


def downsample(x: torch.Tensor, kernel: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Halve the picture's size; the mean is kept."""
    taps = kernel.shape[-1]
    return upfirdn(x, kernel, down=2, padding=((taps - 1) // 2, (taps - 2) // 2), gain=gain)


def _run(x, kernel, up, down, padding, gain):
    """One pass without autograd: padding is (left, right, top, bottom) of the zero-inserted picture."""
    channels = x.shape[1]
    if kernel.ndim == 1:
        row, column = kernel[None, :] * gain, kernel[:, None]
        x = _depthwise(x, row, (1, up), (1, down), (padding[0], padding[1], 0, 0), channels)
        return _depthwise(x, column, (up, 1), (down, 1), (0, 0, padding[2], padding[3]), channels)
    return _depthwise(x, kernel * gain, (up, up), (down, down), padding, channels)


def _depthwise(x, kernel, up, down, padding, channels):
    """Filter every channel alone; `up` and `down` are (vertical, horizontal)."""
    weight = kernel.to(x.dtype)
    rows, columns = weight.shape
    left, right, top, bottom = padding
    if up == (1, 1):
        inside = (top, left) if (top, left) == (bottom, right) and min(top, left) >= 0 else (0, 0)
        if any(padding) and not any(inside):  # what is alike on both sides costs nothing in the convolution
            x = F.pad(x, padding)
        weight = weight.flip(0, 1).expand(channels, 1, rows, columns)
        return F.conv2d(x, weight, stride=down, padding=inside, groups=channels)
    # A transposed convolution is zero insertion and full convolution; what is too much it can mostly cut off itself.
    weight = weight.expand(channels, 1, rows, columns)
    cut, rest = (rows - 1 - top, columns - 1 - left), (bottom - top + up[0] - 1, right - left + up[1] - 1)
    if min(cut) >= 0 and all(0 <= rest[i] < up[i] for i in (0, 1)):
        x = F.conv_transpose2d(x, weight, stride=up, padding=cut, output_padding=rest, groups=channels)
    else:
        x = F.conv_transpose2d(x, weight, stride=up, groups=channels)
        x = F.pad(x, (-cut[1], rest[1] - cut[1], -cut[0], rest[0] - cut[0]))
    return x[:, :, :: down[0], :: down[1]] if down != (1, 1) else x


class _UpFirDn(torch.autograd.Function):
    """upfirdn, whose gradient is upfirdn with up and down exchanged and the kernel flipped."""

    @staticmethod
    def forward(ctx, x, kernel, up, down, padding, gain):
        ctx.kernel, ctx.layout, ctx.size = kernel, (up, down, padding, gain), x.shape[2:]
        return _run(x, kernel, up, down, padding, gain)

    @staticmethod
    def backward(ctx, grad):
        up, down, (left, right, top, bottom), gain = ctx.layout
        taps = ctx.kernel.shape[-1]
        height, width = ctx.size
        before = (taps - 1 - left, taps - 1 - top)
        after = (
            width * up - grad.shape[3] * down + left - up + 1,
            height * up - grad.shape[2] * down + top - up + 1,
        )
        flipped = ctx.kernel.flip(list(range(ctx.kernel.ndim)))
        grad = _UpFirDn.apply(grad, flipped, down, up, (before[0], after[0], before[1], after[1]), gain)
        return grad, None, None, None, None, None
