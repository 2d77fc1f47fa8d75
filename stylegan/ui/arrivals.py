"""How models get in from a page: files that are dropped on it, and published models that are downloaded behind it.

A download belongs to the app, not to a page: it goes on when the page is closed, and two pages that ask for the same
file watch the same download.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan.checkpoint.catalogue import Published, find_published
from stylegan.checkpoint.download import MAX_BYTES
from stylegan.checkpoint.folder import download_model
from stylegan.errors import DownloadError, RequestError, StyleGANError
from stylegan.files import safe_name
from stylegan.ui.answers import text_of
from stylegan.ui.session import AppContext

MOST_AT_ONCE = 3
MOST_REMEMBERED = 30
UNDER_WAY = ("loading", "checking")
log = logging.getLogger(__name__)


@dataclass
class Arrival:
    """One download, from the first byte until its model is in the folder; `state` is loading, checking, done, failed
    or stopped, `done` and `total` are bytes, and `said` tells what went wrong."""

    name: str
    published: Published
    state: str = "loading"
    done: int = 0
    total: int | None = None
    said: str = ""
    unwanted: bool = False

    def to_page(self) -> dict[str, Any]:
        """What a page shows of it; its address tells it from others."""
        return {"id": self.published.url, "name": self.name, "state": self.state, "done": self.done,
                "total": self.total, "said": self.said}  # fmt: skip


class Arrivals:
    """The questions of the model picker; `uploads` is the folder in which files lie that a page has sent."""

    def __init__(self, context: AppContext, uploads: Path) -> None:
        self.context = context
        self.uploads = uploads
        self._arrivals: dict[str, Arrival] = {}
        self._lock = threading.Lock()

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.offers, self.terms, self.fetch, self.arrivals, self.stop, self.add]

    def offers(self, question: Any) -> dict:
        """Whether models may come in here, and the names of the published ones that are not here yet."""
        if not self.context.allow_uploads:
            return {"allowed": False, "published": []}
        there = {entry.name for entry in self.context.models.list()}
        return {"allowed": True, "published": [name for name in self.context.published if name not in there]}

    def terms(self, question: Any) -> dict:
        """What is known of a published model before any of it is fetched: address, size, licence."""
        published = self._published(question)
        most, size = f"at most {MAX_BYTES / 2**30:.0f} GiB are taken", published.num_bytes
        return {
            "name": published.name,
            "url": published.url,
            "licence": published.licence,
            "size": f"{size / 2**20:,.1f} MiB" if size else f"told by the server when it begins; {most}",
            "check": f"SHA-256 {published.sha256}" if published.sha256 else "none is published",
        }

    def fetch(self, question: Any) -> dict:
        """Begin a download whose terms were accepted, or join the one that is under way."""
        published = self._published(question)
        if question.get("accepted") is not True:
            raise RequestError("Nothing was fetched; accept the licence terms first.")
        name = safe_name(text_of(question, "name"))
        with self._lock:
            known = self._arrivals.get(published.url)
            if known and known.state in UNDER_WAY:
                known.unwanted, known.said = False, ""
                return {"arrival": known.to_page()}
            self.context.models.place(name)
            others = [each for each in self._arrivals.values() if each.state in UNDER_WAY]
            if name in [each.name for each in others]:
                raise RequestError(f"Another model named {name!r} is on its way; choose another name.")
            if len(others) >= MOST_AT_ONCE:
                raise RequestError(f"{MOST_AT_ONCE} models are on their way already; wait for one, or stop one.")
            self._arrivals.pop(published.url, None)
            for old in [url for url, each in self._arrivals.items() if each.state not in UNDER_WAY][:-MOST_REMEMBERED]:
                del self._arrivals[old]
            arrival = self._arrivals[published.url] = Arrival(name, published, total=published.num_bytes)
            threading.Thread(target=self._run, args=(arrival,), name=f"download {name}", daemon=True).start()
        return {"arrival": arrival.to_page()}

    def arrivals(self, question: Any) -> dict:
        """All downloads, as they stand."""
        with self._lock:
            return {"arrivals": [each.to_page() for each in self._arrivals.values()]}

    def stop(self, question: Any) -> dict:
        """Stop a download; what has arrived is kept, so that it can go on later."""
        self._allowed()
        with self._lock:
            arrival = self._arrivals.get(text_of(question, "id"))
            if arrival and arrival.state == "loading":
                arrival.unwanted, arrival.said = True, "stopping…"
        return self.arrivals(None)

    def add(self, question: Any) -> dict:
        """Check a file that the page has sent, convert it where it is foreign, and put it into the folder."""
        self._allowed()
        path = Path(text_of(question, "path")).resolve()
        if not path.is_relative_to(self.uploads.resolve()) or not path.is_file():
            raise RequestError("The file did not arrive; add it again.")
        return {"name": self.context.models.add(path).name}

    def _allowed(self) -> None:
        """Refuse everything that brings models in where that is switched off."""
        if not self.context.allow_uploads:
            raise RequestError("Uploads are switched off here; whoever runs the app can allow them with --uploads.")

    def _published(self, question: Any) -> Published:
        """The model that a page asks for by name, address, or place on the Hub."""
        self._allowed()
        text = text_of(question, "text").strip()
        found = self.context.published.get(text) or find_published(text)
        if found is None:
            raise RequestError("That is neither an https address nor owner/repository/file of the Hub; check it.")
        return found

    def _run(self, arrival: Arrival) -> None:
        """Fetch, check, convert and store one model; every end of it is told in the arrival."""
        folder, path = self.context.models, None
        try:
            path = download_model(
                arrival.published, arrival.name, folder.path, self._teller(arrival), self.context.mirrors
            )
            self._turn(arrival, "checking")
            folder.add(path, arrival.name, arrival.published)
            self._turn(arrival, "done")
        except StyleGANError as error:
            self._turn(arrival, "stopped" if arrival.unwanted else "failed", str(error))
        except Exception:
            log.exception("the download of %s failed", arrival.name)
            self._turn(arrival, "failed", "Something went wrong on our side; the server's log tells more.")
        finally:
            if path is not None:
                path.unlink(missing_ok=True)

    def _turn(self, arrival: Arrival, state: str, said: str = "") -> None:
        """Note the next state of a download."""
        with self._lock:
            arrival.state, arrival.said = state, said

    def _teller(self, arrival: Arrival) -> Callable[[int, int | None], None]:
        """What a download tells its progress to; it ends the download once nobody wants it."""

        def tell(done: int, total: int | None) -> None:
            with self._lock:
                arrival.done, arrival.total = done, total
                if arrival.unwanted:
                    arrival.state = "stopped"
                    raise DownloadError("Stopped; what has arrived is kept, and getting it again goes on from there.")

        return tell
