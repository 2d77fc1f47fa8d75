"""The slow half of the augmentations: a bank of four frequency bands, additive noise, cutout, and DiffAugment.

arXiv 2006.06676 appendix B (filter and corruption groups), 2006.10738 section 3.3 (DiffAugment).

Letters: N batch, C channels, H height, W width, B bands, T taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Daubechies' wavelet with two vanishing moments, whose low-pass half makes the octave bands.
_WAVELET = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
_EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of the bands of natural pictures, lowest first
NUM_BANDS = 4


def band_filters() -> torch.Tensor:
    """Four symmetric filters [B, T], lowest band first, that add up to doing nothing."""
    low = torch.tensor(_WAVELET, dtype=torch.float64)
    low = _convolve(low[None], low.flip(0))[0] / 2  # [7], with its mirror image, so that it shifts nothing
    high = low * -((-1.0) ** torch.arange(len(low), dtype=torch.float64))
    high[len(high) // 2] = 1 - low[len(low) // 2]
    bank = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(NUM_BANDS - 1):
        spread = torch.zeros(len(bank), 2 * bank.shape[1] - 1, dtype=torch.float64)
        spread[:, ::2] = bank
        bank = _convolve(spread, low)  # [b, T]
        top = F.pad(high, [(bank.shape[1] - len(high)) // 2] * 2)
        bank = torch.cat([bank, top[None]])
    return bank.float()


def _convolve(rows: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Full convolution of each row [b, T] with taps [S]: [b, T + S - 1]."""
    return F.conv1d(rows[:, None], taps.flip(0)[None, None], padding=len(taps) - 1)[:, 0]


def draw_band_gains(num: int, p: float, source: torch.Generator) -> torch.Tensor:
    """How much each band is amplified, [N, B]: every band by chance p, the whole at the same expected power."""
    gains, power = torch.ones(num, NUM_BANDS), torch.tensor(_EXPECTED_POWER)
    for band in range(NUM_BANDS):
        hit = torch.rand(num, generator=source) < p
        amount = torch.exp2(torch.randn(num, generator=source))
        chosen = torch.ones(num, NUM_BANDS)
        chosen[:, band] = torch.where(hit, amount, torch.ones(num))
        gains *= chosen / (power * chosen.square()).sum(dim=1, keepdim=True).sqrt()
    return gains


def filter_bands(images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Amplify the bands of images [N, C, H, W] by gains [N, B], along both axes, mirrored at the border."""
    num, channels, height, width = images.shape
    taps = (gains @ band_filters().to(gains)).to(images)  # [N, T]
    side = taps.shape[1] // 2
    weight = taps.repeat_interleave(channels, dim=0)[:, None]  # [N * C, 1, T]
    x = _mirror(images.reshape(1, num * channels, height, width), side)
    x = F.conv2d(x, weight[:, :, None], groups=num * channels)
    x = F.conv2d(x, weight[:, :, :, None], groups=num * channels)
    return x.reshape(images.shape)


def _mirror(x: torch.Tensor, side: int) -> torch.Tensor:
    """Pad all sides of x [1, C, H, W] by reflection, again and again where the picture is smaller than that."""
    while side:
        step = min(side, min(x.shape[2:]) - 1)
        x, side = F.pad(x, [step] * 4, mode="reflect"), side - step
    return x


def cut_out(images: torch.Tensor, centres: torch.Tensor, size: float, hit: torch.Tensor) -> torch.Tensor:
    """A black (grey in [-1, 1]) box of `size` (share of the side) about centres [N, 2] (0 to 1) where hit [N]."""
    height, width = images.shape[2:]
    down = (torch.arange(height, device=images.device) + 0.5) / height  # [H]
    across = (torch.arange(width, device=images.device) + 0.5) / width  # [W]
    far = ((down - centres[:, :1]).abs() >= size / 2)[:, :, None]  # [N, H, 1]
    far = far | ((across - centres[:, 1:]).abs() >= size / 2)[:, None, :]  # [N, H, W]
    return images * (far | ~hit[:, None, None])[:, None].to(images.dtype)


class DiffAugment:
    """Colour, shift and cutout of every picture, real or generated (arXiv 2006.10738); nothing adapts, `p` stays 0."""

    p = 0.0

    def __call__(
        self, images: torch.Tensor, source: torch.Generator, total: int = 0, rows: slice = slice(None)
    ) -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] -> the same shape; they are the `rows` of a batch of `total`."""
        total, device = total or len(images), images.device
        number = torch.rand(7, total, generator=source)[:, rows].to(device)  # [7, N]
        brightness, saturation, contrast = (value[:, None, None, None] for value in number[:3])
        x = images + (brightness - 0.5)
        grey = x.mean(dim=1, keepdim=True)
        x = (x - grey) * (saturation * 2) + grey
        middle = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - middle) * (contrast + 0.5) + middle
        x = _shift(x, number[3], number[4])
        everywhere = torch.ones(len(x), dtype=torch.bool, device=device)
        return cut_out(x, number[5:7].t(), 0.5, everywhere)


def _shift(x: torch.Tensor, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Move x [N, C, H, W] by whole pixels, up to an eighth of a side, zeros coming in; across, down [N] in 0 to 1."""
    height, width = x.shape[2:]
    most_down, most_across = height // 8, width // 8
    top = (down * (2 * most_down + 1)).long().clamp(max=2 * most_down)  # [N]
    left = (across * (2 * most_across + 1)).long().clamp(max=2 * most_across)
    padded = F.pad(x, (most_across, most_across, most_down, most_down)).permute(0, 2, 3, 1)  # [N, H', W', C]
    rows = top[:, None, None] + torch.arange(height, device=x.device)[:, None]  # [N, H, 1]
    columns = left[:, None, None] + torch.arange(width, device=x.device)  # [N, 1, W]
    return padded[torch.arange(len(x), device=x.device)[:, None, None], rows, columns].permute(0, 3, 1, 2)
