"""The channels of S space as directions (StyleSpace, arXiv 2011.12799): each layer's styles, in their own deviations.

Shapes: N samples, L layers (num_ws), D w_dim, C_i channels of affine map i.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan.directions.population import sample_w
from stylegan.errors import DirectionError
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator
from stylegan.request import channel_of

CHANNEL, STYLES = "channel", "styles"  # kinds: one channel, several
_SAMPLES, _BATCH = 2_000, 250
_SPREADS: weakref.WeakKeyDictionary[Generator, list[Tensor]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def style_spreads(generator: Generator) -> list[Tensor]:
    """The standard deviation [C_i] of every channel over the model's population, a tensor each affine map (CPU).

    Measured once a network on 2000 seeded latents, and rounded to 5 digits so that machines agree on it.
    """
    if generator not in _SPREADS:
        w = sample_w(generator, _SAMPLES)
        parts = [styles_of(generator, Latents.from_w(part, generator.num_ws)) for part in w.split(_BATCH)]
        spreads = [torch.cat(styles).double().std(0) for styles in zip(*parts, strict=True)]
        _SPREADS[generator] = [torch.tensor([float(f"{value:.4e}") for value in spread.tolist()])
                               for spread in spreads]
    return _SPREADS[generator]


@torch.no_grad()
def styles_of(generator: Generator, latents: Latents) -> list[Tensor]:
    """The styles [N, C_i] of latents, their offsets included, a tensor each affine map, on the CPU."""
    styles = generator.synthesis.styles(latents.ws.to(generator.device), latents.offsets)
    return [style.float().cpu() for style in styles]


def style_ranges(generator: Generator) -> list[tuple[int, int, int]]:
    """(affine map, its layer, its number of channels) of every affine map."""
    return [(index, row, len(affine.bias)) for index, (row, affine) in enumerate(generator.synthesis.affines())]


def channel_direction(generator: Generator, name: str) -> Direction:
    """The direction that a name like s7.42 means: channel 42 behind affine map 7, one standard deviation of it.

    Raises DirectionError that names the ranges when the model has no such channel.
    """
    ranges = style_ranges(generator)
    index, channel = channel_of(name) or (-1, -1)
    if not 0 <= index < len(ranges):
        raise DirectionError(f"The channel {name!r} does not exist; this model's channels are s0.0 to "
                             f"s{len(ranges) - 1}.{ranges[-1][2] - 1}.")
    _, row, width = ranges[index]
    if channel >= width:
        raise DirectionError(f"The channel {name!r} does not exist; style {index} has the channels s{index}.0 to "
                             f"s{index}.{width - 1}.")
    shift = torch.zeros(width)
    shift[channel] = style_spreads(generator)[index][channel]
    return Direction(name, torch.zeros(generator.num_ws, generator.w_dim), (row, row), CHANNEL,
                     info={"method": "one channel of S space, arXiv 2011.12799", "purity": 1},
                     channels={index: shift}, rows={index: row})


def channel_name(index: int, channel: int) -> str:
    """The name of a channel, like s7.42."""
    return f"s{index}.{channel}"


def style_direction(generator: Generator, name: str, shifts: Sequence[Tensor], kind: str, info: dict,
                    population: Tensor) -> Direction:
    """A direction of S space from `shifts` [C_i], one each affine map, in standard deviations of each channel.

    Calibrated where every channel has unit spread: strength 1 is one standard deviation of the population w [N, D]
    projected there on the shifts. Raises DirectionError when all shifts are zero.
    """
    spreads, ranges = style_spreads(generator), style_ranges(generator)
    moved = [index for index, shift in enumerate(shifts) if shift.any()]
    length = torch.cat([shift.double() for shift in shifts]).norm()
    if not moved or not torch.isfinite(length):
        raise DirectionError(f"The direction {name!r} moves no channel; choose other pictures or more channels.")
    projected = torch.zeros(len(population), dtype=torch.float64)
    for part, rows in zip(population.split(_BATCH), projected.split(_BATCH), strict=True):
        styles = styles_of(generator, Latents.from_w(part, generator.num_ws))
        for index in moved:
            live = spreads[index] > 0
            unit = shifts[index].double() / length
            rows += (styles[index].double()[:, live] / spreads[index][live]) @ unit[live]
    scale = projected.std() / length
    channels = {index: (shifts[index].double() * scale * spreads[index]).float() for index in moved}
    rows = {index: ranges[index][1] for index in moved}
    purity = sum(int(channel.count_nonzero()) for channel in channels.values())
    return Direction(name, torch.zeros(generator.num_ws, generator.w_dim), (min(rows.values()), max(rows.values())),
                     kind, info={**info, "purity": purity}, channels=channels, rows=rows)


@torch.no_grad()
def style_shifts(generator: Generator, direction: Direction) -> list[Tensor]:
    """What a direction does to every channel, [C_i] each affine map, in standard deviations of the channel."""
    first, last = direction.layers
    shifts = []
    for index, (row, weight) in enumerate(generator.style_weights()):
        inside = first <= row <= last
        shift = weight.double().cpu() @ direction.vector[row].double().cpu() * inside  # [C_i]
        if direction.channels and index in direction.channels and inside:
            shift = shift + direction.channels[index].double()
        spread = style_spreads(generator)[index].double()
        shifts.append(torch.where(spread > 0, shift / spread.clamp(min=1e-30), 0.0).float())
    return shifts


def strongest(shifts: Sequence[Tensor], num_channels: int) -> list[Tensor]:
    """The shifts [C_i] with only the `num_channels` largest by magnitude over all affine maps kept."""
    flat = torch.cat(list(shifts))
    kept = torch.zeros_like(flat)
    top = flat.abs().topk(min(num_channels, len(flat))).indices
    kept[top] = flat[top]
    return list(kept.split([len(shift) for shift in shifts]))
