"""All settings of a training run and how 'choose for me' is filled in (no torch).

The formula behind `auto`: arXiv 2006.06676 appendix C and its published tool; gamma = 0.0002 * resolution^2 / batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan.errors import RequestError
from stylegan.networks.config import DiscriminatorConfig, GeneratorConfig
from stylegan.networks.stylegan3_layers import design_layers
from stylegan.options import check, option
from stylegan.training.growth import Stage, stages
from stylegan.training.presets import PRESETS, SLIM, gamma_of

FAMILIES = ("stylegan2", "stylegan1", "stylegan3-t", "stylegan3-r")
LOSSES = ("logistic", "relativistic")
SCHEDULES = ("constant", "tail", "cosine")
AUGMENTATIONS = ("ada", "diffaugment", "schedule", "none")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
TRANSFORMS = ("b", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run; frozen, JSON-able, saved first of all into the run folder.

    Whatever is None, or 0 where its help says so, means 'choose for me': a resumed run takes what it had,
    a new one asks the preset, then the resolution (`resolve`). Raises RequestError for values out of range.
    """

    data: str = option(
        "", "folder or zip of training pictures, or the name of a shipped sample set", metavar="DIR|ZIP|NAME"
    )
    out: str = option("", "run folder; the same command resumes it", metavar="runs/NAME")
    resolution: int = option(64, "side of the pictures in pixels, a power of two", low=8, high=1024)
    preset: str = option("auto", "named settings; without a GPU their widths are slim's where they name none",
                         choices=tuple(PRESETS))  # fmt: skip
    kimg: float = option(0.0, "stop after so many thousand images (0: no such limit)", low=0, high=1e6)
    minutes: float = option(0.0, "stop after so many minutes of training (0: no such limit)", low=0, high=1e6)
    family: str | None = option(None, "the generator's family (default stylegan2)", choices=FAMILIES)
    grow_kimg: float = option(0.0, "stylegan1 only: begin at 8 px and grow; thousand images in which each resolution "
                              "fades in, and again settles (0: all pixels from the start)", low=0, high=1e5)
    batch: int = option(0, "images a step, over all processes (0: chosen for you)", low=0, high=4096)
    accumulate: int = option(1, "parts in which a batch is computed where memory is short", low=1, high=1024)
    loss: str | None = option(None, "logistic, or relativistic as in R3GAN (default logistic)", choices=LOSSES)
    gamma: float = option(0.0, "weight of the R1 penalty (0: by resolution and batch)", low=0, high=1e4)
    r1_interval: int | None = option(None, "steps between two R1 penalties (default 16)", low=1, high=256)
    r2: bool | None = option(None, "penalise the discriminator's slope at generated pictures too")
    lr: float = option(0.0, "learning rate of both networks (0: chosen for you)", low=0, high=0.1)
    lr_discriminator: float = option(0.0, "learning rate of the discriminator (0: the same)", low=0, high=0.1)
    schedule: str | None = option(None, "tail lowers the learning rate to a fifth in the last third of the budget, "
                                  "cosine moves rate, gamma and augmentation over all of it (default tail)",
                                  choices=SCHEDULES)  # fmt: skip
    augment: str | None = option(None, "ada adapts its strength, schedule raises it slowly (default ada)",
                          choices=AUGMENTATIONS)  # fmt: skip
    transforms: str | None = option(None, "blit, geometry, colour, filter, noise, cutout by first letter (default bgc)",
                             choices=TRANSFORMS)  # fmt: skip
    ada_target: float | None = option(None, "r_t that the augmentation aims at (default 0.6)", low=0, high=1)
    ada_kimg: float | None = option(None, "thousand images in which the probability p can rise by 1 (default 100)",
                                    low=1, high=1e5)  # fmt: skip
    ada_cap: float | None = option(None, "highest augmentation probability p (default 0.8)", low=0, high=1)
    mirror: bool = option(True, "also show the pictures mirrored")
    conditional: bool = option(False, "use the classes of the data")
    mixing: float | None = option(None, "share of pictures trained with style mixing (default 0.9)", low=0, high=1)
    pl_weight: float | None = option(None, "weight of path length regularisation (default 0: off)", low=0, high=100)
    pl_interval: int | None = option(None, "steps between two path length penalties (default 4)", low=1, high=256)
    channel_base: int = option(0, "channels at 1 px; a block at R px has channel_base / R (0: chosen for you)",
                               low=0, high=1 << 17)  # fmt: skip
    channel_max: int = option(0, "most channels of a block (0: chosen for you)", low=0, high=2048)
    z_dim: int = option(0, "width of z (0: chosen for you)", low=0, high=2048)
    w_dim: int = option(0, "width of w (0: chosen for you)", low=0, high=2048)
    mapping_layers: int | None = option(None, "layers of the mapping network (default 2)", low=1, high=16)
    mbstd_group: int | None = option(None, "pictures that the discriminator compares (default 4; 1: none)",
                                     low=1, high=64)  # fmt: skip
    conv_clamp: float | None = option(None, "limit of the activations (default 0: none, or 256 with fp16)",
                                      low=0, high=1e6)  # fmt: skip
    precision: str | None = option(None, "what convolutions compute in: auto takes bf16 where the machine is quick at "
                                   "it, else fp32 (default auto)", choices=PRECISIONS)  # fmt: skip
    blur_pixels: float | None = option(None, "blur of what the discriminator sees at the start (default 0: none)",
                                       low=0, high=64)  # fmt: skip
    ema_kimg: float = option(0.0, "half-life of the first average of the weights in kimg (0: batch * 10 / 32)",
                             low=0, high=1e4)  # fmt: skip
    ema_ramp: float | None = option(None, "longest half-life as a share of the images seen (default 0.05; 0: no limit)",
                                    low=0, high=1)  # fmt: skip
    transfer: str = option("", "start from this checkpoint, run folder, or snapshot of a run", metavar="FILE|DIR")
    freeze_d: int | None = option(None, "discriminator blocks at the picture that stay as transferred (default 0)",
                                  low=0, high=8)  # fmt: skip
    holdout: float | None = option(None, "share of the pictures that neither network sees (default 0.1 with metrics)",
                                   low=0, high=0.5)  # fmt: skip
    seed: int = option(0, "seed of everything random", low=0, high=2**31 - 1)
    device: str = option("auto", "auto, cpu or cuda")
    threads: int = option(0, "processor threads (0: all)", low=0, high=256)
    sample_seconds: float = option(60.0, "seconds between two sample grids, once they are no longer log-spaced",
                                   low=1, high=1e5)  # fmt: skip
    snapshot_minutes: float = option(10.0, "minutes between two snapshots", low=0.05, high=1e5)
    metric_images: int = option(500, "fakes judged at each snapshot (0: no metric)", low=0, high=50_000)
    tensorboard: bool = option(False, "also write TensorBoard logs")

    def __post_init__(self) -> None:
        """Check every value against its declaration."""
        check(self)
        if self.resolution & (self.resolution - 1):
            raise RequestError(f"The resolution must be a power of two from 8 to 1024, not {self.resolution}.")
        if not self.data or not self.out:
            raise RequestError("Training needs data (a folder, a zip or a sample set) and out (a run folder).")

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Rebuild from `to_dict`, of this version or an earlier one; RequestError names a setting that does not exist.

        A run of an earlier version held nothing out.
        """
        values = dict(values)
        if "lr_decay" in values:
            values = {"holdout": 0.0, "mbstd_group": 4, "ema_ramp": 0.05, **values}
            values.setdefault("schedule", "tail" if values.pop("lr_decay") else "constant")
        if "ada" in values:
            values.setdefault("augment", "ada" if values.pop("ada") else "none")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise RequestError(
                f"The run's config has the setting '{unknown[0][:40]}', which this version does not know."
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise RequestError("The run's config lacks its data or its folder; start the run anew.") from error

    def at(self, folder: str | Path) -> TrainConfig:
        """The config of a run that now lies in `folder`, wherever it began; so do pictures that lie in its folder."""
        data = Path(self.data)
        inside = self.data and data.is_relative_to(self.out) and data != Path(self.out)
        data = Path(folder, data.relative_to(self.out)) if inside else self.data
        return self.replace(out=str(folder), data=str(data))

    def is_open(self, name: str) -> bool:
        """True when this setting says 'choose for me'."""
        return name in CHOOSABLE and getattr(self, name) == _DEFAULTS[name]

    def inherit(self, old: TrainConfig) -> TrainConfig:
        """Everything left open as the run `old` has it; a budget is inherited when none at all is given."""
        taken = {name: getattr(old, name) for name in CHOOSABLE if self.is_open(name)}
        if self.lr and self.is_open("lr_discriminator"):
            taken["lr_discriminator"] = old.lr_discriminator * self.lr / (old.lr or self.lr)
        if not self.kimg and not self.minutes:
            taken |= {"kimg": old.kimg, "minutes": old.minutes}
        return self.replace(**taken)

    def resolve(self, has_gpu: bool = True, ranks: int = 1) -> TrainConfig:
        """Fill every 'choose for me' from the preset and, where that is silent, from resolution and ranks."""
        named = PRESETS[self.preset] if has_gpu else {**SLIM, **PRESETS[self.preset]}
        config = self.replace(**{name: value for name, value in named.items() if self.is_open(name)})
        family = config.family or "stylegan2"
        batch = config.batch or max(min(ranks * min(4096 // config.resolution, 32), 64), 4, ranks)
        if self.is_open("batch"):  # whole groups at every rank
            batch -= batch % (4 * ranks if batch >= 4 * ranks else ranks)
            config = config.replace(batch=max(batch, ranks))
            batch = config.batch
        each = max(batch // (ranks * config.accumulate), 1)
        lr = config.lr or (0.002 if config.resolution >= 1024 else 0.0025)
        blocks = config.resolution.bit_length() - 3  # of the discriminator, above 4 px
        chosen = {
            "family": family, "batch": batch, "loss": "logistic", "lr": lr, "lr_discriminator": lr,
            "gamma": gamma_of(config.preset, family, config.resolution, batch), "r1_interval": 16, "r2": False,
            "schedule": "tail", "augment": "ada", "transforms": "bgc", "ada_target": 0.6, "ada_kimg": 100.0,
            "ada_cap": 0.8, "mixing": 0.9, "pl_weight": 0.0, "pl_interval": 4, "channel_max": 512,
            "channel_base": 32768 if config.resolution >= 512 else 16384, "z_dim": 512, "w_dim": 512,
            "mapping_layers": 2, "precision": "auto",
            "mbstd_group": max(group for group in (1, 2, 3, 4) if each % group == 0),
            "conv_clamp": 256.0 if config.precision == "fp16" else 0.0, "blur_pixels": 0.0, "ema_kimg": batch * 10 / 32,
            "ema_ramp": 0.05, "freeze_d": blocks // 2 if config.preset == "transfer" else 0,
            "holdout": 0.1 if config.metric_images else 0.0,
        }  # fmt: skip
        config = config.replace(**{name: value for name, value in chosen.items() if config.is_open(name)})
        if not config.kimg and not config.minutes:
            config = config.replace(kimg=25000.0 if has_gpu else 300.0)
        config.check_growth()
        if config.precision == "fp16" and config.family == "stylegan1":
            raise RequestError("StyleGAN1's normalisation leaves the range of fp16; choose bf16, fp32 or auto.")
        return config

    def check_growth(self) -> None:
        """RequestError when a resolved config cannot grow, or not within its images."""
        if self.grow_kimg and self.family != "stylegan1":
            raise RequestError(f"Only stylegan1 grows, not {self.family}; leave grow_kimg at 0 or change the family.")
        if self.grow_kimg and self.transfer:
            raise RequestError("A run that grows begins with networks of 8 px; leave transfer or grow_kimg out.")
        if self.grow_kimg and 1000 * self.grow_kimg < self.batch:
            raise RequestError(f"A step of {self.batch} images is longer than grow_kimg {self.grow_kimg:g}; raise it.")
        needed = stages(self.resolution, self.grow_kimg)[-1].start / 1000
        if self.kimg and needed >= self.kimg:
            raise RequestError(
                f"Growing to {self.resolution} px by {self.grow_kimg:g} kimg a step takes {needed:g} kimg, and the run "
                f"ends after {self.kimg:g}; lower grow_kimg or raise kimg."
            )

    def generator(self, num_classes: int = 0, stage: Stage | None = None) -> GeneratorConfig:
        """The generator of a resolved config, at a stage of its growth or full-grown."""
        layers: tuple = ()
        if self.family == "stylegan3-r":  # twice the channels of T, as published (arXiv 2106.12423 section 3.2)
            layers = design_layers(self.resolution, 3, 2 * self.channel_base, 2 * self.channel_max, radial=True)
        return GeneratorConfig(
            family=self.family.partition("-")[0],
            resolution=stage.resolution if stage else self.resolution,
            z_dim=self.z_dim,
            w_dim=self.w_dim,
            num_classes=num_classes,
            mapping_layers=self.mapping_layers,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            conv_clamp=self.conv_clamp,
            layers=layers,
            fade=float(stage is not None and stage.fades),
        )

    def discriminator(self, num_classes: int = 0, stage: Stage | None = None) -> DiscriminatorConfig:
        """The discriminator of a resolved config, at a stage of its growth or full-grown."""
        return DiscriminatorConfig(
            resolution=stage.resolution if stage else self.resolution,
            num_classes=num_classes,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            mbstd_group=self.mbstd_group,
            conv_clamp=self.conv_clamp,
            fades=stage is not None and stage.fades,
        )


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}

# Settings whose default value means 'choose for me', so a preset can never override a value that was given.
CHOOSABLE = frozenset(
    "family grow_kimg batch loss gamma r1_interval r2 lr lr_discriminator schedule augment transforms ada_target "
    "ada_kimg ada_cap mixing pl_weight pl_interval channel_base channel_max z_dim w_dim mapping_layers mbstd_group "
    "conv_clamp precision blur_pixels ema_kimg ema_ramp freeze_d holdout".split()
)

# Settings that may differ when a run is resumed; any other change needs a new run.
CHANGEABLE = frozenset(
    "out data kimg minutes threads device sample_seconds snapshot_minutes metric_images lr lr_discriminator schedule "
    "gamma augment transforms ada_target ada_kimg ada_cap transfer preset accumulate tensorboard precision".split()
)


def require_same_run(old: TrainConfig, new: TrainConfig) -> None:
    """Raise RequestError naming the first setting that cannot change when `old`'s run is resumed with `new`."""
    for field in dataclasses.fields(TrainConfig):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name not in CHANGEABLE and before != after:
            raise RequestError(
                f"The run {Path(new.out).name} was started with {field.name} {before}, not {after}; "
                f"use {before} again or choose another run folder."
            )
