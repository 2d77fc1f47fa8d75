"""The file of an exact resume: safetensors with the numbers as JSON in its header, and a checksum of everything.

Kept are the newest two, so that a damaged one costs only the work since the one before, and the best snapshot's.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegan.errors import TrainingError
from stylegan.files import write_atomic

FORMAT = "stylegan-studio-state/1"
KEPT = 2


def state_path(folder: Path, nimg: int) -> Path:
    """Where the state at `nimg` images belongs in a run's state folder."""
    return folder / f"{nimg:09d}.safetensors"


def write_state(path: Path, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
    """Write one state atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"format": FORMAT, "numbers": json.dumps(numbers)}
    write_atomic(path, save(plain, metadata | {"crc": f"{_checksum(plain):08x}"}))


def forget_states(folder: Path, keep: int | None = None) -> None:
    """Delete all but the newest two states, and the one at `keep` images."""
    for old in _states(folder)[:-KEPT]:
        if keep is None or old != state_path(folder, keep):
            old.unlink(missing_ok=True)


def read_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and numbers of a state; TrainingError when the file is damaged or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise TrainingError(f"{path.name} is not a training state of this version; start a new run.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "crc" in metadata and metadata["crc"] != f"{_checksum(tensors):08x}":
            raise ValueError("checksum")
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


def states_newest_first(folder: Path) -> list[Path]:
    """All states of a folder, the one to resume from first."""
    return _states(folder)[::-1]


def has_state(folder: Path) -> bool:
    """True when there is something to resume from."""
    return bool(_states(folder))


def _checksum(tensors: dict[str, torch.Tensor]) -> int:
    """CRC-32 over all tensors in the order of their names."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _states(folder: Path) -> list[Path]:
    """State files, oldest first (they are named by images seen)."""
    return sorted(folder.glob("[0-9]*.safetensors"))
