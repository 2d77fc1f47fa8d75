"""Start StyleGAN Studio: `python app.py`, then open http://127.0.0.1:7860. A Space runs this file too."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan import background
from stylegan.device import tune_allocator

if TYPE_CHECKING:
    from stylegan.ui.session import AppContext

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; what others could misuse is off unless asked for when they can reach the page."""
    space = bool(os.environ.get("SPACE_ID"))
    parser = argparse.ArgumentParser(prog="python app.py", description="Explore and train StyleGAN in the browser.")
    parser.add_argument(
        "--host", default="0.0.0.0" if space else "127.0.0.1", help="address to listen on (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on, 0 for any free one (%(default)s)")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), metavar="DIR", help="folder of models (%(default)s)"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of training runs (%(default)s)"
    )
    parser.add_argument(
        "--library", type=Path, default=Path("library"), metavar="DIR", help="folder of favourites (%(default)s)"
    )
    parser.add_argument(
        "--clip", type=Path, metavar="FILE", help="your own CLIP weights (ViT-B-32), for directions from words"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (%(default)s)")
    parser.add_argument(
        "--training",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the page may start training (only where no one else can reach it)",
    )
    parser.add_argument(
        "--uploads",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the page may upload and download models (only where no one else can reach it)",
    )
    parser.add_argument(
        "--allow-data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder that training may read pictures from; may be given again",
    )
    parser.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=not os.environ.get("SPACES_ZERO_GPU"),
        help="draw while a control is dragged, not only when it is let go",
    )
    options = parser.parse_args(argv)
    private = options.host in LOOPBACK
    options.public = not private
    options.training = private if options.training is None else options.training
    options.uploads = private if options.uploads is None else options.uploads
    return options


def main(argv: list[str] | None = None) -> int:
    """Build the app and serve it until it is stopped."""
    options = arguments(argv)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    tune_allocator()
    from stylegan.errors import StyleGANError
    from stylegan.render import Renderer
    from stylegan.ui import app, theme
    from stylegan.ui.session import AppContext

    try:
        renderer = Renderer(options.checkpoints, options.device, roots=[options.runs])
    except StyleGANError as error:
        print(error, file=sys.stderr)
        return 2
    context = AppContext(
        renderer=renderer,
        models=renderer.folder,
        runs_root=options.runs,
        data_roots=tuple(options.allow_data),
        allow_training=options.training,
        allow_uploads=options.uploads,
        live=options.live,
        public=options.public,
        library=options.library,
        clip=options.clip,
    )
    background.start(partial(_say_speed, context, app.preload(context)), "doctor")
    if options.public:
        doors = f"Training is {_on(options.training)} (--training), uploads are {_on(options.uploads)} (--uploads)"
        print(f"Note: others can reach {options.host}. {doors}; there is no password.", file=sys.stderr)
    demo, port = app.build(context), options.port or None
    try:
        demo.launch(server_name=options.host, server_port=port, **theme.launch_options(context))
    except OSError as error:
        print(f"{options.host}:{options.port} cannot be listened on ({error}); choose --port.", file=sys.stderr)
        return 2
    return 0


def _say_speed(context: AppContext, preload: threading.Thread) -> None:
    """One line in the log, once the first model is there: what it is drawn with, how quickly, and what would help."""
    from stylegan.doctor import diagnose
    from stylegan.errors import StyleGANError
    from stylegan.ui.answers import first_request

    preload.join()
    names = [entry.name for entry in context.models.list()]
    try:
        diagnosis = diagnose(context.renderer, first_request(names).model) if names else None
    except StyleGANError:  # the preload has said why
        return
    if diagnosis:
        print(" ".join([diagnosis.line, *diagnosis.advice]), file=sys.stderr, flush=True)


def _on(state: bool) -> str:
    """A switch in words."""
    return "on" if state else "off"


if __name__ == "__main__":
    sys.exit(main())
