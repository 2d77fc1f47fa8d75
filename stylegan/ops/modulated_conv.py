"""Modulated convolution: styles scale the input channels, demodulation the output (arXiv 1912.04958 section 2.2).

Letters: N batch, I input channels, O output channels, K kernel, H height, W width.
"""

from __future__ import annotations

import torch

from stylegan.ops.convolution import conv2d, conv_transpose2d
from stylegan.ops.upfirdn import upfirdn


def demodulation(weight: torch.Tensor, styles: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """Reciprocal norms [N, O] of the filters weight [O, I, K, K] scaled by styles [N, I] (equation 3)."""
    energy = weight.square().sum(dim=(2, 3))  # [O, I]
    return (styles.square() @ energy.t() + eps).rsqrt()  # [N, O]


def modulated_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    *,
    demodulate: bool = True,
    up: int = 1,
    kernel: torch.Tensor | None = None,
    gain: float | torch.Tensor = 1.0,
    padding: int | None = None,
) -> torch.Tensor:
    """Convolve x [N, I, H, W] with weight [O, I, K, K] modulated by styles [N, I]; returns [N, O, H * up, W * up].

    `up` is 1 or 2; with 2 the result is smoothed by `kernel` [T, T]. `gain`, a number or a tensor [], multiplies the
    result; it costs nothing. `padding` is that of the plain convolution, 'same' when it is not given.
    Activations are scaled instead of weights, so a batch shares one ordinary convolution; a single picture without
    gradients folds the scales into the weight. No grouped convolution: it is the slow way on a CPU. In float16 filters
    and styles are normalised first (arXiv 2006.06676 appendix C).
    """
    if demodulate and x.dtype == torch.float16:  # what demodulation undoes anyhow keeps the sums in range
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * weight[0].numel() ** 0.5)
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    scale = demodulation(weight, styles) * gain if demodulate else None  # [N, O]
    if len(x) == 1 and not torch.is_grad_enabled():
        weight = weight * styles.reshape(1, -1, 1, 1)
        weight = weight * (scale.reshape(-1, 1, 1, 1) if scale is not None else gain)
        return _convolve(x, weight.to(x.dtype), up, kernel, padding)
    x = _convolve(x * styles.to(x.dtype)[:, :, None, None], weight.to(x.dtype), up, kernel, padding)
    if scale is not None:
        return x * scale.to(x.dtype)[:, :, None, None]
    return x * gain if gain != 1.0 else x


def _convolve(x, weight, up: int, kernel: torch.Tensor | None, padding: int | None) -> torch.Tensor:
    """Plain convolution, with 'same' padding unless told otherwise, or doubling one."""
    size = weight.shape[-1]
    if up == 1:
        return conv2d(x, weight, padding=size // 2 if padding is None else padding)
    x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [N, O, 2H + 1, 2W + 1] for K = 3
    taps = kernel.shape[-1]
    before, after = (taps + 1) // 2 + size // 2 - (size - 1), (taps - 2) // 2 + size // 2 - (size - 2)
    return upfirdn(x, kernel, padding=(before, after), gain=4.0)
