"""Convolutions with their weights laid out once, each in the formulation that is quickest at its size on a processor.

All compute (convolution of x times `styles`) times `scale` plus `bias`, channels-last, without gradients, in float32;
bfloat16, which pays on processors with AMX tiles, has plain convolutions only. Which formulation runs depends on sizes
alone, so that the same request gives the same bits on every run.

Letters: N batch, I input channels, O output channels, K kernel, R resolution, H height, W width.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from stylegan.ops.winograd import winograd_conv, winograd_weight

LARGE = 1 << 23  # numbers in a result, from which a transposed convolution loses half of its rate

def pack(
    weight: torch.Tensor, size: int, padding: int = 1, dtype: torch.dtype = torch.float32
) -> PlainConv | PrepackedConv | WinogradConv:
    """The convolution by weight [O, I, K, K] for pictures of about `size` pixels that come in `dtype`."""
    channels = min(weight.shape[:2])
    if dtype != torch.float32:
        return PlainConv(weight, padding)
    if weight.shape[2] == 3 and size >= 16 and channels >= 128:
        return WinogradConv(weight, padding)
    if weight.shape[2] == 3 and size <= 64 and prepacking_works():
        return PrepackedConv(weight, size, padding)
    return PlainConv(weight, padding)


class PlainConv:
    """Styles and scale fold into the weight of a single picture: best where pictures are large and channels few."""

    def __init__(self, weight: torch.Tensor, padding: int) -> None:
        self.weight, self.padding = weight.contiguous(memory_format=torch.channels_last), padding

    def __call__(self, x, styles=None, scale=None, bias=None) -> torch.Tensor:
        """x [N, I, H, W], styles [N, I], scale [N, O], bias [O] -> [N, O, H', W']."""
        weight = self.weight
        if len(x) == 1:
            weight = weight if styles is None else weight * styles.reshape(1, -1, 1, 1)
            weight = weight if scale is None else weight * scale.reshape(-1, 1, 1, 1)
            return F.conv2d(x, weight.to(x.dtype), _like(bias, x), padding=self.padding)
        x = x if styles is None else x * styles.to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, weight.to(x.dtype), None if scale is not None else _like(bias, x), padding=self.padding)
        return _scaled(x, scale, bias)


class PrepackedConv:
    """A weight in oneDNN's own layout, styles on the input: best for few pixels, where the weight is what is read."""

    def __init__(self, weight: torch.Tensor, size: int, padding: int) -> None:
        self.padding = [padding, padding]
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, [1, 1], [1, 1], 1, [1, weight.shape[1], size, size])

    def __call__(self, x, styles=None, scale=None, bias=None) -> torch.Tensor:
        """x [N, I, H, W], styles [N, I], scale [N, O], bias [O] -> [N, O, H', W']."""
        x = x if styles is None else x * styles[:, :, None, None]
        x = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, None if scale is not None else bias, self.padding, [1, 1], [1, 1], 1, "none", [], "")
        return _scaled(x, scale, bias)


class WinogradConv:
    """A quarter of the multiplications: best from 128 channels and 16 pixels on."""

    def __init__(self, weight: torch.Tensor, padding: int) -> None:
        self.matrices, self.padding = winograd_weight(weight), padding

    def __call__(self, x, styles=None, scale=None, bias=None) -> torch.Tensor:
        """x [N, I, H, W], styles [N, I], scale [N, O], bias [O] -> [N, O, H', W']."""
        return winograd_conv(x, self.matrices, self.padding, styles=styles, scale=scale, bias=bias)


class DoublingConv:
    """Transposed convolution to twice the size, then a blur that carries scale and bias.

    `weight` [I, O, K, K] doubles with `padding` cut off; `blur` [T, T] is correlated with the result after `cut` pixels
    (left, right, top, bottom) were added; `size` is that of the result.
    """

    def __init__(
        self, weight: torch.Tensor, blur: torch.Tensor, size: int, padding: int = 0,
        cut: tuple[int, ...] = (1, 1, 1, 1), dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.padding, self.cut, self.blur = [padding, padding], cut, blur[None, None]  # [1, 1, T, T]
        self.weight = self.packed = self.phases = None
        exact = dtype == torch.float32
        if weight.shape[2] == 3 and not padding and (not exact or weight.shape[1] * size**2 >= LARGE):
            self.phases = _phases(weight.transpose(0, 1))
        elif exact and size <= 64 and prepacking_works():
            self.packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
                weight.contiguous(), self.padding, [0, 0], [2, 2], [1, 1], 1, [1, weight.shape[0], size // 2, size // 2]
            )
        else:
            self.weight = weight.contiguous(memory_format=torch.channels_last)

    @classmethod
    def smoothed(
        cls, weight: torch.Tensor, kernel: torch.Tensor, size: int, dtype: torch.dtype = torch.float32
    ) -> DoublingConv:
        """StyleGAN2's: weight [O, I, 3, 3] on inserted zeros, smoothed by kernel [T, T] (arXiv 1912.04958 B)."""
        taps, width = kernel.shape[0], weight.shape[2]
        before = (taps + 1) // 2 + width // 2 - (width - 1)
        after = (taps - 2) // 2 + width // 2 - (width - 2)
        return cls(weight.transpose(0, 1), kernel.flip(0, 1) * 4, size, cut=(before, after) * 2, dtype=dtype)

    @classmethod
    def repeated(cls, weight: torch.Tensor, size: int, dtype: torch.dtype = torch.float32) -> DoublingConv:
        """StyleGAN1's: weight [O, I, 3, 3] on repeated pixels, then the binomial blur (arXiv 1812.04948 C)."""
        wide = F.pad(weight.flip(2, 3), (1, 1, 1, 1))  # [O, I, 5, 5]
        weight = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]  # [O, I, 4, 4]
        blur = weight.new_tensor([0.25, 0.5, 0.25])
        return cls(weight.transpose(0, 1), blur.outer(blur), size, padding=1, dtype=dtype)

    def __call__(self, x, styles=None, scale=None, bias=None) -> torch.Tensor:
        """x [N, I, H, W], styles [N, I], scale [N, O], bias [O] -> [N, O, 2H, 2W]."""
        alone = len(x) == 1
        x = self._double(x, styles)  # [N, O, 2H, 2W] and what the blur takes off
        blur = self.blur.expand(x.shape[1], -1, -1, -1)  # [O, 1, T, T]
        rides = alone and scale is not None
        blur = blur * scale.reshape(-1, 1, 1, 1) if rides else blur
        padding = self.cut[0]
        if padding < 0 or set(self.cut) != {padding}:
            x, padding = F.pad(x, self.cut), 0
        own = _like(bias, x) if rides or scale is None else None
        x = F.conv2d(x, blur.to(x.dtype), own, padding=padding, groups=x.shape[1])
        return x if rides or scale is None else _scaled(x, scale, bias)

    def _double(self, x, styles) -> torch.Tensor:
        """The transposed convolution of x times styles."""
        if self.packed is not None:
            x = x if styles is None else x * styles[:, :, None, None]
            return torch.ops.mkldnn._convolution_transpose_pointwise(
                x, self.packed, None, self.padding, [0, 0], [2, 2], [1, 1], 1, "none", [], "")
        folds = styles is not None and len(x) == 1
        x = x if folds or styles is None else x * styles.to(x.dtype)[:, :, None, None]
        if self.phases is None:
            weight = self.weight * styles.reshape(-1, 1, 1, 1) if folds else self.weight
            return F.conv_transpose2d(x, weight.to(x.dtype), stride=2, padding=self.padding)
        num, _, height, width = x.shape
        result = x.new_empty(num, 2 * height + 1, 2 * width + 1, len(self.phases[0][2])).permute(0, 3, 1, 2)
        for row, column, weight in self.phases:
            weight = weight * styles.reshape(1, -1, 1, 1) if folds else weight
            result[:, :, row::2, column::2] = F.conv2d(x, weight.to(x.dtype), padding=(1 - row, 1 - column))
        return result


def _phases(weight: torch.Tensor) -> list[tuple[int, int, torch.Tensor]]:
    """Four small convolutions that give the even and odd rows and columns of a transposed 3x3 convolution: the same
    sums at the rate of ordinary convolutions, which pays where pictures are too large for a cache."""
    taps = ([2, 0], [1])  # even places see the pixel before and their own, odd ones their own
    return [(row, column, weight[:, :, taps[row]][:, :, :, taps[column]].contiguous(memory_format=torch.channels_last))
            for row in (0, 1) for column in (0, 1)]


def _scaled(x, scale, bias) -> torch.Tensor:
    """x [N, O, H, W] times scale [N, O] plus bias [O]; as it is without a scale."""
    if scale is None:
        return x
    bias = x.new_zeros([]) if bias is None else _like(bias, x)[:, None, None]
    return torch.addcmul(bias, x, scale.to(x.dtype)[:, :, None, None])


def _like(value, x) -> torch.Tensor | None:
    """A value, if there is one, in the precision of x."""
    return None if value is None else value.to(x.dtype)


@functools.cache
def prepacking_works() -> bool:
    """True when this PyTorch has the private operators for laid-out weights, and they give what they should."""
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 16, 8, 8, generator=draw), torch.randn(16, 16, 3, 3, generator=draw)
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, [1, 1], [1, 1], [1, 1], 1, [1, 16, 8, 8])
        found = torch.ops.mkldnn._convolution_pointwise(
            x, packed, None, [1, 1], [1, 1], [1, 1], 1, "none", [], "")
        packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight, [0, 0], [0, 0], [2, 2], [1, 1], 1, [1, 16, 8, 8])
        doubled = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, packed, None, [0, 0], [0, 0], [2, 2], [1, 1], 1, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    same = torch.allclose(found, F.conv2d(x, weight, padding=1), atol=1e-3)
    return same and torch.allclose(doubled, F.conv_transpose2d(x, weight, stride=2), atol=1e-3)
