"""`import`: turn somebody else's model file into one of ours, without running anything in it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan.checkpoint.catalogue import CATALOGUE, Published, find_published
from stylegan.errors import CheckpointError, DownloadError
from stylegan.files import safe_name, write_atomic

if TYPE_CHECKING:
    from stylegan.checkpoint.file import Checkpoint

HELP = "Turn a StyleGAN .pkl or .pt, from the disk or published, into a model of this program; nothing in it is run."
SUFFIX = ".safetensors"
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
    name = safe_name(args.name or (published.name if published else _plain(source.stem)))
    target = Path(args.out) if args.out else Path(args.checkpoints) / (name + SUFFIX)
    if target.suffix != SUFFIX:
        raise CheckpointError(f"--out must end in {SUFFIX}.")
    if target.exists():
        raise CheckpointError(f"There is a model {target.name} already; choose another with --name or --out.")
    about: dict[str, Any] = {}
    if published:
        about = {"url": published.url, "licence": published.licence}
        source = _fetch(published, Path(args.checkpoints), args.accept_licence)
    _convert(source, target, about, args.half)
    if published:
        source.unlink()
    return 0


def _convert(source: Path, target: Path, about: dict[str, Any], half: bool) -> None:
    """Read the source, write model and card, and say what it is."""
    import dataclasses

    from stylegan.checkpoint.card import architecture, model_card
    from stylegan.checkpoint.convert import convert_file
    from stylegan.checkpoint.file import save_checkpoint

    checkpoint: Checkpoint = convert_file(source)
    provenance = {"source": source.name} | checkpoint.provenance | about
    checkpoint = dataclasses.replace(checkpoint, provenance=provenance)
    save_checkpoint(target, checkpoint, half)
    card = target.with_suffix(".md")
    write_atomic(card, model_card(target.stem, checkpoint, half).encode())
    report = {"Origin": provenance.get("origin", "a file of this program")} | architecture(checkpoint)
    for label, text in [*report.items(), ("Source SHA-256", provenance.get("sha256", ""))]:
        print(f"{label:<15} {text}")
    for note in provenance.get("notes", []):
        print(f"note            {note}")
    print(target)
    print(card)


def _fetch(published: Published, folder: Path, accepted: bool) -> Path:
    """Show the terms and download the file beside the models."""
    from stylegan.checkpoint.download import download

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

    suffix = Path(published.url.split("?")[0]).suffix or ".pkl"
    path = folder / f"{published.name}.download{suffix}"
    path = download(published.url, path, num_bytes=published.num_bytes, sha256=published.sha256, progress=tell)
    print(file=sys.stderr)
    return path


def _plain(stem: str) -> str:
    """A usable model name from a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:64] or "model"
