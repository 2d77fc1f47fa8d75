"""A request as a short code, as a link and as a sidecar file: the same state as a saved PNG, in text that travels.

A code is `sg1.BODY.CHECK`: the version, base64url of the deflated canonical JSON (keys sorted, no spaces), and
base64url of the first six bytes of the SHA-256 of that JSON. A link is an address with `#s=CODE` behind it, which
browsers keep to themselves; a sidecar is a JSON object that holds the request's object under "request".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from typing import Any

from stylegan.errors import RequestError
from stylegan.request import MAX_JSON, RenderRequest, parse_json

VERSION = "sg1"
MARK = "#s="
CODE = re.compile(r"sg(\d{1,3})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{8})")
NUM_CHECK = 6
MAX_CODE = 24 << 20  # characters; every request that can be saved as JSON fits


def to_code(request: RenderRequest) -> str:
    """The short code of a request; equal requests have equal codes."""
    data = _canonical(request)
    return f"{VERSION}.{_text(zlib.compress(data, 9))}.{_check(data)}"


def from_code(text: str) -> RenderRequest:
    """The request in a code, or in a link that ends in one; RequestError when it was cut short or changed."""
    code = text.strip().rpartition(MARK)[2]
    if len(code) > MAX_CODE:
        raise RequestError("The code is too long to be one.")
    match = CODE.fullmatch(code)
    if not match:
        raise RequestError("That is no code of StyleGAN Studio; a whole one looks like sg1.XXXX.XXXXXXXX.")
    if f"sg{match[1]}" != VERSION:
        raise RequestError(f"The code is of version {match[1]}, which this app does not know; update the app.")
    data = _inflate(_bytes(match[2]))
    if _check(data) != match[3]:
        raise RequestError("The code was changed or mixed up on its way; copy it whole once more.")
    return _parsed(data)


def to_link(address: str, request: RenderRequest) -> str:
    """An address that opens a request in the app that runs at `address`."""
    return f"{address.split('#')[0]}{MARK}{to_code(request)}"


def is_code(text: str) -> bool:
    """True when a text is a code or a link with one, sound or not."""
    return bool(re.match(r"sg\d{1,3}\.", text.strip().rpartition(MARK)[2]))


def to_sidecar(request: RenderRequest, **about: Any) -> str:
    """The JSON file that lies beside a picture: its request, and JSON-able words about it."""
    return json.dumps({"request": json.loads(request.to_json()), **about}, indent=1, sort_keys=True) + "\n"


def from_sidecar(text: str) -> tuple[RenderRequest, dict[str, Any]]:
    """The request and the words of a sidecar; a request's bare JSON is taken too, without words."""
    values = parse_json(text)
    if isinstance(values, dict) and isinstance(values.get("request"), dict):
        about = {key: value for key, value in values.items() if key != "request"}
        return RenderRequest.from_json(json.dumps(values["request"])), about
    return RenderRequest.from_json(text), {}


def read_request_text(text: str) -> RenderRequest:
    """The request in a code, a link, or JSON."""
    return from_code(text) if is_code(text) else from_sidecar(text)[0]


def _canonical(request: RenderRequest) -> bytes:
    """The request as JSON with sorted keys."""
    return json.dumps(json.loads(request.to_json()), sort_keys=True, separators=(",", ":")).encode("ascii")


def _check(data: bytes) -> str:
    """The checksum of a canonical JSON."""
    return _text(hashlib.sha256(data).digest()[:NUM_CHECK])


def _text(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    """The bytes of base64url without padding."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        data = b""
    if _text(data) != text:
        raise RequestError("The code was cut short on its way; copy it whole once more.")
    return data


def _inflate(packed: bytes) -> bytes:
    """Deflated bytes unpacked, never more than a request's JSON may have."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(packed, MAX_JSON + 1)
    except zlib.error:
        raise RequestError("The code was cut short or changed on its way; copy it whole once more.") from None
    if len(data) > MAX_JSON:
        raise RequestError("The code unpacks to more than any request holds, so it was not read.")
    if not reader.eof or reader.unused_data:
        raise RequestError("The code was cut short or changed on its way; copy it whole once more.")
    return data


def _parsed(data: bytes) -> RenderRequest:
    """The request of a canonical JSON."""
    try:
        return RenderRequest.from_json(data.decode("ascii"))
    except UnicodeDecodeError:
        raise RequestError("The code holds no request; copy it whole once more.") from None
