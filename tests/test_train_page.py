"""The Train tab: what its form means, what it shows of a run folder, and the whole journey in a real browser."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import zipfile
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from browser import open_browser, open_page, running_app
from conftest import save_tiny
from PIL import Image

from stylegan.checkpoint.file import model_hash
from stylegan.cli import train as train_command
from stylegan.data.images import sample_sets
from stylegan.errors import StyleGANError
from stylegan.pixels import encode_jpeg
from stylegan.render import Renderer
from stylegan.training.config import TrainConfig
from stylegan.training.loop import run_from_file
from stylegan.training.run import TrainingRun
from stylegan.training.walk import write_walk
from stylegan.ui import run_view, train, train_form, train_pictures
from stylegan.ui.session import AppContext
from stylegan.ui.train_form import FOLDER, GIVEN, UPLOAD, Form
from stylegan.ui.train_pictures import Taking

SAMPLE_SET = next(iter(sample_sets()))


def png(seed: int = 0, side: int = 20) -> bytes:
    """A small noisy picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 255, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_run(root: Path, name: str = "faces", **config) -> TrainingRun:
    """A run folder with some history, as a trainer of this very process would leave it."""
    settings = {"data": SAMPLE_SET, "out": str(root / name), "resolution": 16, "kimg": 2.0, **config}
    run = TrainingRun.create(root / name, TrainConfig(**settings).to_dict())
    run.write_status("running", 1000)
    for nimg in (0, 500, 1000):
        run.sample_path(nimg).write_bytes(b"jpeg %d" % nimg)
        run.append_event("tick", nimg=nimg, seconds=nimg / 10, images_per_second=10.0, epoch=nimg / 96, nan=0, r_t=0.5,
                         logits_real=1.0, logits_fake=-1.0, p=0.1, loss_g=1.0, loss_d=1.0, eta_seconds=100.0)
    run.reals_path.write_bytes(b"reals")
    run.snapshot_path(500).write_bytes(b"model")
    return run


@pytest.fixture
def started(monkeypatch):
    """Configs that would have been started; no process is."""
    configs = []

    def start(config):
        configs.append(config)
        return TrainingRun(config.out)

    monkeypatch.setattr(TrainingRun, "start", start)
    return configs


# ---- pictures --------------------------------------------------------------------------------------------------------

def test_only_paths_under_an_allowed_root_are_read(tmp_path):
    root, outside = tmp_path / "allowed", tmp_path / "outside"
    for folder in (root / "set", outside):
        folder.mkdir(parents=True)
    (root / "way out").symlink_to(outside)
    assert train_pictures.allowed_path("set", [root]) == root / "set"
    assert train_pictures.allowed_path(str(root / "set"), [root]) == root / "set"
    for text in (str(outside), "../outside", "set/../../outside", "way out", "missing", "/etc", "~", "a\0b", "x" * 999):
        with pytest.raises(StyleGANError, match="--allow-data"):
            train_pictures.allowed_path(text, [root])
    with pytest.raises(StyleGANError, match="No folder"):
        train_pictures.allowed_path("set", [])
    with pytest.raises(StyleGANError, match="Type the path"):
        train_pictures.allowed_path("  ", [root])


@pytest.mark.parametrize(("name", "data"), [("notes.txt", b"hello"), ("cat.png", b"not a picture"), ("set.zip", b"PK")])
def test_what_is_no_picture_is_one_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StyleGANError) as caught:
        train_pictures.look_at([tmp_path / name])
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_zip_and_an_empty_form_are_one_sentence(tmp_path):
    with pytest.raises(StyleGANError, match="no picture"):
        train_pictures.look_at([make_zip(tmp_path / "empty.zip", {})])
    with pytest.raises(StyleGANError, match="Upload"):
        train_form.chosen_sources(Form(UPLOAD, files=[]), [])


def test_the_report_counts_what_was_accepted_and_names_what_was_skipped(tmp_path):
    files = {"a.png": png(0), "b.png": png(1, 40), "broken.png": b"no", "c.png": png(2)}
    archive = make_zip(tmp_path / "set.zip", files)
    clear = Image.open(io.BytesIO(png(3)))
    clear.putalpha(90)
    clear.save(tmp_path / "d.png")
    (tmp_path / "e.png").write_bytes(b"nothing")
    view = train_pictures.pictures_view(
        train_pictures.look_at([archive, tmp_path / "d.png", tmp_path / "e.png"]), Taking(), 32)
    assert view["accepted"] == 4 and view["num_skipped"] == 2
    assert {name for name, _ in view["skipped"]} == {"set.zip/broken.png", "e.png"}
    assert all(why for _, why in view["skipped"])
    notes = " ".join(view["notes"])
    assert "3 will look soft, being smaller than 32 px" in notes and "Transparent parts of 1 become white." in notes
    assert (view["columns"], view["rows"]) == (4, 1) and view["sheet"].startswith("data:image/jpeg;base64,")


def test_what_comes_to_a_folder_below_is_seen(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(png())
    assert train_pictures.look_at([tmp_path / "set"]).num_accepted == 2
    (tmp_path / "set" / "a" / "2.png").write_bytes(png(1))
    assert train_pictures.look_at([tmp_path / "set"]).num_accepted == 3


def test_a_file_that_changes_is_looked_at_again(tmp_path):
    path = make_zip(tmp_path / "set.zip", {"a.png": png()})
    assert train_pictures.look_at([path]).num_accepted == 1
    make_zip(path, {"a.png": png(), "b.png": png(1)})
    assert train_pictures.look_at([path]).num_accepted == 2


# ---- the form --------------------------------------------------------------------------------------------------------

def test_the_command_means_what_the_form_says(tmp_path):
    form = Form(sample=SAMPLE_SET, resolution=32, preset="few-shot", minutes=5, kimg=2.5, batch=8, gamma=0.125, seed=7,
                augment="none", mirror=False, classes=GIVEN)
    config = train_form.config_of(form, "it's a folder", tmp_path / "a run", "model.safetensors")
    words = shlex.split(train_form.shell_line(config))
    assert words[:4] == ["python", "-m", "stylegan", "train"]
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    parsed = {name: value for name, value in vars(parser.parse_args(words[4:])).items() if hasattr(config, name)}
    assert TrainConfig(**parsed) == config and config.augment == "none"


def test_a_started_run_has_its_own_name_and_folder(tmp_path, started):
    run = train_form.start_run(Form(sample=SAMPLE_SET, resolution=16, kimg=1), tmp_path, [])
    assert run.path.parent == tmp_path and started[0].data == SAMPLE_SET and started[0].out == str(run.path)
    run.path.mkdir()
    assert train_form.suggest_name(Form(sample=SAMPLE_SET, resolution=16), tmp_path) != run.name


def test_uploaded_pictures_stay_with_the_run(tmp_path, started):
    upload = make_zip(tmp_path / "My cats!.zip", {"a.png": png(), "b.png": png(1)})
    run = train_form.start_run(Form(UPLOAD, files=[str(upload)], resolution=16, kimg=1), tmp_path / "runs", [])
    upload.unlink()
    assert run.name == "My-cats-16-1" and started[0].data == str(run.path / "pictures.zip")
    assert train_pictures.look_at([Path(started[0].data)]).num_accepted == 2


@pytest.mark.parametrize(("change", "words"), [
    ({"name": "../up"}, "not a usable name"), ({"name": "taken"}, "already a run"), ({"batch": 2.5}, "whole number"),
    ({"source": FOLDER, "folder": "/etc"}, "No folder"), ({"sample": "none such"}, "Choose a sample set"),
    ({"kimg": -1}, "kimg"), ({"preset": "unheard of"}, "preset")])
def test_a_form_that_cannot_be_is_one_sentence_and_starts_nothing(tmp_path, started, change, words):
    make_run(tmp_path, "taken").finish("done", 2000)
    with pytest.raises(StyleGANError, match=words) as caught:
        train_form.start_run(Form(**{"sample": SAMPLE_SET, "resolution": 16, **change}), tmp_path, [])
    assert "\n" not in str(caught.value) and not started and [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_one_run_at_a_time(tmp_path, started):
    run = make_run(tmp_path)
    with pytest.raises(StyleGANError, match="faces is training already"):
        train_form.start_run(Form(sample=SAMPLE_SET, name="other"), tmp_path, [])
    run.finish("stopped", 1000)
    train_form.start_run(Form(sample=SAMPLE_SET, name="other"), tmp_path, [])


def test_a_run_that_was_moved_goes_on_where_it_lies_now(tmp_path, started):
    old = make_run(tmp_path, "old", data=str(tmp_path / "old" / "pictures.zip"))
    old.finish("stopped", 1000)
    old.path.rename(tmp_path / "new")
    train_form.continue_run(TrainingRun(tmp_path / "new"), None)
    assert (started[-1].out, started[-1].data) == (str(tmp_path / "new"), str(tmp_path / "new" / "pictures.zip"))
    assert run_from_file(tmp_path / "new" / "config.json") == started[-1] and not (tmp_path / "old").exists()


def test_continue_takes_up_a_stopped_run_and_lengthens_a_finished_one(tmp_path, started):
    run = make_run(tmp_path)
    run.finish("stopped", 1000)
    train_form.continue_run(run, None)
    assert started[-1] == TrainConfig.from_dict(run.config())
    run.write_status("done", 2000)
    train_form.continue_run(run, 3)
    assert started[-1].kimg == 5.0
    with pytest.raises(StyleGANError, match="how much longer"):
        train_form.continue_run(run, 0)


# ---- the view --------------------------------------------------------------------------------------------------------

def test_without_a_run_there_is_nothing_to_show(tmp_path):
    assert run_view.find_run(tmp_path / "runs", None) is None and run_view.run_view(None) == {"run": None}
    assert run_view.run_choices(tmp_path / "runs") == [] and run_view.view_version(None) == ""


def test_the_view_tells_the_run_and_is_plain_json(tmp_path):
    run = make_run(tmp_path)
    view = run_view.run_view(run)
    assert json.loads(json.dumps(view)) == view
    assert (view["state"], view["fraction"], view["goal"]) == ("running", 0.5, "1.0 of 2 kimg")
    assert [count for count, _ in view["samples"]] == [0, 500, 1000] and view["reals"] and len(view["snapshots"]) == 1
    charts = {chart["id"]: chart for chart in view["charts"]}
    assert "r1" not in charts and {"logits", "r_t", "p", "loss", "speed"} <= set(charts)
    assert charts["r_t"]["marks"][0]["y"] == 0.6 and charts["p"]["marks"][0]["y"] == 0.8
    assert all(len(line["y"]) == len(chart["x"]) == 3 for chart in charts.values() for line in chart["lines"])
    run.append_event("metric", nimg=500, name="KID-r64-v1", value=0.2, std=0.1, ema_kimg=5.0)
    run.append_event("metric", nimg=500, name="KID-r64-v1", value=0.1, std=0.1, ema_kimg=30.0)
    run.append_event("metric", nimg=500, name="SWD", value=9.0, floor=-0.1)
    run.append_event("metric", nimg=500, name="other", value=9.0, floor=-1.0)
    metric, *others = run_view.run_view(run)["charts"][:3]
    assert [chart["low"] for chart in (metric, *others)] == [0.0, 0.0, -1.0], "an axis begins at 0 unless much is below"
    assert [chart["marks"][-1]["y"] for chart in others] == [0.0, -1.0], "and what real pictures score lies on it"
    assert metric["title"] == "KID" and metric["meaning"].startswith("KID-r64-v1: ")
    assert metric["lines"][0]["y"] == [0.1]


def test_the_view_gives_the_verdict_the_best_and_the_gap_to_held_out_pictures(tmp_path):
    run = make_run(tmp_path)
    for i, value in enumerate((0.5, 0.3, 0.2, 0.1)):
        nimg = 10_000 * (i + 1)
        run.append_event("tick", nimg=nimg, seconds=nimg / 10, logits_train=1.5, logits_held_out=1.0 - 0.1 * i)
        for name, figure, better in (("KID-r64-v1", value, "lower"), ("recall-r64-v1", 0.1 * i, "higher")):
            run.append_event("metric", nimg=nimg, name=name, value=figure, std=0.01, floor=0.02, better=better)
    run.snapshot_path(40_000).write_bytes(b"model")
    run.note_best(40_000, "KID-r64-v1", 0.1, 5.0)
    run.augmented_path.write_bytes(b"seen")
    view = run_view.run_view(run)
    assert json.loads(json.dumps(view)) == view
    assert view["verdict"]["name"] == "improving" and view["best"] == 40_000
    assert view["sheets"] == ["reals", "augmented"]
    charts = {chart["title"]: chart for chart in view["charts"]}
    assert charts["KID"]["marks"] == [{"name": "best", "ink": "main", "y": 0.1},
                                             {"name": "real", "ink": "target", "y": 0.02}]
    assert charts["Recall"]["marks"] == [{"name": "real", "ink": "target", "y": 0.02}]
    assert charts["Held out"]["lines"][1]["y"] == [1.0, 0.9, 0.8, 0.7]
    assert "src" in run_view.picture(tmp_path, {"run": "faces", "sheet": "augmented"})
    for sheet in ("nearest", "../config.json", ["reals"], 3):
        assert list(run_view.picture(tmp_path, {"run": "faces", "sheet": sheet})) == ["error"]


def test_a_page_changes_only_what_may_change_of_a_run_that_trains(tmp_path):
    run = make_run(tmp_path)
    assert run_view.run_view(run)["live"]["ada_cap"] == 0.8
    assert "words" in run_view.change(tmp_path, {"run": "faces", "values": {"gamma": 2, "ada_cap": 0.5}})
    assert json.loads((run.path / "live.json").read_text()) == {"gamma": 2.0, "ada_cap": 0.5}
    for question in (None, {}, {"run": "faces"}, {"run": "..", "values": {"gamma": 1}}, {"run": "faces", "values": {}},
                     {"run": "faces", "values": {"batch": 3}}, {"run": "faces", "values": {"gamma": "x"}},
                     {"run": "faces", "values": [1]}, {"run": "gone", "values": {"gamma": 1}}):
        assert list(run_view.change(tmp_path, question)) == ["error"]
    run.finish("done")
    assert "error" in run_view.change(tmp_path, {"run": "faces", "values": {"gamma": 3}})
    assert run_view.run_view(run)["live"] == {}


def test_the_nearer_budget_counts():
    assert run_view.progress({"kimg": 10.0, "minutes": 1.0}, {"seconds": 45.0}, 1000)[0] == 0.75
    assert run_view.progress({"kimg": 10.0, "minutes": 1.0}, {"seconds": 3.0}, 5000) == (0.5, "5.0 of 10 kimg")
    assert run_view.progress({}, {}, 100) == (0.0, "100 images, no end set")


def test_the_version_says_when_to_look_again(tmp_path):
    run = make_run(tmp_path)
    before = run_view.view_version(run)
    assert run_view.view_version(TrainingRun(run.path)) == before
    run.append_event("tick", nimg=1100)
    assert run_view.view_version(run) != before


def test_pictures_leave_only_the_runs_folder(tmp_path):
    make_run(tmp_path / "runs")
    (tmp_path / "reals.jpg").write_bytes(b"secret")
    root = tmp_path / "runs"
    assert run_view.picture(root, {"run": "faces", "nimg": 500})["src"].startswith("data:image/jpeg;base64,")
    assert "src" in run_view.picture(root, {"run": "faces", "reals": True})
    for question in (None, "faces", {}, {"run": "faces"}, {"run": "..", "nimg": 0}, {"run": "faces/../..", "reals": 1},
                     {"run": "faces", "nimg": "../../x"}, {"run": "faces", "nimg": 7}, {"run": "faces", "nimg": 1e400}):
        assert list(run_view.picture(root, question)) == ["error"]


def test_the_snapshot_behind_a_grid_is_the_last_one_before_it(tmp_path):
    run = make_run(tmp_path)
    run.snapshot_path(900).write_bytes(b"model")
    assert [run_view.snapshot_at(run, nimg).stem for nimg in (0, 500, 899, 900, 5000)] == [
        "000000500", "000000500", "000000500", "000000900", "000000900"]


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (601, "10 min"),
                                                (3660, "1 h 1 min"), (90000, "1 d 1 h")])
def test_durations_are_said_in_two_units(seconds, words):
    assert run_view.duration(seconds) == words


# ---- the page --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def studio(tiny_folder, tmp_path_factory):
    """(browser, address, folder of runs, folder of data) of a running app."""
    runs, data = tmp_path_factory.mktemp("studio") / "runs", tmp_path_factory.mktemp("data")
    with open_browser() as browser, running_app(tiny_folder, runs, data_roots=(data,), timer_seconds=0.3) as url:
        yield browser, url, runs, data


def go_to_train(page) -> None:
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#train-run [data-run]", state="attached")


def choose(page, selector: str, option: str) -> None:
    page.locator(f"{selector} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def wait_for(page, script: str) -> None:
    """Wait until what `script` says of the dataset `run` of the shown run is true."""
    page.wait_for_function(f"(run => {script})(document.querySelector('#train-run [data-run]').dataset)")


def test_a_run_is_started_watched_from_two_pages_stopped_and_opened(studio):
    browser, url, runs, _ = studio
    with open_page(browser, url) as page, open_page(browser, url) as second:
        for each in (page, second):
            go_to_train(each)
            each.get_by_text("No run yet").wait_for()
        page.get_by_text("96 pictures").wait_for()
        choose(page, "#train-resolution", "16")
        page.fill("#train-minutes input", "20")
        page.fill("#train-name :is(input, textarea)", "journey")
        page.keyboard.press("Tab")
        page.locator("#train-command", has_text="runs/journey").wait_for()
        page.click("#train-start")
        for each in (page, second):
            wait_for(each, "run.run === 'journey' && run.nimg !== undefined")
        first = page.get_attribute("#train-fakes", "src")
        wait_for(page, "run.state === 'running' && Number(run.nimg) > 0")
        assert first.startswith("data:image/jpeg") and page.get_attribute("#train-fakes", "src") != first
        page.locator("#train-scrub").fill("0")
        wait_for(page, "run.nimg === '0'")
        assert page.get_attribute("#train-fakes", "src") == first
        page.reload()
        go_to_train(page)
        wait_for(page, "run.run === 'journey' && Number(run.nimg) > 0")
        page.wait_for_selector("#curve-logits svg path")
        second.click("#train-stop")
        for each in (page, second):
            wait_for(each, "run.state === 'stopped'")
        page.click("#train-open")
        path = TrainingRun(runs / "journey").snapshots()[-1][1]
        page.wait_for_function(f"studio.facts.hash.startsWith('{model_hash(path)[:12]}')")
        page.wait_for_selector("#stage [data-shown]")


def test_a_run_from_the_shell_appears_by_itself_and_a_crash_says_why(studio):
    browser, url, runs, _ = studio
    with open_page(browser, url) as page:
        go_to_train(page)
        run = make_run(runs, "from-the-shell")
        choose_run = page.locator("#train-runs input")
        choose_run.click()
        page.get_by_role("option", name="from-the-shell · training").click()
        wait_for(page, "run.run === 'from-the-shell' && run.nimg === '1000'")
        page.locator("#train-live summary").click()
        page.fill("#train-live-gamma", "3.5")
        page.locator("#train-scrub").focus()
        run.append_event("tick", nimg=1100, seconds=110.0)
        page.locator(".tr-facts", has_text="1.1").wait_for()
        assert page.input_value("#train-live-gamma") == "3.5", "news took back what a person had typed"
        page.click("#train-live-apply")
        page.get_by_text("Taken at the next tick").wait_for()
        assert json.loads((run.path / "live.json").read_text()) == {"gamma": 3.5}
        run.finish("error", 1000, "The <b>pictures</b> are gone.")
        page.get_by_text("The <b>pictures</b> are gone.").wait_for()
        wait_for(page, "run.state === 'failed'")


def test_pictures_that_cannot_be_used_are_told_in_one_sentence_and_nothing_starts(studio, tmp_path):
    browser, url, runs, data = studio
    (tmp_path / "cat.png").write_bytes(b"not a picture")
    make_zip(tmp_path / "mixed.zip", {"a.png": png(), "bad <i>name.png": b"no"})
    before = sorted(path.name for path in runs.iterdir()) if runs.exists() else []
    with open_page(browser, url) as page:
        go_to_train(page)
        page.get_by_text("Upload", exact=True).click()
        page.locator("#train-pictures").get_by_text("Upload a zip, pictures or videos first.").wait_for()
        page.locator("#train-command", has_text="# Upload a zip, pictures or videos first.").wait_for()
        page.set_input_files("#train-files input[type=file]", str(tmp_path / "cat.png"))
        page.locator("#train-pictures").get_by_text("cat.png").wait_for()
        page.click("#train-start")
        page.locator("#train-words").get_by_text("cat.png").wait_for()
        page.get_by_text("Folder", exact=True).click()
        page.fill("#train-folder :is(input, textarea)", str(tmp_path))
        page.keyboard.press("Enter")
        page.locator("#train-pictures").get_by_text("--allow-data").wait_for()
        make_zip(data / "mixed.zip", {"a.png": png(), "bad <i>name.png": b"no"})
        page.fill("#train-folder :is(input, textarea)", "mixed.zip")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.locator("summary", has_text="1 skipped").click()
        page.get_by_text("bad <i>name.png").wait_for()
    assert before == (sorted(path.name for path in runs.iterdir()) if runs.exists() else [])


def test_where_training_is_off_no_event_of_the_page_starts_or_ends_a_run(tiny_folder, tmp_path, started):
    """The buttons are hidden, but their events can be sent by anyone who reaches the page."""
    renderer = Renderer(tiny_folder, "cpu")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(png())
    context = AppContext(renderer, renderer.folder, tmp_path, allow_training=False, public=True,
                         data_roots=(tmp_path / "data",))  # fmt: skip
    run = make_run(tmp_path)
    with gr.Blocks(), gr.Tab():
        tab = train._Tab(context)
    asked = tab.on_start(**{name: getattr(Form(sample=SAMPLE_SET), name) for name in tab.form.inputs})
    assert asked == {tab.form.problem: train.NO_TRAINING}
    looked = tab.form.on_look(**{name: getattr(Form(FOLDER, folder="a.png"), name) for name in tab.form.inputs})
    assert "No folder of this machine is allowed" in looked[tab.form.pictures]["error"]
    for answer in (tab.on_stop("faces"), tab.on_snapshot("faces"), tab.on_continue("faces", 1.0)):
        assert answer[tab.view]["said"] == train.NO_TRAINING
        assert not answer[tab.stop].visible and not answer[tab.snapshot].visible
    assert not started and not run.stop_requested() and not run.snapshot_requested()


def test_where_training_is_off_the_tab_says_why_and_offers_the_command(tiny_folder, tmp_path):
    from stylegan.ui import app

    renderer = Renderer(tiny_folder, "cpu")

    def shown(allow_training: bool) -> dict[str, bool]:
        context = AppContext(renderer, renderer.folder, tmp_path, allow_training=allow_training)
        parts = [part["props"] for part in app.build(context).config["components"]]
        return {part["elem_id"]: part["visible"] for part in parts if part.get("elem_id", "")}

    off, on = shown(False), shown(True)
    assert (off["train-off"], off["train-start"], off["train-shell"]) == (True, False, True)
    assert (on["train-off"], on["train-start"], on["train-shell"]) == (False, True, True)


def test_walk_and_film_play_in_the_grids_place_while_the_view_is_renewed(studio, monkeypatch):
    browser, url, runs, _ = studio
    monkeypatch.setattr("stylegan.ui.run_films.write_walk", partial(write_walk, seconds=1, columns=2, rows=1))
    run = make_run(runs, "in-motion")
    for nimg in (0, 500, 1000):
        run.sample_path(nimg).write_bytes(encode_jpeg(np.full((32, 64, 3), nimg // 5, np.uint8)))
    save_tiny(run.snapshot_path(500))
    video = "document.querySelector('#train-reel')"
    with open_page(browser, url) as page:
        go_to_train(page)
        page.locator("#train-runs input").click()
        page.get_by_role("option", name="in-motion · training").click()
        wait_for(page, "run.run === 'in-motion' && run.nimg === '1000'")
        page.click("#train-reel-walk")
        wait_for(page, "run.reel === 'walk'")
        assert page.locator("#train-fakes").is_hidden() and page.locator("#train-reel-anew").is_hidden()
        page.wait_for_function(f"{video}.currentTime > 0.1")
        page.evaluate(f"{video}.addEventListener('emptied', () => window.wasReset = true)")
        src = page.get_attribute("#train-reel", "src")
        save_tiny(run.snapshot_path(900), seed=1)
        run.append_event("tick", nimg=1100, seconds=110.0)
        page.locator("#train-reel-anew", has_text="Newer: 900 images").wait_for()
        assert page.get_attribute("#train-reel", "src") == src and not page.evaluate("window.wasReset")
        with page.expect_download() as download:
            page.click("#train-reel-download")
        assert download.value.suggested_filename == "in-motion-walk-000000500.mp4"
        page.click("#train-reel-anew")
        page.wait_for_function("document.querySelector('#train-reel').src.includes('walk-000000900')")
        assert page.locator("#train-reel-anew").is_hidden()
        page.click("#train-reel-film")
        wait_for(page, "run.reel === 'film'")
        page.locator("#train-scrub").fill("0")
        wait_for(page, "run.reel === 'grid' && run.nimg === '0'")
        assert page.locator("#train-fakes").is_visible() and page.locator("#train-reel").is_hidden()
        run.snapshot_path(500).write_bytes(b"no model")
        page.click("#train-reel-walk")
        page.locator(".tr-left", has_text="000000500").wait_for()
        wait_for(page, "run.reel === 'grid'")
    run.finish("done", 1100)
