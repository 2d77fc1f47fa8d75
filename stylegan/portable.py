"""A request made fit to travel: directions that only this machine has are baked into its W+."""

from __future__ import annotations

from stylegan.directions.store import SHIPPED
from stylegan.render import Renderer
from stylegan.request import Edit, RenderRequest, channel_of, encode_ws


def portable(renderer: Renderer, request: RenderRequest) -> tuple[RenderRequest, tuple[str, ...]]:
    """The same picture as a request that another machine with the same model can render, and what it still needs.

    When an edit uses a direction of the user's own, all edits that only move W+ are baked into it, so that every bit
    stays; edits of S channels and edits confined to a region stay edits. The names in the second value are directions
    of the user's own that cannot be baked and must be sent along. Raises what `Renderer.latents` raises.
    """
    model = renderer.model(request.model)
    request = request.replace(model_hash=model.hash)
    shipped = {name for name, each in model.directions.items() if each.info.get("source") == SHIPPED}
    own = [edit for edit in request.edits
           if edit.enabled and edit.strength and not channel_of(edit.direction) and edit.direction not in shipped]
    if not own:
        return request, ()

    def moves_w(edit: Edit) -> bool:
        direction = model.directions.get(edit.direction)
        return (edit.enabled and edit.region is None and not channel_of(edit.direction)
                and not getattr(direction, "channels", None))

    kept = tuple(edit for edit in request.edits if not moves_w(edit))
    needed = tuple(sorted({edit.direction for edit in own if not moves_w(edit)}))
    if len(needed) == len({edit.direction for edit in own}):
        return request, needed
    moved = renderer.latents(request.replace(edits=tuple(filter(moves_w, request.edits))))
    ws = encode_ws(moved.ws[0].cpu().numpy().astype("<f4").tobytes())
    return request.replace(ws=ws, dx=0.0, dy=0.0, mix=(), edits=kept), needed
