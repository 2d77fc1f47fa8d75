"""The tensor functions against slow references, and their first and second derivatives in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stylegan.ops.bias_act import bias_act
from stylegan.ops.convolution import conv2d, conv_transpose2d
from stylegan.ops.modulated_conv import modulated_conv
from stylegan.ops.upfirdn import downsample, setup_filter, upfirdn, upsample


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal float64 numbers that require a gradient."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=source, dtype=torch.float64).requires_grad_(True)


def _twice(function, inputs) -> None:
    """Check first and second derivatives against finite differences."""
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (2, 0), (1, 0)])
def test_convolution_and_its_two_derivatives(stride, padding):
    x, weight = _random(2, 3, 7, 6), _random(4, 3, 3, 3, seed=1)
    assert torch.equal(conv2d(x, weight, stride, padding), F.conv2d(x, weight, stride=stride, padding=padding))
    _twice(lambda x, weight: conv2d(x, weight, stride, padding), (x, weight))


@pytest.mark.parametrize(("stride", "padding"), [(2, 0), (1, 1)])
def test_transposed_convolution_and_its_two_derivatives(stride, padding):
    x, weight = _random(2, 3, 4, 3), _random(3, 2, 3, 3, seed=1)
    expected = F.conv_transpose2d(x, weight, stride=stride, padding=padding)
    assert torch.equal(conv_transpose2d(x, weight, stride, padding), expected)
    _twice(lambda x, weight: conv_transpose2d(x, weight, stride, padding), (x, weight))


def test_double_backward_agrees_with_pytorchs_own():
    x, weight = _random(2, 3, 6, 6), _random(4, 3, 3, 3, seed=1)

    def penalty(convolve):
        (gradient,) = torch.autograd.grad(convolve(x, weight).tanh().sum(), [x], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, weight])

    ours, theirs = penalty(lambda x, w: conv2d(x, w, 2, 1)), penalty(lambda x, w: F.conv2d(x, w, stride=2, padding=1))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference)


def _slow_upfirdn(x, kernel, up, down, padding, gain):
    """Zero insertion, padding, a loop over the taps, and picking every down-th pixel."""
    height, width = x.shape[2:]
    spread = x.new_zeros(*x.shape[:2], height * up, width * up)
    spread[:, :, ::up, ::up] = x
    spread = F.pad(spread, (padding[0], padding[1], padding[0], padding[1]))
    taps = len(kernel)
    rows, columns = spread.shape[2] - taps + 1, spread.shape[3] - taps + 1
    result = x.new_zeros(*x.shape[:2], rows, columns)
    for i in range(taps):
        for j in range(taps):
            tap = kernel[taps - 1 - i, taps - 1 - j] * gain
            result += tap * spread[:, :, i : i + rows, j : j + columns]
    return result[:, :, ::down, ::down]


@pytest.mark.parametrize(
    ("up", "down", "padding"), [(1, 1, (1, 2)), (2, 1, (2, 1)), (1, 2, (1, 1)), (2, 2, (3, -1)), (2, 1, (1, 1))]
)
def test_upfirdn_is_its_definition_and_differentiable_twice(up, down, padding):
    x, kernel = _random(1, 2, 6, 5), _random(4, 4, seed=1).detach()
    ours = upfirdn(x, kernel, up, down, padding, 1.7)
    torch.testing.assert_close(ours, _slow_upfirdn(x, kernel, up, down, padding, 1.7))
    _twice(lambda x: upfirdn(x, kernel, up, down, padding, 1.7), (x,))


def test_one_dimensional_kernels_run_along_both_axes():
    x, taps = _random(2, 3, 5, 5), torch.tensor([1.0, 2.0, 5.0, 3.0], dtype=torch.float64)
    separable = upfirdn(x, taps, up=2, padding=(2, 1), gain=1.5)
    torch.testing.assert_close(separable, upfirdn(x, taps.outer(taps), up=2, padding=(2, 1), gain=1.5))


def test_doubling_and_halving_keep_flat_pictures_flat():
    kernel = setup_filter((1, 3, 3, 1))
    flat = torch.full([1, 3, 16, 16], 0.25)
    assert upsample(flat, kernel).shape == (1, 3, 32, 32)
    assert downsample(flat, kernel).shape == (1, 3, 8, 8)
    torch.testing.assert_close(upsample(flat, kernel)[:, :, 2:-2, 2:-2], torch.full([1, 3, 28, 28], 0.25))
    torch.testing.assert_close(downsample(flat, kernel)[:, :, 1:-1, 1:-1], torch.full([1, 3, 6, 6], 0.25))


def _slow_modulated_conv(x, weight, styles, demodulate):
    """Equations 1 to 3 of arXiv 1912.04958, one picture at a time."""
    results = []
    for picture, style in zip(x, styles, strict=True):
        scaled = weight * style.reshape(1, -1, 1, 1)
        if demodulate:
            scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        results.append(F.conv2d(picture[None], scaled, padding=weight.shape[-1] // 2))
    return torch.cat(results)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("num", [1, 3])
def test_modulated_convolution_is_its_definition(demodulate, num):
    x, weight, styles = _random(num, 4, 6, 6), _random(5, 4, 3, 3, seed=1), _random(num, 4, seed=2)
    expected = _slow_modulated_conv(x, weight, styles, demodulate)
    torch.testing.assert_close(modulated_conv(x, weight, styles, demodulate=demodulate), expected)
    with torch.no_grad():  # the path that folds the scales into the weight
        folded = modulated_conv(x, weight, styles, demodulate=demodulate, gain=1.5)
    torch.testing.assert_close(folded, expected.detach() * 1.5)


def test_doubling_modulated_convolution_is_zero_insertion_convolution_and_smoothing():
    x, weight, styles = _random(2, 3, 4, 4), _random(2, 3, 3, 3, seed=1), _random(2, 3, seed=2)
    kernel = setup_filter((1, 3, 3, 1)).double()
    ours = modulated_conv(x, weight, styles, demodulate=False, up=2, kernel=kernel)
    spread = x.new_zeros(2, 3, 8, 8)
    spread[:, :, ::2, ::2] = x * styles[:, :, None, None]
    spread = F.pad(spread, (3, 3, 3, 3))
    full = F.conv2d(spread, weight.flip(2, 3))  # true convolution, as the published weights are stored
    smooth = F.conv2d(full.reshape(4, 1, *full.shape[2:]), kernel.flip(0, 1)[None, None] * 4).reshape(2, 2, 9, 9)
    assert ours.shape == (2, 2, 8, 8)
    torch.testing.assert_close(ours, smooth[:, :, :8, :8])
    _twice(lambda *inputs: modulated_conv(*inputs, up=2, kernel=kernel), (x, weight, styles))


def test_bias_and_activation():
    x, bias = torch.tensor([[[[-2.0]], [[3.0]]]]), torch.tensor([1.0, -1.0])
    torch.testing.assert_close(bias_act(x, bias, "lrelu", gain=2.0).flatten(), torch.tensor([-0.4, 4.0]))
    torch.testing.assert_close(bias_act(x, bias, clamp=1.5).flatten(), torch.tensor([-1.0, 1.5]))
