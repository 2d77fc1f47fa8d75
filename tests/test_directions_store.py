"""Directions as files that can be trusted, and the command that finds and keeps them."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toys import D, L, Toy, labelled

from stylegan.checkpoint.file import model_hash
from stylegan.cli.main import main
from stylegan.directions import build as build_room
from stylegan.directions.attributes import MIN_EFFECT
from stylegan.directions.effects import EffectMatrix
from stylegan.directions.store import FORMAT, directions_path, keep_directions, load_directions, save_directions, tied
from stylegan.errors import DataError, DirectionError
from stylegan.latents import Direction


def some_directions(owner: str = "a" * 64, num: int = 3) -> list[Direction]:
    vectors = torch.randn(num, L, D, generator=torch.Generator().manual_seed(1))
    return [Direction(f"pca{i + 1}", vectors[i], (i, L - 1), "pca", owner, {"share": 0.5, "list": [1, None, "x"]})
            for i in range(num)]


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
    """The command as the shell runs it; its exit code."""
    return main(["directions", *map(str, argv)])


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
def test_the_command_refuses_in_one_sentence(model, capsys, argv, error):
    assert run(model, *argv) == 2
    message = capsys.readouterr().err
    assert error in message and message.count("\n") == 1
    assert not directions_path(model).exists()


def test_pictures_without_labels_are_refused(model, tmp_path, capsys):
    assert run(model, "--method", "attributes", "--data", _zip(tmp_path / "plain.zip", False)) == 2
    assert "no usable attributes" in capsys.readouterr().err


def test_a_rename_must_be_a_pair(model, capsys):
    with pytest.raises(SystemExit) as caught:
        run(model, "--method", "all", "--data", "x.zip", "--rename", "glasses")
    assert caught.value.code == 2 and "--rename" in capsys.readouterr().err


def test_a_damaged_file_is_not_written_over(model, capsys):
    directions_path(model).write_text("mine")
    assert run(model, "--method", "pca", "--num", 1, "--samples", 100) == 2
    assert "damaged" in capsys.readouterr().err and directions_path(model).read_text() == "mine"


def test_everything_at_once_for_a_model(tmp_path):
    recipe = build_room.Recipe(num=3, samples=600, rename=(("tan", "sun-tan"),))
    found, matrix = build_room.find_directions(Toy(), recipe, _zip(tmp_path / "toy.zip", True))
    assert isinstance(matrix, EffectMatrix) and "sun-tan" in matrix.names
    assert [d.kind for d in found] == ["attribute"] * len(matrix.names) + ["pca"] * 3 + ["sefa"] * 3
    effects = next(d for d in found if d.name == "glasses").info["effects"]
    assert effects["glasses"] >= MIN_EFFECT
    with pytest.raises(DataError):
        build_room.find_directions(Toy(), recipe, tmp_path / "none.zip")


def test_tied_directions_carry_the_hash():
    assert {direction.model_hash for direction in tied(some_directions(), "c" * 64)} == {"c" * 64}
