"""`directions`: find ways to move that mean something, and keep them beside the model."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.errors import RequestError
from stylegan.options import add_arguments as add_options
from stylegan.options import check, from_namespace, option
from stylegan.seeds import parse_seeds

if TYPE_CHECKING:
    from stylegan.directions.effects import EffectMatrix
    from stylegan.latents import Direction
    from stylegan.networks.generator import Generator

HELP = "Find directions of a model and save them beside it, or carry them over as a pack."
FOUND = ("pca", "sefa", "attributes", "all")  # kept in NAME.directions.safetensors
MADE = ("pair", "sorted", "text")  # kept in NAME.mine.safetensors


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

    method: str = option("", "pca (GANSpace), sefa (closed form), attributes (from labels or the model's classes), all "
                         "of these; styles (lists the strongest S channels); pair or sorted (from pictures), text",
                         choices=("", *FOUND, "styles", *MADE))
    data: str = option("", "labelled folder or zip, or the name of a shipped sample set", metavar="DIR|ZIP")
    num: int = option(16, "how many PCA or SeFa directions, or S channels", low=1, high=512)
    samples: int = option(0, "latents to sample (0: 10000 for pca, 4000 otherwise)", low=0, high=1_000_000)
    seed: int = option(0, "seed of the sampling", low=0, high=2**32 - 1)
    layers: tuple[int, int] | None = option(None, "layers that SeFa factorises", metavar="FIRST-LAST",
                                            parse=_parse_layers)
    condition: bool = option(True, "keep named directions from moving the other attributes")
    rename: tuple[tuple[str, str], ...] = option((), "other names for labels, LABEL=NAME,...", metavar="LABEL=NAME",
                                     parse=_parse_names)
    matrix: str = option("", "also write the measured effects as Markdown", metavar="FILE.md")
    name: str = option("", "name of the direction of pair, sorted or text")
    yes: str = option("", "sorted: seeds of pictures that have it", metavar="SEEDS")
    no: str = option("", "sorted: seeds of pictures that have it not", metavar="SEEDS")
    start: str = option("", "pair: seeds where the way begins", flag="--from", metavar="SEEDS")
    end: str = option("", "pair: seeds where the way ends", flag="--to", metavar="SEEDS")
    channels: int = option(0, "sorted, text: move only so many S channels (0: sorted moves W, text 20)", low=0,
                           high=4096)
    against: str = option("", "pair, sorted: the model's directions that it must leave alone", metavar="NAME,NAME")
    text: str = option("", "text: what to move towards, like 'a smiling face'")
    neutral: str = option("a face", "text: what to move away from")
    clip: str = option("", "text: your own weights file for open_clip; nothing is downloaded", metavar="FILE")
    clip_model: str = option("ViT-B-32", "text: open_clip's name of that model")
    export: str = option("", "write the model's directions, shipped and your own, as a pack", metavar="PACK.json")
    pack: str = option("", "add the directions of a pack to your own", flag="--import", metavar="PACK")

    def __post_init__(self) -> None:
        check(self)
        if not (self.method or self.export or self.pack):
            raise RequestError("Say what to do: --method, --export or --import; --help lists the methods.")
        if self.method == "all" and not self.data:
            raise RequestError("--method all needs labelled pictures; name them with --data.")
        if self.layers is not None and self.method != "sefa":
            raise RequestError("--layers goes with --method sefa; named directions choose their layers by themselves.")
        if self.matrix and not self.data:
            raise RequestError("--matrix reports on labelled pictures; name them with --data.")
        for method, flags, needs in (("sorted", "--yes and --no", self.yes and self.no),
                                     ("pair", "--from and --to", self.start and self.end),
                                     ("text", "--text and --clip", self.text and self.clip)):
            if self.method == method and not needs:
                raise RequestError(f"--method {method} needs {flags}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `directions`."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint file, or name of a model in the folder")
    add_options(parser, DirectionsOptions)
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Do what the flags ask for: import, find, export; and print what was found."""
    options = from_namespace(DirectionsOptions, args)

    from stylegan.checkpoint.file import build, model_hash, read_any
    from stylegan.checkpoint.folder import ModelFolder

    path = ModelFolder(args.checkpoints).find(args.model)
    checkpoint = read_any(path)
    generator, digest = build(checkpoint), model_hash(checkpoint)
    if options.pack:
        _import(path, generator, digest, options.pack)
    if options.method in FOUND:
        _find(path, generator, digest, options, args.json)
    elif options.method == "styles":
        from stylegan.directions.channels import find_channels

        _show(None, find_channels(generator, options.num, seed=options.seed), None, args.json)
    elif options.method:
        _make(path, generator, digest, options, args)
    if options.export:
        _export(path, digest, options.export, args.checkpoints)
    return 0


def _find(path: Path, generator: Generator, digest: str, options: DirectionsOptions, as_json: bool) -> None:
    """Find directions of the whole model, merge them into its file, and print them."""
    from stylegan.directions.build import METHODS, Recipe, find_directions
    from stylegan.directions.store import directions_path, keep_directions, tied
    from stylegan.files import write_atomic

    recipe = Recipe(METHODS if options.method == "all" else (options.method,), options.num, options.samples,
                    options.seed, options.layers, options.condition, options.rename)
    found, matrix = find_directions(generator, recipe, options.data or None, lambda step: print(step, file=sys.stderr))
    out = directions_path(path)
    total, replaced = keep_directions(out, tied(found, digest))
    if replaced:
        print(f"{out.name} belonged to another model and was replaced.", file=sys.stderr)
    if options.matrix and matrix is not None:
        write_atomic(Path(options.matrix), matrix.to_markdown().encode())
    _show(out, found, matrix, as_json)
    if not as_json:
        print(f"{out}: {total} directions")


def _make(path: Path, generator: Generator, digest: str, options: DirectionsOptions, args: argparse.Namespace) -> None:
    """Make one direction from pictures or words, and add it to the user's own."""
    from stylegan.directions.store import add_direction, all_directions, mine_path, tied
    from stylegan.errors import DirectionError

    known, _ = all_directions(path, digest, args.checkpoints)
    against = []
    for name in filter(None, (part.strip() for part in options.against.split(","))):
        if name not in known:
            raise DirectionError(f"This model has no direction {name[:40]!r} to leave alone.")
        against.append(known[name])
    (made,) = tied([_made(generator, options, against)], digest)
    add_direction(mine_path(path), made)
    _show(mine_path(path), [made], None, args.json)


def _made(generator: Generator, options: DirectionsOptions, against: list[Direction]) -> Direction:
    """The direction that the options describe; seeds are pictures of the first class of a conditional model."""
    from stylegan.directions.pictures import find_difference, find_sorted
    from stylegan.seeds import z_of_seeds

    if options.method == "text":
        from stylegan.directions.text import OpenClip, search_text

        encoder, direction = OpenClip(options.clip, options.clip_model), None
        for step in search_text(generator, encoder, options.text, options.neutral, options.name or "text",
                                options.channels or 20, seed=options.seed):
            print(step, file=sys.stderr)
            direction = step.direction
        return direction

    def pictures(seeds: str):
        label = 0 if generator.num_classes else None
        return generator.map(z_of_seeds(parse_seeds(seeds), generator.z_dim), label)

    if options.method == "pair":
        return find_difference(generator, pictures(options.end), pictures(options.start), options.name or "pair",
                               against)
    return find_sorted(generator, pictures(options.yes), pictures(options.no), options.name or "sorted", against,
                       options.channels or None)


def _import(path: Path, generator: Generator, digest: str, pack: str) -> None:
    """Add the directions of a pack to the user's own, all or none."""
    from stylegan.directions.packs import MAX_PACK, read_pack
    from stylegan.directions.store import add_directions, mine_path
    from stylegan.directions.styles import style_ranges
    from stylegan.errors import DirectionError

    try:
        with open(pack, "rb") as file:
            data = file.read(MAX_PACK + 1)
    except OSError as error:
        raise DirectionError(f"The pack {Path(pack).name} cannot be read: {error.strerror or error}.") from error
    found = read_pack(data, digest, (generator.num_ws, generator.w_dim),
                      [width for _, _, width in style_ranges(generator)])
    add_directions(mine_path(path), found)
    print(f"{mine_path(path)}: {len(found)} directions added", file=sys.stderr)


def _export(path: Path, digest: str, pack: str, folder: str) -> None:
    """Write the model's shipped and own directions as a pack."""
    from stylegan.directions.packs import write_pack
    from stylegan.directions.store import FOUND, all_directions
    from stylegan.errors import DirectionError

    known, problem = all_directions(path, digest, folder)
    chosen = [direction for direction in known.values() if direction.info["source"] != FOUND]
    if not chosen:
        raise DirectionError(problem or "This model has no directions to export; find some with --method.")
    print(f"{write_pack(pack, chosen)}: {len(chosen)} directions", file=sys.stderr)


def _show(out: Path | None, found: list[Direction], matrix: EffectMatrix | None, as_json: bool) -> None:
    """Print what was found, as a table or as JSON."""
    if as_json:
        print(json.dumps(_as_json(out, found, matrix), indent=2))
    else:
        _print(found, matrix)


def _as_json(out: Path | None, found: list[Direction], matrix: EffectMatrix | None) -> dict:
    """What was found, for other programs."""
    about = {"file": str(out) if out else None, "directions": [
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
        notes += [f"slope {info['change']} levels"] if "change" in info else []
        notes += [f"separation {info['separation']:.2f}"] if "separation" in info else []
        notes += [f"{info['purity']} channels"] if info.get("purity", 1) > 1 else []
        notes += [f"{name} {value:+.2f}" for name, value in info.get("effects", {}).items()]
        print(f"{direction.name:<{width}}  {direction.kind:<9}  layers {first}-{last:<3}  {', '.join(notes)}")
    for name, reason in matrix.dropped if matrix is not None else ():
        print(f"given up: {name}, {reason}")
