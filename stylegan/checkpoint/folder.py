"""The folder of models: what is in it now, where a name leads, and how an upload gets in."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stylegan.checkpoint.file import FOREIGN_SUFFIXES, build, read_any, read_header, save_checkpoint
from stylegan.errors import CheckpointError
from stylegan.files import safe_name
from stylegan.networks.config import GeneratorConfig

SUFFIX = ".safetensors"
DIRECTIONS_SUFFIX = ".directions.safetensors"


@dataclass(frozen=True)
class ModelEntry:
    """One model of the folder; `config` is None for a foreign file, which is converted when it is loaded."""

    name: str
    path: Path
    num_bytes: int
    config: GeneratorConfig | None

    @property
    def summary(self) -> str:
        """One line for people: family, size in pixels, classes."""
        if self.config is None:
            return f"{self.path.suffix[1:]} file, converted when opened"
        classes = f", {self.config.num_classes} classes" if self.config.num_classes else ""
        return f"{self.config.family}, {self.config.resolution} px{classes}"


class ModelFolder:
    """The models in a folder, looked at anew on every call; a file is read again only when it has changed.

    A name is a file's name without its ending. Paths are accepted too: any path when `roots` is None, otherwise only
    paths inside the folder or one of the roots, which is what a page on the network needs.
    """

    def __init__(self, path: str | Path = "checkpoints", roots: Iterable[str | Path] | None = None) -> None:
        self.path = Path(path)
        self.roots = None if roots is None else tuple(Path(root) for root in (path, *roots))
        self._seen: dict[Path, tuple[tuple[int, int], GeneratorConfig | CheckpointError | None]] = {}
        self._lock = threading.Lock()

    def list(self) -> list[ModelEntry]:
        """The models that can be opened, by name."""
        return [ModelEntry(path.stem, path, num_bytes, found) for path, num_bytes, found in self._look()
                if not isinstance(found, CheckpointError)]

    def problems(self) -> dict[str, str]:
        """The files that look like models but cannot be opened, with one sentence each."""
        return {path.name: str(found) for path, _, found in self._look() if isinstance(found, CheckpointError)}

    def find(self, name_or_path: str | Path) -> Path:
        """The file of a model's name or path; CheckpointError that names the models there are."""
        text = str(name_or_path)
        for path, _, _ in self._look():
            if text in (path.stem, path.name):
                return path
        path = Path(text)
        if path.suffix.lower() in (SUFFIX, *FOREIGN_SUFFIXES) and self._allows(path) and path.is_file():
            return path
        names = [entry.name for entry in self.list()]
        there = f"there are: {', '.join(names[:20])}" if names else "it holds no model yet"
        raise CheckpointError(f"No model {text[:80]!r} in {self.path.name or self.path}; {there}.")

    def add(self, upload: str | Path, name: str | None = None) -> ModelEntry:
        """Check a model file, convert it where it is foreign, and store it under `name`; an existing model is kept.

        Raises CheckpointError when the file is no model, and when another model has that name.
        """
        upload = Path(upload)
        name = safe_name(name if name is not None else upload.stem)
        checkpoint = read_any(upload)
        build(checkpoint)
        target = self.path / (name + SUFFIX)
        if target.name.endswith(DIRECTIONS_SUFFIX):
            raise CheckpointError(f"The name {name!r} is kept for directions; choose another one.")
        if target.exists():
            raise CheckpointError(f"There is a model {name!r} already; choose another name.")
        save_checkpoint(target, checkpoint)
        return ModelEntry(name, target, target.stat().st_size, checkpoint.config)

    def _allows(self, path: Path) -> bool:
        """True when a path may be opened: anywhere without roots, else only inside one."""
        if self.roots is None:
            return True
        return any(path.resolve().is_relative_to(root.resolve()) for root in self.roots)

    def _look(self) -> list[tuple[Path, int, GeneratorConfig | CheckpointError | None]]:
        """Every model file with its size and its config or its problem; of two files of one name ours comes first."""
        try:
            paths = sorted(self.path.iterdir(), key=lambda path: (path.stem, path.suffix != SUFFIX))
        except OSError:
            return []
        found: dict[str, tuple[Path, int, GeneratorConfig | CheckpointError | None]] = {}
        with self._lock:
            for path in paths:
                if path.suffix not in (SUFFIX, *FOREIGN_SUFFIXES) or path.name.startswith("."):
                    continue
                if path.name.endswith(DIRECTIONS_SUFFIX) or path.stem in found:
                    continue
                try:
                    about = path.stat()
                except OSError:
                    continue
                stamp = (about.st_mtime_ns, about.st_size)
                if path not in self._seen or self._seen[path][0] != stamp:
                    self._seen[path] = (stamp, _config_of(path))
                found[path.stem] = (path, about.st_size, self._seen[path][1])
            self._seen = {path: self._seen[path] for path, _, _ in found.values()}
        return list(found.values())


def _config_of(path: Path) -> GeneratorConfig | CheckpointError | None:
    """The config of our file, None for a foreign one, or what is wrong with the file."""
    if path.suffix != SUFFIX:
        return None
    try:
        return read_header(path).config
    except CheckpointError as error:
        return error
