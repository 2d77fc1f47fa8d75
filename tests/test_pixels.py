"""Pixels: rounding, sheets, files with a request inside."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.errors import DataError, RequestError
from stylegan.pixels import (
    encode_frame,
    encode_jpeg,
    encode_png,
    from_pixels,
    grid,
    load_pixels,
    read_request,
    save_png,
    to_pixels,
)
from stylegan.request import Edit, RenderRequest

NOISE = np.random.RandomState(0).randint(0, 256, [12, 20, 4], dtype=np.uint8)


def test_rounding_is_that_of_the_published_tools():
    values = torch.tensor([-2.0, -1.0, -0.999, 0.0, 0.5, 0.99, 1.0, 3.0])
    assert to_pixels(values.reshape(1, 1, 1, 8)).ravel().tolist() == [0, 0, 0, 128, 191, 254, 255, 255]


def test_pixels_survive_the_way_through_an_image():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    image = from_pixels(pixels)
    assert image.shape == (1, 3, 16, 16) and image.dtype == torch.float32
    assert image.min() == -1 and image.max() == 1
    assert np.abs(to_pixels(image).astype(int) - pixels).max() == 0
    assert torch.equal(from_pixels(torch.from_numpy(pixels)), image)


def test_axes_are_not_swapped():
    image = torch.full([1, 3, 2, 5], -1.0)
    image[0, 1, 0, 4] = 1.0
    pixels = to_pixels(image)
    assert pixels.shape == (1, 2, 5, 3)
    assert np.argwhere(pixels).tolist() == [[0, 0, 4, 1]]


def test_grid_goes_row_by_row():
    tiles = np.stack([np.full([2, 3, 1], value, np.uint8) for value in range(1, 6)])
    sheet = grid(tiles, 3)
    assert sheet.shape == (4, 9, 1)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    for bad in (0, -1):
        with pytest.raises(RequestError):
            grid(tiles, bad)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_pixel_and_the_request(tmp_path, channels):
    request = RenderRequest(model="m", seed=5, psi=0.7, edits=(Edit("größe", -1.5, (0, 3)),))
    pixels = np.ascontiguousarray(NOISE[:, :, :channels])
    path = save_png(tmp_path / "sub" / "x.png", pixels, request)
    np.testing.assert_array_equal(load_pixels(path), pixels)
    assert read_request(path) == request
    assert read_request(path.read_bytes()) == request


def test_png_level_changes_the_size_only():
    flat = np.zeros([64, 64, 3], np.uint8)
    assert len(encode_png(flat, level=9)) < len(encode_png(flat, level=0))
    np.testing.assert_array_equal(load_pixels(encode_png(flat, level=9)), flat)


def test_jpeg_is_close_and_lays_transparency_over_white():
    y, x = np.mgrid[:32, :32]
    smooth = np.stack([x * 8, y * 8, 255 - x * 8], axis=2).astype(np.uint8)
    assert np.abs(load_pixels(encode_jpeg(smooth, 95)).astype(int) - smooth).mean() < 3
    assert load_pixels(encode_jpeg(np.zeros([8, 8, 4], np.uint8))).min() > 250
    assert load_pixels(encode_jpeg(smooth[:, :, :1])).shape == (32, 32, 1)


def test_frames_are_exact_while_small_and_light_while_moving():
    y, x = np.mgrid[:520, :520]
    large = np.stack([x % 256, y % 256, (x + y) % 256], axis=2).astype(np.uint8)
    small = large[:128, :100]
    data, kind = encode_frame(small, moving=True)
    assert kind == "png"
    np.testing.assert_array_equal(load_pixels(data), small)
    for side, subsampling in ((512, [1, 1]), (520, [2, 2])):
        data, kind = encode_frame(large[:side, :side], moving=True)
        assert kind == "jpeg" and [layer[1] for layer in Image.open(io.BytesIO(data)).layer][0] == subsampling[0]
    resting, _ = encode_frame(large)
    assert resting == encode_jpeg(large) and len(data) < len(resting)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_lie_as_encoders_read_them(layout):
    image = torch.linspace(-1.2, 1.2, 2 * 3 * 8 * 6).reshape(2, 3, 8, 6).contiguous(memory_format=layout)
    before = image.clone()
    pixels = to_pixels(image)
    assert pixels.flags.c_contiguous and pixels.shape == (2, 8, 6, 3) and torch.equal(image, before)
    assert (pixels == (image.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).byte().numpy()).all()


def test_pictures_without_a_request_say_so(tmp_path):
    with pytest.raises(RequestError, match="holds no StyleGAN Studio settings"):
        read_request(encode_png(NOISE))
    with pytest.raises(RequestError, match="holds no StyleGAN Studio settings"):
        read_request(encode_jpeg(NOISE))


@pytest.mark.parametrize("data", [b"", b"hello", b"<html></html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path, data):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(DataError, match="not a picture"):
            load_pixels(source)
        with pytest.raises(RequestError):
            read_request(source)


def test_cut_and_missing_pictures_are_refused(tmp_path):
    whole = encode_png(np.random.RandomState(0).randint(0, 256, [64, 64, 3], dtype=np.uint8), RenderRequest())
    with pytest.raises(DataError, match="damaged"):
        load_pixels(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match="damaged"):
        read_request(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no file"):
        load_pixels(tmp_path / "none.png")


def test_a_bomb_is_refused_before_it_is_decoded():
    buffer = io.BytesIO()
    Image.new("1", (9000, 8000)).save(buffer, "PNG")
    with pytest.raises(DataError, match="million pixels|not a picture"):
        load_pixels(buffer.getvalue())


def test_other_modes_become_colour():
    for mode, channels in [("P", 3), ("LA", 4), ("CMYK", 3), ("1", 3)]:
        buffer = io.BytesIO()
        Image.new(mode, (4, 4)).save(buffer, "TIFF")
        assert load_pixels(buffer.getvalue()).shape == (4, 4, channels)


def test_odd_channels_cannot_be_saved():
    with pytest.raises(RequestError, match="channels"):
        encode_png(np.zeros([4, 4, 2], np.uint8))
