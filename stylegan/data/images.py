"""Training pictures from a folder, a zip or a file: square uint8 pixels, classes, attributes and what was skipped.

N pictures, R resolution, C channels.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stylegan.data.duplicates import duplicate_groups, perceptual_hash
from stylegan.data.labels import Labels, classes_from_folders, read_labels
from stylegan.data.pictures import FITS, PictureError, read_picture, read_pixels, read_size
from stylegan.data.sources import Source, open_source
from stylegan.errors import DataError

MAX_ARRAY_BYTES = 4 * 2**30
_NUM_THREADS = 2


@dataclass(frozen=True)
class _File:
    """One accepted picture file: name, bytes, checksum of its content and the size it declares."""

    name: str
    num_bytes: int
    crc: int
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Pictures of one resolution, in the order of their names; made by `open_images`.

    labels int64 [N] or None; attributes float64 [N] each, nan where nothing is said; skipped (file, reason);
    sizes (width, height) as found in the files; hashes uint64 [N], perceptual; flattened bool [N], whose transparent
    parts have become white.
    """

    path: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    resolution: int
    img_channels: int
    fit: str
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    attributes: dict[str, np.ndarray]
    skipped: tuple[tuple[str, str], ...]
    source: Source = field(repr=False)
    _files: tuple[_File, ...] = field(repr=False)
    hashes: np.ndarray = field(repr=False)
    flattened: np.ndarray = field(repr=False)
    _pixels: np.ndarray | None = field(repr=False, default=None)

    @property
    def num_images(self) -> int:
        """How many pictures there are."""
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 when the pictures have none."""
        return len(self.class_names)

    def __len__(self) -> int:
        return self.num_images

    def pixels(self, index: int) -> np.ndarray:
        """One picture, uint8 [R, R, C]."""
        if self._pixels is not None:
            return self._pixels[index]
        name = self.names[index]
        try:
            return read_pixels(self.source.read(name), self.resolution, self.img_channels, self.fit)
        except (OSError, PictureError) as error:
            raise DataError(f"{name} in {self.path.name} can no longer be read ({error}); put it back.") from error

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some pictures, uint8 [n, R, R, C], whether or not the whole set is in memory."""
        if self._pixels is not None:
            return self._pixels[np.asarray(indices, dtype=np.int64)]
        return np.stack([self.pixels(int(i)) for i in indices])

    def array(self) -> np.ndarray:
        """All pictures, uint8 [N, R, R, C]: the same memory each time, so read only; DataError above 4 GB."""
        if self._pixels is None:
            raise DataError(
                f"{self.path.name} is too large for memory at {self.resolution} px; take a lower resolution."
            )
        return self._pixels

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """The pictures of those indices, in that order, with their labels and attributes."""
        chosen = np.asarray(indices, dtype=np.int64)
        pixels = None if self._pixels is None else self._pixels[chosen]
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            sizes=tuple(self.sizes[i] for i in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            attributes={name: values[chosen] for name, values in self.attributes.items()},
            _files=tuple(self._files[i] for i in chosen),
            hashes=self.hashes[chosen],
            flattened=self.flattened[chosen],
            _pixels=pixels,
        )

    def split(self, fraction: float = 0.1, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """(train, held out): disjoint, together everything; `fraction` (0 to 1) of the pictures is held out.

        Which go first is decided by their content and the seed, so adding a few pictures moves few across. Pictures
        that look alike stay together; a group that would overfill the held-out part is trained on.
        """
        if not 0 <= fraction <= 1:
            raise DataError(f"The held-out fraction must be 0 to 1, not {fraction}.")
        num = round(fraction * self.num_images)
        held: list[int] = []
        for group in self._shuffled_groups(seed) if num else ():
            held += group if len(held) + len(group) <= num else ()
        rest = np.setdiff1d(np.arange(self.num_images), held)
        return self.subset(rest), self.subset(sorted(held))

    def duplicate_groups(self) -> tuple[tuple[int, ...], ...]:
        """Groups of two or more indices whose pictures look alike, as far as re-encoding and resizing go."""
        return duplicate_groups(self.hashes, self.pixels)

    def content_key(self, index: int) -> tuple[int, int]:
        """Size and checksum of one picture's file: the same for copies of it."""
        return self._files[index].num_bytes, self._files[index].crc

    def _shuffled_groups(self, seed: int) -> list[tuple[int, ...]]:
        """Every picture once, with those that look like it, in an order decided by content and seed."""
        keys = [hashlib.sha256(f"{seed} {file.num_bytes} {file.crc}".encode()).digest() for file in self._files]
        groups = self.duplicate_groups()
        single = set(range(self.num_images)).difference(*groups)
        return sorted([*groups, *((i,) for i in single)], key=lambda group: (min(keys[i] for i in group), group))

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes, checksums and classes, hex; the same for a folder and a zip of it."""
        digest = hashlib.sha256()
        for i, file in enumerate(self._files):
            label = "" if self.labels is None else int(self.labels[i])
            digest.update(f"{file.name}\0{file.num_bytes}\0{file.crc}\0{label}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def open_images(
    path: str | Path,
    resolution: int | None = None,
    labels: bool = True,
    *,
    classes_from_folders: bool = False,
    img_channels: int = 3,
    fit: str = "crop",
    source: Source | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Opens a folder (recursively), a zip or one picture; DataError when there is nothing to use in it.

    Every file is decoded once here, so a picture that is accepted can be trusted later; the rest is in `skipped`.
    resolution None takes the largest power of two within the median short side, 8 to 1024. `source`, if given, is read
    in the place of the one that `path` leads to. `on_progress(done, all)`.
    """
    if img_channels not in (1, 3, 4) or fit not in FITS or not (resolution is None or 4 <= resolution <= 2048):
        raise DataError("Pictures are read at 4 to 2048 px, 1, 3 or 4 channels, fit crop, pad or resize.")
    source = open_source(path) if source is None else source
    skipped = [*source.skipped, *((name, "a video; preparing takes its frames") for name in source.videos)]
    files = _scan(source, skipped)
    side = resolution or suggest_resolution([file.size for file in files]) if files else 8
    files, pixels, hashes, flattened = _decode(source, files, skipped, side, img_channels, fit, on_progress)
    if not files:
        raise DataError(_nothing_found(source, skipped))
    names = tuple(file.name for file in files)
    known = _labels(source, names, labels, classes_from_folders)
    return ImageSet(
        path=Path(path),
        names=names,
        sizes=tuple(file.size for file in files),
        resolution=side,
        img_channels=img_channels,
        fit=fit,
        labels=known.classes,
        class_names=known.class_names,
        attributes=known.attributes,
        skipped=tuple(skipped) + known.complaints,
        source=source,
        _files=tuple(files),
        hashes=hashes,
        flattened=flattened,
        _pixels=pixels,
    )


def suggest_resolution(sizes: Sequence[tuple[int, int]]) -> int:
    """The largest power of two that the median short side holds, 8 to 1024."""
    short = float(np.median([min(size) for size in sizes]))
    return 2 ** int(np.clip(np.floor(np.log2(max(short, 1.0))), 3, 10))


def sample_sets() -> dict[str, Path]:
    """The image sets that ship with the project, name -> zip."""
    folder = Path(__file__).parent / "samples"
    return {path.stem: path for path in sorted(folder.glob("*.zip"))}


def _labels(source: Source, names: tuple[str, ...], wanted: bool, by_folder: bool) -> Labels:
    """The labels asked for; folders, when asked for, replace the classes of dataset.json."""
    found = read_labels(source, names) if wanted else Labels()
    if by_folder:
        folders = classes_from_folders(names)
        found = replace(found, classes=folders.classes, class_names=folders.class_names)
    return found


def _scan(source: Source, skipped: list[tuple[str, str]]) -> list[_File]:
    """The members that declare themselves usable pictures."""
    files = []
    for member in source.members:
        try:
            data = source.read(member.name)
            files.append(_File(member.name, len(data), zlib.crc32(data), read_size(data)))
        except (OSError, PictureError) as error:
            skipped.append((member.name, _why(error)))
    return files


def _decode(
    source: Source,
    files: list[_File],
    skipped: list[tuple[str, str]],
    resolution: int,
    img_channels: int,
    fit: str,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[list[_File], np.ndarray | None, np.ndarray, np.ndarray]:
    """Decodes every file on two threads: the good files, their pixels [N, R, R, C] if they fit in memory, their hashes
    [N], and which were flattened [N]."""
    shape = (len(files), resolution, resolution, img_channels)
    pixels = np.empty(shape, dtype=np.uint8) if np.prod(shape, dtype=np.float64) <= MAX_ARRAY_BYTES else None
    hashes, flattened = np.zeros(len(files), dtype=np.uint64), np.zeros(len(files), dtype=bool)
    reasons: list[str | None] = [None] * len(files)

    def decode(i: int) -> None:
        try:
            result, flattened[i] = read_picture(source.read(files[i].name), resolution, img_channels, fit)
        except (OSError, PictureError) as error:
            reasons[i] = _why(error)
            return
        hashes[i] = perceptual_hash(result)
        if pixels is not None:
            pixels[i] = result

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for done, _ in enumerate(pool.map(decode, range(len(files))), start=1):
            if on_progress is not None:
                on_progress(done, len(files))
    skipped += [(file.name, reason) for file, reason in zip(files, reasons, strict=True) if reason]
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    if pixels is not None and len(kept) < len(files):
        pixels = pixels[kept]
    return [files[i] for i in kept], pixels, hashes[kept], flattened[kept]


def _why(error: Exception) -> str:
    """A reason in a few words."""
    said = getattr(error, "strerror", None)
    return said.lower() if said else str(error) or "cannot be read"


def _nothing_found(source: Source, skipped: list[tuple[str, str]]) -> str:
    """One sentence for a source that holds no usable picture."""
    if not skipped:
        return f"{source.path.name} holds no pictures; give a folder or zip of PNG, JPEG or WebP files."
    name, reason = skipped[0]
    if source.is_loose:
        if len(skipped) == 1:
            return f"{name} cannot be used: {reason}."
        return f"None of the {len(skipped)} files can be used; the first, {name}: {reason}."
    return f"{source.path.name} holds no usable picture: {len(skipped)} skipped, for example {name} ({reason})."
