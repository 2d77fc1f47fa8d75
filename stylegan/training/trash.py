"""Taking a run away and taking it back: it moves whole into `.trash` beside the other runs, and nothing is deleted.

    runs/.trash/20261123-014159/NAME/    the run folder as it was
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from stylegan.errors import TrainingError
from stylegan.files import safe_name, write_problem
from stylegan.training.run import TrainingRun, run_folder

TRASH = ".trash"


def contents(run: TrainingRun) -> str:
    """What is in a run folder, in words: snapshots, sample grids, training states and the size of all."""
    folder = run.path
    counts = ((len(run.snapshots()), "snapshot"), (len(run.samples()), "sample grid"),
              (len(list(folder.glob("state/*.safetensors"))), "training state"))  # fmt: skip
    num_bytes = 0
    for path in folder.rglob("*"):
        try:
            num_bytes += 0 if path.is_symlink() or not path.is_file() else path.stat().st_size
        except OSError:  # gone meanwhile
            continue
    said = [f"{count} {what}{'s' * (count != 1)}" for count, what in counts if count]
    size = f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
    return ", ".join([*said, f"{size} in all"])


def remove(run: TrainingRun) -> Path:
    """Move a run that does not train into the trash and return its place there; TrainingError where that cannot be."""
    if not run.exists():
        raise TrainingError(f"There is no run called {run.name}; it may have been removed already.")
    _require_rest(run)
    root = run.path.absolute().parent
    place = root / TRASH / time.strftime("%Y%m%d-%H%M%S") / run.name
    _move(run.path, place)
    try:
        _require_rest(TrainingRun(place))  # a trainer may have begun in this very moment
    except TrainingError:
        _move(place, run.path)
        raise
    return place


def restore(root: str | Path, name: str) -> TrainingRun:
    """Take back the run that was removed last under a name; TrainingError when there is none or the name is taken."""
    folder = run_folder(root, name)
    found = sorted(place for place in (Path(root) / TRASH).glob(f"*/{safe_name(name)}") if TrainingRun(place).exists())
    if not found:
        raise TrainingError(f"There is no removed run called {name} under {Path(root) / TRASH}.")
    if folder.exists():
        raise TrainingError(f"There is another run called {name} now; move {found[-1]} back under a new name by hand.")
    _move(found[-1], folder)
    try:
        found[-1].parent.rmdir()
    except OSError:  # something else was removed in the same second
        pass
    return TrainingRun(folder)


def _require_rest(run: TrainingRun) -> None:
    """Raise TrainingError while a process trains in the run's folder."""
    if run.is_active():
        raise TrainingError(f"{run.name} is training; stop it first, then remove it.")


def _move(source: Path, target: Path) -> None:
    """Rename a folder; nothing of it is copied or lost on the way."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    except OSError as error:
        raise TrainingError(write_problem(target, error)) from error
