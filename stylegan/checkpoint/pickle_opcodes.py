"""A stack machine for pickle's opcodes that records calls and makes none; what may be named is given from outside."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stylegan.checkpoint.pickle_records import Array, Network, NumpyType, Source, damaged, shown
from stylegan.errors import CheckpointError

MAX_OPERATIONS = 300_000  # seven times a full 1024 px snapshot of three networks
MAX_TEXT = 8 << 20  # bytes of text in all
MAX_NAME = 256  # bytes of a module or attribute name
MAX_INTEGER = 16  # bytes of a long integer
MAX_KEY = 1 << 31
_U8, _U16, _U32, _U64, _I32, _F64 = map(struct.Struct, ("<B", "<H", "<I", "<Q", "<i", ">d"))


@dataclass(frozen=True, slots=True)
class Allowed:
    """A global that a file may name: what to record when the file calls it (None: it may only be named)."""

    name: str
    record: Callable[[tuple], Any] | None = None


@dataclass
class Budget:
    """What reading one file may still cost, nested pickles included."""

    operations: int = MAX_OPERATIONS
    text: int = MAX_TEXT

    def operation(self) -> None:
        """Count one opcode."""
        self.operations -= 1
        if self.operations < 0:
            raise CheckpointError("The file holds far more parts than any network, so reading it was given up.")

    def characters(self, count: int) -> None:
        """Count `count` bytes of text before they are read."""
        self.text -= count
        if self.text < 0:
            raise CheckpointError("The file holds far more text than any network, so reading it was given up.")


class Machine:
    """The stack, the memo and what each opcode does to them.

    `allowed` says which (module, name) pairs the file may use, `refer` what its persistent references mean (none: they
    are refused). A nested pickle gets a machine of its own and shares the budget.
    """

    def __init__(
        self,
        source: Source,
        allowed: dict[tuple[str, str], Allowed],
        budget: Budget,
        refer: Callable[[Any], Any] | None = None,
    ) -> None:
        self.source, self.allowed, self.budget, self.refer = source, allowed, budget, refer
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Carry out the opcodes up to STOP and return the one value left."""
        if self.source.read(1) != b"\x80" or not 2 <= self.source.read(1)[0] <= 5:
            raise CheckpointError("The file is no pickle of protocol 2 to 5, so no network can be read from it.")
        while (code := self.source.read(1)) != b".":
            self.budget.operation()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise CheckpointError(f"The file uses pickle opcode 0x{code.hex()}, as no network does; nothing ran.")
            operation(self)
        if len(self.stack) != 1 or self.marked:
            raise damaged("its end comes before all is said")
        return self.stack[0]

    def pop(self) -> Any:
        """Take the top of the stack."""
        if not self.stack:
            raise damaged("it takes more values than it gives")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        """Take the top `count` values, in the order they were pushed."""
        if len(self.stack) < count:
            raise damaged("it takes more values than it gives")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def pop_mark(self) -> list[Any]:
        """Take all values pushed since the last mark."""
        if not self.marked:
            raise damaged("it closes more than it opens")
        values, self.stack = self.stack, self.marked.pop()
        return values

    def top(self, kind: type) -> Any:
        """The container on top of the stack, which must be of that kind."""
        if not self.stack or type(self.stack[-1]) is not kind:
            raise damaged(f"it fills a {kind.__name__} that is not there")
        return self.stack[-1]

    def unpack(self, layout: struct.Structuct.Struct) -> Any:
        """The next number, laid out as `struct` says."""
        return layout.unpack(self.source.read(layout.size))[0]

    def mark(self) -> None:
        """MARK: begin a group of values."""
        self.marked.append(self.stack)
        self.stack = []

    def frame(self) -> None:
        """FRAME: a hint about how much to read at once, of no use here but still checked."""
        if self.unpack(_U64) > self.source.left:
            raise CheckpointError("The file ends too early; it was cut short, so download or copy it again.")

    def text(self, layout: struct.Struct) -> None:
        """BINUNICODE and its kin: push text."""
        count = self.unpack(layout)
        self.budget.characters(count)
        try:
            self.stack.append(self.source.read(count).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise damaged("a text in it is not UTF-8") from error

    def long_integer(self) -> None:
        """LONG1: push an integer of up to 16 bytes."""
        count = self.unpack(_U8)
        if count > MAX_INTEGER:
            raise damaged("an integer in it is far too long")
        self.stack.append(int.from_bytes(self.source.read(count), "little", signed=True))

    def marked_tuple(self) -> None:
        """TUPLE: make a tuple of all values since the mark."""
        values = self.pop_mark()
        self.stack.append(tuple(values))

    def append(self) -> None:
        """APPEND: add the top value to the list under it."""
        value = self.pop()
        self.top(list).append(value)

    def append_many(self) -> None:
        """APPENDS: add all values since the mark to the list under it."""
        values = self.pop_mark()
        self.top(list).extend(values)

    def add_many(self) -> None:
        """ADDITEMS: add all values since the mark to the set under it."""
        values = self.pop_mark()
        self.top(set).update(map(check_key, values))

    def set_items(self, values: list[Any]) -> None:
        """SETITEM(S): put key and value pairs into the dictionary under them."""
        if len(values) % 2:
            raise damaged("a key in it has no value")
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[check_key(key)] = value

    def put(self, index: int) -> None:
        """PUT: remember the top of the stack under a number."""
        if not self.stack or index > MAX_OPERATIONS:
            raise damaged("it numbers its parts beyond all measure")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        """GET: push what was remembered under a number."""
        if index not in self.memo:
            raise damaged("it refers to a part that is not there")
        self.stack.append(self.memo[index])

    def named_global(self) -> None:
        """GLOBAL: push what two lines of text name."""
        module, name = self.source.line(MAX_NAME), self.source.line(MAX_NAME)
        self.find(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))

    def stacked_global(self) -> None:
        """STACK_GLOBAL: push what the two texts on the stack name."""
        module, name = self.pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise damaged("a name in it is not text")
        self.find(module, name)

    def find(self, module: str, name: str) -> None:
        """Push the allowed global of exactly that module and name; anything else ends the reading."""
        if (module, name) not in self.allowed:
            raise _refused_global(module, name)
        self.stack.append(self.allowed[module, name])

    def call(self) -> None:
        """REDUCE and NEWOBJ: push the record of a call; nothing is called but our own record maker."""
        function, arguments = self.pop_many(2)
        if not isinstance(function, Allowed) or function.record is None or type(arguments) is not tuple:
            raise damaged("it calls something that cannot be called")
        self.stack.append(function.record(arguments))

    def build(self) -> None:
        """BUILD: give the state on the stack to the record under it."""
        record, state = self.pop_many(2)
        if isinstance(record, NumpyType):
            record.build(state)
        elif isinstance(record, Array) and isinstance(state, tuple) and len(state) == 5:
            record.fill(shape=state[1], kind=state[2], fortran=state[3], data=state[4])
        elif isinstance(record, Network) and isinstance(state, dict):
            record.state = state
        else:
            raise damaged("it sets the state of something that has none")
        self.stack.append(record)

    def reference(self) -> None:
        """BINPERSID: push what a reference to something outside the pickle means."""
        if self.refer is None:
            raise damaged("it refers to something outside itself")
        self.stack.append(self.refer(self.pop()))


def check_key(value: Any) -> str | int:
    """A dictionary key: text or a small integer, so that hashing can neither recurse nor collide at will."""
    if type(value) is not str and not (type(value) is int and abs(value) <= MAX_KEY):
        raise damaged("a key in it is neither text nor a number")
    return value


def _refused_global(module: str, name: str) -> CheckpointError:
    """The error for a global that is not on the list, by name where the file is of a known other kind."""
    for origin, prefixes in _KNOWN_ORIGINS.items():
        if module.split(".")[0] in prefixes:
            return CheckpointError(f"The file is {origin}; nothing in it was run.")
    return CheckpointError(
        f"The file asks for '{shown(f'{module}.{name}')}', which no network needs; nothing in it was run."
    )


_KNOWN_ORIGINS = {
    "a Progressive GAN pickle, which is not supported; use a StyleGAN file": {"tfutil", "network"},
    "written by Python 2, which is not supported; save it again with Python 3": {"_codecs", "copy_reg"},
    "a StyleGAN-XL snapshot or a fork that stores parts of other libraries, which is not supported; "
    "use a StyleGAN2 or StyleGAN3 file": {"timm", "pg_modules", "feature_networks", "dill", "torchvision"},
}


def _push(make: Callable[[], Any]) -> Callable[[Machine], None]:
    """An operation that pushes a new value."""
    return lambda machine: machine.stack.append(make())


def _number(layout: struct.Struct) -> Callable[[Machine], None]:
    """An operation that pushes the number that follows it."""
    return lambda machine: machine.stack.append(machine.unpack(layout))


def _bytes(layout: struct.Struct) -> Callable[[Machine], None]:
    """An operation that pushes the place of the bytes that follow it."""
    return lambda machine: machine.stack.append(machine.source.span(machine.unpack(layout)))


def _text(layout: struct.Struct) -> Callable[[Machine], None]:
    """An operation that pushes the text that follows it."""
    return lambda machine: machine.text(layout)


def _group(count: int) -> Callable[[Machine], None]:
    """An operation that makes a tuple of the top `count` values."""
    return lambda machine: machine.stack.append(tuple(machine.pop_many(count)))


_OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"(": Machine.mark, b"\x95": Machine.frame,
    b"N": _push(lambda: None), b"\x88": _push(lambda: True), b"\x89": _push(lambda: False),
    b"J": _number(_I32), b"K": _number(_U8), b"M": _number(_U16), b"G": _number(_F64), b"\x8a": Machine.long_integer,
    b"\x8c": _text(_U8), b"X": _text(_U32), b"\x8d": _text(_U64),
    b"C": _bytes(_U8), b"B": _bytes(_U32), b"\x8e": _bytes(_U64), b"\x96": _bytes(_U64),
    b"]": _push(list), b"}": _push(dict), b")": _push(tuple), b"\x8f": _push(set),
    b"a": Machine.append, b"e": Machine.append_many, b"\x90": Machine.add_many,
    b"s": lambda machine: machine.set_items(machine.pop_many(2)),
    b"u": lambda machine: machine.set_items(machine.pop_mark()),
    b"t": Machine.marked_tuple, b"\x85": _group(1), b"\x86": _group(2), b"\x87": _group(3),
    b"q": lambda machine: machine.put(machine.unpack(_U8)), b"r": lambda machine: machine.put(machine.unpack(_U32)),
    b"\x94": lambda machine: machine.put(len(machine.memo)),
    b"h": lambda machine: machine.get(machine.unpack(_U8)), b"j": lambda machine: machine.get(machine.unpack(_U32)),
    b"c": Machine.named_global, b"\x93": Machine.stacked_global,
    b"R": Machine.call, b"\x81": Machine.call, b"b": Machine.build, b"Q": Machine.reference,
}  # fmt: skip
