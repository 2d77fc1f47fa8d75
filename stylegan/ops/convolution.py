"""Convolution whose second derivative stays cheap on a CPU.

PyTorch's own double backward writes the weight gradient as a convolution with an image-sized kernel, 6 to 20 times
slower than it need be; R1 and path length pay for that. Here each gradient is an operator with a gradient of its own.

Letters: N batch, I input channels, O output channels, K kernel, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def conv2d(x: torch.Tensor, weight: torch.Tensor, stride: int = 1, padding: int = 0) -> torch.Tensor:
    """Correlate x [N, I, H, W] with weight [O, I, K, K]; returns [N, O, H', W']."""
    if not torch.is_grad_enabled():
        return F.conv2d(x, weight, stride=stride, padding=padding)
    return _Conv.apply(x, weight, False, stride, padding, (0, 0))


def conv_transpose2d(x: torch.Tensor, weight: torch.Tensor, stride: int = 1, padding: int = 0) -> torch.Tensor:
    """Transposed convolution of x [N, I, H, W] with weight [I, O, K, K]; returns [N, O, H', W']."""
    if not torch.is_grad_enabled():
        return F.conv_transpose2d(x, weight, stride=stride, padding=padding)
    return _Conv.apply(x, weight, True, stride, padding, (0, 0))


class _Conv(torch.autograd.Function):
    """A (transposed) convolution; its input gradient is the other kind of convolution, applied through this class."""

    @staticmethod
    def forward(ctx, x, weight, transposed, stride, padding, rest):
        ctx.save_for_backward(x, weight)
        ctx.layout = (transposed, stride, padding, rest)
        if transposed:
            return F.conv_transpose2d(x, weight, stride=stride, padding=padding, output_padding=rest)
        return F.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = _input_grad(grad, x, weight, ctx.layout) if ctx.needs_input_grad[0] else None
        grad_weight = _WeightGrad.apply(grad, x, weight, *ctx.layout) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None, None, None, None


class _WeightGrad(torch.autograd.Function):
    """The weight gradient of `_Conv`, linear in both the output gradient and the input."""

    @staticmethod
    def forward(ctx, grad, x, weight, transposed, stride, padding, rest):
        ctx.save_for_backward(grad, x)
        ctx.layout = (transposed, stride, padding, rest)
        sizes = ([stride] * 2, [padding] * 2, [1, 1], transposed, list(rest), 1)
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *sizes, [False, True, False])[1]

    @staticmethod
    def backward(ctx, grad2):
        grad, x = ctx.saved_tensors
        grad_grad = _Conv.apply(x, grad2, *ctx.layout) if ctx.needs_input_grad[0] else None
        grad_x = _input_grad(grad, x, grad2, ctx.layout) if ctx.needs_input_grad[1] else None
        return grad_grad, grad_x, None, None, None, None, None


def _input_grad(grad, x, weight, layout):
    """The gradient of a `_Conv` by its input: the other kind of convolution, cut to x's size."""
    transposed, stride, padding, _ = layout
    rest = (0, 0)
    if not transposed:
        covered = [(grad.shape[i] - 1) * stride + weight.shape[i] - 2 * padding for i in (2, 3)]
        rest = (x.shape[2] - covered[0], x.shape[3] - covered[1])
    return _Conv.apply(grad, weight, not transposed, stride, padding, rest)
