"""Pictures that look alike: found when encoded or resized anew, never when merely similar, and never split apart."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan.data.duplicates import duplicate_groups, perceptual_hash
from stylegan.data.images import ImageSet, open_images, sample_sets

SAMPLE = sample_sets()["cartoon-sample-64"]


@pytest.fixture(scope="module")
def cartoons() -> ImageSet:
    return open_images(SAMPLE)


def save(path: Path, pixels: np.ndarray, size: int | None = None, **options) -> None:
    picture = Image.fromarray(pixels)
    if size:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


def groups_of(pixels: list[np.ndarray]) -> tuple[tuple[int, ...], ...]:
    hashes = np.array([perceptual_hash(one) for one in pixels], dtype=np.uint64)
    return duplicate_groups(hashes, pixels.__getitem__)


@pytest.mark.parametrize("name", ["cartoon-sample-64", "pomological-sample-64"])
@pytest.mark.parametrize("resolution", [16, 64])
def test_different_pictures_are_no_duplicates(name: str, resolution: int) -> None:
    assert open_images(sample_sets()[name], resolution).duplicate_groups() == ()


@pytest.mark.parametrize("change", ["same", "jpeg", "larger", "smaller", "png"])
def test_pictures_saved_anew_are_found(cartoons: ImageSet, tmp_path: Path, change: str) -> None:
    for i in range(12):
        save(tmp_path / f"{i:02d}a.png", cartoons.pixels(i))
        options = {"jpeg": {"quality": 80}, "png": {"optimize": True}}.get(change, {})
        size = {"larger": 100, "smaller": 48}.get(change)
        save(tmp_path / f"{i:02d}b.{'jpg' if change == 'jpeg' else 'png'}", cartoons.pixels(i), size, **options)
    assert open_images(tmp_path, 64).duplicate_groups() == tuple((2 * i, 2 * i + 1) for i in range(12))


def test_chains_are_closed_and_flat_pictures_told_apart() -> None:
    flat = [np.full((16, 16, 3), value, np.uint8) for value in (100, 105, 110, 200, 115)]
    assert groups_of(flat) == ((0, 1, 2, 4),)  # each within 6 of the next, the ends 15 apart
    colours = [np.broadcast_to(np.uint8(c), (16, 16, 3)) for c in ((200, 50, 50), (50, 200, 50), (50, 50, 200))]
    assert groups_of(colours) == ()  # their grey hashes are equal


def test_hashes_survive_any_size_and_channels() -> None:
    rng = np.random.default_rng(0)
    for shape in ((4, 4, 3), (8, 8, 1), (64, 64, 4), (100, 100, 3)):
        assert 0 <= perceptual_hash(rng.integers(0, 256, shape, dtype=np.uint8)) < 2**64
    base = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((128, 128), 3))
    half = np.asarray(Image.fromarray(base).resize((64, 64), Image.Resampling.BOX))
    assert (perceptual_hash(base) ^ perceptual_hash(half)).bit_count() <= 2


def test_many_copies_of_one_picture_cost_no_pair_each() -> None:
    asked: list[int] = []
    pixels = np.zeros((16, 16, 3), np.uint8)

    def read(i: int) -> np.ndarray:
        asked.append(i)
        return pixels

    assert duplicate_groups(np.zeros(3000, np.uint64), read) == (tuple(range(3000)),)
    assert len(asked) == 3000


# The split


def test_duplicates_never_straddle_the_split(cartoons: ImageSet, tmp_path: Path) -> None:
    for i in range(40):
        save(tmp_path / f"first/{i}.png", cartoons.pixels(i))
        save(tmp_path / f"second/{i}.jpg", cartoons.pixels(i), quality=85)
    images = open_images(tmp_path, 64)
    for seed in range(5):
        train, held = images.split(0.25, seed)
        assert len(held) == 20 and len(train) == 60
        kept = {Path(name).stem for name in train.names} & {Path(name).stem for name in held.names}
        assert kept == set()


def test_the_split_is_the_same_for_a_folder_a_zip_and_any_names(cartoons: ImageSet, tmp_path: Path) -> None:
    for i in range(30):
        buffer = io.BytesIO()
        Image.fromarray(cartoons.pixels(i)).save(buffer, "PNG")
        for name in (f"a/{i:03d}.png", f"b/{(7 * i) % 30:03d}.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(buffer.getvalue())
    first, second = (open_images(tmp_path / name, 64).split(0.2)[1] for name in "ab")
    assert len(first) == 6
    assert {one.tobytes() for one in first.array()} == {one.tobytes() for one in second.array()}
    assert open_images(tmp_path / "a", 32).split(0.2)[1].names == first.names
    assert first.fingerprint() == open_images(tmp_path / "a", 64).split(0.2)[1].fingerprint() != second.fingerprint()


def test_a_group_larger_than_the_held_out_part_is_trained_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    same = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for i in range(20):
        save(tmp_path / f"{i}.png", same if i < 10 else rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for seed in range(4):
        train, held = open_images(tmp_path).split(0.2, seed)
        assert len(held) == 4 and {f"{i}.png" for i in range(10)} <= set(train.names)
    assert len(open_images(tmp_path).split(1.0)[1]) == 20
