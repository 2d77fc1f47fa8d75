"""Features from weights that the user supplies: plain state dicts into networks of ours; nothing in a file is run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file

from stylegan.errors import CheckpointError
from stylegan.metrics.dinov2 import Dinov2
from stylegan.metrics.features import Extractor
from stylegan.metrics.inception import Inception

MAX_BYTES = 4 << 30
_TORCH_SCRIPT = (b"/constants.pkl", b"/code/")


def load_extractor(path: str | Path) -> Extractor:
    """The Inception v3 or DINOv2 (ViT-S, B, L) of a state dict in a safetensors or torch file; its name tells which.

    CheckpointError for anything else, TorchScript among it: such a file is a program, and files are not run here.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; give a state dict of Inception v3 or DINOv2.")
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path.name} is larger than {MAX_BYTES >> 30} GB, so it is no network known here.")
    state = _read(path)
    with open(path, "rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    if "patch_embed.proj.weight" in state:
        return Dinov2(state, fingerprint)
    if "Mixed_7c.branch1x1.conv.weight" in state:
        return Inception(state, fingerprint)
    raise CheckpointError(f"{path.name} holds neither Inception v3 nor DINOv2; use a state dict of one of these.")


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name; a wrapping {"state_dict": ...} or {"model": ...} is taken off."""
    with open(path, "rb") as file:
        start, tail = file.read(8), _tail(file)
    if start[:2] == b"PK" and any(word in tail for word in _TORCH_SCRIPT):
        raise CheckpointError(
            f"{path.name} is TorchScript, which is a program and is not run here; "
            "use a plain state dict of the same network (.pth or .safetensors)."
        )
    try:
        if path.suffix.lower() == ".safetensors":
            root = load_file(path)
        else:
            root = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers raise whatever they meet; their text may quote the file
        raise CheckpointError(
            f"{path.name} is damaged or holds more than tensors, so it was refused; nothing in it was run."
        ) from error
    for key in ("state_dict", "model"):
        root = root.get(key, root) if isinstance(root, dict) else root
    if not isinstance(root, dict):
        raise CheckpointError(f"{path.name} holds no state dict; use one of Inception v3 or DINOv2.")
    found = {str(name).removeprefix("module."): value for name, value in root.items() if torch.is_tensor(value)}
    return {name: value for name, value in found.items() if value.is_floating_point()}


def _tail(file: object) -> bytes:
    """The last megabyte of a file, where a zip keeps its list of names."""
    file.seek(0, 2)
    file.seek(max(file.tell() - (1 << 20), 0))
    return file.read()
