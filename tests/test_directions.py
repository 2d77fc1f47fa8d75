"""Directions: closed forms on a toy model whose W is known, calibration, conditioning, and files that can be trusted."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stylegan.checkpoint.file import model_hash
from stylegan.cli import directions as command
from stylegan.directions import build as build_room
from stylegan.directions.attributes import MIN_EFFECT, find_attributes, search_attributes
from stylegan.directions.boundaries import Whitening, condition, fit_normal
from stylegan.directions.classes import find_classes
from stylegan.directions.classifier import auc, read_attributes
from stylegan.directions.effects import EffectMatrix, Probe, narrow_layers
from stylegan.directions.pca import find_pca
from stylegan.directions.population import calibrated, sample_w
from stylegan.directions.sefa import find_sefa
from stylegan.directions.store import FORMAT, directions_path, keep_directions, load_directions, save_directions, tied
from stylegan.errors import DataError, DirectionError, RequestError, StyleGANError
from stylegan.latents import Direction, Latents

D, L = 12, 4
NORMALS = torch.nn.functional.normalize(torch.tensor(  # glasses and beard at 53 degrees, tan at right angles to both
    [[1.0] + [0.0] * 11, [0.6, 0.8] + [0.0] * 10, [0.0, 0.0, 1.0] + [0.0] * 9]), dim=1)
LAYER_OF = (1, 2, 3)  # the layer through which each attribute is drawn
NAMES = ("glasses", "beard", "tan")


class Toy:
    """w = z scaled by `spread` plus a mean; three bands of the 16 px picture show n . w of one layer each."""

    z_dim = w_dim = D
    num_ws, img_channels, resolution, num_classes = L, 3, 16, 0
    device = torch.device("cpu")

    def __init__(self, spread: torch.Tensor | None = None, num_classes: int = 0) -> None:
        self.spread = torch.ones(D) if spread is None else spread
        self.w_avg = torch.full((D,), 0.1)
        self.num_classes = num_classes

    def map(self, z, label=None):
        w = torch.as_tensor(z, dtype=torch.float32) * self.spread + self.w_avg
        if label is not None:
            w = w + 2.0 * torch.eye(D)[torch.as_tensor(label)]
        return Latents.from_w(w, L)

    def synthesize(self, ws):
        ws = getattr(ws, "ws", ws)
        image = torch.full((len(ws), 3, 16, 16), -0.8)
        for band, (normal, layer) in enumerate(zip(NORMALS, LAYER_OF, strict=True)):
            score = (ws[:, layer] - self.w_avg) @ normal  # [N]
            image[:, band, 5 * band : 5 * band + 5] = torch.tanh(2 * score)[:, None, None]
        return image

    def style_weights(self):
        weight = torch.zeros(6, D)
        weight[0, 3], weight[1, 3], weight[2, 5] = 3.0, 4.0, 2.0
        return [(0, weight), (1, torch.eye(D)[:4] * 0.5), (3, torch.eye(D)[7:8] * 9)]


def labelled(num: int = 500, spread: torch.Tensor | None = None) -> types.SimpleNamespace:
    """Pictures of the toy with labels that are true of them."""
    toy = Toy(spread)
    w = sample_w(toy, num, seed=99)
    pixels = (toy.synthesize(Latents.from_w(w, L)) * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1)
    scores = ((w - toy.w_avg) @ NORMALS.T).numpy()
    attributes = {"glasses": (scores[:, 0] > 0) * 1.0, "beard": (scores[:, 1] > 0) * 1.0, "tan": scores[:, 2]}
    return types.SimpleNamespace(labels=None, class_names=(), num_classes=0, attributes=attributes,
                                 array=lambda: pixels.numpy())


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=0)))))


def some_directions(owner: str = "a" * 64, num: int = 3) -> list[Direction]:
    vectors = torch.randn(num, L, D, generator=torch.Generator().manual_seed(1))
    return [Direction(f"pca{i + 1}", vectors[i], (i, L - 1), "pca", owner, {"share": 0.5, "list": [1, None, "x"]})
            for i in range(num)]


def test_pca_finds_the_planted_axes_in_order_and_their_spread():
    spread = torch.full((D,), 0.1)
    spread[4], spread[7] = 3.0, 2.0
    first, second = find_pca(Toy(spread), num=2, samples=4000)
    assert degrees(first.vector[0], torch.eye(D)[4]) < 2 and degrees(second.vector[0], torch.eye(D)[7]) < 2
    assert float(first.vector[0].norm()) == pytest.approx(3.0, rel=0.05)
    assert first.layers == (0, L - 1) and torch.equal(first.vector[0], first.vector[L - 1])
    assert first.info["share"] == pytest.approx(9 / (9 + 4 + 10 * 0.01), rel=0.05)


def test_pca_depends_on_nothing_but_its_seed_and_fixes_signs(tiny_generator):
    once, again = find_pca(tiny_generator, 4, 500, seed=3), find_pca(tiny_generator, 4, 500, seed=3)
    assert all(torch.equal(a.vector, b.vector) for a, b in zip(once, again, strict=True))
    for direction in once:
        axis = direction.vector[0]
        assert axis[axis.abs().argmax()] > 0


def test_too_many_components_are_refused(tiny_generator):
    with pytest.raises(DirectionError, match="32 dimensions"):
        find_pca(tiny_generator, num=33, samples=100)
    flat = torch.zeros(D)
    flat[0] = 1.0
    with pytest.raises(DirectionError, match="fewer than 2"):
        find_pca(Toy(flat), num=2, samples=100)


def test_sefa_finds_the_planted_weights_by_layer():
    best, second = find_sefa(Toy(), num=2, layers=(0, 1))
    assert degrees(best.vector[0], torch.eye(D)[3]) < 0.1 and degrees(second.vector[0], torch.eye(D)[5]) < 0.1
    assert best.layers == (0, 1) and best.info["share"] == pytest.approx(25.25 / (25.25 + 4 + 0.75), rel=1e-3)
    assert degrees(find_sefa(Toy(), num=1)[0].vector[0], torch.eye(D)[7]) < 0.1  # the last layer joins in
    with pytest.raises(DirectionError, match="0-3"):
        find_sefa(Toy(), layers=(2, 4))


@pytest.mark.parametrize("find", [find_pca, find_sefa])
def test_strength_one_is_one_standard_deviation(tiny_generator, find):
    w = sample_w(tiny_generator, 4000, seed=5)
    for direction in find(tiny_generator, num=3, samples=4000, seed=5):
        vector = direction.vector[0]
        assert float((w @ vector / vector.square().sum()).std()) == pytest.approx(1.0, abs=1e-3)


def test_a_zero_axis_cannot_be_calibrated():
    with pytest.raises(DirectionError, match="zero or not finite"):
        calibrated(torch.zeros(D), torch.randn(10, D))


def test_boundaries_are_recovered_within_a_few_degrees():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4000, D, generator=generator)
    noisy = points @ NORMALS[1] * 3 + torch.randn(4000, generator=generator)
    assert degrees(fit_normal(points, noisy, continuous=False), NORMALS[1]) < 4
    assert degrees(fit_normal(points, noisy, continuous=True), NORMALS[1]) < 4
    lopsided = noisy - 4  # one in ten samples has it
    assert degrees(fit_normal(points, lopsided, continuous=False), NORMALS[1]) < 6


def test_a_boundary_needs_samples_on_both_sides():
    with pytest.raises(DirectionError, match="clearly with it"):
        fit_normal(torch.randn(300, D), -torch.full((300,), 5.0), continuous=False)


def test_conditioning_leaves_the_others_alone_and_keeps_what_it_can():
    free = condition(NORMALS[0], NORMALS[1:])
    assert torch.allclose(NORMALS[1:] @ free, torch.zeros(2), atol=1e-6)
    assert float(free.norm()) == pytest.approx(math.sin(math.acos(0.6)), abs=1e-5)
    assert torch.equal(condition(NORMALS[2], torch.zeros(0, D)), NORMALS[2])
    twice = torch.cat([NORMALS[1:], NORMALS[1:] * 5])  # repeated conditions change nothing
    assert torch.allclose(condition(NORMALS[0], twice), free, atol=1e-5)


def test_whitening_gives_unit_spread_and_comes_back():
    w = torch.randn(3000, D, generator=torch.Generator().manual_seed(2)) * torch.linspace(0.1, 3, D) + 5
    white = Whitening.of(w)
    points = white.whiten(w)
    assert torch.allclose(points.T @ points / (len(w) - 1), torch.eye(D, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(points @ white.back + white.mean, w.double(), atol=1e-6)


@pytest.mark.parametrize(("scores", "positives", "expected"), [
    ([1, 2, 3, 4], [0, 0, 1, 1], 1.0), ([4, 3, 2, 1], [0, 0, 1, 1], 0.0), ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
    ([1, 3, 2, 4], [0, 0, 1, 1], 0.75)])  # fmt: skip
def test_auc_counts_pairs(scores, positives, expected):
    assert auc(np.array(scores, float), np.array(positives, bool)) == pytest.approx(expected)


def test_attributes_are_sorted_out_before_anything_is_learned():
    rng = np.random.RandomState(0)
    hair = rng.randint(3, size=200)
    size = rng.rand(200)
    image_set = types.SimpleNamespace(
        labels=hair, num_classes=3, class_names=("red", "brown", "grey"),
        attributes={"size": size, "big": (size > 0.5) * 1.0, "rare": (np.arange(200) < 2) * 1.0,
                    "hair=red": (hair == 0) * 1.0, "hair=brown": (hair == 1) * 1.0, "unknown": np.full(200, np.nan)})
    table = read_attributes(image_set, rename={"big": "large face!"})
    assert table.names == ("red-hair", "brown-hair", "grey", "large-face")
    assert table.exclusive(0, 1) and not table.exclusive(0, 3) and not table.exclusive(0, 0)
    reasons = dict(table.dropped)
    assert "same as large-face" in reasons["size"] and "2 of 200" in reasons["rare"] and "known for" in reasons["unknown"]
    with pytest.raises(DirectionError, match="labels.json"):
        read_attributes(types.SimpleNamespace(labels=None, num_classes=0, class_names=(), attributes={}))


@pytest.fixture(scope="module")
def found():
    """The toy's labelled directions: glasses and beard overlap in W, each acts through one layer."""
    return find_attributes(Toy(), labelled(), samples=1500, epochs=8, psi=1.0)


def test_named_directions_are_the_conditioned_truth(found):
    assert [direction.name for direction in found.directions] == list(NAMES)
    for index, direction in enumerate(found.directions):
        truth = condition(NORMALS[index], torch.cat([NORMALS[:index], NORMALS[index + 1 :]]))
        assert degrees(direction.vector[0], truth) < 10
        assert float(direction.vector[0].norm()) == pytest.approx(1.0, rel=0.1)  # the toy's W has unit spread


def test_named_directions_act_only_where_they_must(found):
    assert [direction.layers for direction in found.directions] == [(layer, layer) for layer in LAYER_OF]


def test_conditioning_is_measured_to_help(found):
    matrix = found.matrix
    assert matrix.before[0, 1] > 1.0 and abs(matrix.values[0, 1]) < 0.3  # glasses dragged the beard along
    assert all(matrix.values[i, i] > 1.5 for i in range(3))
    assert matrix.leak() < 0.1 < matrix.leak(matrix.before)
    low, high = matrix.flips[0]
    assert low < 0.2 and high > 0.8 and matrix.flips[2] is None


def test_the_report_reads_as_markdown(found):
    text = found.matrix.to_markdown()
    rows = [line for line in text.splitlines() if line.startswith("| glasses")]
    assert len(rows) == 3 and "**" in rows[0] and "1-1" in rows[0]  # after, before, and the judge's own figures
    assert "chance" not in text and all(name in text for name in NAMES)
    assert all(grade.auc > 0.9 and 0.5 < grade.accuracy <= 1 for grade in found.matrix.judged)


def test_unconditioned_directions_are_the_plain_normals():
    free = find_attributes(Toy(), labelled(), samples=1000, epochs=6, psi=1.0, conditioned=False)
    assert degrees(free.directions[0].vector[0], NORMALS[0]) < 10
    assert free.matrix.values[1, 0].abs() < 0.3 < free.matrix.before[1, 0]  # the layer choice alone frees this toy


def test_what_does_not_move_is_given_up_with_its_reason():
    image_set = labelled()
    image_set.attributes["noise"] = np.random.RandomState(5).randint(2, size=500) * 1.0
    steps = list(search_attributes(Toy(), image_set, samples=600, epochs=4, psi=1.0))
    assert "judge" in dict(steps[-1].found.matrix.dropped)["noise"]
    done = [step.done for step in steps]
    assert done == sorted(done) and done[-1] == 1.0 and steps[0].found is None and "%" in str(steps[0])

    deaf = Toy()
    deaf.synthesize = lambda ws: torch.full((len(getattr(ws, "ws", ws)), 3, 16, 16), 0.3)
    with pytest.raises(DirectionError, match="No label moves"):
        find_attributes(deaf, labelled(), samples=400, epochs=2)


def test_pictures_of_another_kind_are_refused():
    image_set = labelled(60)
    grey = image_set.array()[..., :1]
    image_set.array = lambda: grey
    with pytest.raises(DirectionError, match="1 channels"):
        find_attributes(Toy(), image_set)
    few = labelled(20)
    with pytest.raises(DirectionError, match="at least 40"):
        find_attributes(Toy(), few)


def test_narrowing_keeps_the_asked_share():
    judge = types.SimpleNamespace(score=lambda image: image)
    amounts = torch.tensor([0.05, 0.6, 0.3, 0.05])
    generator = types.SimpleNamespace(synthesize=lambda ws: (ws[:, :, 0] * amounts).sum(1, keepdim=True))
    probe = Probe(generator, judge, Latents(torch.zeros(4, L, D)), torch.ones(1))
    whole = Direction("d", torch.ones(L, D), (0, 3))
    assert narrow_layers(probe, whole, 0, keep=0.85).layers == (1, 2)
    assert narrow_layers(probe, whole, 0, keep=1.0).layers == (0, 3)
    assert float(probe.effects(whole)[0]) == pytest.approx(4.0)


def test_classes_give_directions_towards_each_class():
    towards = find_classes(Toy(num_classes=3), ("cat", "dog"), samples=600)
    assert [direction.name for direction in towards] == ["cat", "dog", "class2"]
    for label, direction in enumerate(towards):
        others = torch.eye(D)[:3].sum(0) - torch.eye(D)[label]
        assert degrees(direction.vector[0], torch.eye(D)[label] - others / 2) < 0.1
    assert len(find_classes(Toy(num_classes=2), samples=200)) == 1
    with pytest.raises(DirectionError, match="no classes"):
        find_classes(Toy())


def test_directions_survive_their_file(tmp_path):
    path = directions_path(tmp_path / "my.model.safetensors")
    assert path.name == "my.model.directions.safetensors"
    saved = some_directions()
    save_directions(path, saved)
    for a, b in zip(saved, load_directions(path, "a" * 64), strict=True):
        assert torch.equal(a.vector, b.vector)
        assert (a.name, a.layers, a.kind, a.model_hash, a.info) == (b.name, b.layers, b.kind, b.model_hash, b.info)


def test_directions_belong_to_their_model(tmp_path):
    path = save_directions(tmp_path / "x.directions.safetensors", some_directions())
    with pytest.raises(DirectionError, match="belongs to another model"):
        load_directions(path, "b" * 64)
    assert len(load_directions(path)) == 3


def test_keeping_replaces_the_same_kind_and_strangers(tmp_path):
    path = tmp_path / "x.directions.safetensors"
    assert keep_directions(path, some_directions()) == (3, False)
    sefa = [dataclasses.replace(d, name=f"sefa{i}", kind="sefa") for i, d in enumerate(some_directions(num=2))]
    assert keep_directions(path, sefa) == (5, False)
    assert keep_directions(path, some_directions(num=1)) == (3, False)
    assert [d.name for d in load_directions(path)] == ["sefa0", "sefa1", "pca1"]
    assert keep_directions(path, some_directions("b" * 64, 2)) == (2, True)


@pytest.mark.parametrize("change", [
    {"name": "a b"}, {"name": "x=1"}, {"name": "pca2"}, {"layers": (2, 4)}, {"model_hash": ""}, {"model_hash": "other"},
    {"info": {"x": math.nan}}, {"info": {"x": object()}}, {"vector": torch.zeros(L, D + 1)},
    {"vector": torch.full((L, D), math.inf)}])  # fmt: skip
def test_what_would_not_load_is_not_saved(tmp_path, change):
    first, *rest = some_directions()
    path = tmp_path / "x.directions.safetensors"
    with pytest.raises((DirectionError, TypeError)):
        save_directions(path, [dataclasses.replace(first, **change), *rest])
    assert not path.exists()


def _rewrite(path: Path, tensors=None, drop=None, **metadata) -> None:
    """The file again, with other tensors or metadata."""
    old = {"format": FORMAT, "model_hash": "a" * 64, "directions": json.dumps(
        [{"name": f"pca{i}", "kind": "pca", "layers": [0, 3], "info": {}} for i in range(3)])}  # fmt: skip
    about = {key: value for key, value in {**old, **metadata}.items() if key != drop}
    save_file(tensors or {"vectors": load_file(path)["vectors"]}, path, about)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a safetensors file at all"),
    "huge header": lambda path: path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:]),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "kind": lambda path: _rewrite(path, format="stylegan-studio/1"),
    "no owner": lambda path: _rewrite(path, drop="model_hash"),
    "no list": lambda path: _rewrite(path, drop="directions"),
    "not JSON": lambda path: _rewrite(path, directions="["),
    "deep JSON": lambda path: _rewrite(path, directions="[" * 100_000),
    "too few names": lambda path: _rewrite(path, directions="[]"),
    "no dict": lambda path: _rewrite(path, directions="[1,2,3]"),
    "bad layers": lambda path: _rewrite(path, directions=json.dumps(
        [{"name": f"p{i}", "kind": "pca", "layers": [0, 9], "info": {}} for i in range(3)])),
    "same names": lambda path: _rewrite(path, directions=json.dumps(
        [{"name": "p", "kind": "pca", "layers": [0, 1], "info": {}} for _ in range(3)])),
    "script name": lambda path: _rewrite(path, directions=json.dumps(
        [{"name": f"<b>{i}", "kind": "pca", "layers": [0, 1], "info": {}} for i in range(3)])),
    "other tensor": lambda path: _rewrite(path, {"w": torch.zeros(3, L, D)}),
    "flat": lambda path: _rewrite(path, {"vectors": torch.zeros(3, D)}),
    "whole numbers": lambda path: _rewrite(path, {"vectors": torch.zeros(3, L, D, dtype=torch.int64)}),
    "nan": lambda path: _rewrite(path, {"vectors": torch.full((3, L, D), math.nan)}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, damage):
    path = save_directions(tmp_path / "x.directions.safetensors", some_directions())
    DAMAGES[damage](path)
    with pytest.raises(DirectionError) as caught:
        load_directions(path)
    message = str(caught.value)
    assert "x.directions" in message and message.endswith(".") and "\n" not in message and len(message) < 300


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(DirectionError, match="python -m stylegan directions"):
        load_directions(tmp_path / "none.directions.safetensors")


def run(*argv: object) -> int:
    """The command as the shell runs it."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(part) for part in argv]))


@pytest.fixture
def model(tiny_checkpoint, tmp_path) -> Path:
    """A checkpoint of its own for each test."""
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    return path


def test_the_command_finds_merges_and_prints(model, capsys):
    assert run(model, "--method", "pca", "--num", 3, "--samples", 200) == 0
    assert "pca3" in capsys.readouterr().out
    assert run(model, "--method", "sefa", "--num", 2, "--layers", "1-2", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["directions"][0]["layers"] == [1, 2] and about["directions"][0]["kind"] == "sefa"
    loaded = load_directions(directions_path(model), model_hash(model))
    assert [direction.kind for direction in loaded] == ["pca"] * 3 + ["sefa"] * 2


def test_the_command_replaces_directions_of_another_model(model, capsys):
    save_directions(directions_path(model), [dataclasses.replace(d, name="old") for d in some_directions(num=1)])
    assert run(model, "--method", "pca", "--num", 1, "--samples", 100) == 0
    assert "another model" in capsys.readouterr().err
    assert [direction.name for direction in load_directions(directions_path(model))] == ["pca1"]


def test_the_command_takes_the_models_own_classes(tiny_folder, tmp_path):
    path = tmp_path / "classes.safetensors"
    path.write_bytes((tiny_folder / "classes.safetensors").read_bytes())
    assert run(path, "--method", "attributes", "--samples", 200) == 0
    assert [direction.name for direction in load_directions(directions_path(path))] == ["class0", "class1", "class2"]


def _zip(path: Path, labelled_too: bool) -> Path:
    """Labelled pictures of the toy as a zip."""
    image_set = labelled(120)
    with zipfile.ZipFile(path, "w") as archive:
        for i, pixels in enumerate(image_set.array()):
            with archive.open(f"{i:03d}.png", "w") as file:
                Image.fromarray(pixels).save(file, "PNG")
        if labelled_too:
            files = {f"{i:03d}.png": {name: float(column[i]) for name, column in image_set.attributes.items()}
                     for i in range(120)}  # fmt: skip
            archive.writestr("labels.json", json.dumps({"files": files}))
    return path


@pytest.mark.parametrize(("argv", "error"), [
    (["--method", "all"], "--data"), (["--method", "attributes"], "no classes"),
    (["--method", "pca", "--matrix", "x.md"], "--data"), (["--method", "pca", "--layers", "0-1"], "--layers"),
    (["--method", "sefa", "--layers", "3-9"], "do not exist"), (["--method", "pca", "--num", "0"], "between"),
    (["--method", "attributes", "--data", "nowhere.zip"], "nowhere.zip")])  # fmt: skip
def test_the_command_refuses_in_one_sentence(model, argv, error):
    with pytest.raises(StyleGANError, match=error):
        run(model, *argv)
    assert not directions_path(model).exists()


def test_pictures_without_labels_are_refused(model, tmp_path):
    with pytest.raises(DirectionError, match="no usable attributes"):
        run(model, "--method", "attributes", "--data", _zip(tmp_path / "plain.zip", False))


def test_a_rename_must_be_a_pair():
    with pytest.raises(RequestError, match="--rename"):
        command._parse_names("glasses")


def test_everything_at_once_for_a_model(model, tmp_path, monkeypatch):
    monkeypatch.setattr(build_room, "build", lambda checkpoint: Toy())
    directions, matrix = build_room.build_all(model, _zip(tmp_path / "toy.zip", True), num=3, samples=600,
                                              rename={"tan": "sun-tan"})
    assert isinstance(matrix, EffectMatrix) and "sun-tan" in matrix.names
    loaded = load_directions(directions_path(model), model_hash(model))
    assert [d.name for d in loaded] == [d.name for d in directions]
    assert [d.kind for d in loaded] == ["attribute"] * len(matrix.names) + ["pca"] * 3 + ["sefa"] * 3
    effects = next(d for d in loaded if d.name == "glasses").info["effects"]
    assert effects["glasses"] >= MIN_EFFECT
    with pytest.raises(DataError):
        build_room.build_all(model, tmp_path / "none.zip")


def test_tied_directions_carry_the_hash():
    assert {direction.model_hash for direction in tied(some_directions(), "c" * 64)} == {"c" * 64}
