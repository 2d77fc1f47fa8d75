"""Films of runs that pages ask for: each is made once, in the background, however many pages wait for it (no gradio).

A film lies in its run's folder; what a page gets is a copy in the app's own folder of files, where it can be fetched.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylegan import background
from stylegan.errors import RequestError, StyleGANError, TrainingError
from stylegan.render import Renderer
from stylegan.training.run import TrainingRun, run_folder
from stylegan.training.run_files import stamp
from stylegan.training.timelapse import timelapse_path, write_timelapse
from stylegan.training.walk import walk_path, walk_snapshot, write_walk
from stylegan.ui.run_view import kimg

KINDS = ("walk", "film")
MOST_AT_ONCE = 4  # under way or waiting; one is drawn at a time
MOST_REMEMBERED = 20
log = logging.getLogger(__name__)


@dataclass
class Film:
    """One film: `source` is the file that it shows last, `nimg` the images seen there; `state` is making, ready or
    failed; `path` is the copy that pages fetch, `said` tells what went wrong.
    """

    key: str
    kind: str
    run: TrainingRun
    nimg: int
    source: tuple[Path, int]
    path: Path
    done: int = 0
    total: int = 0
    state: str = "making"
    said: str = ""
    unwanted: bool = False

    @property
    def home(self) -> Path:
        """Where the film lies in its run's folder."""
        return walk_path(self.run, self.nimg) if self.kind == "walk" else timelapse_path(self.run)

    def to_page(self) -> dict[str, Any]:
        """What a page shows of it."""
        if self.state == "failed":
            return {"error": self.said}
        ready = {"path": str(self.path), "name": self.path.name} if self.state == "ready" else {}
        return {"key": self.key, "state": self.state, "done": self.done, "total": self.total, "nimg": self.nimg,
                "words": kimg(self.nimg), **ready}  # fmt: skip


class Films:
    """The questions about films; `uploads` is the app's own folder of files."""

    def __init__(self, root: Path, renderer: Renderer, uploads: Path) -> None:
        self.root, self.renderer, self.uploads = root, renderer, uploads
        self._films: dict[str, Film] = {}
        self._lock, self._work = threading.Lock(), threading.Lock()

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.film_begin, self.film_look]

    def film_begin(self, question: Any) -> dict:
        """Begin, join or find a film: {"run": name, "kind": "walk" or "film", "nimg": images seen or null}."""
        film = self._wanted(question)
        with self._lock:
            for known in self._films.values():
                if known.source == film.source and known.state != "failed" and not self._is_lost(known):
                    return known.to_page()
            if sum(known.state == "making" for known in self._films.values()) >= MOST_AT_ONCE:
                raise RequestError(f"{MOST_AT_ONCE} films are being made already; wait for one of them.")
            ended = [key for key, known in self._films.items() if known.state != "making"]
            for old in ended[:-MOST_REMEMBERED]:
                shutil.rmtree(self._films.pop(old).path.parent, ignore_errors=True)
            self._films[film.key] = film
        background.start(partial(self._make, film), "film", partial(setattr, film, "unwanted", True))
        return film.to_page()

    def film_look(self, question: Any) -> dict:
        """How far a film is: {"key": what film_begin gave}."""
        film = self._films.get(str(question.get("key"))) if isinstance(question, dict) else None
        if film is None:
            raise RequestError("That film is no longer there; ask for it again.")
        return film.to_page()

    def _wanted(self, question: Any) -> Film:
        """The film that a page asks for, not begun; StyleGANError when there is nothing to show."""
        try:
            run = TrainingRun(run_folder(self.root, str(question["run"])))
            kind, nimg = question["kind"], question["nimg"]
            nimg = None if nimg is None else float(nimg)
        except (KeyError, TypeError, ValueError):
            raise RequestError("The page asked for a film in an unknown form; reload it.") from None
        if kind not in KINDS:
            raise RequestError(f"There is no such film; ask for one of {', '.join(KINDS)}.")
        if kind == "walk":
            seen, source = walk_snapshot(run, nimg)
        elif samples := run.samples():
            seen, source = samples[-1]
        else:
            raise TrainingError(f"{run.name[:80]} has not drawn any sample grid yet; let it train a little longer.")
        key = secrets.token_urlsafe(18)
        path = self.uploads / f"film-{key}" / f"{run.name}-{kind}-{seen:09d}.mp4"
        return Film(key, kind, run, seen, (source, stamp(source)[0]), path)

    def _is_lost(self, film: Film) -> bool:
        """True when a finished film's copy is gone."""
        return film.state == "ready" and not film.path.is_file()

    def _make(self, film: Film) -> None:
        """Make a film unless the run's folder has it, and a copy for pages; every end of it is told in the film."""
        background.step_back()
        try:
            with self._work:  # until the copy is there: another walk would take this one's place in the folder
                if stamp(film.home)[0] < film.source[1]:
                    self._draw(film)
                film.path.parent.mkdir(parents=True)
                shutil.copyfile(film.home, film.path)
            film.state = "ready"
        except StyleGANError as error:
            film.said, film.state = str(error), "failed"
        except Exception:
            log.exception("a film failed")
            film.said, film.state = "Something went wrong on our side; the server's log tells more.", "failed"

    def _draw(self, film: Film) -> None:
        """Draw and encode all frames; between two of them the device is free for others."""

        def on_frame(done: int, total: int) -> None:
            film.done, film.total = done, total
            if film.unwanted:
                raise TrainingError("The app has ended, so the film was not finished.")

        if film.kind == "walk":
            device = str(self.renderer.device)
            write_walk(film.run, film.nimg, device=device, turn=self.renderer.turn, on_frame=on_frame)
        else:
            write_timelapse(film.run, on_frame=on_frame)
