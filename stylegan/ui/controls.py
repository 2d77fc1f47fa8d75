"""Our front-end pieces as Gradio components: one script per widget, all reading the one session in studio.js."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from stylegan.errors import StyleGANError

STATIC = Path(__file__).parent / "static"
log = logging.getLogger(__name__)


def widget(name: str, questions: list[Callable[[Any], dict]] | None = None, value: Any = None) -> gr.HTML:
    """The widget of static/NAME.js; `questions` are the Python functions that its script may call.

    The template is constant and the script only ever writes text as text, so nothing that a person typed is run.
    """
    return gr.HTML(
        value,
        html_template=f'<div class="sg-{name}"></div>',
        js_on_load=script(name),
        elem_id=name,
        elem_classes=["sg-widget"],
        apply_default_css=False,
        server_functions=[sentence(answer) for answer in questions or ()],
    )


def script(name: str) -> str:
    """The text of static/NAME.js."""
    return (STATIC / f"{name}.js").read_text(encoding="utf-8")


def sentence(answer: Callable[[Any], dict]) -> Callable[[Any], dict]:
    """A question whose mistakes come back as {"error": one sentence}, so that the page lives on."""

    @functools.wraps(answer)
    def answered(question: Any = None) -> dict:
        try:
            return answer(question)
        except StyleGANError as error:
            return {"error": str(error)}
        except Exception:
            log.exception("the question %r failed", answer.__name__)
            return {"error": "Something went wrong on our side; the server's log tells more. Nothing here is lost."}

    return answered
