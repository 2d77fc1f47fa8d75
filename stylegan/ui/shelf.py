"""What the Library tab asks of the server: the favourites of the user's folder (no gradio)."""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from stylegan.errors import RequestError, StyleGANError
from stylegan.library import Favourite, Library
from stylegan.pixels import load_pixels
from stylegan.ui.answers import Answers, session_of, text_of, tile
from stylegan.ui.keepsakes import Keepsakes

PAGE = 48
MOST_TILES = 512


class Shelf:
    """The questions about the library; all but `library` are refused where uploads are off or there is no folder."""

    def __init__(self, answers: Answers, keepsakes: Keepsakes) -> None:
        context = answers.context
        self.answers, self.keepsakes = answers, keepsakes
        self._library = Library(context.library) if context.library and context.allow_uploads else None
        self._tiles: OrderedDict[tuple, str] = OrderedDict()

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.library, self.keep, self.describe, self.remove, self.open_kept, self.kept_source]

    def library(self, question: Any) -> dict:
        """Some favourites, newest first, from the one numbered `first` on, that hold the words of `text`."""
        if self._library is None:
            return {"allowed": False, "items": [], "total": 0, "folder": ""}
        text = question.get("text", "") if isinstance(question, dict) else ""
        first = question.get("first", 0) if isinstance(question, dict) else 0
        if not isinstance(text, str) or len(text) > 200 or type(first) is not int or first < 0:
            raise RequestError("The page asked for the library in an unknown form; reload it.")
        found = self._library.list(text)
        items = [self._shown(each) for each in found[first : first + PAGE]]
        tags = sorted({tag for each in self._library.list() for tag in each.tags}, key=str.casefold)
        return {"allowed": True, "items": items, "total": len(found), "tags": tags[:60],
                "folder": self._library.folder.name}  # fmt: skip

    def keep(self, question: Any) -> dict:
        """Put the present picture into the library."""
        library = self._allowed()
        result = self.answers.renderer.render(session_of(question).request())
        return {"item": self._shown(library.add(result.pixels, result.request, *_words(question)))}

    def describe(self, question: Any) -> dict:
        """Give a favourite another note and other tags."""
        return {"item": self._shown(self._allowed().describe(text_of(question, "name"), *_words(question)))}

    def remove(self, question: Any) -> dict:
        """Take a favourite out; its files stay in a hidden folder inside the library."""
        aside = self._allowed().remove(text_of(question, "name"))
        return {"said": f"It lies in {aside.parent.name}/{aside.name} now, should you miss it."}

    def open_kept(self, question: Any) -> dict:
        """The whole state of a favourite."""
        return self.keepsakes.restore({"data": self._data(question)})

    def kept_source(self, question: Any) -> dict:
        """A favourite as a source for style mixing, named by its note."""
        name = text_of(question, "name")
        answer = self.answers.source({**question, "data": self._data(question)})
        note = self._allowed().find(name).note.split("\n")[0][:40]
        return {"source": {**answer["source"], **({"name": note} if note else {})}}

    def _allowed(self) -> Library:
        """The library, or a refusal."""
        if self._library is None:
            raise RequestError("There is no library here; start the app with --library DIR, and with uploads allowed.")
        return self._library

    def _data(self, question: Any) -> str:
        """The PNG of a favourite as base64."""
        return base64.b64encode(self._allowed().picture(text_of(question, "name"))).decode()

    def _shown(self, favourite: Favourite) -> dict:
        """A favourite as the page shows it."""
        key = (favourite.name, favourite.added)
        if key not in self._tiles:
            try:
                self._tiles[key] = tile(load_pixels(self._allowed().picture(favourite.name)))
            except StyleGANError:
                return {"name": favourite.name, "src": "", **_about(favourite)}
        self._tiles.move_to_end(key)
        while len(self._tiles) > MOST_TILES:
            self._tiles.popitem(last=False)
        return {"name": favourite.name, "src": self._tiles.get(key, ""), **_about(favourite)}


def _about(favourite: Favourite) -> dict:
    """The words of a favourite."""
    return {"note": favourite.note, "tags": list(favourite.tags), "added": favourite.added,
            "model": favourite.request.model, "seed": favourite.request.seed}  # fmt: skip


def _words(question: Any) -> tuple[str, list[str]]:
    """The note and the tags of a question."""
    note, tags = question.get("note", ""), question.get("tags", [])
    if not isinstance(note, str) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RequestError("The page sent a note in an unknown form; reload it.")
    return note, tags
