"""Long work that a page asks for and may walk away from: batches of pictures into a zip (no gradio).

A batch belongs to the app: it goes on when the page is reloaded, and only who knows its key can see or stop it. The
zips of the last few batches stay on the disk.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylegan import background
from stylegan.batch import BatchStep, batch, count_states, saved_states, seed_states
from stylegan.errors import RequestError, StyleGANError
from stylegan.seeds import parse_seeds
from stylegan.ui.answers import session_of, text_of
from stylegan.ui.keepsakes import question_has
from stylegan.ui.session import AppContext

MOST_AT_ONCE = 2
MOST_REMEMBERED = 20
MOST_PICTURES = 1000
log = logging.getLogger(__name__)


@dataclass
class Errand:
    """One batch: `state` is running, done, failed or stopped; `path` is the zip, `said` tells what went wrong."""

    key: str
    total: int
    path: Path
    done: int = 0
    problems: int = 0
    state: str = "running"
    said: str = ""
    unwanted: bool = False

    def to_page(self) -> dict[str, Any]:
        """What the page that knows its key shows of it."""
        ready = {"path": str(self.path), "name": self.path.name} if self.state == "done" else {}
        return {"key": self.key, "state": self.state, "done": self.done, "total": self.total,
                "problems": self.problems, "said": self.said, **ready}  # fmt: skip


class Errands:
    """The questions about batches; `uploads` is the app's own folder of files, where zips come and go."""

    def __init__(self, context: AppContext, uploads: Path) -> None:
        self.context = context
        self.uploads = uploads
        self._errands: dict[str, Errand] = {}
        self._lock = threading.Lock()

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.batch_start, self.batch_look, self.batch_stop]

    def batch_start(self, question: Any) -> dict:
        """Begin a batch: the session's stack on `seeds`, or on the saved states of a zip that was sent (`path`)."""
        request = session_of(question).request()
        if question_has(question, "path"):
            source = self._sent(text_of(question, "path"))
            states, total = saved_states(source, request), count_states(source)
        else:
            seeds = parse_seeds(text_of(question, "seeds"))
            states, total = iter(seed_states(request, seeds)), len(seeds)
        if total > MOST_PICTURES:
            raise RequestError(f"A page makes at most {MOST_PICTURES} pictures at a time; more can be made in a shell "
                               f"with 'generate --zip'.")
        stem = Path(request.model).stem[:40]
        with self._lock:
            if sum(each.state == "running" for each in self._errands.values()) >= MOST_AT_ONCE:
                raise RequestError(f"{MOST_AT_ONCE} batches are under way already; wait for one, or stop one.")
            ended = [key for key, each in self._errands.items() if each.state != "running"]
            for old in ended[:-MOST_REMEMBERED]:
                shutil.rmtree(self._errands.pop(old).path.parent, ignore_errors=True)
            key = secrets.token_urlsafe(18)
            errand = self._errands[key] = Errand(key, total, self.uploads / f"batch-{key}" / f"{stem}-batch.zip")
        steps = batch(self.context.renderer, states, errand.path, total)
        background.start(partial(self._run, errand, steps), "batch", partial(setattr, errand, "unwanted", True))
        return {"errand": errand.to_page()}

    def batch_look(self, question: Any) -> dict:
        """How far a batch is."""
        with self._lock:
            errand = self._errands.get(text_of(question, "key"))
            return {"errand": errand.to_page() if errand else None}

    def batch_stop(self, question: Any) -> dict:
        """Stop a batch after the picture that is being made; nothing of it stays."""
        with self._lock:
            errand = self._errands.get(text_of(question, "key"))
            if errand:
                errand.unwanted = True
        return self.batch_look(question)

    def _sent(self, text: str) -> Path:
        """A zip that the page has sent."""
        if not self.context.allow_uploads:
            raise RequestError("Uploads are switched off here; whoever runs the app can allow them with --uploads.")
        path = Path(text).resolve()
        if not path.is_relative_to(self.uploads.resolve()) or not path.is_file():
            raise RequestError("The file did not arrive; send it again.")
        return path

    def _run(self, errand: Errand, steps: Iterator[BatchStep]) -> None:
        """Make all pictures; every end of it is told in the errand."""
        try:
            with closing(steps):
                for step in steps:
                    with self._lock:
                        errand.done, errand.total, errand.problems = step.done, step.total, step.num_problems
                    if errand.unwanted or step.done > MOST_PICTURES:
                        return self._end(errand, "stopped", "Stopped; nothing was kept.")
            self._end(errand, "done")
        except StyleGANError as error:
            self._end(errand, "failed", str(error))
        except Exception:
            log.exception("a batch failed")
            self._end(errand, "failed", "Something went wrong on our side; the server's log tells more.")

    def _end(self, errand: Errand, state: str, said: str = "") -> None:
        """Note how a batch ended."""
        with self._lock:
            errand.state, errand.said = state, said
