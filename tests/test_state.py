"""A state leaves one machine as picture, link, code or file and comes back on another, bit for bit, on every family."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from conftest import TINY, save_tiny

from stylegan.checkpoint.file import model_hash, read_checkpoint
from stylegan.cli.main import main
from stylegan.directions.store import directions_path, mine_path, save_directions
from stylegan.errors import RequestError
from stylegan.latents import Direction
from stylegan.networks.config import GeneratorConfig
from stylegan.pixels import encode_jpeg, encode_png, load_pixels, read_request
from stylegan.portable import portable
from stylegan.render import Renderer
from stylegan.request import Edit, Mix, RenderRequest, Transform
from stylegan.shortcode import from_code, from_sidecar, to_code, to_link, to_sidecar
from stylegan.ui.answers import Answers
from stylegan.ui.endpoints import Endpoints
from stylegan.ui.keepsakes import HISTORY, MAX_STEPS, Keepsakes
from stylegan.ui.session import AppContext, Session

FAMILIES = {
    "sg1": GeneratorConfig(family="stylegan1", resolution=16, z_dim=16, w_dim=16, channel_base=128, channel_max=8),
    "sg2": TINY,
    "sg3": GeneratorConfig(family="stylegan3", resolution=16, z_dim=16, w_dim=16, channel_base=256, channel_max=8),
}


def direction(path, name: str, kind: str = "attribute", seed: int = 5) -> Direction:
    """A direction of the model in a file."""
    checkpoint = read_checkpoint(path)
    source, rows = torch.Generator().manual_seed(seed), checkpoint.config.num_ws
    vector = torch.randn(rows, checkpoint.config.w_dim, generator=source)
    return Direction(name, vector, (0, rows - 1), kind, model_hash(checkpoint))


@pytest.fixture(scope="module", params=FAMILIES)
def machines(request, tmp_path_factory):
    """(name, here, there): two folders with the same model; only here the user has a direction of their own."""
    name, folders = request.param, []
    for place in ("here", "there"):
        folder = tmp_path_factory.mktemp(f"{name}-{place}")
        path = save_tiny(folder / f"{name}.safetensors", FAMILIES[name])
        save_directions(directions_path(path), [direction(path, "smile")])
        if place == "here":
            save_directions(mine_path(path), [direction(path, "mine", "user", 6)])
        folders.append(Renderer(folder, "cpu"))
    return name, *folders


SMILE = (Edit("smile", 1.5, (0, 3)),)


def state(name: str, edits: tuple[Edit, ...] = SMILE) -> RenderRequest:
    """A state that uses everything the family has."""
    more = {"transform": Transform(0.1, rotate=15.0)} if name == "sg3" else {"noise": "random", "noise_seed": 4}
    mix = (Mix(85, weight=0.5, layers=(0, 2)),)
    return RenderRequest(name, seed=7, dx=0.25, dy=0.5, psi=0.8, cutoff=3, mix=mix, edits=edits, **more)


@pytest.mark.parametrize("way", ["png", "link", "code", "file"])
def test_a_state_is_restored_bit_for_bit(machines, way, tmp_path):
    name, here, there = machines
    result = here.render(state(name))
    request, needed = portable(here, result.request)
    assert (request, needed) == (result.request, ())
    if way == "png":
        back = read_request(encode_png(result.pixels, request))
    elif way == "link":
        back = from_code(to_link("http://somewhere/studio", request))
    elif way == "code":
        back = from_code(to_code(request))
    else:
        back = from_sidecar(to_sidecar(request))[0]
    assert back == result.request
    again = there.render(back)
    assert again.request == result.request and np.array_equal(again.pixels, result.pixels)
    session = Session.of(back, there.model(name).generator.num_ws)
    page = Session.from_page(json.loads(json.dumps(session.to_page()))).request()
    assert np.array_equal(there.render(page).pixels, result.pixels)


def test_what_only_this_machine_has_is_baked_in(machines):
    name, here, there = machines
    edits = (Edit("smile", 1.0), Edit("mine", 2.0, (1, 4)), Edit("mine", 3.0, enabled=False), Edit("smile", -0.3))
    result = here.render(state(name, edits))
    request, needed = portable(here, result.request)
    assert needed == () and request.ws and [edit.direction for edit in request.edits] == ["mine"] and not request.mix
    assert np.array_equal(here.render(request).pixels, result.pixels)
    assert np.array_equal(there.render(from_code(to_code(request))).pixels, result.pixels)
    with pytest.raises(Exception, match="no direction 'mine'"):
        there.render(result.request)


def test_a_picture_keeps_the_rows_for_its_own_machine(machines, tmp_path):
    name, here, there = machines
    session = Session.of(RenderRequest(name, seed=3, psi=0.7, edits=(Edit("mine", 2.0), Edit("smile", -1.0))), 9)
    pages = [Keepsakes(Answers(AppContext(each, each.folder, tmp_path))) for each in (here, there)]
    saved = pages[0].save({"session": session.to_page()})
    assert "baked" in saved["about"]
    back = [page.restore({"data": saved["data"]}) for page in pages]
    assert [each["mood"] for each in back] == ["good", "good"]
    assert [edit["direction"] for edit in back[0]["session"]["request"]["edits"]] == ["mine", "smile"]
    assert "edits" not in back[1]["session"]["request"] and back[1]["session"]["request"]["ws"]
    pictures = [each.render(Session.from_page(found["session"]).request()).pixels
                for each, found in zip((here, there), back, strict=True)]
    assert np.array_equal(*pictures)


def test_damaged_rows_in_a_picture_do_not_matter(keepsakes):
    result = keepsakes.renderer.render(RenderRequest("tiny", seed=3))
    wrong = {"to_json": lambda self: '{"format":1,"evil":1}'}
    data = encode_png(result.pixels, result.request, stack=type("Stack", (), wrong)())
    back = keepsakes.restore({"data": base64.b64encode(data).decode()})
    assert back["mood"] == "good" and back["session"]["request"]["seed"] == 3


def test_channels_stay_rows_beside_what_is_baked(machines):
    name, here, there = machines
    result = here.render(state(name, (Edit("s1.2", 2.0), Edit("mine", 2.0))))
    request, needed = portable(here, result.request)
    assert needed == () and [edit.direction for edit in request.edits] == ["s1.2"]
    assert np.array_equal(there.render(request).pixels, result.pixels)
    masked = Edit("mine", 2.0, region=base64.b64encode(bytes(512) + b"\xff" * 512).decode())
    asked = here.render(state(name, (masked,))).request
    assert portable(here, asked) == (asked, ("mine",))


@pytest.fixture
def keepsakes(tiny_folder, tmp_path) -> Keepsakes:
    renderer = Renderer(tiny_folder, "cpu")
    return Keepsakes(Answers(AppContext(renderer, renderer.folder, tmp_path)))


def test_the_page_opens_every_form_and_says_what_is_missing_or_differs(keepsakes):
    asked = {"session": {"request": {"model": "tiny", "seed": 9, "noise": "none"}, "sources": [], "rows": []}}
    shared = keepsakes.code({**asked, "address": "http://127.0.0.1:7861"})
    png = keepsakes.save(asked)
    forms = [{"code": shared["code"]}, {"code": f"http://x/#s={shared['code']}"}, {"code": shared["json"]},
             {"code": shared["sidecar"]}, {"data": png["data"]},
             {"data": base64.b64encode(shared["sidecar"].encode()).decode()}]  # fmt: skip
    for form in forms:
        back = keepsakes.restore(form)
        assert back["session"]["request"] == asked["session"]["request"] and back["mood"] == "good", form
    assert "exactly the same pixels" in keepsakes.restore({"data": png["data"]})["said"]
    other = to_code(from_code(shared["code"]).replace(model_hash="ab" * 32))
    back = keepsakes.restore({"code": other})
    assert back["mood"] == "warn" and "another model named 'tiny'" in back["said"]
    with pytest.raises(RequestError, match=r"another model, 'gone' \(hash cdcdcdcdcdcd\), so nothing was changed"):
        keepsakes.restore({"code": to_code(RenderRequest("gone", "cd" * 32))})
    for form in ({}, {"code": ""}, {"code": 3}, {"code": "sg1.x"}, {"data": "QUJD"}, {"data": "e30="}, None):
        with pytest.raises(RequestError):
            keepsakes.restore(form)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "http://a b", "http://a/'$(rm)", "http://a/`id`", 3,
                                     "http://a/$HOME"])
def test_no_address_can_smuggle_a_command_into_curl(keepsakes, address):
    with pytest.raises(RequestError):
        keepsakes.code({"session": {"request": {"model": "tiny"}}, "address": address})


def history(**changes) -> dict:
    """A small history file."""
    thumb = base64.b64encode(encode_jpeg(np.zeros([8, 8, 3], np.uint8))).decode()
    step = {"id": 1, "parent": None, "session": {"request": {"model": "tiny"}, "sources": [], "rows": []},
            "label": "start", "at": 5, "star": False, "thumb": f"data:image/jpeg;base64,{thumb}"}  # fmt: skip
    last = {**step, "id": 2, "parent": 1, "label": "seed 3", "thumb": ""}
    last["session"] = {**step["session"], "request": {"model": "tiny", "seed": 3}}
    return {"format": HISTORY, "head": 2, "nodes": [step, {**last, **changes}]}


def test_a_history_file_comes_back_as_it_was(keepsakes):
    checked = keepsakes.check_history(history())
    assert checked["head"] == 2 and checked["nodes"] == history()["nodes"]


BIG = base64.b64encode(encode_jpeg(np.zeros([300, 300, 3], np.uint8))).decode()


@pytest.mark.parametrize("bad", [
    None, [], {}, {"format": "x"}, {**history(), "nodes": []}, {**history(), "nodes": history()["nodes"] * MAX_STEPS},
    {**history(), "head": 9}, {**history(), "more": 1}, {**history(), "nodes": [None]}, history(id=1),
    history(parent=2), history(parent=7), history(id=True), history(id=-1), history(at=1e300), history(star=1),
    history(label="a\nb"),
    history(label="x" * 500), history(label=None), history(thumb="javascript:alert(1)"), history(thumb=3),
    history(thumb="data:image/svg+xml;base64,PHN2Zz4="), history(thumb="data:image/png;base64,QUJD"),
    history(thumb=f"data:image/jpeg;base64,{BIG}"), history(thumb="x" * 100_000), history(session=None),
    history(session={"request": {"model": "tiny", "seed": -1}}), history(session={"request": {"evil": 1}}),
    history(session={"request": {"model": "tiny"}, "sources": [{"name": "a", "ws": "!"}]}), history(extra=1),
])  # fmt: skip
def test_a_hostile_history_is_one_sentence(keepsakes, bad):
    with pytest.raises(RequestError) as raised:
        keepsakes.check_history(bad)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)


def test_info_and_generate_read_every_form(machines, tmp_path, monkeypatch, capsys):
    name, here, _ = machines
    monkeypatch.chdir(tmp_path)
    shared = ["--checkpoints", str(here.folder.path)]
    request = state(name, (Edit("mine", 1.0),))
    assert main(["generate", *shared, "--request", to_code(request), "--out", "a.png", "--sidecar", "--portable"]) == 0
    wanted = here.render(request).pixels
    assert np.array_equal(load_pixels("a.png"), wanted) and read_request("a.png").ws
    assert from_sidecar((tmp_path / "a.json").read_text())[0] == read_request("a.png")
    capsys.readouterr()
    codes = set()
    for source in ("a.png", "a.json", to_code(read_request("a.png")), to_link("http://x", read_request("a.png"))):
        assert main(["info", source, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        codes.add(told["code"])
        assert main(["generate", *shared, "--request", source, "--out", "b.png"]) == 0
        assert np.array_equal(load_pixels("b.png"), wanted)
        capsys.readouterr()
    assert len(codes) == 1
    assert main(["info", "a.png"]) == 0 and next(iter(codes)) in capsys.readouterr().out
    assert main(["generate", *shared, "--request", "a.png", "--edit", "smile=2", "--out", "c.png"]) == 0
    assert read_request("c.png").edits[-1] == Edit("smile", 2.0)
    assert main(["info", name, *shared]) == 0 and "smile, mine" in capsys.readouterr().out
    assert main(["info", name, *shared, "--json"]) == 0
    listed = Endpoints(AppContext(here, here.folder, tmp_path)).directions(name)
    assert json.loads(capsys.readouterr().out)["directions"] == listed and len(listed) == 2
