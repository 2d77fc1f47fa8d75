"""`bench`: measure this machine, as ratios taken in one run."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from stylegan.errors import RequestError
from stylegan.networks.config import FAMILIES

if TYPE_CHECKING:
    from stylegan.bench.render import RenderRow
    from stylegan.bench.train import TrainRow

HELP = "Measure rendering or training on this machine, as ratios taken in one run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bench`."""
    parser.add_argument("what", choices=("render", "train"), help="what to measure")
    parser.add_argument("--families", nargs="+", metavar="FAMILY", choices=FAMILIES,
                        help=f"render only these: {', '.join(FAMILIES)}")  # fmt: skip
    parser.add_argument("--resolutions", type=int, nargs="+", metavar="N", choices=[2**i for i in range(3, 11)],
                        help="only these picture sizes")  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N", help="timed rounds (default: render 7, train 5)")
    parser.add_argument("--channel-base", type=int, default=0, metavar="N", choices=[0, *(2**i for i in range(8, 17))],
                        help="train networks of this width (default slim's, 1536)")  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="print where the time of a picture goes, too")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Measure, then print what was found."""
    rounds = {"render": 7, "train": 5}[args.what] if args.rounds is None else args.rounds
    if rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {rounds}.")

    import dataclasses

    import torch

    from stylegan.bench.polling import polling
    from stylegan.bench.render import ROWS, bench_render
    from stylegan.bench.train import RESOLUTIONS, against_targets, bench_train
    from stylegan.device import describe_device

    about = {"machine": describe_device(torch.device("cpu")), "torch": torch.__version__}
    if not args.json:
        print(f"{about['machine']}, torch {about['torch']}")
    if args.what == "train":
        rows = bench_train(tuple(args.resolutions or RESOLUTIONS), rounds, channel_base=args.channel_base)
        shown = _phases
    else:
        wanted = [(family, size) for family in args.families or FAMILIES[1:2] for size in args.resolutions or ()]
        wanted = wanted or [row for row in ROWS if not args.families or row[0] in args.families]
        rows, shown = bench_render(tuple(wanted), rounds, args.profile), _text
    found = []
    for row in rows:
        found.append(row)
        if not args.json:
            print(shown(row), flush=True)
    report: dict[str, Any] = about | {"rows": [dataclasses.asdict(row) for row in found]}
    if args.what == "train":
        page = polling()
        report |= {"page": page, "targets": against_targets(found, page["share"])}
    if args.json:
        print(json.dumps(report, indent=2))
    elif args.what == "train":
        print(_page_and_targets(page, report["targets"]))
    return 0


def _phases(row: TrainRow) -> str:
    """A row of `bench train` in words, with a table of its phases."""
    lines = [
        f"{row.name}, {row.precision}: {row.images_per_second:.1f} images a second, {row.step_ms:.0f} ms a step",
        f"  {'phase':<16}{'images/s':>10}{'ms':>10}{'GFLOP/image':>14}",
    ]
    for phase, ms in row.ms.items():
        speed, gflop = row.phase_images_per_second.get(phase), row.gflop_per_image.get(phase)
        speed, gflop = (f"{speed:.1f}" if speed else ""), (f"{gflop:.2f}" if gflop else "")
        lines.append(f"  {phase:<16}{speed:>10}{ms:>10.1f}{gflop:>14}".rstrip())
    lines += [
        f"  floor           {row.gflop_per_image['step']:.2f} GFLOP an image at {row.floor:.0f} GFLOP/s, reached to "
        f"{row.share_of_floor:.0%}",
        f"  R1 / D          {row.r1_of_d:.2f}; data {row.data_share:.1%} of a step"
        + (f"; {row.speedup:.2f} times float32" if row.precision != "float32" else ""),
    ]
    return "\n".join(lines)


def _page_and_targets(page: dict[str, float], targets: list[dict[str, Any]]) -> str:
    """What an open page costs, and each target beside what was measured."""
    lines = [f"an open page: {1000 * page['look']:.2f} ms a look, {1000 * page['show']:.1f} ms to show news, "
             f"{page['share']:.2%} of one core", "targets on two cores with AMX tiles at 64 px, measured here:"]
    words = {"speedup": "bfloat16 over float32", "share_of_floor": "share of the floor", "r1_of_d": "R1 / D",
             "data_share": "data, of a step", "page_share": "page, of one core"}  # fmt: skip
    for target in targets:
        measured = target["measured"]
        shown = "not measured: bfloat16 is no quicker here" if measured is None else f"{measured:.3g}"
        lines.append(f"  {words[target['figure']]:<24}at {target['bound']} {target['target']:<6g}{shown}")
    return "\n".join(lines)


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
