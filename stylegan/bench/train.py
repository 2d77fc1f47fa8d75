"""How fast training is: images a second, and the share of this machine's convolution rate."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from stylegan.data.images import open_images, sample_sets
from stylegan.speed import convolution_rate, interleave
from stylegan.training.config import TrainConfig
from stylegan.training.trainer import Trainer


@dataclass(frozen=True)
class TrainRow:
    """One resolution: images a second, ms of a step with and without R1, and the share of the floor."""

    name: str
    images_per_second: float
    step_ms: float
    step_with_r1_ms: float
    gflop_per_image: float
    share_of_floor: float


def bench_train(resolutions: tuple[int, ...] = (64,), steps: int = 6) -> list[TrainRow]:
    """Time training steps of the slim preset on the shipped sample pictures."""
    rate = convolution_rate()
    return [_train_row(resolution, rate, steps) for resolution in resolutions]


def _train_row(resolution: int, rate: float, steps: int) -> TrainRow:
    """One line of `bench_train`; steps with and without R1 are timed in turn."""
    config = TrainConfig(data="cartoon-sample-64", out="nowhere", preset="slim", resolution=resolution, device="cpu",
                         r1_interval=2).resolve()  # fmt: skip
    trainer = Trainer(config, open_images(sample_sets()[config.data], resolution))
    trainer.augment.p = 0.2
    trainer.step()
    trainer.steps = 1  # the next step has no R1
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    gflop = counter.get_total_flops() / 1e9
    seconds = interleave({"r1": trainer.step, "plain": trainer.step}, steps)
    whole = (15 * seconds["plain"] + seconds["r1"]) / 16  # R1 every 16 steps, as the presets have it
    return TrainRow(f"slim {resolution} px, batch {config.batch}", config.batch / whole, seconds["plain"] * 1000,
                    seconds["r1"] * 1000, gflop / config.batch, gflop / rate / seconds["plain"])  # fmt: skip
