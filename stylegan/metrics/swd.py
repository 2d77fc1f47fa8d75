"""Sliced Wasserstein distance of patches over a Laplacian pyramid; needs no network (arXiv 1710.10196, section 5).

N pictures, C channels, P patches, D numbers a patch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from stylegan.errors import DataError

PATCH = 7
LOWEST = 16
MAX_PATCHES = 65_536
NUM_PROJECTIONS = 512
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def swd(real: np.ndarray, fake: np.ndarray, *, patches_per_image: int = 128, seed: int = 0) -> dict[int, float]:
    """Distance x 1000 at each pyramid level {resolution: value}, finest first, of pixels uint8 [N, R, R, C].

    Both sets take part with equally many pictures; 0 is reached only by equal sets, so compare with real against
    real. Levels go down to 16 px. At most 65,536 patches a level; DataError on different sizes.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise DataError(f"Pictures of {real.shape[1]} px cannot be compared with pictures of {fake.shape[1]} px.")
    num = min(len(real), len(fake))
    if num < 2:
        raise DataError("The sliced Wasserstein distance needs at least 2 pictures of each kind.")
    per_image = max(1, min(patches_per_image, MAX_PATCHES // num))
    num_levels = 1 + max(0, int(np.log2(real.shape[1] / LOWEST)))
    generator = torch.Generator().manual_seed(seed)
    patches = [_pyramid_patches(pixels[:num], num_levels, per_image, generator) for pixels in (real, fake)]
    return {
        real.shape[1] >> level: 1e3 * sliced_distance(a, b, generator)
        for level, (a, b) in enumerate(zip(*patches, strict=True))
    }


def sliced_distance(a: torch.Tensor, b: torch.Tensor, generator: torch.Generator) -> float:
    """Mean over random directions of the 1-D Wasserstein distance between point sets a and b, both [P, D]."""
    directions = F.normalize(torch.randn(a.shape[1], NUM_PROJECTIONS, generator=generator), dim=0)
    total = 0.0
    for block in directions.split(64, dim=1):  # a block at a time keeps memory small
        total += (_sorted(a @ block) - _sorted(b @ block)).abs().mean(0).sum().item()
    return total / NUM_PROJECTIONS


def laplacian_pyramid(image: torch.Tensor, num_levels: int) -> list[torch.Tensor]:
    """Band-pass images [N, C, R, R], [N, C, R/2, R/2], ... and the low-pass rest; they add up to the image again."""
    levels = []
    for _ in range(num_levels - 1):
        smaller = _smooth(image)[:, :, ::2, ::2]
        levels.append(image - _enlarge(smaller, image.shape[-1]))
        image = smaller
    return [*levels, image]


def _sorted(values: torch.Tensor) -> torch.Tensor:
    """Each column in order; NumPy sorts float32 several times faster than PyTorch."""
    return torch.from_numpy(np.sort(values.T.contiguous().numpy(), axis=1)).T


def _pyramid_patches(pixels: np.ndarray, num_levels: int, per_image: int, generator: torch.Generator) -> list:
    """Random patches of every pyramid level, each [P, D], normalised per channel as in the paper."""
    found: list[list[torch.Tensor]] = [[] for _ in range(num_levels)]
    for start in range(0, len(pixels), 256):
        image = torch.from_numpy(np.array(pixels[start : start + 256])).permute(0, 3, 1, 2).float()  # [N, C, R, R]
        for patches, level in zip(found, laplacian_pyramid(image, num_levels), strict=True):
            patches.append(_cut_patches(level, per_image, generator))
    return [_normalised(torch.cat(patches)) for patches in found]


def _cut_patches(image: torch.Tensor, per_image: int, generator: torch.Generator) -> torch.Tensor:
    """`per_image` patches of 7 x 7 at random places of each image, [N * per_image, C, 7, 7]."""
    num, _, height, width = image.shape
    shape = (num, per_image, 1, 1)
    top = torch.randint(height - PATCH + 1, shape, generator=generator)
    left = torch.randint(width - PATCH + 1, shape, generator=generator)
    rows = top + torch.arange(PATCH)[:, None]  # [N, p, 7, 1]
    columns = left + torch.arange(PATCH)  # [N, p, 1, 7]
    which = torch.arange(num).reshape(num, 1, 1, 1)
    return image.permute(0, 2, 3, 1)[which, rows, columns].flatten(0, 1).permute(0, 3, 1, 2)


def _normalised(patches: torch.Tensor) -> torch.Tensor:
    """Patches [P, C, 7, 7] with mean 0 and deviation 1 per channel over the whole set, as [P, D]."""
    mean = patches.mean((0, 2, 3), keepdim=True)
    deviation = patches.std((0, 2, 3), keepdim=True)
    return ((patches - mean) / deviation.clamp(min=1e-6)).flatten(1)


def _smooth(image: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Blurs with the 5-tap binomial filter, mirrored at the border."""
    num_channels = image.shape[1]
    taps = torch.tensor(_BINOMIAL) / sum(_BINOMIAL)
    kernel = (gain * torch.outer(taps, taps)).expand(num_channels, 1, 5, 5)
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel, groups=num_channels)


def _enlarge(image: torch.Tensor, size: int) -> torch.Tensor:
    """Doubles the size to `size`: zeros in between, then the same blur."""
    num, num_channels, height, width = image.shape
    spread = image.new_zeros(num, num_channels, height, 2, width, 2)
    spread[:, :, :, 0, :, 0] = image
    return _smooth(spread.reshape(num, num_channels, 2 * height, 2 * width)[:, :, :size, :size], gain=4.0)
