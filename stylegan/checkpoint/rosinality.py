"""Checkpoints of rosinality's StyleGAN2 (torch.save of state dicts), and of encoders that carry such a decoder.

Its weights have the same meaning as the published ones; only names differ, and some have a leading axis of length 1.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan.checkpoint.foreign import Converted, Copies, unsupported, widths_of
from stylegan.checkpoint.pickle_records import damaged, shown
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig

MAX_PROGRAM = 4 << 20  # bytes of pickle in a torch archive, without the tensors
_ORIGIN = "rosinality StyleGAN2 (torch checkpoint)"


def convert_torch(path: Path, copies: Copies) -> Converted:
    """The moving average `g_ema` (or `g`) of a torch checkpoint, read with `weights_only=True`: nothing in it runs."""
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        _check_archive(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            root = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)  # optimizers stay on disk
    except Exception as error:  # torch raises whatever its readers meet; its text may quote the file
        raise CheckpointError(
            "The torch checkpoint is damaged or holds more than tensors, so it was refused; nothing in it was run."
        ) from error
    state, average, notes = _generator_state(root)
    return _convert_state(state, average, notes, copies)


def _check_archive(path: Path) -> None:
    """Refuse a zip that is not one of torch's, or whose members are larger than what is stored."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise CheckpointError("The zip archive is damaged; download or copy it again.") from error
    programs = [member for member in members if member.filename.endswith("/data.pkl")]
    if len(programs) != 1:
        raise CheckpointError("The zip archive holds no torch checkpoint; unpack it, or use the model file itself.")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError("The archive is compressed, as torch never does; it was refused.")
    if programs[0].file_size > MAX_PROGRAM or sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError("The archive claims to hold more than it can, so it was refused.")


def _generator_state(root: Any) -> tuple[dict[str, Any], Any, list[str]]:
    """The generator's state dict, the average of w if the file has it, and what to tell about the choice."""
    if not isinstance(root, dict):
        raise CheckpointError("The torch checkpoint holds no state dict; use a StyleGAN2 generator.")
    if "GAN" in root and "version" in root:
        raise unsupported("the lucidrains layout", "use a file of NVIDIA's or rosinality's code")
    average = root.get("latent_avg")
    if isinstance(root.get("g_ema"), dict):
        return root["g_ema"], average, []
    if isinstance(root.get("g"), dict):
        return root["g"], average, ["The file has no moving average (g_ema); the last training state (g) is used."]
    state = root.get("state_dict", root)
    if isinstance(state, dict) and "decoder.input.input" in state:
        prefix = "decoder."
        inner = {name[len(prefix) :]: value for name, value in state.items() if str(name).startswith(prefix)}
        return inner, average, ["The generator was taken out of an encoder's checkpoint."]
    if isinstance(state, dict) and "input.input" in state:
        return state, average, []
    names = ", ".join(shown(name, 20) for name in list(root)[:3])
    raise CheckpointError(f"The torch checkpoint holds {names}, but no StyleGAN2 generator; use a file with g_ema.")


class _State:
    """The state dict, whose tensors are each taken once."""

    def __init__(self, state: dict[str, Any], copies: Copies) -> None:
        self.left, self.copies = dict(state), copies

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def take(self, name: str, shape: str) -> np.ndarray:
        """A tensor as float32; `shape` says per axis whether it is 1 and dropped ('1') or kept ('n')."""
        value = self.left.pop(name, None)
        proper = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.is_floating_point()
        if not proper or value.ndim != len(shape):
            raise damaged(f"its tensor {shown(name)} is missing or has the wrong shape")
        drop = tuple(axis for axis, kind in enumerate(shape) if kind == "1")
        if any(value.shape[axis] != 1 for axis in drop) or 4 * value.numel() > self.copies.left:
            raise damaged(f"its tensor {shown(name)} has the wrong shape")
        return np.squeeze(self.copies.take(value.detach().float().numpy()), axis=drop).copy()


def _convert_state(state: dict[str, Any], average: Any, notes: list[str], copies: Copies) -> Converted:
    """Rename everything; what remains must be the fixed blur kernels."""
    left = _State(state, copies)
    tensors, depth = {}, 0
    while f"style.{depth + 1}.weight" in left:
        tensors[f"mapping.fc{depth}.weight"] = left.take(f"style.{depth + 1}.weight", "nn")
        tensors[f"mapping.fc{depth}.bias"] = left.take(f"style.{depth + 1}.bias", "n")
        depth += 1
    if not depth or "input.input" not in left:
        raise CheckpointError("The torch checkpoint holds no StyleGAN2 generator; use a file with g_ema.")
    if isinstance(average, torch.Tensor):
        rows = _State({"latent_avg": average.reshape(-1, average.shape[-1] if average.ndim else 1)}, copies)
        tensors["mapping.w_avg"] = rows.take("latent_avg", "nn").mean(axis=0)  # encoders repeat it once a layer
    tensors["synthesis.b4.const"] = left.take("input.input", "1nnn")
    tensors |= _styled(left, "synthesis.b4.conv1", "conv1", 0) | _torgb(left, "synthesis.b4.torgb", "to_rgb1")
    blocks = 1
    while f"convs.{2 * blocks - 2}.conv.weight" in left and blocks < 16:
        name = f"synthesis.b{4 << blocks}"
        tensors |= _styled(left, f"{name}.conv0", f"convs.{2 * blocks - 2}", 2 * blocks - 1)
        tensors |= _styled(left, f"{name}.conv1", f"convs.{2 * blocks - 1}", 2 * blocks)
        tensors |= _torgb(left, f"{name}.torgb", f"to_rgbs.{blocks - 1}")
        blocks += 1
    _check_rest(left)
    widths = [tensors[f"synthesis.b{4 << i}.conv1.weight"].shape[0] for i in range(blocks)]
    w_dim, first = tensors["mapping.fc0.weight"].shape
    config = {"channel_base": 32768, "channel_max": 512}
    config |= widths_of(config, widths) | {
        "family": "stylegan2", "resolution": 4 << (blocks - 1), "z_dim": first, "w_dim": w_dim, "mapping_layers": depth,
        "img_channels": tensors["synthesis.b4.torgb.bias"].shape[0],
    }  # fmt: skip
    return Converted(GeneratorConfig(**config), tensors, _ORIGIN, notes)


def _styled(left: _State, ours: str, theirs: str, noise: int) -> dict[str, np.ndarray]:
    """A styled convolution with its noise."""
    found = {
        f"{ours}.weight": left.take(f"{theirs}.conv.weight", "1nnnn"),
        f"{ours}.affine.weight": left.take(f"{theirs}.conv.modulation.weight", "nn"),
        f"{ours}.affine.bias": left.take(f"{theirs}.conv.modulation.bias", "n"),
        f"{ours}.noise_strength": left.take(f"{theirs}.noise.weight", "1"),
        f"{ours}.bias": left.take(f"{theirs}.activate.bias", "n"),
    }
    if f"noises.noise_{noise}" in left:
        found[f"{ours}.noise_const"] = left.take(f"noises.noise_{noise}", "11nn")
    return found


def _torgb(left: _State, ours: str, theirs: str) -> dict[str, np.ndarray]:
    """A layer to the picture."""
    return {
        f"{ours}.weight": left.take(f"{theirs}.conv.weight", "1nnnn"),
        f"{ours}.affine.weight": left.take(f"{theirs}.conv.modulation.weight", "nn"),
        f"{ours}.affine.bias": left.take(f"{theirs}.conv.modulation.bias", "n"),
        f"{ours}.bias": left.take(f"{theirs}.bias", "1n11"),
    }


def _check_rest(left: _State) -> None:
    """Refuse a filter other than 1, 3, 3, 1, and any tensor that nothing here knows what to do with."""
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16  # sums to 4, which makes up for the zeros of doubling
    for name in list(left.left):
        if not str(name).endswith(".kernel"):
            raise unsupported(f"the tensor {shown(name, 40)}", "it comes from a fork; use a file of the original code")
        kernel = left.take(name, "nn")
        if kernel.shape != (4, 4) or not np.allclose(kernel, taps, atol=1e-5):
            raise unsupported("another resampling filter than 1, 3, 3, 1")
