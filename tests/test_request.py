"""Requests: they check themselves, and their text forms lead back to them."""

from __future__ import annotations

import base64
import json
import random
import shlex
import struct
from dataclasses import FrozenInstanceError, fields

import pytest

import stylegan
from stylegan.cli.main import make_parser
from stylegan.errors import RequestError
from stylegan.options import options_of
from stylegan.request import (
    Edit,
    Mix,
    RenderRequest,
    Transform,
    channel_of,
    decode_region,
    decode_ws,
    encode_region,
    encode_ws,
)  # fmt: skip

WS = encode_ws(struct.pack("<4f", 0.5, -1.0, 2.0, 3.25))
REGION = encode_region(bytes(range(256)) * 4)


def random_request(dice: random.Random, with_ws: bool) -> RenderRequest:
    """A request in which every setting may differ from its default."""
    def layers():
        return dice.choice([None, (0, 3), (2, 2), (4, 17)])

    def mix():
        if with_ws and dice.random() < 0.5:
            return Mix(ws=WS, weight=dice.random(), layers=layers(), enabled=dice.random() < 0.7)
        return Mix(seed=dice.randrange(2**32), label=dice.choice([None, 2]), weight=dice.random(), layers=layers(),
                   enabled=dice.random() < 0.7)

    def edit():
        strength = dice.choice([dice.uniform(-20, 20), 1e-7, -3.0])
        return Edit(dice.choice(["smile", "pca 01", "-odd", "größe", "s7.42"]), strength, layers(), dice.random() < 0.7,
                    REGION if with_ws and dice.random() < 0.3 else None)

    return RenderRequest(
        model=dice.choice(["cartoon-faces-64", "a b", "dir/it's.safetensors"]), seed=dice.randrange(2**32),
        dx=dice.choice([0.0, dice.random()]), dy=dice.choice([0.0, dice.random()]), label=dice.choice([None, 0, 7]),
        ws=WS if with_ws and dice.random() < 0.5 else None, psi=dice.uniform(-1, 2), cutoff=dice.choice([None, 4]),
        noise=dice.choice(["const", "none", "random"]), noise_seed=dice.choice([0, 5]),
        noise_strength=dice.uniform(0, 4),
        mix=tuple(mix() for _ in range(dice.randrange(3))), edits=tuple(edit() for _ in range(dice.randrange(3))),
        transform=dice.choice([None, Transform(-0.1, 0.2, -30.5, 1.5)]),
    )  # fmt: skip


@pytest.mark.parametrize("number", range(40))
def test_json_leads_back(number):
    request = random_request(random.Random(number), with_ws=True)
    text = request.to_json()
    assert text.isascii() and "\n" not in text
    assert RenderRequest.from_json(text) == request


@pytest.mark.parametrize("number", range(40))
def test_the_shell_command_asks_for_the_same(number):
    request = random_request(random.Random(number), with_ws=number % 2 == 0)
    words = shlex.split(request.to_shell())
    assert words[:4] == ["python", "-m", "stylegan", "generate"]
    from stylegan.cli.generate import _requests

    (asked,) = _requests(make_parser().parse_args(words[3:]))
    assert asked == request


@pytest.mark.parametrize("number", range(20))
def test_the_python_snippet_asks_for_the_same(number, monkeypatch):
    request = random_request(random.Random(number), with_ws=number % 2 == 0)
    asked = []

    class Renderer:
        def render(self, request):
            asked.append(request)
            return type("Result", (), {"pixels": None, "request": request})

    monkeypatch.setattr(stylegan, "Renderer", Renderer, raising=False)
    monkeypatch.setattr(stylegan, "save_png", lambda *arguments: None, raising=False)
    exec(compile(request.to_python(), "snippet", "exec"), {})
    assert asked == [request]


def test_json_holds_only_what_differs():
    assert json.loads(RenderRequest(model="m", seed=3).to_json()) == {"format": 1, "model": "m", "seed": 3}
    assert json.loads(RenderRequest(mix=(Mix(seed=0),)).to_json())["mix"] == [{"seed": 0}]


def test_requests_are_frozen_and_replaced():
    request = RenderRequest()
    with pytest.raises(FrozenInstanceError):
        request.seed = 3
    assert request.replace(seed=3) == RenderRequest(seed=3)
    with pytest.raises(RequestError):
        request.replace(psi=9)


def test_every_setting_is_an_option_with_help():
    assert list(options_of(RenderRequest)) == [item.name for item in fields(RenderRequest)]
    assert all(about.help for about in options_of(RenderRequest).values())


@pytest.mark.parametrize("text", ["smile=1.5@0-7", "smile=-1.5", "smile=2.0@3-3", "glasses=0.1:off", "a b=1.0@0-1:off",
                                  "s7.42=-3.0", "s0.0=1.0@0-3:off"])
def test_edit_text(text):
    assert str(Edit.parse(text)) == text


def test_short_edit_and_mix_texts():
    assert Edit.parse("smile") == Edit("smile")
    assert Edit.parse("smile@4") == Edit("smile", layers=(4, 4))
    assert Mix.parse("85@0-3") == Mix(seed=85, layers=(0, 3))
    assert Mix.parse("85:2=0.5") == Mix(seed=85, label=2, weight=0.5)
    assert str(Mix(ws=WS, weight=0.5, layers=(0, 3))) == "picture=0.5@0-3"
    assert Mix.parse("85:2=0.5@0-3:off") == Mix(seed=85, label=2, weight=0.5, layers=(0, 3), enabled=False)
    assert Mix.parse("85:off") == Mix(seed=85, enabled=False) and str(Mix.parse("85:off")) == "85=1.0:off"


def test_the_names_of_channels():
    assert channel_of("s7.42") == (7, 42) and channel_of("s0.0") == (0, 0)
    for name in ("smile", "s7", "s7.", "s.4", "S7.42", "s7.42x", "xs7.42", "s-1.2", "s7.4.2", "s12345.1", "s٧.1"):
        assert channel_of(name) is None


@pytest.mark.parametrize("text", ["", "=1", "smile=", "smile=x", "smile=1@", "smile=1@a-b", "smile=1@5-3", "a=b=1",
                                  "smile=nan", "smile=99", "smile:on", "smile=1@0-9999"])
def test_bad_edit_text(text):
    with pytest.raises(RequestError):
        Edit.parse(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "5=2", "5=-0.1", "5@3-1", "5:=1", "5:x", "99999999999",
                                  "picture=1", "5:on", ":off", "5=1:off:off"])
def test_bad_mix_text(text):
    with pytest.raises(RequestError):
        Mix.parse(text)


def test_transform_text():
    assert Transform.parse("x=0.1,rotate=-15") == Transform(0.1, 0.0, -15.0)
    assert Transform.parse(str(Transform(0.1, -0.2, 3.0, 0.5))) == Transform(0.1, -0.2, 3.0, 0.5)
    for text in ("", "z=1", "x", "x=a", "scale=0"):
        with pytest.raises(RequestError):
            Transform.parse(text)


@pytest.mark.parametrize("values", [
    {"seed": -1}, {"seed": 2**32}, {"seed": 1.5}, {"seed": "3"}, {"seed": True}, {"dx": 1.0}, {"dy": -0.1},
    {"psi": 2.1}, {"psi": float("inf")}, {"cutoff": -1}, {"noise": "loud"}, {"noise_strength": 5},
    {"model": ""}, {"model": "a\0b"},
    {"model_hash": "XYZ"}, {"ws": "%%"}, {"ws": "AAA="}, {"mix": 3}, {"mix": ("85",)}, {"edits": (Mix(seed=1),)},
    {"transform": 1}, {"label": -1},
])  # fmt: skip
def test_bad_settings_are_refused(values):
    with pytest.raises(RequestError):
        RenderRequest(**values)


@pytest.mark.parametrize("values", [
    {}, {"seed": 1, "ws": WS}, {"seed": 1, "weight": 2.0}, {"seed": 1, "layers": (3, 1)},
    {"seed": 1, "layers": (0, 1.0)}, {"seed": 1, "layers": (True, True)},
])  # fmt: skip
def test_bad_mixes_are_refused(values):
    with pytest.raises(RequestError):
        Mix(**values)


@pytest.mark.parametrize("text", [
    "", "[]", "null", "3", "{", '{"model":"m"}', '{"format":2,"model":"m"}', '{"format":1,"colour":1}',
    '{"format":1,"mix":[{"seed":1,"extra":2}]}', '{"format":1,"mix":[3]}', '{"format":1,"mix":{"seed":1}}',
    '{"format":1,"edits":[{"strength":1}]}', '{"format":1,"psi":NaN}', '{"format":1,"seed":"0"}',
    '{"format":1,"transform":[1]}', '{"format":1,"edits":[{"direction":3}]}', "[" * 100_000,
])  # fmt: skip
def test_bad_json_is_refused(text):
    with pytest.raises(RequestError):
        RenderRequest.from_json(text)


def test_ws_text():
    assert struct.unpack("<4f", decode_ws(WS)) == (0.5, -1.0, 2.0, 3.25)
    for data in (b"", b"abc"):
        with pytest.raises(RequestError):
            encode_ws(data)
    for text in ("", "AA", "A" * 4, "äöü=", base64.b64encode(b"abc").decode(), "A" * (8 << 20)):
        with pytest.raises(RequestError):
            decode_ws(text)


def test_region_text():
    assert decode_region(REGION) == bytes(range(256)) * 4
    assert Edit("smile", region=REGION).region == REGION
    with pytest.raises(RequestError, match="1024 bytes"):
        encode_region(bytes(1023))
    for region in ("", "AAAA", "%" * 1368, "ä" * 1368, REGION[:-4], REGION + "AAAA", "A" * 10_000_000, 3, b"x"):
        with pytest.raises(RequestError):
            Edit("smile", region=region)


def test_a_region_travels_as_json():
    request = RenderRequest(edits=(Edit("smile", region=REGION),))
    assert "--request" in request.to_shell() and "from_json" in request.to_python()
    with pytest.raises(RequestError, match="unknown setting"):
        RenderRequest.from_json('{"format":1,"edits":[{"direction":"a","mask":"AAAA"}]}')
