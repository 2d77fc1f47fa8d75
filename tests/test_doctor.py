"""The doctor says in a sentence what a picture takes, from measurements, and advises only what applies."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

import stylegan.doctor as doctor
from stylegan.cli.main import main
from stylegan.engines import openvino
from stylegan.errors import CheckpointError, RequestError
from stylegan.render import Renderer


@pytest.fixture
def renderer(tiny_folder):
    """A Renderer of its own, and nothing known from other tests."""
    doctor._drawn.clear()
    return Renderer(tiny_folder)


@pytest.fixture
def calm(monkeypatch):
    """A machine about which there is nothing to say."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(torch.get_num_threads())))
    monkeypatch.setattr(openvino, "version", lambda: "2026.4.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.Path, "exists", lambda _: False)
    monkeypatch.delenv("STYLEGAN_KEEP_MALLOC", raising=False)
    monkeypatch.setattr(doctor, "_expected_ms", lambda renderer, model: 42.4)


def test_the_line_names_device_model_time_and_engine(renderer, calm):
    found = doctor.diagnose(renderer, "tiny")
    assert found.line == f"{doctor.describe_device(renderer.device)}: tiny (16 px) takes about 42 ms a picture with " \
                         "torch float32."
    assert found.advice == ()


def test_a_time_that_was_measured_is_used_and_else_pictures_are_drawn(renderer, monkeypatch):
    model = renderer.model("tiny")
    drawn = []
    real = renderer.render
    monkeypatch.setattr(renderer, "render", lambda request: drawn.append(request.seed) or real(request))
    first = doctor._expected_ms(renderer, model)
    assert len(drawn) == 2 and 0 < first < 60_000
    last = len(model.generator.synthesis.pieces()) - 1
    assert doctor._expected_ms(renderer, model) == 1000 * model.pace.expected(model.quick.name, 0, last)
    assert len(drawn) == 2
    model.quick.milliseconds = {model.quick.first.name: [1.0, 2.0, 3.0], model.quick.other.name: [9.0, 0.5, 9.0]}
    model.quick.chosen = frozenset({1})
    assert doctor._expected_ms(renderer, model) == 4.5


def test_a_slow_picture_is_timed_once(renderer, monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE_MS", 0.0)
    drawn, real = [], renderer.render
    monkeypatch.setattr(renderer, "render", lambda request: drawn.append(request.seed) or real(request))
    doctor._expected_ms(renderer, renderer.model("tiny"))
    assert len(drawn) == 1


@pytest.mark.parametrize("change, word", [
    (lambda patch: patch.setattr(torch.cuda, "is_available", lambda: True), "--device cuda"),
    (lambda patch: patch.setattr(doctor.Path, "exists", lambda _: True), "PyTorch with CUDA"),
    (lambda patch: patch.setattr(os, "sched_getaffinity", lambda _: set(range(99))), "OMP_NUM_THREADS"),
    (lambda patch: patch.setattr(os, "getloadavg", lambda: (99.0, 0, 0)), "the load is 99.0"),
    (lambda patch: patch.setenv("STYLEGAN_KEEP_MALLOC", "1"), "unset STYLEGAN_KEEP_MALLOC"),
    (lambda patch: patch.setattr(openvino, "version", lambda: None), "pip install openvino"),
    (lambda patch: patch.setattr(doctor, "_expected_ms", lambda *_: 300.0), "smaller previews follow the hand"),
])
def test_advice_is_given_only_where_it_applies(renderer, calm, monkeypatch, change, word):
    change(monkeypatch)
    (advice,) = doctor.diagnose(renderer, "tiny").advice
    assert word in advice and advice.endswith(".")


def test_a_model_that_is_not_there(renderer):
    with pytest.raises((CheckpointError, RequestError)):
        doctor.diagnose(renderer, "nobody")


def test_info_without_a_model_tells_of_all(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "models"
    shutil.copytree(tiny_folder, folder)
    assert main(["info", "--checkpoints", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "tiny (16 px) takes about" in said and "classes (16 px) takes about" in said
    assert main(["info", "--json", "--checkpoints", str(folder)]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"tiny", "classes"}
    assert main(["info", "--checkpoints", str(tmp_path / "empty")]) == 2
    assert "There are no models" in capsys.readouterr().err
