"""What a run will cost, as the Train tab says it before anything starts: speed, time, memory (no gradio)."""

from __future__ import annotations

import threading
from functools import lru_cache, partial
from typing import Any

from stylegan import background
from stylegan.device import pick_device, total_memory, training_dtype
from stylegan.training.config import TrainConfig
from stylegan.training.estimate import Estimate, convolution_rate, estimate
from stylegan.ui.run_view import duration

# The fields of the form that change what it costs.
DECIDES = ("resolution", "minutes", "kimg", "preset", "family", "grow_kimg", "precision", "batch", "accumulate",
           "channel_base", "channel_max", "classes", "transfer")  # fmt: skip
RATE_SECONDS = 1.0  # long enough to meet quiet moments of a machine that does other things too
TIGHT = 0.8  # of the memory, from which on it is said that little is left
_one_at_a_time = threading.Lock()


def cost_view(config: TrainConfig, num_classes: int = 0, num_pictures: int = 0) -> dict[str, Any]:
    """What the page says of a resolved config: `words`, and `problem` where it cannot go well.

    The first answer takes seconds, for which nothing waits but the answer; the same networks again take none.
    """
    with _one_at_a_time:
        found = background.call(partial(_cost, _shape_only(config), num_classes), "cost")
    seconds, kimg = _budget(config, found.images_per_second)
    room = total_memory(pick_device(config.device))
    return {"words": _words(found, seconds, kimg, num_pictures), "problem": _problem(found, room)}


@lru_cache(maxsize=64)
def _cost(config: TrainConfig, num_classes: int) -> Estimate:
    """The estimate of some networks."""
    return estimate(config, num_classes, rate=_rate(config.device, config.precision))


@lru_cache(maxsize=8)
def _rate(name: str, precision: str) -> float:
    """The machine's own convolution rate, measured once."""
    device = pick_device(name)
    return convolution_rate(device, training_dtype(device, precision), RATE_SECONDS)


def _shape_only(config: TrainConfig) -> TrainConfig:
    """The config without what costs nothing, so that it is the same for as many forms as possible."""
    budget = {} if config.grow_kimg else {"kimg": 1.0, "minutes": 0.0}  # which stages it reaches decides its speed
    return config.replace(data="PICTURES", out="RUN", seed=0, transfer="", mirror=True, snapshot_minutes=10.0,
                          tensorboard=False, holdout=0.0, metric_images=0, lr=0.0025, lr_discriminator=0.0025,
                          gamma=1.0, ada_target=0.6, ada_cap=0.8, freeze_d=0, **budget)  # fmt: skip


def _budget(config: TrainConfig, speed: float) -> tuple[float, float]:
    """Seconds and kimg until the run ends."""
    ends = [config.kimg * 1000 / speed] * bool(config.kimg) + [config.minutes * 60] * bool(config.minutes)
    seconds = min(ends)
    return seconds, seconds * speed / 1000


def _words(found: Estimate, seconds: float, kimg: float, num_pictures: int) -> str:
    """One line for people."""
    passes = f" (each picture {kimg * 1000 / num_pictures:,.0f} times)" if num_pictures else ""
    millions = (found.generator_parameters + found.discriminator_parameters) / 1e6
    return (f"About {found.images_per_second:.2g} images a second here: {duration(seconds)} for {kimg:,.3g} kimg"
            f"{passes}. {found.memory_mb / 1024:.1f} GB of memory, {millions:.1f} million parameters.")


def _problem(found: Estimate, room: int | None) -> str:
    """A warning when the memory does not do."""
    needed = found.memory_mb * 2**20
    if room is None or needed <= TIGHT * room:
        return ""
    advice = "take a smaller batch, compute it in parts, or lower the resolution"
    if needed > room:
        return f"That does not fit the {room / 2**30:.0f} GB of this machine: {advice}."
    return f"That leaves little of the {room / 2**30:.0f} GB of this machine: {advice}."
