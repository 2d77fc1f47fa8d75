"""What lists and comparisons need of a run, without taking in all of its history: many runs, each with a hundred
thousand events, must not make a page slow. No torch.

The event log is read once, and from then on only what is new in it. Metrics are searched for, being few among many
ticks; of the ticks only the last ones are parsed, and an even choice of those with held-out logits.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any

from stylegan.training.run import TrainingRun
from stylegan.training.run_files import parse_line, stamp
from stylegan.training.verdict import RECENT, Verdict, best_by_moment, grown, verdict

CHUNK = 1 << 22  # bytes
MOST_HELD_OUT = 512  # ticks with held-out logits that are kept
TAIL, LINE = 4 * RECENT, 2048  # ticks of the end that are kept, and the bytes that one may have
_TICK, _METRIC, _HELD_OUT = b'{"kind":"tick"', b'\n{"kind":"metric"', b'"logits_held_out":'


class Digest:
    """One run in brief: `refresh()` takes in what is new, `last`, `metrics()` and `verdict()` tell it."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin anew: the folder holds another log than before."""
        self._byte, self._inode, self._rest = 0, 0, b"\n"
        self._recent: deque[bytes] = deque(maxlen=TAIL)
        self._held: list[dict[str, Any]] = []
        self._held_byte, self._step = 0, LINE  # where the next held-out tick is looked for, and how far on from there
        self._metrics: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._ticks: list[dict[str, Any]] = []
        self._standing: list[dict[str, Any]] | None = None
        self._said: tuple[Any, Verdict] | None = None
        self._kid: tuple[Any, dict[str, Any] | None] | None = None

    def refresh(self) -> Digest:
        """Read what is new in the log; cheap where nothing is."""
        path = self.run.path / "events.jsonl"
        with self._lock:
            try:
                found = path.stat()
            except OSError:
                self._forget()
                return self
            if found.st_ino != self._inode or found.st_size < self._byte:
                self._forget()
                self._inode = found.st_ino
            if found.st_size > self._byte:
                with open(path, "rb") as file:
                    file.seek(self._byte)
                    while chunk := file.read(CHUNK):
                        self._take(chunk)
                self._ticks, self._standing = [], None
                for line in self._recent:
                    _push(self._ticks, parse_line(line))
        return self

    def _take(self, chunk: bytes) -> None:
        """Find what counts in the next bytes of the log; a line that is cut off waits for its rest."""
        text = self._rest + chunk
        first, self._byte = self._byte - len(self._rest), self._byte + len(chunk)  # of text, in the log
        whole = text.rfind(b"\n")
        self._rest = text[whole:]  # from a line's end on, so that every line here begins with one
        place = text.find(_METRIC, 0, whole)
        while place >= 0:
            end = text.find(b"\n", place + 1)
            record = parse_line(text[place + 1 : end]) or {}
            if isinstance(record.get("nimg"), int):
                self._metrics[str(record.get("name")), str(record.get("ema_kimg")), record["nimg"]] = record
            place = text.find(_METRIC, end, whole)
        place = text.find(_HELD_OUT, max(self._held_byte - first, 0), whole)
        while place >= 0:
            _push(self._held, parse_line(text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place)]))
            if len(self._held) > MOST_HELD_OUT:
                self._held, self._step = self._held[::2], 2 * self._step
            self._held_byte = first + place + self._step
            place = text.find(_HELD_OUT, self._held_byte - first, whole)
        lines = text[max(whole - LINE * TAIL, 0) : whole].split(b"\n")
        self._recent.extend(line for line in lines if line.startswith(_TICK))

    @property
    def last(self) -> dict[str, Any]:
        """The last tick, empty before there is one."""
        return self._ticks[-1] if self._ticks else {}

    def metrics(self) -> list[dict[str, Any]]:
        """As `TrainingRun.metrics`: every metric event that still stands, by images seen."""
        with self._lock:
            if self._standing is None:
                last, found = self.last.get("nimg", 0), self._metrics.values()
                self._standing = sorted((one for one in found if one["nimg"] <= last), key=lambda one: one["nimg"])
            return self._standing

    def verdict(self) -> Verdict:
        """As `TrainingRun.verdict`, judged by the last ticks and the even choice of held-out logits."""
        token = (self._byte, stamp(self.run.path / "config.json"), stamp(self.run.path / "status.json"))
        if self._said is None or self._said[0] != token:
            last, held = self.last.get("nimg", 0), {tick["nimg"] for tick in self._held}
            unasked = {"logits_held_out": None, "logits_train": None}
            newest = [tick if tick["nimg"] in held else {**tick, **unasked} for tick in self._ticks]
            first = newest[0]["nimg"] if newest else last + 1
            ticks = [*(tick for tick in self._held if tick["nimg"] < first), *newest]
            ending = self.run.status().get("message", "")
            over = not self.run.is_active()
            self._said = token, verdict(ticks, self.metrics(), self.run.config(), ending, over)
        return self._said[1]

    def best(self) -> dict[str, Any] | None:
        """The best snapshot as the run has it, else the best KID of its newest name; None before there is any."""
        metrics = self.metrics()
        if self._kid is None or self._kid[0] is not metrics:
            names = [event["name"] for event in metrics if str(event.get("name")).startswith("KID")]
            kid = best_by_moment(metrics, names[-1]) if names else []
            self._kid = metrics, min(grown(kid) or kid, key=lambda event: event["value"], default=None)
        return self.run.best() or self._kid[1]


def _push(ticks: list[dict[str, Any]], record: dict[str, Any] | None) -> None:
    """Add a tick, which takes back those that it repeats after a resume."""
    nimg = (record or {}).get("nimg")
    if isinstance(nimg, int):
        while ticks and ticks[-1]["nimg"] >= nimg:
            ticks.pop()
        ticks.append(record)


@lru_cache(maxsize=512)
def _kept(path: Path) -> Digest:
    """The digest of a folder, whatever its run is called by."""
    return Digest(TrainingRun(path))


def digest_of(run: TrainingRun) -> Digest:
    """The run's digest, up to date; it is kept, so that asking again reads only what is new."""
    return _kept(run.path.absolute()).refresh()
