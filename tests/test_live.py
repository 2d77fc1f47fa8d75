"""What moves: previews within a budget, known beginnings, regions, giving up, and memory that stays flat."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, save_tiny

from stylegan import models
from stylegan.checkpoint.file import model_hash
from stylegan.directions.store import directions_path, save_directions
from stylegan.engines.choose import ChosenEngine
from stylegan.errors import CheckpointError
from stylegan.lane import Lane
from stylegan.latents import Direction
from stylegan.models import Pace
from stylegan.networks.config import GeneratorConfig
from stylegan.render import Renderer, _last_within
from stylegan.request import Edit, Mix, RenderRequest, encode_region

WIDE = GeneratorConfig(resolution=64, z_dim=16, w_dim=16, channel_base=256, channel_max=8)
THREE = GeneratorConfig(family="stylegan3", resolution=32, z_dim=16, w_dim=16, channel_base=128, channel_max=8)
REQUEST = RenderRequest(model="wide", seed=3)
LEFT = encode_region((b"\xff" * 16 + b"\x00" * 16) * 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `wide`, 64 px with a direction, `orig` without colours on the way, and `three`."""
    folder = tmp_path_factory.mktemp("models")
    path = save_tiny(folder / "wide.safetensors", WIDE)
    save_tiny(folder / "orig.safetensors", GeneratorConfig(**{**vars(WIDE), "architecture": "orig"}))
    save_tiny(folder / "three.safetensors", THREE)
    way = 2 * torch.randn(WIDE.num_ws, WIDE.w_dim, generator=torch.Generator().manual_seed(5))
    save_directions(directions_path(path), [Direction("smile", way, (0, WIDE.num_ws - 1), "pca", model_hash(path))])
    return folder


@pytest.fixture
def renderer(folder, monkeypatch):
    """A renderer of that folder that looks for no other engine."""
    monkeypatch.setattr(ChosenEngine, "improve", lambda self: False)
    return Renderer(folder, "cpu")


def pace(renderer, name, seconds):
    """Let a model's pieces have taken so long."""
    model = renderer.model(name)
    for _ in range(9):
        model.pace.note(model.quick.name, 0, seconds)


def test_a_hand_gets_a_preview_within_the_budget(renderer):
    full = renderer.live("ann", REQUEST, dragging=True)
    assert not full.preview and full.pixels.shape == (64, 64, 3)  # nothing is known about the pace yet
    pace(renderer, "wide", [0.001, 0.001, 0.001, 0.02, 1.0])
    other = REQUEST.replace(seed=4)
    small = renderer.live("ann", other, dragging=True, budget=0.1)
    assert small.preview and small.pixels.shape == (32, 32, 3) and small.path == "preview 32 of 64, torch float32"
    released = renderer.live("ann", other, dragging=False, budget=0.1)
    assert not released.preview and released.path == "torch float32, from block 64 on"
    np.testing.assert_array_equal(released.pixels, renderer.render(other).pixels)
    assert not renderer.live("ann", REQUEST.replace(seed=5), dragging=True, budget=9.0).preview
    assert renderer.live("ann", REQUEST.replace(seed=6), dragging=True, budget=0.001).pixels.shape == (32, 32, 3)
    assert not renderer.render(REQUEST.replace(seed=7)).preview


@pytest.mark.parametrize(("budget", "first", "last"), [
    (1.0, 0, 5), (0.05, 0, 3), (0.03, 0, 2), (0.001, 0, 2), (0.03, 3, 4), (0.001, 4, 4), (0.001, 5, 5),
])  # fmt: skip
def test_a_preview_is_as_large_as_the_budget_allows(budget, first, last):
    pieces = [SimpleNamespace(resolution=8 << i, has_image=i != 1) for i in range(6)]  # 8 to 256 px
    known = models.Pace()
    known.note("plain", 0, [0.01, 0.01, 0.01, 0.01, 0.02, 0.5])
    assert _last_within(budget, pieces, known, "plain", first) == last
    assert _last_within(budget, pieces, known, "another", first) == 5


def test_a_late_edit_is_whole_because_its_beginning_is_known(renderer):
    renderer.live("ann", REQUEST)
    pace(renderer, "wide", [1.0, 1.0, 1.0, 1.0, 0.05])
    late = REQUEST.replace(edits=(Edit("smile", 1.0, (8, 9)),))
    result = renderer.live("ann", late, dragging=True)
    assert not result.preview and result.path == "torch float32, from block 64 on"
    early = renderer.live("ann", REQUEST.replace(edits=(Edit("smile", 1.0, (6, 9)),)), dragging=True)
    assert early.preview and early.pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("name", ["orig", "three"])
def test_models_without_colours_on_the_way_give_whole_pictures(renderer, name):
    request = RenderRequest(model=name, seed=1)
    renderer.live("ann", request)
    pieces = renderer.model(name).generator.synthesis.pieces()
    pace(renderer, name, [1.0] * len(pieces))
    result = renderer.live("ann", request.replace(seed=2), dragging=True)
    assert not result.preview and len(result.pixels) == pieces[-1].resolution
    mixed = renderer.live("ann", request.replace(seed=2, mix=(Mix(seed=5, layers=(len(pieces) - 2,) * 2),)))
    assert " on" in mixed.path
    np.testing.assert_array_equal(mixed.pixels, Renderer(renderer.folder.path, "cpu").render(mixed.request).pixels)


@pytest.mark.parametrize("changes", [
    {"mix": (Mix(seed=9, layers=(7, 9)),)}, {"edits": (Edit("smile", 2.0, (6, 9)),)}, {"edits": (Edit("s9.1", 3.0),)},
    {"edits": (Edit("smile", 2.0, region=LEFT),)}, {"noise_strength": 2.0}, {"noise": "none"}, {"psi": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("noise", ["const", "random"])
def test_bits_never_depend_on_what_is_known(renderer, changes, noise):
    base = REQUEST.replace(noise=noise)
    request = base.replace(**changes)
    alone = Renderer(renderer.folder.path, "cpu", cache_bytes=0)
    renderer.render(base)
    first = renderer.render(request)
    np.testing.assert_array_equal(first.pixels, alone.render(request).pixels)
    assert renderer.render(request).path == "torch float32, from memory"
    np.testing.assert_array_equal(renderer.render(base).pixels, alone.render(base).pixels)
    np.testing.assert_array_equal(renderer.render(request).pixels, first.pixels)
    assert (first.pixels != alone.render(base).pixels).any()


def test_a_region_keeps_the_rest(renderer):
    base = renderer.render(REQUEST).pixels.astype(int)
    whole = renderer.render(REQUEST.replace(edits=(Edit("smile", 3.0, (4, 9)),))).pixels.astype(int)
    half = renderer.render(REQUEST.replace(edits=(Edit("smile", 3.0, (4, 9), region=LEFT),))).pixels.astype(int)
    assert np.abs(half - whole)[:, :24].mean() < 0.2 * np.abs(whole - base)[:, :24].mean()
    assert np.abs(half - base)[:, 48:].mean() < 0.2 * np.abs(whole - base)[:, 48:].mean()
    both = renderer.render(REQUEST.replace(edits=(Edit("smile", 3.0, (4, 9), region=LEFT), Edit("smile", -2.0))))
    moved = renderer.render(REQUEST.replace(edits=(Edit("smile", -2.0),)))
    difference = np.abs(both.pixels.astype(int) - moved.pixels)
    assert difference[:, 48:].mean() < 0.2 * difference[:, :24].mean()
    assert torch.equal(both.latents.ws, moved.latents.ws)


def test_what_nobody_waits_for_is_given_up(renderer, monkeypatch):
    started, results = threading.Event(), []
    engine = renderer.model("wide").quick
    run = engine.run

    def slow(index, *rest):
        started.set()
        if index == 1 and not results:
            results.append(threading.Thread(target=lambda: results.append(renderer.live("ann", REQUEST, 2))))
            results[0].start()
            end = time.monotonic() + 10
            while "ann" not in renderer._lane._waiting and time.monotonic() < end:
                time.sleep(0.001)
        ran.append(index)
        return run(index, *rest)

    ran = []
    monkeypatch.setattr(engine, "run", slow)
    assert renderer.live("ann", REQUEST.replace(seed=8), 1) is None
    assert ran[:2] == [0, 1] and started.is_set()
    results[0].join(timeout=30)
    assert results[1].request.seed == 3 and ran[2] == 0  # the newer one, from its own beginning


def test_a_hand_that_moves_is_never_starved():
    lane = Lane()
    with lane.turn("ann", 1, dragging=True):
        for dragging, expected in ((True, False), (False, True)):
            waiting = threading.Thread(target=lambda d=dragging: lane.turn("ann", 2 + (not d), d).__enter__())
            waiting.daemon = True
            waiting.start()
            end = time.monotonic() + 10
            while getattr(lane._waiting.get("ann"), "dragging", None) is not dragging and time.monotonic() < end:
                time.sleep(0.001)
            assert lane.overtaken("ann", dragging=True) is expected
            assert lane.overtaken("ann", dragging=False) and not lane.overtaken("bob")


def test_two_hands_at_once_both_see_their_newest(renderer):
    shown = {"ann": [], "bob": []}

    def drag(name):
        for step in range(15):
            request = REQUEST.replace(seed=step, model="wide" if name == "ann" else "orig")
            shown[name].append(renderer.live(name, request, step, dragging=step < 14))

    threads = [threading.Thread(target=drag, args=(name,)) for name in shown]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert all(results[-1].request.seed == 14 and not results[-1].preview for results in shown.values())


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(folder, monkeypatch):
    renderer = Renderer(folder, "cpu")
    needed = models.memory_needed(folder / "wide.safetensors")
    monkeypatch.setattr(models, "free_memory", lambda device: needed - 1)
    monkeypatch.setattr(models, "read_any", lambda path: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match=r"wide.* needs about \d+\.\d GB .* but \d+\.\d GB is free"):
        renderer.render(REQUEST)
    monkeypatch.undo()
    monkeypatch.setattr(models, "free_memory", lambda device: needed)
    assert renderer.render(REQUEST).pixels.any()
    monkeypatch.setattr(models, "free_memory", lambda device: 0)
    with pytest.raises(CheckpointError, match="three"):
        renderer.render(RenderRequest(model="three"))
    assert len(renderer._models) == 0  # the other made room before it was refused


def test_small_models_stay_and_large_ones_make_room(tmp_path):
    for name in "abcdef":
        save_tiny(tmp_path / f"{name}.safetensors", seed=ord(name))
    renderer = Renderer(tmp_path, "cpu")
    for name in "abcdef":
        renderer.render(RenderRequest(model=name))
    assert renderer._models.names == list("abcdef")
    small = Renderer(tmp_path, "cpu", max_bytes=1)
    for name in "abc":
        small.render(RenderRequest(model=name))
        assert small._models.names == [name]


def soak(folder, num_renders, num_changes):
    """Bytes that Python holds more after `num_renders` live renders with `num_changes` of model, and their count."""
    names = [f"m{number}" for number in range(5)]
    for number, name in enumerate(names):
        save_tiny(folder / f"{name}.safetensors", TINY, seed=number)
    renderer = Renderer(folder, "cpu", max_bytes=1, cache_bytes=1 << 20)
    every = num_renders // num_changes

    def work(first, count):
        for step in range(first, first + count):
            name, noise = names[step // every % len(names)], ("const", "random")[step % 2]
            request = RenderRequest(name, seed=step % 50, noise=noise)
            renderer.live(step % 7, request, step, dragging=step % 3 > 0, budget=0.0005)

    work(0, num_renders // 4)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work(num_renders // 4, num_renders - num_renders // 4)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before, renderer
    finally:
        tracemalloc.stop()


def test_memory_stays_flat(tmp_path, monkeypatch):
    monkeypatch.setattr(ChosenEngine, "improve", lambda self: False)
    grown, renderer = soak(tmp_path, 400, 40)
    assert grown < 400_000 and len(renderer._models) == 1 and renderer.prefixes.num_bytes <= 1 << 20


def test_one_slow_first_run_says_nothing_about_the_next():
    known = Pace()
    known.note("torch", 0, [1.0, 2.0])
    known.note("torch", 0, [0.01, 0.02])
    known.note("torch", 0, [0.5])
    assert known.expected("torch", 0, 1) == pytest.approx(0.03)
    assert known.expected("torch", 0, 2) is None and known.expected("other", 0, 0) is None
