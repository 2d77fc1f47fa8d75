"""Reading the files of a run folder at any moment: whatever is missing or half there reads as nothing."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any


def numbered(folder: Path, prefix: str, suffix: str) -> list[tuple[int, Path]]:
    """Files called PREFIX + digits + SUFFIX, as (number, file) in rising order."""
    names = os.listdir(folder) if folder.is_dir() else []
    middles = ((name.removeprefix(prefix).removesuffix(suffix), name) for name in names
               if name.startswith(prefix) and name.endswith(suffix))
    return sorted((int(middle), folder / name) for middle, name in middles if middle.isascii() and middle.isdigit())


def last_until(files: list[tuple[int, Path]], number: float) -> tuple[int, Path] | None:
    """The last of such files up to a number, else the first there is; None when there is none."""
    earlier = [each for each in files if each[0] <= number]
    return earlier[-1] if earlier else files[0] if files else None


def sweep(*folders: Path) -> None:
    """Delete what a killed process left half written; only for who holds the folders."""
    for folder in folders:
        for rest in folder.glob(".*.tmp"):
            rest.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or an empty dict when there is none to read."""
    try:
        return parse_line(path.read_bytes()) or {}
    except OSError:
        return {}


def parse_line(text: bytes) -> dict[str, Any] | None:
    """The JSON object in a text, or None when it is anything else."""
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return record if isinstance(record, dict) else None


def stamp(path: Path) -> tuple[int, int]:
    """(modified in ns, size in bytes) of a file, zeros when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def age(path: Path) -> float:
    """Seconds since a file was last written, half a century when it is not there."""
    return time.time() - stamp(path)[0] / 1e9


def last_line(path: Path, limit: int = 4096) -> str:
    """The last line with words in a text file, at most 300 characters of it."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def thin(items: list[Any], max_points: int) -> list[Any]:
    """At most `max_points` (two or more) of `items`, evenly spaced, with the first and the last."""
    if len(items) <= max_points:
        return list(items)
    step = (len(items) - 1) / (max_points - 1)
    return [items[round(index * step)] for index in range(max_points)]


def plain(value: Any) -> Any:
    """The value, or None where it is a NaN or an infinity, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
