"""All settings of a training run, the presets, and the formula behind `auto` (no torch).

The formula: arXiv 2006.06676 appendix C and `auto` of its published tool; gamma = 0.0002 * resolution^2 / batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan.errors import RequestError
from stylegan.networks.config import DiscriminatorConfig, GeneratorConfig
from stylegan.options import check, option

# What a preset says instead of the default of a field. `auto` is `slim` on a machine without a GPU.
PRESETS: dict[str, dict[str, Any]] = {
    "auto": {},
    "slim": {"channel_base": 1536, "channel_max": 128, "z_dim": 256, "w_dim": 256, "batch": 16},
    "few-shot": {"ada_kimg": 50.0, "ema_kimg": 5.0},
    "paper256": {"batch": 64, "channel_base": 16384, "gamma": 1.0, "mapping_layers": 8, "ema_kimg": 20.0},
    "paper512": {"batch": 64, "channel_base": 32768, "gamma": 0.5, "mapping_layers": 8, "ema_kimg": 20.0},
    "paper1024": {"batch": 32, "channel_base": 32768, "gamma": 2.0, "mapping_layers": 8, "ema_kimg": 10.0, "lr": 0.002},
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run; frozen, JSON-able, saved first of all into the run folder.

    A 0 in batch, gamma, lr, channel_base, channel_max, z_dim or ema_kimg means: choose by preset and resolution;
    `resolve` fills it in. Raises RequestError for values out of range.
    """

    data: str = option(
        "", "folder or zip of training pictures, or the name of a shipped sample set", metavar="DIR|ZIP|NAME"
    )
    out: str = option("", "run folder; the same command resumes it", metavar="runs/NAME")
    resolution: int = option(64, "side of the pictures in pixels, a power of two", low=8, high=1024)
    preset: str = option("auto", "named settings; auto is slim on a machine without a GPU", choices=tuple(PRESETS))
    kimg: float = option(0.0, "stop after so many thousand images (0: no such limit)", low=0, high=1e6)
    minutes: float = option(0.0, "stop after so many minutes of training (0: no such limit)", low=0, high=1e6)
    batch: int = option(0, "images a step (0: chosen for you)", low=0, high=4096)
    gamma: float = option(0.0, "weight of the R1 penalty (0: 0.0002 * resolution^2 / batch)", low=0, high=1e4)
    lr: float = option(0.0, "learning rate of both networks (0: chosen for you)", low=0, high=0.1)
    lr_decay: bool = option(True, "lower the learning rate to a fifth in the last third of the budget")
    ada: bool = option(True, "adaptive discriminator augmentation")
    ada_target: float = option(0.6, "r_t that the augmentation aims at", low=0, high=1)
    ada_kimg: float = option(100.0, "thousand images in which the probability p can rise by 1", low=1, high=1e5)
    ada_cap: float = option(0.8, "highest augmentation probability p", low=0, high=1)
    mirror: bool = option(True, "also show the pictures mirrored")
    conditional: bool = option(False, "use the classes of the data")
    mixing: float = option(0.9, "share of pictures trained with style mixing", low=0, high=1)
    r1_interval: int = option(16, "steps between two R1 penalties", low=1, high=256)
    pl_weight: float = option(0.0, "weight of path length regularisation (0: off)", low=0, high=100)
    pl_interval: int = option(4, "steps between two path length penalties", low=1, high=256)
    channel_base: int = option(0, "channels at 1 px; a block at R px has channel_base / R (0: chosen for you)",
                               low=0, high=1 << 17)  # fmt: skip
    channel_max: int = option(0, "most channels of a block (0: chosen for you)", low=0, high=2048)
    z_dim: int = option(0, "width of z (0: chosen for you)", low=0, high=2048)
    w_dim: int = option(0, "width of w (0: chosen for you)", low=0, high=2048)
    mapping_layers: int = option(2, "layers of the mapping network", low=1, high=16)
    ema_kimg: float = option(0.0, "half-life of the first average of the weights in kimg (0: batch * 10 / 32)",
                             low=0, high=1e4)  # fmt: skip
    transfer: str = option("", "start from this checkpoint or run folder", metavar="FILE|DIR")
    seed: int = option(0, "seed of everything random", low=0, high=2**31 - 1)
    device: str = option("auto", "auto, cpu or cuda")
    threads: int = option(0, "processor threads (0: all)", low=0, high=256)
    sample_seconds: float = option(60.0, "seconds between two sample grids, once they are no longer log-spaced",
                                   low=1, high=1e5)  # fmt: skip
    snapshot_minutes: float = option(10.0, "minutes between two snapshots", low=0.05, high=1e5)
    metric_images: int = option(1000, "fakes judged at each snapshot (0: no metric)", low=0, high=50_000)

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
        """Rebuild from `to_dict`; RequestError names a setting that does not exist."""
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

    def resolve(self, has_gpu: bool = True) -> TrainConfig:
        """Fill every 'choose for me' from the preset and, where it is silent, from the resolution."""
        named = PRESETS["slim" if self.preset == "auto" and not has_gpu else self.preset]
        chosen = {name: value for name, value in named.items() if getattr(self, name) == _DEFAULTS[name]}
        config = self.replace(**chosen) if chosen else self
        batch = config.batch or max(min(4096 // config.resolution, 32), 4)
        auto = {
            "batch": batch,
            "gamma": config.gamma or 0.0002 * config.resolution**2 / batch,
            "lr": config.lr or (0.002 if config.resolution >= 1024 else 0.0025),
            "channel_base": config.channel_base or (32768 if config.resolution >= 512 else 16384),
            "channel_max": config.channel_max or 512,
            "z_dim": config.z_dim or 512,
            "w_dim": config.w_dim or 512,
            "ema_kimg": config.ema_kimg or batch * 10 / 32,
        }
        if not config.kimg and not config.minutes:
            auto["kimg"] = 25000.0 if has_gpu else 300.0
        return config.replace(**auto)

    def generator(self, num_classes: int = 0) -> GeneratorConfig:
        """The generator of a resolved config."""
        return GeneratorConfig(
            resolution=self.resolution,
            z_dim=self.z_dim,
            w_dim=self.w_dim,
            num_classes=num_classes,
            mapping_layers=self.mapping_layers,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
        )

    def discriminator(self, num_classes: int = 0) -> DiscriminatorConfig:
        """The discriminator of a resolved config."""
        return DiscriminatorConfig(
            resolution=self.resolution,
            num_classes=num_classes,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
        )


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}

# Settings that may differ when a run is resumed; any other change needs a new run.
CHANGEABLE = frozenset(
    "out data kimg minutes threads device sample_seconds snapshot_minutes metric_images lr lr_decay gamma ada "
    "ada_target ada_kimg ada_cap transfer preset".split()
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
