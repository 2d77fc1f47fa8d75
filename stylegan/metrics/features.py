"""Features of pictures from a fixed random network: nothing to download, nothing learned, nothing to tune to.

Random networks rank generators about as well as trained ones (arXiv 2208.09218). The name holds the version: whoever
changes a number here changes the name. N pictures, C channels, H and W pixels, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F

from stylegan.device import settle_vector_math
from stylegan.errors import DataError

settle_vector_math()

_SEED = 64
_SIDE = 64
_BATCH = 64
_LAYERS = ((32, 5, 4), (64, 3, 4), (128, 3, 2), (256, 3, 1))  # channels, kernel, side of the grid it is pooled to
_BIAS = 1.0
_SOFTNESS = 3.0


class Extractor(Protocol):
    """Whatever turns pictures into features; its name tells which network, which weights and which version."""

    name: str

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Image [N, C, H, W] in [-1, 1], C 1, 3 or 4, any size -> features float32 [N, D] on the CPU."""
        ...


@dataclass(frozen=True)
class _Layer:
    """One stride-2 convolution: weight [out, in, k, k], bias [out], and the side of its pooling grid."""

    weight: torch.Tensor
    bias: torch.Tensor
    grid: int


class FeatureExtractor:
    """The extractor r64-v1: four random orthogonal convolutions at 64 px, each pooled to a small grid; D = 2304.

    Calibrated on coloured noise of its own making, so it depends on no data; the same bits in every run on a CPU.
    """

    name = "r64-v1"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        layers, mean, deviation = _calibrated()
        self._mean, self._deviation = mean.to(self.device), deviation.to(self.device)  # [D]
        self._layers = [_Layer(x.weight.to(self.device), x.bias.to(self.device), x.grid) for x in layers]
        counts = torch.cat([torch.full((c * g * g,), float(c * g * g)) for c, _, g in _LAYERS])
        self._weight = (len(counts) / len(_LAYERS) / counts).sqrt().to(self.device)  # layers count alike, [D]

    @property
    def num_features(self) -> int:
        """D, the length of a feature vector."""
        return len(self._weight)

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Image [N, C, H, W] in [-1, 1], C 1, 3 or 4, any size -> features float32 [N, D] on the CPU."""
        if not len(image):
            return torch.empty(0, self.num_features)
        return torch.cat([self._features(part) for part in image.split(_BATCH)])

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        """One batch: pooled activations, standardised, and softly bounded so that no few numbers rule the kernel."""
        image = to_side(to_rgb(image.to(self.device, torch.float32)), _SIDE)
        pooled = (_pooled(image, self._layers) - self._mean) / self._deviation
        return (torch.asinh(pooled / _SOFTNESS) * self._weight).cpu()


def to_rgb(image: torch.Tensor) -> torch.Tensor:
    """Image [N, C, H, W] as [N, 3, H, W]: grey repeated, transparency laid on white."""
    num_channels = image.shape[1]
    if num_channels == 4:
        alpha = (image[:, 3:] + 1) / 2
        return image[:, :3] * alpha + (1 - alpha)
    if num_channels == 1:
        return image.expand(-1, 3, -1, -1)
    if num_channels != 3:
        raise DataError(f"Pictures of {num_channels} channels cannot be judged; 1, 3 and 4 can.")
    return image


def to_side(image: torch.Tensor, side: int) -> torch.Tensor:
    """Image [N, C, H, W] resized to [N, C, side, side]: averaged over whole blocks where it fits, else antialiased."""
    height, width = image.shape[2:]
    if (height, width) == (side, side):
        return image
    if height % side == 0 and width % side == 0:
        return F.avg_pool2d(image, (height // side, width // side))
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


@cache
def _calibrated() -> tuple[list[_Layer], torch.Tensor, torch.Tensor]:
    """The layers, and mean and deviation [D] of their pooled activations on noise; made once a process, on the CPU."""
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        layers = _make_layers(_octave_noise(128, generator), generator)
        pooled = _pooled(_octave_noise(256, generator), layers)
    return layers, pooled.mean(0), pooled.std(0)


def _make_layers(noise: torch.Tensor, generator: torch.Generator) -> list[_Layer]:
    """Random orthogonal layers, each scaled so that `noise` reaches it with mean 0 and deviation 1 per channel."""
    layers: list[_Layer] = []
    for num_channels, size, grid in _LAYERS:
        rows = torch.empty(num_channels, noise.shape[1] * size * size)
        weight = torch.nn.init.orthogonal_(rows, generator=generator).reshape(num_channels, -1, size, size)
        response = F.conv2d(noise, weight, stride=2, padding=size // 2)
        mean, deviation = response.mean((0, 2, 3)), response.std((0, 2, 3))
        bias = _BIAS * torch.randn(num_channels, generator=generator)
        layer = _Layer(weight / deviation[:, None, None, None], bias - mean / deviation, grid)
        layers.append(layer)
        noise = _activate(noise, layer)
    return layers


def _activate(image: torch.Tensor, layer: _Layer) -> torch.Tensor:
    """One convolution and ReLU; halves the size."""
    padding = layer.weight.shape[-1] // 2
    return F.relu(F.conv2d(image, layer.weight, layer.bias, stride=2, padding=padding))


def _pooled(image: torch.Tensor, layers: list[_Layer]) -> torch.Tensor:
    """Every layer's activations averaged over its grid, side by side, [N, D]."""
    found = []
    for layer in layers:
        image = _activate(image, layer)
        found.append(F.avg_pool2d(image, image.shape[-1] // layer.grid).flatten(1))
    return torch.cat(found, dim=1)


def _octave_noise(num: int, generator: torch.Generator) -> torch.Tensor:
    """Noise with as much of every scale, [num, 3, 64, 64], about [-1, 1]: what pictures have without being one."""
    total = torch.zeros(num, 3, _SIDE, _SIDE)
    for octave in range(1, 7):
        grey = torch.randn(num, 1, 2**octave, 2**octave, generator=generator)
        tint = torch.randn(num, 3, 2**octave, 2**octave, generator=generator)
        total += F.interpolate(grey + 0.5 * tint, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
    return (total / total.std() * 0.5).clamp(-1, 1)
