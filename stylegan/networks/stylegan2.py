"""StyleGAN2's synthesis network: skip, orig and resnet (arXiv 1912.04958 sections 2 and 3).

Letters: N batch, C channels, R resolution, D width of w, L rows of W+.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from stylegan.networks.config import GeneratorConfig
from stylegan.networks.layers import FullyConnected, drawn
from stylegan.networks.pieces import LayerInfo, Noise, Piece, PiecewiseSynthesis, State
from stylegan.ops.bias_act import SQRT2, bias_act
from stylegan.ops.modulated_conv import modulated_conv
from stylegan.ops.upfirdn import setup_filter, upsample


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU (section 2.2, figure 2c)."""

    def __init__(self, inputs: int, outputs: int, resolution: int, config: GeneratorConfig, up: int = 1):
        super().__init__()
        self.affine = FullyConnected(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(drawn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.up, self.clamp, self.use_noise = up, config.conv_clamp, config.use_noise
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))
        if config.use_noise:
            self.register_buffer("noise_const", drawn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, x: torch.Tensor, styles: torch.Tensor, noise: Noise, gain: float = 1.0) -> torch.Tensor:
        """x [N, I, R / up, R / up], styles [N, I] -> [N, O, R, R]."""
        gain_total = SQRT2 * gain
        # The gain of leaky ReLU rides on demodulation, noise and bias, so no pass over the picture is spent on it.
        x = modulated_conv(x, self.weight, styles, up=self.up, kernel=self.resample_filter, gain=gain_total)
        field = noise.of(self, len(x))
        if field is not None:
            x = x + (field * gain_total).to(x.dtype)
        return bias_act(x, self.bias * gain_total, "lrelu", clamp=self.clamp * gain)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the picture, without demodulation (section 2.2)."""

    def __init__(self, inputs: int, config: GeneratorConfig):
        super().__init__()
        self.affine = FullyConnected(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(drawn(config.img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.clamp, self.weight_gain = config.conv_clamp, 1 / math.sqrt(inputs)

    def forward(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """x [N, I, R, R], styles [N, I] -> float32 [N, img_channels, R, R]."""
        x = modulated_conv(x, self.weight, styles * self.weight_gain, demodulate=False)
        return bias_act(x, self.bias, clamp=self.clamp).float()


class Skip(nn.Module):
    """The residual branch of the 'resnet' generator: 1x1 convolution, doubling, no bias (section 3, figure 7c)."""

    def __init__(self, inputs: int, outputs: int, config: GeneratorConfig):
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, inputs, 1, 1))
        self.weight_gain = 1 / math.sqrt(inputs)
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))

    def forward(self, x: torch.Tensor, gain: float) -> torch.Tensor:
        """x [N, I, R / 2, R / 2] -> [N, O, R, R]."""
        x = torch.nn.functional.conv2d(x, (self.weight * (self.weight_gain * gain)).to(x.dtype))
        return upsample(x, self.resample_filter)


class Block(Piece):
    """All layers of one resolution; holds the learned constant at 4 pixels."""

    def __init__(self, inputs: int, outputs: int, resolution: int, config: GeneratorConfig, is_last: bool):
        super().__init__()
        self.name, self.resolution = f"b{resolution}", resolution
        self.is_first, self.architecture = resolution == 4, config.architecture
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))
        if self.is_first:
            self.const = nn.Parameter(drawn(outputs, 4, 4))
        else:
            self.conv0 = StyledConv(inputs, outputs, resolution, config, up=2)
        self.conv1 = StyledConv(outputs, outputs, resolution, config)
        self.has_image = is_last or config.architecture == "skip"
        if self.has_image:
            self.torgb = ToRGB(outputs, config)
        if not self.is_first and config.architecture == "resnet":
            self.skip = Skip(inputs, outputs, config)

    def layers(self) -> list[tuple[str, nn.Module]]:
        """The layers that styles act on, in order, by name."""
        return [(name, getattr(self, name)) for name in ("conv0", "conv1", "torgb") if hasattr(self, name)]

    def forward(
        self, state: State, styles: list[torch.Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> State:
        """A state at R / 2, or an empty one at 4 pixels, with a style [N, C] a layer -> the state at R."""
        x, image = state
        if self.is_first:
            x = self.conv1(self.const.expand(len(styles[0]), -1, -1, -1), styles[0], noise)
        elif self.architecture == "resnet":
            gain = math.sqrt(0.5)
            x = x.to(dtype)
            y = self.skip(x, gain)
            x = y + self.conv1(self.conv0(x, styles[0], noise), styles[1], noise, gain)
        else:
            x = self.conv1(self.conv0(x.to(dtype), styles[0], noise), styles[1], noise)
        if image is not None:
            image = upsample(image, self.resample_filter)
        if self.has_image:
            rgb = self.torgb(x, styles[-1])
            image = rgb if image is None else image + rgb
        return State(x, image)


class Synthesis(PiecewiseSynthesis):
    """ws [N, L, D] -> image [N, C, R, R]; block R uses its convolutions' rows, its ToRGB the row after them."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.resolutions = config.block_resolutions
        widths = [config.width(r) for r in self.resolutions]
        first = 0
        for i, resolution in enumerate(self.resolutions):
            block = Block(widths[max(i - 1, 0)], widths[i], resolution, config, is_last=resolution == config.resolution)
            self.add_module(block.name, block)
            block.styles = slice(first, first + len(block.layers()))
            first = block.styles.stop

    @property
    def layers(self) -> list[LayerInfo]:
        """One entry a row of W+, in order."""
        rows = []
        for block in self.pieces():
            for name, layer in block.layers():
                if name != "torgb":
                    size = layer.weight.shape[0]
                    rows.append(LayerInfo(f"{block.resolution} {name}", block.resolution, size, len(rows)))
        last = rows[-1]
        return [*rows, LayerInfo(f"{last.resolution} torgb", last.resolution, last.channels, len(rows))]

    def pieces(self) -> list[Block]:
        """The blocks from 4 pixels up."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def affines(self) -> list[tuple[int, FullyConnected]]:
        """(row of W+, map from w to styles) of every layer; a ToRGB shares its row with the next convolution."""
        found, row = [], 0
        for block in self.pieces():
            for name, layer in block.layers():
                found.append((row, layer.affine))
                row += name != "torgb"
        return found
