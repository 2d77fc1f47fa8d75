"""The training loop: budget, clock, requests of readers, live settings, exact resume points, a truthful end.

The loop writes the run folder of `training.run` through `training.record`, at the first rank only; it never draws a
number of its own (the trainer does). With several processes every step begins with the first one's word on what is to
be done.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stylegan.data.images import ImageSet, open_images, sample_sets
from stylegan.device import pick_device
from stylegan.errors import RequestError, StyleGANError, TrainingError
from stylegan.training.agreement import choose_first, require_same_pictures, settings_of_all
from stylegan.training.card import write_card
from stylegan.training.config import TrainConfig, require_same_run
from stylegan.training.continuation import even_out, like_source
from stylegan.training.distributed import Ranks, joined
from stylegan.training.live import LIVE, read_live
from stylegan.training.record import Record
from stylegan.training.run import TrainingRun
from stylegan.training.state import has_state, states_newest_first
from stylegan.training.trainer import Trainer, scaled_rates

LEAST_HELD_OUT = 4  # pictures; of fewer nothing can be said, so they are trained on
WORD_SECONDS = 15.0  # between two words to ranks that wait for one that is busy with something that is no step
GO_ON, DONE, STOPPED, WAIT = 0, 1, 2, 3


def train(config: TrainConfig, echo: Callable[[str], None] = print) -> TrainingRun:
    """Train until the budget, a stop request or a signal ends it; the same call on the same folder resumes exactly.

    Under torchrun every process calls this. Raises StyleGANError for settings or data that cannot be trained on, a full
    disk, a lost process and divergence; the run folder then says so too, and the last saved state stays as it was.
    """
    with joined(config.device) as ranks:
        ranks = choose_first(ranks, config)
        run = TrainingRun(config.out)
        resumes = ranks.is_first and has_state(run.path / "state")
        config = settings_of_all(ranks, config, lambda: settings_of(config, run, resumes, ranks.world))
        if not ranks.is_first:
            ranks.together(lambda: None)
            with _signals() as asked:
                _Session(None, config, resumes, ranks, lambda line: None).loop(asked)
            return run
        run = ranks.together(lambda: TrainingRun.create(config.out, config.to_dict()))
        try:
            with _signals() as asked:
                session = _Session(run, config, resumes, ranks, echo)
                reason = session.loop(asked)
        except BaseException as error:
            sentence = str(error) if isinstance(error, StyleGANError) else f"{type(error).__name__}: {error}"
            run.finish("error", message=sentence)
            raise
        run.finish(reason, session.trainer.nimg)
        _end(run, echo)
        echo(f"{reason} at {session.trainer.nimg / 1000:.1f} kimg")
        return run


def settings_of(config: TrainConfig, run: TrainingRun, resumes: bool, world: int = 1) -> TrainConfig:
    """The settings as they will be used: what was left open comes from the resumed run, the transferred model, the
    preset, the resolution. RequestError where a resumed run cannot change.
    """
    has_gpu = pick_device(config.device).type == "cuda"
    if not resumes:
        return like_source(config).resolve(has_gpu, world)
    recorded = TrainConfig.from_dict(run.config()).resolve(has_gpu, world)
    config = config.inherit(recorded).resolve(has_gpu, world)
    require_same_run(recorded, config)
    return config


def open_data(config: TrainConfig) -> ImageSet:
    """The training pictures of a config: a shipped sample set by name, or a folder or zip."""
    path = sample_sets().get(config.data, Path(config.data))
    return open_images(path, config.resolution)


def _end(run: TrainingRun, echo: Callable[[str], None]) -> None:
    """The run's card; a card that cannot be written is no failure of the run."""
    try:
        write_card(run)
    except (StyleGANError, OSError) as error:
        echo(f"no card: {error}")


class _Session:
    """One process's part of a run; `run` is None at all ranks but the first."""

    def __init__(
        self, run: TrainingRun | None, config: TrainConfig, resumes: bool, ranks: Ranks, echo: Callable[[str], None]
    ):
        self.run, self.ranks, self.echo = run, ranks, echo
        if config.threads:
            torch.set_num_threads(config.threads)
        data = ranks.together(lambda: open_data(config))
        require_same_pictures(ranks, data)
        images, held_out = data, None
        if config.holdout:
            images, held_out = data.split(config.holdout)
            if len(held_out) < LEAST_HELD_OUT:
                images, held_out = data, None
        self.trainer = trainer = ranks.together(lambda: Trainer(config, images, ranks))
        ranks.together(lambda: self._begin(resumes))
        even_out(trainer)
        self.record = None if run is None else Record(run, trainer, data, held_out, echo, self._wait)
        self.told_at, self.asked_elsewhere = time.monotonic(), False
        self.told = {name: getattr(trainer.config, name) for name in LIVE}
        grows = "" if trainer.stage.is_last else f" on the way to {config.resolution}"
        echo(f"{len(images)} images{f' and {len(held_out)} held out' if held_out else ''}, {config.family} "
             f"{trainer.stage.sizes} px{grows}, batch {config.batch}, gamma {config.gamma:.4g}, lr {config.lr:g}, "
             f"{sum(p.numel() for p in trainer.generator.parameters()):,} generator parameters, {trainer.device}, "
             f"{trainer.dtype}, {torch.get_num_threads()} threads, {ranks.world} processes")  # fmt: skip

    def _begin(self, resumes: bool) -> None:
        """Take up what there is to begin with, at the first rank; the others get it from there."""
        config = self.trainer.config
        if resumes:
            self._load(Path(config.out) / "state")
        elif config.transfer and self.ranks.is_first:
            self.echo(self.trainer.transfer(Path(config.transfer)))

    def _load(self, folder: Path) -> None:
        """Resume from the newest state, or from the one before where a power cut has damaged it."""
        states = states_newest_first(folder)
        for place, path in enumerate(states):
            try:
                self.trainer.load(path)
            except TrainingError as error:
                if "damaged" not in str(error) or place + 1 == len(states):
                    raise
                self.echo(f"{path.name} is damaged; resuming from the state before")
                continue
            self.echo(f"resumed at {self.trainer.nimg / 1000:.1f} kimg")
            return

    def loop(self, asked: list[int]) -> str:
        """Step until something ends the run, a signal in `asked` among them; returns 'done' or 'stopped'."""
        trainer, record = self.trainer, self.record
        if record:
            self.run.write_status("running", trainer.nimg)
            self._edit()
            record.begin()
        while True:
            order = self._orders(asked)
            if order != GO_ON:
                break
            started = time.monotonic()
            stats = trainer.step()
            trainer.seconds += time.monotonic() - started
            if record:
                record.add(stats)
                if record.tick_is_due():
                    record.tick(self.spent())
                    self._edit()
                record.whatever_is_due()
        reason = "done" if order == DONE else "stopped"
        self.ranks.together(lambda: self._conclude(reason))
        return reason

    def _conclude(self, reason: str) -> None:
        """Write down the last state, pictures and model, while the other ranks wait for how that goes."""
        if self.record:
            self.record.wait = lambda: None
            self.record.tick(self.spent())
            self.record.save()
            self.record.sample()
            self.record.snapshot(measure=reason == "done")

    def spent(self) -> float:
        """Share of the budget that is spent, by images or by the clock of training, 0 to 1."""
        config, trainer = self.trainer.config, self.trainer
        by_images = trainer.nimg / (config.kimg * 1000) if config.kimg else 0.0
        by_clock = trainer.seconds / (config.minutes * 60) if config.minutes else 0.0
        return max(by_images, by_clock)

    def _wait(self) -> None:
        """Let the others know that this rank still lives, where it is busy with something that is no step."""
        if time.monotonic() - self.told_at > WORD_SECONDS:
            self._tell(WAIT)

    def _tell(self, order: int) -> list[float]:
        """The first rank's order, plan and live settings, at every rank."""
        self.told_at = time.monotonic()
        return self.ranks.agree([order, self.trainer.plan, *self.told.values()])

    def _orders(self, asked: list[int]) -> int:
        """What all ranks do next, by the first one's word; a signal that any of them got ends the run."""
        order = GO_ON
        if self.run is not None:
            if self.spent() >= 1:
                order = DONE
            elif asked or self.asked_elsewhere or self.run.stop_requested():
                self.run.write_status("stopping", self.trainer.nimg)
                order = STOPPED
        order, plan, *live = self._tell(order)
        while order == WAIT:
            order, plan, *live = self._tell(order)
        self.asked_elsewhere = self.ranks.total([len(asked)])[0] > 0
        told = dict(zip(LIVE, live, strict=True))
        if any(getattr(self.trainer.config, name) != value for name, value in told.items()):
            self.trainer.adopt(**told)
        self.trainer.plan = plan
        return int(order)

    def _edit(self) -> None:
        """Take over live settings that someone has written, and put them into the run's history."""
        try:
            wanted = read_live(self.run.path)
        except RequestError as error:
            self.echo(f"live.json is not used: {error}")
            return
        changed = {name: value for name, value in wanted.items() if self.told[name] != value}
        if changed:
            self.told |= changed
            self.run.change_config(self.trainer.nimg, changed | scaled_rates(self.trainer.config, changed))
            self.echo("live: " + ", ".join(f"{name} {value:g}" for name, value in changed.items()))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM, Ctrl-C and a closed terminal instead of dying of them; the old handlers come back."""
    asked: list[int] = []
    before = {}
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    try:
        for number in numbers:
            if signal.getsignal(number) == signal.SIG_IGN:  # nohup: somebody wants it to go on
                continue
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
    return TrainConfig.from_dict(values).at(folder)
