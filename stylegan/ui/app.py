"""The whole page: its head, the Explore tab and the Train tab."""

from __future__ import annotations

import logging
import threading
from typing import Any

import gradio as gr

from stylegan import background
from stylegan.errors import StyleGANError
from stylegan.ui import explore, train
from stylegan.ui.answers import first_request
from stylegan.ui.controls import widget
from stylegan.ui.session import AppContext

log = logging.getLogger(__name__)


def build(context: AppContext) -> gr.Blocks:
    """The app over a context; launch it with `theme.launch_options(context)`."""
    with gr.Blocks(
        title="StyleGAN Studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)
    ) as demo:
        widget("brand")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Explore", id="explore"):
                explore_tab = explore.build(context)
            with gr.Tab("Train", id="train"):
                train_tab = train.build(context)

        def on_open_snapshot(path: str | None) -> dict[Any, Any]:
            try:
                return {explore_tab.stage: explore.open_snapshot(context, path), tabs: gr.Tabs(selected="explore")}
            except StyleGANError as error:
                raise gr.Error(str(error)) from error

        train_tab.opened.success(
            on_open_snapshot,
            inputs_kwargs={"path": train_tab.open_path},
            outputs=[explore_tab.stage, tabs],
            show_progress="hidden",
            api_visibility="private",
        )
    demo.queue(max_size=64)
    return demo


def preload(context: AppContext) -> threading.Thread:
    """Load the first model and draw one picture in the background, so that the first page finds everything warm."""

    def load() -> None:
        names = [entry.name for entry in context.models.list()]
        if not names:
            return
        try:
            context.renderer.render(first_request(names))
        except StyleGANError as error:
            log.warning("the first model was not loaded: %s", error)

    return background.start(load, "preload")
