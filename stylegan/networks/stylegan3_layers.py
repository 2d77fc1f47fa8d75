"""The layers of a StyleGAN3 synthesis network as data: read from a file, or designed from the paper. No torch.

Sizes are pixels of a layer's square grid, margins included; rates are pixels, and cutoffs and half widths cycles, in
the width of the picture without its margins (arXiv 2106.12423 section 3.2).
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any, NamedTuple

from stylegan.errors import CheckpointError

MAX_LAYERS = 64
MAX_NUMBERS = 1 << 32  # of one picture in a layer, at the higher rate
_WHOLE = {
    "in_channels": (1, 8192), "out_channels": (1, 8192), "in_size": (1, 4096), "out_size": (1, 4096), "kernel": (1, 15),
    "up": (1, 16), "down": (1, 16), "up_taps": (1, 512), "down_taps": (1, 512),
}  # fmt: skip
_FRACTIONS = ("in_rate", "out_rate", "in_cutoff", "out_cutoff", "in_half_width", "out_half_width")
_FACTS = ("radial", "is_torgb", "is_critical")


class LayerSpec(NamedTuple):
    """One layer: a modulated convolution of `kernel` pixels, then leaky ReLU between an up and a down filter.

    `padding` is (left, right, top, bottom) after upsampling. `radial` says that the down filter is two-dimensional.
    The half widths of the filters' transition bands are 0 where the filters themselves come from a file.
    """

    name: str
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    in_rate: float
    out_rate: float
    in_cutoff: float
    out_cutoff: float
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    padding: tuple[int, int, int, int]
    radial: bool
    is_torgb: bool
    is_critical: bool
    in_half_width: float = 0.0
    out_half_width: float = 0.0

    @property
    def tmp_size(self) -> int:
        """Pixels of the grid on which leaky ReLU is applied; the convolution pads by kernel - 1."""
        return (self.in_size + self.kernel - 1) * self.up + self.padding[0] + self.padding[1] - self.up_taps + 1

    @property
    def tmp_rate(self) -> float:
        """The rate at which leaky ReLU is applied."""
        return self.in_rate * self.up


def check_layers(layers: Any, resolution: int, img_channels: int) -> tuple[LayerSpec, ...]:
    """The layers as specs, once each is possible, each fits the next, and the last gives the picture.

    Raises CheckpointError before anything of their sizes is allocated.
    """
    if not isinstance(layers, tuple | list) or not 1 <= len(layers) <= MAX_LAYERS:
        raise CheckpointError(f"The config must list 1 to {MAX_LAYERS} layers. Export the checkpoint again.")
    specs = tuple(_checked(entry) for entry in layers)
    if len({spec.name for spec in specs}) != len(specs):
        raise CheckpointError("Two of the config's layers have the same name. Export the checkpoint again.")
    for before, after in pairwise(specs):
        if (before.out_channels, before.out_size) != (after.in_channels, after.in_size):
            raise CheckpointError(f"The config's layers {before.name} and {after.name} do not fit. Export it again.")
    if (specs[-1].out_channels, specs[-1].out_size) != (img_channels, resolution):
        raise CheckpointError("The config's last layer does not give its picture. Export the checkpoint again.")
    return specs


def _checked(entry: Any) -> LayerSpec:
    """One layer with every field of the right type and range, and sizes that agree."""
    if not isinstance(entry, tuple | list) or not len(LayerSpec._fields) - 2 <= len(entry) <= len(LayerSpec._fields):
        raise CheckpointError("The config describes a layer wrongly. Export the checkpoint again.")
    spec = LayerSpec(*entry)
    if not isinstance(spec.name, str) or not re.fullmatch(r"L\d{1,3}_\w{1,60}", spec.name, re.ASCII):
        raise CheckpointError("A layer in the config is not named like L0_36_512. Export the checkpoint again.")
    whole = all(_is_whole(getattr(spec, name), low, high) for name, (low, high) in _WHOLE.items())
    exact = all(_is_fraction(getattr(spec, name)) for name in _FRACTIONS)
    facts = all(isinstance(getattr(spec, name), bool) for name in _FACTS)
    sides = isinstance(spec.padding, tuple | list) and len(spec.padding) == 4
    if not (whole and exact and facts and sides and all(_is_whole(side, -4096, 4096) for side in spec.padding)):
        raise CheckpointError(f"The config describes the layer {spec.name} wrongly. Export the checkpoint again.")
    spec = spec._replace(padding=tuple(spec.padding))
    plain = (spec.up > 1 or spec.up_taps == 1) and (spec.down > 1 or spec.down_taps == 1) and spec.kernel % 2
    same = spec.padding[:2] == spec.padding[2:] and spec.in_rate > 0
    if not (plain and same and (spec.tmp_size - spec.down_taps) // spec.down + 1 == spec.out_size > 0):
        raise CheckpointError(f"The sizes of the config's layer {spec.name} do not fit. Export the checkpoint again.")
    if max(spec.in_channels * spec.in_size**2, spec.out_channels * max(spec.tmp_size, 1) ** 2) > MAX_NUMBERS:
        raise CheckpointError(f"The layer {spec.name} is larger than any known network's; it was refused.")
    return spec


def _is_whole(value: Any, low: int, high: int) -> bool:
    """True for a whole number in the range."""
    return type(value) is int and low <= value <= high


def _is_fraction(value: Any) -> bool:
    """True for a finite number from 0 up to anything a frequency can be."""
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1e6


def design_layers(
    resolution: int,
    img_channels: int = 3,
    channel_base: int = 32768,
    channel_max: int = 512,
    *,
    radial: bool = False,
    num_layers: int = 14,
    num_critical: int = 2,
    margin: int = 10,
    taps: int = 6,
) -> tuple[LayerSpec, ...]:
    """The published layer plan (arXiv 2106.12423 section 3.2): config T, or with `radial` config R (1x1 kernels).

    Cutoff and stopband grow geometrically from 2 and 2^2.1 to half the resolution and 2^0.3 times that, which the
    last `num_critical` layers share; rates are the powers of two that hold the stopband. Config R as published
    has twice the channels of T, so give it twice `channel_base` and `channel_max`. `resolution` is a power of two.
    """
    first, last = (2.0, 2**2.1), (resolution / 2, resolution / 2 * 2**0.3)
    steps = [min(i / (num_layers - num_critical), 1.0) for i in range(num_layers + 1)]
    cutoffs, stops = ([start * (end / start) ** step for step in steps] for start, end in zip(first, last, strict=True))
    rates = [2.0 ** math.ceil(math.log2(min(2 * stop, resolution))) for stop in stops]
    halves = [max(stop, rate / 2) - cutoff for stop, rate, cutoff in zip(stops, rates, cutoffs, strict=True)]
    sizes = [int(rate) + 2 * margin for rate in rates[:-2]] + [resolution] * 2
    widths = [max(round(min(channel_base / 2 / cutoff, channel_max)), 1) for cutoff in cutoffs[:-1]] + [img_channels]
    layers = []
    for i in range(num_layers + 1):
        before, is_torgb, is_critical = max(i - 1, 0), i == num_layers, i >= num_layers - num_critical
        tmp_rate = max(rates[before], rates[i]) * (1 if is_torgb else 2)
        up, down = round(tmp_rate / rates[before]), round(tmp_rate / rates[i])
        kernel = 1 if radial or is_torgb else 3
        up_taps, down_taps = taps * up if up > 1 else 1, taps * down if down > 1 else 1
        # Centres of the grids stay on each other: what the filters do not take is cut off half before, half after.
        total = (sizes[i] - 1) * down + 1 - (sizes[before] + kernel - 1) * up + up_taps + down_taps - 2
        side = ((total + up) // 2, total - (total + up) // 2)
        layers.append(LayerSpec(
            f"L{i}_{sizes[i]}_{widths[i]}", widths[before], widths[i], sizes[before], sizes[i], rates[before], rates[i],
            cutoffs[before], cutoffs[i], kernel, up, down, up_taps, down_taps, side + side,
            radial and down > 1 and not is_critical, is_torgb, is_critical, halves[before], halves[i],
        ))  # fmt: skip
    return tuple(layers)
