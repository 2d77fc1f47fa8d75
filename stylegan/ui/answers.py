"""What the Explore page asks of the server: each question a plain function of JSON to JSON (no gradio).

Nothing that comes from the browser is trusted: sessions are parsed into frozen requests, models are names of the
folder or files inside the roots that the renderer's folder knows.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from stylegan.checkpoint.file import read_header
from stylegan.checkpoint.folder import SUFFIX
from stylegan.doctor import diagnose
from stylegan.errors import RequestError, StyleGANError
from stylegan.pixels import LOSSLESS_SIDE, encode_frame, read_request
from stylegan.render import RenderResult
from stylegan.request import MAX_SEED, RenderRequest, encode_ws
from stylegan.ui.session import START, AppContext, ModelFacts, Session, Source

TILE = 112
MAX_UPLOAD = 64 << 20
MOST_RECENT = 12
FIRST_CHOICE = "cartoon-faces-64"
log = logging.getLogger(__name__)


class Answers:
    """The questions a page can ask, over one renderer; a question that cannot be answered raises StyleGANError."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.renderer = context.renderer

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [
            self.hello,
            self.list_models,
            self.open_model,
            self.render,
            self.source,
            self.thumb,
            self.sheet,
            self.speed,
        ]

    def hello(self, question: Any) -> dict:
        """What a page starts from: the state that it remembers where that still works, else the first model's own."""
        names, remembered = self._names(), question.get("session") if isinstance(question, dict) else None
        start = {"models": names, "live": self.context.live}
        first = sorted(names, key=lambda name: name != FIRST_CHOICE)
        for data in [remembered, *({"request": {"model": name}} for name in first)]:
            if data:
                try:
                    session = Session.from_page(data)
                    shown = self.shown(session, self.facts(session.base.model))
                    request = Session.from_page(shown["session"]).request()
                    shown["resumed"] = data is remembered
                    return {**start, **shown, "picture": _frame(self.renderer.render(request))}
                except StyleGANError as error:
                    log.info("a page could not start from %s: %s", "its memory" if data is remembered else data, error)
        folder = self.context.models.path.name
        said = f"There is no model in {folder}/ that can be opened: put one there, upload one, or train one."
        return {**start, "said": said, "mood": "warn"}

    def list_models(self, question: Any) -> dict:
        """The names of the folder's models as they are now, and those of a page's recent ones that still open."""
        recent = question.get("recent") if isinstance(question, dict) else None
        names = [name for name in recent if isinstance(name, str)][:MOST_RECENT] if isinstance(recent, list) else []
        return {"models": self._names(), "recent": [name for name in names if self._still_opens(name)]}

    def open_model(self, question: Any) -> dict:
        """Another model, with all of the session that still applies to it."""
        name = text_of(question, "name")
        facts = self.facts(name)
        present = question.get("session")
        session = Session.from_page(present) if present else Session(first_request([name]))
        shown = self.shown(session, facts)
        about = f"{facts.name.rsplit('/', 1)[-1]}: {facts.summary}."
        return {**shown, "said": shown["said"] or about}

    def render(self, question: Any) -> dict:
        """The live picture; {"stale": true} when a newer question of the same page has overtaken this one."""
        request, page = session_of(question).request(), text_of(question, "page")
        dragging = question.get("dragging") is True
        result = self.renderer.live(page, request, _number(question, "sequence"), dragging)
        return {"stale": True} if result is None else _frame(result, dragging)

    def source(self, question: Any) -> dict:
        """A source for style mixing: the picture of the session, or of a saved PNG."""
        session = session_of(question)
        facts = self.facts(session.base.model)
        if question.get("data") is not None:
            request = read_request(file_of(question))
            latents, name = self.renderer.latents(request), f"saved seed {request.seed}"
            if latents.ws.shape[1:] != (facts.num_ws, facts.w_dim):
                raise RequestError(f"The picture was made by {request.model!r}, whose layers do not fit this model.")
            return {"source": _page_source(Source(name, ws=ws_text(latents)))}
        request = session.request()
        plain = not (request.dx or request.dy or request.ws or request.mix or request.edits)
        if plain:
            return {"source": _page_source(Source(f"seed {request.seed}", request.seed, label=request.label))}
        name = f"seed {request.seed}, edited" if not request.ws else "restored, edited"
        return {"source": _page_source(Source(name, ws=ws_text(self.renderer.latents(request))))}

    def thumb(self, question: Any) -> dict:
        """A mixing source as a small picture."""
        session, index = session_of(question), _whole(question, "index")
        if not 0 <= index < len(session.sources):
            raise RequestError("That source is no longer there.")
        source, base = session.sources[index], session.base
        label = base.label if source.label is None else source.label
        plain = base.replace(dx=0.0, dy=0.0, seed=source.seed or 0, ws=source.ws, label=label, edits=())
        return {"src": tile(self.renderer.render(plain).pixels)}

    def sheet(self, question: Any) -> dict:
        """Some neighbouring seeds as small pictures, everything else as in the session."""
        request = session_of(question).request()
        first, count = _whole(question, "first"), _whole(question, "count")
        if not 1 <= count <= 24 or not 0 <= first <= MAX_SEED:
            raise RequestError("A sheet shows 1 to 24 seeds from 0 to 4294967295 at a time.")
        seeds = range(first, min(first + count, MAX_SEED + 1))
        results = self.renderer.render_many(request.replace(seed=seed, dx=0.0, dy=0.0, ws=None) for seed in seeds)
        pairs = zip(seeds, results, strict=True)
        return {"tiles": [{"seed": seed, "src": tile(result.pixels)} for seed, result in pairs]}

    def speed(self, question: Any) -> dict:
        """How quickly the session's model is drawn here, and what would make it quicker."""
        found = diagnose(self.renderer, session_of(question).base.model)
        return {"line": found.line, "advice": list(found.advice)}

    def _names(self) -> list[str]:
        """The names of the folder's models."""
        return [entry.name for entry in self.context.models.list()]

    def _still_opens(self, name: str) -> bool:
        """True when a model is still where it was; of our own files the head is looked at too."""
        try:
            path = self.context.models.find(name)
            return path.suffix != SUFFIX or bool(read_header(path))
        except StyleGANError:
            return False

    def facts(self, name: str) -> ModelFacts:
        """The facts of a model, loaded when it is not."""
        return ModelFacts.of(name, self.renderer.model(name))

    def shown(self, session: Session, facts: ModelFacts) -> dict:
        """A session as the page takes it up, fitted to a model, with a word on what was dropped."""
        fitted, dropped = session.fit(facts)
        said = f"{facts.name} has no place for {listed(dropped)}; everything else was kept." if dropped else ""
        return {"session": fitted.to_page(), "facts": facts.to_page(), "said": said, "mood": "warn" if said else ""}


def picture(pixels: np.ndarray, moving: bool = False) -> str:
    """A picture [H, W, C] as an address that a page can show; lighter while it is `moving`."""
    data, kind = encode_frame(pixels, moving)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def tile(pixels: np.ndarray) -> str:
    """A picture [H, W, C] made small, as an address that a page can show."""
    if max(pixels.shape[:2]) > LOSSLESS_SIDE:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
    return picture(pixels)


def _frame(result: RenderResult, moving: bool = False) -> dict:
    """A rendered picture as the stage shows it."""
    took, digest = round(1000 * result.seconds, 1), result.request.model_hash
    shown = {"src": picture(result.pixels, moving), "ms": took, "path": result.path, "digest": digest}
    return {**shown, "preview": result.preview}


def first_request(names: list[str]) -> RenderRequest:
    """What a page shows first, of the models there are."""
    name = FIRST_CHOICE if FIRST_CHOICE in names else names[0]
    return RenderRequest(model=name, **START)


def ws_text(latents: Any) -> str:
    """The W+ of one latent as text."""
    return encode_ws(latents.ws[0].cpu().numpy().astype("<f4").tobytes())


def _page_source(source: Source) -> dict:
    """A source as the page keeps it."""
    return {"name": source.name, "seed": source.seed, "ws": source.ws, "label": source.label}


def file_of(question: Any) -> bytes:
    """The bytes of a file that was dropped on the page."""
    data = question.get("data") if isinstance(question, dict) else None
    if not isinstance(data, str) or len(data) > MAX_UPLOAD * 4 // 3 + 4:
        raise RequestError("The file did not arrive whole, or is larger than 64 MB.")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("The file did not arrive whole; drop it again.") from None


def session_of(question: Any) -> Session:
    """The session inside a question."""
    return Session.from_page(question.get("session") if isinstance(question, dict) else None)


def text_of(question: Any, key: str, most: int = 1024) -> str:
    """A short text of a question."""
    value = question.get(key) if isinstance(question, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise RequestError(f"The page sent no {key}; reload it.")
    return value


def _number(question: Any, key: str) -> float | None:
    """A number of a question, None when absent."""
    value = question.get(key)
    if value is not None and type(value) not in (int, float):
        raise RequestError(f"The page sent an unknown {key}; reload it.")
    return value


def _whole(question: Any, key: str) -> int:
    """A whole number of a question."""
    value = question.get(key) if isinstance(question, dict) else None
    if type(value) is not int:
        raise RequestError(f"The page sent no {key}; reload it.")
    return value


def listed(names: list[str]) -> str:
    """Names as a list in a sentence, the first few of many."""
    shown = names[:4] + ([f"{len(names) - 4} more"] if len(names) > 4 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
