"""Batches that a page asks for: few at once, seen only with their key, stopped on a word, and no path is trusted."""

from __future__ import annotations

import threading
import time
import zipfile

import pytest

from stylegan.render import Renderer
from stylegan.ui import errands as errands_room
from stylegan.ui.controls import sentence
from stylegan.ui.errands import Errands
from stylegan.ui.session import AppContext

STATE = {"session": {"request": {"model": "tiny"}, "sources": [], "rows": []}}


@pytest.fixture
def errands(tiny_folder, tmp_path) -> Errands:
    renderer = Renderer(tiny_folder, "cpu")
    return Errands(AppContext(renderer, renderer.folder, tmp_path), tmp_path / "uploads")


def ended(errands: Errands, key: str) -> dict:
    """A batch once it has ended."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = errands.batch_look({"key": key})["errand"]
        if found["state"] != "running":
            return found
        time.sleep(0.01)
    raise AssertionError("the batch did not end")


def test_a_batch_ends_with_a_zip_and_a_failed_one_with_a_sentence(errands):
    found = ended(errands, errands.batch_start({**STATE, "seeds": "1,5"})["errand"]["key"])
    assert (found["state"], found["done"], found["total"], found["problems"]) == ("done", 2, 2, 0)
    assert len(zipfile.ZipFile(found["path"]).namelist()) == 4
    gone = {"session": {**STATE["session"], "request": {"model": "gone"}}}
    found = ended(errands, errands.batch_start({**gone, "seeds": "1"})["errand"]["key"])
    assert found["state"] == "failed" and "No model 'gone'" in found["said"] and "path" not in found


def test_few_run_at_once_and_each_is_stopped_by_its_own_key_only(errands, monkeypatch):
    gate = threading.Event()
    render = errands.context.renderer.render
    monkeypatch.setattr(errands.context.renderer, "render", lambda request: (gate.wait(30), render(request))[1])
    keys = [errands.batch_start({**STATE, "seeds": "0-99"})["errand"]["key"] for _ in range(2)]
    assert "under way already" in sentence(errands.batch_start)({**STATE, "seeds": "1"})["error"]
    assert errands.batch_look({"key": "guessed"}) == {"errand": None} == errands.batch_stop({"key": "guessed"})
    errands.batch_stop({"key": keys[0]})
    gate.set()
    assert ended(errands, keys[0])["state"] == "stopped" and ended(errands, keys[1])["state"] == "done"
    assert not list((errands.uploads / f"batch-{keys[0]}").iterdir())


def test_only_the_last_few_zips_stay(errands, monkeypatch):
    monkeypatch.setattr(errands_room, "MOST_REMEMBERED", 2)
    for _ in range(5):
        ended(errands, errands.batch_start({**STATE, "seeds": "1"})["errand"]["key"])
    assert len(list(errands.uploads.glob("batch-*"))) == 3


@pytest.mark.parametrize("question", [
    None, {}, STATE, {**STATE, "seeds": 3}, {**STATE, "seeds": "0-5000"}, {**STATE, "seeds": "x"}, {"key": 3},
    {**STATE, "path": "/etc/passwd"}, {**STATE, "path": "../models/tiny.safetensors"}, {**STATE, "path": []},
])  # fmt: skip
def test_wrong_questions_get_one_sentence(errands, question):
    for ask in errands.questions():
        answer = sentence(ask)(question)
        assert "our side" not in answer.get("error", "our side"), (ask.__name__, answer)


def test_zips_are_not_taken_where_uploads_are_off(tiny_folder, tmp_path):
    renderer = Renderer(tiny_folder, "cpu")
    errands = Errands(AppContext(renderer, renderer.folder, tmp_path, allow_uploads=False), tmp_path)
    (tmp_path / "a.zip").write_bytes(b"")
    assert "switched off" in sentence(errands.batch_start)({**STATE, "path": str(tmp_path / "a.zip")})["error"]
