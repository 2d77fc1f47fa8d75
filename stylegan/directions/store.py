"""A model's directions as safetensors files tied to the model by its hash: shipped, the user's own, and found ones.

Shapes: K directions, L layers, D w_dim, C_i channels of affine map i.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegan.errors import DirectionError, StyleGANError
from stylegan.files import SAFE_NAME, write_atomic
from stylegan.latents import Direction
from stylegan.request import channel_of

FORMAT = "stylegan-studio-directions/1"
SUFFIX, MINE_SUFFIX = ".directions.safetensors", ".mine.safetensors"
SHIPPED, MINE, FOUND = "shipped", "mine", "found"
MAX_BYTES = 64 * 2**20
MAX_DIRECTIONS, MAX_LAYERS, MAX_WIDTH, MAX_AFFINES, MAX_NOTE = 4096, 256, 8192, 512, 500
_EDITING = threading.Lock()


def directions_path(checkpoint_path: str | Path) -> Path:
    """Where the directions of a checkpoint lie: NAME.directions.safetensors beside NAME.safetensors."""
    path = Path(checkpoint_path)
    return path.with_name(path.stem + SUFFIX)


def mine_path(checkpoint_path: str | Path) -> Path:
    """Where the user's own directions of a checkpoint lie: NAME.mine.safetensors beside NAME.safetensors."""
    path = Path(checkpoint_path)
    return path.with_name(path.stem + MINE_SUFFIX)


def cache_path(folder: str | Path, model_hash: str) -> Path:
    """Where the directions that were found by themselves lie, in the folder of models."""
    return Path(folder) / ".cache" / "directions" / f"{model_hash}.safetensors"


def direction_files(checkpoint_path: str | Path, model_hash: str, folder: str | Path) -> dict[str, Path]:
    """The files that may hold directions of a model, by source, the first one's names winning."""
    return {SHIPPED: directions_path(checkpoint_path), MINE: mine_path(checkpoint_path),
            FOUND: cache_path(folder, model_hash)}  # fmt: skip


def file_stamps(files: Iterable[Path]) -> tuple:
    """What changes when one of the files is written or goes; None for each that cannot be looked at."""
    stamps = []
    for path in files:
        try:
            about = path.stat()
            stamps.append((about.st_mtime_ns, about.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


def all_directions(checkpoint_path: str | Path, model_hash: str,
                   folder: str | Path) -> tuple[dict[str, Direction], str]:
    """A model's directions by name from all its files, and one sentence on a file that could not be used, or "".

    `info["source"]` says where each is from; a star or note in the user's own file goes to any of that name. A cache
    that cannot be read counts as none.
    """
    merged: dict[str, Direction] = {}
    problem = ""
    for source, path in direction_files(checkpoint_path, model_hash, folder).items():
        try:
            found = load_directions(path, model_hash, channels=source == FOUND) if path.is_file() else []
        except (StyleGANError, OSError) as error:
            found, problem = [], problem or ("" if source == FOUND else str(error))
        for direction in found:
            first = merged.get(direction.name)
            if first is None:
                merged[direction.name] = replace(direction, info={**direction.info, "source": source})
            elif source == MINE:
                merged[direction.name] = replace(first, info={**first.info, **_marks(direction)})
    return merged, problem


def tied(directions: Iterable[Direction], model_hash: str) -> list[Direction]:
    """The directions as belonging to the model of that hash."""
    return [replace(direction, model_hash=model_hash) for direction in directions]


def save_directions(path: str | Path, directions: list[Direction], channels: bool = False) -> Path:
    """Write directions of one model to `path`, whole or not at all; `channels` allows names like s7.42.

    Raises DirectionError when they differ in shape or model, repeat a name, or would not load again.
    """
    path = Path(path)
    if not directions:
        raise DirectionError("There are no directions to save.")
    hashes = {direction.model_hash for direction in directions}
    if len(hashes) > 1 or not all(hashes):
        raise DirectionError("Directions are saved for one model: all must carry the same, non-empty model hash.")
    if len({tuple(direction.vector.shape) for direction in directions}) > 1:
        raise DirectionError("These directions have different shapes, so they belong to different models.")
    vectors = torch.stack([direction.vector.detach().float().cpu() for direction in directions])  # [K, L, D]
    entries = [entry_of(direction) for direction in directions]
    styles = {f"channels.{number}.{index}": channel.detach().float().cpu().contiguous()
              for number, direction in enumerate(directions) for index, channel in (direction.channels or {}).items()}
    fields = read_entries(entries, vectors.shape, "these directions", channels)
    _take_channels(styles, fields, "these directions")
    if not torch.isfinite(vectors).all():
        raise DirectionError("A direction holds numbers that are not finite, so nothing was saved.")
    metadata = {"format": FORMAT, "model_hash": hashes.pop(), "directions": json.dumps(entries)}
    return write_atomic(path, save({"vectors": vectors.contiguous(), **styles}, metadata))


def entry_of(direction: Direction) -> dict[str, Any]:
    """What a file says of a direction beside its numbers."""
    entry = {"name": direction.name, "kind": direction.kind, "layers": list(direction.layers), "info": direction.info}
    if direction.rows:
        entry["rows"] = {str(index): row for index, row in direction.rows.items()}
    return entry


def load_directions(path: str | Path, model_hash: str | None = None, channels: bool = False) -> list[Direction]:
    """The directions in `path`; with `model_hash` only if they belong to that model; `channels` allows names as s7.42.

    Raises DirectionError in one sentence when the file is missing, damaged, of another kind or of another model.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DirectionError(f"{path.name} is larger than {MAX_BYTES // 2**20} MB, which no directions file is.")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DirectionError(f"{path.name} is not a directions file of this program ({FORMAT}).")
            keys = list(file.keys())
            if "vectors" not in keys:
                raise DirectionError(_damaged(path.name, "its tensors are not the expected ones"))
            shape = tuple(file.get_slice("vectors").get_shape())
            vectors = file.get_tensor("vectors") if len(shape) == 3 else None
            styles = {key: file.get_tensor(key) for key in keys if key != "vectors"}
    except FileNotFoundError as error:
        raise DirectionError(f"{path} does not exist; make it with: python -m stylegan directions MODEL.") from error
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        raise DirectionError(_damaged(path.name, "it cannot be read as safetensors")) from error
    owner = metadata.get("model_hash", "")
    if vectors is None or vectors.dtype != torch.float32 or not torch.isfinite(vectors).all() or not owner:
        raise DirectionError(_damaged(path.name, "its vectors are not finite float32 numbers of one model"))
    if model_hash is not None and owner != model_hash:
        raise DirectionError(f"{path.name} belongs to another model (hash {owner[:12]}, this one is "
                             f"{model_hash[:12]}); find directions for this model again.")
    try:
        entries = json.loads(metadata.get("directions", ""))
    except (ValueError, RecursionError) as error:
        raise DirectionError(_damaged(path.name, "its list of names is not JSON")) from error
    fields = read_entries(entries, shape, path.name, channels)
    taken = _take_channels(styles, fields, path.name)
    return [Direction(vector=vector.clone(), model_hash=owner, channels=channel, **field)
            for vector, field, channel in zip(vectors, fields, taken, strict=True)]


def keep_directions(path: str | Path, new: list[Direction]) -> tuple[int, bool]:
    """Merge directions of one model into its file: new ones replace all old ones of their kinds and names.

    Returns how many the file holds now, and whether what was there belonged to another model and was replaced whole.
    Raises DirectionError when the old file is damaged; it is left as it is.
    """
    old = load_directions(path) if Path(path).exists() else []
    stranger = any(direction.model_hash != new[0].model_hash for direction in old)
    kinds, names = {direction.kind for direction in new}, {direction.name for direction in new}
    kept = [] if stranger else [d for d in old if d.kind not in kinds and d.name not in names]
    save_directions(path, [*new, *kept] if "attribute" in kinds else [*kept, *new])
    return len(kept) + len(new), stranger


def add_direction(path: str | Path, direction: Direction) -> None:
    """Put a direction into the user's own file at `path`; DirectionError when it has one of that name."""
    add_directions(path, [direction])


def add_directions(path: str | Path, new: list[Direction]) -> None:
    """Put directions of one model into the user's own file, all or none; DirectionError when a name is taken."""
    def add(old: list[Direction]) -> list[Direction]:
        taken = {one.name for one in old}
        for direction in new:
            if direction.name in taken:
                raise DirectionError(f"You have a direction {direction.name[:40]!r} already; choose another name.")
        return [*old, *(replace(one, info=without_source(one.info)) for one in new)]

    _edit(path, add, new[0].model_hash)


def without_source(info: dict[str, Any]) -> dict[str, Any]:
    """A provenance as it is written: where it was read from is no part of it."""
    return {key: value for key, value in info.items() if key != "source"}


def rename_direction(path: str | Path, name: str, new: str) -> None:
    """Give one of the user's own directions another name; DirectionError when it is taken or unusable."""
    def rename(old: list[Direction]) -> list[Direction]:
        if any(one.name == new for one in old):
            raise DirectionError(f"You have a direction {new[:40]!r} already; choose another name.")
        chosen = _named(old, name)
        return [replace(one, name=new) if one is chosen else one for one in old]

    _edit(path, rename)


def delete_direction(path: str | Path, name: str) -> None:
    """Take one of the user's own directions away; the file goes with the last one."""
    def delete(old: list[Direction]) -> list[Direction]:
        chosen = _named(old, name)
        return [one for one in old if one is not chosen]

    _edit(path, delete)


def mark_direction(path: str | Path, direction: Direction, starred: bool | None = None,
                   note: str | None = None) -> None:
    """Star a direction, or take the star away, or note something about it, in the user's own file.

    One from another file is copied there first. Raises DirectionError when the note is too long.
    """
    if note is not None and (len(note) > MAX_NOTE or not note.replace("\n", " ").isprintable()):
        raise DirectionError(f"A note is at most {MAX_NOTE} characters of plain text.")

    def mark(old: list[Direction]) -> list[Direction]:
        mine = next((one for one in old if one.name == direction.name), direction)
        info = without_source(mine.info)
        info |= {} if starred is None else {"starred": starred}
        info |= {} if note is None else {"note": note}
        marked = replace(mine, info=info)
        return [marked if one is mine else one for one in old] if mine is not direction else [*old, marked]

    _edit(path, mark, direction.model_hash)


def _named(directions: list[Direction], name: str) -> Direction:
    """The direction of that name, or DirectionError."""
    for direction in directions:
        if direction.name == name:
            return direction
    raise DirectionError(f"You have no direction {str(name)[:40]!r} of your own for this model.")


def _edit(path: str | Path, change: Callable[[list[Direction]], list[Direction]],
          model_hash: str | None = None) -> None:
    """Read, change and write the user's own file, one at a time; a file of another model is refused, not replaced."""
    path = Path(path)
    with _EDITING:
        after = change(load_directions(path, model_hash) if path.exists() else [])
        if after:
            save_directions(path, after)
        else:
            path.unlink(missing_ok=True)


def _marks(direction: Direction) -> dict[str, Any]:
    """The star and the note of a direction."""
    return {key: direction.info[key] for key in ("starred", "note") if key in direction.info}


def _take_channels(styles: dict[str, torch.Tensor], fields: list[dict[str, Any]], where: str,
                   ) -> list[dict[int, torch.Tensor] | None]:
    """The channels of each direction from tensors called channels.DIRECTION.AFFINE, all of which must be asked for."""
    left = dict(styles)
    taken: list[dict[int, torch.Tensor] | None] = []
    for number, field in enumerate(fields):
        channels = {}
        for index in field["rows"] or ():
            channel = left.pop(f"channels.{number}.{index}", None)
            if (channel is None or channel.ndim != 1 or not 0 < len(channel) <= MAX_WIDTH
                    or channel.dtype != torch.float32 or not torch.isfinite(channel).all()):  # fmt: skip
                raise DirectionError(_damaged(where, f"the channels of {field['name']} are not finite float32 numbers"))
            channels[index] = channel
        taken.append(channels or None)
    if left:
        raise DirectionError(_damaged(where, "its tensors are not the expected ones"))
    return taken


def _damaged(name: str, why: str) -> str:
    """The sentence for a file that cannot be trusted."""
    return f"{name} is damaged: {why}; delete it and find the directions again."


def read_entries(entries: Any, shape: tuple[int, ...], where: str, channels: bool = False) -> list[dict[str, Any]]:
    """The fields of each Direction but its numbers, checked against vectors of shape [K, L, D].

    `channels` allows the names that are kept for S channels. Raises DirectionError, `where` naming the file.
    """
    if len(shape) != 3 or not all(0 < size <= limit for size, limit in
                                  zip(shape, (MAX_DIRECTIONS, MAX_LAYERS, MAX_WIDTH), strict=True)):
        raise DirectionError(_damaged(where, f"vectors of shape {list(shape)[:4]} are not [directions, layers, width]"))
    if not isinstance(entries, list) or len(entries) != shape[0]:
        raise DirectionError(_damaged(where, "it does not name each vector once"))
    fields, seen = [], set()
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) - {"rows"} != {"name", "kind", "layers", "info"}:
            raise DirectionError(_damaged(where, "an entry is not name, kind, layers and info"))
        name, kind, layers, info = entry["name"], entry["kind"], entry["layers"], entry["info"]
        if not isinstance(name, str) or not SAFE_NAME.fullmatch(name) or name in seen:
            raise DirectionError(_damaged(where, f"{str(name)[:40]!r} is a repeated or unusable direction name"))
        if not isinstance(kind, str) or not SAFE_NAME.fullmatch(kind) or not _plain_json(info):
            raise DirectionError(_damaged(where, f"the kind or provenance of {name} is not plain data"))
        if (not isinstance(layers, list) or len(layers) != 2 or not all(type(layer) is int for layer in layers)
                or not 0 <= layers[0] <= layers[1] < shape[1]):  # fmt: skip
            raise DirectionError(_damaged(where, f"the layers of {name} do not exist in a model of {shape[1]} layers"))
        if channel_of(name) and not channels:
            raise DirectionError(f"The name {name} is kept for a channel of S space; choose another one.")
        seen.add(name)
        fields.append({"name": name, "kind": kind, "layers": (layers[0], layers[1]), "info": info,
                       "rows": _read_rows(entry.get("rows"), shape[1], name, where)})  # fmt: skip
    return fields


def _read_rows(rows: Any, num_layers: int, name: str, where: str) -> dict[int, int] | None:
    """The layer of each affine map that a direction moves by itself, or None."""
    if rows is None:
        return None
    if not isinstance(rows, dict) or not 0 < len(rows) <= MAX_AFFINES or not all(
            key.isascii() and key.isdecimal() and len(key) <= 3 and type(row) is int and 0 <= row < num_layers
            for key, row in rows.items()) or len({int(key) for key in rows}) < len(rows):
        raise DirectionError(_damaged(where, f"the styles of {name} do not exist in a model of {num_layers} layers"))
    return {int(key): row for key, row in rows.items()}


def _plain_json(info: Any, depth: int = 0) -> bool:
    """Whether a provenance is a dict of text, finite numbers, truths, None, and small lists and dicts of them."""
    if depth == 0 and not isinstance(info, dict):
        return False
    if isinstance(info, dict):
        return depth < 4 and len(info) <= 64 and all(
            isinstance(key, str) and len(key) <= 64 and _plain_json(value, depth + 1) for key, value in info.items())
    if isinstance(info, list):
        return depth < 4 and len(info) <= 256 and all(_plain_json(value, depth + 1) for value in info)
    if isinstance(info, float):
        return math.isfinite(info)
    return info is None or isinstance(info, bool | int) or (isinstance(info, str) and len(info) <= 1000)
