"""The library: favourite pictures with notes and tags, in a plain folder that belongs to the user.

Each favourite is a PNG with its request inside and a JSON sidecar of the same name; both can be copied, mailed and
opened without the library. Pictures of this app that are put into the folder by hand are favourites too.
"""

from __future__ import annotations

import datetime
import os
import re
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan.errors import RequestError, StyleGANError
from stylegan.files import write_atomic, write_problem
from stylegan.pixels import encode_png, read_request
from stylegan.request import RenderRequest
from stylegan.shortcode import from_sidecar, to_sidecar

MAX_NOTE, MAX_TAGS, MAX_TAG = 2000, 20, 40
MAX_FAVOURITES = 10_000
MAX_SIDECAR = 16 << 20  # bytes
REMOVED = ".removed"


@dataclass(frozen=True)
class Favourite:
    """One picture of the library: its file's name without ending, its request, the user's words, and when it came."""

    name: str
    request: RenderRequest
    note: str = ""
    tags: tuple[str, ...] = ()
    added: float = 0.0  # seconds since 1970

    def holds(self, words: Iterable[str]) -> bool:
        """True when each word occurs in its name, model, note or tags; `#word` must be a whole tag."""
        text = f"{self.name} {self.request.model} {self.note} {' '.join(self.tags)}".casefold()
        tags = {tag.casefold() for tag in self.tags}
        return all(word[1:] in tags if word.startswith("#") else word in text for word in words)


class Library:
    """The favourites in a folder, looked at anew on every call; a file is read again only when it has changed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._seen: dict[str, tuple[tuple, Favourite | None]] = {}
        self._lock = threading.Lock()

    def list(self, text: str = "") -> list[Favourite]:
        """The favourites that hold every word of `text`, newest first; files that hold no request are passed over."""
        words = text.casefold().split()
        found = [each for each in self._look() if each.holds(words)]
        return sorted(found, key=lambda each: (-each.added, each.name))

    def add(self, pixels: np.ndarray, request: RenderRequest, note: str = "", tags: Iterable[str] = ()) -> Favourite:
        """Keep a picture uint8 [H, W, C] with its request; RequestError for unusable words or a full library."""
        note, tags = _words(note, tags)
        if len(self._look()) >= MAX_FAVOURITES:
            raise RequestError(f"The library holds {MAX_FAVOURITES} pictures already; move some to another folder.")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(request.model).stem).strip("-")[:30] or "picture"
        name = f"{stem}-seed{request.seed:04d}-{secrets.token_hex(3)}"
        favourite = Favourite(name, request, note, tags, datetime.datetime.now().timestamp())
        self._write(favourite)
        write_atomic(self.folder / f"{name}.png", encode_png(pixels, request, 6))
        return favourite

    def describe(self, name: str, note: str, tags: Iterable[str]) -> Favourite:
        """Give a favourite other words."""
        note, tags = _words(note, tags)
        old = self.find(name)
        favourite = Favourite(old.name, old.request, note, tags, old.added)
        self._write(favourite)
        return favourite

    def find(self, name: str) -> Favourite:
        """A favourite by name; RequestError when it is not there."""
        for each in self._look():
            if each.name == name:
                return each
        raise RequestError(f"The library holds no picture {name[:80]!r} any more.")

    def picture(self, name: str) -> bytes:
        """The PNG of a favourite."""
        self.find(name)
        try:
            return (self.folder / f"{name}.png").read_bytes()
        except OSError as error:
            raise RequestError(f"The library holds no picture {name[:80]!r} any more.") from error

    def remove(self, name: str) -> Path:
        """Take a favourite out of the library, into the hidden folder .removed inside it; nothing is deleted."""
        self.find(name)
        aside = self.folder / REMOVED
        try:
            aside.mkdir(exist_ok=True)
            for ending in (".png", ".json"):
                if (self.folder / f"{name}{ending}").is_file():
                    os.replace(self.folder / f"{name}{ending}", aside / f"{name}{ending}")
        except OSError as error:
            raise StyleGANError(write_problem(aside, error)) from error
        return aside

    def _write(self, favourite: Favourite) -> None:
        """Write the sidecar of a favourite."""
        text = to_sidecar(favourite.request, note=favourite.note, tags=list(favourite.tags), added=favourite.added)
        write_atomic(self.folder / f"{favourite.name}.json", text.encode())

    def _look(self) -> list[Favourite]:
        """Every favourite of the folder, in no order."""
        try:
            paths = sorted(self.folder.glob("*.png"))[: 2 * MAX_FAVOURITES]
        except OSError:
            return []
        with self._lock:
            seen = {}
            for path in paths:
                if path.name.startswith(".") or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", path.stem):
                    continue
                stamp = (_stamp(path), _stamp(path.with_suffix(".json")))
                known = self._seen.get(path.stem)
                seen[path.stem] = known if known and known[0] == stamp else (stamp, _read(path))
            self._seen = seen
            return [favourite for _, favourite in seen.values() if favourite is not None]


def _words(note: str, tags: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """A note and tags that may be kept."""
    if not isinstance(note, str) or len(note) > MAX_NOTE or not all(c.isprintable() or c in "\n\t" for c in note):
        raise RequestError(f"A note is text of at most {MAX_NOTE} characters.")
    clean = tuple(dict.fromkeys(tag.strip().lstrip("#") for tag in tags if isinstance(tag, str)))
    clean = tuple(tag for tag in clean if tag)
    if len(clean) > MAX_TAGS or any(len(tag) > MAX_TAG or not tag.isprintable() or set(tag) & set(" ,#")
                                    for tag in clean):
        raise RequestError(f"A picture has at most {MAX_TAGS} tags, each one word of at most {MAX_TAG} characters.")
    return note, clean


def _read(path: Path) -> Favourite | None:
    """The favourite of a PNG and its sidecar, which wins where both speak; None when neither holds a request."""
    beside, about = path.with_suffix(".json"), {}
    try:
        if beside.is_file() and beside.stat().st_size <= MAX_SIDECAR:
            request, about = from_sidecar(beside.read_text("utf-8"))
        else:
            request = read_request(path)
        tags = about.get("tags")
        note, tags = _words(about.get("note", ""), tags if isinstance(tags, list) else ())
        added = about.get("added")
        when = float(added) if type(added) in (int, float) and 0 <= added < 1e11 else path.stat().st_mtime
        return Favourite(path.stem, request, note, tags, when)
    except (OSError, ValueError, StyleGANError):
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
