"""The app and a browser for the tests that need both, and what a hand and an eye do there."""

from __future__ import annotations

import base64
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # milliseconds; a loaded machine is slow, not broken
PICTURE = "document.querySelector('#stage canvas').toDataURL()"
ABORTED = "AbortError: signal is aborted"
RESTING = "document.querySelector('#stage [data-shown]').dataset.busy !== 'true'"


def missing(what: str) -> None:
    """Skip, with noise, where the browser is missing; on a CI machine that is a failure."""
    message = f"{what}: the browser tests did not run; install Chromium and playwright, or set CHROMIUM to its path"
    if os.environ.get("CI"):
        pytest.fail(message)
    warnings.warn(message, stacklevel=2)
    pytest.skip(message)


@contextmanager
def open_browser() -> Iterator[Any]:
    """A Chromium without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    path = os.environ.get("CHROMIUM") or next(filter(None, found), None)
    if not path or not Path(path).exists():
        missing("no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    browser: Any,
    url: str,
    width: int = 1280,
    height: int = 800,
    ready: str = "#stage [data-shown]",
    profile: Any = None,
    **options: Any,
) -> Iterator[Any]:
    """A page on the app, with a fresh profile unless one is given (which spares loading all scripts anew).

    On leaving it, anything that went wrong in its console fails the test.
    """
    context = profile or browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    problems: list[str] = []
    errors: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    try:
        page.goto(url)
        page.wait_for_selector(ready)
        yield page
        problems += faults(errors)
        assert not problems, problems
    finally:
        page.close()
        if profile is None:
            context.close()


def faults(errors: list[str]) -> list[str]:
    """What the console calls errors, without Gradio's own two lines on the request that a page aborts when it is left.
    """
    return [text for text, before in zip(errors, ["", *errors], strict=False) if not text.startswith(ABORTED)
            and not (before.startswith(ABORTED) and text.startswith("Unexpected error Connection errored out"))]


@contextmanager
def running_app(checkpoints: Path, runs: Path, **settings: Any) -> Iterator[str]:
    """The whole app on a free port of this machine, in this process; yields its address."""
    import app as entry

    for name, value in entry.ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from stylegan.render import Renderer
    from stylegan.ui import app, theme
    from stylegan.ui.session import AppContext

    renderer = Renderer(checkpoints, "cpu", roots=[runs])
    context = AppContext(renderer, renderer.folder, runs, **settings)
    demo = app.build(context)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **theme.launch_options(context))
    try:
        yield url
    finally:
        demo.close()


def drop(page: Any, selector: str, name: str, data: bytes, kind: str = "image/png") -> None:
    """Drop a file on an element, as a hand would."""
    transfer = page.evaluate_handle(
        """([name, data, kind]) => {
            const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(data), each => each.charCodeAt(0));
            transfer.items.add(new File([bytes], name, {type: kind}));
            return transfer;
        }""",
        [name, base64.b64encode(data).decode(), kind],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def picture(page: Any) -> str:
    """The pixels that the canvas shows now."""
    return page.evaluate(PICTURE)


def changes(page: Any, act: Callable[[], Any]) -> str:
    """Do something and wait until the canvas shows another picture and no newer one is on its way; returns it."""
    before = picture(page)
    act()
    page.wait_for_function(f"before => {PICTURE} !== before && {RESTING}", arg=before)
    return picture(page)


def becomes(page: Any, wanted: str) -> None:
    """Wait until the canvas shows a certain picture."""
    page.wait_for_function(f"wanted => {PICTURE} === wanted", arg=wanted)


def says(page: Any, text: str) -> None:
    """Wait until the page says a sentence."""
    page.wait_for_function("text => document.querySelector('.sg-said').textContent.includes(text)", arg=text)


def slide(page: Any, selector: str, share: float) -> None:
    """Drag the thumb of a slider with the mouse to a share of its length."""
    thumb = page.locator(f"{selector} input[type=range]")
    box, value = thumb.bounding_box(), thumb.evaluate("node => (node.value - node.min) / (node.max - node.min)")
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8 + value * (box["width"] - 16), y)
    page.mouse.down()
    page.mouse.move(box["x"] + 8 + share * (box["width"] - 16), y, steps=6)
    page.mouse.up()
