"""From what stands in the Train tab's form to pictures, a checked TrainConfig and a started run (no gradio)."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stylegan.data.images import sample_sets
from stylegan.data.prepare import prepare
from stylegan.device import pick_device
from stylegan.errors import DataError, TrainingError
from stylegan.options import Option, options_of
from stylegan.training.config import TrainConfig
from stylegan.training.continuation import like_source
from stylegan.training.run import TrainingRun, run_folder
from stylegan.ui import run_view
from stylegan.ui.train_pictures import Look, Taking, allowed_path, changed, known_look, look_at

SAMPLE, UPLOAD, FOLDER = "Sample set", "Upload", "Folder"
UNUSED, GIVEN, SUBFOLDERS = "none", "given", "folders"  # what the classes of the pictures are
PICTURES = "pictures.zip"  # where pictures that are prepared for a run stay, inside its folder
SETTINGS = (  # of TrainConfig, as the form has them: empty means 'choose for me'
    "kimg", "minutes", "preset", "family", "grow_kimg", "precision", "batch", "accumulate", "lr", "gamma", "augment",
    "transforms", "ada_target", "ada_cap", "mirror", "holdout", "channel_base", "channel_max", "seed", "freeze_d",
    "metric_images", "snapshot_minutes", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """The form as it stands; empty numbers mean 'choose for me'."""

    source: str = SAMPLE
    sample: str | None = None
    files: Sequence[str] | str | None = None
    folder: str | None = ""
    fit: str = "crop"
    every: str | None = "1s"
    drop_duplicates: bool = False
    classes: str = UNUSED
    name: str | None = ""
    resolution: int | None = 64
    kimg: float | None = None
    minutes: float | None = None
    preset: str | None = "auto"
    family: str | None = ""
    grow_kimg: float | str | None = ""
    precision: str | None = ""
    batch: float | str | None = ""
    accumulate: float | str | None = ""
    lr: float | str | None = ""
    gamma: float | str | None = ""
    augment: str | None = ""
    transforms: str | None = ""
    ada_target: float | str | None = ""
    ada_cap: float | str | None = ""
    mirror: bool = True
    holdout: float | str | None = ""
    channel_base: float | str | None = ""
    channel_max: float | str | None = ""
    seed: float | str | None = ""
    freeze_d: float | str | None = ""
    metric_images: float | str | None = ""
    snapshot_minutes: float | str | None = ""
    tensorboard: bool = False
    transfer: str | None = ""

    @property
    def taking(self) -> Taking:
        """How the pictures are taken."""
        return Taking(self.fit, (self.every or "").strip() or Taking.every, bool(self.drop_duplicates),
                      self.classes == SUBFOLDERS)  # fmt: skip


def chosen_sources(form: Form, roots: Sequence[Path]) -> list[Path]:
    """The files or folders the form points at; DataError when there are none or they may not be read."""
    if form.source == SAMPLE:
        sets = sample_sets()
        if form.sample not in sets:
            raise DataError("Choose a sample set.")
        return [sets[form.sample]]
    if form.source == UPLOAD:
        if not _uploads(form):
            raise DataError("Upload a zip, pictures or videos first.")
        return [Path(file) for file in _uploads(form)]
    return [allowed_path(form.folder or "", roots)]


def _uploads(form: Form) -> list[str]:
    """The uploaded files."""
    return [form.files] if isinstance(form.files, str) else list(form.files or [])


def needs_preparing(form: Form, look: Look | None) -> bool:
    """True when the trainer cannot read the pictures as they are: uploads go, videos and wishes need `prepare`."""
    taking = form.taking
    plain = taking == Taking(every=taking.every)
    return form.source == UPLOAD or not plain or bool(look and look.num_videos)


def seen_sources(form: Form, roots: Sequence[Path]) -> Look | None:
    """What is already known of the chosen pictures; costs nothing."""
    try:
        return known_look(chosen_sources(form, roots), form.taking)
    except DataError:
        return None


def config_of(form: Form, data: str, out: Path, transfer: str = "") -> TrainConfig:
    """The form as a checked TrainConfig that starts from `transfer`; RequestError names the first unusable value."""
    about = options_of(TrainConfig)
    chosen = {name: _value(name, getattr(form, name), about[name]) for name in SETTINGS}
    return TrainConfig(data=data, out=str(out), resolution=int(form.resolution or 64), transfer=transfer,
                       conditional=form.classes != UNUSED, **chosen)  # fmt: skip


def resolved(config: TrainConfig) -> TrainConfig:
    """The config with every 'choose for me' filled in as the trainer will, reading what it starts from only once."""
    like = {}
    if config.transfer:
        like = _like(config.transfer, config.grow_kimg, changed(Path(config.transfer)))
    taken = {name: value for name, value in like.items() if config.is_open(name) or name == "grow_kimg"}
    return config.replace(**taken).resolve(pick_device(config.device).type == "cuda")


@lru_cache(maxsize=16)
def _like(transfer: str, grow_kimg: float, changed: int) -> dict[str, Any]:
    """What `like_source` fills in, for as long as the file or folder does not change."""
    plain = TrainConfig(data="PICTURES", out="RUN", transfer=transfer, grow_kimg=grow_kimg)
    return {name: value for name, value in vars(like_source(plain)).items() if value != getattr(plain, name)}


def _value(name: str, value: Any, about: Option) -> Any:
    """A field's value as the config has it; an empty field is the setting's default."""
    value = value.strip() if isinstance(value, str) else value
    kinds = {about.kind, *typing.get_args(about.kind)}
    if value is None or value == "":
        return about.default
    if not kinds & {int, float}:
        return value
    try:
        number = float(value)
        if int in kinds and number != int(number):
            raise ValueError(value)
    except (ValueError, OverflowError):
        kind = "whole number" if int in kinds else "number"
        raise TrainingError(f"The {name.replace('_', ' ')} must be a {kind}, not {str(value)[:20]}.") from None
    return int(number) if int in kinds else number


def start_run(form: Form, runs_root: Path, roots: Sequence[Path], transfer: str = "") -> TrainingRun:
    """Check everything, prepare pictures inside the new run folder where it takes that, and start the trainer.

    Raises a StyleGANError with one sentence when something does not fit or another run is training.
    """
    _require_idle(runs_root)
    name = (form.name or "").strip() or suggest_name(form, runs_root)
    folder = run_folder(runs_root, name)
    if TrainingRun(folder).exists():
        raise TrainingError(f"There is already a run called {name}; continue it above, or choose another name.")
    sources = chosen_sources(form, roots)
    config_of(form, "PICTURES", folder, transfer)  # a mistake shall not cost a long look
    look = look_at(sources, form.taking)
    if form.classes != UNUSED and not look.classes(form.taking):
        raise DataError("The pictures have no such classes; choose other classes under 'How they are taken', or none.")
    config = config_of(form, data_of(form, folder, roots, look), folder, transfer)
    if needs_preparing(form, look):
        prepare(sources, folder / PICTURES, config.resolution, form.fit, form.classes == SUBFOLDERS,
                every=form.taking.every, drop_duplicates=bool(form.drop_duplicates))  # fmt: skip
    return TrainingRun.start(config)


def continue_run(run: TrainingRun, more: float | None) -> TrainingRun:
    """Start the trainer again in the same folder; `more` is added to the budget that is used up."""
    _require_idle(run.path.parent)
    config = TrainConfig.from_dict(run.config()).at(run.path)
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


def _require_idle(runs_root: Path) -> None:
    """Raise TrainingError while a run trains: two would only slow each other down."""
    active = run_view.active_run(runs_root)
    if active:
        raise TrainingError(f"{active.name} is training already; stop it first, or wait until it is done.")


def data_of(form: Form, folder: Path, roots: Sequence[Path], look: Look | None = None) -> str:
    """How the command names the pictures that the run in `folder` reads; DataError as `chosen_sources`."""
    return str(folder / PICTURES) if needs_preparing(form, look) else _names(form, roots)[0]


def _names(form: Form, roots: Sequence[Path]) -> list[str]:
    """The sources as a command names them: a sample set or an upload by its name, what was typed by its whole path."""
    sources = chosen_sources(form, roots)
    return {SAMPLE: [form.sample or ""], UPLOAD: [path.name for path in sources]}.get(form.source, [str(sources[0])])


def suggest_name(form: Form, runs_root: Path) -> str:
    """A free run name that tells what is trained."""
    files = _uploads(form)
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
    return " ".join(["python -m stylegan train", *_flags(TrainConfig, vars(config))])


def prepare_line(form: Form, config: TrainConfig, roots: Sequence[Path]) -> str:
    """The command that makes the zip that `config` trains on, of the pictures as they lie on their owner's disk."""
    flags = [f"--out {quoted(config.data)}", f"--resolution {config.resolution}"]
    taking = form.taking
    flags += [f"--fit {taking.fit}"] if taking.fit != Taking.fit else []
    flags += [f"--every {quoted(taking.every)}"] if taking.every != Taking.every else []
    flags += ["--classes-from-folders"] * taking.classes_from_folders + ["--drop-duplicates"] * taking.drop_duplicates
    return " ".join(["python -m stylegan prepare", *map(quoted, _names(form, roots)), *flags])


def _flags(cls: type, values: dict[str, Any]) -> list[str]:
    """The flags of a dataclass of options for those values that are not the default."""
    flags = []
    for name, about in options_of(cls).items():
        value = values[name]
        if not about.hidden and (about.required or value != about.default):
            flag = about.flag or "--" + name.replace("_", "-")
            if isinstance(value, bool):
                flags.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                flags.append(f"{flag} {quoted(about.text(value))}")
    return flags


def quoted(text: str) -> str:
    """A word as a shell takes it."""
    return text if re.fullmatch(r"[A-Za-z0-9_./:=+-]+", text) else "'" + text.replace("'", "'\\''") + "'"
