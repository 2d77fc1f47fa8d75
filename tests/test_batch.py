"""Batches: the zip holds what single renders give, stops cleanly, tells what it left out, and never grows in memory."""

from __future__ import annotations

import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from stylegan import batch as batch_room
from stylegan.batch import batch, count_states, saved_states, seed_states, stacked
from stylegan.cli.main import main
from stylegan.errors import DataError, RequestError, StyleGANError
from stylegan.pixels import load_pixels, read_request, save_png
from stylegan.render import Renderer
from stylegan.request import Mix, RenderRequest
from stylegan.shortcode import from_sidecar, to_sidecar


@pytest.fixture(scope="module")
def renderer(tiny_folder) -> Renderer:
    return Renderer(tiny_folder, "cpu")


def test_a_stack_on_seeds_is_what_single_renders_give(renderer, tmp_path):
    base = RenderRequest("tiny", dx=0.5, psi=0.6, mix=(Mix(9, weight=0.5, layers=(0, 2)),))
    steps = list(batch(renderer, seed_states(base, [4, 2, 7]), tmp_path / "deep" / "out.zip", 3))
    assert [(step.done, step.total, step.name, step.problem) for step in steps] == [
        (1, 3, "seed0004", ""), (2, 3, "seed0002", ""), (3, 3, "seed0007", "")]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "deep" / "out.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(f"seed000{n}.{kind}" for n in (2, 4, 7) for kind in ("png", "json"))
        data, words = archive.read("seed0002.png"), archive.read("seed0002.json").decode()
    wanted = renderer.render(base.replace(seed=2, dx=0.0))
    assert np.array_equal(load_pixels(data), wanted.pixels)
    assert read_request(data) == wanted.request == from_sidecar(words)[0]


def test_saved_states_come_from_a_folder_or_a_zip_and_get_the_stack(renderer, tmp_path):
    folder = tmp_path / "states"
    one, two = (renderer.render(RenderRequest("tiny", seed=seed)) for seed in (1, 2))
    save_png(folder / "one.png", one.pixels, one.request)
    (folder / "one.json").write_text(to_sidecar(one.request))
    (folder / "two.json").write_text(two.request.to_json())
    (folder / "notes.txt").write_text("not a state")
    (folder / ".hidden.png").write_text("nor this")
    (folder / "broken.png").write_bytes(b"nothing")
    with zipfile.ZipFile(tmp_path / "states.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"some/where/{path.name}")
        archive.write(folder / "one.png", "else/../../one.png")
    stack = RenderRequest("tiny", mix=(Mix(3, layers=(4, 5)),))
    for source, number in ((folder, 3), (tmp_path / "states.zip", 4)):
        states = {state.name: state for state in saved_states(source, stack)}
        assert count_states(source) == len(states) == number
        assert states["one"].request == stacked(one.request, stack) and states["two"].request.seed == 2
        assert states["broken"].request is None and "not a picture" in states["broken"].problem
    out = tmp_path / "out.zip"
    steps = list(batch(renderer, saved_states(folder, stack), out, 3))
    assert steps[-1].num_problems == 1
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == ["one.json", "one.png", "problems.txt", "two.json", "two.png"]
        assert "broken: " in archive.read("problems.txt").decode()
        assert np.array_equal(load_pixels(archive.read("one.png")), renderer.render(stacked(one.request, stack)).pixels)


def test_stopping_leaves_nothing_and_a_fault_leaves_the_old_file(renderer, tmp_path):
    out = tmp_path / "out.zip"
    out.write_bytes(b"old")
    steps = batch(renderer, seed_states(RenderRequest("tiny"), range(50)), out, 50)
    next(steps)
    steps.close()
    with pytest.raises(RequestError, match="No model 'gone'"):
        list(batch(renderer, seed_states(RenderRequest("gone"), [1]), out, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"] and out.read_bytes() == b"old"
    (tmp_path / "file").write_text("")
    with pytest.raises(StyleGANError, match="in the way"):
        list(batch(renderer, seed_states(RenderRequest("tiny"), [1]), tmp_path / "file" / "out.zip", 1))
    with pytest.raises(RequestError, match="end in .zip"):
        next(batch(renderer, [], tmp_path / "out.png", 0))


def test_a_hostile_zip_costs_one_sentence_each(renderer, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_room, "MAX_STATE_BYTES", 1 << 16)
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", bytes(1 << 24))
        archive.writestr("deep.json", "[" * 50_000)
        archive.writestr("text.json", b"\xff\xfe")
        archive.writestr("evil.json", json.dumps({"format": 1, "model": "tiny", "__class__": "x"}))
        archive.writestr("../../etc/passwd.json", RenderRequest("tiny").to_json())
    states = {state.name: state for state in saved_states(path)}
    assert states["passwd"].request == RenderRequest("tiny")
    assert [name for name, state in states.items() if state.problem] == ["bomb", "deep", "evil", "text"]
    assert all(state.problem.endswith(".") and len(state.problem) < 200 for state in states.values() if state.problem)
    for data in (b"", b"PK\x05\x06", path.read_bytes()[: 300]):
        (tmp_path / "cut.zip").write_bytes(data)
        with pytest.raises(DataError):
            list(saved_states(tmp_path / "cut.zip"))
    for source in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError):
            list(saved_states(source))


def test_memory_does_not_grow_with_the_batch(renderer, tmp_path):
    def peak(number: int) -> int:
        tracemalloc.start()
        for _ in batch(renderer, seed_states(RenderRequest("tiny"), range(number)), tmp_path / "out.zip", number):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(128)  # the renderer remembers the w of these seeds from now on
    assert peak(128) < peak(8) + (300 << 10)  # the directory of the zip


def test_the_command_writes_a_zip(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shared = ["generate", "--checkpoints", str(tiny_folder)]
    assert main([*shared, "--model", "tiny", "--seeds", "0-2", "--psi", "0.5", "--zip", "a.zip"]) == 0
    assert "a.zip" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert main([*shared, "--states", "a.zip", "--mix", "5@0-1", "--zip", "b.zip"]) == 0
    with zipfile.ZipFile("b.zip") as archive:
        request = read_request(archive.read("seed0002.png"))
    assert (request.seed, request.psi, request.mix) == (2, 0.5, (Mix(5, layers=(0, 1)),))
    assert main([*shared, "--states", "a.zip"]) == 2 and "--zip" in capsys.readouterr().err
