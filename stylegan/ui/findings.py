"""What the Directions tab asks of the server: the stack, and the browser of directions (no gradio).

Nothing that comes from the browser is trusted. A person's own directions change only where the app allows uploads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stylegan.directions.change import merged
from stylegan.directions.discover import Discovery
from stylegan.directions.packs import read_pack
from stylegan.directions.rank import rank, strip
from stylegan.directions.store import MINE, add_direction, delete_direction, mark_direction, rename_direction
from stylegan.errors import RequestError
from stylegan.request import Edit, RenderRequest, channel_of, decode_region
from stylegan.ui.answers import Answers, file_of, listed, picture, session_of, text_of, tile, ws_text
from stylegan.ui.making import KINDS_OF_PACK, Making, names_of
from stylegan.ui.session import IDLE, AppContext, Session

STRENGTHS = (-3, -2, -1, 0, 1, 2, 3)
TILE = 64  # pixels a side
MAX_CHANNELS = 32


class Findings:
    """The questions about directions and the stack, over one renderer; what cannot be answered raises StyleGANError."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.renderer = context.renderer
        self.answers = Answers(context)
        self.making = Making(context)
        self.discovery = Discovery(context.renderer)

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        looks = [self.strip, self.rank, self.find, self.finding, self.stop_finding]
        changes = [self.bake, self.paste, self.star, self.rename, self.delete, self.merge]
        return [*looks, *changes, self.save_pack, self.open_pack, *self.making.questions()]

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
        names = None if names is None else names_of(question, "names")
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
        return {"progress": progress, **self.making.directions(name)}

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
        self.making.allowed()
        model, name = session_of(question).base.model, text_of(question, "name")
        direction, starred = self.making.direction(model, name), question.get("starred") is True
        mark_direction(self.making.path(model), direction, starred=starred)
        return self.making.directions(model)

    def rename(self, question: Any) -> dict:
        """Give a direction of one's own another name."""
        model, path, name = self._own(question)
        new = self.making.free(model, text_of(question, "to"))
        rename_direction(path, name, new)
        return {**self.making.directions(model), "show": new, "said": f"{name} is called {new} now."}

    def delete(self, question: Any) -> dict:
        """Delete a direction of one's own."""
        model, path, name = self._own(question)
        delete_direction(path, name)
        return {**self.making.directions(model), "said": f"{name} is deleted."}

    def merge(self, question: Any) -> dict:
        """Add picked directions up to one new direction."""
        session, names = session_of(question), names_of(question, "names")
        model, name = session.base.model, self.making.free(session.base.model, text_of(question, "name"))
        if len(names) < 2:
            raise RequestError("Pick at least two directions to merge.")
        generator = self.renderer.model(model).generator
        total, *others = (self.making.direction(model, each) for each in names)
        for num, other in enumerate(others, start=1):  # the sum of `num` directions was brought back to one deviation
            total = merged(generator, total, other, name, (num**0.5, 1.0))
        return self.making.made(model, total, f"{name} is {' and '.join(names[:4])} together")

    def save_pack(self, question: Any) -> dict:
        """Picked directions as one file to download."""
        session, names, kind = session_of(question), names_of(question, "names"), text_of(question, "format")
        model = session.base.model
        if kind not in KINDS_OF_PACK:
            raise RequestError("A pack is saved as json or as safetensors.")
        if not names:
            raise RequestError("Pick the directions that the pack should hold first.")
        download = self.making.pack(model, [self.making.direction(model, name) for name in names], kind)
        return {"download": download, "said": f"{download['name']} holds {listed(names)}."}

    def open_pack(self, question: Any) -> dict:
        """Take up the directions of a pack that were made for this model."""
        model = session_of(question).base.model
        self.making.allowed()
        loaded = self.renderer.model(model)
        widths = [len(affine.bias) for _, affine in loaded.generator.synthesis.affines()]
        found = read_pack(file_of(question), loaded.hash, (loaded.generator.num_ws, loaded.generator.w_dim), widths)
        fresh = [direction for direction in found if direction.name not in loaded.directions]
        if not fresh:
            raise RequestError("Every direction of this pack is here already; nothing was changed.")
        for direction in fresh:
            add_direction(self.making.path(model), direction)
        names = [direction.name for direction in fresh]
        there = f" {len(found) - len(fresh)} of it were here already." if len(found) > len(fresh) else ""
        return {**self.making.directions(model), "show": names[0], "said": f"The pack brought {listed(names)}.{there}"}

    def _is_w(self, base: RenderRequest, edit: Edit) -> bool:
        """True for an edit that is on and moves W+ alone and everywhere."""
        if not edit.enabled or edit.region is not None or channel_of(edit.direction):
            return False
        return self.making.direction(base.model, edit.direction).channels is None

    def _own(self, question: Any) -> tuple[str, Path, str]:
        """Model, file and name of a question that changes one of a person's own directions."""
        self.making.allowed()
        model, name = session_of(question).base.model, text_of(question, "name")
        if self.making.direction(model, name).info.get("source") != MINE:
            raise RequestError(f"{name} came with the model or was found in it; only your own can be changed.")
        return model, self.making.path(model), name


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
