"""The session of a page: what the browser sends, what it means as a request, and what fits another model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stylegan.errors import RequestError
from stylegan.request import Edit, Mix, RenderRequest, Transform, encode_region, encode_ws
from stylegan.ui.session import START, ModelFacts, Session, Source, layer_groups

WS = encode_ws(np.arange(6 * 4, dtype="<f4").tobytes())


def facts(**changes) -> ModelFacts:
    known = {
        "name": "model",
        "hash": "ab",
        "summary": "",
        "shape": "1 / 1",
        "num_ws": 6,
        "w_dim": 4,
        "num_classes": 0,
        "class_names": (),
        "has_noise": True,
        "has_transform": False,
        "layers": tuple({"names": f"L{index}", "resolution": 4} for index in range(6)),
        "groups": {"coarse": (0, 3), "middle": (4, 5), "fine": (6, 5)},
        "directions": ({"name": "smile", "kind": "attribute", "layers": (0, 5)},),
    }
    return ModelFacts(**{**known, **changes})


def page(request=None, sources=(), rows=()):
    return {"request": {"model": "model", **(request or {})}, "sources": list(sources), "rows": list(rows)}


def test_a_page_without_changes_asks_for_the_starting_request():
    session = Session.from_page(page())
    assert session.request() == RenderRequest(model="model", **START)
    assert session.to_page() == page()


def test_page_form_and_session_are_each_others_inverse():
    session = Session(
        RenderRequest(model="model", psi=1.0, seed=7, edits=(Edit("smile", -0.5, (1, 3), False),)),
        (Source("seed 3", 3), Source("a picture", ws=WS)),
        ((0, 0.5),) * 4 + ((1, 1.0), (-1, 0.0)),
    )
    assert Session.from_page(json.loads(json.dumps(session.to_page()))) == session


def test_what_the_stack_adds_survives_the_page_and_another_model():
    edits = (Edit("gone"), Edit("smile", region=encode_region(bytes(1023) + b"\xff")), Edit("s1.3"), Edit("s9.0"))
    session = Session(
        RenderRequest(model="model", psi=0.7, edits=edits),
        (Source("seed 3", 3, enabled=False, weight=0.5, locked=True),),
        ((0, 1.0),) * 6,
        locked=(1, 2),
        parked=RenderRequest(model="model", noise="random", noise_seed=3, transform=Transform(rotate=5.0)),
    )
    assert Session.from_page(json.loads(json.dumps(session.to_page()))) == session
    assert session.request().mix == (Mix(3, weight=0.5, layers=(0, 5), enabled=False),)
    fitted, dropped = session.fit(facts(channels=(4, 4)))
    assert fitted.base.edits == edits[1:3] and fitted.locked == (0, 1)
    assert dropped == ["the direction gone", "the direction s9.0"]
    assert fitted.parked == RenderRequest(model="model", noise="random", noise_seed=3)
    assert Session.of(session.request(), 6).sources == (Source("seed 3", 3, enabled=False),)


def test_neighbouring_rows_of_one_source_and_weight_become_one_mix():
    rows = [[0, 1.0], [0, 1.0], [-1, 0.0], [1, 0.25], [1, 0.25], [0, 0.25]]
    session = Session.from_page(page(sources=[{"name": "a", "seed": 3}, {"name": "b", "ws": WS}], rows=rows))
    assert session.request().mix == (
        Mix(3, layers=(0, 1)),
        Mix(ws=WS, weight=0.25, layers=(3, 4)),
        Mix(3, weight=0.25, layers=(5, 5)),
    )


def test_a_request_returns_from_its_session_unchanged():
    request = RenderRequest(
        model="model",
        seed=9,
        dx=0.25,
        psi=1.0,
        mix=(Mix(3, layers=(0, 1)), Mix(ws=WS, weight=0.5, layers=(4, 5))),
        edits=(Edit("smile", 2.0),),
    )
    session = Session.of(request, 6)
    assert session is not None and session.request() == request
    assert Session.of(request.replace(mix=(Mix(3), Mix(4, weight=0.5, layers=(2, 2)))), 6) is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"request": []},
        page({"seed": "text"}),
        page({"seed": -1}),
        page({"psi": 9}),
        page({"psi": None}),
        page({"unknown": 1}),
        page({"mix": []}),
        page({"edits": [{"direction": "a:b"}]}),
        page({"model": ""}),
        page({"dx": 1.0}),
        page(rows=[[0, 1.0]]),
        page(sources=[{"name": "a", "seed": 1}], rows=[[0, 1.5]]),
        page(sources=[{"name": "a"}]),
        page(sources=[{"name": "a", "seed": 1}], rows=[[True, 1.0]]),
        page(sources=[{"name": 3, "seed": 1}]),
        page(sources=[{"name": "a", "seed": 1, "more": 1}]),
        page(sources=[{"name": "a", "ws": "***"}]),
        page(sources=[{"name": "a", "seed": 1, "weight": 2}]),
        page(sources=[{"name": "a", "seed": 1, "enabled": "no"}]),
        page({"edits": "all"}),
        page({"edits": [{"direction": "smile"}] * 257}),
        page({"edits": [{"direction": "smile", "region": "AAAA"}]}),
        {**page(), "parked": {"seed": 1}},
        page(sources=[{"name": "a", "seed": 1}] * 65),
        {**page(), "rows": "many"},
        page({"psi": float("nan")}),
    ],
)
def test_nothing_unsound_from_a_browser_gets_through(data):
    with pytest.raises(RequestError) as caught:
        Session.from_page(data)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_another_model_keeps_what_applies_and_names_what_it_drops():
    session = Session(
        RenderRequest(
            model="old",
            seed=4,
            psi=0.5,
            label=2,
            cutoff=9,
            noise="random",
            edits=(Edit("smile", 1.5, (0, 9)), Edit("beard")),
            transform=Transform(rotate=15.0),
        ),
        (Source("seed 3", 3, label=1), Source("old picture", ws=encode_ws(bytes(8)))),
        ((0, 1.0), (1, 1.0)) + ((-1, 0.0),) * 6 + ((0, 0.5),),
    )
    fitted, dropped = session.fit(facts(has_noise=False))
    assert fitted.base == RenderRequest(model="model", seed=4, psi=0.5, edits=(Edit("smile", 1.5, (0, 5)),))
    assert fitted.sources == (Source("seed 3", 3),)
    assert fitted.rows == ((0, 1.0),) + ((-1, 0.0),) * 5
    assert dropped == [
        "the class",
        "the cutoff",
        "the noise",
        "the shift",
        "the direction beard",
        "the source old picture",
        "the mix above layer 5",
    ]


def test_everything_fits_its_own_model():
    session = Session(
        RenderRequest(model="model", ws=WS, cutoff=6, noise="none", edits=(Edit("smile"),)),
        (Source("p", ws=WS),),
        ((0, 0.5),) * 6,
    )
    assert session.fit(facts()) == (session, [])


def test_groups_follow_the_resolution_of_the_layers():
    sizes = [4, 8, 8, 16, 16, 32, 32, 64, 64, 64]
    assert layer_groups(sizes, "stylegan2") == {"coarse": (0, 2), "middle": (3, 6), "fine": (7, 9)}
    assert layer_groups([4, 8, 8], "stylegan2") == {"coarse": (0, 2), "middle": (3, 2), "fine": (3, 2)}
    assert layer_groups([36] * 16, "stylegan3") == {"coarse": (0, 4), "middle": (5, 9), "fine": (10, 15)}
