"""StyleGAN3's synthesis network, configs T and R: alias-free, without noise (arXiv 2106.12423 section 3).

Letters: N batch, C channels, I input, O output, K kernel, H height, W width, D width of w, L rows of W+, T taps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from stylegan.errors import RequestError
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.layers import FullyConnected, drawn, normalize_2nd_moment
from stylegan.networks.pieces import LayerInfo, Noise, Piece, PiecewiseSynthesis, State
from stylegan.networks.stylegan3_layers import LayerSpec
from stylegan.ops.bias_act import SLOPE, SQRT2
from stylegan.ops.filtered_lrelu import filtered_lrelu
from stylegan.ops.modulated_conv import modulated_conv
from stylegan.request import Transform

if TYPE_CHECKING:
    import numpy as np

OUTPUT_SCALE = 0.25  # the last layer's numbers are four times the picture's


def transform_matrix(transform: Transform | torch.Tensor | np.ndarray) -> torch.Tensor:
    """The matrix [3, 3] that takes a place in the result to where it was before; picture widths, x right, y down.

    A Transform scales, then turns counter-clockwise, then shifts; a matrix [3, 3] is taken as it is, so it is the
    inverse of what one sees, as in the published networks. RequestError when it is none.
    """
    if not isinstance(transform, Transform):
        matrix = torch.as_tensor(transform, dtype=torch.float32)
        if matrix.shape != (3, 3) or not bool(matrix.isfinite().all()):
            raise RequestError(f"A transform must be a 3 x 3 matrix of finite numbers, not {list(matrix.shape)}.")
        return matrix
    angle = math.radians(transform.rotate)
    cos, sin = math.cos(angle) / transform.scale, math.sin(angle) / transform.scale
    x, y = transform.translate_x, transform.translate_y
    return torch.tensor([[cos, -sin, sin * y - cos * x], [sin, cos, -sin * x - cos * y], [0.0, 0.0, 1.0]])


def low_pass(taps: int, cutoff: float, half_width: float, rate: float, radial: bool = False) -> torch.Tensor:
    """A Kaiser-windowed low-pass filter with sum 1: sinc [T], or jinc [T, T] if `radial` (appendix C)."""
    if taps == 1:
        return torch.ones([1, 1] if radial else [1])
    attenuation = 2.285 * (taps - 1) * math.pi * (2 * half_width / (rate / 2)) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * max(attenuation - 21, 0) ** 0.4 + 0.07886 * max(attenuation - 21, 0)
    exact = {"dtype": torch.float64, "device": "cpu"}
    window = torch.kaiser_window(taps, periodic=False, beta=beta, **exact)  # [T]
    places = (torch.arange(taps, **exact) - (taps - 1) / 2) / rate  # [T] in picture widths
    if radial:
        radius = torch.hypot(places[:, None], places[None, :]).clamp(min=1e-9)
        kernel = torch.special.bessel_j1(2 * math.pi * cutoff * radius) / radius * window.outer(window)  # [T, T]
    else:
        kernel = torch.sinc(2 * cutoff * places) * window
    return (kernel / kernel.sum()).float()


class FourierInput(Piece):
    """A picture of plane waves that w turns and shifts as a whole (section 3.2, appendix F)."""

    def __init__(self, spec: LayerSpec, w_dim: int):
        super().__init__()
        channels = spec.in_channels
        self.name, self.resolution, self.styles, self.has_image = "input", round(spec.in_rate), slice(0, 1), False
        self.size, self.rate, self.bandwidth = spec.in_size, spec.in_rate, spec.in_cutoff
        self.affine = FullyConnected(w_dim, 4)
        self.weight = nn.Parameter(drawn(channels, channels))
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias[0] = 1.0
        angle = 2 * math.pi * torch.rand(channels, device="cpu")
        radius = self.bandwidth * torch.rand(channels, device="cpu").sqrt()
        self.register_buffer("transform", torch.eye(3, device="cpu"))
        self.register_buffer("freqs", torch.stack([angle.cos() * radius, angle.sin() * radius], dim=1))
        self.register_buffer("phases", torch.rand(channels, device="cpu") - 0.5)

    def forward(
        self, state: State, styles: list[torch.Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> State:
        """A style [N, 4] -> x [N, C, H, W], channels-last; the state's x [3, 3] replaces the own transform."""
        (pose,) = styles
        user = self.transform if state.x is None else state.x.to(self.transform)
        linear, shift = self._pose(pose, user)  # [N, 2, 2], [N, 2]
        freqs = self.freqs @ linear  # [N, C, 2]
        phases = self.phases + shift @ self.freqs.t()  # [N, C]
        # Waves that a user's scale puts above the band fade out until the grid cannot hold them.
        above = (freqs.norm(dim=2) - self.bandwidth) / max(self.rate / 2 - self.bandwidth, 1e-6)
        amplitudes = (1 - above).clamp(0, 1)  # [N, C]
        grid = torch.arange(self.size, dtype=pose.dtype, device=pose.device)
        places = (grid + 0.5 - self.size / 2) / self.rate  # [H]
        across = places[:, None] * freqs[:, None, :, 0] + phases[:, None]  # [N, W, C]
        down = places[:, None] * freqs[:, None, :, 1]  # [N, H, C]
        waves = torch.sin(2 * math.pi * (down[:, :, None] + across[:, None]))  # [N, H, W, C]
        waves = waves * amplitudes[:, None, None]
        return State((waves @ (self.weight.t() / math.sqrt(len(self.weight)))).permute(0, 3, 1, 2))

    @staticmethod
    def _pose(pose: torch.Tensor, user: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pose [N, 4] (cosine, sine, x, y; the first two not normalised) after the user's matrix [3, 3]."""
        pose = pose / pose[:, :2].norm(dim=1, keepdim=True)
        cos, sin, place = pose[:, 0], pose[:, 1], pose[:, 2:]
        turn = torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)  # [N, 2, 2]
        shift = (turn @ (user[:2, 2] - place)[:, :, None])[:, :, 0]  # [N, 2]
        return turn @ user[:2, :2], shift


class FilteredLayer(Piece):
    """Modulated convolution and filtered leaky ReLU, or with `is_torgb` plain colours (section 3.2, figure 4b)."""

    def __init__(self, spec: LayerSpec, w_dim: int, clamp: float):
        super().__init__()
        self.spec, self.clamp = spec, clamp
        self.name, self.resolution, self.has_image = spec.name, round(spec.out_rate), spec.is_torgb
        self.affine = FullyConnected(w_dim, spec.in_channels, bias=1.0)
        self.weight = nn.Parameter(drawn(spec.out_channels, spec.in_channels, spec.kernel, spec.kernel))
        self.bias = nn.Parameter(torch.zeros(spec.out_channels))
        self.weight_gain = 1 / math.sqrt(spec.in_channels * spec.kernel**2)
        self.register_buffer("magnitude_ema", torch.ones([]))
        up_filter = low_pass(spec.up_taps, spec.in_cutoff, spec.in_half_width, spec.tmp_rate)
        down_filter = low_pass(spec.down_taps, spec.out_cutoff, spec.out_half_width, spec.tmp_rate, spec.radial)
        self.register_buffer("up_filter", up_filter if spec.up > 1 else None)
        self.register_buffer("down_filter", down_filter if spec.down > 1 else None)

    def forward(
        self, state: State, styles: list[torch.Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> State:
        """x [N, I, H, W] and a style [N, I] -> x [N, O, H', W'] of the spec's sizes; the last layer gives the image."""
        spec, (style,) = self.spec, styles
        gain = self.magnitude_ema.rsqrt()
        # Demodulation takes out the styles' scale again; they are normalised only so that its epsilon stays small.
        style = style * (self.weight_gain * gain) if spec.is_torgb else normalize_2nd_moment(style)
        x = modulated_conv(
            state.x.to(dtype), self.weight, style, demodulate=not spec.is_torgb, gain=1.0 if spec.is_torgb else gain,
            padding=spec.kernel - 1,
        )  # fmt: skip
        x = filtered_lrelu(
            x, self.bias, self.up_filter, self.down_filter, up=spec.up, down=spec.down, padding=spec.padding[:2],
            gain=1.0 if spec.is_torgb else SQRT2, slope=1.0 if spec.is_torgb else SLOPE, clamp=self.clamp,
        )  # fmt: skip
        return State(x, x.float() * OUTPUT_SCALE if spec.is_torgb else None)


class Synthesis(PiecewiseSynthesis):
    """ws [N, L, D] -> image [N, C, R, R]; row 0 places the input, row i + 1 styles layer i."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.specs = config.layers
        self.input = FourierInput(config.layers[0], config.w_dim)
        for i, spec in enumerate(config.layers, start=1):
            layer = FilteredLayer(spec, config.w_dim, config.conv_clamp)
            layer.styles = slice(i, i + 1)
            self.add_module(layer.name, layer)

    @property
    def layers(self) -> list[LayerInfo]:
        """One entry a row of W+, in order; resolutions are those of the grids without their margins."""
        first = self.specs[0]
        rows = [LayerInfo("input", round(first.in_rate), first.in_channels, 0)]
        for i, spec in enumerate(self.specs):
            kind = " torgb" if spec.is_torgb else ""
            rows.append(LayerInfo(f"L{i}{kind}", round(spec.out_rate), spec.out_channels, i + 1))
        return rows

    def pieces(self) -> list[Piece]:
        """The input and every layer."""
        return [self.input, *(getattr(self, spec.name) for spec in self.specs)]

    def affines(self) -> list[tuple[int, FullyConnected]]:
        """(row of W+, map from w to styles) of every layer, the input's turn and shift included."""
        return [(row, piece.affine) for row, piece in enumerate(self.pieces())]
