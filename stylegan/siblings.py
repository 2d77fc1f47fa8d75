"""Models that the same latent can be shown on: of the folder those with equal shapes of latents, and a run's snapshots.

A timeline is an ordered list of such models; the same request, asked of each, shows what training or tuning changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stylegan.checkpoint.file import read_header
from stylegan.checkpoint.folder import ModelFolder
from stylegan.errors import StyleGANError
from stylegan.networks.config import GeneratorConfig
from stylegan.training.run_files import numbered

MAX_STOPS = 1000


@dataclass(frozen=True)
class Stop:
    """One model of a timeline: the name that requests call it by, and what people call it."""

    name: str
    label: str


@dataclass(frozen=True)
class Timeline:
    """Models in order, with a key and a title."""

    key: str
    title: str
    stops: tuple[Stop, ...]


def timelines(folder: ModelFolder, runs_root: str | Path, model: str) -> list[Timeline]:
    """The timelines on which a model's latents can be shown: each run with fitting snapshots, then the folder's models.

    The run that the model itself belongs to comes first. Raises CheckpointError when there is no such model.
    """
    path = folder.find(model)
    wanted = _shape(path)
    found = []
    for run in _runs(Path(runs_root)):
        fitting = [(nimg, file) for nimg, file in numbered(run / "snapshots", "", ".safetensors")
                   if _shape(file) == wanted][-MAX_STOPS:]  # fmt: skip
        stops = tuple(Stop(str(file), f"{nimg / 1000:g} kimg") for nimg, file in fitting)
        if stops and wanted is not None:
            found.append(Timeline(f"run:{run.name}", f"run {run.name}", stops))
    found.sort(key=lambda each: path.resolve().parent.parent.name != each.key.removeprefix("run:"))
    alike = [entry for entry in folder.list() if entry.config is not None and _shape_of(entry.config) == wanted]
    if len(alike) > 1:
        stops = tuple(Stop(entry.name, entry.name) for entry in alike[:MAX_STOPS])
        found.append(Timeline("folder", f"models in {folder.path.name}", stops))
    return found


def _runs(root: Path) -> list[Path]:
    """The run folders with snapshots, by name."""
    try:
        return sorted(path for path in root.iterdir() if (path / "snapshots").is_dir())
    except OSError:
        return []


def _shape(path: Path) -> tuple[int, ...] | None:
    """The shapes of a model file's latents; None when they cannot be read from its head."""
    try:
        return _shape_of(read_header(path).config)
    except (OSError, StyleGANError):
        return None


def _shape_of(config: GeneratorConfig) -> tuple[int, ...]:
    """What must be equal for a latent to mean the same place: widths of z and w, rows of W+, classes."""
    return config.z_dim, config.w_dim, config.num_ws, config.num_classes
