"""What is known of each picture: class numbers from dataset.json or folders, attributes from labels.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from stylegan.data.sources import Source
from stylegan.errors import DataError

MAX_CLASSES = 10_000
MAX_ATTRIBUTES = 256
MAX_WORDS = 16


@dataclass(frozen=True)
class Labels:
    """Classes int64 [N] or None with their names, attributes float64 [N] each (nan: not said), and complaints."""

    classes: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    complaints: tuple[tuple[str, str], ...] = ()


def read_labels(source: Source, names: Sequence[str]) -> Labels:
    """Classes from dataset.json (the layout of NVIDIA's tools), names and attributes from labels.json.

    What cannot be used is left out with a complaint (file, reason): a data set without labels still trains.
    """
    complaints: list[tuple[str, str]] = []
    by_name = _read_json(source, "dataset.json", complaints)
    about = _read_json(source, "labels.json", complaints)
    classes = None
    if by_name.get("labels") is not None:
        try:
            classes = _classes(_keyed(by_name["labels"], source.metadata["dataset.json"]), names)
        except (ValueError, TypeError, OverflowError) as error:
            complaints.append(("dataset.json", str(error)))
    class_names = _class_names(about.get("classes"), classes)
    records = about.get("files")
    attributes = {}
    if isinstance(records, dict):
        keyed = _keyed(list(records.items()), source.metadata["labels.json"])
        attributes = _attributes([keyed.get(name) for name in names])
    return Labels(classes, class_names, attributes, tuple(complaints))


def classes_from_folders(names: Sequence[str]) -> Labels:
    """One class per folder, in the order of their names; DataError when all pictures share one folder."""
    parents = [PurePosixPath(name).parent.as_posix() for name in names]
    folders = sorted(set(parents))
    if len(folders) < 2:
        raise DataError("Classes from folders need at least two folders of pictures; these are all in one.")
    if len(folders) > MAX_CLASSES:
        raise DataError(f"There are {len(folders):,} folders; at most {MAX_CLASSES:,} classes are possible.")
    shared = len(PurePosixPath(folders[0]).parts)
    for folder in folders[1:]:
        pairs = zip(PurePosixPath(folders[0]).parts, PurePosixPath(folder).parts, strict=False)
        shared = min(shared, next((i for i, (a, b) in enumerate(pairs) if a != b), shared))
    place = {folder: i for i, folder in enumerate(folders)}
    shown = tuple("/".join(PurePosixPath(folder).parts[shared:]) or "unsorted" for folder in folders)
    return Labels(np.array([place[parent] for parent in parents], dtype=np.int64), shown)


def _read_json(source: Source, base: str, complaints: list[tuple[str, str]]) -> dict:
    """A metadata file as a dictionary; empty, with a complaint, when it is damaged."""
    if base not in source.metadata:
        return {}
    try:
        content = json.loads(source.read(source.metadata[base]).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        complaints.append((base, "is damaged, so it was not used"))
        return {}
    if isinstance(content, dict):
        return content
    complaints.append((base, "has another layout, so it was not used"))
    return {}


def _keyed(rows: object, metadata_name: str) -> dict[str, object]:
    """Rows [file, value] keyed by member name; files are named from the folder the metadata file is in."""
    pairs = list(rows.items()) if isinstance(rows, dict) else rows
    folder = PurePosixPath(metadata_name).parent
    if not isinstance(pairs, list) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise ValueError("labels are not a list of [file, class], so they were not used")
    return {(folder / str(name).replace("\\", "/")).as_posix(): value for name, value in pairs}


def _classes(keyed: dict[str, object], names: Sequence[str]) -> np.ndarray:
    """Class numbers int64 [N] in the order of `names`; one-hot vectors are taken as the class they mark."""
    missing = sum(name not in keyed for name in names)
    if missing:
        raise ValueError(f"says nothing of {missing} of {len(names)} pictures, so the classes were not used")
    values = [_class_of(keyed[name]) for name in names]
    return np.array(values, dtype=np.int64)


def _class_of(value: object) -> int:
    """A class number from a whole number or a one-hot vector."""
    if isinstance(value, list):
        if value.count(1) != 1 or value.count(0) != len(value) - 1:
            raise ValueError("has labels that are neither numbers nor one-hot, so the classes were not used")
        value = value.index(1)
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise ValueError("has labels that are not whole numbers, so the classes were not used")
    if not 0 <= value < MAX_CLASSES:
        raise ValueError(f"has class numbers outside 0 to {MAX_CLASSES - 1}, so the classes were not used")
    return int(value)


def _class_names(said: object, classes: np.ndarray | None) -> tuple[str, ...]:
    """The names said in labels.json when there are enough of them, else the numbers as text."""
    if classes is None or not len(classes):
        return ()
    needed = int(classes.max()) + 1
    if isinstance(said, list) and needed <= len(said) <= MAX_CLASSES and all(isinstance(s, str) for s in said):
        return tuple(name[:64] for name in said)
    return tuple(str(i) for i in range(needed))


def _attributes(records: list[object]) -> dict[str, np.ndarray]:
    """Numbers and truths as they are; a word with few values becomes one 0/1 attribute a value (hair=blond)."""
    numbers: dict[str, np.ndarray] = {}
    words: dict[str, list[str | None]] = {}
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            continue
        inner = record.get("attrs")
        for name, value in {**(inner if isinstance(inner, dict) else {}), **record}.items():
            if isinstance(value, (bool, int, float)) and abs(value) < 1e300 and math.isfinite(value):
                if len(numbers) < MAX_ATTRIBUTES or name in numbers:
                    numbers.setdefault(name[:64], np.full(len(records), np.nan))[i] = value
            elif isinstance(value, str) and (len(words) < MAX_ATTRIBUTES or name in words):
                words.setdefault(name[:64], [None] * len(records))[i] = value
    for name, values in words.items():
        kinds = sorted({value for value in values if value is not None})
        if 2 <= len(kinds) <= MAX_WORDS and len(numbers) < MAX_ATTRIBUTES:
            for kind in kinds:
                flags = [np.nan if value is None else float(value == kind) for value in values]
                numbers[f"{name}={kind[:64]}"] = np.array(flags)
    return numbers
