"""`generate`: pictures from seeds or from a saved request, each with its request inside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.errors import RequestError
from stylegan.options import add_arguments as add_options
from stylegan.options import from_namespace, options_of
from stylegan.request import RenderRequest

if TYPE_CHECKING:
    from stylegan.render import Renderer

HELP = "Write pictures of seeds, or exactly the picture of a saved request, as PNG files."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `generate`: one per setting of a request, and where the pictures go."""
    parser.add_argument("--seeds", default="0", metavar="1,2,5-10", help="seeds and ranges of seeds (default 0)")
    add_options(parser, RenderRequest, skip=("seed",))
    parser.add_argument("--request", metavar="JSON|FILE", help="render the request in a JSON text, a JSON file or a "
                        "saved PNG again, exactly; only --out and --model go with it")
    parser.add_argument("--out", metavar="DIR", help="folder for DIR/seed0000.png and so on (default out, or none with "
                        "--grid); with a single picture also a file ending in .png")
    parser.add_argument("--grid", metavar="FILE.png", help="write all pictures as one sheet")
    parser.add_argument("--columns", type=int, metavar="N", help="columns of the sheet (default 10, or fewer pictures)")
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--device", default="auto", help="where to render: auto, cpu, cuda (default auto)")


def run(args: argparse.Namespace) -> int:
    """Render and write every picture, naming each file on its own line."""
    requests = _requests(args)
    out = args.out or (None if args.grid else "out")
    single = out is not None and out.lower().endswith(".png")
    if single and len(requests) > 1:
        raise RequestError("--out must be a folder when there are several pictures; leave .png out.")
    if args.grid and not args.grid.lower().endswith(".png"):
        raise RequestError(f"--grid must name a PNG file, not {args.grid}.")
    if args.columns is not None and args.columns < 1:
        raise RequestError("--columns must be at least 1.")

    from stylegan.render import Renderer

    _write(Renderer(args.checkpoints, args.device), requests, out, single, args)
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
            print(save_png(path, result.pixels, result.request))
        if args.grid:
            tiles.append(result.pixels)
    if args.grid:
        print(save_png(args.grid, grid(np.stack(tiles), args.columns or min(10, len(tiles)))))


def _requests(args: argparse.Namespace) -> list[RenderRequest]:
    """The requests that the flags ask for, each checked."""
    from stylegan.seeds import parse_seeds

    if args.request is None:
        base = from_namespace(RenderRequest, args)
        return [base.replace(seed=seed) for seed in parse_seeds(args.seeds)]
    given = [name for name in options_of(RenderRequest) if hasattr(args, name) and name != "model"]
    if given or args.seeds != "0":
        raise RequestError(f"--request says everything by itself; leave {given[0] if given else 'seeds'} out.")
    request = _saved_request(args.request)
    return [request.replace(model=args.model) if hasattr(args, "model") else request]


def _saved_request(text: str) -> RenderRequest:
    """The request in a JSON text, a JSON file or a saved PNG."""
    if text.lstrip().startswith("{"):
        return RenderRequest.from_json(text)
    path = Path(text)
    if path.suffix.lower() == ".png":
        from stylegan.pixels import read_request

        return read_request(path)
    try:
        return RenderRequest.from_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{text[:80]} is neither a request in JSON nor a file that holds one.") from error
