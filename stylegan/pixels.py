"""Images to pixels and back, contact sheets, and picture files that carry their request; the only home of 127.5.

N pictures, C channels, H and W pixels. An image is float [N, C, H, W] in [-1, 1], pixels are uint8 [N, H, W, C].
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from stylegan.errors import DataError, RequestError
from stylegan.files import write_atomic
from stylegan.request import RenderRequest

if TYPE_CHECKING:
    import torch

REQUEST_KEY, STACK_KEY = "stylegan", "stylegan-stack"
MAX_PIXELS = 64 << 20
LOSSLESS_SIDE, FULL_COLOUR_SIDE = 128, 512  # frames up to here are exact, or keep every pixel's colour


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """Float image [N, C, H, W] -> uint8 [N, H, W, C] on the processor, rounded as in NVIDIA's tools."""
    image = image.detach().permute(0, 2, 3, 1)  # [N, H, W, C]
    # Laid out anew while it is small: encoders copy what is not in order, and floats are four times the bytes.
    return (image.float() * 127.5).add_(128).clamp_(0, 255).byte().contiguous().cpu().numpy()


def from_pixels(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 pixels [N, H, W, C] -> float32 image [N, C, H, W] in [-1, 1]."""
    import torch

    return centred(torch.as_tensor(pixels).permute(0, 3, 1, 2)).contiguous()  # [N, C, H, W]


def centred(values: torch.Tensor) -> torch.Tensor:
    """uint8 of any layout -> float32 in [-1, 1] of the same layout; what training feeds to a discriminator."""
    return values.float() / 127.5 - 1


def grid(pixels: np.ndarray, columns: int) -> np.ndarray:
    """Lay pixels [N, H, W, C] out as one sheet [rows * H, columns * W, C], row by row; empty places are black."""
    num, height, width, channels = pixels.shape
    if columns < 1 or num < 1:
        raise RequestError("A sheet needs at least one picture and one column.")
    rows = -(-num // columns)
    sheet = np.zeros([rows * columns, height, width, channels], np.uint8)
    sheet[:num] = pixels
    sheet = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)  # [rows, H, columns, W, C]
    return np.ascontiguousarray(sheet.reshape(rows * height, columns * width, channels))


def encode_frame(pixels: np.ndarray, moving: bool = False) -> tuple[bytes, str]:
    """One picture [H, W, C] for a page and its kind, `png` or `jpeg`: the quickest way whose losses do not show.

    Measured (`bench render`): PNG of up to 128 pixels takes 2 ms and is exact; above, JPEG is 13 to 20 times as fast as
    PNG and 6 as WebP. While a large picture is `moving`, halved colour resolution saves a third of that again.
    """
    side = max(pixels.shape[:2])
    if side <= LOSSLESS_SIDE:
        return encode_png(pixels), "png"
    return encode_jpeg(pixels, halved_colours=moving and side > FULL_COLOUR_SIDE), "jpeg"


def encode_jpeg(pixels: np.ndarray, quality: int = 90, halved_colours: bool = False) -> bytes:
    """JPEG of one picture [H, W, C], colours at full resolution or halved (4:2:0); transparency is laid over white."""
    picture = _picture(pixels)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=2 if halved_colours else 0)
    return buffer.getvalue()


def encode_png(pixels: np.ndarray, request: RenderRequest | None = None, level: int = 1,
               stack: RenderRequest | None = None) -> bytes:
    """PNG of one picture [H, W, C] with its request in a text chunk; `level` 0..9 trades time for size.

    `stack` is the same picture as it was set, where `request` had to be baked for other machines.
    """
    about = PngImagePlugin.PngInfo()
    for key, each in ((REQUEST_KEY, request), (STACK_KEY, stack)):
        if each is not None:
            about.add_text(key, each.to_json())
    buffer = io.BytesIO()
    _picture(pixels).save(buffer, "PNG", pnginfo=about, compress_level=level)
    return buffer.getvalue()


def save_png(path: str | Path, pixels: np.ndarray, request: RenderRequest | None = None) -> Path:
    """Write a PNG with its request inside, atomically."""
    return write_atomic(path, encode_png(pixels, request))


def read_request(source: str | Path | bytes, stack: bool = False) -> RenderRequest:
    """The request inside a saved PNG, or with `stack` how it was set where that is in it, too.

    Raises RequestError when the file is no picture or holds no request.
    """
    try:
        with _open(source) as picture:
            picture.load()
            texts = getattr(picture, "text", {})
            text = stack and texts.get(STACK_KEY) or texts.get(REQUEST_KEY)
    except DataError as error:
        raise RequestError(str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"{_name(source)} is a damaged picture, so its settings cannot be read.") from error
    if not text:
        raise RequestError(f"{_name(source)} holds no StyleGAN Studio settings; use a PNG that was saved by this app.")
    return RenderRequest.from_json(str(text))


def load_pixels(source: str | Path | bytes) -> np.ndarray:
    """A picture file as uint8 [H, W, C] with 1, 3 or 4 channels; DataError when it is no picture or damaged."""
    try:
        with _open(source) as picture:
            mode = picture.mode
            if mode not in ("L", "RGB", "RGBA"):
                mode = "RGBA" if "A" in mode or "transparency" in picture.info else "RGB"
            pixels = np.array(picture.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{_name(source)} is a damaged picture; save it again or leave it out.") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _open(source: str | Path | bytes) -> ImageFile.ImageFile:
    """Open a picture without decoding it; DataError when it is none or has more than 64 million pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {source}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{_name(source)} is not a picture that can be read here.") from error
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise DataError(f"{_name(source)} has more than {MAX_PIXELS >> 20} million pixels; make it smaller.")
    return picture


def _name(source: str | Path | bytes) -> str:
    """What a source is called in a message."""
    return "The file" if isinstance(source, bytes) else Path(source).name


def _picture(pixels: np.ndarray) -> Image.Image:
    """A PIL picture of uint8 [H, W, C] with 1, 3 or 4 channels."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise RequestError(f"Pictures of {pixels.shape[-1]} channels cannot be saved; 1, 3 and 4 can.")
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
