"""The walk through a snapshot's latent space: its way, its film, the file it leaves, and how a shell or a page asks."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import TINY, TINY_CLASSES, make_tiny, save_tiny

from stylegan.cli.main import main
from stylegan.errors import RequestError, StyleGANError, TrainingError
from stylegan.film import write_film
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.stylegan3_layers import design_layers
from stylegan.pixels import encode_jpeg, to_pixels
from stylegan.render import Renderer
from stylegan.seeds import z_of_seeds
from stylegan.training.run import TrainingRun
from stylegan.training.walk import RATE, loop_weights, walk_frames, walk_path, write_walk
from stylegan.ui.run_films import Films

TINY1 = GeneratorConfig(family="stylegan1", resolution=16, z_dim=8, w_dim=12, channel_base=64, channel_max=6)
TINY3 = GeneratorConfig(family="stylegan3", resolution=16, z_dim=8, w_dim=12,
                        layers=design_layers(16, channel_base=128, channel_max=8, radial=False, num_layers=14))


def make_run(path: Path, *snapshots: int, config: GeneratorConfig = TINY) -> TrainingRun:
    """A finished run with these snapshots, each another network."""
    run = TrainingRun.create(path, {"data": "x", "out": str(path), "resolution": config.resolution})
    for nimg in snapshots:
        save_tiny(run.snapshot_path(nimg), config, seed=nimg)
    run.finish("done", max(snapshots, default=0))
    return run


def frames_of(path: Path) -> np.ndarray:
    """All frames of a film [T, H, W, 3]."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


# ---- the way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [3, 5, 7])
def test_the_way_passes_its_points_closes_and_never_comes_near_the_average(num):
    for k in range(num):
        assert torch.allclose(loop_weights(k / num, num), torch.eye(num, dtype=torch.float64)[k], atol=1e-12)
    assert torch.allclose(loop_weights(1.3, num), loop_weights(0.3, num))
    for t in np.linspace(0, 1, 23):
        weights = loop_weights(float(t), num)
        assert float(weights.sum()) == pytest.approx(1) and float(weights.square().sum()) == pytest.approx(1)


def test_the_way_is_smooth_where_the_film_repeats():
    steps = torch.stack([loop_weights(i / 144, 3) for i in range(144)])
    first, turns = steps.roll(-1, 0) - steps, steps.roll(-1, 0) - 2 * steps + steps.roll(1, 0)
    assert float(first.norm(dim=1).max() / first.norm(dim=1).min()) < 1.01  # as quick everywhere, the seam included
    assert float(turns.norm(dim=1).max()) < 0.1 * float(first.norm(dim=1).min())


@pytest.mark.parametrize("config", [TINY, TINY_CLASSES, TINY1, TINY3], ids=["2", "classes", "1", "3"])
def test_a_round_of_every_family_starts_at_the_grids_faces(config):
    generator = make_tiny(config)
    frames = list(walk_frames(generator, 3, 2, 12, seed=5))
    classes = [i % 3 for i in range(6)] if config.num_classes else None
    images = to_pixels(generator.synthesize(generator.map(z_of_seeds(range(5, 11), config.z_dim), classes)))
    assert len(frames) == 12 and frames[0].shape == (32, 48, 3)
    tiles = frames[0].reshape(2, 16, 3, 16, 3).swapaxes(1, 2).reshape(6, 16, 16, 3)
    assert int(abs(tiles.astype(int) - images).max()) <= 1
    steps = [abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert min(steps) > 0 and steps[-1] < 1.5 * max(steps[:-1])  # the seam is a step like all others


def test_each_tile_keeps_its_class(monkeypatch):
    generator, asked = make_tiny(TINY_CLASSES), []
    monkeypatch.setattr(type(generator), "map", _noting(type(generator).map, asked))
    list(walk_frames(generator, 2, 2, 4))
    assert asked == [[0, 1, 2, 0]] * 3


def _noting(method, asked):
    """The method, noting the labels that it is given."""
    def noted(self, z, label=None):
        asked.append(label)
        return method(self, z, label)
    return noted


def test_the_device_is_held_frame_by_frame_and_progress_is_told(tiny_generator):
    turns, told = [], []

    class Turn:
        def __enter__(self):
            turns.append("in")

        def __exit__(self, *error):
            turns.append("out")

    frames = walk_frames(tiny_generator, 1, 1, 3, turn=Turn, on_frame=lambda *each: told.append(each))
    for number, _ in enumerate(frames, start=1):
        assert turns == ["in", "out"] * number  # not held while the frame is encoded
    assert told == [(0, 3), (1, 3), (2, 3)]


# ---- the film --------------------------------------------------------------------------------------------------------


def test_a_walk_is_a_film_in_the_runs_folder_that_replaces_the_older_one(tmp_path):
    run = make_run(tmp_path / "run", 1000, 3000)
    old = write_walk(run, nimg=2500, seconds=1, columns=2, rows=1)
    assert old == run.path / "walk_000001000.mp4"
    frames = frames_of(old)
    assert len(frames) == RATE and frames.shape[1:] == (256, 512, 3)
    assert write_walk(run, seconds=0.5).name == "walk_000003000.mp4"
    assert [path.name for path in run.path.glob("*walk*")] == ["walk_000003000.mp4"]
    elsewhere = write_walk(run, nimg=1, path=tmp_path / "mine.mp4", seconds=0.5)
    assert elsewhere.is_file() and (run.path / "walk_000003000.mp4").is_file()
    assert frames_of(elsewhere)[0].shape == (256, 512, 3)


def test_the_film_shows_the_colours_that_were_drawn(tmp_path):
    generator = make_tiny()
    drawn = np.stack(list(walk_frames(generator, 1, 1, 4)))
    smooth = np.stack([np.full((512, 512, 3), frame.mean((0, 1)).round(), np.uint8) for frame in drawn])
    seen = frames_of(write_film(tmp_path / "film.mp4", smooth, 4))
    assert abs(seen.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(("shape", "size"), [((17, 33, 3), (264, 512)), ((10, 600, 1), (10, 600)),
                                             ((20, 4000, 3), (10, 1920)), ((8, 512, 4), (8, 512))])
def test_a_film_has_even_sides_and_room_for_colours(tmp_path, shape, size):
    frames = frames_of(write_film(tmp_path / "film.mp4", [np.full(shape, 200, np.uint8)] * 2, 2, hold=1.0))
    assert frames.shape[:3] == (4, *size)


def test_a_clear_frame_lies_over_white(tmp_path):
    clear = np.zeros((16, 512, 4), np.uint8)
    assert frames_of(write_film(tmp_path / "film.mp4", [clear], 1)).min() >= 250


def test_what_cannot_be_walked_is_one_sentence_and_leaves_no_file(tmp_path, monkeypatch):
    empty, run = make_run(tmp_path / "empty"), make_run(tmp_path / "run", 1000)
    with pytest.raises(TrainingError, match="saved no model"):
        write_walk(empty)
    for wrong in ({"columns": 0}, {"columns": 9, "rows": 9}, {"seconds": 0.1}, {"seconds": 1e9}, {"seed": 2**32 - 3}):
        with pytest.raises(RequestError):
            write_walk(run, **wrong)
    with pytest.raises(RequestError, match="at least one frame"):
        write_film(tmp_path / "none.mp4", [], 24)
    gone = make_run(tmp_path / "gone", 1000)
    frame = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(RequestError, match="the film was not kept"):
        write_film(gone.path / "walk.mp4", (shutil.rmtree(gone.path) or frame for _ in range(1)), 24)
    assert not gone.path.exists(), "a run that was removed while it was filmed stays removed"
    run.snapshot_path(1000).write_bytes(b"no model")
    with pytest.raises(StyleGANError):
        write_walk(run)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(StyleGANError, match="pip install av"):
        write_film(tmp_path / "none.mp4", [], 24)
    assert not list(tmp_path.rglob("*.mp4")) and not list(tmp_path.rglob("*.tmp"))


# ---- the shell -------------------------------------------------------------------------------------------------------


def test_a_walk_from_the_shell_goes_into_the_folder_or_into_a_file(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run", 1000, 3000)
    asked = []
    monkeypatch.setattr("stylegan.training.walk.write_walk", lambda *each: asked.append(each[1:]) or "done")
    root = ["--root", str(tmp_path)]
    assert main(["runs", "run", *root, "--walk"]) == 0 == main(["runs", "run", *root, "--walk", "a.mp4", "--at", "2.5"])
    assert asked == [(None, None), (2500, Path("a.mp4"))]
    capsys.readouterr()
    for wrong in (["--walk"], ["run", "--walk", "a.avi"], ["--film", "run"], ["run", "run", "--walk", "a.mp4"]):
        assert main(["runs", *wrong, *root]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert run.state() == "done"


# ---- the page's queue ------------------------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path, tiny_folder):
    """The questions of pages about films of runs under `runs`."""
    (tmp_path / "runs").mkdir()
    return Films(tmp_path / "runs", Renderer(tiny_folder, "cpu"), tmp_path / "uploads")


def finished(films: Films, answer: dict) -> dict:
    """What a page is told once a film is made."""
    until = time.monotonic() + 120
    while answer.get("state") == "making" and time.monotonic() < until:
        time.sleep(0.02)
        answer = films.film_look({"key": answer["key"]})
    return answer


def test_two_pages_that_ask_at_once_get_one_film(films, tmp_path, monkeypatch):
    run, gate, drawn = make_run(tmp_path / "runs" / "faces", 1000, 3000), threading.Event(), []

    def slow(run, nimg, device, turn, on_frame):
        drawn.append(nimg)
        on_frame(7, 144)
        gate.wait(60)
        return write_film(walk_path(run, nimg), [np.zeros((16, 512, 3), np.uint8)], 1)

    monkeypatch.setattr("stylegan.ui.run_films.write_walk", slow)
    question = {"run": "faces", "kind": "walk", "nimg": None}
    first, second = films.film_begin(question), films.film_begin(question)
    assert first["key"] == second["key"] and (first["nimg"], first["words"]) == (3000, "3.0 kimg")
    while not drawn:
        time.sleep(0.02)
    assert films.film_look({"key": first["key"]})["total"] == 144
    other = films.film_begin({**question, "nimg": 1500})
    gate.set()
    made = [finished(films, each) for each in (first, second, other)]
    assert drawn == [3000, 1000] and [Path(each["path"]).is_file() for each in made] == [True] * 3
    assert made[0]["name"] == "faces-walk-000003000.mp4" and made[2]["nimg"] == 1000
    assert films.film_begin(question)["path"] == made[0]["path"] and drawn == [3000, 1000]  # asked again: it is there
    Path(made[2]["path"]).unlink()
    finished(films, films.film_begin({**question, "nimg": 1500}))
    assert drawn == [3000, 1000]  # its file is still in the folder and only copied
    save_tiny(run.snapshot_path(1000), seed=9)
    finished(films, films.film_begin({**question, "nimg": 1500}))
    assert drawn == [3000, 1000, 1000]  # the snapshot has changed since


def test_a_walk_and_a_film_are_made_for_pages(films, tmp_path):
    run = make_run(tmp_path / "runs" / "faces", 1000)
    for nimg in (0, 1000):
        run.sample_path(nimg).write_bytes(encode_jpeg(np.full((32, 32, 3), nimg // 5, np.uint8)))
    walk = finished(films, films.film_begin({"run": "faces", "kind": "walk", "nimg": 7}))
    film = finished(films, films.film_begin({"run": "faces", "kind": "film", "nimg": None}))
    assert len(frames_of(Path(walk["path"]))) == 144 and (film["nimg"], film["state"]) == (1000, "ready")
    assert (run.path / "walk_000001000.mp4").is_file() and (run.path / "timelapse.mp4").is_file()


def test_what_a_page_cannot_have_is_one_sentence(films, tmp_path):
    make_run(tmp_path / "runs" / "empty")
    run = make_run(tmp_path / "runs" / "faces", 1000)
    for question in (None, "x", {}, {"run": "faces", "kind": "walk"}, {"run": "faces", "kind": "walk", "nimg": "x"},
                     {"run": "../x", "kind": "walk", "nimg": 1}, {"run": "faces", "kind": ["walk"], "nimg": 1},
                     {"run": "empty", "kind": "walk", "nimg": None}, {"run": "gone", "kind": "film", "nimg": None}):
        with pytest.raises(StyleGANError) as caught:
            films.film_begin(question)
        assert "\n" not in str(caught.value)
    for question in (None, {}, {"key": ["x"]}, {"key": "x"}):
        with pytest.raises(RequestError, match="no longer there"):
            films.film_look(question)
    run.snapshot_path(1000).write_bytes(b"no model")
    question = {"run": "faces", "kind": "walk", "nimg": None}
    assert "000001000" in finished(films, films.film_begin(question))["error"]
    save_tiny(run.snapshot_path(1000))
    assert finished(films, films.film_begin(question))["state"] == "ready"  # a mistake does not last
