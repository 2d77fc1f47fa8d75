"""The sample grids of a run as a film (mp4), each with the images seen written below."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stylegan.errors import StyleGANError, TrainingError
from stylegan.files import write_atomic
from stylegan.training.run import TrainingRun
from stylegan.training.run_files import thin

MOST_FRAMES = 600
STRIP_PIXELS = 24


def write_timelapse(run: TrainingRun, path: Path | None = None, seconds: float = 15.0) -> Path:
    """Film the fixed-seed grids of a run into `timelapse.mp4` of its folder, or `path`; about `seconds` long.

    TrainingError when there are no two grids yet or PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise TrainingError("A film needs PyAV; pip install av, or look at the samples folder.") from error
    samples = thin(run.samples(), MOST_FRAMES)
    if len(samples) < 2:
        raise TrainingError(f"{run.name} has not drawn two sample grids yet; let it train a little longer.")
    rate = int(min(max(round(len(samples) / seconds), 2), 30))
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.pix_fmt = "yuv420p"
        frame = None
        for frame in _frames(samples):
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for _ in range(2 * rate):  # the last one stays for two seconds
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode(None))
    return write_atomic(path or run.path / "timelapse.mp4", memory.getvalue())


def _frames(samples: list[tuple[int, Path]]) -> Iterator[np.ndarray]:
    """The grids of one size as pixels uint8 [H, W, 3] with even sides and a strip of text."""
    size: tuple[int, int] | None = None
    for nimg, path in samples:
        try:
            picture = Image.open(path).convert("RGB")
        except OSError as error:
            raise StyleGANError(f"The sample {path.name} cannot be read; delete it and film again.") from error
        size = size or picture.size
        width, height = (size[0] + 1) // 2 * 2, (size[1] + STRIP_PIXELS + 1) // 2 * 2
        canvas = Image.new("RGB", (width, height), (18, 18, 20))
        canvas.paste(picture.resize(size), (0, 0))
        ImageDraw.Draw(canvas).text((6, size[1] + 6), f"{nimg / 1000:.1f} kimg", fill=(220, 220, 220))
        yield np.asarray(canvas)
