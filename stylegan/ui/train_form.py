"""From what stands in the Train tab's form to pictures, a checked TrainConfig and a started run (no gradio)."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stylegan.data.images import ImageSet, open_images, sample_sets, suggest_resolution
from stylegan.data.prepare import prepare
from stylegan.errors import CheckpointError, DataError, TrainingError
from stylegan.options import options_of
from stylegan.pixels import encode_jpeg, grid
from stylegan.training.config import TrainConfig
from stylegan.training.run import TrainingRun, run_folder
from stylegan.ui import run_view

SAMPLE, UPLOAD, FOLDER = "Sample set", "Upload", "Folder"
THUMB_PIXELS, THUMBS, THUMB_COLUMNS = 48, 24, 12
SKIPPED_SHOWN = 200
RUN_PREFIX, BEST_SUFFIX = "run: ", " (best)"  # mark a run among the checkpoints to continue from
PICTURES = "pictures.zip"  # where the pictures of an upload stay, inside the run folder


@dataclass(frozen=True)
class Form:
    """The form as it stands; empty numbers mean 'choose for me'."""

    source: str = SAMPLE
    sample: str | None = None
    files: Sequence[str] | str | None = None
    folder: str | None = ""
    name: str | None = ""
    resolution: int | None = 64
    preset: str | None = "auto"
    kimg: float | None = None
    minutes: float | None = None
    batch: float | None = None
    gamma: float | None = None
    ada_target: float | None = 0.6
    seed: float | None = 0
    mirror: bool = True
    conditional: bool = False
    transfer: str | None = ""


@dataclass(frozen=True)
class Look:
    """What some sources hold: sizes ((width, height), count), skipped (file, reason), a sheet of thumbnails."""

    num_accepted: int
    skipped: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    resolution: int
    num_classes: int
    sheet: str
    columns: int
    rows: int


def chosen_sources(form: Form, roots: Sequence[Path]) -> list[Path]:
    """The files or folders the form points at; DataError when there are none or they may not be read."""
    if form.source == SAMPLE:
        sets = sample_sets()
        if form.sample not in sets:
            raise DataError("Choose a sample set.")
        return [sets[form.sample]]
    if form.source == UPLOAD:
        files = [form.files] if isinstance(form.files, str) else list(form.files or [])
        if not files:
            raise DataError("Upload a zip or some pictures first.")
        return [Path(file) for file in files]
    return [allowed_path(form.folder or "", roots)]


def allowed_path(text: str, roots: Sequence[Path]) -> Path:
    """A typed path, links resolved, that exists under one of the roots; DataError otherwise."""
    text = text.strip()
    if not text:
        raise DataError("Type the path of a folder or zip of pictures.")
    for root in (Path(root).resolve() for root in roots):
        path = _resolved(root / text)
        if path is not None and path.is_relative_to(root):
            return path
    if not roots:
        raise DataError("No folder of this machine is allowed yet; restart with --allow-data DIR, or upload a zip.")
    places = " or ".join(str(root) for root in roots)
    raise DataError(f"{text[:120]} is no folder or zip under {places}; move it there or start the app with "
                    "--allow-data DIR.")


def look_at(paths: Sequence[Path]) -> Look:
    """Decode everything once and say what is there; DataError when nothing is usable."""
    return _look_at(tuple((str(path), _changed(path)) for path in paths))


@lru_cache(maxsize=8)
def _look_at(stamped: tuple[tuple[str, int], ...]) -> Look:
    """`look_at`, remembered for as long as the files do not change."""
    sets: list[ImageSet] = []
    skipped: list[tuple[str, str]] = []
    for text, _ in stamped:
        try:
            found = open_images(text, THUMB_PIXELS)
        except DataError as error:
            if len(stamped) == 1:
                raise
            skipped.append((Path(text).name, str(error)))
            continue
        sets.append(found)
        skipped += found.skipped
    if not sets:
        raise DataError(f"None of the {len(stamped)} files is a usable picture; the first: {skipped[0][1]}")
    sizes = [size for found in sets for size in found.sizes]
    return Look(len(sizes), tuple(skipped), tuple(Counter(sizes).most_common()), suggest_resolution(sizes),
                sets[0].num_classes if len(sets) == 1 else 0, *_thumbnails(sets))


def _thumbnails(sets: Sequence[ImageSet]) -> tuple[str, int, int]:
    """A sheet of evenly chosen pictures as a data address, its columns and its rows."""
    places = [(found, index) for found in sets for index in range(len(found))]
    step = max(len(places) / THUMBS, 1.0)
    chosen = [places[int(index * step)] for index in range(min(THUMBS, len(places)))]
    columns = min(THUMB_COLUMNS, len(chosen))
    sheet = encode_jpeg(grid(np.stack([found.pixels(index) for found, index in chosen]), columns))
    return "data:image/jpeg;base64," + base64.b64encode(sheet).decode(), columns, -(-len(chosen) // columns)


def pictures_view(look: Look, resolution: int) -> dict[str, Any]:
    """What the page says of the pictures at the chosen resolution."""
    notes = []
    (width, height), most = look.sizes[0]
    if len(look.sizes) == 1:
        notes.append(f"All are {width} × {height} px." if look.num_accepted > 1 else f"It is {width} × {height} px.")
    else:
        notes.append(f"Most are {width} × {height} px ({most:,}); {len(look.sizes) - 1:,} other sizes are cropped to a "
                     "square and resized.")
    small = sum(count for size, count in look.sizes if min(size) < resolution)
    if small:
        notes.append(f"{small:,} will look soft, being smaller than {resolution} px; {look.resolution} px suits them.")
    if look.num_classes:
        notes.append(f"They come with {look.num_classes} classes.")
    return {"accepted": look.num_accepted, "notes": notes, "sheet": look.sheet, "columns": look.columns,
            "rows": look.rows, "num_skipped": len(look.skipped),
            "skipped": [list(pair) for pair in look.skipped[:SKIPPED_SHOWN]]}


def config_of(form: Form, data: str, out: Path, transfer: str = "") -> TrainConfig:
    """The form as a checked TrainConfig that starts from `transfer`; RequestError names the first unusable value."""
    return TrainConfig(
        data=data, out=str(out), resolution=int(form.resolution or 64), preset=form.preset or "auto",
        kimg=float(form.kimg or 0), minutes=float(form.minutes or 0), batch=_whole(form.batch, "batch"),
        gamma=float(form.gamma or 0), augment=None if form.ada_target else "none",
        ada_target=float(form.ada_target) if form.ada_target and form.ada_target != Form.ada_target else None,
        seed=_whole(form.seed, "seed"), mirror=bool(form.mirror), conditional=bool(form.conditional),
        transfer=transfer,
    )


def start_run(form: Form, runs_root: Path, roots: Sequence[Path], transfer: str = "") -> TrainingRun:
    """Check everything, keep uploaded pictures inside the new run folder, and start the trainer's process.

    Raises a StyleGANError with one sentence when something does not fit or another run is training.
    """
    _require_idle(runs_root)
    name = (form.name or "").strip() or suggest_name(form, runs_root)
    folder = run_folder(runs_root, name)
    if TrainingRun(folder).exists():
        raise TrainingError(f"There is already a run called {name}; continue it above, or choose another name.")
    config = config_of(form, data_of(form, folder), folder, transfer)
    sources = chosen_sources(form, roots)
    look_at(sources)
    if form.source == UPLOAD:
        prepare(sources, folder / PICTURES, config.resolution)
    return TrainingRun.start(config)


def continue_run(run: TrainingRun, more: float | None) -> TrainingRun:
    """Start the trainer again in the same folder; `more` is added to the budget that is used up."""
    _require_idle(run.path.parent)
    config = TrainConfig.from_dict(run.config())
    if run.state() == "done":
        if not more or more <= 0:
            raise TrainingError(f"{run.name} has done all that was asked; say for how much longer it shall train.")
        unit, asked = budget(run)
        config = config.replace(**{unit: asked + more})
    return TrainingRun.start(config)


def budget(run: TrainingRun) -> tuple[str, float]:
    """What ends the run, kimg or minutes, and how much of it was asked for."""
    ticks = run.ticks()
    unit, _, asked = run_view.nearer_budget(run_view.resolved_config(run), ticks[-1] if ticks else {},
                                            run.status().get("nimg", 0))
    return unit, asked


def run_sources(runs_root: Path) -> list[str]:
    """The runs that a new one can start from, each by its last state and, to branch from, by its best snapshot."""
    runs = [run for run in run_view.list_runs(runs_root) if run.snapshots()]
    return [RUN_PREFIX + run.name + end for run in runs for end in ("", *([BEST_SUFFIX] if run.best() else []))]


def run_source(runs_root: Path, chosen: str) -> str:
    """The run folder, or the best snapshot's file, behind one of `run_sources`; CheckpointError when it is gone."""
    name = chosen.removeprefix(RUN_PREFIX)
    run = TrainingRun(run_folder(runs_root, name.removesuffix(BEST_SUFFIX)))
    best = run.best() if name.endswith(BEST_SUFFIX) else None
    if not run.snapshots() or (name.endswith(BEST_SUFFIX) and best is None):
        raise CheckpointError(f"The run {run.name} has no such snapshot to continue from; choose another.")
    return str(run.snapshot_path(best["nimg"]) if best else run.path)


def _require_idle(runs_root: Path) -> None:
    """Raise TrainingError while a run trains: two would only slow each other down."""
    active = run_view.active_run(runs_root)
    if active:
        raise TrainingError(f"{active.name} is training already; stop it first, or wait until it is done.")


def data_of(form: Form, folder: Path) -> str:
    """How the command names the pictures: a sample set by its name, a folder by its path, an upload by its copy."""
    if form.source == SAMPLE:
        return form.sample or ""
    return str(folder / PICTURES) if form.source == UPLOAD else (form.folder or "").strip()


def suggest_name(form: Form, runs_root: Path) -> str:
    """A free run name that tells what is trained."""
    files = [form.files] if isinstance(form.files, str) else list(form.files or [])
    uploaded = Path(files[0]).stem if len(files) == 1 else "pictures"
    stem = {SAMPLE: form.sample or "run", UPLOAD: uploaded, FOLDER: Path((form.folder or "").strip()).stem}[form.source]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem.removesuffix(f"-{form.resolution}")).strip("-")[:40] or "run"
    stem = f"{stem}-{form.resolution}"
    number = 1
    while (runs_root / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def shell_line(config: TrainConfig) -> str:
    """The command that trains the same from a shell."""
    parts = ["python -m stylegan train"]
    for name, about in options_of(TrainConfig).items():
        value = getattr(config, name)
        if not about.hidden and (about.required or value != about.default):
            flag = about.flag or "--" + name.replace("_", "-")
            if isinstance(value, bool):
                parts.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                parts.append(f"{flag} {_quoted(about.text(value))}")
    return " ".join(parts)


def _quoted(text: str) -> str:
    """A word as a shell takes it."""
    return text if re.fullmatch(r"[A-Za-z0-9_./:=+-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def _whole(value: float | None, name: str) -> int:
    """A number field's value as a whole number, 0 when it is empty."""
    if value and value != int(value):
        raise TrainingError(f"The {name} must be a whole number, not {value:g}.")
    return int(value or 0)


def _resolved(path: Path) -> Path | None:
    """The path with every link followed, None when nothing is there."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None


def _changed(path: Path) -> int:
    """When the path last changed, in ns; 0 when it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
