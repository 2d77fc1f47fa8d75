"""All runs in a list, side by side, removed and taken back, and new ones from a moment of another."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from browser import open_browser, open_page, running_app
from conftest import make_tiny
from PIL import Image

from stylegan.checkpoint.file import Checkpoint, save_checkpoint
from stylegan.cli.main import main
from stylegan.data.images import sample_sets
from stylegan.errors import StyleGANError, TrainingError
from stylegan.training import trash
from stylegan.training.compare import compare, in_words
from stylegan.training.config import TrainConfig
from stylegan.training.digest import Digest, digest_of
from stylegan.training.run import TrainingRun, list_runs
from stylegan.training.state import state_path
from stylegan.ui import branching
from stylegan.ui.run_list import RunList
from stylegan.ui.session import AppContext

SAMPLE_SET = next(iter(sample_sets()))
NAME = "KID-r16-v1"


def jpeg(path: Path, shade: int = 90) -> None:
    """A grid of 3 x 3 pictures of 16 px, the first of which is bright."""
    pixels = np.full((48, 48, 3), shade, np.uint8)
    pixels[:16, :16] = 250
    Image.fromarray(pixels).save(path, "JPEG", quality=95)


def make_run(root: Path, name: str, kid=(0.5, 0.3, 0.2), metric: str = NAME, state: str = "done", **config):
    """A run folder with a history: an evaluation every 10 kimg, four ticks and one grid for each."""
    settings = {"data": SAMPLE_SET, "out": str(root / name), "resolution": 16, "kimg": 100.0, "device": "cpu",
                **config}
    run = TrainingRun(root / name)
    for folder in ("samples", "snapshots", "state"):
        (run.path / folder).mkdir(parents=True)
    (run.path / "config.json").write_text(json.dumps(TrainConfig(**settings).resolve(has_gpu=False).to_dict()))
    for i, value in enumerate(kid):
        for k in range(4):
            nimg = 10_000 * i + 2500 * (k + 1)
            run.append_event("tick", nimg=nimg, seconds=nimg / 20, nan=0, p=0.1, loss_g=1.0, logits_train=1.2,
                             logits_held_out=1.0)
        run.append_event("metric", nimg=10_000 * (i + 1), name=metric, value=value, std=0.01, better="lower")
        jpeg(run.sample_path(10_000 * (i + 1)))
    run.snapshot_path(10_000).write_bytes(b"model")
    write_state(run, state, 10_000 * len(kid))
    return run


def write_state(run: TrainingRun, state: str, nimg: int = 0) -> None:
    """A status as a trainer that is gone left it, or of this process, which lives, for `running`."""
    run.write_status(state, nimg)


# ---- digests ---------------------------------------------------------------------------------------------------------

def test_a_digest_tells_what_the_whole_history_tells(tmp_path):
    run = make_run(tmp_path, "long", [1 / (i + 2) for i in range(40)])
    digest = Digest(run).refresh()
    assert digest.last == run.ticks()[-1] and digest.metrics() == run.metrics() and digest.verdict() == run.verdict()
    assert digest.best()["value"] == 1 / 41 and digest.best()["nimg"] == 400_000
    noise = make_run(tmp_path, "noise", [0.2, 0.5, 0.45])
    for event in noise.metrics():  # the first of them is of 400 images
        nimg = 400 if event["nimg"] == 10_000 else event["nimg"]
        model(noise, nimg)
        noise.note_best(nimg, event["name"], event["value"], 5.0)
    assert digest_of(noise).best()["nimg"] == noise.best()["nimg"] == 30_000, "list and run have one best"


def test_a_digest_reads_only_what_is_new_and_waits_for_the_rest_of_a_line(tmp_path, monkeypatch):
    run = make_run(tmp_path, "growing")
    digest = Digest(run).refresh()
    size = (run.path / "events.jsonl").stat().st_size
    taken = []
    take = Digest._take
    monkeypatch.setattr(Digest, "_take", lambda self, chunk: (taken.append(len(chunk)), take(self, chunk)))
    digest.refresh()
    assert taken == []
    whole = b'{"kind":"metric","nimg":30000,"name":"KID-r16-v1","ema_kimg":9.0,"value":0.1}\n'
    for part in (whole[:30], whole[30:]):
        with open(run.path / "events.jsonl", "ab") as file:
            file.write(part)
        digest.refresh()
        assert (digest.best()["value"] == 0.1) == part.endswith(b"\n")
    assert sum(taken) == len(whole) == (run.path / "events.jsonl").stat().st_size - size


@pytest.mark.parametrize("chunk", [1, 100, 1000])
def test_it_does_not_matter_how_a_log_is_cut(tmp_path, monkeypatch, chunk):
    run = make_run(tmp_path, "cut")
    monkeypatch.setattr("stylegan.training.digest.CHUNK", chunk)
    digest = Digest(run).refresh()
    assert digest.metrics() == run.metrics() and digest.last == run.ticks()[-1]
    assert digest._held == [tick for tick in run.ticks() if tick in digest._held] and len(digest._held) >= 1


def test_a_run_that_was_resumed_further_back_has_only_what_stands(tmp_path):
    run = make_run(tmp_path, "resumed")
    run.append_event("tick", nimg=21_000, seconds=1000.0)
    digest = Digest(run).refresh()
    assert digest.last["nimg"] == 21_000 and digest.metrics() == run.metrics() and len(digest.metrics()) == 2


def test_another_run_of_the_same_name_is_read_anew(tmp_path):
    run = make_run(tmp_path, "again")
    assert digest_of(run).best()["value"] == 0.2
    trash.remove(run)
    make_run(tmp_path, "again", [0.9])
    assert digest_of(run).best()["value"] == 0.9 and len(digest_of(run).metrics()) == 1


def test_thirty_long_runs_do_not_make_a_page_slow(tmp_path):
    line = json.dumps({"kind": "tick", "time": 1.0, "nimg": 0, **{f"figure{i}": 0.123456789 for i in range(12)}})
    run = make_run(tmp_path, "long")
    with open(run.path / "events.jsonl", "ab") as file:
        for i in range(100_000):
            file.write(line.replace('"nimg": 0', f'"nimg":{40_000 + 64 * i}').replace(": ", ":").replace(", ", ",")
                       .encode() + b"\n")
    started = time.process_time()
    digest = Digest(run).refresh()
    first = time.process_time() - started
    assert digest.last["nimg"] == 40_000 + 64 * 99_999
    started = time.process_time()
    for _ in range(30):
        digest.refresh(), digest.verdict(), digest.best()
    assert first < 1.0 and time.process_time() - started < 0.3


# ---- the list and the comparison -------------------------------------------------------------------------------------

def test_the_list_says_of_every_run_where_it_stands(tmp_path):
    make_run(tmp_path, "bare", [], metric="none")
    make_run(tmp_path, "good")
    listed = RunList(tmp_path, may_remove=True).overview()
    assert json.loads(json.dumps(listed)) == listed and not listed["more"] and listed["may_remove"]
    rows = {row["name"]: row for row in listed["rows"]}
    good, bare = rows["good"], rows["bare"]
    assert (good["word"], good["kimg"], good["speed"]) == ("Done", "30.0 kimg", 20.0)
    assert good["best"] == {"name": NAME, "value": 0.2, "words": "0.2", "at": "30.0 kimg"} and good["thumb"]
    assert bare["best"] is None and bare["thumb"] == "" and bare["verdict"] == "warming up"


def test_a_list_that_takes_long_comes_in_parts(tmp_path, monkeypatch):
    make_run(tmp_path, "a"), make_run(tmp_path, "b")
    monkeypatch.setattr("stylegan.ui.run_list.PATIENCE_SECONDS", -1)
    listed = RunList(tmp_path, False).overview()
    assert listed["more"] and sorted(row["name"] for row in listed["rows"]) == ["a", "b"]


def test_thumbnails_show_the_first_pictures_of_the_newest_grid(tmp_path):
    make_run(tmp_path, "good")
    make_run(tmp_path, "broken").sample_path(30_000).write_bytes(b"no picture")
    found = RunList(tmp_path, False).thumbs({"runs": ["good", "broken", "gone", "../good"]})["src"]
    assert list(found) == ["good"] and found["good"].startswith("data:image/jpeg;base64,")


def test_two_runs_are_told_apart(tmp_path):
    make_run(tmp_path, "first")
    make_run(tmp_path, "second", [0.5, 0.1], gamma=2.0, seed=3, transfer=str(tmp_path / "first/snapshots/000010000.x"))
    found = RunList(tmp_path, False).side_by_side({"runs": ["first", "second", "first"]})
    assert json.loads(json.dumps(found)) == found and [run["name"] for run in found["runs"]] == ["first", "second"]
    assert found["charts"][0] == {"name": NAME, "lines": [[[10.0, 0.5], [20.0, 0.3], [30.0, 0.2]],
                                                          [[10.0, 0.5], [20.0, 0.1]]]}
    assert [cell["is_best"] for cell in found["best"][0][1]] == [False, True] and found["same_pictures"]
    assert dict(found["settings"]) == {"R1 gamma": ["0.0032", "2"], "Seed": ["0", "3"],
                                       "Continues from": ["nothing", "first at 10.0 kimg"]}
    assert found["grids"] == [[10_000, 20_000, 30_000], [10_000, 20_000]]
    assert [nimg for nimg, _ in found["moments"]] == [10_000, 20_000, 30_000]


def test_what_differs_in_name_never_shares_a_curve_and_other_pictures_win_nothing(tmp_path):
    make_run(tmp_path, "old", metric="KID-r16-v1")
    make_run(tmp_path, "new", [0.01], metric="KID-r16-v10", data="other.zip")
    table = compare([TrainingRun(tmp_path / "old"), TrainingRun(tmp_path / "new")])
    assert [len(line) for line in table["curves"]["KID-r16-v1"]] == [3, 0]
    assert [len(line) for line in table["curves"]["KID-r16-v10"]] == [0, 1]
    assert table["best"]["KID-r16-v10"] == [None, [10_000, 0.01]] and not any(map(any, table["wins"].values()))


def test_settings_are_told_in_words():
    said = dict(in_words({"gamma": [0.1, 2.0], "mirror": [True, False], "minutes": [0.0, 30.0], "transfer": ["", "a/b"],
                          "data": ["/x/y/cats.zip", "dogs"], "new_setting": [None, 3], "holdout": [0.0, 0.1]}))
    assert said == {"R1 gamma": ["0.1", "2"], "Mirrored too": ["yes", "no"], "Budget in minutes": ["no limit", "30"],
                    "Continues from": ["nothing", "b"], "Pictures": ["cats.zip", "dogs"], "New setting": ["–", "3"],
                    "Held out": ["nothing", "10% of the pictures"]}


@pytest.mark.parametrize("question", [
    None, [], {}, {"runs": "a"}, {"runs": ["a"]}, {"runs": ["a", 3]}, {"runs": ["a", "../a"]}, {"runs": ["a", "gone"]},
    {"runs": [f"r{i}" for i in range(7)]}, {"runs": ["a"] * 500}, {"runs": ["a", ".trash"]}])
def test_a_comparison_that_cannot_be_is_one_sentence(tmp_path, question):
    make_run(tmp_path, "a")
    with pytest.raises(StyleGANError) as caught:
        RunList(tmp_path, True).side_by_side(question)
    assert "\n" not in str(caught.value)


# ---- removal ---------------------------------------------------------------------------------------------------------

def test_a_removed_run_is_whole_in_the_trash_and_comes_back(tmp_path):
    run = make_run(tmp_path, "gone")
    before = sorted(path.relative_to(run.path) for path in run.path.rglob("*"))
    listed = RunList(tmp_path, may_remove=True)
    assert listed.contents({"run": "gone"})["words"].startswith("1 snapshot, 3 sample grids, ")
    assert ".trash/" in listed.remove({"run": "gone"})["words"]
    assert list_runs(tmp_path) == [] and listed.overview()["rows"] == [] and not run.path.exists()
    assert listed.restore({"run": "gone"})["words"] == "gone is back."
    assert sorted(path.relative_to(run.path) for path in run.path.rglob("*")) == before
    assert list((tmp_path / ".trash").iterdir()) == []


def test_a_run_that_trains_is_not_removed(tmp_path, monkeypatch):
    run = make_run(tmp_path, "busy", state="running")
    with pytest.raises(TrainingError, match="busy is training; stop it first"):
        trash.remove(run)
    assert run.exists()
    answers = iter([False, True])  # a trainer that begins in the very moment of the move
    monkeypatch.setattr(TrainingRun, "is_active", lambda self: next(answers))
    with pytest.raises(TrainingError, match="training"):
        trash.remove(run)
    assert run.exists()


def test_only_the_owner_removes_and_nothing_outside_is_touched(tmp_path):
    run, outside = make_run(tmp_path / "runs", "mine"), make_run(tmp_path / "elsewhere", "other")
    guest, owner = RunList(tmp_path / "runs", may_remove=False), RunList(tmp_path / "runs", may_remove=True)
    for act in (guest.remove, guest.restore):
        with pytest.raises(StyleGANError, match="cannot be removed from this page"):
            act({"run": "mine"})
    (tmp_path / "runs" / "link").symlink_to(outside.path)
    for name in ("../elsewhere/other", "..", ".", "", "link", ".trash", "gone", None, 3, "a\0b", "x" * 99):
        for act in (owner.remove, owner.restore, owner.contents):
            with pytest.raises(StyleGANError):
                act({"run": name})
    assert run.exists() and outside.exists()


def test_a_name_that_is_taken_again_is_not_overwritten(tmp_path):
    trash.remove(make_run(tmp_path, "twice"))
    make_run(tmp_path, "twice", [0.9])
    with pytest.raises(TrainingError, match="another run called twice"):
        trash.restore(tmp_path, "twice")
    assert digest_of(TrainingRun(tmp_path / "twice")).best()["value"] == 0.9


def test_the_shell_compares_removes_and_takes_back(tmp_path, capsys):
    make_run(tmp_path, "first"), make_run(tmp_path, "second", [0.5, 0.1], gamma=2.0)
    root = ["--root", str(tmp_path)]
    assert main(["runs", "first", "second", *root]) == 0
    out = capsys.readouterr().out
    assert f"best {NAME}: 0.2 at 30.0 kimg | 0.1 at 20.0 kimg" in out and "R1 gamma: 0.0032 | 2" in out
    assert main(["runs", "--delete", "first", *root]) == 0 and not (tmp_path / "first").exists()
    out = capsys.readouterr().out
    assert "1 snapshot" in out and f"`runs --root {tmp_path} --restore first`" in out
    assert main(["runs", "--restore", "first", *root]) == 0 and TrainingRun(tmp_path / "first").exists()
    for wrong in (["--delete"], ["--delete", "--restore", "first"], ["--restore", "nobody"], ["--delete", "nobody"]):
        assert main(["runs", *wrong, *root]) == 2


# ---- branching -------------------------------------------------------------------------------------------------------

def model(run: TrainingRun, nimg: int) -> None:
    """A snapshot that can be loaded."""
    generator = make_tiny()
    save_checkpoint(run.snapshot_path(nimg), Checkpoint(generator.config, generator.state_dict(), {}))


def context(root: Path, **settings) -> AppContext:
    """What branching needs of the app."""
    return AppContext(renderer=None, models=None, runs_root=root, **settings)


def test_every_moment_can_be_chosen_and_nothing_else(tmp_path):
    run = make_run(tmp_path, "faces")
    assert branching.run_sources(tmp_path) == []  # without a state only its snapshots can be begun with
    state_path(run.path / "state", 20_000).write_bytes(b"state")
    run.note_best(10_000, NAME, 0.5, 5.0)
    best = ("run: faces, best at 10.0 kimg", "run: faces (best)")
    assert branching.run_sources(tmp_path) == [("run: faces", "run: faces"), best]
    chosen = branching.choice_of(run, 10_000)
    assert branching.run_sources(tmp_path, chosen)[2:] == [("run: faces at 10.0 kimg", chosen)]
    assert branching.run_source(tmp_path, "run: faces") == str(run.path)
    for choice in ("run: faces (best)", chosen):
        assert branching.run_source(tmp_path, choice) == str(run.snapshot_path(10_000))
    for wrong in ("run: nobody", "run: ../faces", "run: ", "run: nobody (best)", "run: faces @ 7", "run: faces @ ",
                  "run: faces @ ../x", "run: faces @ -1", "run: faces @ ²", f"run: faces @ {'9' * 5000}"):
        with pytest.raises(StyleGANError):
            branching.run_source(tmp_path, wrong)
        assert branching.words_of(tmp_path, wrong) and branching.run_sources(tmp_path, wrong)[2:] == []


def test_words_say_what_is_taken(tmp_path):
    run = make_run(tmp_path, "faces")
    chosen = branching.choice_of(run, 10_000)
    assert "optimisers start anew" in branching.words_of(tmp_path, chosen)
    state_path(run.path / "state", 10_000).write_bytes(b"state")
    assert "both optimisers" in branching.words_of(tmp_path, chosen)
    assert "optimisers start anew" in branching.words_of(tmp_path, "run: faces")
    assert branching.words_of(tmp_path, "") == branching.words_of(tmp_path, "cartoon-faces-64") == ""


def test_a_branch_fills_the_form_with_its_run(tmp_path):
    run = make_run(tmp_path, "faces", gamma=3.0, mirror=False)
    model(run, 10_000)
    model(run, 20_000)
    fields = branching.branch(context(tmp_path), run, 29_999)
    assert fields["transfer"] == "run: faces @ 20000" and fields["name"] == "faces-from-20k"
    assert (fields["source"], fields["sample"], fields["resolution"]) == ("Sample set", SAMPLE_SET, 16)
    assert (fields["gamma"], fields["mirror"], fields["batch"], fields["lr"]) == (3.0, False, None, None)
    assert "minutes" not in fields and "kimg" not in fields
    (tmp_path / "faces-from-20k").mkdir()
    assert branching.branch(context(tmp_path), run, 29_999)["name"] == "faces-from-20k-2"
    for wrong in (None, "20000", [1]):
        with pytest.raises(StyleGANError, match="no model yet"):
            branching.branch(context(tmp_path), run, wrong)


def test_pictures_of_a_branch_are_read_only_where_they_may_be(tmp_path, monkeypatch):
    runs, allowed = tmp_path / "runs", tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "set.zip").write_bytes(b"zip")
    run = make_run(runs, "own", data=str(runs / "own" / "pictures.zip"))
    model(run, 10_000)
    (run.path / "pictures.zip").write_bytes(b"zip")
    mine = branching.branch(context(runs), run, 10_000)
    assert (mine["source"], mine["folder"]) == ("Folder", str(run.path / "pictures.zip"))
    assert "source" not in branching.branch(context(runs, public=True), run, 10_000)
    assert "source" not in branching.branch(context(runs, allow_training=False), run, 10_000)
    for text in (str(run.path / "config.json"), str(allowed / "set.zip"), "own/pictures.zip", "../pictures.zip", ""):
        assert branching.roots_of(context(runs), text) == []
    other = make_run(runs, "other", data=str(allowed / "set.zip"))
    model(other, 10_000)
    assert "source" not in branching.branch(context(runs), other, 10_000)
    monkeypatch.chdir(tmp_path)
    near = make_run(runs, "near", data="runs/near/pictures.zip")  # as a run of the app's own folder names them
    model(near, 10_000)
    (near.path / "pictures.zip").write_bytes(b"zip")
    assert branching.branch(context(Path("runs")), near, 10_000)["folder"] == str(near.path / "pictures.zip")
    known = branching.branch(context(runs, data_roots=(allowed,)), other, 10_000)
    assert known["folder"] == str(allowed / "set.zip")


# ---- the page --------------------------------------------------------------------------------------------------------

def test_runs_are_compared_branched_removed_and_taken_back_on_the_page(tiny_folder, tmp_path):
    runs = tmp_path / "runs"
    first, second = make_run(runs, "first"), make_run(runs, "second", [0.5, 0.1], gamma=2.0)
    for run in (first, second):
        run.reals_path.write_bytes(run.sample_path(10_000).read_bytes())
        model(run, 10_000)
    with open_browser() as browser, running_app(tiny_folder, runs, timer_seconds=0.5) as url:
        with open_page(browser, url, ready="#tabs") as page:
            page.get_by_role("tab", name="Train").click()
            page.click("#runs-list summary")
            for name in ("first", "second"):
                page.click(f".tc-row[data-run={name}] input")
            page.wait_for_selector("#train-compare [data-compared='first,second']", state="attached")
            assert page.locator("#runs-chart .tc-line").count() == 2
            assert "R1 gamma" in page.inner_text("#runs-facts")
            page.wait_for_function("document.querySelectorAll('.tc-grids img[src]').length === 2")
            page.locator("#runs-scrub").fill("0")
            page.wait_for_selector(".tc-grids[data-nimg='10000']")
            page.click(".tc-row[data-run=second] .tc-remove")
            page.get_by_text("1 snapshot, 2 sample grids").wait_for()
            page.click(".tc-yes")
            page.locator(".tc-row[data-run=second]").wait_for(state="detached")
            assert not second.exists()
            page.click(".tc-back")
            page.wait_for_selector(".tc-row[data-run=second]")
            assert second.exists()
            page.click(".tc-row[data-run=first] .tc-open")
            page.wait_for_selector("#train-run [data-run=first][data-nimg]", state="attached")
            page.click("#train-branch")
            page.locator("#train-transfer", has_text="optimisers start anew").wait_for()
            page.locator("#train-command", has_text="snapshots/000010000.safetensors").wait_for()
            page.locator("#train-command", has_text="first-from-10k").wait_for()
