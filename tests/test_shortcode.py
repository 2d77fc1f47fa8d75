"""Codes, links and sidecars: the same request back, and one sentence for everything that is no code."""

from __future__ import annotations

import base64
import json
import random
import zlib

import pytest

from stylegan.errors import RequestError
from stylegan.request import MAX_JSON, Edit, Mix, RenderRequest, Transform, encode_ws
from stylegan.shortcode import (
    from_code,
    from_sidecar,
    is_code,
    read_request_text,
    to_code,
    to_link,
    to_sidecar,
)

WS = encode_ws(random.Random(3).randbytes(18 * 512 * 4))
REQUESTS = [
    RenderRequest(),
    RenderRequest("ma chérie ⚘", "ab12", 2**32 - 1, 0.1, 0.3, psi=-0.7, cutoff=3, noise="random", noise_seed=9),
    RenderRequest(mix=(Mix(85, weight=0.25, layers=(0, 3)), Mix(ws=WS)), edits=(Edit("smile", 1.1, (1, 2)),
                  Edit("age", enabled=False)), transform=Transform(0.1, rotate=15)),
    RenderRequest(ws=WS),
]  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_code_a_link_and_a_sidecar_give_the_request_back(request_):
    code = to_code(request_)
    assert from_code(code) == request_ and from_code(f"  {code}\n") == request_
    link = to_link("http://127.0.0.1:7860/?__theme=dark#s=old", request_)
    assert link.startswith("http://127.0.0.1:7860/?__theme=dark#s=sg1.") and from_code(link) == request_
    again, about = from_sidecar(to_sidecar(request_, note="very \"nice\"", tags=["a"]))
    assert again == request_ and about == {"note": 'very "nice"', "tags": ["a"]}
    for text in (code, link, request_.to_json(), to_sidecar(request_)):
        assert read_request_text(text) == request_
    assert to_code(RenderRequest.from_json(request_.to_json())) == code


def test_a_code_is_short_and_plain():
    code = to_code(RenderRequest(model_hash="0" * 64, seed=7, edits=(Edit("smile", 1.5),)))
    assert len(code) < 200 and code.isascii() and not set(code) & set("+/=#?&% \"'")


def test_a_changed_character_never_gives_another_request():
    code, noticed = to_code(REQUESTS[1]), 0
    for index in range(len(code)):
        for other in "Ab9_":
            try:
                assert from_code(code[:index] + other + code[index + 1 :]) == REQUESTS[1]
            except RequestError:
                noticed += 1
        with pytest.raises(RequestError):
            from_code(code[:index])
    assert noticed > 3.5 * len(code)  # deflate has a few bits that say nothing


def packed(data: bytes, version: str = "sg1") -> str:
    """Anything at all, dressed as a sound code."""
    from stylegan.shortcode import _check, _text

    return f"{version}.{_text(zlib.compress(data, 9))}.{_check(data)}"


@pytest.mark.parametrize("text", [
    "", "sg1", "sg1..", "sg1.AAAA.AAAAAAAA", "http://x/#s=", "not a code",
    packed(b"{}"), packed(b"[]"), packed("{\"format\":1,\"seed\":\"é\"}".encode()), packed(b"\xff\xfe"),
    packed(b'{"format":1,"seed":-1}'), packed(b'{"format":1,"evil":1}'), packed(b'{"format":1}', "sg2"),
    packed(b"[" * 100_000), packed(b" " * (MAX_JSON + 1)),
])  # fmt: skip
def test_what_is_no_code_is_one_sentence(text):
    with pytest.raises(RequestError) as raised:
        from_code(text)
    assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)


def test_the_checksum_belongs_to_the_content():
    one, two = to_code(RenderRequest(seed=1)).split("."), to_code(RenderRequest(seed=2)).split(".")
    with pytest.raises(RequestError, match="changed or mixed up"):
        from_code(".".join([one[0], one[1], two[2]]))


def test_an_endless_code_is_not_even_looked_at():
    with pytest.raises(RequestError, match="too long"):
        from_code("sg1." + "A" * (25 << 20) + ".AAAAAAAA")


def test_a_bomb_is_not_unpacked():
    import tracemalloc

    reader = zlib.compressobj(9)
    bomb = b"".join(reader.compress(bytes(1 << 20)) for _ in range(2000)) + reader.flush()
    code = f"sg1.{base64.urlsafe_b64encode(bomb).rstrip(b'=').decode()}.AAAAAAAA"
    tracemalloc.start()
    with pytest.raises(RequestError, match="more than any request"):
        from_code(code)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_JSON


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"request":{}}', '{"request":{"format":1,"x":1}}',
                                  "[" * 100_000, json.dumps({"request": [], "format": 2})])
def test_what_is_no_sidecar_is_one_sentence(text):
    with pytest.raises(RequestError):
        from_sidecar(text)


def test_codes_are_told_from_json_and_files():
    assert is_code("sg1.x") and is_code("http://a/#s=sg9.x") and not is_code('{"format":1}') and not is_code("a.png")
