"""What the Directions tab asks of the server: the stack, the browser of directions, and making new ones (no gradio).

Nothing that comes from the browser is trusted. Directions that a person makes are kept beside their model only where
the app allows uploads; elsewhere they leave as a pack to download.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stylegan.directions.change import merged
from stylegan.directions.discover import Discovery
from stylegan.directions.packs import read_pack, write_pack
from stylegan.directions.pictures import analogy, find_difference, find_sorted, gather
from stylegan.directions.rank import rank, strip
from stylegan.directions.store import (
    MINE,
    add_direction,
    delete_direction,
    mark_direction,
    mine_path,
    rename_direction,
    tied,
)
from stylegan.errors import RequestError
from stylegan.files import safe_name
from stylegan.latents import Direction, Latents
from stylegan.request import MAX_SEED, Edit, RenderRequest, channel_of, decode_region
from stylegan.ui.answers import Answers, file_of, listed, picture, session_of, text_of, tile, ws_text
from stylegan.ui.session import IDLE, AppContext, Session, Source, direction_list

STRENGTHS = (-3, -2, -1, 0, 1, 2, 3)
TILE = 64  # pixels a side
MAX_NAMES, MAX_SORTED, MAX_CHANNELS = 64, 400, 32
NOT_KEPT = "This app keeps nothing that its visitors make, so a new direction is handed to you as a pack to download."
NO_WORDS = "A direction from words needs the open_clip package and your own CLIP weights; neither is installed here."
KINDS_OF_PACK = {"json": (".json", "application/json"), "safetensors": (".safetensors", "application/octet-stream")}


class Findings:
    """The questions about directions and the stack, over one renderer; what cannot be answered raises StyleGANError."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.renderer = context.renderer
        self.answers = Answers(context)
        self.discovery = Discovery(context.renderer)

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        looks = [self.strip, self.rank, self.find, self.finding, self.stop_finding, self.face, self.ways]
        changes = [self.bake, self.paste, self.star, self.rename, self.delete, self.merge]
        makes = [self.make_sorted, self.make_difference, self.analogy]
        return [*looks, *changes, self.save_pack, self.open_pack, *makes]

    def strip(self, question: Any) -> dict:
        """One direction from -3 to +3 standard deviations on the present picture, as small pictures.

        Where the stack holds the direction already, its own row is what is set to each strength.
        """
        session, name = session_of(question), text_of(question, "direction")
        request = session.request()
        mine = [place for place, edit in enumerate(request.edits)
                if edit.direction == name and place not in session.locked]  # fmt: skip
        own = request.edits[mine[0]] if mine else Edit(name)
        others = tuple(edit for place, edit in enumerate(request.edits) if place not in mine[:1])
        if own.layers is None and own.region is None:
            rendered = strip(self.renderer, request.replace(edits=others), name, STRENGTHS, TILE)
            sources = [picture(pixels) for pixels in rendered]
        else:
            edits = (replace(own, strength=float(strength), enabled=True) for strength in STRENGTHS)
            results = self.renderer.render_many(request.replace(edits=(*others, edit)) for edit in edits)
            sources = [tile(result.pixels) for result in results]
        return {"tiles": [{"strength": strength, "src": src} for strength, src in zip(STRENGTHS, sources, strict=True)]}

    def rank(self, question: Any) -> dict:
        """How much directions change the present picture or a painted region of it, most first."""
        request, names, mask = session_of(question).request(), question.get("names"), question.get("region")
        names = None if names is None else _names(question, "names")
        if mask is not None:
            decode_region(text_of({"mask": mask}, "mask", 4096))
        channels = question.get("channels", 0)
        if type(channels) is not int or not 0 <= channels <= MAX_CHANNELS:
            raise RequestError(f"The number of channels to look for must be 0 to {MAX_CHANNELS}.")
        effects = rank(self.renderer, request, names, mask, channels)
        return {"effects": [_effect(effect) for effect in effects]}

    def find(self, question: Any) -> dict:
        """Look for the model's directions in the background, once; `gently` not again after someone stopped it."""
        name = session_of(question).base.model
        gently = isinstance(question, dict) and question.get("gently") is True
        if not gently or self.discovery.progress(name).state == "idle":
            self.discovery.start(name)
        return self.finding(question)

    def finding(self, question: Any) -> dict:
        """How far the search for the model's directions is, and the directions there are now."""
        name = session_of(question).base.model
        at = self.discovery.progress(name)
        progress = {"state": at.state, "done": at.done, "message": at.message, "found": at.found}
        return {"progress": progress, **self._directions(name)}

    def stop_finding(self, question: Any) -> dict:
        """Stop the search for the model's directions."""
        self.discovery.cancel(session_of(question).base.model)
        return self.finding(question)

    def bake(self, question: Any) -> dict:
        """The session with the rows that are on made part of the latent; what cannot be part of it stays a row."""
        session = session_of(question)
        facts = self.answers.facts(session.base.model)
        stays = [place for place, edit in enumerate(session.base.edits) if not self._is_w(session.base, edit)]
        gone = [edit for place, edit in enumerate(session.base.edits) if place not in stays]
        used = {source for source, weight in session.rows if source >= 0 and weight > 0}
        mixed = {source for source in used if session.sources[source].enabled}
        if not gone and not mixed:
            raise RequestError("No row that is on can become part of the latent; nothing was changed.")
        latents = self.renderer.latents(session.request().replace(edits=tuple(gone)))
        rows = tuple(IDLE if row[0] in mixed else row for row in session.rows)
        rows = rows if any(row != IDLE for row in rows) else ()
        base = session.base.replace(ws=ws_text(latents), edits=tuple(session.base.edits[place] for place in stays))
        locked = tuple(new for new, place in enumerate(stays) if place in session.locked)
        shown = self.answers.shown(replace(session, base=base, rows=rows, locked=locked), facts)
        num = len(gone) + len(mixed)
        said = f"{num} row{'s are' if num > 1 else ' is'} part of the latent now."
        names = [edit.direction for edit in base.edits if edit.enabled]
        if names:
            said += f" {listed(names)} cannot be: channels and regions lie outside W+, so they stay in the stack."
        return {**shown, "said": said, "mood": "good"}

    def paste(self, question: Any) -> dict:
        """The session with a copied stack in place of its own; its locked rows stay, what does not fit is named."""
        session, stack = session_of(question), question.get("stack")
        if not isinstance(stack, dict) or not isinstance(stack.get("request"), dict):
            raise RequestError("The clipboard holds no stack of this app; copy one first.")
        held = {key: stack[key] for key in ("sources", "rows", "parked") if key in stack}
        taken = Session.from_page({**held, "request": {**stack["request"], "model": session.base.model}})
        shown = self.answers.shown(_stacked(session, taken), self.answers.facts(session.base.model))
        mood = shown["mood"] or "good"
        return {**shown, "said": shown["said"] or "The stack acts on this picture now.", "mood": mood}

    def star(self, question: Any) -> dict:
        """Star a direction, or take its star away."""
        self._allowed()
        model, name = session_of(question).base.model, text_of(question, "name")
        mark_direction(self._path(model), self._direction(model, name), starred=question.get("starred") is True)
        return self._directions(model)

    def rename(self, question: Any) -> dict:
        """Give a direction of one's own another name."""
        model, path, name = self._mine(question)
        new = self._free(model, text_of(question, "to"))
        rename_direction(path, name, new)
        return {**self._directions(model), "show": new, "said": f"{name} is called {new} now."}

    def delete(self, question: Any) -> dict:
        """Delete a direction of one's own."""
        model, path, name = self._mine(question)
        delete_direction(path, name)
        return {**self._directions(model), "said": f"{name} is deleted."}

    def merge(self, question: Any) -> dict:
        """Add picked directions up to one new direction."""
        session, names = session_of(question), _names(question, "names")
        model, name = session.base.model, self._free(session.base.model, text_of(question, "name"))
        if len(names) < 2:
            raise RequestError("Pick at least two directions to merge.")
        generator = self.renderer.model(model).generator
        total, *others = (self._direction(model, each) for each in names)
        for num, other in enumerate(others, start=1):  # the sum of `num` directions was brought back to one deviation
            total = merged(generator, total, other, name, (num**0.5, 1.0))
        return self._made(model, total, f"{name} is {' and '.join(names[:4])} together")

    def save_pack(self, question: Any) -> dict:
        """Picked directions as one file to download."""
        session, names, kind = session_of(question), _names(question, "names"), text_of(question, "format")
        model = session.base.model
        if kind not in KINDS_OF_PACK:
            raise RequestError("A pack is saved as json or as safetensors.")
        if not names:
            raise RequestError("Pick the directions that the pack should hold first.")
        download = self._pack(model, [self._direction(model, name) for name in names], kind)
        return {"download": download, "said": f"{download['name']} holds {listed(names)}."}

    def open_pack(self, question: Any) -> dict:
        """Take up the directions of a pack that were made for this model."""
        model = session_of(question).base.model
        self._allowed()
        loaded = self.renderer.model(model)
        widths = [len(affine.bias) for _, affine in loaded.generator.synthesis.affines()]
        found = read_pack(file_of(question), loaded.hash, (loaded.generator.num_ws, loaded.generator.w_dim), widths)
        fresh = [direction for direction in found if direction.name not in loaded.directions]
        if not fresh:
            raise RequestError("Every direction of this pack is here already; nothing was changed.")
        for direction in fresh:
            add_direction(self._path(model), direction)
        names = [direction.name for direction in fresh]
        there = f" {len(found) - len(fresh)} of it were here already." if len(found) > len(fresh) else ""
        return {**self._directions(model), "show": names[0], "said": f"The pack brought {listed(names)}.{there}"}

    def face(self, question: Any) -> dict:
        """A picture for making a direction, small."""
        base, (source,) = self._sources(question, "source")
        return {"src": tile(self.renderer.render(_plain(base, source)).pixels)}

    def ways(self, question: Any) -> dict:
        """Which ways of making a direction are missing here, and what becomes of a new one."""
        return {"words": NO_WORDS, "told": "" if self.context.allow_uploads else NOT_KEPT}

    def make_sorted(self, question: Any) -> dict:
        """The direction from pictures sorted as no to pictures sorted as yes."""
        base = session_of(question).base
        name = self._free(base.model, text_of(question, "name"))
        yes, no = (self._latents(base, [Source("", seed) for seed in _seeds(question, key)]) for key in ("yes", "no"))
        direction = find_sorted(self._generator(base), yes, no, name, self._against(base.model, question))
        apart = direction.info.get("separation")
        how = f", which tells yes from no in {100 * apart:.0f} of 100 cases" if isinstance(apart, float) else ""
        return self._made(base.model, direction, f"{name} is found{how}")

    def make_difference(self, question: Any) -> dict:
        """The direction from the pictures B to the pictures A."""
        base, a = self._sources(question, "a")
        _, b = self._sources(question, "b")
        name = self._free(base.model, text_of(question, "name"))
        against = self._against(base.model, question)
        pair = self._latents(base, a), self._latents(base, b)
        direction = find_difference(self._generator(base), *pair, name, against)
        return self._made(base.model, direction, f"{name} leads from B to A")

    def analogy(self, question: Any) -> dict:
        """The session of the picture that is to C as B is to A."""
        session = session_of(question)
        groups = [self._sources(question, key)[1] for key in ("a", "b", "c")]
        a, b, c = (_mean(self._latents(session.base, group)) for group in groups)
        base = session.base.replace(ws=ws_text(analogy(a, b, c)), edits=())
        shown = self.answers.shown(Session(base, session.sources), self.answers.facts(base.model))
        return {**shown, "said": "This is to C as B is to A. Undo brings the last picture back.", "mood": "good"}

    def _is_w(self, base: RenderRequest, edit: Edit) -> bool:
        """True for an edit that is on and moves W+ alone and everywhere."""
        if not edit.enabled or edit.region is not None or channel_of(edit.direction):
            return False
        return self._direction(base.model, edit.direction).channels is None

    def _directions(self, name: str) -> dict:
        """The model's directions as the page shows them."""
        return {"directions": direction_list(self.renderer.model(name))}

    def _generator(self, base: RenderRequest) -> Any:
        """The network of a request's model."""
        return self.renderer.model(base.model).generator

    def _direction(self, model: str, name: str) -> Direction:
        """A direction of a model by name."""
        found = self.renderer.model(model).directions.get(name)
        if found is None:
            raise RequestError(f"The model has no direction {name[:80]!r} any more; the list was changed elsewhere.")
        return found

    def _against(self, model: str, question: Any) -> list[Direction]:
        """The directions that a new one must leave alone."""
        return [self._direction(model, name) for name in _names(question, "against")]

    def _sources(self, question: Any, key: str) -> tuple[RenderRequest, tuple[Source, ...]]:
        """The session's own request, and the pictures that a question names under `key`, at least one."""
        base, asked = session_of(question).base, question.get(key)
        asked = asked if isinstance(asked, list) else [asked]
        sources = Session.from_page({"request": {"model": base.model}, "sources": asked}).sources
        if not sources:
            raise RequestError(f"There is no picture in {key.upper()}; add one.")
        return base, sources

    def _latents(self, base: RenderRequest, sources: Sequence[Source]) -> Latents:
        """The latents behind some pictures, one after another."""
        return gather(self.renderer.latents(_plain(base, source)) for source in sources)

    def _allowed(self) -> None:
        """Refuse whatever would be kept where nothing is."""
        if not self.context.allow_uploads:
            raise RequestError("This app keeps nothing that its visitors make; run it yourself to keep directions.")

    def _path(self, model: str) -> Path:
        """The file of a person's own directions of a model."""
        return mine_path(self.renderer.folder.find(model))

    def _mine(self, question: Any) -> tuple[str, Path, str]:
        """Model, file and name of a question that changes a person's own directions."""
        self._allowed()
        model, name = session_of(question).base.model, text_of(question, "name")
        if self._direction(model, name).info.get("source") != MINE:
            raise RequestError(f"{name} came with the model or was found in it; only your own can be changed.")
        return model, self._path(model), name

    def _free(self, model: str, text: str) -> str:
        """A name that a new direction of a model may have."""
        name = safe_name(text.strip())
        if name in self.renderer.model(model).directions:
            raise RequestError(f"There is a direction {name!r} already; choose another name.")
        return name

    def _made(self, model: str, direction: Direction, said: str) -> dict:
        """A new direction kept beside its model, or handed over as a pack where nothing is kept."""
        (direction,) = tied([direction], self.renderer.model(model).hash)
        if not self.context.allow_uploads:
            return {"download": self._pack(model, [direction], "safetensors"), "said": f"{said}. {NOT_KEPT}"}
        add_direction(self._path(model), direction)
        return {**self._directions(model), "show": direction.name, "said": f"{said}; it is under Mine."}

    def _pack(self, model: str, directions: list[Direction], kind: str) -> dict:
        """Directions as a file for the page to save: its name, bytes as base64, and type."""
        ending, mime = KINDS_OF_PACK[kind]
        directions = tied(directions, self.renderer.model(model).hash)
        with tempfile.TemporaryDirectory() as folder:
            data = write_pack(Path(folder) / f"pack{ending}", directions).read_bytes()
        stem = directions[0].name if len(directions) == 1 else f"{len(directions)}-directions"
        name = f"{Path(model).stem[:40]}-{stem}{ending}"
        return {"name": name, "data": base64.b64encode(data).decode(), "kind": mime}


def _plain(base: RenderRequest, source: Source) -> RenderRequest:
    """The request of one picture as the session would show it without its mix and its edits."""
    label = base.label if source.label is None else source.label
    return base.replace(dx=0.0, dy=0.0, seed=source.seed or 0, ws=source.ws, label=label, edits=(), mix=())


def _mean(latents: Latents) -> Latents:
    """The middle of some latents."""
    return Latents(latents.ws.mean(0, keepdim=True))


def _stacked(session: Session, taken: Session) -> Session:
    """A session with the stack of another one; its own locked rows stay and come first."""
    held = [place for place, source in enumerate(session.sources) if source.locked]
    sources = (*(session.sources[place] for place in held), *taken.sources)
    rows = []
    for row in range(max(len(session.rows), len(taken.rows))):
        mine = session.rows[row] if row < len(session.rows) else IDLE
        other = taken.rows[row] if row < len(taken.rows) else IDLE
        if mine[0] in held:
            rows.append((held.index(mine[0]), mine[1]))
        else:
            rows.append((other[0] + len(held), other[1]) if other[0] >= 0 else IDLE)
    kept = tuple(session.base.edits[place] for place in session.locked)
    stack = {name: getattr(taken.base, name) for name in ("noise", "noise_seed", "noise_strength", "transform")}
    base = session.base.replace(edits=kept + taken.base.edits, **stack)
    locked = (*range(len(kept)), *(len(kept) + place for place in taken.locked))
    return Session(base, sources, tuple(rows) if any(row != IDLE for row in rows) else (), locked, taken.parked)


def _effect(effect: Any) -> dict:
    """The effect of a direction as the page shows it."""
    return {"name": effect.name, "total": round(effect.total, 3), "inside": round(effect.inside, 3),
            "inside_share": round(effect.inside_share, 4), "zone": effect.zone}  # fmt: skip


def _names(question: Any, key: str) -> list[str]:
    """A list of direction names of a question, empty when absent."""
    names = question.get(key, [])
    if not isinstance(names, list) or len(names) > MAX_NAMES or not all(isinstance(name, str) for name in names):
        raise RequestError(f"At most {MAX_NAMES} directions can be named at a time.")
    return list(dict.fromkeys(names))


def _seeds(question: Any, key: str) -> list[int]:
    """The seeds that a question sorts under `key`."""
    seeds = question.get(key)
    whole = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
    if not whole or len(seeds) > MAX_SORTED:
        raise RequestError(f"The page sent no seeds for {key}, or more than {MAX_SORTED}; reload it.")
    if len(seeds) < 2:
        raise RequestError(f"Mark at least two pictures as {key}.")
    return seeds
