"""One declaration per setting: `option()` gives the dataclass field, its check, the command-line flag and the help."""

from __future__ import annotations

import argparse
import math
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, TypeVar

from stylegan.errors import RequestError, StyleGANError

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What is known of one setting: its help, range `low`..`high` (both allowed), slider step, choices and flag.

    `parse` turns a flag's text into the value, `show` turns a value into text, `repeat` means that the flag may be
    given several times and the values form a tuple, `hidden` that it has no flag.
    """

    help: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple | None = None
    flag: str | None = None
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    show: Callable[[Any], str] | None = None
    repeat: bool = False
    hidden: bool = False
    default: Any = field(default_factory=lambda: MISSING)
    kind: Any = None

    @property
    def required(self) -> bool:
        """True when there is no default."""
        return self.default is MISSING

    def text(self, value: Any) -> str:
        """The value as the flag takes it, whole numbers without a decimal point."""
        if self.show:
            return self.show(value)
        return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, step: float | None = None,
           choices: Collection | None = None, flag: str | None = None, metavar: str | None = None,
           parse: Callable[[str], Any] | None = None, show: Callable[[Any], str] | None = None,
           repeat: bool = False, hidden: bool = False) -> Any:
    """Declare one setting of a dataclass; `default` may be dataclasses.MISSING for a setting that must be given."""
    chosen = None if choices is None else tuple(choices)
    about = Option(help, low, high, step, chosen, flag, metavar, parse, show, repeat, hidden)
    return field(default=default, metadata={"option": about})


@cache
def options_of(cls: type) -> dict[str, Option]:
    """Every setting of a dataclass by field name, in order, with its default and type filled in."""
    hints = typing.get_type_hints(cls)
    return {item.name: _complete(item, hints[item.name]) for item in fields(cls) if "option" in item.metadata}


def option_of(cls: type, name: str) -> Option:
    """One setting of a dataclass; KeyError when there is no such setting."""
    return options_of(cls)[name]


def add_arguments(parser: argparse.ArgumentParser, cls: type, only: Collection[str] | None = None,
                  skip: Collection[str] = ()) -> None:
    """Give `parser` one flag per setting of `cls`; a flag that is not given leaves no attribute behind."""
    for name, about in options_of(cls).items():
        if about.hidden or name in skip or (only is not None and name not in only):
            continue
        flag = about.flag or "--" + name.replace("_", "-")
        common = {"dest": name, "default": argparse.SUPPRESS, "required": about.required, "help": _help(about)}
        if _plain(about.kind) is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            parser.add_argument(flag, type=_reader(about), choices=about.choices, metavar=_metavar(name, about),
                                action="append" if about.repeat else "store", **common)


def from_namespace(cls: type[T], namespace: argparse.Namespace, **overrides: Any) -> T:
    """Build `cls` from the flags that were given; `overrides` win, defaults fill the rest."""
    given = {name: getattr(namespace, name) for name in options_of(cls) if hasattr(namespace, name)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return cls(**{**given, **overrides})


def check(instance: Any) -> None:
    """Raise RequestError when a setting has the wrong type, is not finite, out of range or not among its choices.

    Whole numbers in float settings and lists in tuple settings are converted in place; call it in `__post_init__`.
    """
    for name, about in options_of(type(instance)).items():
        value = getattr(instance, name)
        if value is None and _optional(about.kind):
            continue
        kind = _plain(about.kind)
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
            object.__setattr__(instance, name, value)
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
            object.__setattr__(instance, name, value)
        _check_value(name, value, kind, about)


def _check_value(name: str, value: Any, kind: Any, about: Option) -> None:
    """Raise RequestError unless `value` fits the setting."""
    if isinstance(kind, type) and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
        raise RequestError(f"{name} must be {_KINDS.get(kind, kind.__name__)}, not {_short(value)}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{name} must be a finite number, not {value}.")
    if about.choices is not None and value not in about.choices:
        raise RequestError(f"{name} must be one of {', '.join(map(str, about.choices))}, not {_short(value)}.")
    low, high = about.low, about.high
    if isinstance(value, int | float) and ((low is not None and value < low) or (high is not None and value > high)):
        raise RequestError(f"{name} must be {_range(low, high)}, not {value}.")


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "a list"}


def _complete(item: Field, kind: Any) -> Option:
    """The option of a field with its default, type and, for Literal types, choices."""
    about: Option = item.metadata["option"]
    if about.choices is None and typing.get_origin(_plain(kind)) is typing.Literal:
        about = replace(about, choices=typing.get_args(_plain(kind)))
    return replace(about, default=item.default, kind=kind)


def _optional(kind: Any) -> bool:
    """True for `X | None`."""
    return typing.get_origin(kind) in (types.UnionType, typing.Union) and type(None) in typing.get_args(kind)


def _plain(kind: Any) -> Any:
    """`int` of `int | None`, `tuple` of `tuple[str, ...]`, and anything else as it is."""
    if _optional(kind):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    origin = typing.get_origin(kind)
    return origin if isinstance(origin, type) else kind


def _reader(about: Option) -> Callable[[str], Any]:
    """What turns a flag's text into the value."""
    kind = _plain(about.kind)
    parse = about.parse or (kind if kind in (int, float) else str)

    def read(text: str) -> Any:
        try:
            return parse(text)
        except StyleGANError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        except ValueError:
            raise argparse.ArgumentTypeError(f"{_short(text)} is not {_KINDS.get(kind, 'a usable value')}") from None

    return read


def _metavar(name: str, about: Option) -> str | None:
    """What stands for the value in the help; choices are listed by argparse itself."""
    if about.metavar or about.choices:
        return about.metavar
    return {int: "N", float: "X"}.get(_plain(about.kind), name.upper())


def _help(about: Option) -> str:
    """The help with range and default, with % made safe for argparse."""
    extra = []
    if about.low is not None or about.high is not None:
        extra.append(_range(about.low, about.high))
    if about.default not in (MISSING, None, "", ()):
        extra.append(f"default {about.text(about.default)}")
    return (about.help + (f" ({'; '.join(extra)})" if extra else "")).replace("%", "%%")


def _range(low: float | None, high: float | None) -> str:
    """A range in words."""
    if low is None or high is None:
        return f"at least {low}" if high is None else f"at most {high}"
    return f"between {low} and {high}"


def _short(value: Any) -> str:
    """A value as it is shown in a message, never long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
