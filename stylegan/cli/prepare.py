"""`prepare`: pictures and frames of videos from anywhere into one tidy zip, or only a look at them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from stylegan.errors import DataError
from stylegan.options import add_arguments as add_options
from stylegan.options import check, from_namespace, option

HELP = "Look at pictures for training, and write the usable ones as one zip of one size."


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` can be told."""

    out: str = option("", "zip to write; without it, only report what there is", metavar="FILE.zip")
    resolution: int = option(64, "side of the written pictures in pixels", low=4, high=2048)
    fit: str = option("crop", "how pictures become square: cut to the centre, padded, or squeezed",
                      choices=("crop", "pad", "resize"))  # fmt: skip
    classes_from_folders: bool = option(False, "make each folder of pictures a class")
    every: str = option("1s", "step between the frames of a video: seconds as 0.5s, or a number of frames",
                        metavar="STEP")  # fmt: skip
    drop_duplicates: bool = option(False, "keep only the first of pictures that look alike")
    channels: int = option(3, "grey, colour, or colour with transparency", choices=(1, 3, 4))

    def __post_init__(self) -> None:
        check(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `prepare`."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE",
                        help="folder, zip, video or picture, or the name of a shipped sample set")  # fmt: skip
    add_options(parser, PrepareOptions)
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Write the zip, or only look, and print the report."""
    from stylegan.data.images import sample_sets
    from stylegan.data.prepare import inspect, prepare

    options = from_namespace(PrepareOptions, args)
    sources = [sample_sets().get(source, source) for source in args.sources]
    if options.out:
        report = prepare(
            sources,
            options.out,
            options.resolution,
            options.fit,
            options.classes_from_folders,
            img_channels=options.channels,
            every=options.every,
            drop_duplicates=options.drop_duplicates,
            on_progress=_show if sys.stderr.isatty() else None,
        )
    elif len(sources) == 1:
        report = inspect(sources[0], every=options.every, on_progress=_show if sys.stderr.isatty() else None)
    else:
        raise DataError("Several sources need --out FILE.zip; without it, name one.")
    print(report.to_json() if args.json else report.to_text())
    return 0


def _show(done: int, total: int) -> None:
    """Counts the pictures on one line of the terminal."""
    if done % 100 == 0 or done == total:
        print(f"\r{done:,} of {total:,} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)
