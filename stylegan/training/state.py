"""The file of an exact resume: safetensors with the numbers as JSON in its header, checked, newest of two kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegan.errors import TrainingError
from stylegan.files import write_atomic

FORMAT = "stylegan-studio-state/1"
KEPT = 2


def write_state(path: Path, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
    """Write one state atomically, then forget all but the newest two of its folder."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(path, save(plain, {"format": FORMAT, "numbers": json.dumps(numbers)}))
    for old in _states(path.parent)[:-KEPT]:
        old.unlink(missing_ok=True)


def read_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and numbers of a state; TrainingError when the file is damaged or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise TrainingError(f"{path.name} is not a training state of this version; start a new run.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(metadata["numbers"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"The training state {path.name} is damaged; delete it to resume from the one before."
        ) from error


def newest_state(folder: Path) -> Path:
    """The newest state of a run's state folder; TrainingError when there is none."""
    states = _states(folder)
    if not states:
        raise TrainingError(
            f"The run {folder.parent.name} has not saved any state yet; train it a little longer first."
        )
    return states[-1]


def has_state(folder: Path) -> bool:
    """True when there is something to resume from."""
    return bool(_states(folder))


def _states(folder: Path) -> list[Path]:
    """State files, oldest first (they are named by images seen)."""
    return sorted(folder.glob("[0-9]*.safetensors"))
