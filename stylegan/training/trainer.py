"""Networks, optimisers and averages of a run, one step at a time; everything random is drawn from (seed, nimg, phase).

arXiv 1912.04958 (networks, lazy regularisation), 2006.06676 (augmentation), 1812.04948 section 3.1 (style mixing),
2501.05441 (relativistic loss, R1 and R2), 2002.10964 (freezing the discriminator's first blocks).

Letters: N batch, n share of it, L rows of W+, D width of w, C channels, R resolution.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stylegan.data.images import ImageSet
from stylegan.data.sampler import Sampler
from stylegan.device import pick_device, training_dtype
from stylegan.errors import RequestError, TrainingError
from stylegan.networks.discriminator import Discriminator
from stylegan.networks.generator import Generator
from stylegan.pixels import centred
from stylegan.training import continuation
from stylegan.training.assembly import assemble
from stylegan.training.augment import Augment, Controller
from stylegan.training.blur import blurred
from stylegan.training.config import TrainConfig
from stylegan.training.distributed import Ranks
from stylegan.training.draws import Draws, Share, shares_of
from stylegan.training.ema import Average
from stylegan.training.filters import DiffAugment
from stylegan.training.growth import Stage, reduced, stage_at
from stylegan.training.losses import discriminator_loss, generator_loss
from stylegan.training.magnitudes import Magnitudes
from stylegan.training.regularizers import gradient_penalty, path_lengths
from stylegan.training.schedule import Moment, moment
from stylegan.training.workers import Workers, add_gradients, num_workers

Part = tuple[torch.Tensor, dict[str, torch.Tensor]]  # what a share of a batch gives: its loss, and figures by name
PL_BATCH_SHRINK = 2
PL_DECAY = 0.01
MOST_BAD_STEPS = 20
BLUR_BATCHES = 200 / 32  # thousand images a unit of batch over which the first blur fades (arXiv 2106.12423 appendix F)


class Trainer:
    """The state of a run and its step; `config` must be resolved. Knows no folders but the ones it is told."""

    def __init__(self, config: TrainConfig, images: ImageSet, ranks: Ranks | None = None):
        self.config, self.images, self.ranks = config, images, ranks or Ranks()
        self.device = self.ranks.device if self.ranks.world > 1 else pick_device(config.device)
        self.dtype = training_dtype(self.device, config.precision)
        self.num_classes = images.num_classes if config.conditional else 0
        if config.conditional and not self.num_classes:
            raise TrainingError("The data has no classes; train without conditional, or add a dataset.json.")
        parts = self.ranks.world * config.accumulate
        if config.batch % parts or (parts > 1 and (config.batch // parts) % min(config.mbstd_group, config.batch)):
            raise RequestError(
                f"A batch of {config.batch} cannot be divided into {parts} equal parts that hold whole groups of "
                f"{config.mbstd_group}; choose another batch, accumulate or number of processes."
            )
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self.workers = Workers(num_workers(config.batch // parts, min(config.mbstd_group, config.batch), threads))
        self.shares = shares_of(config.batch, self.ranks.rank, self.ranks.world, config.accumulate * self.workers.num)
        self.augment = DiffAugment() if config.augment == "diffaugment" else Augment(0.0, config.transforms)
        self.controller = Controller(config.ada_target, config.ada_kimg, config.ada_cap)
        self.nimg, self.steps, self.seconds, self.nans, self.bad_steps = 0, 0, 0.0, 0, 0
        self.plan = 0.0  # images that the whole run will probably have, where only minutes limit it
        self.frozen = 0  # discriminator blocks that stay as they were transferred
        self.pl_mean = torch.zeros([], device=self.device)
        self.sampler = Sampler(len(images), config.seed)
        self.phase_seconds: dict[str, float] = {}
        self.generator: Generator
        self.discriminator: Discriminator
        self.averages: list[Average]
        self.optimizers: list[torch.optim.Adam]
        self.magnitudes: Magnitudes
        self.stage: Stage | None = None
        self.grow()

    def grow(self) -> None:
        """Be as large as the images seen want it (`training.growth`); between two steps this always holds."""
        stage = stage_at(self.config.resolution, self.config.grow_kimg, self.nimg)
        if stage != self.stage:
            assemble(self, stage)
        if stage.fades:
            self.discriminator.fade = stage.fade(self.nimg)
            for generator in (self.generator, *(average.generator for average in self.averages)):
                generator.synthesis.fade = self.discriminator.fade

    # ---- one step ----------------------------------------------------------------------------------------------------

    def progress(self) -> float:
        """Share of the budget that is used up, 0 to 1, by images alone: a resumed run must not depend on a clock."""
        by_images = self.nimg / (self.config.kimg * 1000) if self.config.kimg else 0.0
        by_plan = self.nimg / self.plan if self.config.minutes and self.plan else 0.0
        return min(max(by_images, by_plan), 1.0)

    def replan(self, seconds: float, num_images: int) -> None:
        """Plan what a budget of minutes will come to at the pace of `num_images` in `seconds`.

        Called only when a state is saved, and saved with it: from there on a resumed run does what this one does.
        """
        left = max(self.config.minutes * 60 - self.seconds, 0.0)
        if self.config.minutes and seconds > 0 and num_images:
            self.plan = self.nimg + left * num_images / seconds

    def step(self) -> dict[str, float]:
        """Train both networks on one batch; returns statistics of this rank's share.

        Raises TrainingError after 20 steps in a row without a finite gradient.
        """
        config, now = self.config, moment(self.config, self.progress())
        if config.augment == "schedule":
            self.augment.p = config.ada_cap * now.p
        with self._timed("data"):
            indices = self.sampler.next_batch(config.batch)
            batches = [self._reals(indices, share) for share in self.shares]
        nans_before = self.nans
        stats = {"lr": config.lr * now.lr, **self._generator_steps(batches, indices, now)}
        stats |= self._discriminator_steps(batches, now)
        self._count_bad_steps(nans_before)
        self.steps += 1
        self.nimg += config.batch
        with self._timed("average"):
            for average in self.averages:
                average.update(self.generator, self.nimg, config.batch, now.half_life)
        p = self.controller.step(self.augment.p, self.steps, config.batch)
        if config.augment == "ada":
            self.augment.p = p
        self.grow()
        return stats | {"p": self.augment.p, "r_t": self.controller.r_t}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        """Add what the block takes to the seconds of its phase."""
        started = time.perf_counter()
        yield
        self.phase_seconds[phase] = self.phase_seconds.get(phase, 0.0) + time.perf_counter() - started

    def _generator_steps(self, batches: list, indices: np.ndarray, now: Moment) -> dict[str, float]:
        """Gmain and, every few steps, path length."""
        config = self.config
        self.discriminator.requires_grad_(False)
        self.generator.requires_grad_(True)
        with self._timed("generator"):
            stats = self._generator_main(batches, now)
        if config.pl_weight and self.steps % config.pl_interval == 0:
            with self._timed("path_length"):
                stats |= self._path_length(batches, indices, now)
        return stats

    def _generator_main(self, batches: list, now: Moment) -> dict[str, float]:
        """One update of the generator against the discriminator; it also moves the averages of w and magnitudes."""

        def part(share: Share, batch: tuple) -> Part:
            (reals, label), draw = batch, self._draws("generator")
            fakes, _, w = self._fakes(draw, share, label)
            logits, real_logits = self._judge(fakes, label, draw, share), None
            if self.config.loss == "relativistic":
                with torch.no_grad():
                    real_logits = self._judge(reals, label, draw, share)
            loss = generator_loss(logits, real_logits).mean()
            return loss, {"loss_g": loss, "logits_fake": logits.mean(), "w": w.mean(dim=0)}

        with self.magnitudes.watched():
            found = self._backward(self.generator, part, batches)
        self._track(found.pop("w").mean(dim=0))
        norm = self._update(0, self.generator, self.config.lr * now.lr, now)
        return {**_means(found), "grad_g": norm}

    def _backward(self, network: nn.Module, part: Callable[..., Part], batches: Sequence) -> dict[str, torch.Tensor]:
        """Leave in `network` the gradients of the mean of the losses of all shares, whose rows of `batches` a `part`
        takes; whatever else the parts found is returned by name, one row a share."""
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

        def work(row: tuple) -> tuple[tuple, dict[str, torch.Tensor]]:
            loss, found = part(*row)
            gradients = torch.autograd.grad(loss / len(self.shares), parameters, allow_unused=True)
            return gradients, {name: value.detach() for name, value in found.items()}

        rows = self.workers.each(work, list(zip(self.shares, batches, strict=True)))
        for gradients, _ in rows:  # in this order, so that the sums are the same in every run
            add_gradients(parameters, gradients)
        return {name: torch.stack([found[name] for _, found in rows]) for name in rows[0][1]}

    def _track(self, w_mean: torch.Tensor) -> None:
        """Move w_avg and StyleGAN3's magnitudes towards this batch's, the same at every rank."""
        now = self.magnitudes.take()
        self.ranks.average([w_mean, *now])
        mapping = self.generator.mapping
        mapping.w_avg.copy_(w_mean.lerp(mapping.w_avg, mapping.w_avg_beta))
        self.magnitudes.move(now, self.config.batch)

    def _path_length(self, batches: list, indices: np.ndarray, now: Moment) -> dict[str, float]:
        """One update of the generator for even path lengths, on half a batch."""
        config, num = self.config, max(self.config.batch // PL_BATCH_SHRINK, len(self.shares) * self.ranks.world)
        weight = config.pl_weight * config.pl_interval

        def part(whole: Share, batch: tuple) -> Part:
            share, draw = whole.of_first(num), self._draws("path_length")
            fakes, ws, _ = self._fakes(draw, share, self._label(indices[:num][share.rows]))
            shape = [num, *fakes.shape[1:]]
            noise = torch.randn(shape, generator=draw.network, device=self.device)[share.rows]
            lengths = path_lengths(fakes, ws, noise)
            return (lengths - self.pl_mean).square().mean() * weight, {"length": lengths.mean()}

        mean = self._backward(self.generator, part, batches)["length"].mean()
        self.ranks.average([mean])
        self.pl_mean = self.pl_mean.lerp(mean, PL_DECAY)
        self._update(0, self.generator, config.lr * now.lr, now)
        return {"path_length": float(self.pl_mean)}

    def _discriminator_steps(self, batches: list, now: Moment) -> dict[str, float]:
        """Dmain and, every few steps, R1 (and R2); with a penalty at every step all is one update."""
        self.generator.requires_grad_(False)
        self.discriminator.requires_grad_(True)
        for resolution in self.discriminator.config.block_resolutions[: self.frozen]:
            getattr(self.discriminator, f"b{resolution}").requires_grad_(False)
        lazy = self.config.r1_interval > 1
        with self._timed("discriminator"):
            stats = self._discriminator_phase("discriminator", batches, now, True, not lazy)
        if lazy and self.steps % self.config.r1_interval == 0:
            with self._timed("r1"):
                stats |= self._discriminator_phase("r1", batches, now, False, True)
        return stats

    def _discriminator_phase(self, phase: str, batches: list, now: Moment, main: bool, penal: bool) -> dict[str, float]:
        """One update of the discriminator: its loss if `main`, gradient penalties if `penal`."""
        config = self.config
        gamma = config.gamma * now.gamma / 2 * config.r1_interval

        def part(share: Share, batch: tuple) -> Part:
            (reals, label), draw, loss, found = batch, self._draws(phase), 0.0, {}
            fakes = fake_logits = None
            if main or config.r2:
                with torch.no_grad():
                    fakes, _, _ = self._fakes(draw, share, label)
                fakes.requires_grad_(penal and config.r2)
                fake_logits = self._judge(fakes, label, draw, share)
            reals = reals.detach().requires_grad_(penal)
            real_logits = self._judge(reals, label, draw, share)
            if main:
                loss = discriminator_loss(real_logits, fake_logits, config.loss == "relativistic").mean()
                found |= {"loss_d": loss, "logits_real": real_logits.mean(), "real": real_logits}
            if penal:
                found["r1"] = gradient_penalty(real_logits, reals).mean()
                loss = loss + gamma * found["r1"]
            if penal and config.r2:
                found["r2"] = gradient_penalty(fake_logits, fakes).mean()
                loss = loss + gamma * found["r2"]
            return loss, found

        found = self._backward(self.discriminator, part, batches)
        if main:
            real = found.pop("real")
            self.controller.observe(*self.ranks.total([float(real.sign().sum()), real.numel()]))
        norm = self._update(1, self.discriminator, config.lr_discriminator * now.lr, now)
        return {**_means(found), **({"grad_d": norm} if main else {})}

    # ---- what a step is made of --------------------------------------------------------------------------------------

    def _draws(self, phase: str) -> Draws:
        """The sources of randomness of a phase of this step."""
        return Draws(self.config.seed, self.nimg, phase, self.device)

    def _reals(self, indices: np.ndarray, share: Share) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Real images [n, C, R, R] in [-1, 1] of a share of the batch, some mirrored, and their labels [n, K]."""
        mine = indices[share.rows]
        pixels = torch.from_numpy(self.images.batch(mine))  # [n, R, R, C]
        reals = centred(pixels.to(self.device).permute(0, 3, 1, 2))  # channels-last without a copy
        if self.config.mirror:
            coins = torch.rand(share.total, generator=self._draws("reals").plain)[share.rows]
            flip = coins.to(self.device) < 0.5
            reals = torch.where(flip[:, None, None, None], reals.flip(3), reals)
        reals = reduced(reals, self.stage, self.nimg)
        return reals.contiguous(memory_format=torch.channels_last), self._label(mine)

    def _label(self, indices: np.ndarray) -> torch.Tensor | None:
        """Labels [n, K] of pictures, None without classes."""
        if not self.num_classes:
            return None
        classes = torch.from_numpy(self.images.labels[indices]).to(self.device)
        return nn.functional.one_hot(classes, self.num_classes).float()

    def _fakes(
        self, draw: Draws, share: Share, label: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fakes [n, C, R, R] of a share, their ws [n, L, D], all w [2n, D]; some mix two styles at a random layer."""
        generator, num = self.generator, share.total
        z = torch.randn(2, num, generator.z_dim, generator=draw.network, device=self.device)[:, share.rows]
        both = None if label is None else label.repeat(2, 1)
        w = generator.mapping(z.flatten(0, 1), both)  # [2n, D]
        first, second = w.chunk(2)
        start = torch.randint(1, generator.num_ws, [num, 1], generator=draw.plain)
        mixed = torch.rand(num, 1, generator=draw.plain) < self.config.mixing
        mask = (mixed & (torch.arange(generator.num_ws) >= start))[share.rows].to(self.device)  # [n, L]
        ws = torch.where(mask[:, :, None], second[:, None], first[:, None])  # [n, L, D]
        return generator.synthesis(ws, share.noise(draw.network), self.dtype), ws, w

    def _judge(self, images: torch.Tensor, label: torch.Tensor | None, draw: Draws, share: Share) -> torch.Tensor:
        """Logits [n, 1] of augmented images, which are a share of the batch."""
        fade = BLUR_BATCHES * 1000 * self.config.batch
        images = blurred(images, self.config.blur_pixels * max(1 - self.nimg / fade, 0.0))
        return self.discriminator(self.augment(images, draw.plain, share.total, share.rows), label, self.dtype)

    @torch.no_grad()
    def logits_of(self, images: ImageSet, indices: np.ndarray) -> float:
        """The mean logit of some real pictures as they are, neither mirrored nor augmented; nothing is changed."""
        pixels = torch.from_numpy(images.batch(indices)).to(self.device)
        label = None
        if self.num_classes:
            classes = torch.from_numpy(images.labels[indices]).to(self.device)
            label = nn.functional.one_hot(classes, self.num_classes).float()
        reals = reduced(centred(pixels.permute(0, 3, 1, 2)), self.stage, self.nimg)
        return float(self.discriminator(reals, label, self.dtype).mean())

    def _update(self, which: int, network: nn.Module, lr: float, now: Moment) -> float:
        """One optimiser step, unless a gradient is not finite; that is counted, never hidden. Returns their norm."""
        optimizer = self.optimizers[which]
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        self.ranks.average(gradients)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            for group in optimizer.param_groups:
                group["lr"] = lr * group["correction"]
                group["betas"] = (0.0, now.beta2 ** group["correction"])
            optimizer.step()
        else:
            self.nans += 1
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _count_bad_steps(self, nans_before: int) -> None:
        """Raise TrainingError once too many steps in a row had a gradient that is not finite."""
        self.bad_steps = self.bad_steps + 1 if self.nans > nans_before else 0
        if self.bad_steps >= MOST_BAD_STEPS:
            raise TrainingError(
                f"Training has diverged: {MOST_BAD_STEPS} steps in a row had gradients that are not numbers; "
                "continue from an earlier snapshot with a lower learning rate or a higher gamma."
            )

    # ---- state -------------------------------------------------------------------------------------------------------

    def adopt(self, **live: float) -> None:
        """Take new values of settings that may change while the run goes on (`training.live`)."""
        self.config = self.config.replace(**live, **scaled_rates(self.config, live))
        self.controller.target, self.controller.cap = self.config.ada_target, self.config.ada_cap
        self.augment.p = min(self.augment.p, self.config.ada_cap)

    def save(self, path: Path) -> None:
        """Write all that an exact resume needs to one file, atomically."""
        continuation.save(self, path)

    def load(self, path: Path) -> None:
        """Return to exactly where `save` was; TrainingError when the file belongs to another run or is damaged."""
        continuation.load(self, path)

    def transfer(self, source: Path) -> str:
        """Start from another run's or checkpoint's networks; says in a sentence what was taken."""
        return continuation.transfer(self, source)

    def networks(self) -> dict[str, nn.Module]:
        """Every network by its name in the state file."""
        averages = {f"average{i}": average.generator for i, average in enumerate(self.averages)}
        return {"generator": self.generator, "discriminator": self.discriminator, **averages}


def scaled_rates(config: TrainConfig, live: Mapping[str, float]) -> dict[str, float]:
    """The discriminator's learning rate that keeps its ratio to a new one of the generator."""
    return {"lr_discriminator": config.lr_discriminator * live["lr"] / config.lr} if "lr" in live else {}


def _means(found: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The means over all shares as plain numbers."""
    return {name: float(values.mean()) for name, values in found.items()}
