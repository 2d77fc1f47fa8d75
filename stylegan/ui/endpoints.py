"""The app's public endpoints, for gradio_client and plain HTTP; each gives what its command-line twin gives."""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from stylegan.batch import strip_of
from stylegan.errors import StyleGANError
from stylegan.pixels import grid, save_png
from stylegan.request import Edit, RenderRequest
from stylegan.shortcode import read_request_text, to_code
from stylegan.ui.answers import file_of
from stylegan.ui.keepsakes import request_in
from stylegan.ui.session import AppContext

KEPT_SECONDS = 3600


class Endpoints:
    """The endpoints over one context; a mistake is raised as gr.Error with its one sentence.

    A request goes in as a code, a link or JSON, and comes out as JSON; pictures come out as PNG files with their
    request inside. POST {"data": [arguments in order]} to /gradio_api/run/NAME, or use gradio_client by names.
    """

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.renderer = context.renderer

    def serve(self) -> None:
        """Make the endpoints; called inside the app's Blocks."""
        for endpoint in (self.render, self.edit, self.directions, self.strip, self.restore):
            gr.api(_spoken(endpoint), api_name=endpoint.__name__, queue=False)

    def render(self, model: str = "cartoon-faces-64", seed: int = 0, psi: float = 1.0, request: str = "") -> dict:
        """Render one picture: a PNG with its request inside, as `python -m stylegan generate` writes it.

        `request` (a code, a link or JSON) overrides the other settings.
        """
        asked = read_request_text(request) if request else RenderRequest(model=model, seed=seed, psi=psi)
        result = self.renderer.render(asked)
        return _file(result.pixels, result.request, f"seed{asked.seed:04d}.png")

    def edit(self, request: str, edits: str) -> tuple[str, dict]:
        """Add edits like `smile=1.5@0-7, age=-1` to a request: the new request as JSON, and its picture.

        The same as `python -m stylegan generate --request REQUEST --edit smile=1.5@0-7 --edit age=-1`.
        """
        asked = read_request_text(request)
        more = tuple(Edit.parse(text) for text in edits.split(",") if text.strip())
        result = self.renderer.render(asked.replace(edits=asked.edits + more))
        return result.request.to_json(), _file(result.pixels, result.request, f"seed{asked.seed:04d}.png")

    def directions(self, model: str) -> list[dict]:
        """The directions that come with a model or were found for it: name, kind, layers (first and last)."""
        found = self.renderer.model(model).directions.values()
        return [{"name": each.name, "kind": each.kind, "layers": list(each.layers)} for each in found]

    def strip(self, request: str, direction: str) -> dict:
        """A picture with one direction from -3 to +3 standard deviations, side by side.

        The same as `python -m stylegan generate --request REQUEST --strip NAME --grid FILE.png`.
        """
        results = self.renderer.render_many(strip_of(read_request_text(request), direction))
        pixels = np.stack([result.pixels for result in results])  # [7, H, W, C]
        return _file(grid(pixels, len(pixels)), None, "strip.png")

    def restore(self, state: str = "", png: str = "") -> dict:
        """The request in a code, link or JSON (`state`), or in a saved PNG (`png`, base64), and whether it opens here.

        Gives {"request", "code", "opens", "said"}. The same as `python -m stylegan info FILE.png|CODE --json`.
        """
        asked = request_in(file_of({"data": png})) if png else read_request_text(state)
        said = ""
        try:
            digest = self.renderer.model(asked.model).hash
            if asked.model_hash and not digest.startswith(asked.model_hash):
                said = f"Here {asked.model!r} is another model ({digest[:12]}), so the picture will look different."
        except StyleGANError as error:
            said = str(error)
        return {"request": json.loads(asked.to_json()), "code": to_code(asked), "opens": not said, "said": said}


def _spoken(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """An endpoint whose mistakes reach the caller as one sentence; it keeps its name, types and description."""
    @functools.wraps(endpoint)
    def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            return endpoint(*args, **kwargs)
        except StyleGANError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return answered


def _file(pixels: np.ndarray, request: RenderRequest | None, name: str) -> dict:
    """A PNG in the app's own folder of files, as a client fetches it; it is there for an hour."""
    folder = Path(gr.utils.get_upload_folder()) / "answers"
    for old in folder.glob("*.png"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink()
    path = save_png(folder / f"{secrets.token_hex(12)}.png", pixels, request)
    return gr.FileData(path=str(path), orig_name=name, mime_type="image/png").model_dump()
