"""The user's own directions, packs that travel, and the command that makes them."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import D, L

from stylegan.checkpoint.file import model_hash
from stylegan.cli.main import main
from stylegan.directions.packs import pack_json, read_pack, write_pack
from stylegan.directions.store import (
    MINE_SUFFIX,
    add_direction,
    add_directions,
    delete_direction,
    load_directions,
    mark_direction,
    mine_path,
    rename_direction,
    save_directions,
)
from stylegan.errors import DirectionError
from stylegan.latents import Direction

OWNER = "a" * 64


def some(name: str, seed: int = 0, owner: str = OWNER, channels: bool = False, **info) -> Direction:
    """A direction, with channels of two styles when asked."""
    source = torch.Generator().manual_seed(seed)
    moved = {1: torch.randn(4, generator=source), 2: torch.randn(3, generator=source)} if channels else None
    return Direction(name, torch.randn(L, D, generator=source), (0, L - 1), "styles" if channels else "pca", owner,
                     info, moved, {1: 2, 2: 3} if channels else None)


def same(a: Direction, b: Direction) -> bool:
    """Whether two directions are the same in all that a file holds."""
    about = [(d.name, d.layers, d.kind, d.model_hash, dict(d.info), dict(d.rows or {})) for d in (a, b)]
    moved = [d.channels or {} for d in (a, b)]
    return (about[0] == about[1] and torch.equal(a.vector, b.vector) and moved[0].keys() == moved[1].keys()
            and all(torch.equal(moved[0][index], moved[1][index]) for index in moved[0]))


# the user's own ------------------------------------------------------------------------------------------------------


def test_channels_survive_their_file(tmp_path):
    saved = [some("plain"), some("sparse", 1, channels=True, purity=7)]
    path = save_directions(tmp_path / "x.mine.safetensors", saved)
    assert all(map(same, saved, load_directions(path, OWNER)))


def test_my_own_are_added_renamed_starred_noted_and_deleted(tmp_path):
    path = mine_path(tmp_path / "my.model.safetensors")
    assert path.name == "my.model" + MINE_SUFFIX
    add_direction(path, some("a", source="found"))
    add_directions(path, [some("b", 1, channels=True), some("c", 2)])
    assert [one.name for one in load_directions(path)] == ["a", "b", "c"] and load_directions(path)[0].info == {}
    rename_direction(path, "a", "smile")
    mark_direction(path, some("smile"), starred=True, note="the\nbest")
    mark_direction(path, some("b"), starred=True)
    mark_direction(path, some("b"), starred=False)
    mark_direction(path, some("shipped", 5, source="shipped"), starred=True)
    found = {one.name: one for one in load_directions(path)}
    assert list(found) == ["smile", "b", "c", "shipped"]
    assert found["smile"].info == {"starred": True, "note": "the\nbest"} and found["b"].info == {"starred": False}
    assert same(dataclasses.replace(found["b"], info={}), some("b", 1, channels=True))  # marked, not replaced
    assert found["shipped"].info == {"starred": True}
    for name in list(found):
        delete_direction(path, name)
    assert not path.exists()


@pytest.mark.parametrize(("change", "words"), [
    (lambda p: add_direction(p, some("a")), "already"),
    (lambda p: add_directions(p, [some("new"), some("a")]), "already"),
    (lambda p: add_direction(p, some("b", owner="b" * 64)), "another model"),
    (lambda p: add_direction(p, some("s7.42")), "kept for a channel"),
    (lambda p: add_direction(p, some("no way")), "unusable"),
    (lambda p: rename_direction(p, "a", "s0.0"), "kept for a channel"),
    (lambda p: rename_direction(p, "a", "../x"), "unusable"),
    (lambda p: rename_direction(p, "a", "z"), "already"),
    (lambda p: rename_direction(p, "nobody", "b"), "no direction 'nobody'"),
    (lambda p: delete_direction(p, "nobody"), "no direction 'nobody'"),
    (lambda p: mark_direction(p, some("a"), note="x" * 501), "at most 500"),
    (lambda p: mark_direction(p, some("a"), note="\x00"), "plain text"),
])  # fmt: skip
def test_what_does_not_fit_changes_nothing(tmp_path, change, words):
    path = tmp_path / "x.mine.safetensors"
    add_directions(path, [some("a"), some("z", 3)])
    before = path.read_bytes()
    with pytest.raises(DirectionError, match=words):
        change(path)
    assert path.read_bytes() == before
    with pytest.raises(DirectionError):
        rename_direction(tmp_path / "none.mine.safetensors", "a", "b")


def test_two_people_adding_at_once_lose_nothing(tmp_path):
    path = tmp_path / "x.mine.safetensors"
    threads = [threading.Thread(target=add_direction, args=(path, some(f"d{i}", i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.name for one in load_directions(path)} == {f"d{i}" for i in range(8)}


@pytest.mark.parametrize("change", [
    {"rows": {"1": 2}}, {"rows": {"1": 2, "2": 9}}, {"rows": {"1": 2, "2": True}}, {"rows": {"1": 2, "-2": 3}},
    {"rows": {"1": 2, "x": 3}}, {"rows": {}}, {"rows": [1, 2]}, {"rows": {"1": 2, "2": 3, "3": 3}},
    {"rows": {"1": 2, "2": 3, "02": 3}}, {"rows": {"1": 2, "٢": 3}}])  # fmt: skip
def test_styles_in_a_file_must_fit_its_layers(tmp_path, change):
    path = save_directions(tmp_path / "x.mine.safetensors", [some("sparse", channels=True)])
    entry = {"name": "sparse", "kind": "styles", "layers": [0, L - 1], "info": {}, **change}
    metadata = {"format": "stylegan-studio-directions/1", "model_hash": OWNER, "directions": json.dumps([entry])}
    save_file(load_file(path), path, metadata)
    with pytest.raises(DirectionError, match="damaged"):
        load_directions(path)


@pytest.mark.parametrize("tensors", [
    {"channels.0.1": torch.zeros(2, 2)}, {"channels.0.1": torch.full((4,), math.nan)},
    {"channels.0.1": torch.zeros(4, dtype=torch.float64)}, {"channels.0.7": torch.zeros(4)},
    {"channels.0.1": torch.zeros(0)}])  # fmt: skip
def test_styles_in_a_file_must_be_numbers(tmp_path, tensors):
    path = save_directions(tmp_path / "x.mine.safetensors", [some("sparse", channels=True)])
    entry = {"name": "sparse", "kind": "styles", "layers": [0, L - 1], "info": {}, "rows": {"1": 2, "2": 3}}
    metadata = {"format": "stylegan-studio-directions/1", "model_hash": OWNER, "directions": json.dumps([entry])}
    save_file({**load_file(path), **tensors}, path, metadata)
    with pytest.raises(DirectionError, match="damaged"):
        load_directions(path)


# packs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
def test_packs_come_back_the_same(tmp_path, ending):
    pack = [some("a", note="mine", source="shipped"), some("b", 1, channels=True)]
    path = write_pack(tmp_path / f"pack{ending}", pack)
    found = read_pack(path.read_bytes(), OWNER, (L, D), [5, 4, 3])
    assert same(found[0], dataclasses.replace(pack[0], info={"note": "mine"})) and same(found[1], pack[1])


def test_a_pack_is_readable_json():
    pack = json.loads(pack_json([some("b", channels=True)]))
    assert pack["model_hash"] == OWNER and pack["shape"] == [L, D]
    (entry,) = pack["directions"]
    assert entry["rows"] == {"1": 2, "2": 3} and len(base64.b64decode(entry["vector"])) == 4 * L * D


@pytest.mark.parametrize("pack", [[], [some("a"), some("b", owner="b" * 64)], [some("a", owner="")],
                                  [some("s1.1")], [some("a"), some("a")]])
def test_what_would_not_load_is_not_packed(tmp_path, pack):
    for ending in (".json", ".safetensors"):
        with pytest.raises(DirectionError):
            write_pack(tmp_path / f"pack{ending}", pack)
    assert not list(tmp_path.iterdir())


def test_a_pack_has_an_ending_that_says_what_it_is(tmp_path):
    with pytest.raises(DirectionError, match=".json or a .safetensors"):
        write_pack(tmp_path / "pack.pkl", [some("a")])


def hostile(change) -> bytes:
    """A good pack, changed."""
    pack = json.loads(pack_json([some("a"), some("b", 1, channels=True)]))
    change(pack, pack["directions"][0], pack["directions"][1])
    return json.dumps(pack).encode()


NUMBERS = base64.b64encode(bytes(4)).decode()


@pytest.mark.parametrize("data", [
    b"", b"{", b"{}", b"[" * 100_000, b'{"a":' * 50_000, b"\x80\x04K\x01.", b"PK\x03\x04", bytes(200), b"{\xff}",
    *map(hostile, [
        lambda pack, a, b: pack.update(format="stylegan-studio-pack/2"), lambda pack, a, b: pack.update(extra=1),
        lambda pack, a, b: pack.pop("shape"), lambda pack, a, b: pack.update(model_hash="b" * 64),
        lambda pack, a, b: pack.update(model_hash=""), lambda pack, a, b: pack.update(model_hash=[1]),
        lambda pack, a, b: pack.update(shape=[L, D + 1]), lambda pack, a, b: pack.update(shape=[10**9, 10**9]),
        lambda pack, a, b: pack.update(shape=[-1, -D * L]), lambda pack, a, b: pack.update(shape="x"),
        lambda pack, a, b: pack.update(shape=[True, D]), lambda pack, a, b: pack.update(directions=[]),
        lambda pack, a, b: pack.update(directions={"a": a}), lambda pack, a, b: pack.update(directions=[1]),
        lambda pack, a, b: pack.update(directions=[a, a]), lambda pack, a, b: pack.update(directions=[a] * 5000),
        lambda pack, a, b: a.update(name="s7.42"), lambda pack, a, b: a.update(name="<script>"),
        lambda pack, a, b: a.update(name="../../etc"), lambda pack, a, b: a.update(layers=[0, L]),
        lambda pack, a, b: a.update(kind={"x": 1}), lambda pack, a, b: a.update(code="x"),
        lambda pack, a, b: a.update(info={"x": "y" * 2000}), lambda pack, a, b: a.pop("vector"),
        lambda pack, a, b: a.update(vector=[1.0, 2.0]), lambda pack, a, b: a.update(vector="%%%"),
        lambda pack, a, b: a.update(vector=NUMBERS), lambda pack, a, b: a.update(vector=a["vector"][:-8]),
        lambda pack, a, b: a.update(vector=base64.b64encode(b"\x00\x00\xc0\x7f" * L * D).decode()),
        lambda pack, a, b: a.update(channels={"0": NUMBERS}), lambda pack, a, b: a.update(rows={"0": 0}),
        lambda pack, a, b: b.pop("channels"), lambda pack, a, b: b["channels"].pop("1"),
        lambda pack, a, b: b["channels"].update({"1": NUMBERS}),
        lambda pack, a, b: b["channels"].update({"9": NUMBERS}),
        lambda pack, a, b: (b["channels"].update({"9": NUMBERS}), b["rows"].update({"9": 0})),
        lambda pack, a, b: b["rows"].update({"1": 99}), lambda pack, a, b: b.update(channels=[1]),
    ]),
])  # fmt: skip
def test_hostile_packs_are_refused_in_one_sentence(data):
    with pytest.raises(DirectionError) as caught:
        read_pack(data, OWNER, (L, D), [5, 4, 3])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


# the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_checkpoint, tmp_path):
    """A copy of the tiny model with room for files beside it."""
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    return path


def run(model, *argv) -> int:
    """The command's exit code."""
    return main(["directions", str(model), *map(str, argv), "--checkpoints", str(model.parent)])


def mine(model) -> list[Direction]:
    """The user's own directions of the model."""
    return load_directions(mine_path(model), model_hash(model))


def test_the_command_makes_directions_from_pictures(model, capsys):
    assert run(model, "--method", "sefa", "--num", 1, "--samples", 100) == 0
    assert run(model, "--method", "pair", "--from", "3", "--to", "8,9", "--name", "to-8") == 0
    assert run(model, "--method", "sorted", "--yes", "1,5,9", "--no", "2-4", "--against", "sefa1,to-8") == 0
    assert run(model, "--method", "sorted", "--yes", "1,5,9", "--no", "2-4", "--channels", 3, "--name", "few",
               "--json") == 0
    pair, plain, few = mine(model)
    assert [pair.name, plain.name, few.name] == ["to-8", "sorted", "few"] and pair.info["pictures"] == [2, 1]
    assert plain.info["against"] == ["sefa1", "to-8"] and few.num_channels == 3 and few.kind == "styles"
    out = capsys.readouterr().out
    assert "separation" in out and json.loads(out[out.index("{"):])["directions"][0]["info"]["purity"] == 3


def test_the_command_lists_channels_and_keeps_none(model, capsys):
    assert run(model, "--method", "styles", "--num", 4) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("s") and "slope" in line for line in lines)
    assert [path.name for path in model.parent.iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_packs_go_out_and_come_in(model, tmp_path, capsys, ending):
    pack = tmp_path / f"pack.{ending}"
    assert run(model, "--method", "pair", "--from", "1", "--to", "2", "--export", pack) == 0
    assert run(model, "--import", pack) == 2 and "already" in capsys.readouterr().err
    before = mine(model)
    mine_path(model).unlink()
    assert run(model, "--import", pack) == 0
    assert all(map(same, before, mine(model)))


@pytest.mark.parametrize(("argv", "error"), [
    ([], "--method"), (["--method", "pair", "--from", "1"], "--from and --to"),
    (["--method", "sorted", "--yes", "1,2"], "--yes and --no"), (["--method", "text", "--text", "x"], "--clip"),
    (["--method", "sorted", "--yes", "1", "--no", "2,3"], "at least 2"),
    (["--method", "pair", "--from", "1", "--to", "1"], "same latent"),
    (["--method", "pair", "--from", "x", "--to", "1"], "seeds"),
    (["--method", "pair", "--from", "1", "--to", "2", "--against", "nobody"], "nobody"),
    (["--method", "pair", "--from", "1", "--to", "2", "--name", "s1.1"], "kept for a channel"),
    (["--export", "pack.json"], "no directions"), (["--import", "nowhere.json"], "nowhere.json"),
    (["--method", "text", "--text", "x", "--clip", "nowhere.pt"], "open_clip"),
])  # fmt: skip
def test_the_command_refuses_in_one_sentence(model, capsys, argv, error):
    assert run(model, *argv) == 2
    message = capsys.readouterr().err
    assert error in message and message.count("\n") == 1 and not mine_path(model).exists()
