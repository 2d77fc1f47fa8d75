"""`bench`: measure this machine, as ratios taken in one run."""

from __future__ import annotations

import argparse
import json

from stylegan.errors import RequestError

HELP = "Measure rendering or training on this machine, as ratios taken in one run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bench`."""
    parser.add_argument("what", choices=("render", "train"), help="what to measure")
    parser.add_argument("--resolutions", type=int, nargs="+", metavar="N", choices=[2**i for i in range(3, 11)],
                        help="picture sizes (default: render 64 256, train 64)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="timed rounds (default 7)")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Measure, then print one line a network."""
    if args.rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {args.rounds}.")

    from stylegan import bench

    if args.what == "render":
        rows = bench.bench_render(tuple(args.resolutions or (64, 256)), args.rounds)
    else:
        rows = bench.bench_train(tuple(args.resolutions or (64,)), args.rounds)
    report = bench.to_report(rows)
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{report['machine']}, torch {report['torch']}")
    names = [name for name in report["rows"][0] if name != "name"]
    print("  ".join([f"{'network':<24}", *(f"{name:>18}" for name in names)]))
    for row in report["rows"]:
        print("  ".join([f"{row['name']:<24}", *(f"{row[name]:18.4g}" for name in names)]))
    return 0
