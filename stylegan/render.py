"""The Renderer: the only owner of loaded networks. A request goes in, pixels come out, always the same for the same.

N latents, L layers, D numbers per layer, H and W pixels, C channels.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stylegan.checkpoint.file import build, model_hash, read_any
from stylegan.checkpoint.folder import ModelEntry, ModelFolder
from stylegan.device import full_precision, pick_device
from stylegan.directions.store import directions_path, load_directions
from stylegan.errors import CheckpointError, DirectionError, RequestError, StyleGANError
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator
from stylegan.pixels import to_pixels
from stylegan.request import RenderRequest, decode_ws
from stylegan.seeds import plane_seeds, z_of

MAX_CACHED_W = 4096
MAX_SESSIONS = 1024


@dataclass(frozen=True, eq=False)
class RenderResult:
    """A picture: `pixels` uint8 [H, W, C], the latents behind it, the request with the model's hash and class filled
    in, the seconds it took (waiting left out) and the path that was used, like `cpu float32`."""

    pixels: np.ndarray
    latents: Latents
    request: RenderRequest
    seconds: float
    path: str


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory: its name, network, hash, provenance, and directions by name; `problem` says why the
    directions beside it could not be used, and is empty when they could."""

    name: str
    generator: Generator
    hash: str
    provenance: dict
    directions: dict[str, Direction]
    problem: str = ""


class Lane:
    """The queue before one device: first come, first served between sessions, and newest wins within one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: OrderedDict[Hashable, object] = OrderedDict()
        self._newest: OrderedDict[Hashable, float] = OrderedDict()
        self._busy = False

    @contextmanager
    def turn(self, session: Hashable | None = None, sequence: float | None = None) -> Iterator[bool]:
        """Wait for the device; yields False when a newer call of the same session has made this one stale.

        A newer call takes over the place of the one it replaces. Calls without a session are never replaced.
        `sequence` is a caller's own count, so that calls that arrive out of order are told apart.
        """
        ticket = object()
        key = ticket if session is None else session
        with self._condition:
            mine = session is None or sequence is None or self._is_newest(session, sequence)
            if mine:
                self._waiting[key] = ticket
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._waiting.get(key) is not ticket or self._is_next(key))
                mine = self._waiting.get(key) is ticket
            if mine:
                del self._waiting[key]
                self._busy = True
        try:
            yield mine
        finally:
            if mine:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def _is_next(self, key: Hashable) -> bool:
        """True when the device is free and `key` has waited longest."""
        return not self._busy and next(iter(self._waiting)) == key

    def _is_newest(self, session: Hashable, sequence: float) -> bool:
        """Note a session's count; False when a later one was seen before."""
        newest = sequence >= self._newest.get(session, sequence)
        if newest:
            self._newest[session] = sequence
            self._newest.move_to_end(session)
        while len(self._newest) > MAX_SESSIONS:
            self._newest.popitem(last=False)
        return newest


class Renderer:
    """Renders requests with the models of a folder, on one device, one picture at a time.

    At most `max_models` models stay in memory, the last used ones. `roots` limits which paths may be opened besides
    the folder's models; None allows any path (see ModelFolder). Safe to share between threads.
    """

    def __init__(self, folder: str | Path = "checkpoints", device: str = "auto", max_models: int = 2,
                 roots: Iterable[str | Path] | None = None) -> None:
        self.folder = ModelFolder(folder, roots)
        self.device = pick_device(device)
        self.max_models = max_models
        self._loaded: OrderedDict[tuple, LoadedModel] = OrderedDict()
        self._cached_w: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self._load_lock = threading.Lock()
        self._lane = Lane()

    def models(self) -> list[ModelEntry]:
        """The models of the folder, as they are now."""
        return self.folder.list()

    def model(self, name: str) -> LoadedModel:
        """A model by name or path, loaded when it is not in memory or its files have changed."""
        path = self.folder.find(name)
        marks = tuple(_stamp(file) for file in (path, directions_path(path)))
        key = (path.resolve(), *marks)
        with self._load_lock:
            if key not in self._loaded:
                self._loaded = OrderedDict((old, model) for old, model in self._loaded.items() if old[0] != key[0])
                self._loaded[key] = self._load(path)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self.max_models:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def latents(self, request: RenderRequest) -> Latents:
        """The W+ [1, L, D] behind a request: map, truncate, mix, edit."""
        with self._lane.turn():
            model = self.model(request.model)
            return self._latents(model, _resolve(model, request))

    def render(self, request: RenderRequest) -> RenderResult:
        """Render one picture; waits for its turn. Raises RequestError, CheckpointError or DirectionError."""
        with self._lane.turn():
            return self._render(request)

    def render_many(self, requests: Iterable[RenderRequest]) -> list[RenderResult]:
        """Render several pictures one after another, so that each is bit for bit what `render` gives."""
        return [self.render(request) for request in requests]

    def live(self, session: Hashable, request: RenderRequest, sequence: float | None = None) -> RenderResult | None:
        """Render for a hand that drags: None when a newer call of the same session came while this one waited.

        `sequence` grows with every call of a session's page; a call that arrives after a later one gives None too.
        """
        with self._lane.turn(session, sequence) as mine:
            return self._render(request) if mine else None

    def verify(self, request: RenderRequest, pixels: np.ndarray) -> str | None:
        """None when the request renders to exactly these pixels [H, W, C], else one sentence why it does not."""
        try:
            result = self.render(request)
        except StyleGANError as error:
            return f"The picture cannot be rendered again: {error}"
        if request.model_hash and not result.request.model_hash.startswith(request.model_hash):
            return (f"The picture was made with another model named {request.model!r} "
                    f"({request.model_hash[:12]}, here {result.request.model_hash[:12]}), so it looks different.")
        if result.pixels.shape != pixels.shape:
            return (f"The picture was resized or converted: it is {_size(pixels)}, "
                    f"the model makes {_size(result.pixels)}.")
        levels = int(np.abs(result.pixels.astype(np.int16) - pixels).max())
        if levels == 0:
            return None
        if levels <= 2:
            return f"The picture is the same but for {levels} of 255 levels, as happens between different machines."
        return "The picture's pixels were changed after it was saved, so rendering it again looks different."

    def _load(self, path: Path) -> LoadedModel:
        """Read a model and the directions beside it."""
        checkpoint = read_any(path)
        digest = model_hash(checkpoint)
        beside, found, problem = directions_path(path), [], ""
        if beside.is_file():
            try:
                found = load_directions(beside, digest)
            except StyleGANError as error:
                problem = str(error)
        generator = build(checkpoint).to(self.device)
        directions = {direction.name: direction for direction in found}
        return LoadedModel(path.stem, generator, digest, checkpoint.provenance, directions, problem)

    def _render(self, request: RenderRequest) -> RenderResult:
        """Render one picture; the lane is held."""
        model = self.model(request.model)
        request = _resolve(model, request)
        start = time.perf_counter()
        latents = self._latents(model, request)
        options = {} if request.transform is None else {"transform": request.transform}
        with full_precision():
            image = model.generator.synthesize(latents, noise=request.noise, noise_seed=request.noise_seed,
                                               noise_strength=request.noise_strength, **options)  # [1, C, H, W]
            pixels = to_pixels(image)[0]  # [H, W, C]
        seconds = time.perf_counter() - start
        return RenderResult(pixels, latents, request, seconds, f"{self.device.type} float32")

    def _latents(self, model: LoadedModel, request: RenderRequest) -> Latents:
        """Map, truncate, mix and edit, for a resolved request."""
        with full_precision():
            if request.ws is not None:
                latents = _given_latents(model.generator, request.ws)
            else:
                points = plane_seeds(request.seed, request.dx, request.dy)
                latents = self._seeded(model, points, request.label, request)
            for mix in request.mix:
                if mix.ws is not None:
                    other = _given_latents(model.generator, mix.ws)
                else:
                    label = request.label if mix.label is None else mix.label
                    other = self._seeded(model, [(mix.seed, 1.0)], label, request)
                latents = latents.mix(other, mix.weight, mix.layers)
            for edit in request.edits:
                if edit.enabled and edit.strength:
                    latents = latents.move(_direction(model, edit.direction), edit.strength, edit.layers)
        return latents

    def _seeded(self, model: LoadedModel, points: Sequence[tuple[int, float]], label: int | None,
                request: RenderRequest) -> Latents:
        """The weighted mean in W of some seeds, truncated as the request says."""
        ws = [self._w_of(model, seed, label) for seed, _ in points]  # each [1, D]
        w = ws[0] if len(ws) == 1 else sum(w * weight for w, (_, weight) in zip(ws, points, strict=True))
        latents = Latents.from_w(w, model.generator.num_ws)
        return latents.truncate(model.generator.w_avg, request.psi, request.cutoff)

    def _w_of(self, model: LoadedModel, seed: int, label: int | None) -> torch.Tensor:
        """The w [1, D] of one seed; always mapped alone, so that its bits never depend on company."""
        key = (model.hash, seed, label)
        if key not in self._cached_w:
            self._cached_w[key] = model.generator.map(z_of(seed, model.generator.z_dim), label).ws[:, 0].clone()
        self._cached_w.move_to_end(key)
        while len(self._cached_w) > MAX_CACHED_W:
            self._cached_w.popitem(last=False)
        return self._cached_w[key]


def _resolve(model: LoadedModel, request: RenderRequest) -> RenderRequest:
    """Check a request against the model and fill in the model's hash and, for a conditional one, the first class."""
    generator = model.generator
    classes = generator.num_classes
    for label in (request.label, *(mix.label for mix in request.mix)):
        if label is not None and not classes:
            raise RequestError(f"The model {model.name!r} has no classes; leave the class out.")
        if label is not None and label >= classes:
            raise RequestError(f"The model {model.name!r} has the classes 0 to {classes - 1}, not {label}.")
    if request.cutoff is not None and request.cutoff > generator.num_ws:
        raise RequestError(f"The cutoff must be between 0 and {generator.num_ws}, the layers of {model.name!r}.")
    for layers in (*(mix.layers for mix in request.mix), *(edit.layers for edit in request.edits)):
        if layers is not None and layers[1] >= generator.num_ws:
            raise RequestError(f"Layers {layers[0]}-{layers[1]} do not exist; {model.name!r} has layers 0 to "
                               f"{generator.num_ws - 1}.")
    for edit in request.edits:
        if edit.enabled:
            _direction(model, edit.direction)
    if request.transform is not None and generator.config.family != "stylegan3":
        raise RequestError(f"Shift, turn and scale need a StyleGAN3 model; {model.name!r} is not one.")
    label = 0 if classes and request.label is None else request.label
    return request.replace(model_hash=model.hash, label=label)


def _direction(model: LoadedModel, name: str) -> Direction:
    """A model's direction by name; DirectionError that names those there are."""
    if name not in model.directions:
        known = ", ".join(list(model.directions)[:40])
        there = f"there are: {known}" if known else "it has none; find some with 'python -m stylegan directions'"
        raise DirectionError(model.problem or f"The model {model.name!r} has no direction {name!r}; {there}.")
    return model.directions[name]


def _given_latents(generator: Generator, text: str) -> Latents:
    """The W+ [1, L, D] of a request's base64 text; RequestError when it is for another model or not finite."""
    values = np.frombuffer(decode_ws(text), "<f4")
    if values.size != generator.num_ws * generator.w_dim:
        raise RequestError(f"The W+ latent has {values.size} numbers, but this model needs {generator.num_ws} layers "
                           f"of {generator.w_dim}.")
    if not np.isfinite(values).all():
        raise RequestError("The W+ latent holds numbers that are not finite; save the picture again.")
    ws = torch.from_numpy(values.astype(np.float32)).reshape(1, generator.num_ws, generator.w_dim)  # [1, L, D]
    return Latents(ws.to(generator.w_avg.device))


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None when there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return about.st_mtime_ns, about.st_size


def _size(pixels: np.ndarray) -> str:
    """Width, height and channels of pixels [H, W, C] in words."""
    return f"{pixels.shape[1]}x{pixels.shape[0]} with {pixels.shape[2]} channels"
