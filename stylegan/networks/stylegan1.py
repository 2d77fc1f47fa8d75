"""StyleGAN1's synthesis network (arXiv 1812.04948 section 2 and appendix C), which may still be growing.

A growing one has a last block whose picture fades in over that of the block before (1710.10196 section 2).

Letters: N batch, C channels, I input, O output, R resolution, D width of w, L rows of W+.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stylegan.networks.config import GeneratorConfig
from stylegan.networks.layers import FullyConnected, drawn
from stylegan.networks.pieces import LayerInfo, Noise, Piece, PiecewiseSynthesis, State
from stylegan.ops.bias_act import SQRT2, bias_act
from stylegan.ops.convolution import conv2d, conv_transpose2d
from stylegan.ops.upfirdn import upfirdn

EPSILON = 1e-8


def adain(x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Adaptive instance normalisation of x [N, C, H, W] by styles [N, 2C], scales then shifts (equation 1)."""
    variance, mean = torch.var_mean(x, dim=(2, 3), unbiased=False)  # [N, C]
    scale, shift = styles.chunk(2, dim=1)  # [N, C]
    scale = scale * (variance + EPSILON).rsqrt()
    return torch.addcmul((shift - mean * scale)[:, :, None, None], x, scale[:, :, None, None])


def doubling_conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Repeat every pixel of x [N, I, R, R] twice along both axes, then correlate with weight [O, I, 3, 3].

    Large pictures take one transposed convolution whose 4x4 kernel is the sum of four shifted copies: 4/9 of the work.
    """
    if x.shape[2] < 32:  # making that kernel would cost more than it saves
        return conv2d(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), weight, padding=1)
    wide = F.pad(weight.flip(2, 3), (1, 1, 1, 1))  # [O, I, 5, 5]
    kernel = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]  # [O, I, 4, 4]
    return conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)  # [N, O, 2R, 2R]


class StyledLayer(nn.Module):
    """What follows a convolution (or the constant): noise, bias, leaky ReLU, AdaIN (figure 1b)."""

    def __init__(self, channels: int, resolution: int, config: GeneratorConfig):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = FullyConnected(config.w_dim, 2 * channels)
        self.use_noise = config.use_noise
        if config.use_noise:
            self.noise_weight = nn.Parameter(torch.zeros(channels))
            self.register_buffer("noise_const", drawn(resolution, resolution))
        with torch.no_grad():
            self.affine.bias[:channels] = 1.0

    @property
    def noise_strength(self) -> torch.Tensor:
        """How strong the noise is in each channel, [C, 1, 1]."""
        return self.noise_weight[:, None, None]

    def forward(self, x: torch.Tensor, styles: torch.Tensor, noise: Noise) -> torch.Tensor:
        """x [N, C, R, R], styles [N, 2C] -> [N, C, R, R]."""
        field = noise.of(self, len(x))  # [C, R, R] or [N, C, R, R]
        if field is not None:
            x = x + field.to(x.dtype)
        return adain(bias_act(x, self.bias, "lrelu"), styles)


class StyledConv(StyledLayer):
    """A 3x3 convolution before a styled layer; a doubling one is followed by a binomial blur (appendix C)."""

    def __init__(self, inputs: int, outputs: int, resolution: int, config: GeneratorConfig, up: int = 1):
        super().__init__(outputs, resolution, config)
        self.weight = nn.Parameter(drawn(outputs, inputs, 3, 3))
        self.up, self.weight_gain = up, SQRT2 / math.sqrt(inputs * 9)

    def forward(self, x: torch.Tensor, styles: torch.Tensor, noise: Noise) -> torch.Tensor:
        """x [N, I, R / up, R / up], styles [N, 2O] -> [N, O, R, R]."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        if self.up == 1:
            x = conv2d(x, weight, padding=1)
        else:
            blur = x.new_tensor([0.25, 0.5, 0.25])
            x = upfirdn(doubling_conv(x, weight), blur, padding=(1, 1))
        return super().forward(x, styles, noise)


class ToRGB(nn.Module):
    """A plain 1x1 convolution to the picture; no style acts on it."""

    def __init__(self, inputs: int, config: GeneratorConfig):
        super().__init__()
        self.weight = nn.Parameter(drawn(config.img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, I, R, R] -> float32 [N, img_channels, R, R]."""
        return bias_act(conv2d(x, (self.weight * self.weight_gain).to(x.dtype)), self.bias).float()


class Block(Piece):
    """The two styled layers of one resolution; at 4 pixels the first one styles the learned constant."""

    def __init__(self, inputs: int, outputs: int, resolution: int, config: GeneratorConfig):
        super().__init__()
        self.name, self.resolution, self.is_first = f"b{resolution}", resolution, resolution == 4
        if self.is_first:
            self.const = nn.Parameter(torch.ones(outputs, 4, 4))
            self.conv0 = StyledLayer(outputs, 4, config)
        else:
            self.conv0 = StyledConv(inputs, outputs, resolution, config, up=2)
        self.conv1 = StyledConv(outputs, outputs, resolution, config)
        self.fade = config.fade if resolution == config.resolution else 0.0
        self.has_image = resolution == config.resolution or bool(config.fade and 2 * resolution == config.resolution)
        if self.has_image:
            self.torgb = ToRGB(outputs, config)

    def forward(
        self, state: State, styles: list[torch.Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> State:
        """A state at R / 2, or an empty one at 4 pixels, with two styles [N, 2O] -> the state at R."""
        x = self.const.expand(len(styles[0]), -1, -1, -1) if self.is_first else state.x.to(dtype)
        x = self.conv1(self.conv0(x, styles[0], noise), styles[1], noise)
        return State(x, self.picture(x, state.image))

    def picture(self, x: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor | None:
        """x [N, C, R, R] in colours, over the picture before it [N, img, R / 2, R / 2] while this block fades in."""
        if not self.has_image:
            return None
        image = self.torgb(x)
        if before is None or not self.fade:
            return image
        return image.lerp(before.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), self.fade)


class Synthesis(PiecewiseSynthesis):
    """ws [N, L, D] -> image [N, C, R, R]; each block uses two rows, and the last one makes the colours."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.resolutions = config.block_resolutions
        widths = [config.width(r) for r in self.resolutions]
        for i, resolution in enumerate(self.resolutions):
            block = Block(widths[max(i - 1, 0)], widths[i], resolution, config)
            block.styles = slice(2 * i, 2 * i + 2)
            self.add_module(block.name, block)

    @property
    def fade(self) -> float:
        """The share of the picture that the block before the last one makes, 0 to 1; may move while training."""
        return self.pieces()[-1].fade

    @fade.setter
    def fade(self, share: float) -> None:
        self.pieces()[-1].fade = share

    @property
    def layers(self) -> list[LayerInfo]:
        """One entry a row of W+, in order."""
        names = [(block, name) for block in self.pieces() for name in ("conv0", "conv1")]
        return [
            LayerInfo(f"{block.resolution} {name}", block.resolution, len(getattr(block, name).bias), row)
            for row, (block, name) in enumerate(names)
        ]

    def pieces(self) -> list[Block]:
        """The blocks from 4 pixels up."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def affines(self) -> list[tuple[int, FullyConnected]]:
        """(row of W+, map from w to styles) of every layer."""
        layers = [layer for block in self.pieces() for layer in (block.conv0, block.conv1)]
        return [(row, layer.affine) for row, layer in enumerate(layers)]
