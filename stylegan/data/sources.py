"""Reading bytes from places nobody vouches for: a folder, a zip or single files, seen as a flat list of members."""

from __future__ import annotations

import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from stylegan.errors import DataError

MAX_MEMBER_BYTES = 64 * 2**20
MAX_MEMBERS = 1_000_000
MAX_TOTAL_BYTES = 256 * 2**30
METADATA = ("dataset.json", "labels.json")
MAX_NOTICES = 16
_NOTICES = ("readme", "license", "licence", "copying", "notice", "attribution")
_NOTICE_ENDS = (*_NOTICES, ".md", ".txt", ".rst", ".html")
VIDEO_ENDS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv")
_LEFTOVERS = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Member:
    """One readable file of a source: its relative posix name and its size in bytes once inflated."""

    name: str
    num_bytes: int


@dataclass
class Source:
    """A place to read from: what it holds, what of it cannot be read and why, metadata, licences, readmes, videos.

    `is_loose` for single files that somebody named one by one.
    """

    path: Path
    members: list[Member] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    is_loose: bool = False

    def video(self, name: str) -> Path | bytes:
        """Where to read one of `videos` from: its file, or its bytes inside an archive; OSError when too large."""
        return self.read(name)

    def read(self, name: str) -> bytes:
        """The bytes of a member or metadata file, at most MAX_MEMBER_BYTES; OSError when that is not possible."""
        raise NotImplementedError

    def _take(self, name: str, num_bytes: int) -> None:
        """Files one entry under what it is; what an operating system left is left out."""
        parts = PurePosixPath(name).parts
        base = parts[-1].lower()
        if base in _LEFTOVERS or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            return
        if base.endswith(VIDEO_ENDS):
            self.videos.append(name)
        elif num_bytes > MAX_MEMBER_BYTES:
            self.skipped.append((name, f"larger than {MAX_MEMBER_BYTES // 2**20} MB"))
        elif base in METADATA:
            known = self.metadata.setdefault(base, name)
            self.metadata[base] = min(known, name, key=lambda path: (path.count("/"), path))
        elif base.split(".")[0] in _NOTICES and base.endswith(_NOTICE_ENDS):
            self.notices += [name] if len(self.notices) < MAX_NOTICES else []
        else:
            self.members.append(Member(name, num_bytes))
        if len(self.members) > MAX_MEMBERS:
            raise DataError(f"{self.path.name} holds more than {MAX_MEMBERS:,} files; split it into smaller sets.")


class FilesSource(Source):
    """Single files that somebody named, as if they lay in one folder; of one name, the later ones are numbered."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths[0] if len(paths) == 1 else Path("files"), is_loose=True)
        self.paths = tuple(paths)
        self._places: dict[str, Path] = {}
        for path in sorted(paths, key=lambda path: path.name):
            name, number = path.name, 1
            while name in self._places:
                number += 1
                name = f"{path.stem} ({number}){path.suffix}"
            self._places[name] = path
            self._take(name, path.stat().st_size)

    def read(self, name: str) -> bytes:
        return _read_file(self._places[name])

    def video(self, name: str) -> Path | bytes:
        return self._places[name]


class FolderSource(Source):
    """A folder read recursively; links never lead out of it, and only plain files are opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._root = path.resolve()
        for folder, subfolders, files in os.walk(self._root, onerror=self._note_unreadable):
            subfolders.sort()
            here = Path(folder)
            self.skipped += [(self._name(here / s), "a linked folder") for s in subfolders if (here / s).is_symlink()]
            for name in sorted(files):
                self._add(here / name)

    def read(self, name: str) -> bytes:
        return _read_file(self._root / name)

    def video(self, name: str) -> Path | bytes:
        return self._root / name

    def _name(self, path: Path) -> str:
        """A path inside the folder as a relative posix name."""
        return path.relative_to(self._root).as_posix()

    def _note_unreadable(self, error: OSError) -> None:
        """Keeps a folder that may not be listed as a skipped entry."""
        self.skipped.append((os.path.basename(error.filename or "folder"), "cannot be listed"))

    def _add(self, path: Path) -> None:
        """Takes one file of the walk unless it is a link out of the folder, or a pipe or device."""
        name = self._name(path)
        try:
            if path.is_symlink() and not path.resolve().is_relative_to(self._root):
                self.skipped.append((name, "a link that leads out of the folder"))
                return
            info = path.stat()
        except (OSError, RuntimeError):
            self.skipped.append((name, "cannot be read"))
            return
        if stat.S_ISREG(info.st_mode):
            self._take(name, info.st_size)
        else:
            self.skipped.append((name, "not a plain file"))


class ZipSource(Source):
    """A zip archive; members are read in memory one at a time and never extracted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._owner = 0
        infos = [info for info in self._open().infolist() if not info.is_dir()]
        if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES:
            raise DataError(f"{path.name} would unpack to more than {MAX_TOTAL_BYTES // 2**30} GB; split it.")
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in sorted(infos, key=lambda info: (info.filename.count("/"), info.filename)):
            self._add(info)
        self.members.sort(key=lambda member: member.name)

    def read(self, name: str) -> bytes:
        try:
            with self._open().open(self._infos[name]) as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            raise OSError("damaged inside the zip") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise OSError(f"larger than {MAX_MEMBER_BYTES // 2**20} MB")
        return data

    def __getstate__(self) -> dict:
        """What another process needs: everything but the open file and its lock."""
        return {**self.__dict__, "_archive": None, "_lock": None, "_owner": 0}

    def __setstate__(self, state: dict) -> None:
        """Takes the place of the source in a new process."""
        self.__dict__.update(state, _lock=threading.Lock())

    def _open(self) -> zipfile.ZipFile:
        """The open archive of this process; a forked child opens its own, since a file position is shared."""
        with self._lock:
            if self._archive is None or self._owner != os.getpid():
                try:
                    self._archive = zipfile.ZipFile(self.path)
                except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
                    raise DataError(f"{self.path.name} is not a zip file or is damaged; make it anew.") from error
                except OSError as error:
                    raise DataError(f"{self.path.name} cannot be read: {error.strerror or error}.") from error
                self._owner = os.getpid()
            return self._archive

    def _add(self, info: zipfile.ZipInfo) -> None:
        """Takes one entry unless its name is unsafe, doubled or it is encrypted."""
        name = info.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
            self.skipped.append((name, "an unsafe name"))
        elif name in self._infos:
            self.skipped.append((name, "a second file of the same name"))
        elif info.flag_bits & 1:
            self.skipped.append((name, "encrypted"))
        else:
            self._infos[name] = info
            self._take(name, info.file_size)


def open_source(path: str | Path) -> Source:
    """The source behind a path: folder, zip archive or single file; DataError when there is none."""
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            return FolderSource(path)
        if not path.is_file():
            raise DataError(f"There is no folder or file {path}; give a folder of pictures, a zip or a picture.")
        if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            return ZipSource(path)
        return FilesSource([path])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _read_file(path: Path) -> bytes:
    """The bytes of a plain file; OSError above MAX_MEMBER_BYTES."""
    with open(path, "rb") as file:
        data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise OSError(f"larger than {MAX_MEMBER_BYTES // 2**20} MB")
    return data
