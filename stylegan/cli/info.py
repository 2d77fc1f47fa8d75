"""`info`: what a model file is, or what a saved picture, sidecar or code holds."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from stylegan.cli.generate import saved_request
from stylegan.errors import RequestError, StyleGANError
from stylegan.request import RenderRequest
from stylegan.shortcode import is_code, to_code

HELP = "Say what a model file is, or which request a saved PNG, a JSON file, a code or a link holds."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `info`."""
    parser.add_argument("model", nargs="?", metavar="FILE|NAME|CODE", help="checkpoint file, name of a model in the "
                        "folder, saved PNG, JSON file, code or link; without it, how quickly this machine draws")
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR",
                        help="folder of models (default checkpoints)")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: argparse.Namespace) -> int:
    """Print what is known of a model, the request of a saved state, or how quickly this machine draws."""
    if args.model is None:
        return _tell_speed(args.checkpoints, args.json)
    if is_code(args.model) or Path(args.model).suffix.lower() in (".png", ".json"):
        return _tell_request(saved_request(args.model), args.json)
    from stylegan.checkpoint.file import model_hash, read_any
    from stylegan.checkpoint.folder import ModelFolder
    from stylegan.directions.store import all_directions

    path = ModelFolder(args.checkpoints).find(args.model)
    checkpoint = read_any(path)
    config = checkpoint.config
    about: dict[str, Any] = {
        "file": str(path), "num_bytes": path.stat().st_size, "family": config.family, "resolution": config.resolution,
        "img_channels": config.img_channels, "z_dim": config.z_dim, "w_dim": config.w_dim, "num_ws": config.num_ws,
        "num_classes": config.num_classes, "num_parameters": sum(t.numel() for t in checkpoint.tensors.values()),
        "model_hash": (digest := model_hash(checkpoint)), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip
    directions = list(all_directions(path, digest, args.checkpoints)[0].values())
    if args.json:
        listed = [{"name": each.name, "kind": each.kind, "layers": each.layers} for each in directions]
        about |= {"directions": listed} | {"config": dataclasses.asdict(config), "provenance": checkpoint.provenance}
        print(json.dumps(about, indent=2))
        return 0
    shown = {"file": about["file"], "size": f"{about['num_bytes'] / 2**20:.1f} MiB",
             "network": f"{config.family}, {config.resolution} px, {config.img_channels} channels",
             "latents": f"z {config.z_dim}, w {config.w_dim}, {config.num_ws} layers",
             "classes": config.num_classes or "none", "parameters": f"{about['num_parameters']:,}",
             "directions": ", ".join(each.name for each in directions) or "none",
             "model hash": about["model_hash"], "SHA-256": about["sha256"]}  # fmt: skip
    for name, value in [*shown.items(), *checkpoint.provenance.items()]:
        print(f"{name:<12}  {value if isinstance(value, str | int | float) else json.dumps(value)}")
    return 0


def _tell_speed(folder: str, as_json: bool) -> int:
    """Print what each model of the folder takes on this machine, and what would make it quicker."""
    from stylegan.doctor import Diagnosis, diagnose
    from stylegan.render import Renderer

    renderer, found = Renderer(folder), {}
    for entry in renderer.models():
        try:
            found[entry.name] = diagnose(renderer, entry.name)
        except StyleGANError as error:
            found[entry.name] = Diagnosis(str(error))
    if not found:
        raise RequestError(f"There are no models in {folder}; name another folder with --checkpoints.")
    if as_json:
        print(json.dumps({name: dataclasses.asdict(diagnosis) for name, diagnosis in found.items()}, indent=2))
        return 0
    advice = [each for diagnosis in found.values() for each in diagnosis.advice]
    print("\n".join([*(diagnosis.line for diagnosis in found.values()), *dict.fromkeys(advice)]))
    return 0


def _tell_request(request: RenderRequest, as_json: bool) -> int:
    """Print a saved request, the code that says the same, and what it asks for."""
    if as_json:
        print(json.dumps({"request": json.loads(request.to_json()), "code": to_code(request)}, indent=2))
        return 0
    print(f"model   {request.model}\nhash    {request.model_hash or 'not noted'}\nrequest {request.to_json()}")
    print(f"code    {to_code(request)}\nshell   {request.to_shell()}")
    return 0
