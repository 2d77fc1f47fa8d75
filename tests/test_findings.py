"""What the Directions tab asks of the server: strips, the stack, own directions and packs; nothing asked is trusted."""

from __future__ import annotations

import base64
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_CLASSES, save_tiny

from stylegan.checkpoint.file import model_hash, read_checkpoint
from stylegan.directions.discover import DiscoverStep
from stylegan.directions.store import directions_path, load_directions, mine_path, save_directions
from stylegan.errors import DirectionError, RequestError, StyleGANError
from stylegan.latents import Direction
from stylegan.pixels import load_pixels
from stylegan.render import Renderer
from stylegan.request import Edit, Mix, RenderRequest, decode_ws, encode_region, encode_ws
from stylegan.ui.findings import Findings
from stylegan.ui.session import AppContext, Session

NUM_WS = TINY.num_ws
MASK = encode_region(bytes([255] * 512 + [0] * 512))  # the upper half


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    path = save_tiny(folder / "alpha.safetensors")
    digest, source = model_hash(read_checkpoint(path)), torch.Generator().manual_seed(5)
    save_directions(
        directions_path(path),
        [
            Direction(name, torch.randn(NUM_WS, TINY.w_dim, generator=source), (0, NUM_WS - 1), kind, digest)
            for name, kind in (("smile", "attribute"), ("beard", "attribute"), ("pca1", "pca"))
        ],
    )
    save_tiny(folder / "other.safetensors", TINY_CLASSES, seed=1)
    return folder


def findings_in(folder: Path, tmp_path: Path, **settings) -> Findings:
    renderer = Renderer(folder, "cpu")
    return Findings(AppContext(renderer, renderer.folder, tmp_path / "runs", **settings))


@pytest.fixture
def findings(models, tmp_path) -> Findings:
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    return findings_in(folder, tmp_path)


def asked(model="alpha", sources=(), rows=(), parked=None, **request):
    session = {"request": {"model": model, **request}, "sources": list(sources), "rows": list(rows)}
    return {"session": {**session, **({"parked": parked} if parked else {})}}


def rendered(findings, answer) -> np.ndarray:
    return findings.renderer.render(Session.from_page(answer["session"]).request()).pixels


def names(answer) -> list[str]:
    return [each["name"] for each in answer["directions"]]


def strength_of(tile: dict) -> np.ndarray:
    return load_pixels(base64.b64decode(tile["src"].split(",")[1])).astype(int)


def test_a_strip_sets_the_row_that_is_there_to_each_strength(findings):
    bare = findings.strip({**asked(seed=2), "direction": "smile"})["tiles"]
    assert [tile["strength"] for tile in bare] == [-3, -2, -1, 0, 1, 2, 3]
    exact = findings.renderer.render(RenderRequest("alpha", seed=2, psi=0.7, edits=(Edit("smile", 3.0),))).pixels
    assert np.abs(strength_of(bare[-1]) - exact).max() <= 1
    used = asked(seed=2, edits=[{"direction": "smile", "strength": 2.0}])
    assert findings.strip({**used, "direction": "smile"})["tiles"] == bare
    locked = asked(seed=2, edits=[{"direction": "smile", "strength": 2.0, "locked": True}])
    assert findings.strip({**locked, "direction": "smile"})["tiles"] != bare
    some = asked(seed=2, edits=[{"direction": "smile", "strength": 2.0, "layers": [0, 1]}])
    tiles = findings.strip({**some, "direction": "smile"})["tiles"]
    assert tiles[3] == bare[3] and tiles[6] != bare[6]
    with pytest.raises(DirectionError, match="no direction"):
        findings.strip({**asked(), "direction": "nothing"})


def test_directions_are_ranked_by_what_they_change_and_where(findings):
    effects = findings.rank({**asked(seed=1), "names": ["smile", "pca1"]})["effects"]
    assert {effect["name"] for effect in effects} == {"smile", "pca1"}
    assert effects[0]["total"] >= effects[1]["total"] > 0
    inside = findings.rank({**asked(seed=1), "region": MASK, "channels": 3})["effects"]
    assert sum(effect["name"].startswith("s") and "." in effect["name"] for effect in inside) == 3
    assert all(0 <= effect["inside_share"] <= 1 for effect in inside)
    for wrong in ({"region": "x"}, {"region": 3}, {"names": "smile"}, {"channels": 10**6}, {"channels": "3"}):
        with pytest.raises(RequestError):
            findings.rank({**asked(), **wrong})


def test_accepting_bakes_what_is_on_into_the_latent_and_keeps_the_picture(findings):
    edits = [{"direction": "smile", "strength": 1.5}, {"direction": "beard", "enabled": False, "locked": True}]
    rows = [[0, 0.5]] * 3 + [[-1, 0.0]] * (NUM_WS - 3)
    before = asked(seed=3, edits=edits, sources=[{"name": "a", "seed": 8}], rows=rows)
    answer = findings.bake(before)
    assert np.array_equal(rendered(findings, answer), rendered(findings, before))
    request = answer["session"]["request"]
    assert request["edits"] == [{"direction": "beard", "enabled": False, "locked": True}] and request["ws"]
    assert answer["session"]["rows"] == [] and "2 rows are part" in answer["said"]
    with pytest.raises(RequestError, match="nothing was changed"):
        findings.bake(asked(edits=[{"direction": "beard", "enabled": False}]))


def test_what_lies_outside_w_stays_in_the_stack_and_is_named(findings):
    edits = [{"direction": "s2.1", "strength": 4.0}, {"direction": "smile", "region": MASK}, {"direction": "pca1"}]
    answer = findings.bake(asked(edits=edits))
    kept = answer["session"]["request"]["edits"]
    assert [edit["direction"] for edit in kept] == ["s2.1", "smile"] and kept[1]["region"] == MASK
    assert "1 row is part" in answer["said"] and "s2.1 and smile cannot be" in answer["said"]


def test_a_stack_is_pasted_and_locked_rows_survive(findings):
    stack = {
        "request": {"edits": [{"direction": "smile"}, {"direction": "gone"}], "noise": "random", "noise_seed": 4},
        "sources": [{"name": "b", "seed": 5}],
        "rows": [[0, 1.0]] * NUM_WS,
    }
    present = asked(
        seed=9,
        edits=[{"direction": "beard", "locked": True}, {"direction": "pca1"}],
        sources=[{"name": "mine", "seed": 1, "locked": True}, {"name": "loose", "seed": 2}],
        rows=[[0, 0.5], [1, 0.5]] + [[-1, 0.0]] * (NUM_WS - 2),
    )
    answer = findings.paste({**present, "stack": stack})
    session = Session.from_page(answer["session"])
    assert [edit.direction for edit in session.base.edits] == ["beard", "smile"] and session.locked == (0,)
    assert session.base.seed == 9 and session.base.noise_seed == 4
    assert [source.name for source in session.sources] == ["mine", "b"]
    assert session.rows == ((0, 0.5),) + ((1, 1.0),) * (NUM_WS - 1)
    assert "no place for the direction gone" in answer["said"] and answer["mood"] == "warn"
    for wrong in (None, [], {}, {"request": []}, {"request": {"edits": "x"}}, {"request": {"hack": 1}}):
        with pytest.raises(RequestError):
            findings.paste({**present, "stack": wrong})


def test_a_stack_goes_to_another_model_as_far_as_it_fits(findings):
    stack = {"request": {"edits": [{"direction": "smile"}, {"direction": "s1.0", "strength": 2.0}]}}
    answer = findings.paste({**asked("other"), "stack": stack})
    assert [edit["direction"] for edit in answer["session"]["request"]["edits"]] == ["s1.0"]
    assert "other has no place for the direction smile" in answer["said"]


def test_pictures_sorted_by_a_known_direction_give_that_direction_back(findings):
    generator, smile = (lambda model: (model.generator, model.directions["smile"]))(findings.renderer.model("alpha"))
    normal = torch.linalg.pinv(smile.vector[:1]).T[0]  # along the direction, whatever its length
    scores = {seed: float(findings.renderer.latents(RenderRequest("alpha", seed=seed)).ws[0, 0] @ normal)
              for seed in range(60)}  # fmt: skip
    order = sorted(scores, key=scores.__getitem__)
    answer = findings.making.make_sorted({**asked(), "yes": order[-10:], "no": order[:10], "name": "grin"})
    assert "grin" in names(answer) and answer["show"] == "grin" and "Mine" in answer["said"]
    entry = next(each for each in answer["directions"] if each["name"] == "grin")
    assert entry["source"] == "mine" and entry["zone"] in ("form", "texture", "colour")
    found = findings.renderer.model("alpha").directions["grin"].vector[0]
    moved = float(found @ normal)
    assert generator.num_ws == NUM_WS and moved > 0
    stored = load_directions(mine_path(findings.renderer.folder.find("alpha")))
    assert [direction.name for direction in stored] == ["grin"]
    for wrong in ({"yes": [1], "no": [2, 3]}, {"yes": [1, "2"], "no": [2, 3]}, {"yes": None, "no": [2, 3]}):
        with pytest.raises(StyleGANError):
            findings.making.make_sorted({**asked(), **wrong, "name": "more"})
    with pytest.raises(RequestError, match="already"):
        findings.making.make_sorted({**asked(), "yes": [1, 2], "no": [3, 4], "name": "smile"})
    with pytest.raises(StyleGANError):
        findings.making.make_sorted({**asked(), "yes": [1, 2], "no": [3, 4], "name": "../evil"})


def test_a_difference_leads_from_b_to_a_and_leaves_others_alone(findings):
    a, b = {"name": "a", "seed": 4}, {"name": "b", "seed": 7}
    answer = findings.making.make_difference({**asked(), "a": [a], "b": [b], "name": "from-b", "against": ["smile"]})
    assert "from-b" in names(answer)
    info = findings.renderer.model("alpha").directions["from-b"].info
    assert info["against"] == ["smile"]
    with pytest.raises(RequestError):
        findings.making.make_difference({**asked(), "a": [a], "b": [], "name": "x"})
    with pytest.raises(RequestError):
        findings.making.make_difference({**asked(), "a": [a], "b": [b], "name": "x", "against": ["nothing"]})


def test_an_analogy_adds_what_changes_from_a_to_b_to_c(findings):
    pictures = {key: [{"name": key, "seed": seed}] for key, seed in (("a", 1), ("b", 2), ("c", 3))}
    answer = findings.making.analogy({**asked(seed=3, edits=[{"direction": "smile"}]), **pictures})
    ws = np.frombuffer(decode_ws(answer["session"]["request"]["ws"]), "<f4").reshape(NUM_WS, -1)
    known = [findings.renderer.latents(RenderRequest("alpha", seed=seed, psi=0.7)).ws[0].numpy() for seed in (1, 2, 3)]
    assert np.allclose(ws, known[2] + known[1] - known[0], atol=1e-5)
    assert "edits" not in answer["session"]["request"]


def test_own_directions_are_starred_renamed_merged_and_deleted(findings):
    findings.making.make_difference(
        {**asked(), "a": [{"name": "a", "seed": 1}], "b": [{"name": "b", "seed": 2}], "name": "one"}
    )
    both = findings.merge({**asked(), "names": ["one", "smile", "s2.1"], "name": "two"})
    assert {"one", "two"} <= set(names(both))
    assert findings.renderer.model("alpha").directions["two"].channels
    starred = findings.star({**asked(), "name": "smile", "starred": True})["directions"]
    assert next(each for each in starred if each["name"] == "smile")["starred"] is True
    assert next(each for each in starred if each["name"] == "smile")["source"] == "shipped"
    again = findings.star({**asked(), "name": "smile", "starred": False})["directions"]
    assert next(each for each in again if each["name"] == "smile")["starred"] is False
    renamed = findings.rename({**asked(), "name": "one", "to": "uno"})
    assert "uno" in names(renamed) and "one" not in names(renamed)
    assert "uno" not in names(findings.delete({**asked(), "name": "uno"}))
    for ask, wrong in (
        (findings.rename, {"name": "smile", "to": "grin"}),  # not one's own
        (findings.rename, {"name": "two", "to": "beard"}),
        (findings.rename, {"name": "two", "to": "s1.2"}),
        (findings.rename, {"name": "two", "to": "a/b"}),
        (findings.delete, {"name": "pca1"}),
        (findings.merge, {"names": ["two"], "name": "x"}),
        (findings.star, {"name": "nothing", "starred": True}),
    ):
        with pytest.raises(StyleGANError):
            ask({**asked(), **wrong})


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_pack_leaves_and_returns(findings, models, tmp_path, kind):
    made = {**asked(), "a": [{"name": "a", "seed": 1}], "b": [{"name": "b", "seed": 2}], "name": "mine"}
    findings.making.make_difference(made)
    vector = findings.renderer.model("alpha").directions["mine"].vector
    answer = findings.save_pack({**asked(), "names": ["mine"], "format": kind})
    assert answer["download"]["name"] == f"alpha-mine.{kind}"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(models, elsewhere)
    other = findings_in(elsewhere, tmp_path)
    assert "mine" in names(other.open_pack({**asked(), "data": answer["download"]["data"]}))
    assert torch.equal(other.renderer.model("alpha").directions["mine"].vector, vector)
    with pytest.raises(RequestError, match="here already"):
        other.open_pack({**asked(), "data": answer["download"]["data"]})
    for question in (asked("other"), {**asked(), "data": base64.b64encode(b"junk").decode()}):
        with pytest.raises(StyleGANError):
            other.open_pack({"data": answer["download"]["data"], **question})


def test_where_nothing_is_kept_a_direction_is_handed_over_as_a_pack(models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    findings = findings_in(folder, tmp_path, allow_uploads=False)
    pair = {"a": [{"name": "a", "seed": 1}], "b": [{"name": "b", "seed": 2}], "name": "mine"}
    answer = findings.making.make_difference({**asked(), **pair})
    assert "keeps nothing" in answer["said"] and "directions" not in answer
    pack = tmp_path / answer["download"]["name"]
    pack.write_bytes(base64.b64decode(answer["download"]["data"]))
    assert [direction.name for direction in load_directions(pack)] == ["mine"]
    assert not list(folder.glob("*.mine*"))
    for ask in (findings.star, findings.rename, findings.delete, findings.open_pack):
        with pytest.raises(RequestError, match="keeps nothing"):
            ask({**asked(), "name": "smile", "to": "x", "data": answer["download"]["data"]})
    assert "keeps nothing" in findings.making.ways(asked())["told"]


def test_switched_off_mixes_and_parked_settings_do_not_act_and_come_back(findings):
    row = [[0, 1.0]] * NUM_WS
    on, off = ({"name": "b", "seed": 5, "enabled": enabled} for enabled in (True, False))
    plain = rendered(findings, asked(seed=1))
    assert np.array_equal(rendered(findings, asked(seed=1, sources=[off], rows=row)), plain)
    assert not np.array_equal(rendered(findings, asked(seed=1, sources=[on], rows=row)), plain)
    half = Session.from_page(asked(sources=[{**on, "weight": 0.25}], rows=[[0, 0.5]] * NUM_WS)["session"]).request()
    assert half.mix == (Mix(5, weight=0.125, layers=(0, NUM_WS - 1)),)
    parked = asked(seed=1, parked={"noise": "random", "noise_seed": 7})
    assert np.array_equal(rendered(findings, parked), plain)
    session = Session.from_page(parked["session"])
    assert Session.from_page(session.to_page()) == session
    assert session.to_page()["parked"] == {"noise": "random", "noise_seed": 7}
    for wrong in ({"seed": 3}, [], "x", {"noise": "loud"}):
        with pytest.raises(RequestError):
            Session.from_page({**asked()["session"], "parked": wrong or "x"})


def test_a_restored_latent_is_a_picture_to_take_apart(findings):
    latents = findings.renderer.latents(RenderRequest("alpha", seed=2)).ws[0].numpy().astype("<f4")
    source = {"name": "saved", "ws": encode_ws(latents.tobytes())}
    assert findings.making.face({**asked(), "source": source})["src"].startswith("data:image/")
    answer = findings.making.make_difference({**asked(), "a": [source], "b": [{"name": "b", "seed": 2}], "name": "psi"})
    assert "psi" in names(answer)
    for wrong in (None, [], {"name": "x"}, {"name": "x", "ws": "no"}, "x", {"name": "x", "seed": -1}):
        with pytest.raises(RequestError):
            findings.making.face({**asked(), "source": wrong})


def progressed(findings, state: str, question=None) -> dict:
    """Ask for the progress of a search until it has a certain state."""
    for _ in range(600):
        answer = findings.finding(question or asked("other"))
        if answer["progress"]["state"] == state:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"the search is {answer['progress']['state']}, not {state}")


def test_directions_are_looked_for_in_the_background_once(findings):
    assert findings.renderer.model("other").directions == {}
    assert findings.find({**asked("other"), "gently": True})["progress"]["state"] in ("running", "done")
    done = progressed(findings, "done")
    kinds = {each["kind"] for each in done["directions"]}
    assert {"sefa", "pca", "channel"} <= kinds and done["progress"]["found"] == len(done["directions"])
    assert findings.find({**asked("other"), "gently": True})["progress"]["state"] == "done"


def test_a_search_that_was_stopped_begins_again_only_when_asked(findings, monkeypatch):
    go = threading.Event()

    def slow(generator, *_):
        for number in range(20):
            go.wait(10)
            yield DiscoverStep(number / 20, "looking")

    monkeypatch.setattr("stylegan.directions.discover.discover", slow)
    findings.find({**asked("other"), "gently": True})
    findings.stop_finding(asked("other"))
    go.set()
    progressed(findings, "stopped")
    assert findings.find({**asked("other"), "gently": True})["progress"]["state"] == "stopped"
    assert findings.find(asked("other"))["progress"]["state"] in ("running", "done")
    progressed(findings, "done")


class Toy:
    """Stands for CLIP: pictures by their mean colour, texts by the colour that they name."""

    def __init__(self, path):
        self.path = path

    def images(self, image):
        return torch.nn.functional.normalize(image.mean((2, 3)) + 2, dim=1)

    def texts(self, texts):
        return torch.stack([torch.tensor([1.0, 0.2, 0.2] if "red" in text else [0.5, 0.5, 0.5]) for text in texts])


def test_a_direction_comes_from_words_where_there_is_a_clip_and_is_explained_where_not(models, tmp_path, monkeypatch):
    folder, asks = tmp_path / "models", {**asked(), "to": "a red face", "from": "a face", "name": "red"}
    shutil.copytree(models, folder)
    bare = findings_in(folder, tmp_path)
    assert "--clip" in bare.making.ways(asked())["words"]
    with pytest.raises(RequestError, match="--clip"):
        bare.making.make_text(asks)
    monkeypatch.setattr("stylegan.ui.making.OpenClip", Toy)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    findings = findings_in(folder, tmp_path, clip=tmp_path / "clip.pt")
    assert "open_clip_torch" in findings.making.ways(asked())["words"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    assert findings.making.ways(asked())["words"] == ""
    answer = findings.making.make_text(asks)
    assert "red" in names(answer)
    tiles = [load_pixels(base64.b64decode(each["src"].split(",")[1])).astype(float)
             for each in findings.strip({**asked(), "direction": "red"})["tiles"]]  # fmt: skip
    red = [float((each[..., 0] - each[..., 1:].mean(-1)).mean()) for each in tiles]
    assert red[-1] > red[3] > red[0]
    for wrong in ({"to": ""}, {"to": 3}, {"from": "x" * 300}, {"to": "a face"}):
        with pytest.raises(StyleGANError):
            findings.making.make_text({**asks, "name": "more", **wrong})
