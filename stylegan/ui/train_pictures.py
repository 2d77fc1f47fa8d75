"""What the chosen pictures are, as the Train tab shows it: counts, thumbnails, twins, what was skipped (no gradio)."""

from __future__ import annotations

import base64
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan.data.gather import Gathered, gathered
from stylegan.data.images import suggest_resolution
from stylegan.errors import DataError
from stylegan.pixels import encode_jpeg, grid

THUMB_PIXELS, THUMBS, THUMB_COLUMNS = 48, 24, 12
SKIPPED_SHOWN, TWINS_SHOWN, CLASSES_SHOWN = 200, 6, 8
LOOK_FRAMES = 120  # of each video: a look must not take as long as preparing does
FITS = {"crop": "cropped to a square", "pad": "padded to a square", "resize": "squeezed to a square"}
_KEPT_LOOKS = 8


@dataclass(frozen=True)
class Taking:
    """How pictures are taken, in the words of `prepare`."""

    fit: str = "crop"
    every: str = "1s"
    drop_duplicates: bool = False
    classes_from_folders: bool = False


@dataclass(frozen=True)
class Sheet:
    """Thumbnails as a data address, its columns and its rows."""

    src: str
    columns: int
    rows: int


@dataclass(frozen=True)
class Look:
    """What some sources hold: sizes ((width, height), count), skipped (file, reason), thumbnails.

    twins are some (file, earlier file, both as one picture); `unique` are the thumbnails without any twin. Of videos
    num_cut were looked at by their first frames only. num_flattened had transparent parts, which become white.
    """

    num_accepted: int
    skipped: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    resolution: int
    class_names: tuple[str, ...]
    folder_classes: tuple[str, ...]
    sheet: Sheet
    unique: Sheet
    num_twins: int
    num_copies: int
    twins: tuple[tuple[str, str, str], ...]
    num_videos: int
    num_frames: int
    num_cut: int
    num_flattened: int

    def classes(self, taking: Taking) -> tuple[str, ...]:
        """The classes that this way of taking them gives."""
        return self.folder_classes if taking.classes_from_folders else self.class_names

    def num_taken(self, taking: Taking) -> int:
        """How many pictures this way of taking them gives; 0 when videos were not looked through."""
        return 0 if self.num_cut else self.num_accepted - self.num_twins * taking.drop_duplicates


def allowed_path(text: str, roots: Sequence[Path]) -> Path:
    """A typed path, links resolved, that exists under one of the roots; DataError otherwise."""
    text = text.strip()
    if not text:
        raise DataError("Type the path of a folder or zip of pictures.")
    for root in (Path(root).resolve() for root in roots):
        path = _resolved(root / text)
        if path is not None and path.is_relative_to(root):
            return path
    if not roots:
        raise DataError("No folder of this machine is allowed yet; restart with --allow-data DIR, or upload a zip.")
    places = " or ".join(str(root) for root in roots)
    raise DataError(f"{text[:120]} is no folder or zip under {places}; move it there or start the app with "
                    "--allow-data DIR.")


# ---- looking ---------------------------------------------------------------------------------------------------------

_looks: OrderedDict[tuple, Look] = OrderedDict()
_one_look = threading.Lock()  # whoever asks for the same meanwhile waits for the answer


def look_at(paths: Sequence[Path], taking: Taking = Taking()) -> Look:
    """Decode everything once, as `prepare` does, and say what is there; DataError when nothing is usable.

    Remembered for as long as the files do not change.
    """
    key = _key(paths, taking)
    with _one_look:
        found = _looks.get(key)
        if found is None:
            found = _looks[key] = _look(paths, taking)
            while len(_looks) > _KEPT_LOOKS:
                _looks.popitem(last=False)
        return found


def known_look(paths: Sequence[Path], taking: Taking = Taking()) -> Look | None:
    """What `look_at` said of these pictures, when it has been asked; costs nothing."""
    return _looks.get(_key(paths, taking))


def _key(paths: Iterable[Path], taking: Taking) -> tuple:
    """What decides a look: the files, as they are now, and what it takes a decoder to answer."""
    return (*((str(path), changed(path)) for path in paths), taking.fit, taking.every.strip())


def _look(paths: Sequence[Path], taking: Taking) -> Look:
    """`look_at`, not remembered."""
    with gathered(paths, THUMB_PIXELS, taking.fit, every=taking.every, max_frames=LOOK_FRAMES) as found:
        sizes, alike = found.sizes, found.alike
        gone = {place for place, _ in alike.pairs}
        videos = [image_set.source for image_set in found.sets]
        skipped, (_, names, complaints) = found.skipped, found.classes()
        return Look(
            num_accepted=len(sizes),
            skipped=skipped + complaints,
            sizes=tuple(Counter(sizes).most_common()),
            resolution=suggest_resolution(sizes),
            class_names=names,
            folder_classes=_folder_classes(found),
            sheet=_thumbnails(found, found.places),
            unique=_thumbnails(found, [place for place in found.places if place not in gone]),
            num_twins=len(alike.pairs),
            num_copies=alike.num_copies,
            twins=tuple((found.name(place), found.name(first), _tiles(found, (place, first), 2))
                        for place, first in alike.pairs[:TWINS_SHOWN]),
            num_videos=sum(source.num_videos for source in videos),
            num_frames=sum(source.num_frames for source in videos),
            num_cut=sum(source.num_cut for source in videos),
            num_flattened=sum(int(image_set.flattened.sum()) for image_set in found.sets),
        )


def _folder_classes(found: Gathered) -> tuple[str, ...]:
    """The classes that subfolders would give; none where there are no subfolders."""
    try:
        return found.classes(by_folder=True)[1]
    except DataError:
        return ()


def _thumbnails(found: Gathered, places: Sequence[tuple[int, int]]) -> Sheet:
    """A sheet of evenly chosen pictures."""
    step = max(len(places) / THUMBS, 1.0)
    chosen = [places[int(index * step)] for index in range(min(THUMBS, len(places)))]
    columns = min(THUMB_COLUMNS, len(chosen))
    return Sheet(_tiles(found, chosen, columns), columns, -(-len(chosen) // columns))


def _tiles(found: Gathered, places: Sequence[tuple[int, int]], columns: int) -> str:
    """Pictures side by side as a data address."""
    sheet = encode_jpeg(grid(np.stack([found.pixels(place) for place in places]), columns))
    return "data:image/jpeg;base64," + base64.b64encode(sheet).decode()


# ---- saying ----------------------------------------------------------------------------------------------------------

def pictures_view(look: Look, taking: Taking, resolution: int) -> dict[str, Any]:
    """What the page says of the pictures when they are taken so, at the chosen resolution."""
    dropped = look.num_twins if taking.drop_duplicates else 0
    sheet = look.unique if dropped else look.sheet
    return {
        "accepted": look.num_accepted - dropped, "more": look.num_cut > 0, "notes": _notes(look, taking, resolution),
        "sheet": sheet.src, "columns": sheet.columns, "rows": sheet.rows,
        "num_skipped": len(look.skipped), "skipped": [list(pair) for pair in look.skipped[:SKIPPED_SHOWN]],
        "num_twins": look.num_twins, "num_copies": look.num_copies, "dropped": bool(dropped),
        "twins": [dict(zip(("name", "first", "src"), twin, strict=True)) for twin in look.twins],
    }  # fmt: skip


def _notes(look: Look, taking: Taking, resolution: int) -> list[str]:
    """Sentences on sizes, softness, videos and classes."""
    notes = []
    (width, height), most = look.sizes[0]
    if len(look.sizes) == 1:
        notes.append(f"All are {width} × {height} px." if look.num_accepted > 1 else f"It is {width} × {height} px.")
    else:
        notes.append(f"Most are {width} × {height} px ({most:,}); there are {len(look.sizes) - 1:,} other sizes.")
    if any(side != other for (side, other), _ in look.sizes):
        notes.append(f"What is not square is {FITS[taking.fit]}.")
    if look.num_videos:
        frames = f"{look.num_frames:,} are frames of {look.num_videos:,} video{'s' if look.num_videos > 1 else ''}"
        cut = f", of which only the first {LOOK_FRAMES} each were looked at so far" if look.num_cut else ""
        notes.append(f"{frames}{cut}.")
    if look.num_flattened:
        notes.append(f"Transparent parts of {look.num_flattened:,} become white.")
    small = sum(count for size, count in look.sizes if min(size) < resolution)
    if small:
        notes.append(f"{small:,} will look soft, being smaller than {resolution} px; {look.resolution} px suits them.")
    names = look.classes(taking)
    if taking.classes_from_folders and not names:
        notes.append("They lie in one folder, so there are no classes to make of subfolders.")
    elif names:
        some = ", ".join(names[:CLASSES_SHOWN]) + (" …" if len(names) > CLASSES_SHOWN else "")
        notes.append(f"{len(names)} classes: {some}.")
    return notes


def _resolved(path: Path) -> Path | None:
    """The path with every link followed, None when nothing is there."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None


def changed(path: Path) -> int:
    """When the file changed, or files came to or left the folder or one below it, in ns; 0 when it is not there."""
    try:
        return max([path.stat().st_mtime_ns, *(os.stat(folder).st_mtime_ns for folder, _, _ in os.walk(path))])
    except OSError:
        return 0
