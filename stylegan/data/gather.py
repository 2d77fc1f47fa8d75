"""Every usable picture of some files, folders and zips together, as squares, with the frames of their videos."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from stylegan.data.duplicates import duplicate_groups
from stylegan.data.frames import MAX_FRAMES, FramesSource, Step
from stylegan.data.images import ImageSet, open_images
from stylegan.data.labels import MAX_CLASSES, classes_from_folders
from stylegan.data.sources import FilesSource, Source, open_source
from stylegan.errors import DataError

Place = tuple[int, int]  # (set, picture)
Notes = tuple[tuple[str, str], ...]  # (file, what is to be said of it)


@dataclass(frozen=True)
class Alike:
    """Duplicates among several sets: each picture that looks like an earlier one, with that earlier one.

    num_copies of them are the same file.
    """

    pairs: tuple[tuple[Place, Place], ...] = ()
    num_copies: int = 0


@dataclass(frozen=True)
class Gathered:
    """The opened sets, and what was skipped as (file, reason); the pixels can be read while `gathered` is open."""

    sets: tuple[ImageSet, ...]
    skipped: Notes
    alike: Alike = Alike()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of every picture as it was found."""
        return [size for image_set in self.sets for size in image_set.sizes]

    @property
    def places(self) -> list[Place]:
        """Where every picture is."""
        return [(k, i) for k, image_set in enumerate(self.sets) for i in range(len(image_set))]

    def pixels(self, place: Place) -> np.ndarray:
        """One picture, uint8 [R, R, C]."""
        return self.sets[place[0]].pixels(place[1])

    def name(self, place: Place) -> str:
        """The file of one picture."""
        return self.sets[place[0]].names[place[1]]

    def named_pairs(self) -> tuple[tuple[str, str], ...]:
        """The duplicates as (file, earlier file)."""
        return tuple((self.name(place), self.name(first)) for place, first in self.alike.pairs)

    def without_duplicates(self) -> Gathered:
        """The first of each group only; the others are noted as skipped with the picture they look like."""
        gone = {place for place, _ in self.alike.pairs}
        kept = [image_set.subset([i for i in range(len(image_set)) if (k, i) not in gone])
                for k, image_set in enumerate(self.sets)]  # fmt: skip
        skipped = tuple((name, f"looks like {first}") for name, first in self.named_pairs())
        return Gathered(tuple(image_set for image_set in kept if len(image_set)), self.skipped + skipped)

    def classes(self, by_folder: bool = False) -> tuple[np.ndarray | None, tuple[str, ...], Notes]:
        """Class int64 [N] of all pictures, the names, and complaints: of the folders if asked, else as they come.

        Classes of several sets are joined by name; there are none when some set has none.
        """
        words = [_class_words(image_set, by_folder, len(self.sets) == 1) for image_set in self.sets]
        without = [one.path.name for one, found in zip(self.sets, words, strict=True) if found is None]
        if without:
            reason = "has no classes, so those of the other sources were not used"
            return None, (), ((without[0], reason),) if len(without) < len(self.sets) else ()
        place: dict[str, int] = {}
        labels = []
        for names, numbers in (found for found in words if found is not None):
            joined = np.array([place.setdefault(name, len(place)) for name in names], dtype=np.int64)
            labels.append(joined[numbers])
        if len(place) > MAX_CLASSES:
            raise DataError(f"There would be {len(place):,} classes; at most {MAX_CLASSES:,} are possible.")
        return np.concatenate(labels), tuple(place), ()


@contextmanager
def gathered(
    sources: Sequence[str | Path],
    resolution: int,
    fit: str = "crop",
    *,
    img_channels: int = 3,
    every: str = "1s",
    max_frames: int = MAX_FRAMES,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Gathered]:
    """Opens everything; DataError when nothing is usable. A useless source among several is only noted.

    Videos give a frame every so often: `0.5s` is every half second, `10` every tenth frame; at most `max_frames` each.
    """
    if not sources:
        raise DataError("Name at least one folder, zip, video or picture to prepare.")
    step = Step.parse(every)
    with tempfile.TemporaryDirectory() as scratch:
        sets, skipped = [], []
        opened = _open_sources(sources, skipped)
        for number, source in enumerate(opened):
            try:
                frames = FramesSource(source, Path(scratch) / str(number), resolution, step, max_frames)
                image_set = open_images(source.path, resolution, img_channels=img_channels, fit=fit, source=frames,
                                        on_progress=on_progress)  # fmt: skip
            except DataError as error:
                if len(sources) == 1 or (len(opened) == 1 and not skipped):
                    raise
                skipped.append((source.path.name, str(error)))
                continue
            sets.append(replace(image_set, sizes=tuple(map(frames.sizes.get, image_set.names, image_set.sizes))))
            prefix = f"{source.path.name}/" if len(opened) > 1 and not source.is_loose else ""
            skipped += [(prefix + name, reason) for name, reason in image_set.skipped]
        if not sets:
            raise DataError(f"None of the {len(sources)} sources holds a usable picture; the first: {skipped[0][1]}")
        found = Gathered(tuple(sets), tuple(skipped))
        yield replace(found, alike=_find_duplicates(found))


def _open_sources(sources: Sequence[str | Path], skipped: list[tuple[str, str]]) -> list[Source]:
    """The sources opened, all loose files as one; among several, one that cannot be opened is only noted."""
    opened: list[Source] = []
    for place in sources:
        try:
            opened.append(open_source(place))
        except DataError as error:
            if len(sources) == 1:
                raise
            skipped.append((Path(place).name, str(error)))
    loose = [source for source in opened if isinstance(source, FilesSource)]
    if len(loose) < 2:
        return opened
    together = FilesSource([path for source in loose for path in source.paths])
    return [together if source is loose[0] else source for source in opened if source not in loose[1:]]


def _find_duplicates(found: Gathered) -> Alike:
    """Every picture of all sets together that looks like an earlier one."""
    places = found.places
    hashes = np.concatenate([image_set.hashes for image_set in found.sets])
    pairs, num_copies = [], 0
    for group in duplicate_groups(hashes, lambda j: found.pixels(places[j])):
        contents = {found.sets[k].content_key(i) for k, i in (places[j] for j in group)}
        pairs += [(places[j], places[group[0]]) for j in group[1:]]
        num_copies += len(group) - len(contents)
    return Alike(tuple(pairs), num_copies)


def _class_words(image_set: ImageSet, by_folder: bool, alone: bool) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Class names and a class number a picture for one source; a source of one folder is one class among many."""
    if not by_folder:
        return None if image_set.labels is None else (image_set.class_names, image_set.labels)
    if not alone and len({PurePosixPath(name).parent for name in image_set.names}) == 1:
        return (image_set.path.stem,), np.zeros(image_set.num_images, dtype=np.int64)
    found = classes_from_folders(image_set.names)
    return found.class_names, found.classes
