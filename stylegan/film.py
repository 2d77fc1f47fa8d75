"""Frames into an mp4 that every browser plays; the only place that encodes one.

H and W pixels, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from stylegan.errors import RequestError
from stylegan.files import write_atomic

NARROW, WIDE = 512, 1920  # pixels: narrower frames are enlarged, as halved colours would blur them; wider ones shrink
BT601 = 6  # colours as encoder and browser both take them; said in the file, so that nobody has to guess


def write_film(path: str | Path, frames: Iterable[np.ndarray], rate: int, hold: float = 0.0) -> Path:
    """Write frames (pixels uint8 [H, W, C], all of one size, C of 1, 3 or 4) as H.264, atomically.

    `rate` is frames a second; the last frame stays for `hold` seconds more. Raises RequestError when there is no frame
    or PyAV is not installed, StyleGANError when the file cannot be written.
    """
    try:
        import av
    except ImportError as error:
        raise RequestError("A film needs PyAV; install it with pip install av.") from error
    memory, frame = io.BytesIO(), None
    with av.open(memory, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            picture = _sized(pixels)
            if frame is None:
                stream.width, stream.height = picture.size
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = BT601
            frame = av.VideoFrame.from_image(picture)
            film.mux(stream.encode(frame))
        if frame is None:
            raise RequestError("A film needs at least one frame.")
        for _ in range(round(hold * rate)):
            film.mux(stream.encode(av.VideoFrame.from_image(picture)))
        film.mux(stream.encode(None))
    if not Path(path).parent.is_dir():  # a run that was removed meanwhile must not come back as an empty folder
        raise RequestError(f"The folder of {Path(path).name} is not there, so the film was not kept.")
    return write_atomic(path, memory.getvalue())


def _sized(pixels: np.ndarray) -> Image.Image:
    """Pixels [H, W, C] as a picture with even sides, between NARROW and WIDE; transparency is laid over white."""
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    scale = min(max(picture.width, NARROW), WIDE) / picture.width
    size = (round(picture.width * scale / 2) * 2, max(round(picture.height * scale / 2), 1) * 2)
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
