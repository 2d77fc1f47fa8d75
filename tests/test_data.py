"""Opening pictures: every container, format, mode and size; labels; and files that mean harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan.data import images, sources
from stylegan.data.images import ImageSet, open_images, sample_sets, suggest_resolution
from stylegan.data.pictures import read_pixels
from stylegan.errors import DataError


def encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def picture(seed: int = 0, width: int = 16, height: int = 16) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def reasons(image_set: ImageSet) -> dict[str, str]:
    return dict(image_set.skipped)


@pytest.fixture(scope="module")
def cartoons() -> ImageSet:
    return open_images(sample_sets()["cartoon-sample-64"])


def test_the_shipped_samples_open_with_classes_and_attributes(cartoons: ImageSet) -> None:
    assert (len(cartoons), cartoons.resolution, cartoons.num_classes) == (96, 64, 6)
    assert cartoons.class_names == ("bald", "blond", "ginger", "brown", "black", "grey")
    assert cartoons.array().shape == (96, 64, 64, 3) and cartoons.array().dtype == np.uint8
    assert cartoons.labels is not None and cartoons.labels.dtype == np.int64
    assert (cartoons.attributes["hair=blond"] == (cartoons.labels == 1)).all()
    assert set(np.unique(cartoons.attributes["glasses"])) == {0.0, 1.0}
    assert 0 < cartoons.attributes["skin_lightness"].min() < cartoons.attributes["skin_lightness"].max() < 1
    assert not cartoons.skipped
    fruit = open_images(sample_sets()["pomological-sample-64"])
    assert fruit.num_classes == 15 and fruit.class_names[0] == "apple" and fruit.num_images == 96


def test_the_samples_carry_their_licences() -> None:
    for name, word in (("cartoon-sample-64", "CC BY 4.0"), ("pomological-sample-64", "public domain")):
        with zipfile.ZipFile(sample_sets()[name]) as archive:
            assert word in archive.read("README.md").decode()


def test_pixels_are_those_of_the_file(cartoons: ImageSet) -> None:
    with zipfile.ZipFile(sample_sets()["cartoon-sample-64"]) as archive:
        for i in (0, 50, 95):
            expected = np.asarray(Image.open(io.BytesIO(archive.read(cartoons.names[i]))).convert("RGB"))
            assert (cartoons.pixels(i) == expected).all()
    assert (cartoons.batch([95, 0]) == cartoons.array()[[95, 0]]).all()


def test_a_folder_and_a_zip_of_it_are_the_same_set(tmp_path: Path) -> None:
    files = {"b/1.png": picture(1), "a.png": picture(0), "b/c/2.png": picture(2)}
    labels = json.dumps({"labels": [["a.png", 0], ["b/1.png", 2], ["b\\c\\2.png", 1]]}).encode()
    files["dataset.json"] = labels
    folder = open_images(make_folder(tmp_path / "folder", files))
    archive = open_images(make_zip(tmp_path / "set.zip", files))
    assert folder.names == archive.names == ("a.png", "b/1.png", "b/c/2.png")
    assert (folder.array() == archive.array()).all()
    assert folder.labels.tolist() == archive.labels.tolist() == [0, 2, 1]
    assert folder.class_names == ("0", "1", "2")
    assert folder.fingerprint() == archive.fingerprint()


def test_the_fingerprint_tells_content_names_and_classes_apart(tmp_path: Path) -> None:
    def fingerprint(number: int, **files: bytes) -> str:
        named = {f"{name}.{'json' if name == 'dataset' else 'png'}": data for name, data in files.items()}
        return open_images(make_zip(tmp_path / f"{number}.zip", named)).fingerprint()

    two = [json.dumps({"labels": [["a.png", 0], ["b.png", i]]}).encode() for i in (0, 1)]
    prints = [
        fingerprint(0, a=picture(0), b=picture(1)),
        fingerprint(1, a=picture(0), b=picture(2)),
        fingerprint(2, a=picture(0), c=picture(1)),
        fingerprint(3, a=picture(0)),
        fingerprint(4, a=picture(0), b=picture(1), dataset=two[0]),
        fingerprint(5, a=picture(0), b=picture(1), dataset=two[1]),
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == fingerprint(6, b=picture(1), a=picture(0))


def test_a_zip_with_one_folder_around_everything_keeps_its_labels(tmp_path: Path) -> None:
    files = {"set/00/a.png": picture(0), "set/00/b.png": picture(1), "__MACOSX/set/._a.png": b"x", "set/.DS_Store": b""}
    files["set/dataset.json"] = json.dumps({"labels": {"00/a.png": 1, "00/b.png": [1, 0]}}).encode()
    files["set/labels.json"] = json.dumps({"classes": ["no", "yes"], "files": {"00/b.png": {"age": 3}}}).encode()
    found = open_images(make_zip(tmp_path / "set.zip", files))
    assert found.labels.tolist() == [1, 0] and found.class_names == ("no", "yes")
    assert np.isnan(found.attributes["age"][0]) and found.attributes["age"][1] == 3
    assert not found.skipped
    without = open_images(tmp_path / "set.zip", labels=False)
    assert without.labels is None and without.num_classes == 0 and not without.attributes


def test_of_several_dataset_json_the_outermost_counts(tmp_path: Path) -> None:
    files = {"a/b/1.png": picture(0), "z/2.png": picture(1)}
    files["a/b/dataset.json"] = json.dumps({"labels": [["1.png", 1], ["../../z/2.png", 1]]}).encode()
    files["z/dataset.json"] = json.dumps({"labels": [["../a/b/1.png", 3], ["2.png", 3]]}).encode()
    files["y/dataset.json"] = b'{"labels": null}'
    for path in (make_folder(tmp_path / "folder", files), make_zip(tmp_path / "a.zip", files)):
        assert open_images(path).labels is None
    deep = {f"x/y/z/{name}": data for name, data in files.items() if not name.startswith("y/")}
    del deep["x/y/z/z/dataset.json"]
    assert "not used" in reasons(open_images(make_zip(tmp_path / "b.zip", deep)))["dataset.json"]
    two = {"q/w/e/1.png": picture(0), "q/w/e/dataset.json": b'{"labels": [["1.png", 2]]}'}
    assert open_images(make_zip(tmp_path / "c.zip", two)).labels.tolist() == [2]


def test_no_labels_is_no_classes(tmp_path: Path) -> None:
    files = {"a.png": picture(0), "dataset.json": b'{"labels": null}'}
    found = open_images(make_zip(tmp_path / "a.zip", files))
    assert found.labels is None and found.num_classes == 0 and not found.skipped


@pytest.mark.parametrize(
    "labels",
    [b"{", b"[1, 2]", b"\xff\xfe", b'{"labels": 5}', b'{"labels": [["a.png"]]}', b'{"labels": [["a.png", -1]]}',
     b'{"labels": [["b.png", 0]]}', b'{"labels": [["a.png", 1.5]]}', b'{"labels": [["a.png", "cat"]]}',
     b'{"labels": [["a.png", [0.2, 0.8]]]}', b'{"labels": [["a.png", 1e999]]}', b'{"labels": [["a.png", true]]}',
     b'{"labels": [["a.png", 99999999]]}', b'{"labels": [["a.png", NaN]]}', b"[" * 100_000],
)  # fmt: skip
def test_labels_that_make_no_sense_are_left_out_and_said(tmp_path: Path, labels: bytes) -> None:
    found = open_images(make_zip(tmp_path / "a.zip", {"a.png": picture(), "dataset.json": labels}))
    assert found.labels is None and found.num_images == 1
    assert "not used" in reasons(found)["dataset.json"]


def test_folders_become_classes_only_when_asked(tmp_path: Path) -> None:
    files = {"x/cats/1.png": picture(0), "x/dogs/2.png": picture(1), "x/dogs/old/3.png": picture(2)}
    path = make_folder(tmp_path, files)
    assert open_images(path).num_classes == 0
    found = open_images(path, classes_from_folders=True)
    assert found.class_names == ("cats", "dogs", "dogs/old") and found.labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="two folders"):
        open_images(path / "x" / "cats", classes_from_folders=True)


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(GREY)),
        encode(Image.fromarray(GREY).convert("P")),
        encode(Image.fromarray(GREY).convert("LA")),
        encode(Image.fromarray(GREY).convert("RGBA")),
        encode(Image.fromarray(GREY.astype(np.uint16) * 257)),
        encode(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
        encode(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
        encode(Image.fromarray(GREY), "BMP"),
        encode(Image.fromarray(GREY), "GIF"),
        encode(Image.fromarray(GREY).convert("RGB"), "WEBP", lossless=True),
        encode(Image.fromarray(GREY), "PPM"),
        encode(Image.fromarray(GREY), "TGA"),
        encode(Image.fromarray(GREY).convert("RGB").convert("CMYK"), "TIFF"),
    ],
    ids="L P LA RGBA I;16 F I BMP GIF WEBP PPM TGA CMYK".split(),
)
def test_every_mode_and_format_gives_the_same_grey(data: bytes) -> None:
    pixels = read_pixels(data, 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - GREY[..., None]).max() <= 1


def test_jpeg_of_any_size_comes_close_to_the_picture() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None], (640, 640, 3))
    pixels = read_pixels(encode(ramp, "JPEG", quality=95), 16)
    assert np.abs(pixels[8, :, 0].astype(int) - np.linspace(6, 249, 16)).max() <= 3


def test_alpha_is_laid_on_white_unless_four_channels_are_asked_for() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :16] = (255, 0, 0, 255)
    data = encode(pixels)
    flat = read_pixels(data, 16)
    assert (flat[8, 2] == (255, 0, 0)).all() and (flat[8, 13] == 255).all()
    whole = read_pixels(data, 16, img_channels=4)
    assert whole.shape == (16, 16, 4) and (whole[8, 2] == (255, 0, 0, 255)).all() and whole[8, 13, 3] == 0
    assert whole[8, 8, 0] >= 200 or whole[8, 8, 3] == 0  # hidden black does not darken the edge
    assert read_pixels(encode(GREY), 16, img_channels=1).shape == (16, 16, 1)


def test_a_picture_is_cut_padded_or_squeezed_to_a_square() -> None:
    wide = np.full((16, 48, 3), (0, 0, 255), np.uint8)
    wide[:, 16:32] = (255, 0, 0)
    cut, padded, squeezed = (read_pixels(encode(wide), 16, fit=fit) for fit in ("crop", "pad", "resize"))
    assert (cut[:, 2:14] == (255, 0, 0)).all()
    assert padded[0, 0, 2] > 100 and padded[8, 8, 0] > 245 > 10 > padded[8, 8, 2] and padded[8, 1, 2] > 245
    assert squeezed[8, 8, 0] > 245 > 10 > squeezed[8, 8, 2] and squeezed[8, 1, 2] > 245 > 10 > squeezed[8, 1, 0]


def test_a_photograph_held_upright_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32] = 255
    (tmp_path / "a.jpg").write_bytes(encode(pixels, "JPEG", exif=exif, quality=95))
    found = open_images(tmp_path, 16)
    assert found.sizes == ((32, 64),)
    assert found.pixels(0)[2].mean() > 240 and found.pixels(0)[13].mean() < 15


def test_the_resolution_follows_the_median_short_side(tmp_path: Path) -> None:
    assert suggest_resolution([(100, 70), (64, 64), (9, 3000)]) == 64
    assert suggest_resolution([(8, 8)]) == 8 and suggest_resolution([(5000, 4000)]) == 1024
    files = {f"{i}.png": picture(i, 40, 50) for i in range(3)}
    assert open_images(make_folder(tmp_path, files)).resolution == 32


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 nonsense", os.urandom(2000), None])
def test_an_empty_or_damaged_zip_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(make_zip(path, {"a.png": picture()}).read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=r"^a\.zip is not a zip file or is damaged[^\n]*\.$"):
        open_images(path)


@pytest.mark.parametrize("files", [{}, {"README.md": b"hello", ".hidden.png": picture()}])
def test_nothing_to_use_is_one_sentence(tmp_path: Path, files: dict[str, bytes]) -> None:
    for path in (make_zip(tmp_path / "a.zip", files), make_folder(tmp_path / "folder", files)):
        path.mkdir(exist_ok=True) if path.suffix == "" else None
        with pytest.raises(DataError, match=r"^\S+ holds no pictures; give [^\n]+\.$"):
            open_images(path)
    with pytest.raises(DataError, match="There is no folder or file"):
        open_images(tmp_path / "missing")
    with pytest.raises(DataError, match=r"holds no usable picture: 1 skipped, for example notes.bin \(not a picture\)"):
        open_images(make_zip(tmp_path / "b.zip", {"notes.bin": b"hello"}))


def test_bad_files_are_skipped_with_a_reason_and_good_ones_stay(tmp_path: Path) -> None:
    whole = picture(1, 64, 64)
    jpeg = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG")
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    files = {
        "good.png": whole,
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "broken.png": bytes(broken),
        "text.png": b"not a picture at all",
        "empty.png": b"",
        "small.png": picture(2, 4, 30),
        "page.ps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for path in (make_zip(tmp_path / "a.zip", files), make_folder(tmp_path / "folder", files)):
        found = open_images(path, 16)
        assert found.names == ("good.png",) and found.array().shape == (1, 16, 16, 3)
        why = reasons(found)
        assert set(why) == set(files) - {"good.png"}
        assert why["cut.jpg"] == "cut off" and why["text.png"] == why["page.ps"] == "not a picture"
        assert why["small.png"] == "only 4 x 30 pixels"


def test_a_bomb_of_pixels_is_skipped_unopened(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    def bomb(side: int) -> bytes:
        header = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
        parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100_000))), chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    files = {"a.png": picture(), "huge.png": bomb(60_000), "large.png": bomb(9_000)}
    found = open_images(make_zip(tmp_path / "a.zip", files), 16)
    assert found.num_images == 1
    assert all("million pixels" in reasons(found)[name] for name in ("huge.png", "large.png"))


def test_a_bomb_of_bytes_is_skipped_by_its_declared_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", picture())
        archive.writestr("zeros.bmp", bytes(sources.MAX_MEMBER_BYTES + 1))
    assert path.stat().st_size < 200_000
    assert reasons(open_images(path, 16)) == {"zeros.bmp": "larger than 64 MB"}


def test_a_member_that_lies_about_its_size_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", picture())
        archive.writestr("b.bmp", bytes(5_000_000))
    data = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(data)
    assert reasons(open_images(path, 16)) == {"b.bmp": "damaged inside the zip"}


def test_too_many_members_or_bytes_in_all_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", {f"{i}.png": picture() for i in range(4)})
    monkeypatch.setattr(sources, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 files"):
        open_images(path)
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(DataError, match="would unpack to more than"):
        open_images(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_climb_out_doubles_and_secrets_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    bad = ["../up.png", "/root.png", "a/../../up.png", "C:\\x.png", "..\\up.png"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in ["good.png", *bad, "good.png"]:
            archive.writestr(name, picture())
        archive.writestr("secret.png", picture())
    data = bytearray(path.read_bytes())
    place = data.rindex(b"secret.png") - 46
    data[place + 8] |= 1
    path.write_bytes(bytes(data))
    found = open_images(path, 16)
    assert found.names == ("good.png",)
    why = reasons(found)
    assert all(why[name] == "an unsafe name" for name in bad)
    assert why["good.png"] == "a second file of the same name" and why["secret.png"] == "encrypted"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_links_do_not_lead_out_and_pipes_do_not_hang(tmp_path: Path) -> None:
    outside = make_folder(tmp_path / "outside", {"private.png": picture(1)})
    inside = make_folder(tmp_path / "inside", {"a.png": picture(0)})
    (inside / "link.png").symlink_to(outside / "private.png")
    (inside / "linked").symlink_to(outside)
    (inside / "same.png").symlink_to(inside / "a.png")
    (inside / "gone.png").symlink_to(inside / "nothing.png")
    os.mkfifo(inside / "pipe.png")
    found = open_images(inside)
    assert found.names == ("a.png", "same.png")
    assert reasons(found) == {
        "link.png": "a link that leads out of the folder",
        "linked": "a linked folder",
        "gone.png": "cannot be read",
        "pipe.png": "not a plain file",
    }


def test_a_single_picture_is_a_set_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "b.png").write_bytes(picture())
    assert open_images(tmp_path / "a.png").names == ("a.png",)


def test_split_is_disjoint_complete_and_steady(cartoons: ImageSet) -> None:
    train, held = cartoons.split(0.1, seed=1)
    assert (train.num_images, held.num_images) == (86, 10)
    assert sorted(train.names + held.names) == sorted(cartoons.names)
    assert cartoons.split(0.1, seed=1)[1].names == held.names != cartoons.split(0.1, seed=2)[1].names
    place = cartoons.names.index(held.names[0])
    assert (held.pixels(0) == cartoons.pixels(place)).all() and held.labels[0] == cartoons.labels[place]
    assert held.attributes["glasses"][0] == cartoons.attributes["glasses"][place]
    assert held.class_names == cartoons.class_names and len(held.array()) == 10
    assert set(cartoons.split(0.3, seed=1)[1].names) > set(held.names)
    assert [len(part) for part in cartoons.split(0)] == [96, 0]


def test_a_set_too_large_for_memory_is_read_on_the_fly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.png": picture(0), "b.png": picture(1)[:-60], "c.png": picture(2)})
    in_memory = open_images(path)
    monkeypatch.setattr(images, "MAX_ARRAY_BYTES", 1000)
    lazy = open_images(path)
    assert lazy.names == in_memory.names == ("a.png", "c.png") and "b.png" in reasons(lazy)
    assert (lazy.batch([1, 0, 1]) == in_memory.batch([1, 0, 1])).all()
    assert (pickle.loads(pickle.dumps(lazy)).pixels(1) == in_memory.pixels(1)).all()
    with pytest.raises(DataError, match="memory"):
        lazy.array()


def test_a_picture_that_vanishes_later_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_ARRAY_BYTES", 0)
    found = open_images(make_folder(tmp_path, {"a.png": picture()}))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="a.png in .* can no longer be read"):
        found.pixels(0)


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = make_folder(tmp_path, {f"{i}.png": picture(i) for i in range(5)})
    open_images(path, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 5) for i in range(1, 6)]
