"""What a run writes down while it trains: ticks, sample grids, snapshots with their metrics, states (rank 0 only).

It looks at the trainer and never changes what the next step will do, except that a saved state renews its plan.

Letters: N pictures, C channels, R resolution.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from stylegan.checkpoint.file import Checkpoint, save_checkpoint
from stylegan.data.images import ImageSet
from stylegan.errors import DataError
from stylegan.files import write_atomic
from stylegan.metrics.evaluate import Meter, sampler_of
from stylegan.metrics.report import MetricReport
from stylegan.networks.generator import Generator
from stylegan.pixels import centred, encode_jpeg, grid, to_pixels
from stylegan.seeds import z_of_seeds
from stylegan.training.draws import Draws
from stylegan.training.ema import Average
from stylegan.training.growth import enlarged, reduced
from stylegan.training.run import TrainingRun
from stylegan.training.state import forget_states, state_path
from stylegan.training.tensorboard import Board
from stylegan.training.trainer import Trainer

TICK_SECONDS = 5.0
STATE_SECONDS = 240.0
STATES_A_BUDGET = 12  # a budget of minutes is planned anew so often, as states are saved
FIRST_SNAPSHOT = 60.0  # seconds; the next ones come ever later, up to what the config says
JUDGING_SHARE = 0.1  # of the time, at most, goes into judging snapshots that nobody asked for
SNAPSHOTS_A_BUDGET = 6  # of minutes, at least, however long judging takes
HELD_OUT_SECONDS = 20.0
HELD_OUT_BATCH = 32
SHEET_PIXELS = 640  # aimed width of the sample grid
MOST_SAMPLES = 64
FAKES_BATCH = 16


class Record:
    """The writing side of one process's part of a run; `data` is all pictures, of which the trainer sees a part.

    `wait` is called every now and then while something takes long, for others who wait for this process.
    """

    def __init__(
        self,
        run: TrainingRun,
        trainer: Trainer,
        data: ImageSet,
        held_out: ImageSet | None,
        echo: Callable[[str], None],
        wait: Callable[[], None] = lambda: None,
    ):
        self.run, self.trainer, self.data, self.held_out, self.echo = run, trainer, data, held_out, echo
        self.wait = wait
        self.sums: dict[str, tuple[float, int]] = {}
        self.first = {"nimg": trainer.nimg, "seconds": trainer.seconds}
        self.last, self.planned = dict(self.first), dict(self.first)
        self.clock = {name: time.monotonic() for name in ("tick", "sample", "snapshot", "state", "word")}
        self.clock["held_out"] = 0.0
        self.next_sample = max(trainer.nimg, 1)
        self.saved_nimg = -1
        self.meter: Meter | None = None
        self.judging_seconds = 0.0
        self.board = Board(run.path / "tensorboard") if trainer.config.tensorboard else None

    def due(self, name: str, seconds: float) -> bool:
        """True when `name` was last done more than `seconds` ago."""
        return time.monotonic() - self.clock[name] >= seconds

    def tick_is_due(self) -> bool:
        """True when it is time for the next tick."""
        return self.due("tick", TICK_SECONDS)

    def add(self, stats: dict[str, float]) -> None:
        """Sum statistics until the next tick."""
        for name, value in stats.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def whatever_is_due(self) -> None:
        """Samples, snapshots and states, each by its own clock."""
        trainer, config = self.trainer, self.trainer.config
        if trainer.nimg >= self.next_sample or self.due("sample", config.sample_seconds):
            self.sample()
        if self.run.snapshot_requested() or self.due("snapshot", self._seconds_between_snapshots()):
            self.snapshot()
        share = config.minutes * 60 / STATES_A_BUDGET if config.minutes else STATE_SECONDS
        if self.due("state", min(STATE_SECONDS, share)):
            self.save()

    def _seconds_between_snapshots(self) -> float:
        """What the config says: less at first, for a verdict within minutes, more where judging takes long."""
        config = self.trainer.config
        soon = max(FIRST_SNAPSHOT, self.trainer.seconds / 3) if config.metric_images else float("inf")
        share = config.minutes * 60 / SNAPSHOTS_A_BUDGET if config.minutes else float("inf")
        return max(min(config.snapshot_minutes * 60, soon), min(self.judging_seconds / JUDGING_SHARE, share))

    # ---- ticks -------------------------------------------------------------------------------------------------------

    def tick(self, spent: float) -> None:
        """Write the means since the last tick, the speed by phase, the memory and the time left."""
        trainer, means = self.trainer, {name: total / count for name, (total, count) in self.sums.items()}
        if not means:
            return
        if self.due("held_out", HELD_OUT_SECONDS):
            means |= self._held_out_logits()
        seconds, images = trainer.seconds - self.last["seconds"], trainer.nimg - self.last["nimg"]
        steps = max(images // trainer.config.batch, 1)
        phases = {f"ms_{name}": 1000 * spent_on / steps for name, spent_on in trainer.phase_seconds.items()}
        tick = {"nimg": trainer.nimg, "seconds": trainer.seconds, "images_per_second": images / max(seconds, 1e-9),
                "epoch": trainer.sampler.epoch, "nan": trainer.nans, "progress": min(spent, 1.0),
                "eta_seconds": self._seconds_left(), "memory_mb": peak_memory(trainer.device), **means, **phases,
                }  # fmt: skip
        self.run.append_event("tick", **tick)
        self.run.write_status("running", trainer.nimg)
        if self.board:
            self.board.add(tick)
        shown = "  ".join(f"{name} {means[name]:+.2f}" for name in ("logits_real", "logits_fake", "r_t", "p"))
        speed = tick["images_per_second"]
        grows = "" if trainer.stage.is_last else f"  growing: {trainer.stage.words(trainer.nimg)}"
        self.echo(f"{trainer.nimg / 1000:8.1f} kimg  {speed:6.1f} img/s  {shown}  nan {trainer.nans}{grows}")
        self.sums, self.last = {}, {"nimg": trainer.nimg, "seconds": trainer.seconds}
        trainer.phase_seconds = {}
        self.clock["tick"] = time.monotonic()

    def _seconds_left(self) -> float:
        """Time to the nearer end of the budget at this process's pace."""
        trainer, config = self.trainer, self.trainer.config
        ran, images = trainer.seconds - self.first["seconds"], trainer.nimg - self.first["nimg"]
        by_images = (config.kimg * 1000 - trainer.nimg) * ran / max(images, 1) if config.kimg else float("inf")
        by_clock = config.minutes * 60 - trainer.seconds if config.minutes else float("inf")
        return max(min(by_images, by_clock), 0.0)

    def _held_out_logits(self) -> dict[str, float]:
        """Mean logits of held-out and of training pictures, both as they are: the gap between them is memorisation."""
        self.clock["held_out"] = time.monotonic()
        if self.held_out is None:
            return {}
        turn = self.trainer.nimg // self.trainer.config.batch
        found = {}
        for name, images in (("logits_held_out", self.held_out), ("logits_train", self.trainer.images)):
            indices = (turn * HELD_OUT_BATCH + np.arange(min(HELD_OUT_BATCH, len(images)))) % len(images)
            found[name] = self.trainer.logits_of(images, indices)
        return found

    # ---- pictures ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """What is trained on, and the first pictures."""
        held_out = 0 if self.held_out is None else len(self.held_out)
        self.run.append_event("data", nimg=self.trainer.nimg, fingerprint=self.data.fingerprint(),
                              num_images=len(self.trainer.images), num_held_out=held_out)  # fmt: skip
        self.reals()
        self.sample()

    def reals(self) -> None:
        """A sheet of training pictures, the same size as the fakes'."""
        pixels, columns = self._some_reals()
        write_atomic(self.run.reals_path, encode_jpeg(grid(pixels, columns)))

    def _some_reals(self) -> tuple[np.ndarray, int]:
        """Evenly chosen training pictures, each once, and how many stand side by side."""
        images, (columns, num) = self.trainer.images, sheet(self.trainer.config.resolution)
        num = min(num, len(images))
        return images.batch([i * len(images) // num for i in range(num)]), columns

    def augmented(self) -> None:
        """The same sheet as the discriminator sees it now."""
        trainer, (pixels, columns) = self.trainer, self._some_reals()
        reals = centred(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        reals = reduced(reals, trainer.stage, trainer.nimg)
        seen = trainer.augment(reals, Draws(trainer.config.seed, trainer.nimg, "reals", torch.device("cpu")).plain)
        seen = enlarged(seen, trainer.config.resolution)
        write_atomic(self.run.augmented_path, encode_jpeg(grid(to_pixels(seen), columns)))

    def sample(self) -> None:
        """The fixed-seed grid of the first average: at once, then log-spaced, then by the clock."""
        trainer = self.trainer
        path = self.run.sample_path(trainer.nimg)
        write_atomic(path, encode_jpeg(sample_sheet(trainer.averages[0].generator, trainer.config.resolution)))
        self.run.append_event("sample", nimg=trainer.nimg, file=f"samples/{path.name}")
        self.next_sample = max(trainer.nimg * 2, 4 * trainer.config.batch)
        self.clock["sample"] = time.monotonic()

    # ---- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self, measure: bool = True) -> None:
        """The better of the two averages as a model file, judged when the config asks for a metric; and its state.

        Unjudged, the average is taken that the best snapshot so far was made of.
        """
        trainer, best, scores = self.trainer, self._better_so_far(), []
        if trainer.config.metric_images and measure and trainer.nimg:
            try:
                self.meter = self.meter or Meter(trainer.images, self.held_out, num=trainer.config.metric_images,
                                                 device=trainer.device, on_progress=self._on_progress)  # fmt: skip
                started = time.monotonic()
                scores = [self._measure(average) for average in trainer.averages]
                self.judging_seconds = time.monotonic() - started
                best = min(range(len(scores)), key=lambda i: scores[i][0].value)
            except DataError as error:  # too few pictures, or fakes that are not numbers: train on, and say so
                self.echo(f"no metric at this snapshot: {error}")
        average = trainer.averages[best]
        path = self.run.snapshot_path(trainer.nimg)
        tensors = {k: v.detach().cpu().contiguous() for k, v in average.generator.state_dict().items()}
        provenance = self._provenance(average, scores[best] if scores else [])
        config = dataclasses.replace(average.generator.config, fade=trainer.stage.fade(trainer.nimg))
        save_checkpoint(path, Checkpoint(config, tensors, provenance))
        self.run.append_event("snapshot", nimg=trainer.nimg, file=f"snapshots/{path.name}")
        if scores:
            self.run.note_best(trainer.nimg, scores[best][0].name, scores[best][0].value, average.half_life / 1000)
        self.augmented()
        self.save()
        self.clock["snapshot"] = time.monotonic()

    def _better_so_far(self) -> int:
        """The number of the average that made the best snapshot, the first where none was judged."""
        known = (self.run.best() or {}).get("ema_kimg")
        return next((i for i, one in enumerate(self.trainer.averages) if one.half_life / 1000 == known), 0)

    def _provenance(self, average: Average, reports: list[MetricReport]) -> dict[str, Any]:
        """Where the snapshot comes from, as its file says."""
        trainer, data = self.trainer, self.data
        found: dict[str, Any] = {
            "source": "trained with StyleGAN Studio", "data": data.path.name, "data_fingerprint": data.fingerprint(),
            "train_fingerprint": trainer.images.fingerprint(), "num_images": len(trainer.images), "nimg": trainer.nimg,
            "hours": round(trainer.seconds / 3600, 3), "ema_half_life_kimg": average.half_life / 1000,
            "settings": {k: v for k, v in trainer.config.to_dict().items() if k not in ("data", "out", "transfer")},
        }  # fmt: skip
        if self.held_out is not None:
            found |= {"held_out_fingerprint": self.held_out.fingerprint(), "num_held_out": len(self.held_out)}
        if data.num_classes and trainer.num_classes:
            found["class_names"] = list(data.class_names)
        if reports:
            found["metric"] = {"name": reports[0].name, "value": reports[0].value, "std": reports[0].spread}
        return found

    def _measure(self, average: Average) -> list[MetricReport]:
        """All cheap metrics of one average against the held-out pictures, each written as an event."""
        images, generator, half_life = self.trainer.images, average.generator, average.half_life / 1000

        def fakes(wanted: int) -> Iterator[torch.Tensor]:
            return (enlarged(pictures, images.resolution) for pictures in sampler_of(generator, images)(wanted))

        reports = self.meter.measure(fakes, on_progress=self._on_progress)
        for report in reports:
            known = {name: report.details[name] for name in ("floor", "train") if name in report.details}
            self.run.append_event("metric", nimg=self.trainer.nimg, name=report.name, value=report.value,
                                  std=report.spread, ema_kimg=half_life, better=report.better, **known)  # fmt: skip
        first = reports[0]
        self.echo(f"{first.name} {first.value:.5f} +- {first.spread:.5f} (average of {half_life:g} kimg)")
        pairs = self.meter.pairs
        if pairs is not None:
            write_atomic(self.run.pairs_path, encode_jpeg(pairs.picture()))
        return reports

    def _on_progress(self, what: str, done: int, total: int) -> None:
        """A metric is so far: those who wait and those who look hear of it; who asks to stop need not wait for it."""
        self.wait()
        if self.run.stop_requested():
            raise DataError("the run was asked to stop")
        if self.due("word", TICK_SECONDS):
            self.run.write_status("running", self.trainer.nimg, f"Judging the pictures: {what}, {done} of {total}.")
            self.clock["word"] = time.monotonic()

    def save(self) -> None:
        """The exact resume point; a budget of minutes is planned anew with it."""
        trainer, folder = self.trainer, self.run.path / "state"
        if trainer.nimg != self.saved_nimg:
            trainer.replan(trainer.seconds - self.planned["seconds"], trainer.nimg - self.planned["nimg"])
            self.planned = {"nimg": trainer.nimg, "seconds": trainer.seconds}
            trainer.save(state_path(folder, trainer.nimg))
            best = self.run.best()
            forget_states(folder, best["nimg"] if best else None)
            self.saved_nimg = trainer.nimg
        self.clock["state"] = time.monotonic()


def sheet(resolution: int) -> tuple[int, int]:
    """Columns and number of pictures of a sample grid."""
    columns = min(max(SHEET_PIXELS // resolution, 3), 12)
    return columns, columns * min(max(columns // 2, 2), MOST_SAMPLES // columns)


def sample_sheet(generator: Generator, resolution: int) -> np.ndarray:
    """The grid of fixed seeds, pixels uint8 [H, W, C], each picture at `resolution`; classes take turns."""
    columns, num = sheet(resolution)
    z = torch.from_numpy(z_of_seeds(range(num), generator.z_dim))
    classes = [i % generator.num_classes for i in range(num)] if generator.num_classes else None
    images = generate(generator, z, classes)
    return grid(np.concatenate([to_pixels(enlarged(image, resolution)) for image in images]), columns)


def generate(generator: Generator, z: torch.Tensor, classes: Any = None) -> Iterator[torch.Tensor]:
    """Images [n, C, R, R] of z [N, Z] in small batches, with constant noise."""
    for start in range(0, len(z), FAKES_BATCH):
        part = slice(start, start + FAKES_BATCH)
        label = None if classes is None else torch.as_tensor(classes[part])
        yield generator.synthesize(generator.map(z[part], label))


def peak_memory(device: torch.device) -> float:
    """The most memory that this process, or its GPU, has held so far, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

