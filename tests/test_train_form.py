"""The Train tab's form: how pictures and videos are taken, what that means as commands, and what a run will cost."""

from __future__ import annotations

import argparse
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import open_browser, open_page, running_app
from PIL import Image
from test_frames import film, scenes

from stylegan.cli import prepare as prepare_command
from stylegan.cli import train as train_command
from stylegan.data.images import open_images, sample_sets
from stylegan.errors import StyleGANError
from stylegan.training.config import TrainConfig
from stylegan.training.estimate import Estimate
from stylegan.training.presets import PRESETS
from stylegan.training.run import TrainingRun
from stylegan.ui import train_cost, train_fields, train_form, train_pictures
from stylegan.ui.train_form import FOLDER, GIVEN, SAMPLE, SUBFOLDERS, UPLOAD, Form
from stylegan.ui.train_pictures import Taking, known_look, look_at, pictures_view

SAMPLE_SET = next(iter(sample_sets()))


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with pictures in two subfolders, a copy, a video of three different seconds, and what is no picture."""
    folder, faces = tmp_path / "data" / "mixed", open_images(sample_sets()[SAMPLE_SET])
    for i in range(6):
        save(folder / ("cats" if i % 2 else "dogs") / f"{i}.png", faces.pixels(i))
    (folder / "cats" / "copy.png").write_bytes((folder / "cats" / "1.png").read_bytes())
    film(folder / "clip.mp4", [scene for scene in scenes(3) for _ in range(10)])
    (folder / "text.png").write_bytes(b"I am text")
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Configs that would have been started; no process is."""
    configs: list[TrainConfig] = []

    def start(config: TrainConfig) -> TrainingRun:
        configs.append(config)
        return TrainingRun(config.out)

    monkeypatch.setattr(TrainingRun, "start", start)
    return configs


# ---- looking ---------------------------------------------------------------------------------------------------------

def test_a_look_counts_frames_twins_classes_and_says_why_files_are_skipped(mixed: Path) -> None:
    look = look_at([mixed])
    assert (look.num_accepted, look.num_videos, look.num_frames) == (10, 1, 3)
    assert dict(look.skipped) == {"text.png": "not a picture", "tiny.png": "only 1 x 1 pixels",
                                  "broken.mp4": "not a video that can be read here"}  # fmt: skip
    assert (look.num_twins, look.num_copies) == (1, 1) and look.twins[0][:2] == ("cats/copy.png", "cats/1.png")
    view = pictures_view(look, Taking(), 64)
    assert view["accepted"] == 10 and "3 are frames of 1 video." in view["notes"]
    assert set(look.folder_classes) == {"unsorted", "cats", "dogs"} and look.classes(Taking()) == ()
    assert any("3 classes" in note for note in pictures_view(look, Taking(classes_from_folders=True), 64)["notes"])


def test_the_thumbnails_and_counts_follow_the_choice(mixed: Path) -> None:
    plain, dropped = (pictures_view(look_at([mixed]), Taking(drop_duplicates=drop), 64) for drop in (False, True))
    assert (plain["accepted"], dropped["accepted"]) == (10, 9) and plain["sheet"] != dropped["sheet"]
    assert (plain["columns"], plain["rows"], dropped["columns"], dropped["rows"]) == (10, 1, 9, 1)
    assert look_at([mixed], Taking(every="0.5s")).num_frames == 3  # half seconds show the same scene again
    assert look_at([mixed], Taking(every="15")).num_frames == 2
    assert look_at([mixed], Taking("pad")).sheet.src != look_at([mixed]).sheet.src
    with pytest.raises(StyleGANError, match="no step between frames"):
        look_at([mixed], Taking(every="often"))


def test_a_long_video_is_only_glanced_at(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_pictures, "LOOK_FRAMES", 2)
    look = look_at([mixed], Taking(every="1"))
    view = pictures_view(look, Taking(every="1"), 64)
    assert (look.num_frames, look.num_cut) == (2, 1) and view["more"] and look.num_taken(Taking()) == 0
    assert any("only the first 2" in note for note in view["notes"])
    assert "clip.mp4" not in dict(look.skipped)


def test_what_is_known_costs_no_second_look(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_look([mixed], Taking(every="2s")) is None
    look = look_at([mixed], Taking(every="2s"))
    monkeypatch.setattr(train_pictures, "gathered", None)
    assert look_at([mixed], Taking(every="2s", drop_duplicates=True)) is look
    assert known_look([mixed], Taking(every="2s", classes_from_folders=True)) is look


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", bytes(70 * 2**20))
    return path


@pytest.mark.parametrize(("name", "make", "words"), [
    ("clip.mp4", lambda path: path.write_bytes(b"\0\0\0\x18ftypmp42"), "not a video"),
    ("cat.png", lambda path: path.write_bytes(b"I am text"), "not a picture"),
    ("dot.png", lambda path: Image.new("RGB", (1, 1)).save(path), "only 1 x 1 pixels"),
    ("bomb.zip", bomb, "larger than 64 MB"),
    ("torn.zip", lambda path: path.write_bytes(b"PK\3\4 torn"), "not a zip file"),
])
def test_a_bad_upload_is_one_sentence_alone_and_one_line_among_good_ones(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: str, started: list[TrainConfig]
) -> None:
    path, good = tmp_path / name, save(tmp_path / "good" / "a.png", scenes(1)[0])
    make(path)
    form = Form(UPLOAD, files=[str(path)], resolution=16, kimg=1)
    with pytest.raises(StyleGANError, match=words) as caught:
        train_form.start_run(form, tmp_path / "runs", [])
    assert name in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not started and not (tmp_path / "runs").exists()
    look = look_at([path, good])
    assert look.num_accepted == 1 and len(look.skipped) == 1 and words in look.skipped[0][1]


def test_loose_files_of_one_name_are_kept_apart_and_named_plainly(tmp_path: Path) -> None:
    one, two = (save(tmp_path / place / "a.png", scenes(2)[k]) for k, place in enumerate("xy"))
    bad = tmp_path / "b.png"
    bad.write_bytes(b"no")
    look = look_at([one, two, bad])
    assert (look.num_accepted, look.num_twins) == (2, 0) and look.skipped == (("b.png", "not a picture"),)


# ---- from the form to commands and a run -----------------------------------------------------------------------------

def run_prepare(line: str) -> None:
    parser = argparse.ArgumentParser()
    prepare_command.add_arguments(parser)
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "stylegan", "prepare"]
    assert prepare_command.run(parser.parse_args(words[4:])) == 0


@pytest.mark.parametrize("change", [
    {}, {"drop_duplicates": True, "every": "15"}, {"fit": "pad", "classes": SUBFOLDERS}, {"classes": SUBFOLDERS}])
def test_the_two_commands_make_the_very_pictures_that_start_trains_on(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[TrainConfig], change: dict
) -> None:
    form = Form(FOLDER, folder="mixed", resolution=16, kimg=1, **change)
    run = train_form.start_run(form, tmp_path / "runs", [mixed.parent])
    made = Path(started[0].data)
    assert made == run.path / train_form.PICTURES and started[0].conditional == ("classes" in change)
    images = open_images(made)
    assert images.num_images == {True: 8, False: 10}[bool(form.drop_duplicates)]
    assert images.num_classes == (3 if "classes" in change else 0)
    monkeypatch.chdir(mixed.parent)
    other = started[0].replace(data=str(tmp_path / "again.zip"))
    run_prepare(train_form.prepare_line(form, other, [mixed.parent]))
    assert Path(other.data).read_bytes() == made.read_bytes()


def test_uploads_are_named_in_the_command_as_on_their_owners_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[TrainConfig]
) -> None:
    video = film(tmp_path / "uploads" / "1" / "my clip.mp4", scenes(3))
    picture = save(tmp_path / "uploads" / "2" / "a.png", scenes(9)[8])
    form = Form(UPLOAD, files=[str(video), str(picture)], resolution=16, kimg=1, every="1")
    train_form.start_run(form, tmp_path / "runs", [])
    assert open_images(started[0].data).num_images == 4
    for path in (video, picture):
        path.rename(tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    other = started[0].replace(data=str(tmp_path / "again.zip"))
    line = train_form.prepare_line(form, other, [])
    assert "'my clip.mp4' a.png" in line and "uploads/" not in line
    run_prepare(line)
    assert Path(other.data).read_bytes() == Path(started[0].data).read_bytes()


def test_a_plain_folder_and_a_sample_set_are_trained_on_as_they_lie(
    tmp_path: Path, started: list[TrainConfig]
) -> None:
    save(tmp_path / "data" / "set" / "a.png", scenes(1)[0])
    train_form.start_run(Form(FOLDER, folder="set", resolution=16, kimg=1), tmp_path / "runs", [tmp_path / "data"])
    train_form.start_run(Form(SAMPLE, sample=SAMPLE_SET, resolution=16, kimg=1), tmp_path / "runs", [])
    assert [config.data for config in started] == [str(tmp_path / "data" / "set"), SAMPLE_SET]
    padded = Form(SAMPLE, sample=SAMPLE_SET, resolution=16, kimg=1, fit="pad", name="padded")
    train_form.start_run(padded, tmp_path / "runs", [])
    run_prepare(train_form.prepare_line(padded, started[-1].replace(data=str(tmp_path / "again.zip")), []))
    assert (tmp_path / "again.zip").read_bytes() == Path(started[-1].data).read_bytes()


def test_classes_that_are_not_there_are_said_before_anything_starts(
    tmp_path: Path, started: list[TrainConfig]
) -> None:
    save(tmp_path / "set" / "a.png", scenes(1)[0])
    for classes in (GIVEN, SUBFOLDERS):
        form = Form(FOLDER, folder="set", resolution=16, kimg=1, classes=classes)
        with pytest.raises(StyleGANError, match="no such classes"):
            train_form.start_run(form, tmp_path / "runs", [tmp_path])
    assert not started and not (tmp_path / "runs").exists()


SPOKEN = {"family": "stylegan1", "grow_kimg": "4", "precision": "bf16", "batch": "8", "accumulate": "2",
          "lr": "0.001", "gamma": "0.5", "augment": "ada", "transforms": "bg", "ada_target": "0.5",
          "ada_cap": "0.4", "holdout": "0", "channel_base": "1024",
          "channel_max": "64", "seed": "7", "freeze_d": "2", "metric_images": "0", "snapshot_minutes": "2.5",
          "tensorboard": True, "mirror": False, "preset": "slim", "kimg": 2.5, "minutes": 5}  # fmt: skip


def test_every_setting_of_the_form_reaches_the_config_and_the_command() -> None:
    assert set(SPOKEN) == set(train_form.SETTINGS)
    config = train_form.config_of(Form(**SPOKEN, classes=GIVEN), "a folder", Path("runs/a run"), "model.safetensors")
    untouched = TrainConfig(data="x", out="y")
    for name, value in SPOKEN.items():
        wanted = value if isinstance(value, bool) or name in train_fields.CHOICES or name == "preset" else float(value)
        assert getattr(config, name) == wanted != getattr(untouched, name), name
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    parsed = vars(parser.parse_args(shlex.split(train_form.shell_line(config))[4:]))
    assert TrainConfig(**{name: value for name, value in parsed.items() if hasattr(config, name)}) == config


def test_an_empty_form_leaves_everything_to_be_chosen() -> None:
    config = train_form.config_of(Form(), "x", Path("y"))
    assert config == TrainConfig(data="x", out="y")


@pytest.mark.parametrize("text", ["two", "1e999", "nan", "0x10", "2.5", "-1", "9" * 12])
def test_a_number_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(StyleGANError, match="batch") as caught:
        train_form.config_of(Form(batch=text), "x", Path("y"))
    assert "\n" not in str(caught.value)


def test_presets_and_choices_have_words_and_say_what_they_choose() -> None:
    assert set(train_fields.PRESET_WORDS) == set(PRESETS)
    resolved = TrainConfig(data="x", out="y").resolve(False)
    for name in train_fields.CHOICES:
        (auto, value), *rest = train_fields.choices_of(name, getattr(resolved, name))
        assert value == "" and auto.startswith("auto") and len(rest) == len(train_fields.CHOICES[name])
    assert all(isinstance(getattr(resolved, name), int | float) for name in train_fields.NUMBERS)


# ---- what it costs ---------------------------------------------------------------------------------------------------

@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Configs that were estimated, each at 10 images a second and 3 GB, on a machine of 4 GB."""
    asked: list[TrainConfig] = []

    def estimate(config: TrainConfig, num_classes: int, rate: float) -> Estimate:
        asked.append(config)
        return Estimate(1_000_000, 500_000, 1.0, 3072.0, 10.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(train_cost, "estimate", estimate)
    monkeypatch.setattr(train_cost, "convolution_rate", lambda device, dtype, seconds: 1.0)
    monkeypatch.setattr(train_cost, "total_memory", lambda device: 4 * 2**30)
    train_cost._cost.cache_clear()
    train_cost._rate.cache_clear()
    yield asked
    train_cost._cost.cache_clear()
    train_cost._rate.cache_clear()


def resolved(**settings: object) -> TrainConfig:
    return TrainConfig(**{"data": "x", "out": "y", **settings}).resolve(False)


def test_the_nearer_budget_decides_time_and_images(costs: list[TrainConfig]) -> None:
    words = train_cost.cost_view(resolved(minutes=30.0), 0, 100)["words"]
    assert words.startswith("About 10 images a second here: 30 min for 18 kimg (each picture 180 times). 3.0 GB")
    assert "1.5 million" in words
    assert "1 min 40 s for 1 kimg." in train_cost.cost_view(resolved(minutes=30.0, kimg=1.0))["words"]


def test_only_what_costs_is_estimated_anew(costs: list[TrainConfig]) -> None:
    for settings in ({"minutes": 3.0}, {"kimg": 9.0, "seed": 3, "lr": 0.01}, {"out": "z", "mirror": False}):
        train_cost.cost_view(resolved(**settings))
    assert len(costs) == 1
    for settings in ({"resolution": 32}, {"batch": 4}, {"channel_base": 512}, {"family": "stylegan1"},
                     {"precision": "bf16"}):
        train_cost.cost_view(resolved(**settings))
    assert len(costs) == 6


@pytest.mark.parametrize(("room", "words"), [(8, ""), (3.2, "leaves little of the 3 GB"), (2, "not fit the 2 GB")])
def test_too_much_memory_is_warned_of(
    costs: list[TrainConfig], monkeypatch: pytest.MonkeyPatch, room: float, words: str
) -> None:
    monkeypatch.setattr(train_cost, "total_memory", lambda device: int(room * 2**30))
    problem = train_cost.cost_view(resolved())["problem"]
    assert words in problem and bool(problem) == bool(words)
    monkeypatch.setattr(train_cost, "total_memory", lambda device: None)
    assert train_cost.cost_view(resolved())["problem"] == ""


def test_what_a_run_starts_from_fills_the_open_settings_and_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def like(config: TrainConfig) -> TrainConfig:
        reads.append(config.transfer)
        return config.replace(channel_base=777, z_dim=33)

    monkeypatch.setattr(train_form, "like_source", like)
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"model")
    form = Form(channel_base="512")
    for name in ("a", "b"):
        config = train_form.resolved(train_form.config_of(form, "x", Path(name), str(model)))
        assert (config.channel_base, config.z_dim, config.out) == (512, 33, name)
    assert reads == [str(model)]


# ---- the page --------------------------------------------------------------------------------------------------------

def test_a_video_is_uploaded_looked_at_and_taken_as_chosen(tiny_folder: Path, tmp_path: Path) -> None:
    video = film(tmp_path / "clip.mp4", [scene for scene in scenes(3) for _ in range(10)])
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with open_browser() as browser, running_app(tiny_folder, tmp_path / "runs", timer_seconds=5.0) as url:
        with open_page(browser, url) as page:
            page.get_by_role("tab", name="Train").click()
            page.get_by_text("96 pictures").wait_for()
            page.get_by_text("Upload", exact=True).click()
            page.set_input_files("#train-files input[type=file]", [str(video), str(tmp_path / "bad.mp4")])
            page.get_by_text("3 pictures").wait_for()
            page.get_by_text("3 are frames of 1 video.").wait_for()
            command = page.locator("#train-command")
            page.wait_for_function("document.querySelector('#train-command').textContent.includes('prepare clip.mp4')")
            page.locator("summary", has_text="1 skipped").click()
            page.get_by_text("not a video that can be read here").wait_for()
            page.click("#train-taking > button")
            page.fill("#train-every :is(input, textarea)", "15")
            page.keyboard.press("Enter")
            page.get_by_text("2 pictures").wait_for()
            assert "--every 15" in command.text_content()
            page.click("#train-more-settings > button")
            page.wait_for_selector("#train-batch :is(input, textarea)[placeholder='16']")
            page.fill("#train-batch :is(input, textarea)", "many")
            page.keyboard.press("Tab")
            page.get_by_text("The batch must be a whole number, not many.").first.wait_for()
            page.fill("#train-batch :is(input, textarea)", "4")
            page.keyboard.press("Tab")
            page.wait_for_function("document.querySelector('#train-command').textContent.includes('--batch 4')")
            assert page.locator("#train-grow-kimg").count() == 0, "only StyleGAN1 grows"
            page.click("#train-family input")
            page.get_by_role("option", name="StyleGAN1", exact=True).click()
            page.fill("#train-grow-kimg :is(input, textarea)", "2")
            page.keyboard.press("Tab")
            page.wait_for_function("document.querySelector('#train-command').textContent.includes('--grow-kimg 2')")
            page.wait_for_function("document.querySelector('.tr-cost').textContent.startsWith('About')")
