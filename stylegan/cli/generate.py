"""`generate`: pictures from seeds or from a saved request, each with its request inside."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.errors import RequestError
from stylegan.options import add_arguments as add_options
from stylegan.options import from_namespace, options_of
from stylegan.request import RenderRequest
from stylegan.shortcode import from_sidecar, is_code, read_request_text

if TYPE_CHECKING:
    from stylegan.render import Renderer

HELP = "Write pictures of seeds, or exactly the picture of a saved request, as PNG files."
ADDED = ("mix", "edits")  # what may go with a saved request: it comes on top


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `generate`: one per setting of a request, and where the pictures go."""
    parser.add_argument("--seeds", default="0", metavar="1,2,5-10", help="seeds and ranges of seeds (default 0)")
    add_options(parser, RenderRequest, skip=("seed",))
    parser.add_argument("--request", metavar="CODE|JSON|FILE", help="render a saved request again, exactly: a code, a "
                        "link, a JSON text, a JSON file or a saved PNG; --mix and --edit come on top of it")
    parser.add_argument("--states", metavar="DIR|FILE.zip", help="render every saved PNG or JSON of a folder or zip "
                        "into --zip, with --mix and --edit on top of each")
    parser.add_argument("--strip", metavar="NAME", help="write the picture with a direction from -3 to +3 standard "
                        "deviations, side by side, to --grid")
    parser.add_argument("--out", metavar="DIR", help="folder for DIR/seed0000.png and so on (default out, or none with "
                        "--grid or --zip); with a single picture also a file ending in .png")
    parser.add_argument("--grid", metavar="FILE.png", help="write all pictures as one sheet")
    parser.add_argument("--zip", metavar="FILE.zip", help="write all pictures with their requests into one zip")
    parser.add_argument("--columns", type=int, metavar="N", help="columns of the sheet (default 10, or fewer pictures)")
    parser.add_argument("--sidecar", action="store_true", help="also write each request as a JSON file beside its PNG")
    parser.add_argument("--portable", action="store_true", help="bake directions of your own into the files, so that "
                        "another machine that has the model can render them")
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--device", default="auto", help="where to render: auto, cpu, cuda (default auto)")


def run(args: argparse.Namespace) -> int:
    """Render and write every picture, naming each file on its own line."""
    if args.states and not args.zip:
        raise RequestError("--states writes many pictures, so name their file with --zip FILE.zip.")
    requests = [] if args.states else _requests(args)
    out = args.out or (None if args.grid or args.zip else "out")
    single = out is not None and out.lower().endswith(".png")
    if single and len(requests) > 1:
        raise RequestError("--out must be a folder when there are several pictures; leave .png out.")
    if args.grid and not args.grid.lower().endswith(".png"):
        raise RequestError(f"--grid must name a PNG file, not {args.grid}.")
    if args.columns is not None and args.columns < 1:
        raise RequestError("--columns must be at least 1.")

    from stylegan.render import Renderer

    renderer = Renderer(args.checkpoints, args.device)
    if args.zip:
        _write_zip(renderer, requests, args)
    if out is not None or args.grid:
        _write(renderer, requests, out, single, args)
    return 0


def _write(renderer: Renderer, requests: list[RenderRequest], out: str | None, single: bool,
           args: argparse.Namespace) -> None:
    """Render the requests one by one; write each picture, and the sheet when it is asked for."""
    import numpy as np

    from stylegan.pixels import grid, save_png

    tiles = []
    for request in requests:
        result = renderer.render(request)
        if out is not None:
            path = Path(out) if single else Path(out) / f"seed{request.seed:04d}.png"
            kept = _kept(renderer, result.request, args)
            print(save_png(path, result.pixels, kept))
            if args.sidecar:
                print(_write_sidecar(path.with_suffix(".json"), kept))
        if args.grid:
            tiles.append(result.pixels)
    if args.grid:
        columns = args.columns or (len(tiles) if args.strip else min(10, len(tiles)))
        print(save_png(args.grid, grid(np.stack(tiles), columns)))


def _write_sidecar(path: Path, request: RenderRequest) -> Path:
    """Write a request beside its picture."""
    from stylegan.files import write_atomic
    from stylegan.shortcode import to_sidecar

    return write_atomic(path, to_sidecar(request).encode())


def _kept(renderer: Renderer, request: RenderRequest, args: argparse.Namespace) -> RenderRequest:
    """The request as it goes into a file, with a word on stderr about what cannot travel."""
    if not args.portable:
        return request
    from stylegan.portable import portable

    request, needed = portable(renderer, request)
    if needed:
        print(f"note: send these directions along, they cannot be baked: {', '.join(needed)}", file=sys.stderr)
    return request


def _write_zip(renderer: Renderer, requests: list[RenderRequest], args: argparse.Namespace) -> None:
    """Render seeds, or saved states with a stack on top, into one zip, counting on stderr."""
    from stylegan.batch import State, batch, count_states, saved_states

    if args.states:
        stack = RenderRequest(mix=tuple(getattr(args, "mix", ())), edits=tuple(getattr(args, "edits", ())))
        states, total = saved_states(args.states, stack), count_states(args.states)
    else:
        states, total = [State(f"seed{each.seed:04d}", each) for each in requests], len(requests)
    step = None
    for step in batch(renderer, states, args.zip, total):
        print(f"\r{step.done} of {step.total}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(args.zip)
    if step is not None and step.num_problems:
        print(f"note: {step.num_problems} could not be rendered; problems.txt in the zip says why", file=sys.stderr)


def _requests(args: argparse.Namespace) -> list[RenderRequest]:
    """The requests that the flags ask for, each checked."""
    from stylegan.seeds import parse_seeds

    if args.request is None:
        base = from_namespace(RenderRequest, args)
        return _stripped([base.replace(seed=seed) for seed in parse_seeds(args.seeds)], args.strip)
    given = [name for name in options_of(RenderRequest) if hasattr(args, name) and name not in ("model", *ADDED)]
    if given or args.seeds != "0":
        raise RequestError(f"--request says everything by itself; leave {given[0] if given else 'seeds'} out.")
    request = saved_request(args.request)
    request = request.replace(**{name: getattr(request, name) + tuple(getattr(args, name, ())) for name in ADDED})
    return _stripped([request.replace(model=args.model) if hasattr(args, "model") else request], args.strip)


def _stripped(requests: list[RenderRequest], direction: str | None) -> list[RenderRequest]:
    """The requests, or with a direction the seven of its strip."""
    if direction is None:
        return requests
    from stylegan.batch import strip_of

    return [each for request in requests for each in strip_of(request, direction)]


def saved_request(text: str) -> RenderRequest:
    """The request in a code, a link, a JSON text, a JSON file or a saved PNG."""
    if text.lstrip().startswith("{") or is_code(text):
        return read_request_text(text)
    path = Path(text)
    if path.suffix.lower() == ".png":
        from stylegan.pixels import read_request

        return read_request(path)
    try:
        return from_sidecar(path.read_text("utf-8"))[0]
    except (OSError, ValueError) as error:
        raise RequestError(f"{text[:80]} is neither a request in JSON nor a file that holds one.") from error
