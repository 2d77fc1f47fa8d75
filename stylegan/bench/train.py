"""How fast training is: images a second by phase, the share of this machine's floor, bfloat16 beside float32, and what
data and an open page cost.

Every round of a row steps each precision once with all its phases, R1 included, so that what is compared was measured
in turn; figures are medians of rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stylegan.data.images import open_images, sample_sets
from stylegan.device import autocast_dtype
from stylegan.speed import convolution_rate
from stylegan.training.config import TrainConfig
from stylegan.training.estimate import phase_gflop
from stylegan.training.trainer import Trainer

RESOLUTIONS, BATCH = (64, 128), 32
R1_INTERVAL = 16
AUGMENT_P = 0.2
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
# What is wanted of two cores with AMX tiles at 64 px: figures of a row, whether at least or at most, how much.
TARGETS = (("speedup", "least", 2.5), ("share_of_floor", "least", 0.2), ("r1_of_d", "most", 1.6),
           ("data_share", "most", 0.03), ("page_share", "most", 0.03))  # fmt: skip


@dataclass(frozen=True)
class TrainRow:
    """One network in one precision; a phase is generator, discriminator, r1, data (pictures) or average (of weights).

    `ms` and `images_per_second` of a phase are of a step in which it runs; a whole step has R1's sixteenth. `augment`
    is part of generator and discriminator, and measured alone. `gflop_per_image` counts the convolutions and matrix
    products of a phase. `floor` is the best convolution rate in GFLOP/s of that precision in this run, and
    `share_of_floor` the rate of a whole step, as a share of it. `r1_of_d` is the time of R1 over the discriminator's,
    `data_share` that of data over a step's, `speedup` images a second over float32's.
    """

    name: str
    precision: str
    images_per_second: float
    step_ms: float
    ms: dict[str, float]
    phase_images_per_second: dict[str, float]
    gflop_per_image: dict[str, float]
    floor: float
    share_of_floor: float
    r1_of_d: float
    data_share: float
    speedup: float


def precisions() -> tuple[torch.dtype, ...]:
    """float32, and bfloat16 where this processor is quicker with it."""
    return tuple(dict.fromkeys((torch.float32, autocast_dtype(torch.device("cpu")))))


def bench_train(
    resolutions: tuple[int, ...] = RESOLUTIONS, rounds: int = 5, dtypes: tuple[torch.dtype, ...] | None = None,
    channel_base: int = 0, batch: int = BATCH,
) -> Iterator[TrainRow]:  # fmt: skip
    """Time training of the slim preset on the shipped sample pictures, one row a resolution and precision.

    `channel_base` widens the networks (0: slim's 1536).
    """
    for resolution in resolutions:
        config = TrainConfig(data="cartoon-sample-64", out="nowhere", preset="slim", resolution=resolution, batch=batch,
                             device="cpu", r1_interval=R1_INTERVAL, channel_base=channel_base).resolve()  # fmt: skip
        yield from _rows(config, rounds, dtypes or precisions())


def _rows(config: TrainConfig, rounds: int, dtypes: tuple[torch.dtype, ...]) -> list[TrainRow]:
    """The rows of one network."""
    images = open_images(sample_sets()[config.data], config.resolution)
    trainers = {dtype: Trainer(config, images) for dtype in dtypes}
    rates = dict.fromkeys(dtypes, 0.0)
    taken: dict[torch.dtype, list[dict[str, float]]] = {dtype: [] for dtype in dtypes}
    for turn in range(rounds + 1):
        for dtype, trainer in trainers.items():
            trainer.dtype = dtype
            found = _phases(trainer)
            if turn:  # the first round does not count
                taken[dtype].append(found)
            rates[dtype] = max(rates[dtype], convolution_rate(dtype, 3))
    gflop, rows = phase_gflop(config), []
    for dtype in dtypes:
        seconds = {name: statistics.median(each[name] for each in taken[dtype]) for name in taken[dtype][0]}
        rows.append(_row(config, dtype, seconds, gflop, rates[dtype], rows[0].images_per_second if rows else 0.0))
    return rows


def _phases(trainer: Trainer) -> dict[str, float]:
    """Seconds of each phase of one step with R1, of what lies between the phases, and of augmentation alone."""
    trainer.augment.p, trainer.steps, trainer.phase_seconds = AUGMENT_P, 0, {}
    started = time.perf_counter()
    trainer.step()
    whole = time.perf_counter() - started
    phases = dict(trainer.phase_seconds)
    return phases | {"between": max(whole - sum(phases.values()), 0.0), "augment": _augment_seconds(trainer)}


def _augment_seconds(trainer: Trainer) -> float:
    """Seconds that a step's augmentation takes: fakes there and back for the generator, then fakes and reals."""
    size, source = trainer.config.resolution, torch.Generator().manual_seed(0)
    images = torch.zeros(trainer.config.batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    started = time.perf_counter()
    trainer.augment(images.requires_grad_(True), source).sum().backward()
    for _ in range(2):
        trainer.augment(images.detach(), source)
    return time.perf_counter() - started


def _row(
    config: TrainConfig, dtype: torch.dtype, seconds: dict[str, float], gflop: dict[str, float], rate: float,
    plain: float,
) -> TrainRow:  # fmt: skip
    """One row; `plain` is float32's images a second, 0 for float32 itself."""
    whole = sum(seconds[name] for name in ("generator", "discriminator", "data", "average", "between"))
    whole += seconds["r1"] / R1_INTERVAL
    work = gflop["generator"] + gflop["discriminator"] + gflop["r1"] / R1_INTERVAL
    speed = config.batch / whole
    name = f"{config.resolution} px, batch {config.batch}, channel_base {config.channel_base}"
    return TrainRow(
        name, NAMES[dtype], speed, 1000 * whole, {phase: 1000 * value for phase, value in seconds.items()},
        {phase: config.batch / value for phase, value in seconds.items() if phase != "between"},
        {**gflop, "step": work}, rate, work * speed / rate, seconds["r1"] / seconds["discriminator"],
        seconds["data"] / whole, speed / plain if plain else 1.0,
    )  # fmt: skip


def against_targets(rows: list[TrainRow], page_share: float) -> list[dict[str, object]]:
    """Each target beside what was measured: of 64 px where there is such a row, in the quickest precision."""
    at_64 = [row for row in rows if row.name.startswith("64 px")]
    row = max(at_64 or rows, key=lambda row: row.images_per_second)
    found = {"page_share": page_share, **vars(row)}
    if len({row.precision for row in rows}) == 1:
        found["speedup"] = None
    return [{"figure": name, "bound": bound, "target": target, "measured": found[name]}
            for name, bound, target in TARGETS]  # fmt: skip
