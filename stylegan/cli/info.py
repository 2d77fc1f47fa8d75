"""`info`: what a model file is."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from typing import Any

HELP = "Say what a model file is: family, sizes, classes, parameters, SHA-256, where it comes from."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `info`."""
    parser.add_argument("model", metavar="FILE|NAME", help="checkpoint file, or name of a model in the folder")
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Print what is known of a model."""
    from stylegan.checkpoint.file import model_hash, read_any
    from stylegan.checkpoint.folder import ModelFolder

    path = ModelFolder(args.checkpoints).find(args.model)
    checkpoint = read_any(path)
    config = checkpoint.config
    about: dict[str, Any] = {
        "file": str(path), "num_bytes": path.stat().st_size, "family": config.family, "resolution": config.resolution,
        "img_channels": config.img_channels, "z_dim": config.z_dim, "w_dim": config.w_dim, "num_ws": config.num_ws,
        "num_classes": config.num_classes, "num_parameters": sum(t.numel() for t in checkpoint.tensors.values()),
        "model_hash": model_hash(checkpoint), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip
    if args.json:
        about |= {"config": dataclasses.asdict(config), "provenance": checkpoint.provenance}
        print(json.dumps(about, indent=2))
        return 0
    shown = {"file": about["file"], "size": f"{about['num_bytes'] / 2**20:.1f} MiB",
             "network": f"{config.family}, {config.resolution} px, {config.img_channels} channels",
             "latents": f"z {config.z_dim}, w {config.w_dim}, {config.num_ws} layers",
             "classes": config.num_classes or "none", "parameters": f"{about['num_parameters']:,}",
             "model hash": about["model_hash"], "SHA-256": about["sha256"]}  # fmt: skip
    for name, value in [*shown.items(), *checkpoint.provenance.items()]:
        print(f"{name:<12}  {value if isinstance(value, str | int | float) else json.dumps(value)}")
    return 0
