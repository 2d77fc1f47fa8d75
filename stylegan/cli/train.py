"""`train`: start a run from pictures, or resume it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from stylegan.options import add_arguments as add_options
from stylegan.options import options_of
from stylegan.training.config import TrainConfig

HELP = "Train a StyleGAN from a folder or zip of pictures; the same command resumes the run, torchrun joins processes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `train`: one per field of TrainConfig."""
    add_options(parser, TrainConfig)
    parser.add_argument("--config", metavar="FILE", help="run folder or its config.json to take the settings from")
    parser.add_argument("--dry-run", action="store_true",
                        help="print the settings as they would be used and what the run will cost, and end")


def run(args: argparse.Namespace) -> int:
    """Train until the budget, a stop request or Ctrl-C."""
    from stylegan.training.distributed import leave, num_ranks
    from stylegan.training.loop import run_from_file, train

    given = {name: getattr(args, name) for name in options_of(TrainConfig) if hasattr(args, name)}
    config = run_from_file(Path(args.config)).replace(**given) if args.config else TrainConfig(**given)
    if args.dry_run:
        _print_plan(config)
        return 0
    train(config, echo=_say)
    if num_ranks() > 1:
        leave()
    return 0


def _say(line: str) -> None:
    """Print a line; a terminal that has gone is no reason to stop training."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process


def _print_plan(config: TrainConfig) -> None:
    """The resolved settings as JSON, then what they cost, as a comment."""
    import torch

    from stylegan.device import describe_device, pick_device
    from stylegan.training.distributed import num_ranks
    from stylegan.training.estimate import estimate
    from stylegan.training.loop import settings_of
    from stylegan.training.run import TrainingRun
    from stylegan.training.state import has_state

    if config.threads:
        torch.set_num_threads(config.threads)
    run = TrainingRun(config.out)
    resolved = settings_of(config, run, has_state(run.path / "state"), num_ranks())
    print(json.dumps(resolved.to_dict(), indent=2))
    for line in estimate(resolved, world=num_ranks()).to_text().splitlines():
        print(f"# {line}")
    device = pick_device(resolved.device)
    trust = "within a factor of two" if device.type == "cpu" else "rough: the share of a GPU's rate is not measured yet"
    print(f"# {describe_device(device)}; {trust}, classes not counted")
