"""The discriminator inside a foreign snapshot, for training that goes on from one; names and shapes as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan.checkpoint.foreign import Copies, dictionary, number, unsupported, whole
from stylegan.checkpoint.nvidia_pickle import open_pickle
from stylegan.checkpoint.nvidia_tf import Variables
from stylegan.checkpoint.pickle_records import Module, Network
from stylegan.errors import CheckpointError
from stylegan.networks.config import DiscriminatorConfig, GeneratorConfig
from stylegan.networks.discriminator import Discriminator

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def convert_discriminator(path: str | Path) -> tuple[DiscriminatorConfig, dict[str, torch.Tensor]]:
    """Config and tensors of the discriminator in an NVIDIA pickle of either era; `path` is not run, only read.

    Raises CheckpointError when the file has none, or one that is not StyleGAN2's residual discriminator.
    """
    path = Path(path)
    with open_pickle(path) as root:
        copies = Copies(path.stat().st_size)
        parts = {"D": root[1]} if isinstance(root, tuple | list) and len(root) == 3 else dictionary(root)
        found = parts.get("D")
        if isinstance(found, Module):
            config, tensors = _from_torch(found, copies)
        elif isinstance(found, Network):
            config, tensors = _from_tensorflow(found, copies)
        else:
            raise CheckpointError(f"{path.name} holds no discriminator; training starts with a new one.")
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in Discriminator(config).state_dict().items()}
    if {name: value.shape for name, value in tensors.items()} != expected:
        raise unsupported("another discriminator than StyleGAN2's", "train with a new one")
    return config, {name: torch.from_numpy(tensors[name]) for name in expected}


def _from_torch(network: Module, copies: Copies) -> tuple[DiscriminatorConfig, dict[str, np.ndarray]]:
    """A discriminator of stylegan2-ada-pytorch or stylegan3."""
    kwargs, epilogue = dictionary(network.state.get("_init_kwargs")), network.child("b4")
    blocks = [child for name, child in network.entries("_modules").items() if name.startswith("b")]
    if any(isinstance(block, Module) and block.state.get("architecture") != "resnet" for block in blocks):
        raise unsupported("a discriminator that is not residual", "train with a new one")
    statistics = epilogue.child("mbstd") if epilogue else None
    if statistics is None or whole(statistics.state, "num_channels", 1) != 1:
        raise unsupported("a discriminator without minibatch statistics", "train with a new one")
    last = epilogue.child("conv")
    clamp = last.state.get("conv_clamp") if last else None
    sizes = {"resolution": whole(network.state, "img_resolution"), "img_channels": whole(network.state, "img_channels"),
             "num_classes": whole(network.state, "c_dim"), "channel_base": whole(kwargs, "channel_base", 32768),
             "channel_max": whole(kwargs, "channel_max", 512)}  # fmt: skip
    config = _config(sizes, whole(statistics.state, "group_size"), clamp)
    tensors = {}
    for name, record in network.tensors().items():
        values = copies.take(record)
        if not name.endswith("resample_filter"):
            tensors[name] = values
        elif values.shape != FILTER.shape or not np.allclose(values, FILTER, atol=1e-6):
            raise unsupported("another resampling filter than 1, 3, 3, 1", "train with a new discriminator")
    return config, tensors


def _from_tensorflow(network: Network, copies: Copies) -> tuple[DiscriminatorConfig, dict[str, np.ndarray]]:
    """A discriminator of TensorFlow's StyleGAN2 or StyleGAN2-ADA."""
    settings, variables = dictionary(network.state.get("static_kwargs")), Variables(network, copies)
    if settings.get("architecture", "resnet") != "resnet" or whole(settings, "label_size", 0):
        raise unsupported("a discriminator that is conditional or not residual", "train with a new one")
    sizes = {"resolution": whole(settings, "resolution"), "img_channels": whole(settings, "num_channels"),
             "num_classes": 0, "channel_base": 2 * whole(settings, "fmap_base", 16384),
             "channel_max": whole(settings, "fmap_max", 512)}  # fmt: skip
    config = _config(sizes, whole(settings, "mbstd_group_size", 4), settings.get("conv_clamp"))
    names = {"b4.conv": "4x4/Conv", "b4.fc": "4x4/Dense0", "b4.out": "Output",
             f"b{config.resolution}.fromrgb": f"{config.resolution}x{config.resolution}/FromRGB"}  # fmt: skip
    tensors = {}
    for size in config.block_resolutions:
        tensors[f"b{size}.skip.weight"] = variables.conv(f"{size}x{size}/Skip/weight")
        names |= {f"b{size}.conv0": f"{size}x{size}/Conv0", f"b{size}.conv1": f"{size}x{size}/Conv1_down"}
    for ours, theirs in names.items():
        read = variables.dense if ours in ("b4.fc", "b4.out") else variables.conv
        tensors[f"{ours}.weight"] = read(f"{theirs}/weight")
        tensors[f"{ours}.bias"] = variables.take(f"{theirs}/bias", 1)
    return config, tensors


def _config(sizes: dict[str, int], group: int, clamp: Any) -> DiscriminatorConfig:
    """A config whose sizes a network can have, which is checked before anything is built from it."""
    GeneratorConfig(**sizes)
    if not 1 <= group <= 1024 or sizes["channel_base"] < sizes["resolution"] or sizes["resolution"] < 8:
        raise unsupported("a discriminator of impossible sizes", "train with a new one")
    clamp = 0.0 if clamp is None else number({"conv_clamp": clamp}, "conv_clamp")
    return DiscriminatorConfig(**sizes, mbstd_group=group, conv_clamp=clamp)
