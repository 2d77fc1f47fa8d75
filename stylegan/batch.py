"""Many pictures into one zip: a stack of edits applied to seeds or to saved states, one frozen step a picture.

The zip holds each picture as a PNG with its request inside and the same request as a JSON sidecar beside it.
"""

from __future__ import annotations

import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stylegan.errors import DataError, RequestError, StyleGANError
from stylegan.files import write_problem
from stylegan.pixels import encode_png, read_request
from stylegan.render import Renderer
from stylegan.request import MAX_JSON, Edit, RenderRequest
from stylegan.shortcode import from_sidecar, to_sidecar

MAX_PICTURES = 100_000
MAX_STATE_BYTES = 64 << 20
ENDINGS = (".png", ".json")
PROBLEMS = "problems.txt"
STRIP = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # standard deviations


@dataclass(frozen=True)
class State:
    """One picture to be made: its name in the zip, without ending, and its request; or why it cannot be made."""

    name: str
    request: RenderRequest | None
    problem: str = ""


@dataclass(frozen=True)
class BatchStep:
    """One picture later: how many are done of how many, the name of the last one, why it is missing (or empty), and
    how many are missing so far."""

    done: int
    total: int
    name: str
    problem: str
    num_problems: int


def seed_states(base: RenderRequest, seeds: Sequence[int]) -> list[State]:
    """The stack of `base` (its mixes, edits and all other settings) on each of some seeds."""
    if not seeds:
        raise RequestError("A batch needs at least one seed.")
    return [State(f"seed{seed:04d}", base.replace(seed=seed, dx=0.0, dy=0.0, ws=None)) for seed in seeds]


def saved_states(source: str | Path, stack: RenderRequest | None = None) -> Iterator[State]:
    """The pictures and sidecars of a folder or a zip by name, read one at a time, each with the stack's edits and mixes
    added to its own; without a stack each as it was saved.

    A PNG and its sidecar count once. Files that hold no request become states with a problem. Raises DataError when
    there is no such folder or zip, and when there is nothing in it.
    """
    path, seen, names = Path(source), set(), set()
    for name, size, read in _files(path):
        place = PurePosixPath(name)
        if str(place.with_suffix("")) in seen:
            continue
        seen.add(str(place.with_suffix("")))
        unique = _plain(place.stem)
        unique = f"{unique}-{len(seen)}" if unique in names else unique
        names.add(unique)
        try:
            if size > MAX_STATE_BYTES:
                raise RequestError(f"{name} is larger than {MAX_STATE_BYTES >> 20} MB, which no saved state is.")
            request = _request_in(place.suffix.lower(), read())
            state = State(unique, request if stack is None else stacked(request, stack))
        except StyleGANError as error:
            state = State(unique, None, str(error))
        yield state
    if not seen:
        raise DataError(f"{path.name} holds no PNG and no JSON, so there is nothing to render.")


def stacked(request: RenderRequest, stack: RenderRequest) -> RenderRequest:
    """A saved state with the mixes and edits of a stack behind its own."""
    return request.replace(mix=request.mix + stack.mix, edits=request.edits + stack.edits)


def strip_of(request: RenderRequest, direction: str) -> list[RenderRequest]:
    """A picture with one direction from -3 to +3 standard deviations, its other edits as they are."""
    own = next((edit for edit in request.edits if edit.direction == direction), Edit(direction))
    others = tuple(edit for edit in request.edits if edit.direction != direction)
    return [request.replace(edits=(*others, Edit(direction, strength, own.layers))) for strength in STRIP]


def count_states(source: str | Path) -> int:
    """How many states `saved_states` gives; DataError when the folder or zip cannot be read."""
    return len({str(PurePosixPath(name).with_suffix("")) for name, _, _ in _files(Path(source))})


def batch(renderer: Renderer, states: Iterable[State], out: str | Path, total: int) -> Iterator[BatchStep]:
    """Render states one by one into the zip `out`, giving a step after each; stopping early leaves no file behind.

    The zip appears under its name when it is whole. What cannot be rendered is left out and told in problems.txt.
    Raises StyleGANError when `out` cannot be written, and when not a single picture could be made.
    """
    out = Path(out)
    if out.suffix.lower() != ".zip":
        raise RequestError(f"The pictures go into a zip file, so its name must end in .zip, not be {out.name}.")
    temporary = out.with_name(f".{out.name[:80]}.{secrets.token_hex(6)}.tmp")
    problems: list[str] = []
    done = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for state in states:
                    done += 1
                    problem = _add(archive, renderer, state)
                    if problem:
                        problems.append(f"{state.name}: {problem}")
                    yield BatchStep(done, max(total, done), state.name, problem, len(problems))
                if problems:
                    archive.writestr(PROBLEMS, "\n".join(problems) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if done == len(problems):
            first = problems[0] if problems else "There is nothing to render."
            raise RequestError(f"Not one picture could be made. {first}")
        os.replace(temporary, out)
    except OSError as error:
        raise StyleGANError(write_problem(out, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, renderer: Renderer, state: State) -> str:
    """Render one state into the zip; returns why not, or nothing."""
    if state.request is None:
        return state.problem
    try:
        result = renderer.render(state.request)
    except StyleGANError as error:
        return str(error)
    archive.writestr(f"{state.name}.png", encode_png(result.pixels, result.request, 6))
    archive.writestr(f"{state.name}.json", to_sidecar(result.request))
    return ""


def _files(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(name, size, reader of its bytes) of every PNG and JSON of a folder or zip, pictures first, by name."""
    if path.is_dir():
        files = {each.name: each for each in path.iterdir() if _wanted(each.name)}
        for name in _ordered(files, path):
            yield name, files[name].stat().st_size, files[name].read_bytes
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist() if _wanted(info.filename)}
            for name in _ordered(members, path):
                yield name, members[name].file_size, lambda name=name: _unzipped(archive, members[name])
    except FileNotFoundError:
        raise DataError(f"There is no folder or zip {path}.") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path.name} is neither a folder nor a zip that can be read.") from error


def _ordered(names: Iterable[str], path: Path) -> list[str]:
    """Names in their order, pictures before sidecars; DataError when there are too many."""
    found = sorted(names, key=lambda name: (name.lower().endswith(".json"), name))
    if len(found) > 2 * MAX_PICTURES:
        raise DataError(f"{path.name} holds more than {MAX_PICTURES} states; give fewer at a time.")
    return found


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """One member of a zip, never more bytes than its head says."""
    try:
        with archive.open(info) as file:
            return file.read(MAX_STATE_BYTES + 1)
    except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise DataError(f"{info.filename} is damaged or encrypted inside the zip.") from error


def _request_in(ending: str, data: bytes) -> RenderRequest:
    """The request in the bytes of a PNG or a JSON file."""
    if ending == ".png":
        return read_request(data)
    try:
        return from_sidecar(data[: MAX_JSON + 1].decode("utf-8"))[0]
    except UnicodeDecodeError:
        raise RequestError("The saved request is not JSON; use the text that the app wrote.") from None


def _wanted(name: str) -> bool:
    """True for the names of states."""
    base = PurePosixPath(name).name
    return base.lower().endswith(ENDINGS) and not base.startswith(".")


def _plain(name: str) -> str:
    """A name that is safe inside a zip."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".")[:80] or "state"
