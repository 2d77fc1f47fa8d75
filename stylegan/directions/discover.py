"""Directions found by themselves when a model is first opened, in the background, and kept by the model's hash."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stylegan import background
from stylegan.checkpoint.folder import plain_name
from stylegan.directions.channels import search_channels, takes_gradients
from stylegan.directions.classes import find_classes
from stylegan.directions.pca import find_pca
from stylegan.directions.sefa import find_sefa
from stylegan.directions.store import cache_path, load_directions, save_directions, tied
from stylegan.directions.styles import CHANNEL
from stylegan.errors import DirectionError, StyleGANError
from stylegan.latents import Direction
from stylegan.models import LoadedModel
from stylegan.networks.generator import Generator
from stylegan.render import Renderer
from stylegan.request import channel_of

NUM, NUM_CHANNELS = 16, 24
_AT_ONCE = 1_000  # samples for calibrating SeFa, which needs none to be found
_NICE = 15  # how far the search steps back behind rendering
IDLE, RUNNING, DONE, STOPPED, FAILED = "idle", "running", "done", "stopped", "failed"


@dataclass(frozen=True)
class DiscoverStep:
    """How far the search is (0 to 1), what it does next, and the directions that it found in this step."""

    done: float
    message: str
    directions: tuple[Direction, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where the search for a model's directions stands: its state, how far (0 to 1), in words, how many are found."""

    state: str = IDLE
    done: float = 0.0
    message: str = ""
    found: int = 0


def discover(generator: Generator, known: frozenset[str] = frozenset(), class_names: Sequence[str] = (),
             seed: int = 0) -> Iterator[DiscoverStep]:
    """Find directions that need no labels, the quickest first: SeFa, PCA, classes, then the strongest channels of S.

    `known` are the kinds that need not be found again. Deterministic by `seed`; stop by ceasing to iterate.
    """
    num = min(NUM, generator.w_dim)
    yield DiscoverStep(0.0, "factorising the style weights")
    if "sefa" not in known:
        found = find_sefa(generator, num, samples=_AT_ONCE, seed=seed)
        yield DiscoverStep(0.1, "principal components of W", tuple(found))
    if "pca" not in known:
        yield DiscoverStep(0.3, "the model's classes", tuple(_components(generator, num, seed)))
    if "attribute" not in known and generator.num_classes > 1:
        yield DiscoverStep(0.4, "channels", tuple(find_classes(generator, usable_names(class_names), seed=seed)))
    if CHANNEL not in known and takes_gradients(generator):
        for done, found in search_channels(generator, NUM_CHANNELS, seed=seed):
            yield DiscoverStep(0.4 + 0.6 * done, "channels that change pictures most", tuple(found))
    yield DiscoverStep(1.0, "done")


def _components(generator: Generator, num: int, seed: int) -> list[Direction]:
    """The principal components that there are: a model whose W is nearly flat has fewer than `num`."""
    while num:
        try:
            return find_pca(generator, num, seed=seed)
        except DirectionError:
            num //= 2
    return []


def usable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as directions may be called; none when two would be the same."""
    names = tuple(plain_name(str(name)) for name in class_names)
    return names if len(set(names)) == len(names) and not any(map(channel_of, names)) else ()


def wanted_kinds(generator: Generator) -> frozenset[str]:
    """The kinds of direction that a finished search has found."""
    more = {"attribute": generator.num_classes > 1, CHANNEL: takes_gradients(generator)}
    return frozenset({"sefa", "pca", *(kind for kind, there in more.items() if there)})


class Discovery:
    """Runs `discover` for models of a renderer, one at a time, on a thread that steps back behind rendering.

    Each kind is kept in the cache as soon as it is found, so `renderer.model(name).directions` has it at once. Safe to
    share between threads; `close` ends it.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._lock = threading.Lock()
        self._work = threading.Lock()
        self._progress: dict[str, Progress] = {}
        self._stops: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def start(self, name: str) -> None:
        """Search for the model's directions unless they are cached or being searched; raises as `Renderer.model`."""
        model = self._renderer.model(name)
        with self._lock:
            if self._closed or self._progress.get(model.hash, Progress()).state in (RUNNING, DONE):
                return
            self._progress[model.hash] = Progress(RUNNING, 0.0, "waiting for its turn")
            stop = self._stops[model.hash] = threading.Event()
            thread = background.start(partial(self._run, model, stop), "directions", stop.set)
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def progress(self, name: str) -> Progress:
        """Where the search for a model's directions stands; raises as `Renderer.model`."""
        digest = self._renderer.model(name).hash
        with self._lock:
            return self._progress.get(digest, Progress())

    def cancel(self, name: str) -> None:
        """Stop the search for a model's directions after its present step; what was found stays."""
        digest = self._renderer.model(name).hash
        with self._lock:
            if digest in self._stops:
                self._stops[digest].set()

    def close(self) -> None:
        """Stop all searches and wait for them to end."""
        with self._lock:
            self._closed = True
            threads = self._threads
            for stop in self._stops.values():
                stop.set()
        for thread in threads:
            thread.join(timeout=30)

    def _run(self, model: LoadedModel, stop: threading.Event) -> None:
        """Search, one model after another, and say how it ended."""
        background.step_back(_NICE)
        report = self._reporter(model.hash)
        try:
            with self._work:
                self._search(model, stop, report)
        except StyleGANError as error:
            report(FAILED, 1.0, str(error), 0)
        except Exception:
            report(FAILED, 1.0, "The search for directions failed; the log says why.", 0)
            raise

    def _search(self, model: LoadedModel, stop: threading.Event, report: Callable[..., None]) -> None:
        """Search and keep what is found, until stopped."""
        path = cache_path(self._renderer.folder.path, model.hash)
        found = cached_directions(path, model.hash)
        kinds = frozenset(direction.kind for direction in found)
        problem = ""
        if wanted_kinds(model.generator) <= kinds:
            report(DONE, 1.0, "found before", len(found))
            return
        names = model.provenance.get("class_names")
        steps = discover(model.generator, kinds, names if isinstance(names, list) else ())
        while not stop.is_set():
            with self._renderer.turn():
                pass  # what is being drawn comes first
            step = next(steps, None)
            if step is None:
                report(DONE, 1.0, problem or "done", len(found))
                return
            if step.directions:
                found += tied(step.directions, model.hash)
                problem = _keep(path, found)
            report(RUNNING, step.done, step.message, len(found))
        report(STOPPED, 1.0, "stopped", len(found))

    def _reporter(self, digest: str) -> Callable[[str, float, str, int], None]:
        """What notes the progress of one model's search."""
        def report(state: str, done: float, message: str, found: int) -> None:
            with self._lock:
                self._progress[digest] = Progress(state, done, message, found)

        return report


def cached_directions(path: Path, model_hash: str) -> list[Direction]:
    """The directions in a cache file; none when there is no usable one."""
    try:
        return load_directions(path, model_hash, channels=True) if path.is_file() else []
    except (StyleGANError, OSError):
        return []


def _keep(path: Path, directions: list[Direction]) -> str:
    """Write the cache; one sentence when it cannot be written, which is no error."""
    try:
        save_directions(path, directions, channels=True)
    except (StyleGANError, OSError):
        return "found, but the folder of models cannot be written, so they are not kept"
    return ""
