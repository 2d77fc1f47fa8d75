"""What every converter of a foreign checkpoint hands over, and the budget under which it copies tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stylegan.checkpoint.pickle_records import Array, Tensor, damaged, shown
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig


@dataclass
class Converted:
    """A foreign network in our words: config, float32 tensors by our names, origin, and what to tell people."""

    config: GeneratorConfig
    tensors: dict[str, np.ndarray]
    origin: str
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class Copies:
    """Copies numbers out of records as finite float32, until they are more than a file of that size can mean."""

    def __init__(self, num_bytes: int) -> None:
        self.left = 2 * num_bytes + (1 << 20)

    def take(self, record: Any) -> np.ndarray:
        """The numbers of one tensor, array or scalar as float32, in C order."""
        if isinstance(record, bool | int | float):
            record = np.array(record)
        elif not isinstance(record, Tensor | Array | np.ndarray):
            raise damaged("one of its tensors is something else")
        self.left -= record.nbytes
        if self.left < 0:
            raise damaged("its tensors hold more numbers than the file")
        numbers = record if isinstance(record, np.ndarray) else record.numpy()
        if numbers.dtype.kind != "f":
            raise damaged("one of its tensors does not hold fractions")
        numbers = np.require(numbers, np.float32, "C").reshape(numbers.shape)
        if not np.isfinite(numbers).all():
            raise CheckpointError("The file holds numbers that are not finite; use an earlier snapshot.")
        return numbers


def dictionary(value: Any) -> dict:
    """A dictionary, empty when the value is something else."""
    return value if isinstance(value, dict) else {}


def whole(values: dict, name: str, default: int | None = None) -> int:
    """A whole number among a file's settings."""
    value = values.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise CheckpointError(f"The file does not say the network's {name} as a whole number; it cannot be opened.")
    return value


def number(values: dict, name: str, default: float | None = None) -> float:
    """A finite number among a file's settings."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"The file does not say the network's {name} as a number; it cannot be opened.")
    return float(value)


def uniform(values: Iterable[Any], what: str) -> Any:
    """The one value that all layers share; a network whose layers differ in it is refused by name."""
    found = list(values)
    if not all(value is None or isinstance(value, bool | int | float | str) for value in found):
        raise damaged(f"its layers do not say {what} properly")
    if not found or any(type(value) is not type(found[0]) or value != found[0] for value in found):
        raise unsupported(f"layers that differ in {what}")
    return found[0]


def unsupported(what: str, remedy: str = "use a file made by the standard code") -> CheckpointError:
    """The error for a network that is understood but that no part of this program can draw."""
    return CheckpointError(f"This network has {shown(what)}, which is not supported; {remedy}.")


def widths_of(config: dict[str, Any], widths: list[int]) -> dict[str, Any]:
    """`channels` for a config whose base and maximum do not already give these block widths (4 pixels first)."""
    usual = [min(config["channel_base"] // (4 << i), config["channel_max"]) for i in range(len(widths))]
    return {} if usual == widths else {"channels": tuple(widths)}
