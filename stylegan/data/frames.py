"""Frames of a video as pictures: every so many seconds or frames, without those that look like the one before.

Needs the package `av` (FFmpeg's libraries); nothing else here does, so without it only videos are out of reach.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stylegan.data.duplicates import duplicate_groups, perceptual_hash
from stylegan.data.sources import Member, Source
from stylegan.errors import DataError
from stylegan.pixels import MAX_PIXELS

if TYPE_CHECKING:
    import av

MAX_FRAMES = 100_000
# Only containers that hold their own pictures: playlists and the like would make the reader open other files.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,m4v,h264,hevc"
_SMALL = 64


@dataclass(frozen=True)
class Step:
    """How far apart the frames are: so many seconds, or every so many frames; exactly one of them is set."""

    seconds: float = 0.0
    frames: int = 0

    @classmethod
    def parse(cls, text: str) -> Step:
        """`0.5s` is half a second, `10` is every tenth frame; DataError for anything else."""
        said = text.strip().lower()
        try:
            step = cls(seconds=float(said[:-1])) if said.endswith("s") else cls(frames=int(said))
        except ValueError:
            step = cls()
        if not (0.01 <= step.seconds <= 86_400 or 1 <= step.frames <= 1_000_000):
            raise DataError(f"{text[:20]!r} is no step between frames; give seconds as 0.5s or a number of frames.")
        return step


@dataclass
class Frames:
    """What came of one video: size of a frame, how many were kept or like the one before, and what is wrong.

    `is_cut` when there may be more frames than were asked for.
    """

    size: tuple[int, int] = (0, 0)
    num_kept: int = 0
    num_alike: int = 0
    is_cut: bool = False
    problem: str = ""


class FramesSource(Source):
    """A source in which each video is replaced by its frames, kept in `folder` for as long as the source is read.

    The frames of `cats/a.mp4` are called `cats/a.mp4@000012.500s.png`, so they are of the class of its folder.
    """

    def __init__(
        self, base: Source, folder: Path, resolution: int, step: Step, max_frames: int = MAX_FRAMES
    ) -> None:
        super().__init__(base.path, list(base.members), list(base.skipped), base.metadata, base.notices,
                         is_loose=base.is_loose)  # fmt: skip
        self._base = base
        self._frames: dict[str, Path] = {}
        self.sizes: dict[str, tuple[int, int]] = {}  # of the frames, as they were in the video
        self.num_videos = self.num_alike = self.num_cut = 0
        for number, name in enumerate(base.videos):
            try:
                found = extract_frames(base.video(name), folder / str(number), resolution, step, max_frames)
            except (DataError, OSError) as error:
                self.skipped.append((name, str(error)))
                continue
            self.num_videos += 1
            self.num_alike += found.num_alike
            self.num_cut += found.is_cut
            if found.problem and not (found.is_cut and max_frames < MAX_FRAMES):  # who asks for few, knows
                self.skipped.append((name, found.problem))
            frames = {f"{name}@{path.name}": path for path in sorted((folder / str(number)).iterdir())}
            self._frames |= frames
            self.sizes |= dict.fromkeys(frames, found.size)
        self.members += [Member(name, path.stat().st_size) for name, path in self._frames.items()]
        self.members.sort(key=lambda member: member.name)

    @property
    def num_frames(self) -> int:
        """How many frames the videos gave."""
        return len(self._frames)

    def read(self, name: str) -> bytes:
        return self._frames[name].read_bytes() if name in self._frames else self._base.read(name)


def extract_frames(
    video: Path | bytes, folder: Path, resolution: int, step: Step, max_frames: int = MAX_FRAMES
) -> Frames:
    """Writes frames as PNG files named by their time into a new `folder`, their short side at most `resolution`.

    A frame is left out when it looks like the last one kept. DataError when the package is missing or the file is no
    video; a video that breaks off keeps what came before and says so.
    """
    folder.mkdir(parents=True)
    found = Frames()
    with _opened(video) as container:
        container.streams.video[0].thread_type = "AUTO"
        last: np.ndarray | None = None
        try:
            for seconds, frame in _stepped(container, step):
                picture = _upright(frame)
                found.size = picture.size
                picture = _smaller(picture, resolution)
                small = np.asarray(picture.resize((_SMALL, _SMALL), Image.Resampling.BOX))
                if last is not None and _alike(last, small):
                    found.num_alike += 1
                    continue
                picture.save(folder / f"{seconds:010.3f}s.png", compress_level=1)
                last = small
                found.num_kept += 1
                if found.num_kept >= max_frames:
                    found.is_cut = True
                    found.problem = f"only its first {max_frames:,} frames were taken"
                    break
        except DataError:
            raise
        except Exception:  # every decoder of FFmpeg has its own way to fail on a damaged file
            found.problem = "breaks off, so only the frames before that were taken"
    return found


@contextmanager
def _opened(video: Path | bytes) -> Iterator[av.container.InputContainer]:
    """The container of a video, its kind and size checked; it is read as bytes, so it can name no other file."""
    try:
        import av
    except ImportError as error:
        raise DataError("a video; its frames need the package av (pip install av)") from error
    with io.BytesIO(video) if isinstance(video, bytes) else open(video, "rb") as source:
        try:
            container = av.open(source, "r", options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"})
            about = container.streams.video[0].codec_context
        except Exception as error:  # as above: a hostile header may raise anything
            raise DataError("not a video that can be read here") from error
        with container:
            _check_size(about.width, about.height)
            yield container


def _check_size(width: int, height: int) -> None:
    """DataError for frames that are larger than any picture may be."""
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(f"frames of {width} x {height}; up to {MAX_PIXELS >> 20} million pixels can be read")


def _stepped(container: av.container.InputContainer, step: Step) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds, frame) at the wanted places; time is counted from the first frame."""
    start, due = None, 0.0
    rate = float(container.streams.video[0].average_rate or 25)
    for number, frame in enumerate(container.decode(video=0)):
        _check_size(frame.width, frame.height)
        seconds = number / rate if frame.time is None else float(frame.time)
        start = seconds if start is None else start
        seconds = max(seconds - start, 0.0)
        if step.frames and number % step.frames:
            continue
        if step.seconds and seconds + 1e-6 < due:
            continue
        due = max(due + step.seconds, seconds)
        yield seconds, frame


def _upright(frame: av.VideoFrame) -> Image.Image:
    """The frame as an RGB picture, turned as its rotation note says."""
    picture = frame.to_image().convert("RGB")
    turn = int(getattr(frame, "rotation", 0) or 0) % 360
    return picture.rotate(turn, expand=True) if turn else picture


def _smaller(picture: Image.Image, resolution: int) -> Image.Image:
    """The picture with its short side brought down to the resolution, never up."""
    short = min(picture.size)
    if short <= resolution:
        return picture
    size = tuple(max(resolution, round(side * resolution / short)) for side in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _alike(last: np.ndarray, small: np.ndarray) -> bool:
    """True when two small pictures count as duplicates."""
    both = (last, small)
    hashes = np.array([perceptual_hash(pixels) for pixels in both], dtype=np.uint64)
    return bool(duplicate_groups(hashes, both.__getitem__))
