"""The Renderer: the only owner of loaded networks. A request goes in, pixels come out, always the same for the same.

N latents, L layers, D numbers per layer, H and W pixels, C channels.
"""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stylegan.checkpoint.folder import ModelEntry, ModelFolder
from stylegan.device import full_precision, pick_device
from stylegan.directions.styles import channel_direction
from stylegan.engines.choose import ChosenEngine
from stylegan.engines.walk import Engine, Plan, Prefixes, Region, Walked, walk
from stylegan.errors import DirectionError, RequestError, StyleGANError
from stylegan.lane import Lane
from stylegan.latents import Direction, Latents
from stylegan.models import LoadedModel, Models, Pace
from stylegan.networks.generator import Generator
from stylegan.networks.pieces import Noise, Piece, State
from stylegan.networks.stylegan3 import transform_matrix
from stylegan.pixels import to_pixels
from stylegan.request import REGION_SIDE, RenderRequest, channel_of, decode_region, decode_ws
from stylegan.seeds import plane_seeds, z_of

MAX_CACHED_W = 4096
SMALLEST_PREVIEW = 32  # pixels


@dataclass(frozen=True, eq=False)
class RenderResult:
    """A picture: `pixels` uint8 [H, W, C], the latents behind it, the request with the model's hash and class filled
    in, the seconds it took (waiting left out) and the path that was used, like `torch float32, from block 32 on`.

    A `preview` is a smaller picture than the model's; `latents` leave out edits that have a region.
    """

    pixels: np.ndarray
    latents: Latents
    request: RenderRequest
    seconds: float
    path: str
    preview: bool = False


class Renderer:
    """Renders requests with the models of a folder, on one device, one picture at a time.

    At most `max_bytes` of models stay in memory, the last used ones (a quarter of the memory when not given), and at
    most `cache_bytes` of features, from which a picture that differs in its last layers goes on. `roots` limits which
    paths may be opened besides the folder's models; None allows any path (see ModelFolder). Safe to share between
    threads.
    """

    def __init__(self, folder: str | Path = "checkpoints", device: str = "auto", max_bytes: int | None = None,
                 roots: Iterable[str | Path] | None = None, cache_bytes: int = 256 << 20) -> None:
        self.folder = ModelFolder(folder, roots)
        self.device = pick_device(device)
        self.prefixes = Prefixes(cache_bytes)
        self._lane = Lane()
        self._models = Models(self.folder, self.device, max_bytes, self.turn)
        self._cached_w: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self._improving: weakref.WeakSet[ChosenEngine] = weakref.WeakSet()

    def models(self) -> list[ModelEntry]:
        """The models of the folder, as they are now."""
        return self.folder.list()

    def model(self, name: str) -> LoadedModel:
        """A model by name or path, loaded when it is not in memory or its files have changed.

        Raises CheckpointError, before anything is loaded, when it needs more memory than there is.
        """
        return self._models.get(name)

    def latents(self, request: RenderRequest) -> Latents:
        """The W+ [1, L, D] behind a request: map, truncate, mix, edit; edits that have a region are left out."""
        with self._lane.turn():
            model = self.model(request.model)
            return self._latents(model, _resolve(model, request))

    def render(self, request: RenderRequest) -> RenderResult:
        """Render one picture, always the whole one with the same bits; waits for its turn.

        Raises RequestError, CheckpointError or DirectionError.
        """
        with self._lane.turn():
            model = self.model(request.model)
            return self._draw(model, model.exact, _resolve(model, request))

    def render_many(self, requests: Iterable[RenderRequest]) -> list[RenderResult]:
        """Render several pictures one after another, so that each is bit for bit what `render` gives."""
        return [self.render(request) for request in requests]

    def live(self, session: Hashable, request: RenderRequest, sequence: float | None = None, dragging: bool = False,
             budget: float = 0.1) -> RenderResult | None:
        """Render for a hand, with the quickest engine: None when a newer call of the same session overtook this one.

        `sequence` grows with every call of a session's page; a call that arrives after a later one gives None too.
        While `dragging`, a picture that should take longer than `budget` seconds becomes a preview, if the model makes
        colours at smaller sizes; how long it takes is known from the pictures before.
        """
        with self._lane.turn(session, sequence, dragging) as mine:
            if not mine:
                return None
            model = self.model(request.model)
            request, engine = _resolve(model, request), model.quick
            if isinstance(engine, ChosenEngine) and engine not in self._improving:
                self._improving.add(engine)
                engine.improve()
            options: dict = {"goes_on": lambda: not self._lane.overtaken(session, dragging)}
            if dragging:
                pieces, allowed = model.generator.synthesis.pieces(), budget / (1 + len(_masks(request)))
                options["stop"] = lambda first: _last_within(allowed, pieces, model.pace, engine.name, first)
            return self._draw(model, engine, request, **options)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the device for work beside rendering, in turn with the others; keep it short."""
        with self._lane.turn():
            yield

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

    def _draw(self, model: LoadedModel, engine: Engine, request: RenderRequest, **options) -> RenderResult | None:
        """Walk the pieces of a resolved request; in turn. None when given up; `options` are those of `walk`."""
        start = time.perf_counter()
        latents = self._latents(model, request)
        pieces = model.generator.synthesis.pieces()
        with full_precision():
            plan = self._plan(model, engine, request, latents)
            walked = walk(engine, pieces, plan, self.prefixes, **options)
            if walked is None:
                return None
            pixels = to_pixels(walked.state.image)[0]  # [H, W, C]
        if not plan.regions:
            model.pace.note(engine.name, walked.first, walked.seconds)
        path, is_preview = _path(engine.name, pieces, walked, len(pixels)), len(pixels) < model.generator.resolution
        return RenderResult(pixels, latents, request, time.perf_counter() - start, path, is_preview)

    def _plan(self, model: LoadedModel, engine: Engine, request: RenderRequest, latents: Latents) -> Plan:
        """What decides the picture of a resolved request and its latents, regions laid over them included."""
        generator, synthesis = model.generator, model.generator.synthesis
        styles = synthesis.styles(latents.ws, generator.check_offsets(latents.offsets, len(latents)))
        regions = []
        for mask in _masks(request):
            moved = latents
            for edit in request.edits:
                if edit.enabled and edit.strength and edit.region == mask:
                    moved = moved.move(_direction(model, edit.direction), edit.strength, edit.layers)
            values = np.frombuffer(decode_region(mask), np.uint8).astype(np.float32) / 255
            grid = torch.from_numpy(values).reshape(1, 1, REGION_SIDE, REGION_SIDE).to(latents.ws)
            regions.append(Region(grid, synthesis.styles(moved.ws, generator.check_offsets(moved.offsets, len(moved)))))
        source = None
        if request.noise == "random":
            source = torch.Generator(latents.ws.device).manual_seed(request.noise_seed)
        matrix = None if request.transform is None else transform_matrix(request.transform)
        seed = request.noise_seed if source else None
        key = repr((model.hash, engine.name, request.noise, request.noise_strength, seed, request.transform)).encode()
        noise = Noise(request.noise, request.noise_strength, source)
        return Plan(styles, noise, State(matrix), key, tuple(regions))

    def _latents(self, model: LoadedModel, request: RenderRequest) -> Latents:
        """Map, truncate, mix and edit, for a resolved request; edits with a region are left to the walk."""
        with full_precision():
            if request.ws is not None:
                latents = _given_latents(model.generator, request.ws)
            else:
                points = plane_seeds(request.seed, request.dx, request.dy)
                latents = self._seeded(model, points, request.label, request)
            for mix in request.mix:
                if not mix.enabled:
                    continue
                if mix.ws is not None:
                    other = _given_latents(model.generator, mix.ws)
                else:
                    label = request.label if mix.label is None else mix.label
                    other = self._seeded(model, [(mix.seed, 1.0)], label, request)
                latents = latents.mix(other, mix.weight, mix.layers)
            for edit in request.edits:
                if edit.enabled and edit.strength and edit.region is None:
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


def _masks(request: RenderRequest) -> list[str]:
    """The regions that a request's edits are confined to, each once."""
    return list(dict.fromkeys(edit.region for edit in request.edits
                              if edit.region is not None and edit.enabled and edit.strength))


def _last_within(budget: float, pieces: list[Piece], pace: Pace, engine: str, first: int) -> int:
    """The last piece to run so that the picture comes within the budget: the last one when all fits or is unknown."""
    end = len(pieces) - 1
    whole = pace.expected(engine, first, end)
    if whole is None or whole <= budget:
        return end
    coloured = [i for i in range(first, end) if pieces[i].has_image and pieces[i].resolution >= SMALLEST_PREVIEW]
    within = [i for i in coloured if pace.expected(engine, first, i) <= budget]
    return within[-1] if within else coloured[0] if coloured else end


def _path(engine: str, pieces: list[Piece], walked: Walked, size: int) -> str:
    """What made a picture of `size` pixels, in words."""
    if size < pieces[-1].resolution:
        return f"preview {size} of {pieces[-1].resolution}, {engine}"
    if walked.first == 0:
        return engine
    if walked.first == len(pieces):
        return f"{engine}, from memory"
    name = pieces[walked.first].name
    where = f"block {name[1:]}" if name.startswith("b") else f"layer {name.partition('_')[0]}"
    return f"{engine}, from {where} on"


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
    """A model's direction, or a channel of its S space, by name; DirectionError that names those there are."""
    if channel_of(name):
        return channel_direction(model.generator, name)
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


def _size(pixels: np.ndarray) -> str:
    """Width, height and channels of pixels [H, W, C] in words."""
    return f"{pixels.shape[1]}x{pixels.shape[0]} with {pixels.shape[2]} channels"
