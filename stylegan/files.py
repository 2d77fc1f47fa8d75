"""Files that are either old or new and never half written, and names that are safe to use as file names."""

from __future__ import annotations

import errno
import os
import re
import secrets
from pathlib import Path

from stylegan.errors import RequestError, StyleGANError

SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


def write_atomic(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` through a temporary file in the same folder, fsync and rename; parents are made.

    Raises StyleGANError, with the old file untouched, when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StyleGANError(write_problem(path, error)) from error
    _sync_folder(path.parent)
    return path


def write_problem(path: str | Path, error: OSError) -> str:
    """One sentence saying why `path` could not be written and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full, so {path} was not written; make room and try again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} may not be written here; choose another folder or change its permissions."
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"{path} cannot be written because a file or folder of that name is in the way."
    return f"{path} could not be written: {error.strerror or error}."


def safe_name(text: str) -> str:
    """Return `text` if it is a plain file name of 1 to 64 of A-Z a-z 0-9 . _ - without a leading dot."""
    if not SAFE_NAME.fullmatch(text):
        raise RequestError(f"{text[:80]!r} is not a usable name; use 1 to 64 letters, digits, dots, '-' or '_'.")
    return text


def _sync_folder(folder: Path) -> None:
    """Ask the disk to keep a rename; systems that cannot open a folder keep it in their own time."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
