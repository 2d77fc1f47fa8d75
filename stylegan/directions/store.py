"""A model's directions as one safetensors file beside its checkpoint, tied to the model by its hash.

Shapes: K directions, L layers, D w_dim.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegan.errors import DirectionError
from stylegan.files import SAFE_NAME, write_atomic
from stylegan.latents import Direction

FORMAT = "stylegan-studio-directions/1"
SUFFIX = ".directions.safetensors"
MAX_BYTES = 64 * 2**20
MAX_DIRECTIONS, MAX_LAYERS, MAX_WIDTH = 4096, 256, 8192


def directions_path(checkpoint_path: str | Path) -> Path:
    """Where the directions of a checkpoint lie: NAME.directions.safetensors beside NAME.safetensors."""
    path = Path(checkpoint_path)
    return path.with_name(path.stem + SUFFIX)


def tied(directions: Iterable[Direction], model_hash: str) -> list[Direction]:
    """The directions as belonging to the model of that hash."""
    return [replace(direction, model_hash=model_hash) for direction in directions]


def save_directions(path: str | Path, directions: list[Direction]) -> Path:
    """Write directions of one model to `path`, whole or not at all.

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
    entries = [{"name": direction.name, "kind": direction.kind, "layers": list(direction.layers),
                "info": direction.info} for direction in directions]  # fmt: skip
    _read_entries(entries, vectors.shape, "these directions")
    if not torch.isfinite(vectors).all():
        raise DirectionError("A direction holds numbers that are not finite, so nothing was saved.")
    metadata = {"format": FORMAT, "model_hash": hashes.pop(), "directions": json.dumps(entries)}
    return write_atomic(path, save({"vectors": vectors.contiguous()}, metadata))


def load_directions(path: str | Path, model_hash: str | None = None) -> list[Direction]:
    """The directions in `path`; with `model_hash` only if they belong to that model.

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
            if list(file.keys()) != ["vectors"]:
                raise DirectionError(_damaged(path.name, "its tensors are not the expected ones"))
            shape = tuple(file.get_slice("vectors").get_shape())
            vectors = file.get_tensor("vectors") if len(shape) == 3 else None
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
    fields = _read_entries(entries, shape, path.name)
    return [Direction(vector=vector.clone(), model_hash=owner, **field)
            for vector, field in zip(vectors, fields, strict=True)]


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


def _damaged(name: str, why: str) -> str:
    """The sentence for a file that cannot be trusted."""
    return f"{name} is damaged: {why}; delete it and find the directions again."


def _read_entries(entries: Any, shape: tuple[int, ...], where: str) -> list[dict[str, Any]]:
    """The fields of each Direction but its vector, checked against vectors of shape [K, L, D]."""
    if len(shape) != 3 or not all(0 < size <= limit for size, limit in
                                  zip(shape, (MAX_DIRECTIONS, MAX_LAYERS, MAX_WIDTH), strict=True)):
        raise DirectionError(_damaged(where, f"vectors of shape {list(shape)[:4]} are not [directions, layers, width]"))
    if not isinstance(entries, list) or len(entries) != shape[0]:
        raise DirectionError(_damaged(where, "it does not name each vector once"))
    fields, seen = [], set()
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"name", "kind", "layers", "info"}:
            raise DirectionError(_damaged(where, "an entry is not name, kind, layers and info"))
        name, kind, layers, info = entry["name"], entry["kind"], entry["layers"], entry["info"]
        if not isinstance(name, str) or not SAFE_NAME.fullmatch(name) or name in seen:
            raise DirectionError(_damaged(where, f"{str(name)[:40]!r} is a repeated or unusable direction name"))
        if not isinstance(kind, str) or not SAFE_NAME.fullmatch(kind) or not _plain_json(info):
            raise DirectionError(_damaged(where, f"the kind or provenance of {name} is not plain data"))
        if (not isinstance(layers, list) or len(layers) != 2 or not all(type(layer) is int for layer in layers)
                or not 0 <= layers[0] <= layers[1] < shape[1]):  # fmt: skip
            raise DirectionError(_damaged(where, f"the layers of {name} do not exist in a model of {shape[1]} layers"))
        seen.add(name)
        fields.append({"name": name, "kind": kind, "layers": (layers[0], layers[1]), "info": info})
    return fields


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
