"""What a page holds: the context every tab is built from, and the session of one visitor (no gradio, no torch).

L is the number of rows of W+.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan.checkpoint.catalogue import CATALOGUE, Published
from stylegan.checkpoint.file import Checkpoint
from stylegan.checkpoint.folder import report
from stylegan.errors import RequestError
from stylegan.options import options_of
from stylegan.request import FORMAT, Edit, Mix, RenderRequest, Transform, channel_of, decode_ws

if TYPE_CHECKING:
    from stylegan.checkpoint.folder import ModelFolder
    from stylegan.latents import Direction
    from stylegan.render import LoadedModel, Renderer

START = {"psi": 0.7}  # where the page starts, and what its resets lead back to, besides the request's own defaults
MAX_SOURCES = 64
MAX_EDITS = 256
ZONES = {"coarse": "form", "middle": "texture", "fine": "colour"}  # what the groups of layers mostly decide
KINDS = {"pca": "PCA", "sefa": "SeFa", "styles": "S channels", "channel": "S channel"}
STACKED = {"enabled": True, "weight": 1.0, "locked": False}  # what the stack adds to a source, as it starts
COARSE, MIDDLE = 8, 32  # pixels up to which layers count as coarse and middle (arXiv 1812.04948 section 3.1)
IDLE = (-1, 0.0)
PARKABLE = ("noise", "noise_seed", "noise_strength", "transform")  # what the stack can switch off and keep


@dataclass(frozen=True)
class AppContext:
    """Everything a tab may use, handed to its `build`; the tabs keep no globals.

    `data_roots` are the folders pictures may be read from; `timer_seconds` is how often a page looks for news; `live`
    off means that the picture follows when a control is let go; `public` that others than this machine see the page.
    `published` are the models to download by name; `mirrors` ("host:port") the places trusted without https.
    `library` is the user's folder of favourites; there is none without it, nor where uploads are off. `clip` is the
    user's own weights file for directions from words.
    """

    renderer: Renderer
    models: ModelFolder
    runs_root: Path
    data_roots: tuple[Path, ...] = ()
    allow_training: bool = True
    allow_uploads: bool = True
    live: bool = True
    timer_seconds: float = 1.0
    public: bool = False
    published: Mapping[str, Published] = field(default_factory=lambda: CATALOGUE)
    mirrors: tuple[str, ...] = ()
    library: Path | None = None
    clip: Path | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What the page needs to know of a model to show the right controls; JSON-able through `asdict`."""

    name: str
    hash: str
    summary: str
    shape: str
    num_ws: int
    w_dim: int
    num_classes: int
    class_names: tuple[str, ...]
    has_noise: bool
    has_transform: bool
    layers: tuple[dict[str, Any], ...]
    groups: dict[str, tuple[int, int]]
    directions: tuple[dict[str, Any], ...]
    report: dict[str, str] = field(default_factory=dict)
    channels: tuple[int, ...] = ()  # of each affine map: how many S channels it has

    @classmethod
    def of(cls, name: str, model: LoadedModel) -> ModelFacts:
        """The facts of a loaded model that requests call `name`."""
        generator, config = model.generator, model.generator.config
        layers = tuple({"names": layer.name, "resolution": layer.resolution} for layer in generator.synthesis.layers)
        names = model.provenance.get("class_names", ())
        classes = f" · {config.num_classes} classes" if config.num_classes else ""
        return cls(
            name=name,
            hash=model.hash,
            shape="1 / 1",
            num_ws=generator.num_ws,
            w_dim=generator.w_dim,
            summary=f"{config.family} · {config.resolution} px · {generator.num_ws} layers{classes}",
            num_classes=config.num_classes,
            class_names=tuple(map(str, names)) if isinstance(names, list) else (),
            has_noise=config.use_noise and config.family != "stylegan3",
            has_transform=config.family == "stylegan3",
            layers=layers,
            groups=layer_groups([layer["resolution"] for layer in layers], config.family),
            directions=tuple(direction_list(model)),
            report=report(Checkpoint(config, generator.state_dict(), model.provenance)),
            channels=tuple(len(affine.bias) for _, affine in generator.synthesis.affines()),
        )

    def to_page(self) -> dict[str, Any]:
        """The facts with the ranges and the starting values of all controls."""
        defaults = {item.name: item.default for item in fields(RenderRequest) if item.name != "mix"}
        return {
            **asdict(self),
            "defaults": {**defaults, **START},
            "options": _ranges(RenderRequest),
            "transform": _ranges(Transform),
        }


def layer_groups(resolutions: list[int], family: str) -> dict[str, tuple[int, int]]:
    """The rows (first, last) that are coarse, middle and fine; a group without rows has last < first.

    By resolution as in arXiv 1812.04948 section 3.1; a StyleGAN3 network does not grow so, it is cut into thirds.
    """
    num = len(resolutions)
    if family == "stylegan3":
        ends = [num // 3, 2 * num // 3]
    else:
        ends = [sum(size <= limit for size in resolutions) for limit in (COARSE, MIDDLE)]
    return {"coarse": (0, ends[0] - 1), "middle": (ends[0], ends[1] - 1), "fine": (ends[1], num - 1)}


@dataclass(frozen=True)
class Source:
    """A latent that layers can be taken from: a seed, or the W+ of a picture.

    `weight` from 0 to 1 is a factor on the weights of all its rows; `enabled` and `locked` are its row's in the stack.
    """

    name: str
    seed: int | None = None
    ws: str | None = None
    label: int | None = None
    enabled: bool = True
    weight: float = 1.0
    locked: bool = False

    def mix(self, weight: float = 1.0, layers: tuple[int, int] | None = None) -> Mix:
        """The mix that takes these layers from this source; RequestError when the source is not sound."""
        return Mix(self.seed, self.ws, self.label, weight * self.weight, layers, self.enabled)


@dataclass(frozen=True)
class Session:
    """All that is set on the Explore tab: a request without its mixes, and the mixes as the page shows them.

    `rows` holds (source, weight) for each row of W+, source -1 for none; no rows at all means no mixing. `locked` are
    the places of the edits that resets leave alone; `parked` holds the noise and transform that are switched off.
    """

    base: RenderRequest
    sources: tuple[Source, ...] = ()
    rows: tuple[tuple[int, float], ...] = ()
    locked: tuple[int, ...] = ()
    parked: RenderRequest | None = None

    @classmethod
    def from_page(cls, data: Any) -> Session:
        """Read what the browser sent; nothing in it is trusted. Raises RequestError."""
        if not isinstance(data, dict) or not isinstance(data.get("request"), dict):
            raise RequestError("The page sent no state; reload it.")
        request = {**START, **data["request"], "format": FORMAT}
        if "mix" in request:
            raise RequestError("The page sent its style mix in an unknown form; reload it.")
        request["edits"], locked = _unlocked(request.get("edits", []))
        base = RenderRequest.from_json(json.dumps(request))
        sources = tuple(map(_source, _list(data, "sources", MAX_SOURCES)))
        rows = tuple(_row(row, len(sources)) for row in _list(data, "rows", 1024))
        return cls(base, sources, rows, locked, _parked(data.get("parked"), base.model))

    def to_page(self) -> dict[str, Any]:
        """The JSON that the page keeps: only what differs from where it starts."""
        request = json.loads(self.base.to_json())
        del request["format"]
        for key, start in START.items():
            request[key] = getattr(self.base, key)
            if request[key] == start:
                del request[key]
        for place in self.locked:
            request["edits"][place]["locked"] = True
        parked = json.loads(self.parked.to_json()) if self.parked else {}
        held = {key: parked[key] for key in PARKABLE if key in parked}
        return {
            "request": request,
            "sources": [_changed(source) for source in self.sources],
            "rows": [list(row) for row in self.rows],
            **({"parked": held} if held else {}),
        }

    def request(self) -> RenderRequest:
        """The request that renders this session: neighbouring rows with one source and weight become one mix."""
        mixes, first = [], 0
        for index in range(1, len(self.rows) + 1):
            if index == len(self.rows) or self.rows[index] != self.rows[first]:
                source, weight = self.rows[first]
                if source >= 0 and weight * self.sources[source].weight > 0:
                    mixes.append(self.sources[source].mix(weight, (first, index - 1)))
                first = index
        return self.base.replace(mix=tuple(mixes))

    @classmethod
    def of(cls, request: RenderRequest, num_ws: int) -> Session | None:
        """The session of a request; None when two mixes meet in one row, which the page cannot show."""
        sources: list[Source] = []
        rows = [IDLE] * num_ws
        for mix in request.mix:
            name = f"seed {mix.seed}" if mix.ws is None else f"picture {len(sources) + 1}"
            source = Source(name, mix.seed, mix.ws, mix.label, mix.enabled)
            same = [index for index, known in enumerate(sources) if replace(known, name=name) == source]
            if not same:
                sources.append(source)
            first, last = mix.layers or (0, num_ws - 1)
            for row in range(first, min(last, num_ws - 1) + 1):
                if rows[row] != IDLE:
                    return None
                if mix.weight > 0:
                    rows[row] = (same[0] if same else len(sources) - 1, mix.weight)
        mixed = any(row != IDLE for row in rows)
        return cls(request.replace(mix=()), tuple(sources), tuple(rows) if mixed else ())

    def fit(self, facts: ModelFacts) -> tuple[Session, list[str]]:
        """This session on another model: all that still applies, and the names of what had to be dropped."""
        changes: dict[str, Any] = {"model": facts.name, "model_hash": ""}
        dropped: list[str] = []

        def drop(name: str, when: bool, **values: Any) -> None:
            if when:
                changes.update(values)
                dropped.append(name)

        base, numbers = self.base, facts.num_ws * facts.w_dim
        drop("the restored latent", base.ws is not None and _numbers(base.ws) != numbers, ws=None)
        drop("the class", base.label is not None and base.label >= facts.num_classes, label=None)
        drop("the cutoff", base.cutoff is not None and base.cutoff > facts.num_ws, cutoff=None)
        noise = (base.noise, base.noise_seed, base.noise_strength) != ("const", 0, 1.0)
        drop("the noise", noise and not facts.has_noise, noise="const", noise_seed=0, noise_strength=1.0)
        drop("the shift", base.transform is not None and not facts.has_transform, transform=None)
        kept = _fitting_edits(base.edits, facts)
        changes["edits"] = tuple(kept.values())
        lost = [edit.direction for place, edit in enumerate(base.edits) if place not in kept]
        dropped += [f"the direction {name}" for name in lost]
        locked = tuple(new for new, place in enumerate(kept) if place in self.locked)
        sources, rows, lost = self._fitting_mix(facts)
        parked = self.parked and self.parked.replace(
            **({} if facts.has_noise else {"noise": "const", "noise_seed": 0, "noise_strength": 1.0}),
            **({} if facts.has_transform else {"transform": None}),
        )
        return Session(base.replace(**changes), sources, rows, locked, parked), dropped + lost

    def _fitting_mix(self, facts: ModelFacts) -> tuple[tuple[Source, ...], tuple[tuple[int, float], ...], list[str]]:
        """The sources and rows that fit a model, and the names of those that do not."""

        def fits(source: Source) -> bool:
            return source.ws is None or _numbers(source.ws) == facts.num_ws * facts.w_dim

        kept = [index for index, source in enumerate(self.sources) if fits(source)]
        lost = [f"the source {source.name}" for source in self.sources if not fits(source)]
        place = {index: new for new, index in enumerate(kept)}
        rows = tuple((place[row[0]], row[1]) if row[0] in place else IDLE for row in self.rows[: facts.num_ws])
        if any(row[1] > 0 for row in self.rows[facts.num_ws :]):
            lost.append(f"the mix above layer {facts.num_ws - 1}")
        rows += (IDLE,) * (facts.num_ws - len(rows)) if any(row != IDLE for row in rows) else ()
        sources = tuple(self.sources[index] for index in kept)
        most = facts.num_classes
        sources = tuple(replace(each, label=None) if (each.label or 0) >= most else each for each in sources)
        return sources, rows if any(row != IDLE for row in rows) else (), lost


def _fitting_edits(edits: tuple[Edit, ...], facts: ModelFacts) -> dict[int, Edit]:
    """The edits whose direction or channel the model has, by their place, with their layers inside the model."""
    known = {direction["name"] for direction in facts.directions}
    kept, last = {}, facts.num_ws - 1
    for place, edit in enumerate(edits):
        affine, channel = channel_of(edit.direction) or (len(facts.channels), 0)
        if edit.direction in known or (affine < len(facts.channels) and channel < facts.channels[affine]):
            layers = edit.layers and (min(edit.layers[0], last), min(edit.layers[1], last))
            kept[place] = replace(edit, layers=layers)
    return kept


def _ranges(cls: type) -> dict[str, dict[str, Any]]:
    """Low, high, step, default and help of every setting of a request class that is a number or a choice."""
    return {
        name: {"low": about.low, "high": about.high, "step": about.step, "default": about.default, "help": about.help}
        for name, about in options_of(cls).items()
        if about.low is not None or about.choices
    }


def _numbers(ws: str) -> int:
    """How many numbers a base64 W+ holds."""
    return len(decode_ws(ws)) // 4


def _list(data: dict[str, Any], key: str, most: int) -> list[Any]:
    """A list of the page's state, empty when absent."""
    value = data.get(key, [])
    if not isinstance(value, list) or len(value) > most:
        raise RequestError(f"The page sent {key} in an unknown form; reload it.")
    return value


def direction_list(model: LoadedModel) -> list[dict[str, Any]]:
    """The directions of a model as the page shows them."""
    sizes = [layer.resolution for layer in model.generator.synthesis.layers]
    groups = layer_groups(sizes, model.generator.config.family)
    return [direction_facts(direction, groups) for direction in model.directions.values()]


def direction_facts(direction: Direction, groups: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """What the page shows of a direction; its zone is the group of layers that it covers most, the first of equals."""
    first, last = direction.layers
    covered = {name: max(0, min(last, high) - max(first, low) + 1) / max(1, high - low + 1)
               for name, (low, high) in groups.items()}  # fmt: skip
    return {
        "name": direction.name,
        "kind": direction.kind,
        "layers": direction.layers,
        "zone": ZONES[max(covered, key=lambda name: covered[name])],
        "source": str(direction.info.get("source", "")),
        "starred": direction.info.get("starred") is True,
        "about": describe(direction.kind, direction.layers, direction.info),
    }


def describe(kind: str, layers: tuple[int, int], info: dict) -> str:
    """A direction in a few words: how it was found, its layers, and what else it moves most."""
    words = [KINDS.get(kind, kind), f"layers {layers[0]} to {layers[1]}"]
    effects = info.get("effects")
    if isinstance(effects, dict):
        numbers = {name: value for name, value in effects.items() if isinstance(value, int | float)}
        strongest = sorted(numbers, key=lambda name: -abs(numbers[name]))[:3]
        words += [f"{name} {numbers[name]:+.2f}" for name in strongest if abs(numbers[name]) >= 0.05]
    return " · ".join(words)


def _unlocked(edits: Any) -> tuple[Any, tuple[int, ...]]:
    """The edits that the browser sent without their `locked`, and the places of those that are locked."""
    if not isinstance(edits, list) or len(edits) > MAX_EDITS or not all(isinstance(edit, dict) for edit in edits):
        raise RequestError(f"The page sent its edits in an unknown form, or more than {MAX_EDITS}; reload it.")
    bare = [{key: value for key, value in edit.items() if key != "locked"} for edit in edits]
    return bare, tuple(place for place, edit in enumerate(edits) if edit.get("locked") is True)


def _parked(data: Any, model: str) -> RenderRequest | None:
    """The noise and transform that the browser keeps switched off; None when there are none."""
    if not data:
        return None
    if not isinstance(data, dict) or not set(data) <= set(PARKABLE):
        raise RequestError("The page sent what it has switched off in an unknown form; reload it.")
    return RenderRequest.from_json(json.dumps({**data, "model": model, "format": FORMAT}))


def _changed(source: Source) -> dict[str, Any]:
    """A source as the page keeps it: what the stack has not changed is left out."""
    data = asdict(source)
    return {key: data[key] for key in data if key not in STACKED or data[key] != STACKED[key]}


def _source(data: Any) -> Source:
    """Read a source that the browser sent."""
    known = {item.name for item in fields(Source)}
    if not isinstance(data, dict) or not set(data) <= known or not isinstance(data.get("name"), str):
        raise RequestError("The page sent a mixing source in an unknown form; reload it.")
    source = Source(**{**data, "name": data["name"][:80]})
    if type(source.enabled) is not bool or type(source.locked) is not bool or not _is_share(source.weight):
        raise RequestError("The page sent a mixing source in an unknown form; reload it.")
    source.mix()
    return source


def _row(data: Any, num_sources: int) -> tuple[int, float]:
    """Read a row (source, weight) that the browser sent."""
    if not isinstance(data, list) or len(data) != 2 or type(data[0]) is not int or not -1 <= data[0] < num_sources:
        raise RequestError("The page sent a mixing row in an unknown form; reload it.")
    if not _is_share(data[1]):
        raise RequestError("A mixing weight must be a number from 0 to 1.")
    return data[0], float(data[1])


def _is_share(value: Any) -> bool:
    """True for a number from 0 to 1."""
    return type(value) in (int, float) and 0 <= value <= 1
