"""Read NVIDIA's network pickles without running them: which names a file may use, and what each call is recorded as.

A pickle is a program for a stack machine, and `pickle.load` makes any call that the program asks for. Here the
machine of `pickle_opcodes` knows the opcodes that network files use; it may name the exact (module, name) pairs listed
in this file; a call to one of them becomes an inert record of `pickle_records`; everything else ends the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylegan.checkpoint.pickle_opcodes import Allowed, Budget, Machine, check_key
from stylegan.checkpoint.pickle_records import (
    NUMPY_CODES,
    Array,
    Module,
    Network,
    NumpyType,
    Source,
    Span,
    Storage,
    Tensor,
    check_tree,
    damaged,
    make_tensor,
    shown,
)
from stylegan.errors import CheckpointError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
PERSISTENCE_VERSION = 6
MAX_SET = 1000
ITEM_BYTES = {"bf2": 2} | {code: int(code[1]) for code in NUMPY_CODES}


@contextmanager
def open_pickle(path: str | Path) -> Iterator[Any]:
    """Yield what the pickle at `path` holds, as plain values and records; tensors can be copied out until the exit.

    Raises CheckpointError, having run nothing, when the file is damaged or asks for anything a network does not need.
    """
    try:
        file = open(path, "rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        yield read_pickle(Source(file, 0, file.seek(0, 2)))


def read_pickle(source: Source) -> Any:
    """The one value that the pickle in `source` holds, as plain values and records."""
    budget = Budget()
    nested = {("torch.storage", "_load_from_bytes"): Allowed("storage", partial(_storage, budget=budget))}
    root = Machine(source, _ALLOWED | nested, budget).run()
    if source.left:
        raise damaged("it goes on after its end")
    check_tree(root)
    return root


@dataclass(frozen=True, slots=True)
class StorageClaim:
    """What a storage's header says: the type, a name for the storage, and how many numbers follow."""

    dtype: str
    key: str
    numel: int


def _arguments(arguments: tuple, low: int, high: int) -> tuple:
    """The arguments of a recorded call, whose number must lie in `low` to `high`."""
    if not low <= len(arguments) <= high:
        raise damaged("a call in it has the wrong number of arguments")
    return arguments


def _module(arguments: tuple) -> Module:
    """Record `torch_utils.persistence._reconstruct_persistent_obj(meta)`."""
    (meta,) = _arguments(arguments, 1, 1)
    if not isinstance(meta, dict) or meta.get("type") != "class" or type(meta.get("version")) is not int:
        raise damaged("a module in it is not described properly")
    if not 1 <= meta["version"] <= PERSISTENCE_VERSION:
        raise CheckpointError("The file follows a newer persistence version than is known here; ask for an update.")
    name, source, state = meta.get("class_name"), meta.get("module_src"), meta.get("state")
    if not isinstance(name, str) or not isinstance(source, str) or not isinstance(state, dict):
        raise damaged("a module in it is not described properly")
    return Module(name, source, state)


def _tensor(arguments: tuple) -> Tensor:
    """Record `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`."""
    return make_tensor(*_arguments(arguments, 6, 7)[:4])


def _parameter(arguments: tuple) -> Tensor:
    """Record `_rebuild_parameter(tensor, requires_grad, hooks[, state])` as the tensor itself."""
    tensor = _arguments(arguments, 3, 4)[0]
    if not isinstance(tensor, Tensor):
        raise damaged("a parameter in it is not a tensor")
    return tensor


def _storage(arguments: tuple, budget: Budget) -> Storage:
    """Record `torch.storage._load_from_bytes(bytes)`: five pickles of fixed meaning, a count, and the numbers.

    Real torch would unpickle these bytes a second time; here a second machine reads them with an even shorter list.
    """
    (data,) = _arguments(arguments, 1, 1)
    if not isinstance(data, Span):
        raise damaged("the data of a tensor in it is not bytes")
    source = data.source()
    items = [Machine(source, _STORAGES, budget, refer=_storage_claim).run() for _ in range(5)]
    magic, version, system, claim, keys = items
    if magic != LEGACY_MAGIC or version != LEGACY_VERSION or not isinstance(system, dict):
        raise damaged("the data of a tensor in it is not as torch writes it")
    if system.get("little_endian") is not True:
        raise CheckpointError("The file was written on a big-endian machine; save it again on an ordinary one.")
    if not isinstance(claim, StorageClaim) or not isinstance(keys, list) or keys != [claim.key]:
        raise damaged("the data of a tensor in it is not as torch writes it")
    numel = struct.unpack("<q", source.read(8))[0]
    if numel != claim.numel or numel * ITEM_BYTES[claim.dtype] != source.left:
        raise damaged("a tensor in it claims more or fewer numbers than it has")
    return Storage(claim.dtype, numel, source.span(source.left))


def _storage_claim(reference: Any) -> StorageClaim:
    """Record a storage's header, `('storage', class, key, place, numel, None)`; the place (cpu, cuda:0) is ignored."""
    if not isinstance(reference, tuple) or len(reference) != 6:
        raise damaged("the header of a tensor in it is not as torch writes it")
    word, kind, key, place, numel, view = reference
    plain = isinstance(kind, Allowed) and isinstance(key, str) and isinstance(place, str) and type(numel) is int
    if word != "storage" or not plain or numel < 0 or view is not None:
        raise damaged("the header of a tensor in it is not as torch writes it")
    return StorageClaim(kind.name, key, numel)


def _size(arguments: tuple) -> tuple:
    """Record `torch.Size(sizes)` as a tuple."""
    (sizes,) = _arguments(arguments, 1, 1)
    if not isinstance(sizes, tuple):
        raise damaged("a shape in it is not a tuple")
    return sizes


def _dictionary(arguments: tuple) -> dict:
    """Record an empty `OrderedDict()` or `EasyDict()`; its items follow as opcodes."""
    _arguments(arguments, 0, 0)
    return {}


def _set(arguments: tuple) -> set:
    """Record `set([...])`."""
    (items,) = _arguments(arguments, 1, 1)
    if not isinstance(items, list | tuple) or len(items) > MAX_SET:
        raise damaged("a set in it is not made from a short list")
    return {check_key(item) for item in items}


def _numpy_type(arguments: tuple) -> NumpyType:
    """Record `numpy.dtype(code, align, copy)`; plain numbers only, never objects or text."""
    code = _arguments(arguments, 1, 3)[0]
    if not isinstance(code, str) or code not in NUMPY_CODES:
        raise CheckpointError(f"The file holds numpy data of type '{shown(code)}', not plain numbers; it was refused.")
    return NumpyType(code)


def _scalar(arguments: tuple) -> bool | int | float:
    """Record `numpy.core.multiarray.scalar(dtype, bytes)` as a Python number."""
    kind, data = _arguments(arguments, 2, 2)
    return Array().fill((), kind, data, False).numpy().item()


def _empty_array(arguments: tuple) -> Array:
    """Record `numpy.core.multiarray._reconstruct(ndarray, (0,), b'b')`; its state follows."""
    if _arguments(arguments, 3, 3)[0] is not _NDARRAY:
        raise damaged("an array in it is of an unknown class")
    return Array()


def _array_from_buffer(arguments: tuple) -> Array:
    """Record `numpy.core.numeric._frombuffer(bytes, dtype, shape, order)` of protocol 5."""
    data, kind, shape, order = _arguments(arguments, 4, 4)
    if order not in ("C", "F"):
        raise damaged("an array in it is in an unknown order")
    return Array().fill(shape, kind, data, order == "F")


def _network(arguments: tuple) -> Network:
    """Record an empty TensorFlow-era `Network()`; its state follows."""
    _arguments(arguments, 0, 0)
    return Network()


_NDARRAY = Allowed("ndarray")

_ALLOWED = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Allowed("module", _module),
    ("torch._utils", "_rebuild_parameter"): Allowed("parameter", _parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Allowed("parameter", _parameter),
    ("torch._utils", "_rebuild_tensor_v2"): Allowed("tensor", _tensor),
    ("torch", "Size"): Allowed("size", _size),
    ("collections", "OrderedDict"): Allowed("dict", _dictionary),
    ("dnnlib.util", "EasyDict"): Allowed("dict", _dictionary),
    ("dnnlib", "EasyDict"): Allowed("dict", _dictionary),
    ("dnnlib.tflib.network", "Network"): Allowed("network", _network),
    ("builtins", "set"): Allowed("set", _set),
    ("__builtin__", "set"): Allowed("set", _set),
    ("numpy", "dtype"): Allowed("dtype", _numpy_type),
    ("numpy", "ndarray"): _NDARRAY,
} | {
    (f"numpy.{core}.{module}", name): Allowed(name, record)
    for core in ("core", "_core")
    for module, name, record in (
        ("multiarray", "scalar", _scalar),
        ("multiarray", "_reconstruct", _empty_array),
        ("numeric", "_frombuffer", _array_from_buffer),
    )
}

_STORAGES = {
    ("torch", f"{name}Storage"): Allowed(code)
    for name, code in {
        "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "bf2", "Long": "i8", "Int": "i4", "Short": "i2",
        "Char": "i1", "Byte": "u1", "Bool": "b1",
    }.items()
}  # fmt: skip
