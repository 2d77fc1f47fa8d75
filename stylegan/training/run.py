"""The run folder: everything a training run has done, as files that any process may read.

    runs/NAME/config.json      what was asked, written first
              events.jsonl     append-only, one JSON object a line
              status.json      who trains, how far, alive when
              samples/         fakes_000012800.jpg (named by images seen), reals.jpg
              snapshots/       000012800.safetensors, each a whole model
              state/           the exact resume point
              best.json        which snapshot has the best metric so far
              live.json        settings changed while it trains
              stop, snapshot   requests of a reader; the trainer looks for them between two steps
              card.md          written at the end
              log.txt          what the process printed

The writer half belongs to the trainer, the reader half to pages and other shells. Neither needs torch, and neither
writes outside the folder.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stylegan.errors import StyleGANError, TrainingError
from stylegan.files import safe_name, write_atomic, write_problem
from stylegan.training.growth import stage_of
from stylegan.training.live import edit_live
from stylegan.training.process import is_alive, spawn_trainer, status_of
from stylegan.training.run_files import age, last_line, numbered, parse_line, plain, read_json, stamp, sweep, thin
from stylegan.training.verdict import LEAST_IMAGES, Verdict, verdict

try:
    import fcntl
except ImportError:  # not a POSIX system: the pid in status.json is the only guard against two trainers
    fcntl = None

ALIVE_STATES, FINAL_STATES = ("starting", "running", "stopping"), ("done", "stopped", "failed")
_FINAL_OF_REASON = {"done": "done", "stopped": "stopped", "error": "failed"}
_RESERVE_BYTES = 16384
_STARTING_LIMIT = 30.0  # seconds a folder may have a config and no status yet
_start_lock = threading.Lock()


class TrainingRun:
    """One run folder, opened by its path; nothing is created or read before it is asked for."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._status: dict[str, Any] = {}
        self._lock_file: Any = None
        self._ticks: list[dict[str, Any]] = []
        self._metrics: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._history_byte = 0
        self._history_of = 0
        self._history_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TrainingRun({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's own name, which is what people call the run."""
        return self.path.name

    # ---- writer half: the trainer ------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> TrainingRun:
        """Claim the folder for this process, write `config.json` first, and forget requests of an earlier process.

        An existing folder keeps all it holds, so the same command resumes. Raises TrainingError when another live
        process trains in it, or when the folder cannot be written.
        """
        run = cls(path)
        try:
            folders = [run.path, *(run.path / name for name in ("samples", "snapshots", "state"))]
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(write_problem(run.path, error)) from error
        run._claim()
        sweep(*folders)
        run._write_config(config)
        previous = run.status()
        if previous.get("pid") != os.getpid():  # else `start` has cleared them, and a stop asked since then counts
            run._clear_requests()
        run._status = {"nimg": previous.get("nimg", 0)}
        run.write_status("starting")
        write_atomic(run.path / "reserve", bytes(_RESERVE_BYTES))
        run.append_event("config", nimg=run._status["nimg"], config=dict(config))
        return run

    def append_event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl in a single write, so that a reader sees it whole or as a torn last line."""
        record = {"kind": kind, "time": round(time.time(), 3), **fields}
        record = {name: plain(value) for name, value in record.items()}
        line = json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
        path = self.path / "events.jsonl"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(file).st_size
                os.lseek(file, max(size - 1, 0), os.SEEK_SET)
                if size and os.read(file, 1) != b"\n":
                    line = b"\n" + line  # an earlier write was cut short: its stump stays on its own line
                if os.write(file, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
        except OSError as error:
            raise TrainingError(write_problem(path, error)) from error

    def write_status(self, state: str, nimg: int | None = None, message: str = "") -> None:
        """Replace status.json by one with a fresh heartbeat; without `nimg` the last one stays."""
        nimg = self._status.get("nimg", 0) if nimg is None else int(nimg)
        self._status = status_of(os.getpid(), state, nimg, message)
        write_atomic(self.path / "status.json", json.dumps(self._status).encode())

    def finish(self, reason: str, nimg: int | None = None, message: str = "") -> None:
        """Record the end of the run: `reason` is done, stopped or error; a full disk is met with the kept reserve."""
        (self.path / "reserve").unlink(missing_ok=True)
        try:
            self.append_event("end", nimg=self._status.get("nimg", 0) if nimg is None else int(nimg), reason=reason,
                              message=message)
        finally:
            self.write_status(_FINAL_OF_REASON[reason], nimg, message)
            self._clear_requests()
            self._release()

    def sample_path(self, nimg: int) -> Path:
        """Where the grid of fixed-seed fakes at `nimg` images belongs."""
        return self.path / "samples" / f"fakes_{int(nimg):09d}.jpg"

    @property
    def reals_path(self) -> Path:
        """Where the grid of training pictures belongs."""
        return self.path / "samples" / "reals.jpg"

    @property
    def augmented_path(self) -> Path:
        """Where the training pictures as the discriminator sees them belong."""
        return self.path / "samples" / "augmented.jpg"

    @property
    def pairs_path(self) -> Path:
        """Where the fakes beside their nearest training pictures belong."""
        return self.path / "samples" / "nearest.jpg"

    def snapshot_path(self, nimg: int) -> Path:
        """Where the model at `nimg` images belongs."""
        return self.path / "snapshots" / f"{int(nimg):09d}.safetensors"

    def stop_requested(self) -> bool:
        """True once someone has asked the run to save and end."""
        return (self.path / "stop").exists()

    def snapshot_requested(self) -> bool:
        """True once for every time someone has asked for a snapshot."""
        try:
            (self.path / "snapshot").unlink()
        except FileNotFoundError:
            return False
        return True

    def change_config(self, nimg: int, changed: Mapping[str, float]) -> None:
        """Put settings that were changed while it trains into the config and the history."""
        self._write_config({**self.config(), **changed})
        self.append_event("live", nimg=nimg, changed=dict(changed))

    def note_best(self, nimg: int, name: str, value: float, ema_kimg: float) -> None:
        """Mark the snapshot as the best if its metric (lower is better) is; a very young or smaller one gives way."""
        best, least = self.best(), max(LEAST_IMAGES, stage_of(self.config(), nimg).start)
        gives_way = best is None or best["name"] != name or best["nimg"] == nimg or best["nimg"] < least <= nimg
        if gives_way or value < best["value"]:
            best = {"nimg": nimg, "file": f"snapshots/{self.snapshot_path(nimg).name}", "name": name, "value": value,
                    "ema_kimg": ema_kimg}
            write_atomic(self.path / "best.json", json.dumps(best).encode())

    def _claim(self) -> None:
        """Hold the folder's lock for the life of this process, or say who holds it."""
        if fcntl is None:
            status = self.status()
            if status.get("pid") != os.getpid() and self.state() in ALIVE_STATES:
                raise TrainingError(_already_trains(self.name, status))
            return
        self._lock_file = open(self.path / "lock", "ab")  # held until the process ends
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._release()
            raise TrainingError(_already_trains(self.name, self.status())) from error
        except OSError:  # a file system without locks
            self._release()

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _write_config(self, config: Mapping[str, Any]) -> None:
        write_atomic(self.path / "config.json", json.dumps(dict(config), indent=1, default=str).encode() + b"\n")

    def _clear_requests(self) -> None:
        for request in ("stop", "snapshot"):
            (self.path / request).unlink(missing_ok=True)

    # ---- reader half: pages and other shells -------------------------------------------------------------------------

    def exists(self) -> bool:
        """True when the folder holds a run's config."""
        return (self.path / "config.json").is_file()

    def config(self) -> dict[str, Any]:
        """What was asked of this run, or an empty dict while nothing readable is there."""
        return read_json(self.path / "config.json")

    def status(self) -> dict[str, Any]:
        """The last status.json: pid, started, host, state, nimg, heartbeat, message."""
        return read_json(self.path / "status.json")

    def state(self) -> str:
        """starting, running, stopping, done, stopped, failed or crashed, told from the disk and the process table."""
        status = self.status()
        if not status:
            return "starting" if age(self.path / "config.json") < _STARTING_LIMIT else "crashed"
        if status.get("state") in FINAL_STATES:
            return status["state"]
        if not is_alive(status):
            return "crashed"
        return "stopping" if self.stop_requested() else status.get("state", "running")

    def is_active(self) -> bool:
        """True while a process trains in this folder."""
        return self.state() in ALIVE_STATES

    def reason(self) -> str:
        """One sentence: why the run ended or what it does other than train; empty after it did all that was asked."""
        state = self.state()
        message = "" if state == "done" else self.status().get("message", "")
        if message or state in (*ALIVE_STATES, "done", "stopped"):
            return message
        last = last_line(self.path / "log.txt")
        if state == "failed" and last:
            return last
        said = f" Its last words: {last}" if last else ""
        return f"The training process ended without saying why; continue takes up its last checkpoint.{said}"

    def events(self, since_byte: int = 0) -> tuple[list[dict[str, Any]], int]:
        """All whole events from `since_byte` on, and the byte to ask for next; a torn last line waits for its rest."""
        try:
            with open(self.path / "events.jsonl", "rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = since_byte if 0 <= since_byte <= size else 0
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        whole = data.rfind(b"\n") + 1
        records = (parse_line(line) for line in data[:whole].split(b"\n"))
        return [record for record in records if record is not None], start + whole

    def ticks(self) -> list[dict[str, Any]]:
        """Every tick that still stands, oldest first; a run resumed further back replaces the ticks it repeats."""
        with self._history_lock:
            self._read_history()
            return list(self._ticks)

    def metrics(self) -> list[dict[str, Any]]:
        """Every metric event that still stands, by images seen: the last word for each name, average and count."""
        with self._history_lock:
            self._read_history()
            last = self._ticks[-1]["nimg"] if self._ticks else 0
            return sorted((one for one in self._metrics.values() if one["nimg"] <= last), key=lambda one: one["nimg"])

    def _read_history(self) -> None:
        """Take in the events that are new since the last look; all of them when a trainer has started since."""
        config, since = stamp(self.path / "config.json")[0], self._history_byte
        records, self._history_byte = self.events(since if config == self._history_of else 0)
        if config != self._history_of or self._history_byte < since:
            self._ticks, self._metrics, self._history_of = [], {}, config
        for record in records:
            nimg = record.get("nimg")
            if record.get("kind") == "metric" and isinstance(nimg, int):
                self._metrics[str(record.get("name")), str(record.get("ema_kimg")), nimg] = record
            elif record.get("kind") == "tick" and isinstance(nimg, int):
                while self._ticks and self._ticks[-1]["nimg"] >= nimg:
                    self._ticks.pop()
                self._ticks.append(record)

    def series(self, names: Iterable[str], max_points: int = 400) -> dict[str, list[float | None]]:
        """Tick fields as lists beside their `nimg`, thinned evenly to `max_points` with both ends kept."""
        ticks = thin(self.ticks(), max_points)
        table: dict[str, list[float | None]] = {"nimg": [tick["nimg"] for tick in ticks]}
        for name in names:
            table[name] = [tick.get(name) for tick in ticks]
        return table

    def samples(self) -> list[tuple[int, Path]]:
        """The grids of fakes as (images seen, file), oldest first."""
        return numbered(self.path / "samples", "fakes_", ".jpg")

    def best(self) -> dict[str, Any] | None:
        """The best snapshot so far: nimg, file, name and value of the metric, ema_kimg; None before one was judged."""
        best = read_json(self.path / "best.json")
        usable = isinstance(best.get("nimg"), int) and isinstance(best.get("value"), float) and "name" in best
        return best if usable and self.snapshot_path(best["nimg"]).is_file() else None

    def verdict(self) -> Verdict:
        """How the run is doing, with the reason and what to do."""
        ending, over = self.status().get("message", ""), not self.is_active()
        return verdict(self.ticks(), self.metrics(), self.config(), ending, over)

    def snapshots(self) -> list[tuple[int, Path]]:
        """The saved models as (images seen, file), oldest first."""
        return numbered(self.path / "snapshots", "", ".safetensors")

    def version(self) -> str:
        """A cheap token that changes whenever there is something new to show."""
        status = self.status()
        files = ("events.jsonl", "config.json", "samples", "snapshots", "snapshot")
        stamps = [stamp(self.path / file) for file in files]
        return ":".join(map(str, [self.state(), status.get("nimg"), status.get("message"), *stamps]))

    def ask_stop(self) -> None:
        """Ask the trainer to save and end; asking twice, or asking a finished run, changes nothing."""
        if self.is_active():
            self._touch("stop")

    def ask_snapshot(self) -> None:
        """Ask the trainer for a snapshot and a sample grid now."""
        if self.is_active():
            self._touch("snapshot")

    def edit(self, **values: float) -> dict[str, float]:
        """Change gamma, lr, ada_target or ada_cap while the run goes on; RequestError for what cannot be."""
        return edit_live(self.path, **values)

    def _touch(self, request: str) -> None:
        try:
            (self.path / request).touch()
        except OSError as error:
            raise TrainingError(write_problem(self.path / request, error)) from error

    @classmethod
    def start(cls, config: Any, python: str = sys.executable) -> TrainingRun:
        """Spawn `python -m stylegan train --config FILE` in its own session; a run that trains already is returned.

        `config` is a TrainConfig or its dict, with `out` as the run folder. Raises TrainingError when the folder or
        the process cannot be made.
        """
        fields = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config)
        run = cls(fields["out"])
        with _start_lock:
            if run.is_active() and run.exists():
                return run
            try:
                run.path.mkdir(parents=True, exist_ok=True)
                run._clear_requests()
                nimg = run.status().get("nimg", 0)
                run._write_config(fields)
                process = spawn_trainer(run.path, python)
            except OSError as error:
                raise TrainingError(f"Cannot start training in {run.path}: {error.strerror}.") from error
            status = status_of(process.pid, "starting", nimg, "")
            write_atomic(run.path / "status.json", json.dumps(status).encode())
        threading.Thread(target=process.wait, daemon=True).start()  # reaps it, so that no zombie looks alive
        return run


def run_folder(root: str | Path, name: str) -> Path:
    """The folder of the run called `name` under `root`; raises StyleGANError for a name that is not a plain one."""
    folder = Path(root) / safe_name(name)
    if folder.is_symlink():
        raise StyleGANError(f"The run folder {folder.name} is a link; choose another name.")
    return folder


def list_runs(root: str | Path) -> list[TrainingRun]:
    """Every run under `root`, those that train first, then by their last sign of life."""
    try:
        runs = [run for run in map(TrainingRun, Path(root).iterdir()) if run.exists()]
    except FileNotFoundError:
        return []
    keys = {run.path: (run.is_active(), run.status().get("heartbeat", stamp(run.path / "config.json")[0] / 1e9))
            for run in runs}
    return sorted(runs, key=lambda run: keys[run.path], reverse=True)


def _already_trains(name: str, status: Mapping[str, Any]) -> str:
    return (f"The run {name} is already being trained by process {status.get('pid', '?')}; "
            "stop it first or choose another name.")

