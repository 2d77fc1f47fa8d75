"""Preparing a set: what is reported is what is there, and what is written reads back as it was."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan.cli import prepare as command
from stylegan.data.images import open_images, sample_sets
from stylegan.data.prepare import inspect, prepare
from stylegan.errors import DataError

SAMPLE = sample_sets()["cartoon-sample-64"]


def save(path: Path, seed: int = 0, width: int = 24, height: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for i, name in enumerate(["cats/1.png", "cats/2.png", "dogs/3.bmp"]):
        save(root / name, i)
    (root / "dogs" / "notes.bin").write_bytes(b"woof")
    (root / "LICENSE.txt").write_text("mine")
    return root


def test_inspect_counts_what_is_there(folder: Path) -> None:
    report = inspect(folder)
    assert (report.num_accepted, report.skipped) == (3, (("dogs/notes.bin", "not a picture"),))
    assert report.sizes == (((24, 16), 3),) and report.resolution == 16 and report.num_enlarged == 0
    sample = inspect(SAMPLE)
    assert (sample.num_accepted, sample.resolution, sample.num_classes) == (96, 64, 6)
    assert dict(zip(sample.class_names, sample.class_counts, strict=True)) == {
        "bald": 1, "blond": 29, "ginger": 17, "brown": 20, "black": 10, "grey": 19}  # fmt: skip


def test_the_text_of_a_report_says_all_of_it(folder: Path) -> None:
    text = inspect(folder).to_text()
    assert text.splitlines() == [
        "3 pictures accepted, 1 skipped",
        "suggested resolution: 16",
        "sizes: 24 x 16 (3)",
        "skipped: 1 x not a picture, for example dogs/notes.bin",
    ]
    assert json.loads(inspect(SAMPLE).to_json())["class_counts"] == [1, 29, 17, 20, 10, 19]


def test_transparent_parts_that_become_white_are_told(tmp_path: Path) -> None:
    for name, alpha in (("clear", 0), ("solid", 255)):
        pixels = np.full((16, 16, 4), 90, np.uint8)
        pixels[:4, :, 3], pixels[4:, :, 3] = alpha, 255
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    report = inspect(tmp_path)
    assert report.num_flattened == 1 and "1 have transparent parts, which become white" in report.to_text()
    assert open_images(tmp_path, 16).flattened.tolist() == [True, False]
    assert not open_images(tmp_path, 16, img_channels=4).flattened.any(), "with alpha nothing becomes white"


def test_names_that_would_play_with_a_terminal_are_tamed(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "x\x1b[2J\n.bin").write_bytes(b"x")
    assert "x?[2J?.bin" in inspect(tmp_path).to_text()


def test_preparing_the_sample_loses_nothing(tmp_path: Path) -> None:
    report = prepare([SAMPLE], tmp_path / "out.zip", 64)
    before, after = open_images(SAMPLE), open_images(tmp_path / "out.zip")
    assert (after.array() == before.array()).all() and (after.labels == before.labels).all()
    assert after.class_names == before.class_names == report.class_names
    assert set(after.attributes) == set(before.attributes)
    assert all((after.attributes[name] == before.attributes[name]).all() for name in before.attributes)
    assert report.num_accepted == 96 and report.num_bytes == (tmp_path / "out.zip").stat().st_size
    assert report.to_text().splitlines()[1].startswith("written: ")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert "CC BY 4.0" in archive.read("notices/0/README.md").decode()


def test_the_zip_has_the_layout_of_nvidias_tools(folder: Path, tmp_path: Path) -> None:
    prepare([folder], tmp_path / "out.zip", 8, classes_from_folders=True)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = [f"00000/img{i:08d}.png" for i in range(3)]
        assert archive.namelist() == [*names, "dataset.json", "labels.json", "notices/0/LICENSE.txt"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert labels == [[names[0], 0], [names[1], 0], [names[2], 1]]
        picture = Image.open(io.BytesIO(archive.read(names[0])))
        assert picture.size == (8, 8) and picture.mode == "RGB"
    plain = prepare([folder], tmp_path / "plain.zip", 8)
    assert plain.class_names == ()
    with zipfile.ZipFile(tmp_path / "plain.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


def test_the_same_sources_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        prepare([folder, SAMPLE], tmp_path / name, 16, "pad")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_many_sources_are_joined_and_classes_matched_by_name(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "more" / "dogs" / "x.png", 7)
    save(tmp_path / "more" / "birds" / "y.png", 8)
    report = prepare([folder, tmp_path / "more"], tmp_path / "out.zip", 8, classes_from_folders=True)
    assert report.class_names == ("cats", "dogs", "birds") and report.class_counts == (2, 2, 1)
    assert report.skipped == (("pets/dogs/notes.bin", "not a picture"),)
    alone = prepare([folder / "cats", folder / "dogs"], tmp_path / "out.zip", 8, classes_from_folders=True)
    assert alone.class_names == ("cats", "dogs") and alone.class_counts == (2, 1)


def test_classes_of_only_some_sources_are_dropped_and_said(folder: Path, tmp_path: Path) -> None:
    report = prepare([SAMPLE, folder], tmp_path / "out.zip", 8)
    assert report.class_names == () and report.num_accepted == 99
    assert ("pets", "has no classes, so those of the other sources were not used") in report.skipped


def test_one_useless_source_among_several_is_only_noted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    report = prepare([tmp_path / "bad.zip", folder / "cats" / "1.png"], tmp_path / "out.zip", 8)
    assert report.num_accepted == 1
    assert report.skipped == (("bad.zip", "bad.zip is not a zip file or is damaged; make it anew."),)


def test_small_pictures_are_reported_as_enlarged(folder: Path, tmp_path: Path) -> None:
    report = prepare([folder], tmp_path / "out.zip", 32)
    assert report.num_enlarged == 3 and "will look soft" in report.to_text()


@pytest.mark.parametrize("case", ["nothing", "missing", "fit", "suffix", "resolution", "in the way"])
def test_what_cannot_be_prepared_is_one_sentence_and_leaves_no_file(folder: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "taken").write_bytes(b"")
    arguments = {"sources": [folder], "out_zip": tmp_path / "out.zip", "resolution": 8, "fit": "crop"}
    arguments |= {
        "nothing": {"sources": []},
        "missing": {"sources": [tmp_path / "nowhere"]},
        "fit": {"fit": "stretch"},
        "suffix": {"out_zip": tmp_path / "out.png"},
        "resolution": {"resolution": 3},
        "in the way": {"out_zip": tmp_path / "taken" / "out.zip"},
    }[case]
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DataError, match=r"^[^\n]+\.$"):
        prepare(**arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_full_disk_keeps_the_old_zip(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.zip"
    out.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="The disk is full"):
        prepare([folder], out, 8)
    assert out.read_bytes() == b"old" and sorted(p.name for p in tmp_path.iterdir()) == ["out.zip", "pets"]


def test_duplicates_are_reported_and_dropped_when_asked(folder: Path, tmp_path: Path) -> None:
    copy = folder / "dogs" / "copy.png"
    copy.write_bytes((folder / "cats" / "1.png").read_bytes())
    face = Image.fromarray(open_images(SAMPLE).pixels(0))
    face.save(folder / "cats" / "2.png")
    face.resize((100, 100)).save(folder / "cats" / "large.png")
    looked = inspect(folder)
    assert (looked.num_accepted, looked.num_duplicates, looked.num_copies) == (5, 2, 1)
    assert ("dogs/copy.png", "cats/1.png") in looked.duplicates
    assert "duplicates: 2 look like an earlier picture, 1 of them the same file; " in looked.to_text()
    kept = prepare([folder], tmp_path / "all.zip", 16, "resize")
    assert (kept.num_accepted, kept.num_duplicates) == (5, 2)
    dropped = prepare([folder], tmp_path / "few.zip", 16, "resize", drop_duplicates=True)
    assert (dropped.num_accepted, dropped.num_duplicates) == (3, 0)
    assert {("dogs/copy.png", "looks like cats/1.png"), ("cats/large.png", "looks like cats/2.png")} <= {
        *dropped.skipped}  # fmt: skip
    assert open_images(tmp_path / "few.zip").num_images == 3


def test_duplicates_are_found_across_sources(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "x.png"
    other.parent.mkdir()
    other.write_bytes((folder / "cats" / "1.png").read_bytes())
    report = prepare([folder, other], tmp_path / "out.zip", 16, drop_duplicates=True)
    assert report.num_accepted == 3 and ("x.png", "looks like cats/1.png") in report.skipped


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_prepares_and_reports(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.zip"
    assert run(folder, "--out", out, "--resolution", 16, "--fit", "pad", "--classes-from-folders") == 0
    said = capsys.readouterr().out
    assert "3 pictures accepted, 1 skipped" in said and "cats (2), dogs (1)" in said
    assert open_images(out).class_names == ("cats", "dogs")
    assert run(folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["resolution"] == 16
    for wrong in ([tmp_path / "nowhere", "--out", out], [folder, folder]):
        with pytest.raises(DataError, match=r"^[^\n]+\.$"):
            run(*wrong)
