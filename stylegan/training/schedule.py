"""What changes over a run: learning rate, gamma, Adam's memory, augmentation and the averages, by share of the budget.

`tail`: constant, then linear to a fifth in the last third. `cosine`: R3GAN's schedules (arXiv 2501.05441 section 4.1
and its published settings): rate to a quarter, gamma to a tenth, beta2 0.9 to 0.99, p and the averages' half-life
from 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stylegan.training.config import TrainConfig


class Moment(NamedTuple):
    """The settings at one moment: factors on the learning rates and on gamma, beta2, and shares of p and half-life."""

    lr: float = 1.0
    gamma: float = 1.0
    beta2: float = 0.99
    p: float = 1.0
    half_life: float = 1.0


def moment(config: TrainConfig, progress: float) -> Moment:
    """The settings of a resolved config at `progress` (0 to 1) of its budget; nothing else decides them."""
    progress = min(max(progress, 0.0), 1.0)
    if config.schedule == "tail":
        return Moment(lr=min(1.0, 1 - 0.8 * (progress - 2 / 3) * 3))
    if config.schedule == "cosine":
        way = (1 - math.cos(math.pi * progress)) / 2  # 0 to 1
        return Moment(1 - 0.75 * way, 1 - 0.9 * way, 0.9 + 0.09 * way, way, way)
    return Moment()
