"""All runs of the folder in a list, some of them side by side, and their removal, as JSON-able values; no gradio.

Every question comes from a browser: names are checked, and whatever cannot be is one sentence.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from stylegan.errors import RequestError, StyleGANError
from stylegan.training import trash
from stylegan.training.compare import compare, in_words, summary
from stylegan.training.run import TrainingRun, list_runs, run_folder
from stylegan.training.run_files import stamp, thin
from stylegan.ui.run_view import STATE_WORDS, kimg, picture

LEAST_COMPARED, MOST_COMPARED = 2, 6
POINTS, MOMENTS = 400, 400  # of a curve, and of the scrubber below the grids
THUMB_PIXELS, MOST_THUMBS = 96, 200
PATIENCE_SECONDS = 1.0  # for runs whose history was never read; what is left is read when the page asks again


class RunList:
    """What the page asks about the runs of one folder; `may_remove` only for who may start training here."""

    def __init__(self, root: Path, may_remove: bool) -> None:
        self.root, self.may_remove = root, may_remove

    def questions(self) -> list[Callable[[Any], dict[str, Any]]]:
        """The functions that the page may call."""
        return [self.overview, self.thumbs, self.side_by_side, self.picture, self.contents, self.remove, self.restore]

    def overview(self, question: Any = None) -> dict[str, Any]:
        """Every run in a row, those that train first; `more` is True while some are still to be read."""
        rows, deadline = [], time.monotonic() + PATIENCE_SECONDS
        for run in list_runs(self.root):
            rows.append(_row(run) if time.monotonic() < deadline else {"name": run.name})
        return {"rows": rows, "more": any("state" not in row for row in rows), "may_remove": self.may_remove}

    def thumbs(self, question: Any) -> dict[str, Any]:
        """Small pictures of the newest grids: question {"runs": [names]}, answer {"src": {name: data address}}."""
        found = {}
        for name in _names(question, MOST_THUMBS):
            try:
                samples = TrainingRun(run_folder(self.root, name)).samples()
                if samples:
                    path = samples[-1][1]
                    found[name] = _thumb(path, stamp(path)[0], _resolution(path))
            except (StyleGANError, OSError, ValueError, Image.DecompressionBombError):
                continue
        return {"src": found}

    def side_by_side(self, question: Any) -> dict[str, Any]:
        """Two to six runs compared: question {"runs": [names]}, answer as `_compared` says."""
        names = list(dict.fromkeys(_names(question, MOST_THUMBS)))
        if not LEAST_COMPARED <= len(names) <= MOST_COMPARED:
            raise RequestError(f"Choose {LEAST_COMPARED} to {MOST_COMPARED} runs to compare, not {len(names)}.")
        return _compared([_existing(self.root, name) for name in names])

    def picture(self, question: Any) -> dict[str, Any]:
        """A whole grid of a run: question {"run": name, "nimg": count}."""
        return picture(self.root, question)

    def contents(self, question: Any) -> dict[str, Any]:
        """What would be removed with a run, in words: question {"run": name}."""
        return {"words": trash.contents(_existing(self.root, _name(question)))}

    def remove(self, question: Any) -> dict[str, Any]:
        """Move a run that does not train into the trash: question {"run": name}."""
        self._require_owner()
        run = _existing(self.root, _name(question))
        place = trash.remove(run)
        return {"words": f"it lies in {place.parent.parent.name}/{place.parent.name}, beside the other runs."}

    def restore(self, question: Any) -> dict[str, Any]:
        """Take a removed run back: question {"run": name}."""
        self._require_owner()
        return {"words": f"{trash.restore(self.root, _name(question)).name} is back."}

    def _require_owner(self) -> None:
        """Raise RequestError where the page may not change runs."""
        if not self.may_remove:
            raise RequestError("Runs cannot be removed from this page; use the shell of the machine that has them.")


def _row(run: TrainingRun) -> dict[str, Any]:
    """One run in the words and figures of the list."""
    found, samples = summary(run), run.samples()
    best, state = found["best"], found["state"]
    return {
        "name": run.name, "state": state, "word": STATE_WORDS[state], "nimg": found["nimg"],
        "kimg": kimg(found["nimg"]), "speed": round(found["images_per_second"], 1), "verdict": found["verdict"],
        "reason": found["reason"],
        "best": best and {"name": best["name"], "value": best["value"], "words": _figure(best["value"]),
                          "at": kimg(best["nimg"])},
        "thumb": f"{samples[-1][0]}-{stamp(samples[-1][1])[0]}" if samples else "",
    }  # fmt: skip


def _resolution(path: Path) -> int:
    """The side of one picture of a sample grid, from the run's settings."""
    side = TrainingRun(path.parents[1]).config().get("resolution")
    return side if isinstance(side, int) and side > 0 else 64


@lru_cache(maxsize=256)
def _thumb(path: Path, changed: int, side: int) -> str:
    """The first pictures of a grid as a square data address: a grid of sixty would show nothing at this size."""
    with Image.open(path) as picture:
        most = min(picture.size)
        square = max(min(2 * side, most // side * side), min(side, most))
        small = picture.convert("RGB").crop((0, 0, square, square)).resize((THUMB_PIXELS, THUMB_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _compared(runs: list[TrainingRun]) -> dict[str, Any]:
    """Runs side by side for the page.

    `charts` (name, [kimg, value] points a run), `best` and `settings` (name, one cell a run), `grids` (moments a run)
    and `moments`, all images seen at which any of them has drawn.
    """
    found = compare(runs)
    order = sorted(found["curves"], key=lambda name: (not name.startswith("KID"), name))
    grids = [thin([nimg for nimg, _ in run.samples()], MOMENTS) for run in runs]
    moments = thin(sorted({nimg for grid in grids for nimg in grid}), MOMENTS)
    return {
        "runs": [{"name": run["name"], "word": STATE_WORDS[run["state"]], "state": run["state"]}
                 for run in found["runs"]],
        "charts": [{"name": name, "lines": [[[nimg / 1000, float(f"{value:.4g}")] for nimg, value in thin(line, POINTS)]
                                            for line in found["curves"][name]]} for name in order],
        "best": [[name, [{"words": _figure(pair[1]), "at": kimg(pair[0]), "is_best": is_best} if pair else None
                         for pair, is_best in zip(found["best"][name], found["wins"][name], strict=True)]]
                 for name in order],
        "settings": [[label, values] for label, values in in_words(found["differences"])],
        "same_pictures": "data" not in found["differences"],
        "grids": grids,
        "moments": [[nimg, kimg(nimg)] for nimg in moments],
    }  # fmt: skip


def _existing(root: Path, name: str) -> TrainingRun:
    """The run of that name; RequestError when there is none."""
    run = TrainingRun(run_folder(root, name))
    if not run.exists():
        raise RequestError(f"There is no run called {run.name} any more.")
    return run


def _name(question: Any) -> str:
    """The name in {"run": name}; RequestError for anything else."""
    name = question.get("run") if isinstance(question, dict) else None
    if not isinstance(name, str):
        raise RequestError("That question names no run.")
    return name


def _names(question: Any, most: int) -> list[str]:
    """The names in {"runs": [names]}; RequestError for anything else."""
    names = question.get("runs") if isinstance(question, dict) else None
    if not isinstance(names, list) or len(names) > most or not all(isinstance(name, str) for name in names):
        raise RequestError("That question names no runs.")
    return names


def _figure(value: float) -> str:
    """A metric's value in three significant digits."""
    return f"{value:.3g}"
