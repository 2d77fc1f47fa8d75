"""`bench`: measure this machine, as ratios taken in one run."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from stylegan.errors import RequestError
from stylegan.networks.config import FAMILIES

if TYPE_CHECKING:
    from stylegan.bench.render import RenderRow

HELP = "Measure rendering or training on this machine, as ratios taken in one run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bench`."""
    parser.add_argument("what", choices=("render", "train"), help="what to measure")
    parser.add_argument("--families", nargs="+", metavar="FAMILY", choices=FAMILIES,
                        help=f"render only these: {', '.join(FAMILIES)}")  # fmt: skip
    parser.add_argument("--resolutions", type=int, nargs="+", metavar="N", choices=[2**i for i in range(3, 11)],
                        help="only these picture sizes")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="timed rounds (default 7)")
    parser.add_argument("--profile", action="store_true", help="print where the time of a picture goes, too")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Measure, then print what was found."""
    if args.rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {args.rounds}.")

    import dataclasses

    import torch

    from stylegan.bench.render import ROWS, bench_render
    from stylegan.bench.train import bench_train
    from stylegan.device import describe_device

    about = {"machine": describe_device(torch.device("cpu")), "torch": torch.__version__}
    if not args.json:
        print(f"{about['machine']}, torch {about['torch']}")
    if args.what == "train":
        rows = bench_train(tuple(args.resolutions or (64,)), args.rounds)
        shown = _table
    else:
        wanted = [(family, size) for family in args.families or FAMILIES[1:2] for size in args.resolutions or ()]
        wanted = wanted or [row for row in ROWS if not args.families or row[0] in args.families]
        rows, shown = bench_render(tuple(wanted), args.rounds, args.profile), _text
    found = []
    for row in rows:
        found.append(dataclasses.asdict(row))
        if not args.json:
            print(shown(row), flush=True)
    if args.json:
        print(json.dumps(about | {"rows": found}, indent=2))
    return 0


def _table(row: object) -> str:
    """Plain figures, one a line."""
    values = vars(row)
    return "\n".join([values["name"], *(f"  {key:<20}{values[key]:.4g}" for key in values if key != "name")])


def _text(row: RenderRow) -> str:
    """A row of `bench render` in words."""

    def listed(values: dict[str, float], unit: str = "", factor: float = 1.0) -> str:
        return ", ".join(f"{name} {value * factor:.3g}{unit}" for name, value in values.items())

    lines = [
        f"{row.name}: {row.ms[row.best]:.1f} ms with {row.best}",
        f"  ms                   {listed(row.ms)}",
        f"  times the textbook   {row.speedup:.2f}; torch float32 alone {row.speedup_plain:.2f}; "
        f"a textbook with Linux's allocator {row.speedup_as_users_get_it:.2f}",
        f"  floor                {row.floor_ms:.1f} ms for {row.gflop:.1f} GFLOP, reached to {row.share_of_floor:.0%}",
        f"  edit from            {listed(row.edit, ' %', 100)}; the last third of the layers {row.edit_last_third:.0%}",
        f"  preview px           {listed(row.preview, ' %', 100) or 'none: no picture before the last piece'}",
        f"  PSNR of uint8        {listed(row.psnr_db, ' dB')}; largest difference to the textbook "
        f"{row.largest_difference:.1e}",
        f"  memory               {row.peak_mib:.0f} MiB",
        f"  encoding             {listed(row.encode_ms, ' ms')}",
    ]
    if row.profile:
        kinds = [key for key in row.profile[0] if key not in ("piece", "px")]
        lines.append("  ms by kind           " + "".join(f"{kind:>13}" for kind in kinds))
        lines += [f"    {entry['piece']:<19}" + "".join(f"{entry[kind]:13.1f}" for kind in kinds)
                  for entry in row.profile]  # fmt: skip
        lines.append(f"    {'all':<19}" + "".join(f"{sum(e[kind] for e in row.profile):13.1f}" for kind in kinds))
    return "\n".join(lines)
