"""The Explore tab: the live picture on one side, everything that changes it on the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from stylegan.errors import RequestError
from stylegan.ui.answers import Answers
from stylegan.ui.arrivals import Arrivals
from stylegan.ui.controls import widget
from stylegan.ui.endpoints import Endpoints
from stylegan.ui.errands import Errands
from stylegan.ui.findings import Findings
from stylegan.ui.keepsakes import Keepsakes
from stylegan.ui.session import AppContext
from stylegan.ui.shelf import Shelf
from stylegan.ui.views import Views

# The tabs of tools, short and few, and the widgets of each, which ask the questions of the same name.
TOOLS = (
    ("Directions", "directions", ("stack", "directions", "make")),
    ("Style mixing", "mixer", ("mixer",)),
    ("Seeds", "sheet", ("sheet", "batch")),
    ("Library", "library", ("library",)),
    ("Timeline", "timeline", ("timeline",)),
    ("Layers", "layers", ("layers",)),
    ("Share", "share", ("share",)),
)


@dataclass(frozen=True)
class ExploreTab:
    """What other tabs may use: the stage shows a model when given {"open": name, "stamp": any new number}."""

    stage: gr.HTML


def build(context: AppContext) -> ExploreTab:
    """Make the components of the tab and wire them; called inside its gr.Tab."""
    uploads, answers = Path(gr.utils.get_upload_folder()), Answers(context)
    keepsakes, findings = Keepsakes(answers), Findings(context).questions()
    asks = dict.fromkeys(("stack", "directions", "make"), findings)
    asks |= {"batch": Errands(context, uploads).questions(), "library": Shelf(answers, keepsakes).questions()}
    asks |= dict.fromkeys(("timeline", "layers"), Views(answers).questions())
    with gr.Row(elem_id="explore"):
        with gr.Column(scale=5, min_width=300, elem_id="stage-column"):
            stage = widget("stage", [*answers.questions(), *keepsakes.questions()])
            widget("region")
            widget("history")
        with gr.Column(scale=6, min_width=300, elem_id="controls-column"):
            widget("models", Arrivals(context, uploads).questions())
            widget("knobs")
            with gr.Tabs(elem_id="tools"):
                for title, name, parts in TOOLS:
                    with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                        for part in parts:
                            widget(part, asks.get(part))

    Endpoints(context).serve()
    return ExploreTab(stage)


def opened(name: str) -> dict[str, Any]:
    """The stage's order to show a model; the stamp makes it new each time."""
    return {"open": name, "stamp": time.time_ns()}


def open_snapshot(context: AppContext, path: str | None) -> dict[str, Any]:
    """The stage's order to show a training snapshot; RequestError unless it lies in the folder of runs."""
    if not path or not Path(path).resolve().is_relative_to(context.runs_root.resolve()):
        raise RequestError("That snapshot is not in the folder of runs; choose one in the Train tab.")
    return opened(str(path))
