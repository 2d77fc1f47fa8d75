"""The folder of models: what is in it now, where a name leads, and how an upload gets in."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from stylegan.checkpoint.card import architecture, model_card
from stylegan.checkpoint.catalogue import Published
from stylegan.checkpoint.file import FOREIGN_SUFFIXES, Checkpoint, read_header, save_checkpoint
from stylegan.errors import CheckpointError
from stylegan.files import safe_name, write_atomic
from stylegan.networks.config import GeneratorConfig

SUFFIX = ".safetensors"
DIRECTIONS_SUFFIXES = (".directions.safetensors", ".mine.safetensors")


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

    def place(self, name: str) -> Path:
        """Where a new model of that name goes; CheckpointError when it cannot have the name."""
        target = self.path / (safe_name(name) + SUFFIX)
        if target.name.endswith(DIRECTIONS_SUFFIXES):
            raise CheckpointError(f"The name {name!r} is kept for directions; choose another one.")
        if target.exists():
            raise CheckpointError(f"There is a model {name!r} already; choose another name.")
        return target

    def add(self, file: str | Path, name: str | None = None, published: Published | None = None) -> ModelEntry:
        """Check a model file, convert it where it is foreign, and store it with its card; no model is replaced.

        Without a `name` it is called like the file. Raises CheckpointError when the file is no model, and when another
        model has that name.
        """
        target = self.place(plain_name(Path(file).stem) if name is None else name)
        checkpoint = import_model(file, target, published)
        return ModelEntry(target.stem, target, target.stat().st_size, checkpoint.config)

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
                if path.name.endswith(DIRECTIONS_SUFFIXES) or path.stem in found:
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


def plain_name(stem: str) -> str:
    """A usable model name from a file's name without its ending."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:64] or "model"


def download_model(published: Published, name: str, folder: Path, progress: Callable[[int, int | None], None],
                   mirrors: Collection[str] = ()) -> Path:
    """Fetch a published model into a hidden file of the folder, going on where an earlier download ended.

    `progress` and `mirrors` are the `progress` and `allow` of `download`, which also tells the errors.
    """
    from stylegan.checkpoint.download import download

    ending = Path(published.url.split("?")[0]).suffix or ".pkl"
    return download(published.url, folder / f".{name}.download{ending}", num_bytes=published.num_bytes,
                    sha256=published.sha256, progress=progress, allow=mirrors)


def import_model(source: str | Path, target: Path, published: Published | None = None,
                 half: bool = False) -> Checkpoint:
    """Turn a model file of any supported kind into ours at `target`, with its card beside it; nothing in it is run.

    Raises CheckpointError, one sentence, for anything that is no model.
    """
    from stylegan.checkpoint.convert import convert_file

    checkpoint = convert_file(source)
    offered = {"url": published.url, "licence": published.licence} if published else {}
    provenance = {"source": Path(source).name} | checkpoint.provenance | offered
    if published:
        provenance["source"] = published.url.split("?")[0].rpartition("/")[2]
    checkpoint = dataclasses.replace(checkpoint, provenance=provenance)
    save_checkpoint(target, checkpoint, half)
    write_atomic(target.with_suffix(".md"), model_card(target.stem, checkpoint, half).encode())
    return checkpoint


def report(checkpoint: Checkpoint) -> dict[str, str]:
    """What a model is and where it comes from, as label and text, for people to read."""
    provenance = checkpoint.provenance
    rows = {"Origin": provenance.get("origin", "a file of this program")} | architecture(checkpoint)
    for label, key in (("Source file", "source"), ("Source SHA-256", "sha256"), ("Licence", "licence")):
        if key in provenance:
            rows[label] = provenance[key]
    notes = provenance.get("notes")
    if isinstance(notes, list) and notes:
        rows["To mind"] = " ".join(map(str, notes))
    return {label: " ".join(str(text).split())[:600] for label, text in rows.items()}


def _config_of(path: Path) -> GeneratorConfig | CheckpointError | None:
    """The config of our file, None for a foreign one, or what is wrong with the file."""
    if path.suffix != SUFFIX:
        return None
    try:
        return read_header(path).config
    except CheckpointError as error:
        return error
