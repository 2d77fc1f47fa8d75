"""The sample grids of a run as a film (mp4), each with the images seen written below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stylegan.errors import StyleGANError, TrainingError
from stylegan.film import write_film
from stylegan.training.run import TrainingRun
from stylegan.training.run_files import thin

MOST_FRAMES = 600
STRIP_PIXELS = 24
HOLD_SECONDS = 2.0  # how long the last grid stays


def timelapse_path(run: TrainingRun) -> Path:
    """Where the film of a run belongs."""
    return run.path / "timelapse.mp4"


def write_timelapse(run: TrainingRun, path: Path | None = None, seconds: float = 15.0,
                    on_frame: Callable[[int, int], object] = lambda done, total: None) -> Path:
    """Film the fixed-seed grids of a run into `timelapse.mp4` of its folder, or `path`; about `seconds` long.

    `on_frame` is told (frames done, frames in all). Raises TrainingError when there are no two grids yet, StyleGANError
    when PyAV is not installed or the file cannot be written.
    """
    samples = thin(run.samples(), MOST_FRAMES)
    if len(samples) < 2:
        raise TrainingError(f"{run.name} has not drawn two sample grids yet; let it train a little longer.")
    rate = int(min(max(round(len(samples) / seconds), 2), 30))
    return write_film(path or timelapse_path(run), _frames(samples, on_frame), rate, HOLD_SECONDS)


def _frames(samples: list[tuple[int, Path]], on_frame: Callable[[int, int], object]) -> Iterator[np.ndarray]:
    """The grids at the size of the first as pixels uint8 [H, W, 3], with a strip of text below."""
    size: tuple[int, int] | None = None
    for index, (nimg, path) in enumerate(samples):
        on_frame(index, len(samples))
        try:
            picture = Image.open(path).convert("RGB")
        except OSError as error:
            raise StyleGANError(f"The sample {path.name} cannot be read; delete it and film again.") from error
        size = size or picture.size
        canvas = Image.new("RGB", (size[0], size[1] + STRIP_PIXELS), (18, 18, 20))
        canvas.paste(picture.resize(size), (0, 0))
        ImageDraw.Draw(canvas).text((6, size[1] + 6), f"{nimg / 1000:.1f} kimg", fill=(220, 220, 220))
        yield np.asarray(canvas)
