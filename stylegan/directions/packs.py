"""Packs: some directions of one model in one file to share, JSON or safetensors, tied to the model by its hash.

Shapes: L layers, D w_dim, C_i channels of affine map i.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan.directions.store import MAX_BYTES, MAX_DIRECTIONS, entry_of, load_directions, read_entries, without_source
from stylegan.directions.store import save_directions as save
from stylegan.errors import DirectionError
from stylegan.files import write_atomic
from stylegan.latents import Direction

PACK_FORMAT = "stylegan-studio-pack/1"
MAX_PACK = 2 * MAX_BYTES  # base64 and names take more room than the numbers


def pack_json(directions: Sequence[Direction]) -> str:
    """Directions of one model as JSON text: the hash, the shape, and each one's numbers as base64 of float32.

    Raises DirectionError when they belong to several models, or there are none.
    """
    hashes = {direction.model_hash for direction in directions}
    if len(hashes) != 1 or not all(hashes):
        raise DirectionError("A pack holds directions of one model; choose some, all of the same model.")
    shape = list(directions[0].vector.shape)
    entries = []
    for direction in directions:
        plain = replace(direction, info=without_source(direction.info))
        entry = {**entry_of(plain), "vector": _text(direction.vector)}
        if direction.channels:
            entry["channels"] = {str(index): _text(channel) for index, channel in direction.channels.items()}
        entries.append(entry)
    pack = {"format": PACK_FORMAT, "model_hash": hashes.pop(), "shape": shape, "directions": entries}
    text = json.dumps(pack, indent=1)
    read_pack(text.encode(), pack["model_hash"])
    return text


def write_pack(path: str | Path, directions: Sequence[Direction]) -> Path:
    """A pack at `path`, JSON or safetensors as its ending says; DirectionError for another ending."""
    path = Path(path)
    if path.suffix == ".json":
        return write_atomic(path, pack_json(directions).encode())
    if path.suffix != ".safetensors":
        raise DirectionError(f"A pack is a .json or a .safetensors file, not {path.name[:60]!r}.")
    return save(path, [replace(one, info=without_source(one.info)) for one in directions])


def read_pack(data: bytes, model_hash: str, shape: tuple[int, int] | None = None,
              widths: Sequence[int] | None = None) -> list[Direction]:
    """The directions of a pack's bytes, JSON or safetensors, if they belong to the model of that hash.

    `shape` (L, D) and `widths` (C_i of each affine map) are the model's; what does not fit them is refused. Raises
    DirectionError, one sentence, for anything that is no such pack.
    """
    if len(data) > MAX_PACK:
        raise DirectionError(f"The pack is larger than {MAX_PACK // 2**20} MB, which no pack is.")
    found = _read_json(data) if data.lstrip()[:1] == b"{" else _read_safetensors(data)
    for direction in found:
        if direction.model_hash != model_hash:
            raise DirectionError(f"The pack belongs to another model (hash {direction.model_hash[:12]}, this one is "
                                 f"{model_hash[:12]}); directions cannot be carried over.")
        if shape is not None and tuple(direction.vector.shape) != tuple(shape):
            raise DirectionError(_broken(f"{direction.name} is {list(direction.vector.shape)}, not {list(shape)}"))
        for index, channel in (direction.channels or {}).items():
            if widths is not None and (index >= len(widths) or len(channel) != widths[index]):
                raise DirectionError(_broken(f"{direction.name} moves styles that this model does not have"))
    return found


def _read_safetensors(data: bytes) -> list[Direction]:
    """The directions of a safetensors pack."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack.safetensors"
        path.write_bytes(data)
        try:
            return load_directions(path)
        except DirectionError as error:
            raise DirectionError(f"The pack cannot be used: {error}") from error


def _read_json(data: bytes) -> list[Direction]:
    """The directions of a JSON pack."""
    try:
        pack = json.loads(data)
    except (ValueError, RecursionError):
        raise DirectionError(_broken("it is not JSON")) from None
    if not isinstance(pack, dict) or set(pack) != {"format", "model_hash", "shape", "directions"}:
        raise DirectionError(_broken("it is not format, model_hash, shape and directions"))
    owner, shape, entries = pack["model_hash"], pack["shape"], pack["directions"]
    if pack["format"] != PACK_FORMAT:
        raise DirectionError(_broken(f"it is not of the format {PACK_FORMAT}"))
    if not isinstance(owner, str) or not 0 < len(owner) <= 64:
        raise DirectionError(_broken("it does not say which model it belongs to"))
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(size) is int for size in shape):
        raise DirectionError(_broken("its shape is not layers and width"))
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_DIRECTIONS:
        raise DirectionError(_broken("it holds no list of directions"))
    plain, vectors, channels = [], [], []
    for entry in entries:
        if not isinstance(entry, dict):
            raise DirectionError(_broken("a direction is not an object"))
        plain.append({key: value for key, value in entry.items() if key not in ("vector", "channels")})
        vectors.append(entry.get("vector"))
        channels.append(entry.get("channels") or {})
    fields = read_entries(plain, (len(entries), *shape), "the pack")
    found = []
    for field, vector, moved in zip(fields, vectors, channels, strict=True):
        rows = field["rows"] or {}
        if not isinstance(moved, dict) or set(moved) != {str(index) for index in rows}:
            raise DirectionError(_broken(f"the styles of {field['name']} are not those of its rows"))
        numbers = _numbers(vector, field["name"])
        if len(numbers) != shape[0] * shape[1]:
            raise DirectionError(_broken(f"{field['name']} has {len(numbers)} numbers, not {shape[0]} x {shape[1]}"))
        parts = {index: _numbers(moved[str(index)], field["name"]) for index in rows}
        found.append(Direction(vector=numbers.reshape(shape), model_hash=owner, channels=parts or None, **field))
    return found


def _numbers(text: Any, name: str) -> torch.Tensor:
    """The finite float32 numbers of base64 text."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if not data or len(data) % 4:
        raise DirectionError(_broken(f"the numbers of {name} are not base64 of float32"))
    values = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))
    if not torch.isfinite(values).all():
        raise DirectionError(_broken(f"the numbers of {name} are not finite"))
    return values


def _text(values: torch.Tensor) -> str:
    """Numbers as base64 of little-endian float32."""
    return base64.b64encode(values.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes()).decode("ascii")


def _broken(why: str) -> str:
    """The sentence for a pack that cannot be trusted."""
    return f"The pack is damaged: {why}; ask for it again."
