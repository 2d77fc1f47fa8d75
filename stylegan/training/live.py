"""Settings that may change while a run goes on: `live.json` in its folder, checked, written atomically. No torch.

    live.json    {"gamma": 0.1, "lr": 0.001, "ada_target": 0.5, "ada_cap": 0.6}, any of them

The trainer looks at every tick. As long as the file is there it has the last word, over a resumed command's too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan.errors import RequestError
from stylegan.files import write_atomic
from stylegan.options import option_of
from stylegan.training.config import TrainConfig
from stylegan.training.run_files import read_json

LIVE = ("gamma", "lr", "ada_target", "ada_cap")


def checked(values: Mapping[str, Any]) -> dict[str, float]:
    """The live settings in `values` as numbers; RequestError names one that is unknown or out of range."""
    for name, value in values.items():
        if name not in LIVE:
            raise RequestError(f"{str(name)[:40]} cannot change while a run goes on; these can: {', '.join(LIVE)}.")
        about = option_of(TrainConfig, name)
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        if not usable or not about.low <= value <= about.high or (value == 0 and name in ("gamma", "lr")):
            raise RequestError(f"{name} must be a number up to {about.high:g}, above 0 for rates and gamma.")
    return {name: float(value) for name, value in values.items()}


def edit_live(folder: Path, **values: float) -> dict[str, float]:
    """Add to a run's live settings, or with no values forget them all; returns what holds now."""
    path = folder / "live.json"
    if not values:
        path.unlink(missing_ok=True)
        return {}
    merged = checked({**read_json(path), **values})
    write_atomic(path, json.dumps(merged).encode() + b"\n")
    return merged


def read_live(folder: Path) -> dict[str, float]:
    """The live settings of a run, none where there is no file; RequestError when it holds anything else."""
    path = folder / "live.json"
    if not path.is_file():
        return {}
    found = read_json(path)
    if not found:
        raise RequestError("live.json holds no settings; write it through the app or delete it.")
    return checked(found)
