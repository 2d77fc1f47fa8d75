"""Networks, optimisers and averages of a run, one step at a time; everything random is drawn from (seed, rank, nimg).

arXiv 1912.04958 (networks, lazy regularisation), 2006.06676 (augmentation), 1812.04948 section 3.1 (style mixing).

Letters: N batch, L rows of W+, D width of w, C channels, R resolution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stylegan.checkpoint.discriminators import convert_discriminator
from stylegan.checkpoint.file import load_generator
from stylegan.data.images import ImageSet
from stylegan.data.sampler import Sampler
from stylegan.device import autocast_dtype, pick_device
from stylegan.errors import CheckpointError, TrainingError
from stylegan.networks.discriminator import Discriminator
from stylegan.networks.generator import build_generator
from stylegan.networks.stylegan2 import Noise
from stylegan.pixels import centred
from stylegan.training.augment import Augment, Controller
from stylegan.training.config import TrainConfig
from stylegan.training.ema import Average
from stylegan.training.losses import discriminator_loss, generator_loss
from stylegan.training.regularizers import path_length_penalty, r1_penalty
from stylegan.training.state import newest_state, read_state, write_state

PL_BATCH_SHRINK = 2
MOST_BAD_STEPS = 20


class Trainer:
    """The state of a run and its step; `config` must be resolved. Knows no folders but the ones it is told."""

    def __init__(self, config: TrainConfig, images: ImageSet):
        self.config, self.images = config, images
        self.device = pick_device(config.device)
        self.dtype = autocast_dtype(self.device)
        self.num_classes = images.num_classes if config.conditional else 0
        if config.conditional and not self.num_classes:
            raise TrainingError("The data has no classes; train without conditional, or add a dataset.json.")
        with torch.random.fork_rng():
            torch.random.manual_seed(config.seed)
            self.generator = build_generator(config.generator(self.num_classes))
            self.discriminator = Discriminator(config.discriminator(self.num_classes))
        for network in (self.generator, self.discriminator):
            network.to(self.device, memory_format=torch.channels_last)
        self.augment = Augment(0.0)
        self.controller = Controller(config.ada_target, config.ada_kimg, config.ada_cap)
        self.nimg, self.steps, self.seconds, self.nans, self.bad_steps = 0, 0, 0.0, 0, 0
        self.pl_mean = torch.zeros([], device=self.device)
        self.sampler = Sampler(len(images), config.seed)
        half_life = config.ema_kimg * 1000
        self.averages = [Average(self.generator, half_life), Average(self.generator, half_life * 4, ramp=0.2)]
        self.optimizers = [
            _adam(self.generator, config.pl_interval if config.pl_weight else 0),
            _adam(self.discriminator, config.r1_interval),
        ]

    # ---- one step ----------------------------------------------------------------------------------------------------

    def step(self, progress: float = 0.0) -> dict[str, float]:
        """Train both networks on one batch; `progress` (0 to 1) sets the learning rate. Returns statistics.

        Raises TrainingError after 20 steps in a row without a finite gradient.
        """
        config, draw = self.config, _Draws(self.config.seed, self.nimg, self.device)
        lr = config.lr * (1.0 if not config.lr_decay else min(1.0, 1 - 0.8 * (progress - 2 / 3) * 3))
        indices = self.sampler.next_batch(config.batch)
        reals, label = self._reals(indices, draw)
        nans_before = self.nans
        stats = {"lr": lr, **self._generator_step(draw, label, lr)}
        stats |= self._discriminator_step(draw, reals, label, lr)
        self._count_bad_steps(nans_before)
        self.steps += 1
        self.nimg += config.batch
        for average in self.averages:
            average.update(self.generator, self.nimg, config.batch)
        if config.ada:
            self.augment.p = self.controller.step(self.augment.p, self.steps, config.batch)
        return stats | {"p": self.augment.p, "r_t": self.controller.r_t}

    def _generator_step(self, draw: _Draws, label: torch.Tensor | None, lr: float) -> dict[str, float]:
        """Gmain and, every few steps, path length."""
        config = self.config
        self.discriminator.requires_grad_(False)
        self.generator.requires_grad_(True)
        fakes, _ = self._fakes(draw, config.batch, label)
        logits = self._judge(fakes, label, draw)
        loss = generator_loss(logits).mean()
        loss.backward()
        stats = {"loss_g": float(loss.detach()), "logits_fake": float(logits.detach().mean())}
        self._update(0, self.generator, lr)
        if config.pl_weight and self.steps % config.pl_interval == 0:
            num = max(config.batch // PL_BATCH_SHRINK, 1)
            fakes, ws = self._fakes(draw, num, None if label is None else label[:num])
            noise = torch.randn(fakes.shape, generator=draw.network, device=self.device)
            penalty, self.pl_mean = path_length_penalty(fakes, ws, self.pl_mean, noise)
            (penalty.mean() * (config.pl_weight * config.pl_interval)).backward()
            stats["path_length"] = float(self.pl_mean)
            self._update(0, self.generator, lr)
        return stats

    def _discriminator_step(self, draw: _Draws, reals: torch.Tensor, label, lr: float) -> dict[str, float]:
        """Dmain and, every few steps, R1."""
        config = self.config
        self.generator.requires_grad_(False)
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fakes, _ = self._fakes(draw, config.batch, label)
        fake_logits = self._judge(fakes, label, draw)
        real_logits = self._judge(reals, label, draw)
        loss = discriminator_loss(real_logits, fake_logits).mean()
        loss.backward()
        self.controller.observe(real_logits)
        stats = {"loss_d": float(loss.detach()), "logits_real": float(real_logits.detach().mean())}
        self._update(1, self.discriminator, lr)
        if self.steps % config.r1_interval == 0:
            reals = reals.detach().requires_grad_(True)
            penalty = r1_penalty(self._judge(reals, label, draw), reals)
            (penalty.mean() * (config.gamma / 2 * config.r1_interval)).backward()
            stats["r1"] = float(penalty.detach().mean())
            self._update(1, self.discriminator, lr)
        return stats

    def _reals(self, indices: np.ndarray, draw: _Draws) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Real images [N, C, R, R] in [-1, 1], some mirrored, and their labels [N, K]."""
        pixels = torch.from_numpy(self.images.batch(indices))  # [N, R, R, C]
        reals = centred(pixels.to(self.device).permute(0, 3, 1, 2))  # channels-last without a copy
        if self.config.mirror:
            flip = torch.rand(len(reals), generator=draw.plain).to(self.device) < 0.5
            reals = torch.where(flip[:, None, None, None], reals.flip(3), reals)
        reals = reals.contiguous(memory_format=torch.channels_last)
        if not self.num_classes:
            return reals, None
        classes = torch.from_numpy(self.images.labels[indices]).to(self.device)
        return reals, nn.functional.one_hot(classes, self.num_classes).float()

    def _fakes(self, draw: _Draws, num: int, label: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Fakes [N, C, R, R] and their ws [N, L, D]; a share of them mixes two styles at a random layer."""
        generator = self.generator
        z = torch.randn(2 * num, generator.z_dim, generator=draw.network, device=self.device)
        both = None if label is None else label.repeat(2, 1)
        w = generator.mapping(z, both, track=torch.is_grad_enabled())  # [2N, D]
        first, second = w[:num, None], w[num:, None]
        start = torch.randint(1, generator.num_ws, [num, 1], generator=draw.plain)
        mixed = torch.rand(num, 1, generator=draw.plain) < self.config.mixing
        mask = (mixed & (torch.arange(generator.num_ws) >= start)).to(self.device)  # [N, L]
        ws = torch.where(mask[:, :, None], second, first)  # [N, L, D]
        return generator.synthesis(ws, Noise("random", source=draw.network), self.dtype), ws

    def _judge(self, images: torch.Tensor, label: torch.Tensor | None, draw: _Draws) -> torch.Tensor:
        """Logits [N, 1] of augmented images."""
        return self.discriminator(self.augment(images, draw.plain), label, self.dtype)

    def _update(self, which: int, network: nn.Module, lr: float) -> None:
        """One optimiser step, unless a gradient is not finite; that is counted, never hidden."""
        optimizer = self.optimizers[which]
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
            for group in optimizer.param_groups:
                group["lr"] = lr * group["correction"]
            optimizer.step()
        else:
            self.nans += 1
        optimizer.zero_grad(set_to_none=True)

    def _count_bad_steps(self, nans_before: int) -> None:
        """Raise TrainingError once too many steps in a row had a gradient that is not finite."""
        self.bad_steps = self.bad_steps + 1 if self.nans > nans_before else 0
        if self.bad_steps >= MOST_BAD_STEPS:
            raise TrainingError(
                f"Training has diverged: {MOST_BAD_STEPS} steps in a row had gradients that are not numbers; "
                "continue from an earlier snapshot with a lower learning rate or a higher gamma."
            )

    # ---- state -------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write all that an exact resume needs to one file, atomically."""
        tensors = {"pl_mean": self.pl_mean}
        for name, network in self._networks().items():
            tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for key, slot in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{i}.{key}.{what}": torch.as_tensor(value) for what, value in slot.items()}
        numbers = {name: getattr(self, name) for name in ("nimg", "steps", "seconds", "nans", "bad_steps")}
        numbers |= {"p": self.augment.p, "signs": self.controller.signs, "count": self.controller.count}
        write_state(path, tensors, numbers | {"r_t": self.controller.r_t, "data": self.images.fingerprint()})

    def load(self, path: Path) -> None:
        """Return to exactly where `save` was; TrainingError when the file belongs to another run or is damaged."""
        tensors, numbers = read_state(path)
        if numbers["data"] != self.images.fingerprint():
            raise TrainingError(
                "The training data has changed since this run was saved; restore it or start a new run."
            )
        self.load_networks(tensors)
        self.pl_mean = tensors["pl_mean"].to(self.device)
        for i, optimizer in enumerate(self.optimizers):
            parameters = optimizer.param_groups[0]["params"]
            slots: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer{i}."):
                    _, index, what = key.split(".")
                    # Fused Adam walks memory in order, so the moments must lie as their (channels-last) weights do.
                    layout = parameters[int(index)]
                    value = value if value.ndim != layout.ndim else torch.empty_like(layout).copy_(value)
                    slots.setdefault(int(index), {})[what] = value.detach()
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        for name in ("nimg", "steps", "seconds", "nans", "bad_steps"):
            setattr(self, name, numbers[name])
        self.augment.p = numbers["p"]
        self.controller.signs, self.controller.count = numbers["signs"], numbers["count"]
        self.controller.r_t = numbers["r_t"]
        self.sampler = Sampler(len(self.images), self.config.seed, start=self.nimg)

    def load_networks(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take all networks from a state file's tensors; TrainingError where they do not fit."""
        for name, network in self._networks().items():
            mine = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}
            try:
                network.load_state_dict(mine)
            except RuntimeError as error:
                raise TrainingError(
                    "The saved networks do not fit this run's settings; use the same settings."
                ) from error

    def transfer(self, source: Path) -> str:
        """Start from a run folder's networks, or from a checkpoint's generator; says what was taken."""
        if source.is_dir():
            tensors, _ = read_state(newest_state(source / "state"))
            self.load_networks(tensors)
            return f"Both networks continue from the run {source.name}."
        known = load_generator(source).state_dict()
        networks = [self.generator, *(average.generator for average in self.averages)]
        own = self.generator.state_dict()
        fitting = {key: value for key, value in known.items() if key in own and own[key].shape == value.shape}
        if len(fitting) * 2 < len(own):
            raise TrainingError(
                f"{source.name} has too little in common with this run's networks; use its widths (info shows them)."
            )
        for network in networks:
            network.load_state_dict({**own, **fitting})
        judge = self._transfer_discriminator(source)
        return f"{len(fitting)} of {len(own)} tensors continue from {source.name}; the discriminator {judge}."

    def _transfer_discriminator(self, source: Path) -> str:
        """Take the discriminator of NVIDIA's snapshots where it fits ours; says what became of it."""
        if source.suffix != ".pkl":
            return "starts anew"
        try:
            _, known = convert_discriminator(source)
        except CheckpointError:
            return "starts anew"
        own = self.discriminator.state_dict()
        if {key: value.shape for key, value in known.items()} != {key: value.shape for key, value in own.items()}:
            return "starts anew, as its sizes differ"
        self.discriminator.load_state_dict(known)
        return "continues too"

    def _networks(self) -> dict[str, nn.Module]:
        """Every network by its name in the state file."""
        averages = {f"average{i}": average.generator for i, average in enumerate(self.averages)}
        return {"generator": self.generator, "discriminator": self.discriminator, **averages}


class _Draws:
    """Sources of randomness for one step: `plain` on the CPU for decisions, `network` on the device for z and noise."""

    def __init__(self, seed: int, nimg: int, device: torch.device, rank: int = 0):
        words = np.random.SeedSequence([seed, rank, nimg]).generate_state(2, np.uint64) >> np.uint64(1)
        self.plain = torch.Generator().manual_seed(int(words[0]))
        self.network = torch.Generator(device).manual_seed(int(words[1]))


def _adam(network: nn.Module, interval: int) -> torch.optim.Adam:
    """Adam as in the papers; lazy regularisation every `interval` steps adds steps, so rate and betas are corrected."""
    correction = interval / (interval + 1) if interval else 1.0
    optimizer = torch.optim.Adam(
        network.parameters(), lr=0.0, betas=(0.0**correction, 0.99**correction), eps=1e-8, fused=True
    )
    for group in optimizer.param_groups:
        group["correction"] = correction
    return optimizer
