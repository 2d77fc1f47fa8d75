"""All that a person can ask for, as frozen values that check themselves and travel as JSON; no torch, no gradio.

N pictures, L layers of W+, D numbers per layer.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from stylegan.errors import RequestError
from stylegan.options import check, option, options_of

FORMAT = 1
MAX_SEED = 2**32 - 1
MAX_WS_BYTES = 4 << 20
MAX_JSON = 16 << 20
REGION_SIDE = 32
NOISES = ("const", "none", "random")
DIRECTION_NAME = re.compile(r"[^=@:,\x00-\x1f\x7f]{1,80}")

CHANNEL_NAME = re.compile(r"s([0-9]{1,4})\.([0-9]{1,5})")

Layers = tuple[int, int]


def channel_of(name: str) -> tuple[int, int] | None:
    """(affine, channel) of a name like s7.42, the form that is kept for S channels; None for other names."""
    match = CHANNEL_NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def parse_json(text: str) -> Any:
    """The values of a saved JSON text; RequestError when it is too long or no JSON."""
    if len(text) > MAX_JSON:
        raise RequestError("The saved request is too long to be one.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("The saved request is not JSON; use the text that the app wrote.") from None


def encode_ws(data: bytes) -> str:
    """Base64 of W+ [L, D] as little-endian float32 bytes."""
    if not data or len(data) % 4 or len(data) > MAX_WS_BYTES:
        raise RequestError(f"A W+ latent must be 4 to {MAX_WS_BYTES} bytes of float32, not {len(data)} bytes.")
    return base64.b64encode(data).decode("ascii")


def decode_ws(text: str) -> bytes:
    """The float32 bytes of a base64 W+ latent; RequestError when it is not one."""
    if len(text) > MAX_WS_BYTES * 4 // 3 + 4:
        raise RequestError("The W+ latent is too large; at most 4 MiB of float32 are accepted.")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("The W+ latent is not base64 text; save the picture again.") from None
    if not data or len(data) % 4:
        raise RequestError("The W+ latent is cut short; its bytes must be whole float32 numbers.")
    return data


def encode_region(mask: bytes) -> str:
    """Base64 of a mask of 32 x 32 bytes, row by row from the top left; 255 where an edit applies in full, else less."""
    if len(mask) != REGION_SIDE**2:
        raise RequestError(f"A region must be {REGION_SIDE**2} bytes, {REGION_SIDE} x {REGION_SIDE}, not {len(mask)}.")
    return base64.b64encode(mask).decode("ascii")


def decode_region(text: str) -> bytes:
    """The 32 x 32 bytes of a base64 mask; RequestError when it is not one."""
    try:
        mask = base64.b64decode(text, validate=True) if len(text) <= 2 * REGION_SIDE**2 else b""
    except (binascii.Error, ValueError):
        mask = b""
    if len(mask) != REGION_SIDE**2:
        raise RequestError(f"A region must be base64 of {REGION_SIDE} x {REGION_SIDE} bytes; paint it again.")
    return mask


@dataclass(frozen=True)
class Edit:
    """Move along a named direction of the model; text form `smile=1.5@0-7`, with `:off` behind it when disabled.

    `s7.42` names channel 42 of the model's affine map 7, in standard deviations of that channel. `region`, a mask of
    `encode_region`, confines the edit to a part of the picture; it has no text form.
    """

    direction: str
    strength: float = option(1.0, "standard deviations along the direction", low=-20.0, high=20.0, step=0.1)
    layers: Layers | None = None
    enabled: bool = option(True, "whether the edit is applied")
    region: str | None = option(None, "where the edit applies, base64 of 32 x 32 bytes; everywhere when not given")

    def __post_init__(self) -> None:
        if not isinstance(self.direction, str) or not DIRECTION_NAME.fullmatch(self.direction):
            raise RequestError("A direction's name must be 1 to 80 characters without '=', '@', ':' and ','.")
        object.__setattr__(self, "layers", _layers(self.layers))
        check(self)
        if self.region is not None:
            decode_region(self.region)

    @classmethod
    def parse(cls, text: str) -> Edit:
        """Read `NAME`, `NAME=STRENGTH`, `NAME=STRENGTH@FIRST-LAST`, each with an optional `:off`."""
        body, _, state = text.strip().partition(":")
        if state not in ("", "off"):
            raise RequestError(f"An edit is written like smile=1.5@0-7 or smile=1.5:off, not {text[:60]!r}.")
        name, strength, layers = _split(body, "An edit is written like smile=1.5@0-7")
        return cls(name, strength, layers, enabled=not state)

    def __str__(self) -> str:
        return f"{self.direction}={self.strength!r}{_layers_text(self.layers)}{'' if self.enabled else ':off'}"


@dataclass(frozen=True)
class Mix:
    """Take layers from another latent, a seed or a given W+, with a weight; text form `85=0.5@0-3`, `85:CLASS=1`.

    A disabled mix has `:off` behind it.
    """

    seed: int | None = option(None, "seed of the other latent", low=0, high=MAX_SEED)
    ws: str | None = option(None, "W+ of the other latent, base64 of float32 [L, D]")
    label: int | None = option(None, "class of the other latent; the picture's own when not given", low=0)
    weight: float = option(1.0, "how much of the other latent is taken", low=0.0, high=1.0, step=0.01)
    layers: Layers | None = None
    enabled: bool = option(True, "whether the mix is applied")

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "layers", _layers(self.layers))
        if (self.seed is None) == (self.ws is None):
            raise RequestError("A style mix needs either a seed or a W+ latent, one of the two.")
        if self.ws is not None:
            decode_ws(self.ws)

    @classmethod
    def parse(cls, text: str) -> Mix:
        """Read `SEED`, `SEED=WEIGHT`, `SEED@FIRST-LAST`, `SEED=WEIGHT@FIRST-LAST`; `SEED:CLASS` names a class.

        Each may end in `:off`.
        """
        usage = "A style mix is written like 85=0.5@0-3"
        body = text.strip()
        source, weight, layers = _split(body.removesuffix(":off"), usage)
        seed, colon, label = source.partition(":")
        if not seed.isdecimal() or (colon and not label.isdecimal()):
            raise RequestError(f"{usage}, not {text[:60]!r}.")
        return cls(seed=int(seed), label=int(label) if colon else None, weight=weight, layers=layers,
                   enabled=not body.endswith(":off"))

    def __str__(self) -> str:
        source = "picture" if self.seed is None else str(self.seed)
        label = "" if self.label is None else f":{self.label}"
        return f"{source}{label}={self.weight!r}{_layers_text(self.layers)}{'' if self.enabled else ':off'}"


@dataclass(frozen=True)
class Transform:
    """Shift, turn and scale the picture inside the network, StyleGAN3 only; text form `x=0.1,y=0,rotate=15,scale=1`."""

    translate_x: float = option(0.0, "shift to the right, in picture widths", low=-1.0, high=1.0, step=0.01)
    translate_y: float = option(0.0, "shift downwards, in picture heights", low=-1.0, high=1.0, step=0.01)
    rotate: float = option(0.0, "turn, in degrees", low=-360.0, high=360.0, step=1.0)
    scale: float = option(1.0, "enlargement", low=0.25, high=4.0, step=0.01)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def parse(cls, text: str) -> Transform:
        """Read a comma list of x=, y=, rotate= and scale=."""
        names = {"x": "translate_x", "y": "translate_y", "rotate": "rotate", "scale": "scale"}
        values = {}
        for part in text.split(","):
            key, _, number = part.strip().partition("=")
            if key not in names:
                raise RequestError(f"A transform is written like x=0.1,y=0,rotate=15,scale=1, not {text[:60]!r}.")
            values[names[key]] = _number(number, text)
        return cls(**values)

    def __str__(self) -> str:
        return f"x={self.translate_x!r},y={self.translate_y!r},rotate={self.rotate!r},scale={self.scale!r}"


@dataclass(frozen=True)
class RenderRequest:
    """Everything that decides the pixels of one picture.

    The latent is `seed` shifted by (`dx`, `dy`) on the seed plane x + 100 y, truncated by `psi` below layer `cutoff`;
    a given `ws` replaces all of these. Mixes come next in their order, then edits. Checked on creation.
    """

    model: str = option("cartoon-faces-64", "name of a model in the checkpoints folder, or a checkpoint file",
                        metavar="NAME|FILE")
    model_hash: str = option("", "hash of the model's tensors, to notice another model of that name", hidden=True)
    seed: int = option(0, "which latent", low=0, high=MAX_SEED, step=1)
    dx: float = option(0.0, "shift towards seed + 1, from 0 up to but not including 1", low=0.0, high=1.0, step=0.01)
    dy: float = option(0.0, "shift towards seed + 100, from 0 up to but not including 1", low=0.0, high=1.0, step=0.01)
    label: int | None = option(None, "class of a conditional model, the first when not given", flag="--class", low=0)
    ws: str | None = option(None, "W+ latent taken as it is, base64 of float32 [L, D]", hidden=True)
    psi: float = option(1.0, "truncation: 1 is the full variety, 0 the average picture", low=-1.0, high=2.0, step=0.01)
    cutoff: int | None = option(None, "truncate only the layers below this one", low=0)
    noise: str = option("const", "noise inputs: the model's own, none, or drawn from --noise-seed", choices=NOISES)
    noise_seed: int = option(0, "seed of random noise", low=0, high=MAX_SEED, step=1)
    noise_strength: float = option(1.0, "factor on the noise inputs", low=0.0, high=4.0, step=0.01)
    mix: tuple[Mix, ...] = option((), "take layers from another seed, like 85=0.5@0-3; may be given again",
                                  metavar="SEED=WEIGHT@FIRST-LAST", parse=Mix.parse, repeat=True)
    edits: tuple[Edit, ...] = option((), "move along a direction, like smile=1.5@0-7; may be given again",
                                     flag="--edit", metavar="NAME=STRENGTH@FIRST-LAST", parse=Edit.parse, repeat=True)
    transform: Transform | None = option(None, "shift, turn and scale, StyleGAN3 only",
                                         metavar="x=0.1,y=0,rotate=15,scale=1", parse=Transform.parse)

    def __post_init__(self) -> None:
        check(self)
        for name in ("dx", "dy"):
            if getattr(self, name) >= 1:
                raise RequestError(f"{name} must be less than 1; move to the next seed instead.")
        if not self.model or len(self.model) > 1024 or not self.model.isprintable():
            raise RequestError("The model must be the name of a model or the path of a checkpoint file.")
        if not re.fullmatch(r"[0-9a-f]{0,64}", self.model_hash):
            raise RequestError("model_hash must be lower-case hexadecimal digits.")
        for name, kind in (("mix", Mix), ("edits", Edit)):
            if not all(isinstance(item, kind) for item in getattr(self, name)):
                raise RequestError(f"{name} must be a list of {kind.__name__} values.")
        if self.ws is not None:
            decode_ws(self.ws)

    def replace(self, **changes: Any) -> RenderRequest:
        """A copy with some settings changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """One line of ASCII JSON: the format, the model, and whatever differs from its default."""
        return json.dumps({"format": FORMAT, "model": self.model, **_changes(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> RenderRequest:
        """Read `to_json` text strictly: RequestError on unknown keys, wrong types and values out of range."""
        values = parse_json(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise RequestError(f"The saved request is not of format {FORMAT}; update the app or save it again.")
        del values["format"]
        return _build(cls, values)

    @property
    def needs_json(self) -> bool:
        """Whether it holds a W+ or a region, which no flag can say."""
        return (self.ws is not None or any(mix.ws is not None for mix in self.mix)
                or any(edit.region is not None for edit in self.edits))

    def to_shell(self) -> str:
        """The command that writes exactly this picture to out/."""
        if self.needs_json:
            return f"python -m stylegan generate --request {shlex.quote(self.to_json())} --out out"
        words = ["python", "-m", "stylegan", "generate", "--model", self.model, "--seeds", str(self.seed)]
        for name, about in options_of(RenderRequest).items():
            value = getattr(self, name)
            if about.hidden or name in ("model", "seed") or value == about.default:
                continue
            flag = about.flag or "--" + name.replace("_", "-")
            for text in map(about.text, value if about.repeat else [value]):
                words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
        return shlex.join([*words, "--out", "out"])

    def to_python(self) -> str:
        """A snippet that renders exactly this picture."""
        if self.needs_json:
            made = f"stylegan.RenderRequest.from_json({self.to_json()!r})"
        else:
            made = _source(self.replace(model_hash=""))
        return (f"import stylegan\n\nrequest = {made}\nresult = stylegan.Renderer().render(request)\n"
                f'stylegan.save_png("out/seed{self.seed:04d}.png", result.pixels, result.request)\n')


_NESTED = {"mix": Mix, "edits": Edit, "transform": Transform}


def _changes(value: Any) -> dict[str, Any]:
    """The fields of a request value that differ from their defaults, JSON-able."""
    found = {}
    for item in dataclasses.fields(value):
        content = getattr(value, item.name)
        if content == item.default:
            continue
        if dataclasses.is_dataclass(content):
            content = _changes(content)
        elif item.name in _NESTED:
            content = [_changes(part) for part in content]
        found[item.name] = list(content) if isinstance(content, tuple) else content
    return found


def _build(cls: type, values: Any) -> Any:
    """Build a request value from decoded JSON, refusing keys that it does not know."""
    if not isinstance(values, dict):
        raise RequestError(f"The saved request is damaged: a {cls.__name__} must be an object.")
    known = {item.name: item for item in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise RequestError(f"The saved request has the unknown setting {key[:40]!r}; update the app.")
    for name, item in known.items():
        if item.default is dataclasses.MISSING and name not in values:
            raise RequestError(f"The saved request is damaged: a {cls.__name__} has no {name}.")
    ready = dict(values)
    for name in _NESTED.keys() & values.keys() & known.keys():
        if isinstance(values[name], list):
            ready[name] = tuple(_build(_NESTED[name], part) for part in values[name])
        elif values[name] is not None:
            ready[name] = _build(_NESTED[name], values[name])
    return cls(**ready)


def _source(value: Any) -> str:
    """Python source that builds a request value, defaults left out."""
    def literal(content: Any) -> str:
        if dataclasses.is_dataclass(content):
            return _source(content)
        if isinstance(content, tuple) and any(map(dataclasses.is_dataclass, content)):
            return "(" + "".join(literal(part) + ", " for part in content).rstrip() + ")"
        return repr(content)

    given = [item for item in dataclasses.fields(value)
             if item.name == "model" or getattr(value, item.name) != item.default]
    return (f"stylegan.{type(value).__name__}("
            + ", ".join(f"{item.name}={literal(getattr(value, item.name))}" for item in given) + ")")


def _layers(layers: Any) -> Layers | None:
    """A layer range (first, last), both included, or None for all layers."""
    if layers is None:
        return None
    whole = isinstance(layers, tuple | list) and len(layers) == 2 and all(type(layer) is int for layer in layers)
    if not whole or not 0 <= layers[0] <= layers[1] < 1024:
        raise RequestError("A layer range must be two whole numbers, first to last, like 0-7.")
    return layers[0], layers[1]


def _layers_text(layers: Layers | None) -> str:
    """The text form of a layer range."""
    return "" if layers is None else f"@{layers[0]}-{layers[1]}"


def _split(text: str, usage: str) -> tuple[str, float, Layers | None]:
    """Split `NAME=NUMBER@FIRST-LAST` into its three parts; the number is 1 when absent, the layers None."""
    match = re.fullmatch(r"([^=@]+)(?:=([^@]+))?(?:@(\d{1,4})(?:-(\d{1,4}))?)?", text)
    if not match:
        raise RequestError(f"{usage}, not {text[:60]!r}.")
    name, number, first, last = match.groups()
    layers = None if first is None else _layers((int(first), int(last or first)))
    return name, 1.0 if number is None else _number(number, text), layers


def _number(number: str, text: str) -> float:
    """Read a number, or say in which text it is wrong."""
    try:
        return float(number)
    except ValueError:
        raise RequestError(f"{number[:30]!r} in {text[:60]!r} is not a number.") from None
