"""`metrics`: how close a model's pictures are to the pictures it learned from."""

from __future__ import annotations

import argparse
import json
from dataclasses import MISSING, asdict, dataclass

from stylegan.errors import DataError
from stylegan.options import add_arguments as add_options
from stylegan.options import check, from_namespace, option

HELP = "Judge a model against pictures: KID and SWD, each with the score of real pictures beside it."


@dataclass(frozen=True)
class MetricsOptions:
    """What `metrics` can be told."""

    data: str = option(MISSING, "folder or zip of pictures, or the name of a shipped sample set", metavar="DIR|ZIP")
    num: int = option(2000, "pictures to generate and judge", low=4, high=50_000)
    psi: float = option(1.0, "truncation; 1 judges the whole model", low=-1, high=2)
    seed: int = option(0, "first seed", low=0, high=2**32 - 1)
    device: str = option("auto", "where to generate: auto, cpu, cuda")

    def __post_init__(self) -> None:
        check(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `metrics`."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint file, or name of a model in the folder")
    add_options(parser, MetricsOptions)
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Print one line a metric, or all of them as JSON."""
    options = from_namespace(MetricsOptions, args)

    from stylegan.checkpoint.file import load_generator
    from stylegan.checkpoint.folder import ModelFolder
    from stylegan.data.images import open_images, sample_sets
    from stylegan.device import pick_device
    from stylegan.metrics.evaluate import evaluate

    path = ModelFolder(args.checkpoints).find(args.model)
    generator = load_generator(path).to(pick_device(options.device))
    source = sample_sets().get(options.data, options.data)
    image_set = open_images(source, generator.resolution, img_channels=generator.img_channels)
    if image_set.num_images < 8:
        raise DataError(f"{image_set.path.name} holds {image_set.num_images} pictures; at least 8 are needed.")
    reports = evaluate(generator, image_set, options.num, options.seed, options.psi)
    if args.json:
        about = {"model": str(path), "data": str(source), "psi": options.psi, "num_real": image_set.num_images}
        print(json.dumps(about | {"metrics": [asdict(report) for report in reports]}, indent=2))
    else:
        for report in reports:
            print(report.to_text())
    return 0
