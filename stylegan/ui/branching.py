"""A new run from a moment of another: what can be chosen, what is taken, and the form that it fills.

Choices are texts: `run: NAME` is its newest state, `run: NAME (best)` its best snapshot, `run: NAME @ 40240` the one at
so many images seen. They come from a browser and are checked as such.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan.data.images import sample_sets
from stylegan.device import pick_device
from stylegan.errors import CheckpointError, StyleGANError
from stylegan.training.config import TrainConfig
from stylegan.training.continuation import like_source
from stylegan.training.run import TrainingRun, list_runs, run_folder
from stylegan.training.state import has_state, state_path
from stylegan.ui.run_view import kimg, snapshot_at
from stylegan.ui.session import AppContext
from stylegan.ui.train_form import FOLDER, GIVEN, PICTURES, SAMPLE, SETTINGS, UNUSED
from stylegan.ui.train_pictures import allowed_path

RUN_PREFIX, BEST_SUFFIX, AT = "run: ", " (best)", " @ "
UNREAD = "This page may not read the pictures of that run; choose them above, or start the app with --allow-data."
# Of the form, what a branch does not take over.
_OWN = ("kimg", "minutes", "grow_kimg", "snapshot_minutes", "tensorboard")


def run_sources(runs_root: Path, chosen: str = "") -> list[tuple[str, str]]:
    """(words, choice) of the runs to start from, each by its newest state and its best snapshot, and what is chosen."""
    found: list[tuple[str, str]] = []
    for run in list_runs(runs_root):
        best = run.best()
        if has_state(run.path / "state"):
            found.append((f"{RUN_PREFIX}{run.name}", RUN_PREFIX + run.name))
        if best:
            found.append((f"{RUN_PREFIX}{run.name}, best at {kimg(best['nimg'])}", RUN_PREFIX + run.name + BEST_SUFFIX))
    if chosen.startswith(RUN_PREFIX) and AT in chosen:
        try:
            run, nimg = _moment(runs_root, chosen)
            found.append((f"{RUN_PREFIX}{run.name} at {kimg(nimg or 0)}", chosen))
        except StyleGANError:
            pass
    return found


def run_source(runs_root: Path, chosen: str) -> str:
    """The run folder or the snapshot's file behind one of `run_sources`; CheckpointError when it is gone."""
    run, nimg = _moment(runs_root, chosen)
    return str(run.path if nimg is None else run.snapshot_path(nimg))


def choice_of(run: TrainingRun, nimg: int) -> str:
    """How the snapshot of a run at `nimg` images is chosen."""
    return f"{RUN_PREFIX}{run.name}{AT}{nimg}"


def words_of(runs_root: Path, chosen: str) -> str:
    """What a run that starts from `chosen` takes along, in a sentence; empty when nothing is chosen, or no run."""
    if not chosen.startswith(RUN_PREFIX):
        return ""
    try:
        run, nimg = _moment(runs_root, chosen)
    except StyleGANError as error:
        return str(error)
    if nimg is None:
        return f"Both networks and their averages as {run.name} saved them last; the optimisers start anew."
    if state_path(run.path / "state", nimg).is_file():
        return (f"Everything as it was in {run.name} at {kimg(nimg)}: both networks, their averages, both optimisers "
                "and the augmentation. Images seen and clock begin at zero.")  # fmt: skip
    return (f"The generator as it was in {run.name} at {kimg(nimg)}. The discriminator and the optimisers start anew: "
            "a run keeps those of its newest and its best moments only.")  # fmt: skip


def _moment(runs_root: Path, chosen: str) -> tuple[TrainingRun, int | None]:
    """The run behind a choice, and the images seen at its snapshot, None for its newest state."""
    name = chosen.removeprefix(RUN_PREFIX)
    name, at, count = name.partition(AT)
    run = TrainingRun(run_folder(runs_root, name.removesuffix(BEST_SUFFIX)))
    best = run.best() if name.endswith(BEST_SUFFIX) else None
    nimg = best["nimg"] if best else int(count) if count.isascii() and count.isdigit() and len(count) < 13 else None
    wants_snapshot = bool(at) or name.endswith(BEST_SUFFIX)
    there = nimg is not None and run.snapshot_path(nimg).is_file() if wants_snapshot else has_state(run.path / "state")
    if not there:
        raise CheckpointError(f"The run {run.name} has no such snapshot to continue from; choose another.")
    return run, nimg


def roots_of(context: AppContext, folder: str | None) -> list[Path]:
    """Where pictures may be read from: the allowed folders, and on one's own machine what an earlier run has kept."""
    return [*context.data_roots, *([] if context.public else _own_pictures(context.runs_root, folder))]


def _own_pictures(runs_root: Path, text: str | None) -> list[Path]:
    """The pictures that a run keeps in its folder, where `text` is their path."""
    path = Path((text or "").strip())
    try:
        kept = run_folder(runs_root, path.parent.name) / PICTURES
        return [kept.absolute()] if path.name == PICTURES and kept.is_file() and kept.samefile(path) else []
    except (StyleGANError, OSError, ValueError):
        return []


def branch(context: AppContext, run: TrainingRun | None, nimg: Any) -> dict[str, Any]:
    """Fields of a `Form` by name for a new run from the snapshot of `run` nearest to `nimg` images.

    Its pictures where this page may read them, its resolution, and each setting in which it differs from what would be
    chosen without; None or "" leaves a setting to be chosen. A StyleGANError says why there is nothing to branch from.
    """
    moment = snapshot_at(run, nimg) if run and isinstance(nimg, int) else None
    if run is None or moment is None:
        raise CheckpointError("This run has saved no model yet; press Snapshot now, or wait for the next one.")
    config = TrainConfig.from_dict(run.config())
    chosen = choice_of(run, int(moment.stem))
    plain = TrainConfig(data=config.data, out=config.out, resolution=config.resolution, preset=config.preset,
                        transfer=str(moment))  # fmt: skip
    auto = like_source(plain).resolve(pick_device(config.device).type == "cuda")
    fields: dict[str, Any] = {"resolution": config.resolution, "preset": config.preset, "transfer": chosen,
                              "name": _name_of(run, int(moment.stem)),
                              "classes": GIVEN if config.conditional else UNUSED}  # fmt: skip
    for name in SETTINGS:
        if name not in (*_OWN, "preset"):
            value = getattr(config, name)
            is_left = value == getattr(auto, name) and not isinstance(value, bool)
            fields[name] = ("" if isinstance(value, str) else None) if is_left else value
    return {**fields, **_pictures_of(context, run, config)}


def _pictures_of(context: AppContext, run: TrainingRun, config: TrainConfig) -> dict[str, Any]:
    """The form's fields for the pictures that a run trains on, none where this page may not read them."""
    if config.data in sample_sets():
        return {"source": SAMPLE, "sample": config.data}
    if not context.allow_training or (context.public and not context.data_roots):
        return {}
    try:
        path = allowed_path(str(Path(config.data).absolute()), roots_of(context, config.data))
    except StyleGANError:
        return {}
    return {"source": FOLDER, "folder": str(path)}


def _name_of(run: TrainingRun, nimg: int) -> str:
    """A free name that tells where a branch comes from."""
    stem, number = f"{run.name[:44]}-from-{nimg / 1000:.0f}k", 1
    while (run.path.parent / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return stem if number == 1 else f"{stem}-{number}"
