"""Which engine draws what moves: measured piece by piece on this machine, once a model, and remembered in a file.

PyTorch serves from the first picture on. When nobody draws, pieces are compiled with OpenVINO and timed in turn with
PyTorch; those that are quicker take over, one by one. Nothing here raises: whatever fails, the engine that was there
goes on.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import queue
import re
import shutil
import statistics
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from stylegan import background
from stylegan.engines import openvino
from stylegan.engines.walk import Engine
from stylegan.errors import StyleGANError
from stylegan.files import write_atomic
from stylegan.networks.pieces import Noise, PiecewiseSynthesis, State

log = logging.getLogger(__name__)
ROUNDS = 5
FEWEST_ROUNDS, ENOUGH_MS = 2, 500.0  # slow pieces are timed less often
WORTH_IT = 0.95  # a piece changes hands when the other engine takes at most this part of the time
IDLE_SECONDS = 1.5  # how long nobody must have drawn before a step is taken
MAX_MODELS, MAX_MACHINES = 64, 8  # choices that are remembered
MAX_ERROR = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of a piece's results, by torch's type
FORMAT = 1  # another number when the graphs change so much that old measurements say nothing


class ChosenEngine:
    """The quickest engine of a model for one picture at a time: `first` until others were measured, then a mixture.

    `digest` is the model's hash, `folder` where choices are remembered (None: nowhere), and `turn` gives the device for
    one step of measuring, so that pictures never wait longer than for that. `milliseconds` by engine and piece are
    empty until they are known.
    """

    last_run = 0.0  # when any model last drew a piece

    def __init__(
        self, synthesis: PiecewiseSynthesis, first: Engine, digest: str, folder: Path | None,
        turn: Callable[[], AbstractContextManager], dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.synthesis, self.first, self.turn = synthesis, first, turn
        self.path = None if folder is None else folder / f"{digest[:16]}-{openvino.version()}" / "choice.json"
        self.other = openvino.OpenVinoEngine(synthesis, dtype, first)
        self.chosen: frozenset[int] = frozenset()
        self.milliseconds: dict[str, list[float]] = {}
        ChosenEngine.last_run = time.monotonic()

    @property
    def name(self) -> str:
        """What runs the pieces, in words."""
        if not self.chosen:
            return self.first.name
        all_but_one = len(self.synthesis.pieces()) - 1
        return self.other.name if len(self.chosen) >= all_but_one else f"{self.other.name} and {self.first.name}"

    @property
    def expected_ms(self) -> float | None:
        """What a whole picture takes, once it was measured."""
        if not self.milliseconds:
            return None
        ways = self.milliseconds[self.first.name], self.milliseconds[self.other.name]
        return sum(ways[index in self.chosen][index] for index in range(len(ways[0])))

    def run(self, index: int, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state after piece `index`; `styles` are the piece's own, [N, C] each."""
        ChosenEngine.last_run = time.monotonic()
        if index in self.chosen:
            try:
                return self.other.run(index, state, styles, noise)
            except Exception as error:  # whatever a foreign library raises
                log.debug("%s failed at piece %d: %s", self.other.name, index, error)
                self.chosen -= {index}
        return self.first.run(index, state, styles, noise)

    def improve(self) -> bool:
        """Look for something quicker in the background; False when there is nothing to look for."""
        if openvino.version() is None:
            return False
        _TUNER.add(self)
        return True


class _Tuner:
    """The one thread that improves engines, while their pictures rest; an engine that nobody holds is forgotten."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[weakref.ref[ChosenEngine]] = queue.SimpleQueue()
        self._lock, self._thread, self._ending = threading.Lock(), None, threading.Event()

    def add(self, engine: ChosenEngine) -> None:
        """Improve this one when it is its turn."""
        self._waiting.put(weakref.ref(engine))
        with self._lock:
            if self._thread is None:
                self._thread = background.start(self._work, "engines", self._ending.set)

    def _work(self) -> None:
        """Improve one engine after another."""
        while not self._ending.is_set():
            try:
                reference = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                improve(reference, self._ending)
            except Exception as error:
                log.debug("no quicker engine was found: %s", error)


_TUNER = _Tuner()


class _Over(Exception):
    """Nobody holds the engine any more, or the program ends."""


def improve(reference: weakref.ref[ChosenEngine], ending: threading.Event | None = None) -> None:
    """Choose an engine for each piece, step by step while nobody draws; ends early when the engine is dropped."""
    def at_rest(step: Callable[[ChosenEngine], Any]) -> Any:
        return _at_rest(reference, ending or threading.Event(), step)

    try:
        times, chosen = at_rest(_recall)
        for index in sorted(chosen):
            at_rest(lambda engine, index=index: _adopt(engine, index))
        times = times or _measure(at_rest)
        at_rest(lambda engine: _remember(engine, times))
    except _Over:
        pass


def _at_rest(
    reference: weakref.ref[ChosenEngine], ending: threading.Event, step: Callable[[ChosenEngine], Any]
) -> Any:
    """Take one step with the device in hand, as soon as nobody has drawn for a while; _Over when the engine is gone.

    Between steps nothing here keeps the engine, and so its network, in memory.
    """
    while time.monotonic() - ChosenEngine.last_run < IDLE_SECONDS and reference() is not None:
        if ending.wait(0.1):
            break
    engine = reference()
    if engine is None or ending.is_set():
        raise _Over
    with engine.turn(), torch.no_grad():
        return step(engine)


def _adopt(engine: ChosenEngine, index: int) -> None:
    """Let the other engine run a piece from now on, if it can."""
    engine.chosen |= {index} & set(engine.other.compile([index]))


def _measure(at_rest: Callable[[Callable[[ChosenEngine], Any]], Any]) -> dict[str, list[float]]:
    """Median ms of every piece by engine's name, in turn, one run a step; pieces that gain change hands at once.

    A piece that the other engine cannot run, or runs to another result, takes it infinitely long.
    """
    names, count = at_rest(lambda engine: ((engine.first.name, engine.other.name), len(engine.synthesis.pieces())))
    state, medians = State(), {name: [] for name in names}
    for index in range(count):
        compiled = at_rest(lambda engine, index=index: index in engine.other.compile([index]))
        taken: dict[str, list[float]] = {name: [] for name in (names if compiled else names[:1])}
        after: dict[str, State] = {}
        for turn in range(ROUNDS + 1):
            for name, times in taken.items():
                after[name], ms = at_rest(lambda engine, args=(name, index, state): _timed(engine, *args))
                times += [ms] if turn else []
            if turn >= FEWEST_ROUNDS and max(map(sum, taken.values())) > ENOUGH_MS:
                break
        state = after[names[0]]
        if compiled and not all(map(_agree, state, after[names[1]])):
            taken.pop(names[1])
        for name in names:
            medians[name].append(statistics.median(taken[name]) if name in taken else math.inf)
        if medians[names[1]][index] <= WORTH_IT * medians[names[0]][index]:
            at_rest(lambda engine, index=index: _adopt(engine, index))
        else:
            at_rest(lambda engine, index=index: engine.other.drop([index]))
    return medians


def _timed(engine: ChosenEngine, name: str, index: int, state: State) -> tuple[State, float]:
    """One run of a piece by the engine of that name, and its ms."""
    styles, start = _some_styles(engine.synthesis, index), time.perf_counter()
    after = (engine.first if name == engine.first.name else engine.other).run(index, state, styles, Noise())
    return after, 1000 * (time.perf_counter() - start)


def _agree(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """True when two results are the same but for rounding; what an engine leaves out is not compared."""
    if a is None or b is None:
        return True
    error = (a.float() - b.float()).square().mean() / a.float().square().mean().clamp(min=1e-12)  # NaN is no agreement
    return bool(error.sqrt() < MAX_ERROR[a.dtype])


def _some_styles(synthesis: PiecewiseSynthesis, index: int) -> list[torch.Tensor]:
    """Styles of a piece such as w = 0 gives."""
    affines = synthesis.affines()[synthesis.pieces()[index].styles]
    return [affine(affine.weight.new_zeros(1, affine.weight.shape[1])) for _, affine in affines]


def _machine(engine: ChosenEngine) -> str:
    """What a choice depends on besides the model."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8", "replace"), re.M)
        name = found.group(1) if found else name
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {engine.first.name}, {FORMAT}"


def _recall(engine: ChosenEngine) -> tuple[dict[str, list[float]], set[int]]:
    """What was measured for this model on this machine before, and which pieces changed hands; empty when nothing."""
    try:
        times = json.loads(engine.path.read_text("utf-8"))[_machine(engine)]
        first, other = ([float(ms) for ms in times[way]] for way in (engine.first.name, engine.other.name))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}, set()
    if not len(first) == len(other) == len(engine.synthesis.pieces()) or not all(ms > 0 for ms in first + other):
        return {}, set()
    chosen = {index for index, (a, b) in enumerate(zip(first, other, strict=True)) if b <= WORTH_IT * a}
    return {engine.first.name: first, engine.other.name: other}, chosen


def _remember(engine: ChosenEngine, times: dict[str, list[float]]) -> None:
    """Keep what was measured, also in a file; a folder that cannot be written is no fault, old choices make room."""
    engine.milliseconds = times
    if engine.path is None:
        return
    try:
        known = json.loads(engine.path.read_text("utf-8"))
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError, RecursionError):
        known = {}
    known.pop(_machine(engine), None)
    known = dict([*known.items()][-MAX_MACHINES + 1 :]) | {_machine(engine): times}
    try:
        write_atomic(engine.path, json.dumps(known).encode())
        folders = [path.parent for path in engine.path.parent.parent.glob("*/choice.json")]
        folders.sort(key=lambda folder: (folder / "choice.json").stat().st_mtime)
        for folder in folders[:-MAX_MODELS]:
            shutil.rmtree(folder, ignore_errors=True)
    except (StyleGANError, OSError) as error:
        log.debug("the choice of an engine was not kept: %s", error)
