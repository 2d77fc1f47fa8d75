"""OpenVINO draws what the modules draw, is chosen by measurement, and never gets in the way."""

from __future__ import annotations

import gc
import json
import math
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import make_tiny

from stylegan.engines import choose, openvino
from stylegan.engines.choose import ChosenEngine, improve
from stylegan.engines.plain import PlainEngine
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.pieces import Noise, State
from stylegan.networks.stylegan3_layers import design_layers
from stylegan.pixels import to_pixels

SMALL = {"resolution": 32, "z_dim": 32, "w_dim": 32, "channel_base": 512, "channel_max": 24}
NETWORKS = {
    "skip": GeneratorConfig(**SMALL, conv_clamp=0.7),
    "orig": GeneratorConfig(**SMALL, architecture="orig"),
    "resnet, odd filter": GeneratorConfig(**SMALL, architecture="resnet", resample_filter=(1.0, 2.0, 1.0)),
    "no noise, short filter": GeneratorConfig(**SMALL, use_noise=False, resample_filter=(1.0, 1.0)),
    "grey": GeneratorConfig(**SMALL, img_channels=1),
    "stylegan1": GeneratorConfig("stylegan1", **SMALL),
    "stylegan3-t": GeneratorConfig("stylegan3", **SMALL, conv_clamp=256),
    "stylegan3-r": GeneratorConfig("stylegan3", **SMALL, layers=design_layers(32, 3, 512, 24, radial=True)),
}

needs_openvino = pytest.mark.skipif(
    openvino.version() is None, reason="SKIPPED LOUDLY: openvino is not installed (pip install openvino)"
)


def network(name: str):
    """A small generator whose pictures have a deviation of 0.5, and its styles for one w."""
    generator = make_tiny(NETWORKS[name])
    ws = generator.map(torch.randn(1, 32, generator=torch.Generator().manual_seed(1))).ws
    with torch.no_grad():
        for key, tensor in generator.synthesis.state_dict().items():
            if key.endswith("noise_weight"):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))
        last = generator.synthesis.pieces()[-1]
        colours = [last.weight] if hasattr(last, "spec") else \
            [layer.torgb.weight for layer in generator.synthesis.pieces() if layer.has_image]
        factor = 0.5 / generator.synthesize(ws).std()
        for weight in colours:
            weight.mul_(factor)
        return generator, generator.synthesis.styles(ws)


def walk(engine, generator, styles, noise: Noise | None = None) -> State:
    """All pieces in turn."""
    state = State()
    for index, piece in enumerate(generator.synthesis.pieces()):
        state = engine.run(index, state, styles[piece.styles], noise or Noise())
    return state


def assert_same_picture(found: torch.Tensor, exact: torch.Tensor) -> None:
    """At most one level in 255 anywhere, and 60 dB."""
    a, b = to_pixels(found).astype(float), to_pixels(exact).astype(float)
    assert a.shape == b.shape and b.std() > 20
    assert np.abs(a - b).max() <= 1
    error = np.square(a - b).mean()
    assert error == 0 or 10 * math.log10(255**2 / error) >= 60


@needs_openvino
@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_are_those_of_the_modules(name):
    generator, styles = network(name)
    engine = openvino.OpenVinoEngine(generator.synthesis)
    compiled = engine.compile()
    pieces = generator.synthesis.pieces()
    assert compiled == [index for index, piece in enumerate(pieces) if piece.name != "input"]
    plain = PlainEngine(generator.synthesis)
    for noise in (Noise(), Noise("none"), Noise("const", 0.4)):
        assert_same_picture(walk(engine, generator, styles, noise).image, walk(plain, generator, styles, noise).image)
    drawn = [walk(each, generator, styles, Noise("random", 1.0, torch.Generator().manual_seed(5))).image
             for each in (engine, plain)]  # fmt: skip
    assert_same_picture(*drawn)


@needs_openvino
@pytest.mark.parametrize("name", ["skip", "stylegan1", "stylegan3-t"])
def test_any_piece_can_take_over_and_states_that_were_kept_stay_as_they_were(name):
    generator, styles = network(name)
    engine, plain = openvino.OpenVinoEngine(generator.synthesis), PlainEngine(generator.synthesis)
    engine.compile()
    pieces = generator.synthesis.pieces()
    exact, states = walk(plain, generator, styles).image, [State()]
    for index, piece in enumerate(pieces[:-1]):
        states.append(engine.run(index, states[-1], styles[piece.styles], Noise()))
    copies = [[None if part is None else part.clone() for part in state] for state in states]
    for start, state in enumerate(states):
        for index in range(start, len(pieces)):
            runner = plain if (index - start) % 2 else engine
            state = runner.run(index, state, styles[pieces[index].styles], Noise())
        assert_same_picture(state.image, exact)
    for state, copy in zip(states, copies, strict=True):
        for part, kept in zip(state, copy, strict=True):
            assert part is kept is None or torch.equal(part, kept)


@needs_openvino
def test_packed_doubling_is_the_same_sum():
    from stylegan.engines import openvino_graphs

    generator, styles = network("skip")
    engine, build = openvino.OpenVinoEngine(generator.synthesis), openvino_graphs.build_graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_graphs, "build_graph", lambda piece, is_last, packed: build(piece, is_last, True))
        assert len(engine.compile()) == 4
    assert_same_picture(walk(engine, generator, styles).image,
                        walk(PlainEngine(generator.synthesis), generator, styles).image)  # fmt: skip


@needs_openvino
def test_batches_and_dropped_pieces_run_plainly():
    generator, _ = network("skip")
    styles = generator.synthesis.styles(generator.map(torch.randn(2, 32)).ws)
    engine, plain = openvino.OpenVinoEngine(generator.synthesis), PlainEngine(generator.synthesis)
    assert engine.compile([1, 2]) == [1, 2]
    engine.drop([2])
    assert engine.compile([]) == [1]
    assert torch.equal(walk(engine, generator, styles).image, walk(plain, generator, styles).image)


class Slow:
    """An engine with a clock of its own: the modules, called slow or quick by decree."""

    def __init__(self, synthesis):
        self.name, self._plain = "torch float32", PlainEngine(synthesis)

    def run(self, index, state, styles, noise):
        return self._plain.run(index, state, styles, noise)


@pytest.fixture
def decreed(monkeypatch):
    """Times of (engine's name, piece) in ms that `choose` takes for measured, and no waiting."""
    times: dict[tuple[str, int], float] = {}
    counted: list[tuple[str, int]] = []
    real = choose._timed

    def timed(engine, name, index, state):
        counted.append((name, index))
        return real(engine, name, index, state)[0], times.get((name, index), 10.0)

    monkeypatch.setattr(choose, "_timed", timed)
    monkeypatch.setattr(choose, "IDLE_SECONDS", 0.0)
    return times, counted


def chosen_engine(generator, folder):
    """A ChosenEngine as the Renderer makes it."""
    return ChosenEngine(generator.synthesis, Slow(generator.synthesis), "0123456789abcdef" * 4, folder, nullcontext)


@needs_openvino
def test_pieces_that_measure_quicker_change_hands_and_that_is_remembered(tmp_path, decreed):
    times, counted = decreed
    generator, styles = network("skip")
    times |= {("openvino float32", 1): 5.0, ("openvino float32", 2): 9.9, ("openvino float32", 3): 9.0}
    engine = chosen_engine(generator, tmp_path / "engines")
    assert engine.name == "torch float32" and engine.expected_ms is None
    improve(weakref.ref(engine))
    assert engine.chosen == {1, 3} and engine.other.compile([]) == [1, 3]
    assert engine.name == "openvino float32 and torch float32"
    assert engine.expected_ms == pytest.approx(10 + 5 + 10 + 9)
    assert counted.index(("openvino float32", 0)) == 1, "engines must take turns"
    exact = walk(PlainEngine(generator.synthesis), generator, styles).image
    assert_same_picture(walk(engine, generator, styles).image, exact)

    counted.clear()
    again = chosen_engine(generator, tmp_path / "engines")
    improve(weakref.ref(again))
    assert again.chosen == {1, 3} and not counted and again.expected_ms == engine.expected_ms
    (path,) = (tmp_path / "engines").glob("*/choice.json")
    assert path.parent.name == f"0123456789abcdef-{openvino.version()}"


@needs_openvino
@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "[" * 5000, "NAMED:{}", 'NAMED:{"torch float32": [1]}',
                                  'NAMED:{"torch float32": [1,1,1,"a"], "openvino float32": [1,1,1,1]}',
                                  'NAMED:{"torch float32": [1,1,1,1], "openvino float32": [-1,NaN,0,null]}'])
def test_a_remembered_choice_is_not_trusted(tmp_path, decreed, text):
    generator, _ = network("skip")
    engine = chosen_engine(generator, tmp_path)
    engine.path.parent.mkdir(parents=True)
    if text.startswith("NAMED:"):
        text = json.dumps({choose._machine(engine): "@"}).replace('"@"', text.removeprefix("NAMED:"))
    engine.path.write_text(text)
    improve(weakref.ref(engine))
    assert engine.chosen == frozenset() and engine.expected_ms == 40
    assert json.loads(engine.path.read_text())[choose._machine(engine)]


@needs_openvino
def test_old_choices_make_room(tmp_path, decreed, monkeypatch):
    monkeypatch.setattr(choose, "MAX_MODELS", 2)
    generator, _ = network("skip")
    for digit in "123":
        engine = ChosenEngine(generator.synthesis, Slow(generator.synthesis), digit * 64, tmp_path, nullcontext)
        improve(weakref.ref(engine))
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["2", "3"]


@needs_openvino
def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path, decreed):
    generator, _ = network("skip")
    (tmp_path / "file").write_text("in the way")
    engine = chosen_engine(generator, tmp_path / "file")
    improve(weakref.ref(engine))
    assert engine.expected_ms == 40


@needs_openvino
def test_nobody_is_kept_waiting_and_nothing_is_kept_alive(decreed, monkeypatch):
    generator, _ = network("skip")
    engine = chosen_engine(generator, None)
    reference, held = weakref.ref(engine), weakref.ref(generator.synthesis)
    real, seen = choose._timed, []

    def dropped(*args):
        seen.append(args[2])
        nonlocal engine, generator
        engine = generator = None
        return real(*args)

    monkeypatch.setattr(choose, "_timed", dropped)
    improve(reference)
    gc.collect()
    assert seen == [0] and reference() is None and held() is None
    generator, _ = network("skip")
    engine = chosen_engine(generator, None)
    monkeypatch.setattr(choose, "IDLE_SECONDS", 60.0)
    ending = choose.threading.Event()
    choose.threading.Timer(0.3, ending.set).start()
    improve(weakref.ref(engine), ending)
    assert seen == [0], "somebody has just drawn, so nothing may be measured"


def test_an_engine_that_fails_is_left(monkeypatch):
    generator, styles = network("skip")
    engine = chosen_engine(generator, None)

    def fail(*args):
        raise RuntimeError("no such primitive")

    monkeypatch.setattr(engine.other, "run", fail)
    engine.chosen = frozenset({0, 1, 2, 3})
    exact = walk(PlainEngine(generator.synthesis), generator, styles).image
    assert torch.equal(walk(engine, generator, styles).image, exact)
    assert engine.name == "torch float32"


@needs_openvino
def test_a_piece_that_cannot_be_compiled_stays_with_torch(decreed, monkeypatch):
    times, _ = decreed
    times |= {("openvino float32", index): 1.0 for index in range(4)}
    from stylegan.engines import openvino_graphs

    real = openvino_graphs.build_graph

    def build(piece, is_last, packed):
        if piece.name == "b8":
            raise RuntimeError("Could not create a primitive descriptor")
        return real(piece, is_last, packed)

    monkeypatch.setattr(openvino_graphs, "build_graph", build)
    generator, _ = network("skip")
    engine = chosen_engine(generator, None)
    improve(weakref.ref(engine))
    assert engine.chosen == {0, 2, 3} and engine.expected_ms == 13


@needs_openvino
@pytest.mark.parametrize("wrong", [1.01, math.nan])
def test_a_piece_that_draws_something_else_stays_with_torch(decreed, monkeypatch, wrong):
    times, _ = decreed
    times |= {("openvino float32", index): 1.0 for index in range(4)}
    generator, _ = network("skip")
    engine = chosen_engine(generator, None)
    real = engine.other.run

    def run(index, state, styles, noise):
        x, image = real(index, state, styles, noise)
        return State(x * wrong if index == 1 else x, image * wrong if index == 3 else image)

    monkeypatch.setattr(engine.other, "run", run)
    improve(weakref.ref(engine))
    assert engine.chosen == {0, 2}


def test_without_openvino_nothing_is_looked_for(monkeypatch):
    monkeypatch.setattr(openvino, "version", lambda: None)
    generator, styles = network("skip")
    engine = chosen_engine(generator, None)
    assert engine.improve() is False and engine.name == "torch float32"
    assert walk(engine, generator, styles).image is not None
