"""Models in memory: loaded when they are asked for, refused when they do not fit, kept as long as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from stylegan.checkpoint.file import build, model_hash, read_any, read_header
from stylegan.checkpoint.folder import ModelFolder
from stylegan.device import autocast_dtype, free_memory, total_memory
from stylegan.directions.store import all_directions, direction_files, file_stamps
from stylegan.engines.choose import ChosenEngine
from stylegan.engines.gpu import GpuEngine, gpu_dtype
from stylegan.engines.plain import PlainEngine
from stylegan.engines.walk import Engine
from stylegan.errors import CheckpointError
from stylegan.latents import Direction
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import Generator

LAYOUT_FACTOR = 5  # a weight itself, and at most four times as much where it is laid out for Winograd's convolutions
KEPT_SHARE = 4  # models keep at most this part of the memory, unless told otherwise


@dataclass(eq=False)
class Pace:
    """How long each piece lately took, by engine."""

    seconds: dict[str, dict[int, deque[float]]] = field(default_factory=dict)

    def note(self, engine: str, first: int, seconds: Iterable[float]) -> None:
        """Remember what the pieces from `first` on took."""
        known = self.seconds.setdefault(engine, {})
        for index, taken in enumerate(seconds, start=first):
            known.setdefault(index, deque(maxlen=9)).append(taken)

    def expected(self, engine: str, first: int, last: int) -> float | None:
        """The seconds that the pieces `first` to `last` should take; None when one of them never ran.

        The quickest of the last runs counts: a first run, or a busy moment, says little about the next one, and pieces
        that a preview leaves out would never be timed again.
        """
        known = self.seconds.get(engine, {})
        if not all(index in known for index in range(first, last + 1)):
            return None
        return sum(min(known[index]) for index in range(first, last + 1))


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory: its name, network, hash, provenance, and directions by name; `problem` says why the
    directions beside it could not be used, and is empty when they could; `stamps` tells when their files change.

    `exact` makes the pictures that are kept, always with the same bits; `quick` those that move; `pace` is how long
    their pieces take; `num_bytes` is what the model holds in memory at most.
    """

    name: str
    generator: Generator
    hash: str
    provenance: dict
    exact: Engine
    quick: Engine
    pace: Pace
    num_bytes: int
    directions: dict[str, Direction] = field(default_factory=dict)
    problem: str = ""
    stamps: tuple = ()


class Models:
    """The models of a folder in memory on one device: at most `max_bytes` of them, but always the last used one.

    `turn` gives the device to whoever looks for a quicker engine in the background.
    """

    def __init__(
        self, folder: ModelFolder, device: torch.device, max_bytes: int | None,
        turn: Callable[[], AbstractContextManager],
    ) -> None:  # fmt: skip
        self.folder, self.device, self.turn = folder, device, turn
        self.max_bytes = max_bytes if max_bytes is not None else (total_memory(device) or 8 << 30) // KEPT_SHARE
        self._loaded: OrderedDict[tuple, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._loaded)

    @property
    def names(self) -> list[str]:
        """The models in memory, the last used one at the end."""
        return [model.name for model in self._loaded.values()]

    def get(self, name: str) -> LoadedModel:
        """A model by name or path, loaded when it is not in memory or its files have changed."""
        path = self.folder.find(name)
        key = (path.resolve(), _stamp(path))
        with self._lock:
            if key not in self._loaded:
                self._loaded = OrderedDict((old, model) for old, model in self._loaded.items() if old[0] != key[0])
                self._make_room(path)
                self._loaded[key] = self._load(path)
            self._loaded[key] = self._with_directions(self._loaded[key], path)
            self._loaded.move_to_end(key)
            while len(self._loaded) > 1 and sum(model.num_bytes for model in self._loaded.values()) > self.max_bytes:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def _make_room(self, path: Path) -> None:
        """Let go of models until this one fits; CheckpointError with the numbers when it never will."""
        needed = memory_needed(path)
        room = free_memory(self.device)
        while room is not None and room < needed and self._loaded:
            room += self._loaded.popitem(last=False)[1].num_bytes
        if room is not None and room < needed:
            raise CheckpointError(
                f"{path.name} needs about {_gigabytes(needed)} of memory to be opened and drawn, "
                f"but {_gigabytes(room)} is free; close other programs or take a smaller model.")

    def _load(self, path: Path) -> LoadedModel:
        """Read a model."""
        checkpoint = read_any(path)
        digest = model_hash(checkpoint)
        generator = build(checkpoint).to(self.device)
        exact = PlainEngine(generator.synthesis)
        quick = self._quick(generator, exact, digest)
        num_bytes = LAYOUT_FACTOR * sum(value.nbytes for value in generator.state_dict().values())
        return LoadedModel(path.stem, generator, digest, checkpoint.provenance, exact, quick, Pace(), num_bytes)

    def _quick(self, generator: Generator, exact: Engine, digest: str) -> Engine:
        """The engine for pictures that move, on this device."""
        synthesis = generator.synthesis
        dtype = autocast_dtype(self.device)
        if self.device.type == "cuda":
            return GpuEngine(synthesis, gpu_dtype(dtype == torch.bfloat16))
        if self.device.type != "cpu":
            return exact
        first = exact if dtype == torch.float32 else PlainEngine(synthesis, dtype)
        return ChosenEngine(synthesis, first, digest, self.folder.path / ".cache" / "engines", self.turn, dtype)

    def _with_directions(self, model: LoadedModel, path: Path) -> LoadedModel:
        """The model with its directions as they are now: shipped, the user's own, found; read again when changed."""
        files = direction_files(path, model.hash, self.folder.path)
        stamps = file_stamps(files.values())
        if stamps == model.stamps:
            return model
        directions, problem = all_directions(path, model.hash, self.folder.path)
        return replace(model, directions=directions, problem=problem, stamps=stamps)


def memory_needed(path: Path) -> int:
    """Bytes that a model file takes in memory at most, once its pictures are drawn; foreign files by their size."""
    if path.suffix != ".safetensors":
        return LAYOUT_FACTOR * path.stat().st_size
    header = read_header(path)
    return 4 * LAYOUT_FACTOR * header.num_parameters + activation_bytes(header.config)


def activation_bytes(config: GeneratorConfig) -> int:
    """Bytes of one picture's features while it is drawn: six times the largest layer, as measured."""
    if config.family == "stylegan3":
        largest = max(spec.out_channels * max(spec.tmp_size, spec.out_size) ** 2 for spec in config.layers)
    else:
        largest = max(config.width(resolution) * resolution**2 for resolution in config.block_resolutions)
    return 4 * 6 * largest


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None when there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return about.st_mtime_ns, about.st_size


def _gigabytes(num_bytes: int) -> str:
    """A number of bytes for people."""
    return f"{num_bytes / 1e9:.1f} GB"
