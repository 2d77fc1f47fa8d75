"""Looking at pictures before training, and making one tidy zip of them in the layout NVIDIA's tools read."""

from __future__ import annotations

import io
import json
import os
import secrets
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from stylegan.data.gather import Gathered, gathered
from stylegan.data.images import ImageSet, suggest_resolution
from stylegan.errors import DataError
from stylegan.files import write_problem

_INSPECT_RESOLUTION = 16
_SHOWN = 5


@dataclass(frozen=True)
class Report:
    """What a set of pictures holds, or what was made of it.

    resolution is the one suggested (inspect) or written (prepare); sizes are ((width, height), count), most frequent
    first; skipped are (file, reason); class_counts go with class_names; num_bytes is the size of `out`, if any.
    num_duplicates counts pictures that look like an earlier one, num_copies those of them that are the same file;
    duplicates are some (file, earlier file). num_alike frames of videos were left out as like the one before;
    num_flattened pictures had transparent parts, which became white.
    """

    num_accepted: int
    skipped: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    num_enlarged: int
    resolution: int
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    out: str = ""
    num_bytes: int = 0
    num_duplicates: int = 0
    num_copies: int = 0
    duplicates: tuple[tuple[str, str], ...] = ()
    num_videos: int = 0
    num_frames: int = 0
    num_alike: int = 0
    num_flattened: int = 0

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 when the pictures have none."""
        return len(self.class_names)

    def to_text(self) -> str:
        """One readable block of lines."""
        lines = [f"{self.num_accepted:,} pictures accepted, {len(self.skipped):,} skipped"]
        if self.out:
            size = f"{self.resolution} x {self.resolution}"
            lines.append(f"written: {self.out} ({self.num_bytes / 1e6:.1f} MB) at {size}")
        else:
            lines.append(f"suggested resolution: {self.resolution}")
        sizes = [f"{width} x {height} ({count:,})" for (width, height), count in self.sizes]
        lines.append("sizes: " + _few(sizes, _SHOWN))
        if self.num_enlarged:
            lines.append(f"enlarged: {self.num_enlarged:,} are smaller than {self.resolution} px and will look soft")
        if self.num_flattened:
            lines.append(f"transparent: {self.num_flattened:,} have transparent parts, which become white")
        if self.class_names:
            pairs = zip(self.class_names, self.class_counts, strict=True)
            lines.append(f"classes: {self.num_classes:,}: " + _few([f"{name} ({n:,})" for name, n in pairs], 20))
        if self.num_videos:
            alike = f", {self.num_alike:,} left out as like the one before" if self.num_alike else ""
            lines.append(f"videos: {self.num_videos:,}, {self.num_frames:,} frames taken{alike}")
        if self.num_duplicates:
            copies = f", {self.num_copies:,} of them the same file" if self.num_copies else ""
            example = "{} like {}".format(*self.duplicates[0])
            lines.append(f"duplicates: {self.num_duplicates:,} look like an earlier picture{copies}; {example}")
        for reason, count in Counter(reason for _, reason in self.skipped).most_common(_SHOWN):
            example = next(name for name, why in self.skipped if why == reason)
            lines.append(f"skipped: {count:,} x {reason}, for example {example}")
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps({**asdict(self), "num_classes": self.num_classes}, indent=1)


def inspect(
    path: str | Path, *, every: str = "1s", on_progress: Callable[[int, int], None] | None = None
) -> Report:
    """Decodes every picture of a folder, zip or file and says what there is; DataError when nothing is usable.

    Videos are looked at by a frame every so often: `0.5s` is every half second, `10` every tenth frame.
    """
    with gathered([path], _INSPECT_RESOLUTION, every=every, on_progress=on_progress) as found:
        labels, class_names, complaints = found.classes()
        counts = _count(labels, len(class_names))
        found = replace(found, skipped=found.skipped + complaints)
        return _report(found, suggest_resolution(found.sizes), class_names, counts)


def prepare(
    sources: Sequence[str | Path],
    out_zip: str | Path,
    resolution: int,
    fit: str = "crop",
    classes_from_folders: bool = False,
    *,
    img_channels: int = 3,
    every: str = "1s",
    drop_duplicates: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Writes every usable picture of files, folders and zips as PNG of one size into one zip, atomically.

    Videos give a frame every so often (`inspect`). Duplicates are reported and, if asked, only their first is kept.
    Classes of several sources are joined by name; readmes and licences of the sources travel along in notices/.
    The same sources give the same bytes. DataError when nothing is usable, StyleGANError when it cannot be written.
    """
    out_zip = Path(out_zip)
    if out_zip.suffix.lower() != ".zip":
        raise DataError(f"The file to write must end in .zip, unlike {out_zip.name}.")
    with gathered(sources, resolution, fit, img_channels=img_channels, every=every, on_progress=on_progress) as found:
        if drop_duplicates:
            found = found.without_duplicates()
        labels, class_names, complaints = found.classes(classes_from_folders)
        found = replace(found, skipped=found.skipped + complaints)
        _write(out_zip, _entries(found.sets, labels, class_names))
        return _report(found, resolution, class_names, _count(labels, len(class_names)), out_zip)


def _entries(sets: Sequence[ImageSet], labels: np.ndarray | None, class_names: tuple[str, ...]) -> Iterator:
    """(name, bytes) of every file of the zip: pictures, then labels, then notices."""
    names: list[str] = []
    records: dict[str, dict] = {}
    for image_set in sets:
        for i, original in enumerate(image_set.names):
            name = f"{len(names) // 1000:05d}/img{len(names):08d}.png"
            attributes = {key: values[i] for key, values in image_set.attributes.items() if np.isfinite(values[i])}
            records[name] = {"source": original, "attrs": {key: float(value) for key, value in attributes.items()}}
            names.append(name)
            yield name, _png(image_set.pixels(i))
    pairs = None if labels is None else [[name, int(label)] for name, label in zip(names, labels, strict=True)]
    yield "dataset.json", json.dumps({"labels": pairs}).encode()
    yield "labels.json", json.dumps({"classes": list(class_names), "files": records}).encode()
    for place, image_set in enumerate(sets):
        for notice in image_set.source.notices:
            yield f"notices/{place}/{notice}", _read_notice(image_set, notice)


def _read_notice(image_set: ImageSet, name: str) -> bytes:
    """A readme or licence; a damaged one stops everything, since it may be the licence that allows the copy."""
    try:
        return image_set.source.read(name)
    except OSError as error:
        raise DataError(f"{name} in {image_set.path.name} cannot be read; mend or remove it.") from error


def _png(pixels: np.ndarray) -> bytes:
    """uint8 [R, R, C] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _write(out_zip: Path, entries: Iterator[tuple[str, bytes]]) -> None:
    """Writes a zip beside its place and moves it there when whole; stored, as PNG does not shrink further."""
    temporary = out_zip.with_name(f".{out_zip.name[:80]}.{secrets.token_hex(6)}.tmp")
    try:
        out_zip.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for name, data in entries:
                        archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, out_zip)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(write_problem(out_zip, error)) from error


def _few(items: list[str], num: int) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - num
    return ", ".join(items[:num]) + (f", {more:,} more" if more > 0 else "")


def _count(labels: np.ndarray | None, num_classes: int) -> tuple[int, ...]:
    """Pictures per class."""
    return () if labels is None else tuple(int(n) for n in np.bincount(labels, minlength=num_classes))


def _report(
    found: Gathered,
    resolution: int,
    class_names: tuple[str, ...],
    class_counts: tuple[int, ...],
    out: Path | None = None,
) -> Report:
    """The report on what was gathered."""
    sizes, sets = Counter(found.sizes), found.sets
    return Report(
        num_accepted=sum(image_set.num_images for image_set in sets),
        skipped=found.skipped,
        sizes=tuple(sizes.most_common()),
        num_enlarged=sum(count for size, count in sizes.items() if min(size) < resolution),
        resolution=resolution,
        class_names=class_names,
        class_counts=class_counts,
        out="" if out is None else str(out),
        num_bytes=0 if out is None else out.stat().st_size,
        num_duplicates=len(found.alike.pairs),
        num_copies=found.alike.num_copies,
        duplicates=found.named_pairs()[:_SHOWN],
        num_videos=sum(image_set.source.num_videos for image_set in sets),
        num_frames=sum(image_set.source.num_frames for image_set in sets),
        num_alike=sum(image_set.source.num_alike for image_set in sets),
        num_flattened=sum(int(image_set.flattened.sum()) for image_set in sets),
    )
