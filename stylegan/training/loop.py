"""The training loop: budget, clock, requests of readers, samples, snapshots, exact resume points, a truthful end.

The loop writes the run folder of `training.run`; it never draws a number of its own (the trainer does).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan.checkpoint.file import Checkpoint, save_checkpoint
from stylegan.data.images import ImageSet, open_images, sample_sets
from stylegan.device import pick_device
from stylegan.errors import DataError, StyleGANError, TrainingError
from stylegan.files import write_atomic
from stylegan.metrics.kid import KidMeter
from stylegan.metrics.report import MetricReport
from stylegan.networks.generator import Generator
from stylegan.pixels import encode_jpeg, grid, to_pixels
from stylegan.seeds import z_of_seeds
from stylegan.training.config import TrainConfig, require_same_run
from stylegan.training.ema import Average
from stylegan.training.run import TrainingRun
from stylegan.training.state import has_state, newest_state
from stylegan.training.trainer import Trainer

TICK_SECONDS = 5.0
STATE_SECONDS = 240.0
SHEET_PIXELS = 640  # aimed width of the sample grid
MOST_SAMPLES = 64
FAKES_BATCH = 16


def train(config: TrainConfig, echo: Callable[[str], None] = print) -> TrainingRun:
    """Train until the budget, a stop request or a signal ends it; the same call on the same folder resumes exactly.

    Raises StyleGANError for settings or data that cannot be trained on, a full disk and divergence; the run folder then
    says so too, and the last saved state stays as it was.
    """
    has_gpu = pick_device(config.device).type == "cuda"
    config = config.resolve(has_gpu)
    run = TrainingRun(config.out)
    resumes = has_state(run.path / "state")
    if resumes:
        require_same_run(TrainConfig.from_dict(run.config()).resolve(has_gpu), config)
    run = TrainingRun.create(config.out, config.to_dict())
    try:
        with _signals() as asked:
            session = _Session(run, config, resumes, echo)
            reason = session.loop(asked)
    except BaseException as error:
        sentence = str(error) if isinstance(error, StyleGANError) else f"{type(error).__name__}: {error}"
        run.finish("error", message=sentence)
        raise
    run.finish(reason, session.trainer.nimg)
    echo(f"{reason} at {session.trainer.nimg / 1000:.1f} kimg")
    return run


def open_data(config: TrainConfig) -> ImageSet:
    """The training pictures of a config: a shipped sample set by name, or a folder or zip."""
    path = sample_sets().get(config.data, Path(config.data))
    return open_images(path, config.resolution)


class _Session:
    """One process's part of a run."""

    def __init__(self, run: TrainingRun, config: TrainConfig, resumes: bool, echo: Callable[[str], None]):
        self.run, self.config, self.echo = run, config, echo
        if config.threads:
            torch.set_num_threads(config.threads)
        self.images = open_data(config)
        self.trainer = trainer = Trainer(config, self.images)
        if resumes:
            trainer.load(newest_state(run.path / "state"))
            echo(f"resumed at {trainer.nimg / 1000:.1f} kimg")
        elif config.transfer:
            echo(trainer.transfer(Path(config.transfer)))
        self.sums: dict[str, tuple[float, int]] = {}
        self.first_nimg, self.first_seconds = trainer.nimg, trainer.seconds
        self.clock = {name: time.monotonic() for name in ("tick", "sample", "snapshot", "state")}
        self.next_sample = max(trainer.nimg, 1)
        self.last = {"nimg": trainer.nimg, "seconds": trainer.seconds}
        self.saved_nimg = -1
        self.meter: KidMeter | None = None
        shape = trainer.generator.config
        echo(f"{len(self.images)} images, {shape.resolution} px, batch {config.batch}, gamma {config.gamma:.4g}, "
             f"lr {config.lr:g}, {sum(p.numel() for p in trainer.generator.parameters()):,} generator parameters, "
             f"{trainer.device}, {trainer.dtype}, {torch.get_num_threads()} threads")  # fmt: skip

    def loop(self, asked: list[int]) -> str:
        """Step until something ends the run, a signal in `asked` among them; returns 'done' or 'stopped'."""
        trainer = self.trainer
        self.run.write_status("running", trainer.nimg)
        self._reals()
        self._sample()
        while self.progress() < 1:
            started = time.monotonic()
            self._add(trainer.step(self.progress()))
            trainer.seconds += time.monotonic() - started
            if self._due("tick", TICK_SECONDS):
                self._tick()
            if trainer.nimg >= self.next_sample or self._due("sample", self.config.sample_seconds):
                self._sample()
            if self.run.snapshot_requested() or self._due("snapshot", self.config.snapshot_minutes * 60):
                self._snapshot()
            if self._due("state", STATE_SECONDS):
                self._save()
            if asked or self.run.stop_requested():
                self.run.write_status("stopping", trainer.nimg)
                break
        reason = "done" if self.progress() >= 1 else "stopped"
        self._tick()
        self._save()
        self._sample()
        self._snapshot(measure=reason == "done")
        return reason

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        config, trainer = self.config, self.trainer
        by_images = trainer.nimg / (config.kimg * 1000) if config.kimg else 0.0
        by_clock = trainer.seconds / (config.minutes * 60) if config.minutes else 0.0
        return max(by_images, by_clock)

    def _due(self, name: str, seconds: float) -> bool:
        """True when `name` was last done more than `seconds` ago."""
        return time.monotonic() - self.clock[name] >= seconds

    def _add(self, stats: dict[str, float]) -> None:
        """Sum statistics until the next tick."""
        for name, value in stats.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def _tick(self) -> None:
        """Write the means since the last tick, the speed and the time left."""
        trainer, means = self.trainer, {name: total / count for name, (total, count) in self.sums.items()}
        if not means:
            return
        seconds = max(trainer.seconds - self.last["seconds"], 1e-9)
        speed = (trainer.nimg - self.last["nimg"]) / seconds
        spent, ran = self.progress(), trainer.seconds - self.first_seconds
        images = trainer.nimg - self.first_nimg
        left_images = (
            (self.config.kimg * 1000 - trainer.nimg) * ran / max(images, 1) if self.config.kimg else float("inf")
        )
        left_clock = self.config.minutes * 60 - trainer.seconds if self.config.minutes else float("inf")
        tick = {"nimg": trainer.nimg, "seconds": trainer.seconds, "images_per_second": speed,
                "epoch": trainer.sampler.epoch, "nan": trainer.nans, "progress": min(spent, 1.0),
                "eta_seconds": max(min(left_images, left_clock), 0.0), **means}  # fmt: skip
        self.run.append_event("tick", **tick)
        self.run.write_status("running", trainer.nimg)
        shown = "  ".join(f"{name} {means[name]:+.2f}" for name in ("logits_real", "logits_fake", "r_t", "p"))
        self.echo(f"{trainer.nimg / 1000:8.1f} kimg  {speed:6.1f} img/s  {shown}  nan {trainer.nans}")
        self.sums, self.last = {}, {"nimg": trainer.nimg, "seconds": trainer.seconds}
        self.clock["tick"] = time.monotonic()

    def _reals(self) -> None:
        """A sheet of training pictures, the same size as the fakes'."""
        columns, num = _sheet(self.config.resolution)
        indices = [i * len(self.images) // num for i in range(min(num, len(self.images)))]
        write_atomic(self.run.reals_path, encode_jpeg(grid(self.images.batch(indices), columns)))

    def _sample(self) -> None:
        """The fixed-seed grid of the first average: at once, then log-spaced, then by the clock."""
        trainer = self.trainer
        columns, num = _sheet(self.config.resolution)
        z = torch.from_numpy(z_of_seeds(range(num), trainer.generator.z_dim))
        classes = [i % trainer.num_classes for i in range(num)] if trainer.num_classes else None
        parts = [to_pixels(image) for image in _images(trainer.averages[0].generator, z, classes)]
        path = self.run.sample_path(trainer.nimg)
        write_atomic(path, encode_jpeg(grid(np.concatenate(parts), columns)))
        self.run.append_event("sample", nimg=trainer.nimg, file=f"samples/{path.name}")
        self.next_sample = max(trainer.nimg * 2, 4 * self.config.batch)
        self.clock["sample"] = time.monotonic()

    def _snapshot(self, measure: bool = True) -> None:
        """The better of the two averages as a model file, judged by KID when the config asks for a metric."""
        trainer, best, scores = self.trainer, 0, []
        if self.config.metric_images and measure and trainer.nimg:
            try:
                scores = [self._measure(average) for average in trainer.averages]
                best = min(range(len(scores)), key=lambda i: scores[i].value)
            except DataError as error:  # too few pictures, or fakes that are not numbers: train on, and say so
                self.echo(f"no metric at this snapshot: {error}")
        average = trainer.averages[best]
        provenance: dict[str, Any] = {
            "source": "trained with StyleGAN Studio", "data": self.images.path.name,
            "data_fingerprint": self.images.fingerprint(), "num_images": len(self.images), "nimg": trainer.nimg,
            "hours": round(trainer.seconds / 3600, 3), "ema_half_life_kimg": average.half_life / 1000,
            "settings": {k: v for k, v in self.config.to_dict().items() if k not in ("data", "out", "transfer")},
        }  # fmt: skip
        if self.images.num_classes and trainer.num_classes:
            provenance["class_names"] = list(self.images.class_names)
        if scores:
            provenance["metric"] = {"name": scores[best].name, "value": scores[best].value, "std": scores[best].spread}
        tensors = {k: v.detach().cpu().contiguous() for k, v in average.generator.state_dict().items()}
        path = self.run.snapshot_path(trainer.nimg)
        save_checkpoint(path, Checkpoint(average.generator.config, tensors, provenance))
        self.run.append_event("snapshot", nimg=trainer.nimg, file=f"snapshots/{path.name}")
        self.clock["snapshot"] = time.monotonic()

    def _measure(self, average: Average) -> MetricReport:
        """KID of one average against the training pictures, written as an event."""
        num, generator, half_life = self.config.metric_images, average.generator, average.half_life / 1000
        self.meter = self.meter or KidMeter(self.images.array(), num=num)

        def fakes(wanted: int) -> Iterator[torch.Tensor]:
            z = torch.from_numpy(z_of_seeds(range(wanted), generator.z_dim))
            classes = (
                self.images.labels[[i % len(self.images) for i in range(wanted)]] if generator.num_classes else None
            )
            return _images(generator, z, classes)

        report = self.meter.measure(fakes)
        self.run.append_event("metric", nimg=self.trainer.nimg, name=report.name, value=report.value, std=report.spread,
                              ema_kimg=half_life)  # fmt: skip
        self.echo(f"{report.name} {report.value:.5f} +- {report.spread:.5f} (average of {half_life:g} kimg)")
        return report

    def _save(self) -> None:
        """The exact resume point."""
        trainer = self.trainer
        if trainer.nimg != self.saved_nimg:
            trainer.save(self.run.path / "state" / f"{trainer.nimg:09d}.safetensors")
            self.saved_nimg = trainer.nimg
        self.clock["state"] = time.monotonic()


def _sheet(resolution: int) -> tuple[int, int]:
    """Columns and number of pictures of a sample grid."""
    columns = min(max(SHEET_PIXELS // resolution, 3), 12)
    return columns, columns * min(max(columns // 2, 2), MOST_SAMPLES // columns)


def _images(generator: Generator, z: torch.Tensor, classes: Any = None) -> Iterator[torch.Tensor]:
    """Images [n, C, R, R] of z [N, Z] in small batches, with constant noise."""
    for start in range(0, len(z), FAKES_BATCH):
        part = slice(start, start + FAKES_BATCH)
        label = None if classes is None else torch.as_tensor(classes[part])
        yield generator.synthesize(generator.map(z[part], label))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C instead of dying of them; the old handlers come back."""
    asked: list[int] = []
    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda received, frame: asked.append(received))
    except ValueError:
        pass  # not the main thread: whoever started the loop there stops it through the folder
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_from_file(path: Path) -> TrainConfig:
    """The config that a run folder, or its config.json, was started with."""
    folder = path.parent if path.name == "config.json" else path
    values = TrainingRun(folder).config()
    if not values:
        raise TrainingError(f"{path} holds no training config; give a run folder or its config.json.")
    return TrainConfig.from_dict(values)
