"""`runs`: how training runs are doing, side by side; change one while it trains; film it; take one away and back."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path

from stylegan.background import step_back
from stylegan.errors import RequestError, TrainingError

HELP = "Show training runs side by side with their verdicts; change, film or remove one."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `runs`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders, or names under the root (default all)")
    parser.add_argument("--root", default="runs", metavar="DIR", help="folder of runs (default runs)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=X", dest="changes",
                        help="change gamma, lr, ada_target or ada_cap of the named run at its next tick")
    parser.add_argument("--film", nargs="?", const="", metavar="FILE.mp4",
                        help="film the sample grids of the named run into its folder, or into a file")
    parser.add_argument("--walk", nargs="?", const="", metavar="FILE.mp4",
                        help="film a walk through the latent space of its newest snapshot, likewise")
    parser.add_argument("--at", type=float, metavar="KIMG", help="walk with the last snapshot until then instead")
    parser.add_argument("--delete", action="store_true",
                        help="move the named runs, of which none may train, into the folder .trash beside them")
    parser.add_argument("--restore", action="store_true", help="take named runs of the root back out of .trash")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs, curves included")


def run(args: argparse.Namespace) -> int:
    """Change, film, then print one paragraph a run, and of runs that are named their best values and what differs."""
    from stylegan.training.compare import compare, in_words
    from stylegan.training.run import TrainingRun, list_runs

    if args.delete or args.restore:
        return _move(args)
    found = [TrainingRun(path) for path in map(lambda name: _folder(name, Path(args.root)), args.runs)]
    for file in (args.film, args.walk):
        if file and (not file.endswith(".mp4") or len(found) > 1):
            raise RequestError("A film goes into one file, whose name ends in .mp4; name one run, before its flag.")
    if (args.changes or args.film is not None or args.walk is not None) and not found:
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
        for name, pairs in table["best"].items():
            best = (f"{pair[1]:.4g} at {pair[0] / 1000:.1f} kimg" if pair else "not measured" for pair in pairs)
            print(f"best {name}: " + " | ".join(best))
        for name, values in in_words(table["differences"]):
            print(f"{name}: " + " | ".join(values))
    return 0


def _move(args: argparse.Namespace) -> int:
    """Move runs into the trash or out of it, and say where they are."""
    from stylegan.training import trash
    from stylegan.training.run import TrainingRun

    if args.delete == args.restore or not args.runs:
        raise RequestError("Name the runs to remove or to take back, with one of --delete and --restore.")
    for name in args.runs:
        if args.restore:
            print(f"{name} is back: {trash.restore(args.root, name).path}")
            continue
        run = TrainingRun(_folder(name, Path(args.root)))
        held = trash.contents(run)
        place, root = trash.remove(run), run.path.parent
        where = "" if root == Path("runs") else f" --root {shlex.quote(str(root))}"
        print(f"{run.name} ({held}) is now in {place}; `runs{where} --restore {shlex.quote(run.name)}` takes it back.")
    return 0


def _folder(name: str, root: Path) -> Path:
    """A run's folder, given as such or as a name under the root."""
    for path in (Path(name), root / name):
        if (path / "config.json").is_file():
            return path
    raise TrainingError(f"There is no run called {name[:80]}, here or under {root}; give a run folder.")


def _act(one, args: argparse.Namespace) -> None:
    """Change and film one run as asked; what is said of it stays out of the way of JSON."""
    say = partial(print, file=sys.stderr if args.json else sys.stdout)
    if args.changes:
        say(f"{one.name}: live settings {one.edit(**dict(map(_change, args.changes)))}")
    if args.film is not None:
        from stylegan.training.timelapse import write_timelapse

        say(f"{one.name}: {write_timelapse(one, Path(args.film) if args.film else None)}")
    if args.walk is not None:
        from stylegan.training.walk import write_walk

        if one.is_active():
            step_back()
        nimg = None if args.at is None else round(1000 * args.at)
        say(f"{one.name}: {write_walk(one, nimg, Path(args.walk) if args.walk else None)}")


def _change(text: str) -> tuple[str, float]:
    """NAME=X as a pair; RequestError when it is none."""
    name, _, value = text.partition("=")
    try:
        return name.strip().replace("-", "_"), float(value)
    except ValueError:
        raise RequestError(f"{text[:60]!r} does not read as NAME=NUMBER, for example gamma=0.1.") from None
