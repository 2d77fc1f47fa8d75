"""What a page saves, shares and opens again: pictures, codes and links, copies for a shell, the file of its history.

Plain functions of JSON to JSON (no gradio); nothing that comes from the browser or a file is trusted.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stylegan.errors import CheckpointError, DataError, RequestError, StyleGANError
from stylegan.pixels import encode_png, load_pixels, read_request
from stylegan.portable import portable
from stylegan.request import RenderRequest
from stylegan.shortcode import read_request_text, to_code, to_sidecar
from stylegan.ui.answers import Answers, file_of, listed, session_of, text_of, ws_text
from stylegan.ui.session import Session

HISTORY = "stylegan-studio-history/1"
MAX_STEPS = 400
MAX_LABEL = 200
MAX_THUMB = 64 << 10  # characters
MAX_THUMB_SIDE = 256
THUMB = re.compile(r"data:image/(?:jpeg|png|webp);base64,([A-Za-z0-9+/]+={0,2})")
ADDRESS = re.compile(r"https?://[^\s'\"<>\\`$]{1,500}")
PNG = b"\x89PNG"
USUAL_FOLDER = "checkpoints"


class Keepsakes:
    """The questions about what outlives a page; they stand beside those of `Answers`."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.renderer = answers.renderer

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.save, self.restore, self.code, self.check_history]

    def save(self, question: Any) -> dict:
        """A lossless PNG with the request inside, fit to travel, its name, and a word on what was baked in."""
        result = self.renderer.render(session_of(question).request())
        request, about = self._portable(result.request)
        stack = result.request if request != result.request else None
        data = encode_png(result.pixels, request, 6, stack)
        return {"name": f"{stem_of(request)}.png", "data": base64.b64encode(data).decode(), "about": about}

    def restore(self, question: Any) -> dict:
        """The whole state of a saved PNG, sidecar, code or link; of a PNG also whether its pixels come out again."""
        data = file_of(question) if question_has(question, "data") else None
        request = read_request_text(_long_text(question, "code")) if data is None else self._best_request(data)
        try:
            facts = self.answers.facts(request.model)
        except CheckpointError as error:
            digest = f" (hash {request.model_hash[:12]})" if request.model_hash else ""
            raise RequestError(f"This needs another model, {request.model!r}{digest}, so nothing was changed; add that "
                               f"model and open it again. {error}") from error
        session = Session.of(request, facts.num_ws)
        if session is None:
            mixed = self.renderer.latents(request.replace(edits=()))
            session = Session(request.replace(ws=ws_text(mixed), mix=()))
        shown = self.answers.shown(session, facts)
        if data is not None and data.startswith(PNG):
            problem = self.renderer.verify(request, load_pixels(data))
            proof = "Restored. Rendering it again gives exactly the same pixels."
        else:
            other = request.model_hash and not facts.hash.startswith(request.model_hash)
            problem = (f"It was made with another model named {request.model!r} ({request.model_hash[:12]}, here "
                       f"{facts.hash[:12]}), so it looks different.") if other else ""
            proof = "Restored, all settings are as they were."
        said = f"{problem or proof} {shown['said']}".strip()
        return {**shown, "said": said, "mood": "warn" if problem or shown["said"] else "good"}

    def code(self, question: Any) -> dict:
        """The same picture from the shell, from Python, as JSON, by HTTP, and as a code; all fit to travel."""
        asked = session_of(question).request()
        request, about = self._portable(asked)
        folder = str(self.answers.context.models.path)
        shell, python = request.replace(model_hash="").to_shell(), request.to_python()
        if folder != USUAL_FOLDER:
            shell += f" --checkpoints {shlex.quote(folder)}"
            python = python.replace("stylegan.Renderer()", f"stylegan.Renderer({folder!r})")
        code, address = to_code(request), _address(question)
        return {"shell": shell, "python": python, "json": request.to_json(), "code": code, "about": about,
                "curl": curl_of(address, request, code), "sidecar": to_sidecar(request),
                "name": stem_of(request)}  # fmt: skip

    def check_history(self, question: Any) -> dict:
        """The steps of a history file, each request checked, in an order where parents come first."""
        wrong = "That file is no history of this app, or it is damaged; choose one that it saved."
        if not isinstance(question, dict) or question.get("format") != HISTORY:
            raise RequestError(wrong)
        nodes = question.get("nodes")
        if not isinstance(nodes, list) or not 1 <= len(nodes) <= MAX_STEPS or len(question) > 3:
            raise RequestError(f"A history holds 1 to {MAX_STEPS} steps; this file does not.")
        steps: dict[int, dict] = {}
        for number, node in enumerate(nodes):
            try:
                step = _step(node)
            except (RequestError, DataError) as error:
                raise RequestError(f"Step {number + 1} of the history is damaged. {error}") from None
            if step["id"] in steps or (step["parent"] is not None and step["parent"] not in steps):
                raise RequestError(wrong)
            steps[step["id"]] = step
        if question.get("head") not in steps:
            raise RequestError(wrong)
        return {"nodes": list(steps.values()), "head": question["head"]}

    def _best_request(self, data: bytes) -> RenderRequest:
        """The request of a file as it was set, where that renders here; else in the form that travels."""
        request = request_in(data)
        try:
            stack = read_request(data, stack=True) if data.startswith(PNG) else request
            if stack == request:
                return request
            same = self.renderer.render(stack).request == stack
            return stack if same and self.renderer.verify(stack, load_pixels(data)) is None else request
        except StyleGANError:
            return request

    def _portable(self, request: RenderRequest) -> tuple[RenderRequest, str]:
        """The request in the form that travels, and a word on what that changed."""
        ready, needed = portable(self.renderer, request)
        about = ""
        if ready.ws != request.ws:
            about = "Directions of your own are baked into it, so that it opens anywhere."
        if needed:
            about += f" Send {listed(list(needed))} along: what moves channels or a region cannot be baked."
        return ready, about.strip()


def stem_of(request: RenderRequest) -> str:
    """What files of a picture are called: model and seed."""
    return f"{Path(request.model).stem[:40]}-seed{request.seed:04d}"


def request_in(data: bytes) -> RenderRequest:
    """The request in the bytes of a saved PNG or of a JSON file; RequestError when there is none."""
    if not data.lstrip()[:1] == b"{":
        return read_request(data)
    try:
        return read_request_text(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise RequestError("The file is neither a PNG nor JSON that this app saved.") from None


def curl_of(address: str, request: RenderRequest, code: str) -> str:
    """A shell line that lets the app at `address` render a request and fetches the PNG."""
    body = json.dumps({"data": ["", 0, 1, code]}, separators=(",", ":"))
    ask = f"curl -s {address}/gradio_api/run/render -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return f"curl -s -o seed{request.seed:04d}.png \"$({ask} | sed 's/.*\"url\":\"\\([^\"]*\\)\".*/\\1/')\""


def question_has(question: Any, key: str) -> bool:
    """True when a question has an answer of ours to give for `key`."""
    return isinstance(question, dict) and question.get(key) is not None


def _address(question: Any) -> str:
    """Where the page says the app is, a plain http address without anything that a shell could take for its own."""
    address = question.get("address") if isinstance(question, dict) else None
    if address is None:
        return "http://127.0.0.1:7860"
    if not isinstance(address, str) or not ADDRESS.fullmatch(address):
        raise RequestError("The page sent an address in an unknown form; reload it.")
    return shlex.quote(address.rstrip("/"))


def _long_text(question: Any, key: str) -> str:
    """A text of a question that may be long; its reader limits it."""
    if not question_has(question, key) or not isinstance(question[key], str):
        return text_of(question, key)
    return question[key]


def _step(node: Any) -> dict:
    """One step of a history file, checked and written anew."""
    known = {"id", "parent", "session", "label", "at", "star", "thumb"}
    if not isinstance(node, dict) or set(node) != known:
        raise RequestError("It has not the parts that a step has.")
    numbers = [node["id"], node["at"], *([] if node["parent"] is None else [node["parent"]])]
    if not all(type(number) is int and 0 <= number < 2**53 for number in numbers) or type(node["star"]) is not bool:
        raise RequestError("Its numbers are not whole numbers.")
    label, thumb = node["label"], node["thumb"]
    if not isinstance(label, str) or len(label) > MAX_LABEL or not label.isprintable():
        raise RequestError(f"Its label is not text of at most {MAX_LABEL} characters.")
    if not isinstance(thumb, str) or len(thumb) > MAX_THUMB:
        raise RequestError("Its picture is too large.")
    if thumb:
        match = THUMB.fullmatch(thumb)
        if not match or len(match[1]) % 4:
            raise RequestError("Its picture is none.")
        if max(load_pixels(base64.b64decode(match[1])).shape[:2]) > MAX_THUMB_SIDE:
            raise RequestError("Its picture is too large.")
    session = Session.from_page(node["session"])
    session.request()
    return {"id": node["id"], "parent": node["parent"], "session": session.to_page(), "label": label,
            "at": node["at"], "star": node["star"], "thumb": thumb}  # fmt: skip
