"""Turn any checkpoint that people own into ours: tell its kind, read it without running it, rename it, check it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stylegan.checkpoint.file import Checkpoint, build, network_shapes, read_checkpoint
from stylegan.checkpoint.foreign import Converted, Copies
from stylegan.checkpoint.nvidia_pickle import LEGACY_MAGIC, open_pickle
from stylegan.checkpoint.nvidia_tf import convert_tensorflow
from stylegan.checkpoint.nvidia_torch import convert_snapshot
from stylegan.checkpoint.pickle_records import Module, Network
from stylegan.checkpoint.rosinality import convert_torch
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig
from stylegan.ops.upfirdn import setup_filter

TORCH_LEGACY = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
NUM_AVERAGE = 10_000  # latents behind an estimated w_avg, as many as the StyleGAN papers use
BLOCK = 1 << 20


def convert_file(path: str | Path, progress: Callable[[float], None] | None = None) -> Checkpoint:
    """Read a model file of any supported kind: ours, NVIDIA's pickles of both eras, rosinality's torch files.

    `progress` is told the fraction of the file that was gone through. Nothing in the file is run. Raises
    CheckpointError, one sentence, for anything that cannot be read or drawn.
    """
    path = Path(path)
    head = _head(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        converted = _convert_pickle(path, head)
    elif head.startswith(b"PK\x03\x04"):
        converted = convert_torch(path, Copies(path.stat().st_size))
    else:
        for magic, name in ARCHIVES.items():
            if head.startswith(magic):
                raise CheckpointError(f"{path.name} is a {name} archive; unpack it and open the model inside.")
        return read_checkpoint(path)
    tensors = _complete(converted)
    provenance = {"source": path.name, "sha256": file_sha256(path, progress), "origin": converted.origin}
    provenance |= converted.facts | ({"notes": converted.notes} if converted.notes else {})
    return Checkpoint(converted.config, tensors, provenance)


def file_sha256(path: Path, progress: Callable[[float], None] | None = None) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest, size, done = hashlib.sha256(), max(path.stat().st_size, 1), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done / size)
    return digest.hexdigest()


def _head(path: Path) -> bytes:
    """The first bytes of a file; what cannot be opened is left to the reader of our own files to explain."""
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _convert_pickle(path: Path, head: bytes) -> Converted:
    """Convert a pickle of either era, or a torch file from before torch used zip archives."""
    copies = Copies(path.stat().st_size)
    if head.startswith(TORCH_LEGACY):
        return convert_torch(path, copies)
    with open_pickle(path) as root:
        if isinstance(root, dict | Module):
            return convert_snapshot(root, copies)
        if isinstance(root, tuple | list | Network):
            return convert_tensorflow(root, copies)
    raise CheckpointError("The pickle holds no network; use a StyleGAN file.")


def _complete(converted: Converted) -> dict[str, torch.Tensor]:
    """The tensors in our network's order, with what an origin leaves out, after checking every name and shape."""
    config, found = converted.config, dict(converted.tensors)
    expected = network_shapes(config)
    taps = setup_filter(config.resample_filter).numpy()
    absent = expected.keys() - found.keys()
    for name in absent:
        if name.endswith(".resample_filter"):
            found[name] = taps.copy()
        elif name.endswith(".noise_const"):
            found[name] = np.random.RandomState(_number_of(name)).randn(*expected[name]).astype(np.float32)
    if any(name.endswith(".noise_const") for name in absent):
        converted.notes.append("The file has no constant noise; it was drawn anew, the same on every import.")
    if "mapping.w_avg" in absent:
        found["mapping.w_avg"] = np.zeros(config.w_dim, np.float32)
    _compare(expected, found)
    tensors = {name: torch.from_numpy(found[name]) for name in expected}
    if "mapping.w_avg" in absent:
        tensors["mapping.w_avg"] = _estimate_average(config, tensors)
        converted.notes.append(f"The file has no average of w; it was estimated from {NUM_AVERAGE} latents.")
    return tensors


def _compare(expected: dict[str, tuple[int, ...]], found: dict[str, np.ndarray]) -> None:
    """Refuse a network whose tensors are not those of our network of the same config."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"The network lacks {missing[0]}, so it is incomplete or of a fork; use a standard file.")
    if extra:
        raise CheckpointError(f"The network has {extra[0][:60]}, which the standard one has not; use a standard file.")
    for name, shape in expected.items():
        if found[name].shape != shape:
            sizes = list(found[name].shape)
            raise CheckpointError(f"{name[:60]} is {sizes} but must be {list(shape)}; use a file of the standard code.")


def _estimate_average(config: GeneratorConfig, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean of w over many latents (and all classes in turn), for files that do not hold it."""
    generator = build(Checkpoint(config, tensors))
    classes = [i % config.num_classes for i in range(NUM_AVERAGE)] if config.num_classes else None
    latents = generator.map(np.random.RandomState(0).randn(NUM_AVERAGE, config.z_dim), classes)
    return latents.ws[:, 0].double().mean(dim=0).float()


def _number_of(name: str) -> int:
    """A fixed seed for a tensor of that name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
