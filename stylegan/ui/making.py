"""Making directions in the page: from sorted pictures, differences, analogies and words; and keeping them (no gradio).

What a person makes is kept beside its model where the app allows uploads; elsewhere it leaves as a pack to download.
"""

from __future__ import annotations

import base64
import importlib.util
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stylegan.directions.packs import write_pack
from stylegan.directions.pictures import analogy, find_difference, find_sorted, gather
from stylegan.directions.store import add_direction, mine_path, tied
from stylegan.directions.styles import channel_direction
from stylegan.directions.text import OpenClip, search_text
from stylegan.errors import RequestError
from stylegan.files import safe_name
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator
from stylegan.request import MAX_SEED, RenderRequest, channel_of
from stylegan.ui.answers import Answers, session_of, text_of, tile, ws_text
from stylegan.ui.session import AppContext, Session, Source, direction_list

MAX_NAMES, MAX_SORTED, MAX_TEXT = 64, 400, 200
TEXT_CHANNELS, TEXT_PICTURES = 12, 4  # few enough that a person waits for them
NOT_KEPT = "This app keeps nothing that its visitors make, so a new direction is handed to you as a pack to download."
NO_CLIP = "A direction from words needs CLIP weights of your own: start the app with --clip FILE; it downloads nothing."
NO_PACKAGE = "A direction from words needs the optional package open_clip_torch, which is not installed here."
KINDS_OF_PACK = {"json": (".json", "application/json"), "safetensors": (".safetensors", "application/octet-stream")}


class Making:
    """The questions that make new directions, and what becomes of these; what cannot be raises StyleGANError."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.renderer = context.renderer
        self.answers = Answers(context)
        self._clip: OpenClip | None = None
        self._reading = threading.Lock()  # one text at a time: each keeps all processors busy

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.face, self.ways, self.make_sorted, self.make_difference, self.make_text, self.analogy]

    def face(self, question: Any) -> dict:
        """A picture for making a direction, small."""
        base, (source,) = self._sources(question, "source")
        return {"src": tile(self.renderer.render(_plain(base, source)).pixels)}

    def ways(self, question: Any) -> dict:
        """Which ways of making a direction are missing here, and what becomes of a new one."""
        there = importlib.util.find_spec("open_clip") is not None
        words = "" if self.context.clip and there else NO_PACKAGE if self.context.clip else NO_CLIP
        return {"words": words, "told": "" if self.context.allow_uploads else NOT_KEPT}

    def make_sorted(self, question: Any) -> dict:
        """The direction from pictures sorted as no to pictures sorted as yes."""
        base = session_of(question).base
        name = self.free(base.model, text_of(question, "name"))
        yes, no = (self._latents(base, [Source("", seed) for seed in _seeds(question, key)]) for key in ("yes", "no"))
        direction = find_sorted(self._generator(base), yes, no, name, self._against(base.model, question))
        apart = direction.info.get("separation")
        how = f", which tells yes from no in {100 * apart:.0f} of 100 cases" if isinstance(apart, float) else ""
        return self.made(base.model, direction, f"{name} is found{how}")

    def make_difference(self, question: Any) -> dict:
        """The direction from the pictures B to the pictures A."""
        base, a = self._sources(question, "a")
        _, b = self._sources(question, "b")
        name = self.free(base.model, text_of(question, "name"))
        pair = self._latents(base, a), self._latents(base, b)
        direction = find_difference(self._generator(base), *pair, name, self._against(base.model, question))
        return self.made(base.model, direction, f"{name} leads from B to A")

    def make_text(self, question: Any) -> dict:
        """The direction from some words to others, with the CLIP weights that the app was started with."""
        base, missing = session_of(question).base, self.ways(question)["words"]
        if missing:
            raise RequestError(missing)
        name = self.free(base.model, text_of(question, "name"))
        target, neutral = (text_of(question, key, MAX_TEXT) for key in ("to", "from"))
        with self._reading:
            self._clip = self._clip or OpenClip(self.context.clip)
            steps = search_text(self._generator(base), self._clip, target, neutral, name, TEXT_CHANNELS, TEXT_PICTURES)
            direction = [step.direction for step in steps][-1]
        return self.made(base.model, direction, f"{name} is found")

    def analogy(self, question: Any) -> dict:
        """The session of the picture that is to C as B is to A."""
        session = session_of(question)
        groups = [self._sources(question, key)[1] for key in ("a", "b", "c")]
        a, b, c = (_mean(self._latents(session.base, group)) for group in groups)
        base = session.base.replace(ws=ws_text(analogy(a, b, c)), edits=())
        shown = self.answers.shown(Session(base, session.sources), self.answers.facts(base.model))
        return {**shown, "said": "This is to C as B is to A. Undo brings the last picture back.", "mood": "good"}

    def directions(self, model: str) -> dict:
        """The model's directions as the page shows them."""
        return {"directions": direction_list(self.renderer.model(model))}

    def direction(self, model: str, name: str) -> Direction:
        """A direction or channel of a model by name; RequestError when there is none."""
        loaded = self.renderer.model(model)
        found = channel_direction(loaded.generator, name) if channel_of(name) else loaded.directions.get(name)
        if found is None:
            raise RequestError(f"The model has no direction {name[:80]!r} any more; the list was changed elsewhere.")
        return found

    def allowed(self) -> None:
        """Refuse whatever would be kept where nothing is."""
        if not self.context.allow_uploads:
            raise RequestError("This app keeps nothing that its visitors make; run it yourself to keep directions.")

    def path(self, model: str) -> Path:
        """The file of a person's own directions of a model."""
        return mine_path(self.renderer.folder.find(model))

    def free(self, model: str, text: str) -> str:
        """A name that a new direction of a model may have; RequestError when it is taken or unusable."""
        name = safe_name(text.strip())
        if name in self.renderer.model(model).directions:
            raise RequestError(f"There is a direction {name!r} already; choose another name.")
        return name

    def made(self, model: str, direction: Direction, said: str) -> dict:
        """A new direction kept beside its model, or handed over as a pack where nothing is kept."""
        (direction,) = tied([direction], self.renderer.model(model).hash)
        if not self.context.allow_uploads:
            return {"download": self.pack(model, [direction], "safetensors"), "said": f"{said}. {NOT_KEPT}"}
        add_direction(self.path(model), direction)
        return {**self.directions(model), "show": direction.name, "said": f"{said}; it is under Mine."}

    def pack(self, model: str, directions: list[Direction], kind: str) -> dict:
        """Directions as a file for the page to save: its name, bytes as base64, and type."""
        ending, mime = KINDS_OF_PACK[kind]
        directions = tied(directions, self.renderer.model(model).hash)
        with tempfile.TemporaryDirectory() as folder:
            data = write_pack(Path(folder) / f"pack{ending}", directions).read_bytes()
        stem = directions[0].name if len(directions) == 1 else f"{len(directions)}-directions"
        name = f"{Path(model).stem[:40]}-{stem}{ending}"
        return {"name": name, "data": base64.b64encode(data).decode(), "kind": mime}

    def _generator(self, base: RenderRequest) -> Generator:
        """The network of a request's model."""
        return self.renderer.model(base.model).generator

    def _against(self, model: str, question: Any) -> list[Direction]:
        """The directions that a new one must leave alone."""
        return [self.direction(model, name) for name in names_of(question, "against")]

    def _sources(self, question: Any, key: str) -> tuple[RenderRequest, tuple[Source, ...]]:
        """The session's own request, and the pictures that a question names under `key`, at least one."""
        base, asked = session_of(question).base, question.get(key)
        asked = asked if isinstance(asked, list) else [asked]
        sources = Session.from_page({"request": {"model": base.model}, "sources": asked}).sources
        if not sources:
            raise RequestError(f"There is no picture in {key.upper()}; add one.")
        return base, sources

    def _latents(self, base: RenderRequest, sources: Sequence[Source]) -> Latents:
        """The latents behind some pictures, one after another."""
        return gather(self.renderer.latents(_plain(base, source)) for source in sources)


def names_of(question: Any, key: str) -> list[str]:
    """A list of direction names of a question, each once, empty when absent."""
    names = question.get(key, [])
    if not isinstance(names, list) or len(names) > MAX_NAMES or not all(isinstance(name, str) for name in names):
        raise RequestError(f"At most {MAX_NAMES} directions can be named at a time.")
    return list(dict.fromkeys(names))


def _plain(base: RenderRequest, source: Source) -> RenderRequest:
    """The request of one picture as the session would show it without its mix and its edits."""
    label = base.label if source.label is None else source.label
    return base.replace(dx=0.0, dy=0.0, seed=source.seed or 0, ws=source.ws, label=label, edits=(), mix=())


def _mean(latents: Latents) -> Latents:
    """The middle of some latents."""
    return Latents(latents.ws.mean(0, keepdim=True))


def _seeds(question: Any, key: str) -> list[int]:
    """The seeds that a question sorts under `key`."""
    seeds = question.get(key)
    whole = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
    if not whole or len(seeds) > MAX_SORTED:
        raise RequestError(f"The page sent no seeds for {key}, or more than {MAX_SORTED}; reload it.")
    if len(seeds) < 2:
        raise RequestError(f"Mark at least two pictures as {key}.")
    return seeds
