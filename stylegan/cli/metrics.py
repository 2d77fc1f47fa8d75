"""`metrics`: how close a model's pictures are to pictures it never saw, how varied they are, and whether it copies."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan.errors import RequestError
from stylegan.options import add_arguments as add_options
from stylegan.options import check, from_namespace, option

if TYPE_CHECKING:
    from stylegan.data.images import ImageSet
    from stylegan.metrics.features import Extractor
    from stylegan.metrics.memorisation import Pairs

_SEEN = {
    True: ", which the model never saw",
    False: "; the model was trained on all of them",
    None: "; whether the model saw those is not known",
}
HELP = "Judge a model: quality, variety and memorisation, each beside what real pictures score."


@dataclass(frozen=True)
class MetricsOptions:
    """What `metrics` can be told."""

    data: str = option(MISSING, "folder or zip of pictures, or the name of a shipped sample set", metavar="DIR|ZIP")
    held_out: float = option(0.1, "share of the pictures to judge against, the same ones that training holds out; "
                             "0 judges against all", low=0, high=0.9)  # fmt: skip
    num: int = option(2000, "pictures to generate and judge", low=4, high=50_000)
    psi: float = option(1.0, "truncation; 1 judges the whole model", low=-1, high=2)
    seed: int = option(0, "first seed", low=0, high=2**32 - 1)
    pairs: str = option("", "picture to write: the closest copies beside their training pictures", metavar="FILE.png")
    features: str = option("", "your own Inception v3 or DINOv2 state dict (.pth, .safetensors); adds FID and PPL",
                           metavar="FILE")  # fmt: skip
    validate: bool = option(False, "judge no model but the metrics: what damaged real pictures score")
    device: str = option("auto", "where to generate: auto, cpu, cuda")

    def __post_init__(self) -> None:
        check(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `metrics`."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="checkpoint file, or name of a model in the folder")
    add_options(parser, MetricsOptions)
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Print one line a metric and the seconds it all took, or all of it as JSON; progress goes to stderr."""
    options = from_namespace(MetricsOptions, args)

    from stylegan.data.images import sample_sets
    from stylegan.metrics.weights import load_extractor

    source = sample_sets().get(options.data, options.data)
    extractor = load_extractor(options.features) if options.features else None
    if options.validate:
        return _validate(options, source, extractor, args.json)
    if args.model is None:
        raise RequestError("Name the model to judge, or use --validate to judge the metrics themselves.")
    return _judge(options, source, extractor, args)


def _judge(options: MetricsOptions, source: str | Path, extractor: Extractor | None, args: argparse.Namespace) -> int:
    """One model against the held-out pictures."""
    from stylegan.checkpoint.file import build, read_any
    from stylegan.checkpoint.folder import ModelFolder
    from stylegan.data.images import open_images
    from stylegan.device import pick_device
    from stylegan.metrics.evaluate import evaluate

    started = time.monotonic()
    path = ModelFolder(args.checkpoints).find(args.model)
    checkpoint = read_any(path)
    generator = build(checkpoint).to(pick_device(options.device))
    images = open_images(source, generator.resolution, img_channels=generator.img_channels, on_progress=_opening)
    train, held_out = images.split(options.held_out)
    closest: list[Pairs] = []
    reports = evaluate(generator, train, held_out, options.num, options.seed, options.psi,
                       extractor=extractor, on_progress=_show, on_pairs=closest.append)  # fmt: skip
    unseen = _unseen(checkpoint.provenance, images, train, held_out)
    seconds = time.monotonic() - started
    pairs = closest[0]
    if options.pairs:
        _write_pairs(options.pairs, pairs)
    if args.json:
        about = {"model": str(path), "data": str(source), "fingerprint": images.fingerprint(), "psi": options.psi,
                 "num_train": len(train), "num_held_out": len(held_out), "held_out_unseen": unseen,
                 "seconds": round(seconds, 1)}  # fmt: skip
        copies = [{"seed": options.seed + i, "file": name, "ratio": ratio}
                  for i, name, ratio in zip(pairs.indices, pairs.names, pairs.ratios, strict=True)]  # fmt: skip
        print(json.dumps(about | {"metrics": [asdict(report) for report in reports], "pairs": copies}, indent=2))
        return 0
    for report in reports:
        print(report.to_text())
    seen = _SEEN[unseen] if len(held_out) else ""
    print(f"{seconds:.1f} seconds; {len(train):,} training pictures, {len(held_out):,} held out{seen}")
    return 0


def _unseen(provenance: dict[str, Any], images: ImageSet, train: ImageSet, held_out: ImageSet) -> bool | None:
    """True when the model was trained on `train` alone, False when on all of `images`, None when nobody knows."""
    said = {provenance.get(key) for key in ("train_fingerprint", "data_fingerprint")} - {None}
    if train.fingerprint() in said:
        return True
    trained_on_all = provenance.get("train_fingerprint", provenance.get("data_fingerprint")) == images.fingerprint()
    return False if trained_on_all else None


def _validate(options: MetricsOptions, source: str | Path, extractor: Extractor | None, as_json: bool) -> int:
    """The table of damages at 64 px."""
    from stylegan.data.images import open_images
    from stylegan.metrics.validation import to_table, validate

    scores = validate(open_images(source, 64, on_progress=_opening), options.num, extractor, on_progress=_show)
    print(json.dumps([asdict(score) for score in scores], indent=2) if as_json else to_table(scores))
    return 0


def _write_pairs(path: str, pairs: Pairs) -> None:
    """The closest copies as a PNG, with a line on stderr that says what it shows."""
    from stylegan.pixels import save_png

    save_png(Path(path), pairs.picture())
    print(f"{path}: each fake beside the training picture it is closest to, most alike first", file=sys.stderr)


def _opening(done: int, total: int) -> None:
    """Tells how far reading the pictures is."""
    _show("reading pictures", done, total)


def _show(what: str, done: int, total: int) -> None:
    """Counts one stage on one line of stderr: steadily on a terminal, only its end elsewhere."""
    if done >= total:
        print(f"{chr(13) if sys.stderr.isatty() else ''}{what}: {total:,}", file=sys.stderr, flush=True)
    elif sys.stderr.isatty() and done % 32 == 0:
        print(f"\r{what}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)
