"""What a network pickle says, as inert records: bytes stay in the file until a tensor is copied out; numpy only."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from stylegan.errors import CheckpointError

MAX_DEPTH = 100  # nesting of containers; published files need about 30
MAX_RANK = 8
CHUNK = 4096  # bytes read ahead
MAX_MODULES = 2000  # published networks have about 100
MAX_ENTRIES = 1000  # parameters, buffers or parts of one module
NUMPY_CODES = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split())


def shown(text: object, limit: int = 60) -> str:
    """Text from a file made fit for a message: printable ASCII, at most `limit` characters."""
    text = str(text) if text is None or isinstance(text, str | bool | int | float) else type(text).__name__
    plain = "".join(character if " " <= character <= "~" else "?" for character in text[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def damaged(what: str) -> CheckpointError:
    """The error for a file that is not laid out as its writer would have done."""
    return CheckpointError(f"The file is damaged or was tampered with: {what}; get it again from a source you trust.")


class Source:
    """A window of an open file; every read is checked against what is really there before memory is taken."""

    __slots__ = ("file", "position", "end", "_chunk", "_first")

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self.file, self.position, self.end = file, start, end
        self._chunk, self._first = b"", start

    @property
    def left(self) -> int:
        """Bytes between the position and the end of the window."""
        return self.end - self.position

    def read(self, count: int) -> bytes:
        """The next `count` bytes; CheckpointError when the window ends before."""
        begin = self.position - self._first
        self._take(count)
        if 0 <= begin and begin + count <= len(self._chunk):
            return self._chunk[begin : begin + count]
        self._first = self.position - count
        self.file.seek(self._first)
        self._chunk = self.file.read(min(max(count, CHUNK), self.end - self._first))
        if len(self._chunk) < count:
            raise CheckpointError("The file ends too early; it was cut short, so download or copy it again.")
        return self._chunk[:count]

    def line(self, limit: int) -> bytes:
        """The next line without its line feed, at most `limit` bytes long."""
        start = self.position
        data, found, _ = self.read(min(limit, self.left)).partition(b"\n")
        if not found:
            raise damaged("a name in it does not end")
        self.position = start + len(data) + 1
        return data

    def span(self, count: int) -> Span:
        """The next `count` bytes as a place in the file, not read yet."""
        self._take(count)
        return Span(self.file, self.position - count, count)

    def _take(self, count: int) -> None:
        """Move on by `count` bytes if they exist."""
        if count > self.left:
            raise CheckpointError("The file ends too early; it was cut short, so download or copy it again.")
        self.position += count


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """A byte string that is still in the file."""

    file: BinaryIO
    start: int
    length: int

    def source(self) -> Source:
        """A reader over these bytes."""
        return Source(self.file, self.start, self.start + self.length)

    def numbers(self, dtype: np.dtype, first: int, count: int) -> np.ndarray:
        """Copy `count` numbers out, starting with number `first`; the caller has checked that they are inside."""
        flat = np.empty(count, dtype)
        self.file.seek(self.start + first * dtype.itemsize)
        if self.file.readinto(memoryview(flat).cast("B")) != flat.nbytes:
            raise CheckpointError("The file ends too early; it was cut short, so download or copy it again.")
        return flat


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A torch storage: numbers of one type, one after another."""

    dtype: str
    numel: int
    data: Span


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A strided view of a storage whose bounds were checked when it was made."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy."""
        return math.prod(self.shape) * np.dtype(self.storage.dtype.replace("bf2", "f4")).itemsize

    def numpy(self) -> np.ndarray:
        """A writable C-order copy in native byte order; bfloat16 becomes float32 (exactly)."""
        code = self.storage.dtype
        dtype = np.dtype("<u2" if code == "bf2" else "<" + code)
        if 0 in self.shape:
            return np.empty(self.shape, dtype)
        extent = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)) + 1
        flat = self.storage.data.numbers(dtype, self.offset, extent)
        steps = tuple(step * dtype.itemsize for step in self.stride)
        view = np.lib.stride_tricks.as_strided(flat, self.shape, steps)
        if code == "bf2":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(view, dtype.newbyteorder("=")).reshape(self.shape)


class NumpyType:
    """A numpy dtype: size and kind from the call, byte order from the state that follows."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def build(self, state: Any) -> None:
        """Take the byte order from the pickled state `(version, order, None, None, None, -1, -1, 0)`."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise damaged("a number type in it is of an unknown kind")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype:
        """The real dtype, never of objects."""
        return np.dtype(self.order.replace("|", "<") + self.code)


class Array:
    """A numpy array: empty as `_reconstruct` makes it, filled by the state that follows."""

    __slots__ = ("shape", "kind", "data", "fortran")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.kind: NumpyType | None = None
        self.data: Span | None = None
        self.fortran = False

    def fill(self, shape: Any, kind: Any, data: Any, fortran: Any) -> Array:
        """Take shape, type and bytes after checking that they belong together."""
        check_sizes(shape)
        if not isinstance(kind, NumpyType) or not isinstance(data, Span) or not isinstance(fortran, bool | int):
            raise damaged("an array in it is not made of plain numbers")
        if math.prod(shape) * kind.dtype.itemsize != data.length:
            raise damaged("an array in it has another size than its data")
        self.shape, self.kind, self.data, self.fortran = shape, kind, data, bool(fortran)
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy."""
        return self.data.length if self.data else 0

    def numpy(self) -> np.ndarray:
        """A writable C-order copy in native byte order."""
        if self.shape is None or self.kind is None or self.data is None:
            raise damaged("an array in it was never filled")
        dtype = self.kind.dtype
        flat = self.data.numbers(dtype, 0, math.prod(self.shape))
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(self.shape)


@dataclass(frozen=True, eq=False, slots=True)
class Module:
    """A persistent torch object: the name of its class, the text it was defined by (never used), its `__dict__`."""

    class_name: str
    source: str
    state: dict

    def entries(self, table: str) -> dict:
        """`_parameters`, `_buffers` or `_modules` by name, without the absent ones."""
        found = self.state.get(table, {})
        if not isinstance(found, dict) or len(found) > MAX_ENTRIES or not all(isinstance(name, str) for name in found):
            raise damaged(f"a {shown(self.class_name)} in it has no proper {table}")
        return {name: value for name, value in found.items() if value is not None}

    def child(self, name: str) -> Module | None:
        """The sub-module of that name, if there is one."""
        found = self.entries("_modules").get(name)
        return found if isinstance(found, Module) else None

    def modules(self) -> dict[str, Module]:
        """Every module by its dotted path (itself under ''), as torch's `named_modules` would call them."""
        found: dict[str, Module] = {}
        waiting: deque[tuple[str, Module]] = deque([("", self)])
        while waiting:
            path, module = waiting.popleft()
            found[path] = module
            if len(found) + len(waiting) > MAX_MODULES:
                raise damaged("its modules contain each other without end")
            for name, child in module.entries("_modules").items():
                if not isinstance(child, Module):
                    raise damaged(f"its part '{shown(name)}' is not a network module")
                waiting.append((f"{path}.{name}" if path else name, child))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its dotted name, as torch's `state_dict` would call them."""
        found = {}
        for path, module in self.modules().items():
            for name, tensor in (module.entries("_parameters") | module.entries("_buffers")).items():
                if not isinstance(tensor, Tensor):
                    raise damaged(f"its entry '{shown(name)}' is not a tensor")
                found[f"{path}.{name}" if path else name] = tensor
        return found


class Network:
    """A TensorFlow-era `dnnlib.tflib.Network`: variables by name, arguments, components."""

    def __init__(self) -> None:
        self.state: dict = {}


def check_sizes(shape: Any) -> None:
    """Refuse a shape that is not a short tuple of sensible sizes."""
    if not isinstance(shape, tuple) or len(shape) > MAX_RANK:
        raise damaged("a tensor in it has no proper shape")
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise damaged("a tensor in it has an impossible size")


def make_tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Tensor:
    """A tensor whose every element lies inside its storage and which is no larger than it."""
    check_sizes(shape)
    check_sizes(stride)
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or len(shape) != len(stride):
        raise damaged("a tensor in it is not laid out properly")
    count = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if count > storage.numel or (count and last >= storage.numel):
        raise damaged("a tensor in it reaches past its own data")
    return Tensor(storage, offset, shape, stride)


def check_tree(root: Any) -> None:
    """Refuse data nested deeper than any network needs, visiting every object once."""
    seen: set[int] = set()
    level = [root]
    for _ in range(MAX_DEPTH):
        following = []
        for value in level:
            if isinstance(value, dict | list | tuple | set | Module | Network) and id(value) not in seen:
                seen.add(id(value))
                following.extend(_children(value))
        if not following:
            return
        level = following
    raise damaged("data in it is nested without end")


def _children(value: Any) -> list:
    """The values directly inside a container or record."""
    if isinstance(value, dict):
        return list(value.values())
    return [value.state] if isinstance(value, Module | Network) else list(value)
