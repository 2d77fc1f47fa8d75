"""`import`: turn somebody else's model file into one of ours, without running anything in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stylegan.checkpoint.catalogue import CATALOGUE, Published, find_published
from stylegan.checkpoint.folder import SUFFIX, download_model, import_model, plain_name, report
from stylegan.errors import CheckpointError, DownloadError
from stylegan.files import safe_name

HELP = "Turn a StyleGAN .pkl or .pt, from the disk or published, into a model of this program; nothing in it is run."
NEWS_EVERY = 1 << 24  # bytes between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `import`."""
    parser.add_argument("model", metavar="FILE|URL|NAME", nargs="?", help="a file; an https address; "
                        "owner/repository/file on the Hugging Face Hub; or a name that --list shows")
    parser.add_argument("--out", metavar=f"FILE{SUFFIX}", help="where the model goes (default checkpoints/NAME)")
    parser.add_argument("--name", metavar="NAME", help="name of the model (default that of the file)")
    parser.add_argument("--half", action="store_true", help="store float16, half the size")
    parser.add_argument("--accept-licence", action="store_true", help="download, having read the licence")
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--list", action="store_true", help="list the published models that have a name here")


def run(args: argparse.Namespace) -> int:
    """Fetch if need be, convert, and write the model with its card."""
    if args.list or not args.model:
        if not args.list:
            raise CheckpointError("Name a file, an address or a published model; --list shows the published ones.")
        print("\n".join(f"{entry.name:<36} {entry.url}" for entry in CATALOGUE.values()))
        return 0
    source = Path(args.model)
    published = None if source.exists() else find_published(args.model)
    name = safe_name(args.name or (published.name if published else plain_name(source.stem)))
    target = Path(args.out) if args.out else Path(args.checkpoints) / (name + SUFFIX)
    if target.suffix != SUFFIX:
        raise CheckpointError(f"--out must end in {SUFFIX}.")
    if target.exists():
        raise CheckpointError(f"There is a model {target.name} already; choose another with --name or --out.")
    if published:
        source = _fetch(published, name, Path(args.checkpoints), args.accept_licence)
    checkpoint = import_model(source, target, published, args.half)
    for label, text in report(checkpoint).items():
        print(f"{label:<15} {text}")
    print(target)
    print(target.with_suffix(".md"))
    if published:
        source.unlink()
    return 0


def _fetch(published: Published, name: str, folder: Path, accepted: bool) -> Path:
    """Show the terms and download the file beside the models."""
    print(f"{published.url}\nLicence: {published.licence}", file=sys.stderr)
    if not accepted:
        raise DownloadError("Nothing was fetched; run it again with --accept-licence if you accept these terms.")
    told = -NEWS_EVERY

    def tell(done: int, total: int | None) -> None:
        nonlocal told
        if done - told >= NEWS_EVERY or done == total:
            told = done
            whole = f" of {total / 2**20:.0f}" if total else ""
            print(f"\r{done / 2**20:.0f}{whole} MiB", end="", file=sys.stderr, flush=True)

    path = download_model(published, name, folder, tell)
    print(file=sys.stderr)
    return path
