"""The pieces of each family with their weights laid out for a processor: the same sums as the modules, fewer passes.

Each class takes a piece (a network's module, in evaluation, float32) and is called like it. Demodulation's energies,
biases and gains are worked out once, so a piece must be laid out again when its weights change.

Letters: N batch, C channels, I input channels, O output channels, R resolution, H height, W width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stylegan.engines.packed import DoublingConv, pack
from stylegan.networks import stylegan1, stylegan2, stylegan3
from stylegan.networks.layers import normalize_2nd_moment
from stylegan.networks.pieces import Noise, Piece, State
from stylegan.ops.bias_act import SLOPE, SQRT2
from stylegan.ops.filtered_lrelu import filtered_lrelu
from stylegan.ops.upfirdn import upsample


class ModulatedLayer:
    """StyleGAN2's modulated convolution with noise, bias and leaky ReLU (arXiv 1912.04958 section 2.2)."""

    def __init__(self, layer: stylegan2.StyledConv, resolution: int, gain: float, dtype: torch.dtype) -> None:
        self.layer, self.gain, self.clamp = layer, SQRT2 * gain, layer.clamp * gain
        if layer.up == 2:
            self.conv = DoublingConv.smoothed(layer.weight, layer.resample_filter, resolution, dtype)
        else:
            self.conv = pack(layer.weight, resolution, dtype=dtype)
        self.energy = layer.weight.square().sum(dim=(2, 3)).t().contiguous()  # [I, O]
        self.bias = layer.bias * self.gain

    def __call__(self, x: torch.Tensor, styles: torch.Tensor, noise: Noise) -> torch.Tensor:
        """x [N, I, R / up, R / up], styles [N, I] -> [N, O, R, R]."""
        scale = (styles.square() @ self.energy + 1e-8).rsqrt() * self.gain  # [N, O]
        x = self.conv(x, styles, scale, self.bias)
        field = noise.field(self.layer, len(x))
        if field is not None:
            x.add_((field * (self.layer.noise_strength * (noise.strength * self.gain))).to(x.dtype))
        x = F.leaky_relu_(x, SLOPE)
        return x.clamp_(-self.clamp, self.clamp) if self.clamp else x


class LaidOutBlock2:
    """A block of StyleGAN2, in all three architectures."""

    def __init__(self, block: stylegan2.Block, dtype: torch.dtype) -> None:
        self.block, self.dtype = block, dtype if block.resolution >= 8 else torch.float32
        gain = math.sqrt(0.5) if hasattr(block, "skip") else 1.0
        self.convs = [ModulatedLayer(layer, block.resolution, gain if name == "conv1" else 1.0, self.dtype)
                      for name, layer in block.layers() if name != "torgb"]

    def __call__(self, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state at R / 2, or an empty one at 4 pixels, to the state at R."""
        block, x = self.block, state.x
        if block.is_first:
            x = block.const.expand(len(styles[0]), -1, -1, -1)
        x = before = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        for conv, style in zip(self.convs, styles, strict=False):
            x = conv(x, style, noise)
        if hasattr(block, "skip"):
            x = x.add_(block.skip(before, math.sqrt(0.5)))
        image = None if state.image is None else upsample(state.image, block.resample_filter)
        if block.has_image:
            rgb = self._colours(x, styles[-1])
            image = rgb if image is None else image.add_(rgb)
        return State(x, image)

    def _colours(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """x [N, C, R, R], styles [N, C] -> float32 [N, img, R, R]."""
        layer = self.block.torgb
        weight = layer.weight * (styles * layer.weight_gain)[:, None, :, None, None]  # [N, img, C, 1, 1]
        if len(x) == 1:
            weight = weight[0].to(x.dtype, memory_format=torch.channels_last)
            rgb = F.conv2d(x, weight, layer.bias.to(x.dtype)).float()
        else:
            pixels = x.permute(0, 2, 3, 1).flatten(1, 2).float()  # [N, R * R, C]
            rgb = torch.baddbmm(layer.bias, pixels, weight[:, :, :, 0, 0].transpose(1, 2))  # [N, R * R, img]
            rgb = rgb.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return rgb.clamp_(-layer.clamp, layer.clamp) if layer.clamp else rgb


class AdaptiveLayer:
    """StyleGAN1's convolution (or none, at the constant), noise, bias, leaky ReLU and AdaIN (arXiv 1812.04948)."""

    def __init__(self, layer: stylegan1.StyledLayer, resolution: int, dtype: torch.dtype) -> None:
        self.layer, self.dtype, self.conv = layer, dtype, None
        if isinstance(layer, stylegan1.StyledConv):
            weight = layer.weight * layer.weight_gain
            if layer.up == 2:
                self.conv = DoublingConv.repeated(weight, resolution, dtype)
            else:
                self.conv = pack(weight, resolution, dtype=dtype)

    def __call__(self, x: torch.Tensor, styles: torch.Tensor, noise: Noise) -> torch.Tensor:
        """x [N, I, R / up, R / up], styles [N, 2O] -> [N, O, R, R]."""
        if self.conv is None:
            return self.layer(x, styles, noise)
        x = self.conv(x.to(self.dtype), None, None, self.layer.bias).float()
        field = noise.field(self.layer, len(x))
        if field is not None:
            x.addcmul_(field, self.layer.noise_strength * noise.strength)
        return self._adapt(F.leaky_relu_(x, SLOPE), styles)

    @staticmethod
    def _adapt(x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """AdaIN (equation 1); means over pixels are sums of rows here, six times quicker than over two axes."""
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, R * R, O]
        mean = pixels.mean(dim=1, keepdim=True)  # [N, 1, O]
        variance = (pixels - mean).square_().mean(dim=1)  # [N, O]
        scale, shift = styles.chunk(2, dim=1)  # [N, O]
        scale = scale * (variance + stylegan1.EPSILON).rsqrt()
        return torch.addcmul((shift - mean[:, 0] * scale)[:, :, None, None], x, scale[:, :, None, None])


class LaidOutBlock1:
    """A block of StyleGAN1."""

    def __init__(self, block: stylegan1.Block, dtype: torch.dtype) -> None:
        self.block, dtype = block, dtype if block.resolution >= 8 else torch.float32
        self.layers = [AdaptiveLayer(layer, block.resolution, dtype) for layer in (block.conv0, block.conv1)]

    def __call__(self, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state at R / 2, or an empty one at 4 pixels, to the state at R."""
        x = self.block.const.expand(len(styles[0]), -1, -1, -1) if self.block.is_first else state.x
        x = x.contiguous(memory_format=torch.channels_last)
        for layer, style in zip(self.layers, styles, strict=True):
            x = layer(x, style, noise)
        return State(x, self.block.picture(x, state.image))


class LaidOutLayer3:
    """A layer of StyleGAN3: modulated convolution and filtered leaky ReLU (arXiv 2106.12423 section 3)."""

    def __init__(self, layer: stylegan3.FilteredLayer, dtype: torch.dtype) -> None:
        self.layer, self.dtype, spec = layer, dtype, layer.spec
        self.conv = pack(layer.weight, spec.in_size, spec.kernel - 1, dtype)
        self.energy = layer.weight.square().sum(dim=(2, 3)).t().contiguous()  # [I, O]
        self.gain = float(layer.magnitude_ema.rsqrt())

    def __call__(self, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """x [N, I, H, W] and a style [N, I] to x [N, O, H', W'] of the spec's sizes."""
        layer, spec, (style,) = self.layer, self.layer.spec, styles
        x = state.x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if spec.is_torgb:
            x = self.conv(x, style * (layer.weight_gain * self.gain), None, layer.bias)
        else:
            style = normalize_2nd_moment(style)
            scale = (style.square() @ self.energy + 1e-8).rsqrt() * self.gain  # [N, O]
            x = self.conv(x, style, scale, layer.bias)
        x = filtered_lrelu(
            x.float(), None, layer.up_filter, layer.down_filter, up=spec.up, down=spec.down, padding=spec.padding[:2],
            gain=1.0 if spec.is_torgb else SQRT2, slope=1.0 if spec.is_torgb else SLOPE, clamp=layer.clamp,
        )  # fmt: skip
        return State(x, x * stylegan3.OUTPUT_SCALE if spec.is_torgb else None)


_LAYOUTS = {
    stylegan1.Block: LaidOutBlock1,
    stylegan2.Block: LaidOutBlock2,
    stylegan3.FilteredLayer: LaidOutLayer3,
}  # fmt: skip


def lay_out(
    piece: Piece, dtype: torch.dtype = torch.float32
) -> LaidOutBlock1 | LaidOutBlock2 | LaidOutLayer3 | None:
    """The piece with its weights laid out to convolve in `dtype`, or None where its module is as good.

    What is not a convolution stays float32, except StyleGAN2's features (arXiv 2006.06676 appendix).
    """
    layout = _LAYOUTS.get(type(piece))
    return None if layout is None else layout(piece, dtype)
