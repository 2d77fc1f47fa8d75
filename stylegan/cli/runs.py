"""`runs`: how training runs are doing, side by side; change one while it trains; film it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stylegan.errors import RequestError, TrainingError

HELP = "Show training runs side by side with their verdicts; change settings of one that trains; film its samples."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `runs`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders, or names under the root (default all)")
    parser.add_argument("--root", default="runs", metavar="DIR", help="folder of runs (default runs)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=X", dest="changes",
                        help="change gamma, lr, ada_target or ada_cap of the named run at its next tick")
    parser.add_argument("--film", action="store_true", help="write timelapse.mp4 into each named run's folder")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs, curves included")


def run(args: argparse.Namespace) -> int:
    """Change, film, then print one paragraph a run and what differs between them."""
    from stylegan.training.compare import compare
    from stylegan.training.run import TrainingRun, list_runs

    found = [TrainingRun(path) for path in map(lambda name: _folder(name, Path(args.root)), args.runs)]
    if (args.changes or args.film) and not found:
        raise RequestError("Name the run to change or film, for example runs/NAME.")
    for one in found:
        _act(one, args)
    table = compare(found or list_runs(args.root))
    if args.json:
        print(json.dumps(table, indent=2))
        return 0
    for row in table["runs"]:
        best = f", best {row['best']['value']:.4g} at {row['best']['nimg'] / 1000:.1f} kimg" if row["best"] else ""
        print(f"{row['name']}: {row['state']}, {row['nimg'] / 1000:.1f} kimg, {row['seconds'] / 3600:.2f} h, "
              f"{row['images_per_second']:.1f} img/s{best}\n  {row['verdict']}: {row['reason']}")
    if len(table["runs"]) > 1 and args.runs:
        for name, values in table["differences"].items():
            print(f"{name}: " + " | ".join(map(str, values)))
    return 0


def _folder(name: str, root: Path) -> Path:
    """A run's folder, given as such or as a name under the root."""
    for path in (Path(name), root / name):
        if (path / "config.json").is_file():
            return path
    raise TrainingError(f"There is no run called {name[:80]}, here or under {root}; give a run folder.")


def _act(one, args: argparse.Namespace) -> None:
    """Change and film one run as asked."""
    if args.changes:
        print(f"{one.name}: live settings {one.edit(**dict(map(_change, args.changes)))}")
    if args.film:
        from stylegan.training.timelapse import write_timelapse

        print(f"{one.name}: {write_timelapse(one)}")


def _change(text: str) -> tuple[str, float]:
    """NAME=X as a pair; RequestError when it is none."""
    name, _, value = text.partition("=")
    try:
        return name.strip().replace("-", "_"), float(value)
    except ValueError:
        raise RequestError(f"{text[:60]!r} does not read as NAME=NUMBER, for example gamma=0.1.") from None
