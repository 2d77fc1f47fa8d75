"""The Explore tab: the live picture on one side, everything that changes it on the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from stylegan.errors import RequestError, StyleGANError
from stylegan.pixels import save_png
from stylegan.request import RenderRequest
from stylegan.ui.answers import Answers
from stylegan.ui.arrivals import Arrivals
from stylegan.ui.controls import widget
from stylegan.ui.session import AppContext

TOOLS = (("Directions", "directions"), ("Style mixing", "mixer"), ("Seed sheet", "sheet"), ("As code", "share"))


@dataclass(frozen=True)
class ExploreTab:
    """What other tabs may use: the stage shows a model when given {"open": name, "stamp": any new number}."""

    stage: gr.HTML


def build(context: AppContext) -> ExploreTab:
    """Make the components of the tab and wire them; called inside its gr.Tab."""
    with gr.Row(elem_id="explore"):
        with gr.Column(scale=5, min_width=300, elem_id="stage-column"):
            stage = widget("stage", Answers(context).questions())
        with gr.Column(scale=6, min_width=300, elem_id="controls-column"):
            widget("models", Arrivals(context, Path(gr.utils.get_upload_folder())).questions())
            widget("knobs")
            with gr.Tabs(elem_id="tools"):
                for title, name in TOOLS:
                    with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                        widget(name)

    gr.api(renderer_endpoint(context), api_name="render", concurrency_limit=1)
    return ExploreTab(stage)


def opened(name: str) -> dict[str, Any]:
    """The stage's order to show a model; the stamp makes it new each time."""
    return {"open": name, "stamp": time.time_ns()}


def open_snapshot(context: AppContext, path: str | None) -> dict[str, Any]:
    """The stage's order to show a training snapshot; RequestError unless it lies in the folder of runs."""
    if not path or not Path(path).resolve().is_relative_to(context.runs_root.resolve()):
        raise RequestError("That snapshot is not in the folder of runs; choose one in the Train tab.")
    return opened(str(path))


def renderer_endpoint(context: AppContext) -> Any:
    """The public `render` endpoint: a request's settings in, the path of a PNG with the request inside out."""

    def render(model: str = "cartoon-faces-64", seed: int = 0, psi: float = 1.0, request: str = "") -> dict:
        """Render one picture. `request` (a request's JSON, as in saved PNGs) overrides the other settings."""
        try:
            asked = RenderRequest.from_json(request) if request else RenderRequest(model=model, seed=seed, psi=psi)
            result = context.renderer.render(asked)
        except StyleGANError as error:
            raise gr.Error(str(error)) from error
        path = Path(gr.utils.get_upload_folder()) / f"render-{time.time_ns()}.png"
        save_png(path, result.pixels, result.request)
        return gr.FileData(path=str(path), orig_name=f"seed{asked.seed:04d}.png", mime_type="image/png").model_dump()

    return render
