"""`directions`: find ways to move in W that mean something, and keep them beside the model."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.errors import RequestError
from stylegan.options import add_arguments as add_options
from stylegan.options import check, from_namespace, option

if TYPE_CHECKING:
    from stylegan.directions.effects import EffectMatrix
    from stylegan.latents import Direction

HELP = "Find directions of a model (PCA, SeFa, or named ones from labelled pictures) and save them beside it."


def _parse_layers(text: str) -> tuple[int, int]:
    """`2` or `0-3` as (first, last); RequestError when it is neither."""
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise RequestError(f"--layers takes FIRST-LAST like 0-3, not {text[:40]!r}.")
    return int(first), int(last or first)


def _parse_names(text: str) -> tuple[tuple[str, str], ...]:
    """`old=new,old=new` as pairs; RequestError when one is not a pair. A label's own '=' may stay in it."""
    pairs = tuple(tuple(part.strip().rpartition("=")[::2]) for part in text.split(",") if part.strip())
    if not all(old and new for old, new in pairs):
        raise RequestError(f"--rename takes LABEL=NAME,LABEL=NAME, not {text[:60]!r}.")
    return pairs


@dataclass(frozen=True)
class DirectionsOptions:
    """What `directions` can be told."""

    method: str = option(MISSING, "pca (GANSpace), sefa (closed form), attributes (from labels or the "
                         "model's classes), or all of them", choices=("pca", "sefa", "attributes", "all"))
    data: str = option("", "labelled folder or zip, or the name of a shipped sample set", metavar="DIR|ZIP")
    num: int = option(16, "how many PCA or SeFa directions", low=1, high=512)
    samples: int = option(0, "latents to sample (0: 10000 for pca, 4000 otherwise)", low=0, high=1_000_000)
    seed: int = option(0, "seed of the sampling", low=0, high=2**32 - 1)
    layers: tuple[int, int] | None = option(None, "layers that SeFa factorises", metavar="FIRST-LAST",
                                            parse=_parse_layers)
    condition: bool = option(True, "keep named directions from moving the other attributes")
    rename: tuple[tuple[str, str], ...] = option((), "other names for labels, LABEL=NAME,...", metavar="LABEL=NAME",
                                     parse=_parse_names)
    matrix: str = option("", "also write the measured effects as Markdown", metavar="FILE.md")

    def __post_init__(self) -> None:
        check(self)
        if self.method == "all" and not self.data:
            raise RequestError("--method all needs labelled pictures; name them with --data.")
        if self.layers is not None and self.method != "sefa":
            raise RequestError("--layers goes with --method sefa; named directions choose their layers by themselves.")
        if self.matrix and not self.data:
            raise RequestError("--matrix reports on labelled pictures; name them with --data.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `directions`."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint file, or name of a model in the folder")
    add_options(parser, DirectionsOptions)
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Find directions, merge them into the model's file, and print them."""
    options = from_namespace(DirectionsOptions, args)

    from stylegan.checkpoint.file import build, model_hash, read_any
    from stylegan.checkpoint.folder import ModelFolder
    from stylegan.directions.build import METHODS, Recipe, find_directions
    from stylegan.directions.store import directions_path, keep_directions, tied
    from stylegan.files import write_atomic

    path = ModelFolder(args.checkpoints).find(args.model)
    checkpoint = read_any(path)
    recipe = Recipe(METHODS if options.method == "all" else (options.method,), options.num, options.samples,
                    options.seed, options.layers, options.condition, options.rename)
    found, matrix = find_directions(build(checkpoint), recipe, options.data or None,
                                    lambda step: print(step, file=sys.stderr))
    found = tied(found, model_hash(checkpoint))
    out = directions_path(path)
    total, replaced = keep_directions(out, found)
    if replaced:
        print(f"{out.name} belonged to another model and was replaced.", file=sys.stderr)
    if options.matrix and matrix is not None:
        write_atomic(Path(options.matrix), matrix.to_markdown().encode())
    if args.json:
        print(json.dumps(_as_json(out, found, matrix), indent=2))
    else:
        _print(found, matrix)
        print(f"{out}: {total} directions")
    return 0


def _as_json(out: Path, found: list[Direction], matrix: EffectMatrix | None) -> dict:
    """What was found, for other programs."""
    about = {"file": str(out), "directions": [
        {"name": direction.name, "kind": direction.kind, "layers": list(direction.layers), "info": direction.info}
        for direction in found]}  # fmt: skip
    if matrix is not None:
        about["matrix"] = {"attributes": list(matrix.attributes), "names": list(matrix.names),
                           "values": matrix.values.tolist(), "before": matrix.before.tolist(),
                           "dropped": dict(matrix.dropped)}  # fmt: skip
    return about


def _print(found: list[Direction], matrix: EffectMatrix | None) -> None:
    """A table of directions: name, kind, layers, and what is known of each."""
    width = max(len(direction.name) for direction in found)
    for direction in found:
        first, last = direction.layers
        info = direction.info
        notes = [f"{info['share']:.1%} of the spread"] if "share" in info else []
        notes += [f"{name} {value:+.2f}" for name, value in info.get("effects", {}).items()]
        print(f"{direction.name:<{width}}  {direction.kind:<9}  layers {first}-{last:<3}  {', '.join(notes)}")
    for name, reason in matrix.dropped if matrix is not None else ():
        print(f"given up: {name}, {reason}")
