"""StyleGAN2's synthesis network: skip, orig and resnet (arXiv 1912.04958 sections 2 and 3).

Letters: N batch, C channels, R resolution, D width of w, L rows of W+.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from stylegan.networks.config import GeneratorConfig
from stylegan.networks.layers import FullyConnected
from stylegan.ops.bias_act import SQRT2, bias_act
from stylegan.ops.modulated_conv import modulated_conv
from stylegan.ops.upfirdn import setup_filter, upsample


@dataclass(frozen=True)
class LayerInfo:
    """What a row of W+ styles: the layer's name, its resolution in pixels, its channels, the row."""

    name: str
    resolution: int
    channels: int
    ws_index: int


@dataclass
class Noise:
    """Where a forward pass takes its noise from: 'const', 'none' or 'random' (drawn from `source`), and how strong."""

    mode: str = "const"
    strength: float = 1.0
    source: torch.Generator | None = None

    def of(self, layer: nn.Module, batch: int) -> torch.Tensor | None:
        """The layer's noise, [R, R] or [N, 1, R, R], or None."""
        if self.mode == "none" or not self.strength or not layer.use_noise:
            return None
        if self.mode == "const":
            return layer.noise_const * (layer.noise_strength * self.strength)
        shape = [batch, 1, *layer.noise_const.shape]
        device = layer.noise_const.device
        noise = torch.randn(shape, generator=self.source, device=self.source.device if self.source else device).to(
            device
        )
        return noise * (layer.noise_strength * self.strength)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU (section 2.2, figure 2c)."""

    def __init__(self, inputs: int, outputs: int, resolution: int, config: GeneratorConfig, up: int = 1):
        super().__init__()
        self.affine = FullyConnected(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.up, self.clamp, self.use_noise = up, config.conv_clamp, config.use_noise
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))
        if config.use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: Noise, gain: float = 1.0) -> torch.Tensor:
        """x [N, I, R / up, R / up], w [N, D] -> [N, O, R, R]."""
        gain_total = SQRT2 * gain
        # The gain of leaky ReLU rides on demodulation, noise and bias, so no pass over the picture is spent on it.
        x = modulated_conv(x, self.weight, self.affine(w), up=self.up, kernel=self.resample_filter, gain=gain_total)
        field = noise.of(self, len(x))
        if field is not None:
            x = x + (field * gain_total).to(x.dtype)
        return bias_act(x, self.bias * gain_total, "lrelu", clamp=self.clamp * gain)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the picture, without demodulation (section 2.2)."""

    def __init__(self, inputs: int, config: GeneratorConfig):
        super().__init__()
        self.affine = FullyConnected(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(config.img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.clamp, self.weight_gain = config.conv_clamp, 1 / math.sqrt(inputs)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """x [N, I, R, R], w [N, D] -> float32 [N, img_channels, R, R]."""
        x = modulated_conv(x, self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        return bias_act(x, self.bias, clamp=self.clamp).float()


class Skip(nn.Module):
    """The residual branch of the 'resnet' generator: 1x1 convolution, doubling, no bias (section 3, figure 7c)."""

    def __init__(self, inputs: int, outputs: int, config: GeneratorConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.weight_gain = 1 / math.sqrt(inputs)
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))

    def forward(self, x: torch.Tensor, gain: float) -> torch.Tensor:
        """x [N, I, R / 2, R / 2] -> [N, O, R, R]."""
        x = torch.nn.functional.conv2d(x, (self.weight * (self.weight_gain * gain)).to(x.dtype))
        return upsample(x, self.resample_filter)


class Block(nn.Module):
    """All layers of one resolution; holds the learned constant at 4 pixels."""

    def __init__(self, inputs: int, outputs: int, resolution: int, config: GeneratorConfig, is_last: bool):
        super().__init__()
        self.resolution, self.is_first, self.architecture = resolution, resolution == 4, config.architecture
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))
        if self.is_first:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        else:
            self.conv0 = StyledConv(inputs, outputs, resolution, config, up=2)
        self.conv1 = StyledConv(outputs, outputs, resolution, config)
        self.has_torgb = is_last or config.architecture == "skip"
        if self.has_torgb:
            self.torgb = ToRGB(outputs, config)
        if not self.is_first and config.architecture == "resnet":
            self.skip = Skip(inputs, outputs, config)
        self.num_conv = 1 if self.is_first else 2

    def forward(self, x, image, ws: torch.Tensor, noise: Noise, dtype: torch.dtype):
        """x [N, C, R / 2, R / 2], image [N, img, R / 2, R / 2] or None, ws [N, num_conv + 1, D] -> (x, image) at R."""
        if self.is_first:
            x = self.const.to(dtype).expand(len(ws), -1, -1, -1)
            x = self.conv1(x, ws[:, 0], noise)
        elif self.architecture == "resnet":
            gain = math.sqrt(0.5)
            x = x.to(dtype)
            y = self.skip(x, gain)
            x = y + self.conv1(self.conv0(x, ws[:, 0], noise), ws[:, 1], noise, gain)
        else:
            x = self.conv1(self.conv0(x.to(dtype), ws[:, 0], noise), ws[:, 1], noise)
        if image is not None:
            image = upsample(image, self.resample_filter)
        if self.has_torgb:
            rgb = self.torgb(x, ws[:, self.num_conv])
            image = rgb if image is None else image + rgb
        return x, image


class Synthesis(nn.Module):
    """ws [N, L, D] -> image [N, C, R, R]; block R uses its convolutions' rows, its ToRGB the row after them."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.resolutions = config.block_resolutions
        widths = [config.width(r) for r in self.resolutions]
        for i, resolution in enumerate(self.resolutions):
            block = Block(widths[max(i - 1, 0)], widths[i], resolution, config, is_last=resolution == config.resolution)
            self.add_module(f"b{resolution}", block)

    @property
    def layers(self) -> list[LayerInfo]:
        """One entry a row of W+, in order."""
        rows = []
        for block in self.blocks():
            for name in ("conv0", "conv1"):
                if hasattr(block, name):
                    size = getattr(block, name).weight.shape[0]
                    rows.append(LayerInfo(f"{block.resolution} {name}", block.resolution, size, len(rows)))
        last = rows[-1]
        return [*rows, LayerInfo(f"{last.resolution} torgb", last.resolution, last.channels, len(rows))]

    def blocks(self) -> list[Block]:
        """The blocks from 4 pixels up."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def affines(self) -> list[tuple[int, FullyConnected]]:
        """(row of W+, map from w to styles) of every layer; a ToRGB shares its row with the next convolution."""
        found, row = [], 0
        for block in self.blocks():
            convs = [getattr(block, name) for name in ("conv0", "conv1") if hasattr(block, name)]
            found += [(row + i, conv.affine) for i, conv in enumerate(convs)]
            row += len(convs)
            if block.has_torgb:
                found.append((row, block.torgb.affine))
        return found

    def forward(self, ws: torch.Tensor, noise: Noise | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Synthesise float32 images [N, C, R, R], not clamped; blocks of 8 pixels and more compute in `dtype`."""
        noise, ws = noise or Noise(), ws.float()
        x = image = None
        row = 0
        for block in self.blocks():
            rows = ws[:, row : row + block.num_conv + 1]  # [N, num_conv + 1, D]
            x, image = block(x, image, rows, noise, dtype if block.resolution >= 8 else torch.float32)
            row += block.num_conv
        return image
