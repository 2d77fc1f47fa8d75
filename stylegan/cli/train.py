"""`train`: start a run from pictures, or resume it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stylegan.options import add_arguments as add_options
from stylegan.options import options_of
from stylegan.training.config import TrainConfig

HELP = "Train a StyleGAN2 from a folder or zip of pictures; the same command resumes the run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `train`: one per field of TrainConfig."""
    add_options(parser, TrainConfig)
    parser.add_argument("--config", metavar="FILE", help="run folder or its config.json to take the settings from")
    parser.add_argument("--dry-run", action="store_true", help="print the settings as they would be used, and end")


def run(args: argparse.Namespace) -> int:
    """Train until the budget, a stop request or Ctrl-C."""
    from stylegan.device import pick_device
    from stylegan.training.loop import run_from_file, train

    given = {name: getattr(args, name) for name in options_of(TrainConfig) if hasattr(args, name)}
    config = run_from_file(Path(args.config)).replace(**given) if args.config else TrainConfig(**given)
    if args.dry_run:
        print(json.dumps(config.resolve(pick_device(config.device).type == "cuda").to_dict(), indent=2))
        return 0
    train(config, echo=lambda line: print(line, flush=True))
    return 0
