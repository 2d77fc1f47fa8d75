"""The networks of a run at a stage of its growth, and what goes with them: averages, optimisers, magnitudes.

The next stage's networks take over every tensor that the ones before have, and so do the averages; the optimisers begin
anew at every stage, as in the published training of arXiv 1710.10196. A run that does not grow has one stage.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from stylegan.networks.discriminator import Discriminator
from stylegan.networks.generator import build_generator
from stylegan.training.ema import Average
from stylegan.training.growth import Stage
from stylegan.training.magnitudes import Magnitudes

if TYPE_CHECKING:
    from stylegan.training.trainer import Trainer


def assemble(trainer: Trainer, stage: Stage) -> None:
    """Give a trainer the networks of a stage: what it has under the same name, the rest drawn from the run's seed."""
    config, classes = trainer.config, trainer.num_classes
    known = {} if trainer.stage is None else trainer.networks()
    with torch.random.fork_rng():
        torch.random.manual_seed(config.seed)
        trainer.generator = build_generator(config.generator(classes, stage))
        trainer.discriminator = Discriminator(config.discriminator(classes, stage))
    for network in (trainer.generator, trainer.discriminator):
        network.to(trainer.device, memory_format=torch.channels_last)
    ramps, half_life = (config.ema_ramp, 4 * config.ema_ramp), config.ema_kimg * 1000
    trainer.averages = [
        Average(trainer.generator, half_life * 4**i, ramp or math.inf) for i, ramp in enumerate(ramps)
    ]
    for name, network in (trainer.networks() if known else {}).items():
        own, old = network.state_dict(), known[name].state_dict()
        network.load_state_dict({key: old.get(key, value) for key, value in own.items()})
    trainer.optimizers = [
        _adam(trainer.generator, config.pl_interval if config.pl_weight else 0),
        _adam(trainer.discriminator, config.r1_interval if config.r1_interval > 1 else 0),
    ]
    trainer.magnitudes = Magnitudes(trainer.generator)
    trainer.stage = stage


def _adam(network: nn.Module, interval: int) -> torch.optim.Adam:
    """Adam as in the papers; lazy regularisation every `interval` steps adds steps, so rate and betas are corrected."""
    correction = interval / (interval + 1) if interval else 1.0
    optimizer = torch.optim.Adam(
        network.parameters(), lr=0.0, betas=(0.0**correction, 0.99**correction), eps=1e-8, fused=True
    )
    for group in optimizer.param_groups:
        group["correction"] = correction
    return optimizer
