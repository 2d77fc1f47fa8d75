"""A look inside leaves no trace and tells the truth: hooks go, spectra peak where waves are, places find channels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import TINY, save_tiny

from stylegan.errors import RequestError, StyleGANError
from stylegan.inspection import Features, Layer, captured, inspect_layer, list_layers
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.stylegan3 import OUTPUT_SCALE
from stylegan.render import Renderer
from stylegan.request import RenderRequest
from stylegan.siblings import timelines
from stylegan.ui.answers import Answers
from stylegan.ui.controls import sentence
from stylegan.ui.session import AppContext
from stylegan.ui.views import Views

FAMILIES = {
    "sg1": GeneratorConfig(family="stylegan1", resolution=16, z_dim=16, w_dim=16, channel_base=128, channel_max=8),
    "sg2": TINY,
    "sg3": GeneratorConfig(family="stylegan3", resolution=16, z_dim=16, w_dim=16, channel_base=256, channel_max=8),
}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory) -> Renderer:
    folder = tmp_path_factory.mktemp("families")
    for name, config in FAMILIES.items():
        save_tiny(folder / f"{name}.safetensors", config)
    return Renderer(folder, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_looking_changes_nothing(renderer, family):
    request = RenderRequest(family, seed=3)
    before = renderer.render(request).pixels
    layers = list_layers(renderer, request)
    synthesis = renderer.model(family).generator.synthesis
    assert len(layers) == len(synthesis.affines()) and len({layer.name for layer in layers}) == len(layers)
    assert {layer.dtype for layer in layers} == {"float32"} and max(layer.height for layer in layers) == 16
    for layer in layers:
        features = inspect_layer(renderer, request, layer.name)
        assert features.layer == layer and features.maps.shape == (layer.channels, layer.height, layer.width)
        assert features.channel(layer.channels - 1).shape == (layer.height, layer.width, 1)
        assert features.components().shape == (layer.height, layer.width, 3)
    assert not any(module._forward_hooks for module in synthesis.modules())
    assert np.array_equal(renderer.render(request).pixels, before)
    with pytest.raises(RuntimeError), captured(renderer.model(family).generator):
        raise RuntimeError
    assert not any(module._forward_hooks for module in synthesis.modules())


def test_the_maps_are_what_the_network_computes(renderer):
    request = RenderRequest("sg3", seed=5)
    generator, last = renderer.model("sg3").generator, list_layers(renderer, request)[-1].name
    image = generator.synthesize(renderer.latents(request))[0].numpy()
    np.testing.assert_array_equal(inspect_layer(renderer, request, last).maps * np.float32(OUTPUT_SCALE), image)
    one, two = (inspect_layer(renderer, RenderRequest("sg2", seed=seed), "b8.conv1").maps for seed in (1, 2))
    assert not np.array_equal(one, two)


def features(maps: np.ndarray) -> Features:
    """Features of made-up maps."""
    return Features(Layer("x", *maps.shape[1:], len(maps), "float32"), maps.astype(np.float32))


@pytest.mark.parametrize("waves", [1, 3, 7])
def test_the_spectrum_peaks_where_the_wave_is(waves):
    rows = np.sin(2 * np.pi * waves * np.arange(16) / 16)[None, :, None] * np.ones([2, 1, 16]) + 5
    for maps in (rows, rows.transpose(0, 2, 1)):
        spectrum = features(maps).spectrum()
        assert len(spectrum) == 9 and int(spectrum.argmax()) == waves and spectrum.max() == 0
        assert np.delete(spectrum, waves).max() < -60
    assert np.isfinite(features(np.zeros([2, 8, 8])).spectrum()).all()


def test_a_place_finds_the_channels_that_answer_there():
    maps = np.zeros([5, 8, 8])
    maps[3, 6, 1], maps[1, 6, 1] = 9.0, -0.5
    maps[1] += np.random.default_rng(0).normal(size=[8, 8]) * 0.3
    maps[4] = 7.0  # does not vary, so it answers nowhere
    found = features(maps).answers(1.5 / 8, 6.5 / 8, 2)
    assert [index for index, _ in found] == [3, 1] and found[0][1] > 7 and found[1][1] < 0
    assert dict(features(maps).answers(0.5, 0.5, 5))[4] == 0
    assert features(maps).answers(1.0, 1.0)
    for place in ((-0.1, 0.5), (0.5, 1.1), (float("nan"), 0)):
        with pytest.raises(RequestError):
            features(maps).answers(*place)


def test_components_and_statistics():
    source = np.random.default_rng(1).normal(size=[2, 8, 8])
    maps = np.stack([source[0], -source[0], 0.3 * source[1], np.zeros([8, 8])])
    shown = features(maps).components().astype(float)
    assert abs(np.corrcoef(shown[..., 0].ravel(), source[0].ravel())[0, 1]) > 0.95
    assert abs(np.corrcoef(shown[..., 1].ravel(), source[1].ravel())[0, 1]) > 0.95
    figures = features(maps).statistics()
    assert figures["zeros"] == figures["still"] == 0.25
    assert figures["min"] == pytest.approx(float(maps.min())) and figures["mean"] == pytest.approx(float(maps.mean()))
    assert features(np.ones([1, 4, 4])).components().shape == (4, 4, 3)
    with pytest.raises(RequestError, match="0 to 3"):
        features(maps).channel(4)


def test_timelines_hold_models_of_the_same_shape(tmp_path):
    folder, runs = tmp_path / "models", tmp_path / "runs"
    for name, config, seed in (("a", TINY, 0), ("b", TINY, 1), ("other", FAMILIES["sg1"], 0)):
        save_tiny(folder / f"{name}.safetensors", config, seed)
    saved = (("tune", TINY, (3000, 500, 12000)), ("else", FAMILIES["sg1"], (1,)), ("two", TINY, (7,)))
    for name, config, numbers in saved:
        for number in numbers:
            save_tiny(runs / name / "snapshots" / f"{number:09d}.safetensors", config, number)
    (runs / "two" / "snapshots" / "000000009.safetensors").write_bytes(b"torn")
    (runs / "empty").mkdir()
    renderer = Renderer(folder, "cpu", roots=[runs])
    found = timelines(renderer.folder, runs, "a")
    assert {each.key: [stop.label for stop in each.stops] for each in found} == {
        "run:tune": ["0.5 kimg", "3 kimg", "12 kimg"], "run:two": ["0.007 kimg"], "folder": ["a", "b"]}  # fmt: skip
    snapshot = runs / "two" / "snapshots" / "000000007.safetensors"
    assert timelines(renderer.folder, runs, str(snapshot))[0].key == "run:two"
    assert timelines(renderer.folder, tmp_path / "none", "other") == []
    for stop in found[0].stops:
        renderer.render(RenderRequest(stop.name, seed=4))

    views = Views(Answers(AppContext(renderer, renderer.folder, runs)))
    session = {"session": {"request": {"model": "a", "seed": 4}, "sources": [], "rows": []}}
    told = views.timelines(session)["timelines"]
    assert json.loads(json.dumps(told))[2]["stops"] == [{"name": "a", "label": "a"}, {"name": "b", "label": "b"}]
    assert views.stop({**session, "name": "b"})["session"]["request"] == {"model": "b", "seed": 4}
    layer = views.layer({**session, "name": "b8.conv1", "channel": 2, "x": 0.5, "y": 0})
    assert len(layer["answers"]) == 8 and layer["src"].startswith("data:image/png") and len(layer["spectrum"]) == 5
    wrong = [{}, {"name": "x"}, {**session, "name": "gone"}, {**session, "name": "b8.conv1", "channel": 99},
             {**session, "name": "b8.conv1", "channel": "x"}, {**session, "name": "b8.conv1", "x": 3, "y": 0},
             {**session, "name": "b8.conv1", "x": "a"}, {**session, "name": "/etc/passwd"}]  # fmt: skip
    for ask in (views.stop, views.layer):
        for question in wrong:
            answer = sentence(ask)(question)
            assert "error" in answer and "our side" not in answer["error"] or ask == views.stop, (question, answer)
    with pytest.raises(StyleGANError):
        timelines(renderer.folder, runs, "gone")


def test_numbers_that_are_not_finite_are_told(renderer, tmp_path):
    generator = renderer.model("sg2").generator
    weight = generator.synthesis.b8.conv0.bias
    old = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        with pytest.raises(RequestError, match="not finite"):
            inspect_layer(renderer, RenderRequest("sg2"), "b8.conv1")
    finally:
        with torch.no_grad():
            weight.copy_(old)
