"""A model as one file: safetensors with the config and the provenance inside. Nothing in a file is ever executed.

A file is believed only after its header was read here and compared with the network that its config describes, so
that a damaged or hostile file is refused with one sentence before anything large is allocated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stylegan.errors import CheckpointError
from stylegan.files import write_atomic
from stylegan.networks.config import GeneratorConfig

if TYPE_CHECKING:
    import torch

    from stylegan.networks.generator import Generator

FORMAT = "stylegan-studio/1"
MAX_HEADER = 10_000_000
FOREIGN_SUFFIXES = (".pkl", ".pt", ".pth")
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model at rest: the config that rebuilds it, its tensors by published name, and where it comes from."""

    config: GeneratorConfig
    tensors: dict[str, torch.Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What the head of a checked file says: config, provenance, and each tensor's shape."""

    config: GeneratorConfig
    provenance: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def num_parameters(self) -> int:
        """How many numbers the file holds, buffers included."""
        return sum(map(math.prod, self.shapes.values()))


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, half: bool = False) -> Path:
    """Write a checkpoint atomically; `half` stores float16, but keeps float32 where a value would overflow."""
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in checkpoint.tensors.items():
        tensor = tensor.detach().to("cpu", torch.float32)
        small = tensor.half()
        tensors[name] = (small if half and bool(small.isfinite().all()) else tensor).clone().contiguous()
    about = {"format": FORMAT, "config": checkpoint.config.to_json(), "provenance": json.dumps(checkpoint.provenance)}
    return write_atomic(path, save(tensors, about))


def read_header(path: str | Path) -> Header:
    """Read and check the head of a model file, without its tensors; CheckpointError in one sentence when it is bad."""
    path = Path(path)
    size, head = _first_bytes(path)
    length = int.from_bytes(head[:8], "little")
    if size < 10 or not 2 <= length <= min(size - 8, MAX_HEADER):
        _refuse(path, head)
    with open(path, "rb") as file:
        text = file.read(8 + length)[8:]
    return _header_of(path.name, text, size - 8 - length)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model file strictly: names, shapes and types must be those of the network in its config."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    header = read_header(path)
    expected = network_shapes(header.config)
    _require_same(path.name, header.shapes, expected)
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged; copy or download it again.") from error
    tensors = {name: tensors[name].to(torch.float32, copy=True) for name in expected}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path.name} holds values in {name} that are not finite; use an earlier snapshot.")
    return Checkpoint(header.config, tensors, header.provenance)


def read_any(path: str | Path) -> Checkpoint:
    """Read a model file of any supported kind; foreign ones are converted on the way."""
    if Path(path).suffix.lower() in FOREIGN_SUFFIXES:
        from stylegan.checkpoint.convert import convert_file

        return convert_file(path)
    return read_checkpoint(path)


def build(checkpoint: Checkpoint) -> Generator:
    """The generator of a checkpoint, in evaluation mode, float32, without gradients, on the processor."""
    import torch

    from stylegan.networks.generator import build_generator

    with torch.device("meta"):
        generator = build_generator(checkpoint.config)
    tensors = {name: tensor.to(torch.float32, copy=True) for name, tensor in checkpoint.tensors.items()}
    generator.load_state_dict(tensors, strict=True, assign=True)
    return generator.eval().requires_grad_(False)


def load_generator(path: str | Path) -> Generator:
    """Load the generator of any supported model file, in evaluation mode, float32; CheckpointError when it is bad."""
    return build(read_any(path))


def model_hash(model: str | Path | Checkpoint) -> str:
    """SHA-256 of what decides the pictures: the config's non-default values, tensor names and float32 values.

    It is the same for a file and for a foreign file that converts to it, and does not depend on the provenance.
    """
    import torch

    checkpoint = model if isinstance(model, Checkpoint) else read_any(model)
    config = checkpoint.config
    settings = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)
                if getattr(config, item.name) != item.default}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"\n{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _first_bytes(path: Path) -> tuple[int, bytes]:
    """Size and first bytes of a file that exists and can be read."""
    try:
        with open(path, "rb") as file:
            return path.stat().st_size, file.read(512)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder; name a checkpoint file in it.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _refuse(path: Path, head: bytes) -> NoReturn:
    """Say what a file is that is no safetensors file."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise CheckpointError(f"{path.name} is empty; copy or download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path.name} is a Git LFS pointer, not the model itself; run 'git lfs pull' to get it.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path.name} is a web page, not a model; download the file itself.")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise CheckpointError(f"{path.name} is a pickle; turn it into a model with 'python -m stylegan import'.")
    if head.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{path.name} is a zip archive; if it holds a model, use 'python -m stylegan import'.")
    raise CheckpointError(f"{path.name} is not a safetensors file, or it was cut short; copy or download it again.")


def _header_of(name: str, text: bytes, num_bytes: int) -> Header:
    """Check the JSON head of a safetensors file whose tensors take `num_bytes`."""
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"The header of {name} is damaged; copy or download the file again.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"The header of {name} is damaged; copy or download the file again.")
    about = entries.pop("__metadata__", None)
    if not isinstance(about, dict) or "config" not in about:
        raise CheckpointError(f"{name} has no network config inside; only models written by this app can be opened.")
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{name} is of format {str(about.get('format'))[:40]!r}, not {FORMAT!r}; update the app.")
    if not isinstance(about["config"], str):
        raise CheckpointError(f"The config inside {name} is damaged; copy or download the file again.")
    return Header(GeneratorConfig.from_json(about["config"]), _provenance(name, about.get("provenance", "{}")),
                  _shapes(name, entries, num_bytes))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names occur once."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _provenance(name: str, text: Any) -> dict[str, Any]:
    """The provenance as a dictionary."""
    try:
        provenance = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict):
        raise CheckpointError(f"The provenance inside {name} is damaged; copy or download the file again.")
    return provenance


def _shapes(name: str, entries: dict[str, Any], num_bytes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors, once their types are known and they fill the file exactly, without gap or overlap."""
    shapes, ranges = {}, []
    for key, entry in entries.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"The header of {name} describes {key[:60]!r} wrongly; copy the file again.")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _ITEM_BYTES:
            raise CheckpointError(f"{key[:60]!r} in {name} is of type {str(kind)[:20]}; models use F32, F16 or BF16.")
        if not (_whole(shape) and len(shape) <= 8 and _whole(offsets) and len(offsets) == 2):
            raise CheckpointError(f"The header of {name} describes {key[:60]!r} wrongly; copy the file again.")
        if offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[kind]:
            raise CheckpointError(f"{key[:60]!r} in {name} has not the size of its shape; copy the file again.")
        shapes[key] = tuple(shape)
        ranges.append(tuple(offsets))
    end = 0
    for first, last in sorted(ranges):
        if first != end:
            raise CheckpointError(f"The tensors in {name} overlap or leave gaps; copy or download the file again.")
        end = last
    if end != num_bytes:
        raise CheckpointError(f"{name} should hold {end} bytes of tensors but holds {num_bytes}; copy it again.")
    return shapes


def _whole(values: Any) -> bool:
    """True for a list of whole numbers from 0 up."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _require_same(file: str, shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Refuse a file whose tensors are not exactly those of its network."""
    missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{file} lacks {len(missing)} tensors of its network, like {missing[0]}; copy it again.")
    if extra:
        raise CheckpointError(f"{file} holds {len(extra)} tensors that are not its network's, like {extra[0][:60]}.")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise CheckpointError(f"In {file} {name} is {list(shape)}, its config needs {list(expected[name])}.")


def network_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a config's network, found without allocating any; CheckpointError if none."""
    import torch

    from stylegan.networks.generator import build_generator

    try:
        with torch.device("meta"):
            network = build_generator(config)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError("The config describes no network that can be built; export the file again.") from error
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
