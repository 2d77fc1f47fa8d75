"""The pictures as tutorials compute them: what everyone else runs, kept to be measured against.

Written from the papers, with the plain tools of a tensor library: grouped convolution with a modulated weight for each
picture, float32, NCHW; resampling by inserting zeros, padding and filtering every channel; noise, bias, activation,
gain and clamp as passes of their own.

Letters: N batch, I input channels, O output channels, K kernel, T filter taps, L rows of W+, D width of w.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from stylegan.networks.generator import Generator
from stylegan.ops.bias_act import SLOPE, SQRT2

FUSED_FROM = 128  # the resolution from which StyleGAN1 doubles and convolves in one (arXiv 1812.04948 appendix C)


class Textbook:
    """A generator's own tensors, run the textbook way with constant noise: ws [N, L, D] -> image [N, C, R, R].

    StyleGAN2 must be of the skip kind.
    """

    def __init__(self, generator: Generator) -> None:
        self.config = generator.config
        self.tensors = _nested(generator.synthesis.state_dict())
        self._run = {"stylegan1": self._stylegan1, "stylegan2": self._stylegan2, "stylegan3": self._stylegan3}

    @torch.no_grad()
    def __call__(self, ws: torch.Tensor) -> torch.Tensor:
        """Synthesise float32 images, not clamped."""
        return self._run[self.config.family](ws)

    def _stylegan2(self, ws: torch.Tensor) -> torch.Tensor:
        """arXiv 1912.04958 figures 2c and 7b."""
        row, image, clamp = 0, None, self.config.conv_clamp
        for resolution in self.config.block_resolutions:
            block = self.tensors[f"b{resolution}"]
            if "const" in block:
                x = block["const"].expand(len(ws), -1, -1, -1)
            for name in ("conv0", "conv1"):
                if name in block:
                    layer = block[name]
                    up = 2 if name == "conv0" else 1
                    x = modulated(x, layer["weight"], affine(ws[:, row], layer["affine"]), up, layer["resample_filter"])
                    x = x + layer["noise_const"] * layer["noise_strength"]
                    x = activate(x, layer["bias"], SQRT2, SLOPE, clamp)
                    row += 1
            layer = block["torgb"]
            styles = affine(ws[:, row], layer["affine"]) / math.sqrt(x.shape[1])
            rgb = activate(modulated(x, layer["weight"], styles, demodulate=False), layer["bias"], 1.0, 1.0, clamp)
            kernel = block["resample_filter"]
            image = rgb if image is None else upfirdn(image, kernel, up=2, padding=(2, 1), gain=4.0) + rgb
        return image

    def _stylegan1(self, ws: torch.Tensor) -> torch.Tensor:
        """arXiv 1812.04948 figure 1b and appendix C."""
        rows = iter(ws.unbind(1))
        blur = torch.tensor([1.0, 2.0, 1.0])
        blur = blur.ger(blur) / 16
        for resolution in self.config.block_resolutions:
            block = self.tensors[f"b{resolution}"]
            for name in ("conv0", "conv1"):
                layer = block[name]
                if "weight" not in layer:
                    x = block["const"].expand(len(ws), -1, -1, -1)
                else:
                    weight = layer["weight"] * (SQRT2 / math.sqrt(layer["weight"][0].numel()))
                    x = F.conv2d(x, weight, padding=1) if name == "conv1" else _doubled(x, weight)
                    x = x if name == "conv1" else upfirdn(x, blur, padding=(1, 1))
                x = x + layer["noise_const"] * layer["noise_weight"][:, None, None]
                x = activate(x, layer["bias"], 1.0, SLOPE)
                x = x - x.mean(dim=(2, 3), keepdim=True)
                x = x * (x.square().mean(dim=(2, 3), keepdim=True) + 1e-8).rsqrt()
                scale, shift = affine(next(rows), layer["affine"])[:, :, None, None].chunk(2, dim=1)
                x = x * scale + shift
        weight = block["torgb"]["weight"]
        return F.conv2d(x, weight / math.sqrt(weight.shape[1])) + block["torgb"]["bias"][:, None, None]

    def _stylegan3(self, ws: torch.Tensor) -> torch.Tensor:
        """arXiv 2106.12423 section 3.2 and figure 4b."""
        x = self._waves(ws[:, 0])
        for row, spec in enumerate(self.config.layers, start=1):
            layer = self.tensors[spec.name]
            weight, styles = layer["weight"], affine(ws[:, row], layer["affine"])
            gain, slope = (1.0, 1.0) if spec.is_torgb else (SQRT2, SLOPE)
            if spec.is_torgb:
                styles = styles / math.sqrt(weight[0].numel())
            else:
                weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
                styles = styles * styles.square().mean().rsqrt()
            x = modulated(
                x, weight, styles, demodulate=not spec.is_torgb, gain=layer["magnitude_ema"].rsqrt(),
                padding=spec.kernel - 1,
            )  # fmt: skip
            x = x + layer["bias"][:, None, None]
            one = x.new_ones(1)
            x = upfirdn(x, layer.get("up_filter", one), up=spec.up, padding=spec.padding[:2], gain=spec.up**2)
            x = activate(x, None, gain, slope, self.config.conv_clamp)
            x = upfirdn(x, layer.get("down_filter", one), down=spec.down)
        return x * 0.25

    def _waves(self, w: torch.Tensor) -> torch.Tensor:
        """The Fourier features that w turns and shifts (section 3.2, appendix F)."""
        part, spec = self.tensors["input"], self.config.layers[0]
        pose = affine(w, part["affine"])
        cos, sin, x, y = (pose / pose[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        one, zero = torch.ones_like(cos), torch.zeros_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
        move = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).reshape(-1, 3, 3)
        pose = turn @ move @ part["transform"]  # [N, 3, 3]
        phases = part["phases"] + (part["freqs"] @ pose[:, :2, 2:])[:, :, 0]  # [N, C]
        freqs = part["freqs"] @ pose[:, :2, :2]  # [N, C, 2]
        fade = (1 - (freqs.norm(dim=2) - spec.in_cutoff) / (spec.in_rate / 2 - spec.in_cutoff)).clamp(0, 1)
        side = spec.in_size / spec.in_rate / 2
        theta = torch.tensor([[side, 0.0, 0.0], [0.0, side, 0.0]])[None]
        grid = F.affine_grid(theta, [1, 1, spec.in_size, spec.in_size], align_corners=False)  # [1, H, W, 2]
        waves = torch.sin((grid @ freqs.mT[:, None] + phases[:, None, None]) * (2 * math.pi))  # [N, H, W, C]
        waves = (waves * fade[:, None, None]) @ (part["weight"].t() / math.sqrt(len(part["weight"])))  # [N, H, W, C]
        return waves.permute(0, 3, 1, 2).contiguous()


def affine(w: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
    """Styles [N, I] of w [N, D], with run-time weight scaling."""
    return F.linear(w, part["weight"] / math.sqrt(w.shape[1]), part["bias"])


def upfirdn(
    x: torch.Tensor, kernel: torch.Tensor, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> torch.Tensor:  # fmt: skip
    """Insert zeros, pad, filter every channel with [T, T] or along each axis with [T], and drop pixels."""
    num, channels, height, width = x.shape
    x = F.pad(x.reshape(num, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.reshape(num, channels, height * up, width * up), (*padding, *padding))  # negative padding crops
    kernel = (kernel * gain ** (kernel.ndim / 2)).flip(list(range(kernel.ndim)))
    passes = (kernel[None],) if kernel.ndim == 2 else (kernel[None, None, :], kernel[None, :, None])
    for weight in passes:
        x = F.conv2d(x, weight.expand(channels, 1, -1, -1), groups=channels)
    return x[:, :, ::down, ::down]


def modulated(
    x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, up: int = 1, kernel: torch.Tensor | None = None,
    *, demodulate: bool = True, gain: float | torch.Tensor = 1.0, padding: int | None = None,
) -> torch.Tensor:  # fmt: skip
    """Modulated convolution, each picture a group of its own (arXiv 1912.04958 section 2.2 and appendix B)."""
    weight = weight[None] * styles[:, None, :, None, None]  # [N, O, I, K, K]
    if demodulate:
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    weight = weight * gain
    num, outputs, inputs, size = weight.shape[:4]
    x = x.reshape(1, num * inputs, *x.shape[2:])
    if up == 1:
        padding = size // 2 if padding is None else padding
        x = F.conv2d(x, weight.reshape(-1, inputs, size, size), padding=padding, groups=num)
    else:
        weight = weight.transpose(1, 2).reshape(-1, outputs, size, size)
        x = upfirdn(F.conv_transpose2d(x, weight, stride=2, groups=num), kernel, padding=(1, 1), gain=4.0)
    return x.reshape(num, outputs, *x.shape[2:])


def activate(
    x: torch.Tensor, bias: torch.Tensor | None, gain: float, slope: float, clamp: float = 0.0
) -> torch.Tensor:
    """Bias, leaky ReLU, gain and clamp, one pass after another."""
    if bias is not None:
        x = x + bias[:, None, None]
    if slope != 1:
        x = F.leaky_relu(x, slope)
    if gain != 1:
        x = x * gain
    return x.clamp(-clamp, clamp) if clamp else x


def _doubled(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Repeat pixels and convolve; from FUSED_FROM pixels on as one transposed convolution of four copies' sum."""
    if 2 * x.shape[2] < FUSED_FROM:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    wide = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))  # [I, O, 5, 5]
    wide = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]
    return F.conv_transpose2d(x, wide, stride=2, padding=1)


def _nested(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Dotted names as dictionaries in dictionaries; tensors in plain layout."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = tensor.detach().contiguous()
    return tree
