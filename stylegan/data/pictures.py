"""One picture file to square pixels: any format, mode and size in, uint8 out. C channels (1, 3 or 4), R resolution."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from stylegan.pixels import MAX_PIXELS

FITS = ("crop", "pad", "resize")
MIN_SIDE = 8
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000", "DIB", "MPO")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class PictureError(Exception):
    """Why one file is not a usable picture, in a few words; becomes its reason in a skipped list."""


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height a file declares, after its own rotation note, without decoding it; PictureError if unusable."""
    with _open(data) as picture:
        width, height = picture.size
        turned = picture.format in ("JPEG", "MPO") and _orientation(picture) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def read_pixels(data: bytes, resolution: int, img_channels: int = 3, fit: str = "crop") -> np.ndarray:
    """A picture file as uint8 [R, R, C]; alpha is flattened on white unless C is 4; PictureError if unusable."""
    return read_picture(data, resolution, img_channels, fit)[0]


def read_picture(data: bytes, resolution: int, img_channels: int = 3, fit: str = "crop") -> tuple[np.ndarray, bool]:
    """As `read_pixels`, and whether parts of it were transparent and have become white."""
    with _open(data) as picture:
        try:
            picture.draft(None, (2 * resolution, 2 * resolution))
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            picture, is_flattened = _to_mode(picture, img_channels)
            picture = _fit(picture, resolution, fit)
        except Exception as error:  # every decoder of Pillow has its own way to fail on a damaged file
            raise PictureError(_reason(error)) from error
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels.reshape(resolution, resolution, img_channels), is_flattened  # [R, R, C]


def _open(data: bytes) -> Image.Image:
    """The header of a picture file, its format and size checked."""
    try:
        picture = Image.open(io.BytesIO(data), formats=_formats())
    except Exception as error:  # as above: a hostile header may raise anything
        raise PictureError(_reason(error)) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{width} x {height} is more than {MAX_PIXELS >> 20} million pixels")
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"only {width} x {height} pixels")
    return picture


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 when there is none or it is damaged."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # the notes of a camera are as hostile as the rest of the file
        return 1


@cache
def _formats() -> tuple[str, ...]:
    """The formats read here that this build of Pillow has a reader for."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    """A few plain words for what Pillow says."""
    text = str(error).lower()
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS >> 20} million pixels"
    return "cut off" if "truncated" in text or "incomplete" in text else "a damaged picture"


def _to_mode(picture: Image.Image, img_channels: int) -> tuple[Image.Image, bool]:
    """The picture in L, RGB or RGBA, and whether that cost it transparent parts; 16-bit and float greys are scaled to 8
    bits, not clipped."""
    is_flattened = False
    if picture.mode == "F" or picture.mode.startswith("I"):
        grey = np.asarray(picture, dtype=np.float64)
        top = 1.0 if picture.mode == "F" and grey.max() <= 1 else 65535.0 if grey.max() > 255 else 255.0
        if picture.mode.startswith("I;16"):
            top = 65535.0
        picture = Image.fromarray(np.clip(np.nan_to_num(grey) * (255 / top) + 0.5, 0, 255).astype(np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if img_channels != 4:
            is_flattened = picture.getchannel("A").getextrema()[0] < 255
            white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
            picture = Image.alpha_composite(white, picture)
    elif img_channels == 1 and picture.mode not in ("L", "1"):
        picture = picture.convert("RGB")
    return picture.convert(_MODES[img_channels]), is_flattened


def _fit(picture: Image.Image, resolution: int, fit: str) -> Image.Image:
    """Makes the picture square: cut to the centre, padded with its border colours' mean, or squeezed; Lanczos."""
    width, height = picture.size
    if (width, height) == (resolution, resolution):
        return picture
    mode = picture.mode
    if mode == "RGBA":
        picture = picture.convert("RGBa")  # premultiplied, so that hidden colours do not bleed into the edges
    size = (resolution, resolution)
    if fit == "resize":
        result = picture.resize(size, Image.Resampling.LANCZOS)
    elif fit == "pad":
        scale = resolution / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        result = Image.new(picture.mode, size, _border_colour(picture))
        corner = (resolution - inner[0]) // 2, (resolution - inner[1]) // 2
        result.paste(picture.resize(inner, Image.Resampling.LANCZOS), corner)
    else:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        result = picture.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    return result.convert(mode)


def _border_colour(picture: Image.Image) -> int | tuple[int, ...]:
    """The mean colour of the outermost pixels: what padding disturbs least."""
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = edge.mean(axis=0).round().astype(int)
    return int(colour) if colour.ndim == 0 else tuple(int(value) for value in colour)
