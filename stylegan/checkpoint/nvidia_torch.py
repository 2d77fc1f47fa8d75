"""NVIDIA's PyTorch snapshots (stylegan2-ada-pytorch and stylegan3): config from the objects' own attributes.

Tensor names are the published ones already. What decides the picture is read from the attributes of the modules and
checked; a network that would be drawn wrongly is refused by name, a changed but harmless one gets a note.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from stylegan.checkpoint.foreign import Converted, Copies, dictionary, number, uniform, unsupported, whole, widths_of
from stylegan.checkpoint.pickle_records import Array, Module, Tensor, damaged, shown
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.stylegan3_layers import LayerSpec

SQRT2 = math.sqrt(2)
_KNOWN_ATTRIBUTES = {
    "Generator": "z_dim c_dim w_dim img_resolution img_channels num_ws",
    "MappingNetwork": "z_dim c_dim w_dim num_ws num_layers w_avg_beta embed",
    "SynthesisNetwork": "w_dim img_resolution img_resolution_log2 img_channels block_resolutions num_ws num_fp16_res "
    "num_layers num_critical margin_size output_scale layer_names",
    "SynthesisBlock": "in_channels w_dim resolution img_channels is_last architecture use_fp16 channels_last "
    "fused_modconv_default num_conv num_torgb",
    "SynthesisLayer": "in_channels out_channels w_dim resolution up use_noise activation conv_clamp padding act_gain "
    "is_torgb is_critically_sampled use_fp16 in_size out_size in_sampling_rate out_sampling_rate tmp_sampling_rate "
    "in_cutoff out_cutoff in_half_width out_half_width conv_kernel magnitude_ema_beta up_factor up_taps down_factor "
    "down_taps down_radial",
    "SynthesisInput": "w_dim channels size sampling_rate bandwidth",
    "ToRGBLayer": "in_channels out_channels w_dim conv_clamp weight_gain",
    "Conv2dLayer": "in_channels out_channels activation up down conv_clamp padding weight_gain act_gain bias",
    "FullyConnectedLayer": "in_features out_features activation weight_gain bias_gain bias",
}


def convert_snapshot(root: Any, copies: Copies) -> Converted:
    """The generator of a snapshot: `G_ema`, or `G` where that is missing."""
    generator, notes = _find_generator(root)
    if "path_stem" in generator.state or generator.class_name == "SuperresGenerator":
        raise unsupported("StyleGAN-XL's superresolution stem", "use its stem file or another StyleGAN3 file")
    synthesis, mapping = generator.child("synthesis"), generator.child("mapping")
    if synthesis is None or mapping is None:
        raise CheckpointError(f"The {shown(generator.class_name, 30)} in this file is no StyleGAN generator.")
    modules, records = generator.modules(), generator.tensors()
    if synthesis.child("input") is not None:
        settings, origin = _stylegan3(synthesis, modules), "NVIDIA StyleGAN3 (PyTorch pickle)"
    elif synthesis.child("b4") is not None:
        nested = "synthesis_kwargs" in dictionary(generator.state.get("_init_kwargs"))
        settings, origin = _stylegan2(synthesis, modules), f"NVIDIA StyleGAN2{'-ADA' * nested} (PyTorch pickle)"
    else:
        raise CheckpointError("The generator in this file is neither StyleGAN2 nor StyleGAN3; use another file.")
    tensors = {name: copies.take(tensor) for name, tensor in records.items()}
    if settings["family"] == "stylegan3":
        notes += _reset_transform(tensors)
    config = GeneratorConfig(**settings, **_mapping(generator, mapping))
    strange = _strangers(modules)
    if strange:
        notes.append(f"Modified source: it knows {', '.join(strange[:4])}; it is shown with the standard network.")
    sources = {module.source for module in modules.values()}
    digests = sorted(hashlib.sha256(source.encode("utf-8", "replace")).hexdigest() for source in sources)
    return Converted(config, tensors, origin, notes, {"module_source_sha256": digests[:4], "modified": bool(strange)})


def _find_generator(root: Any) -> tuple[Module, list[str]]:
    """The generator inside a snapshot, and what to tell about the choice."""
    if isinstance(root, Module):
        return root, ["The file is a single network, not a snapshot."]
    if not isinstance(root, dict):
        raise CheckpointError("The pickle holds no network snapshot; use a StyleGAN file.")
    if isinstance(root.get("G_ema"), Module):
        return root["G_ema"], []
    if isinstance(root.get("G"), Module):
        return root["G"], ["The file has no moving average (G_ema); the last training state (G) is used."]
    raise CheckpointError("The pickle holds neither G_ema nor G, so it is no StyleGAN snapshot; use another file.")


def _shape(module: Module | None, table: str, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a module's tensor, which must have that many dimensions."""
    tensor = None if module is None else module.entries(table).get(name)
    shape = getattr(tensor, "shape", None)
    if shape is None or len(shape) != rank:
        raise damaged(f"its {shown(name)} is missing or has the wrong shape")
    return shape


def _clamp(value: Any) -> float:
    """A layer's clamp as the config says it, 0 for none."""
    return 0.0 if value is None else number({"conv_clamp": value}, "conv_clamp")


def _stylegan2(synthesis: Module, modules: dict[str, Module]) -> dict[str, Any]:
    """Settings of a StyleGAN2 synthesis network (arXiv 1912.04958)."""
    resolution = whole(synthesis.state, "img_resolution")
    GeneratorConfig(resolution=resolution)  # refuses what is no power of two
    resolutions = [2**i for i in range(2, resolution.bit_length())]
    blocks = [synthesis.child(f"b{r}") for r in resolutions]
    if None in blocks:
        raise unsupported("blocks of unusual resolutions")
    widths = [_const_width(blocks[0])] + [_shape(b.child("conv1"), "_parameters", "weight", 4)[0] for b in blocks[1:]]
    layers = [m for path, m in modules.items() if path.endswith((".conv0", ".conv1"))]
    colours = [m for path, m in modules.items() if path.endswith(".torgb")]
    if uniform((layer.state.get("activation") for layer in layers), "their activation") != "lrelu":
        raise unsupported(f"the activation {shown(layers[0].state.get('activation'), 20)}")
    gain = number({"act_gain": uniform((layer.state.get("act_gain") for layer in layers), "their gain")}, "act_gain")
    if abs(gain - SQRT2) > 1e-6:
        raise unsupported(f"the activation gain {gain:.4g}")
    use_noise = uniform((layer.state.get("use_noise") for layer in layers), "their use of noise")
    clamp = _clamp(uniform((layer.state.get("conv_clamp") for layer in layers + colours), "their clamp"))
    architecture = uniform((block.state.get("architecture") for block in blocks), "their architecture")
    if not isinstance(use_noise, bool) or not isinstance(architecture, str):
        raise damaged("its layers do not say how they are connected")
    settings = {
        "family": "stylegan2", "resolution": resolution, "architecture": architecture, "use_noise": use_noise,
        "conv_clamp": clamp, "resample_filter": _filter(synthesis), "channel_base": 32768, "channel_max": 512,
        "img_channels": whole(synthesis.state, "img_channels"),
    }  # fmt: skip
    kwargs = dictionary(synthesis.state.get("_init_kwargs"))
    for name in ("channel_base", "channel_max"):
        settings[name] = whole(kwargs, name, settings[name])
    return settings | widths_of(settings, widths)


def _const_width(block: Module) -> int:
    """Channels of the learned constant, which must be square."""
    shape = _shape(block, "_parameters", "const", 3)
    if shape[1:] != (4, 4):
        raise unsupported("a constant that is not 4 x 4 (non-square pictures)")
    return shape[0]


def _filter(synthesis: Module) -> tuple[float, ...]:
    """The taps of the resampling filter: as asked for if that gives the stored filter, else those stored."""
    record = synthesis.child("b4").entries("_buffers").get("resample_filter")
    if not isinstance(record, Tensor) or not 1 <= len(record.shape) <= 2 or record.nbytes > 1 << 16:
        raise damaged("its resample_filter is missing or has the wrong shape")
    stored = record.numpy()
    stored = stored.sum(axis=0) if stored.ndim == 2 else stored
    asked = dictionary(synthesis.state.get("_init_kwargs")).get("resample_filter", [1, 3, 3, 1])
    if isinstance(asked, list | tuple) and asked and all(type(tap) in (int, float) for tap in asked) and sum(asked):
        if len(asked) == len(stored) and np.allclose(np.array(asked, float) / sum(asked), stored, atol=1e-6):
            return tuple(float(tap) for tap in asked)
    return tuple(float(tap) for tap in stored)


def _mapping(generator: Module, mapping: Module) -> dict[str, Any]:
    """Settings of the mapping network, from its attributes and the shapes of its layers."""
    state = mapping.state
    count = sum(name.startswith("fc") for name in mapping.entries("_modules"))
    layers = [mapping.child(f"fc{i}") for i in range(count)]
    if not layers or None in layers:
        raise unsupported("a mapping network without layers")
    widths = [_shape(layer, "_parameters", "weight", 2)[0] for layer in layers]
    if uniform((layer.state.get("activation") for layer in layers), "their activation") != "lrelu":
        raise unsupported("a mapping network without leaky ReLU")
    rate = number({"bias_gain": uniform((layer.state.get("bias_gain") for layer in layers), "their rate")}, "bias_gain")
    w_dim = whole(generator.state, "w_dim")
    inner = uniform(widths[:-1], "the mapping network's width") if len(widths) > 1 else w_dim
    settings = {
        "z_dim": whole(generator.state, "z_dim"), "w_dim": w_dim, "num_classes": whole(generator.state, "c_dim"),
        "mapping_layers": len(layers), "mapping_lr_multiplier": rate, "mapping_width": 0 if inner == w_dim else inner,
    }  # fmt: skip
    if state.get("w_avg_beta") is not None:
        settings["w_avg_beta"] = number(state, "w_avg_beta")
    return settings


def _stylegan3(synthesis: Module, modules: dict[str, Module]) -> dict[str, Any]:
    """Settings of a StyleGAN3 synthesis network (arXiv 2106.12423), layer by layer as the file has them."""
    names = synthesis.state.get("layer_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise damaged("its list of layers is missing")
    layers = [modules.get(f"synthesis.{name}") for name in names]
    if None in layers:
        raise damaged("one of its layers is missing")
    entries = tuple(_layer3(name, layer) for name, layer in zip(names, layers, strict=True))
    scale = number(synthesis.state, "output_scale", 0.25)
    if scale != 0.25:
        raise unsupported(f"the output scale {scale:.4g}")
    source = synthesis.child("input")
    grid = (_square(source.state.get("size")), number(source.state, "sampling_rate"), number(source.state, "bandwidth"))
    if grid != (entries[0].in_size, entries[0].in_rate, entries[0].in_cutoff):
        raise unsupported("an input of another size than its first layer")
    return {
        "family": "stylegan3", "resolution": whole(synthesis.state, "img_resolution"), "layers": entries,
        "img_channels": whole(synthesis.state, "img_channels"),
        "conv_clamp": _clamp(uniform((layer.state.get("conv_clamp") for layer in layers), "their clamp")),
    }  # fmt: skip


def _layer3(name: str, layer: Module) -> LayerSpec:
    """One StyleGAN3 layer as the config holds it."""
    state, buffers = layer.state, layer.entries("_buffers")
    outputs, inputs, kernel, other = _shape(layer, "_parameters", "weight", 4)
    padding = state.get("padding")
    proper = isinstance(padding, list) and len(padding) == 4 and all(type(side) is int for side in padding)
    taps = [buffers[key].shape if key in buffers else (1,) for key in ("up_filter", "down_filter")]
    if kernel != other or not proper or not all(1 <= len(shape) <= 2 for shape in taps):
        raise damaged(f"its layer {shown(name, 30)} is not described properly")
    return LayerSpec(
        name=name, in_channels=inputs, out_channels=outputs, kernel=kernel,
        in_size=_square(state.get("in_size")), out_size=_square(state.get("out_size")),
        in_rate=number(state, "in_sampling_rate"), out_rate=number(state, "out_sampling_rate"),
        in_cutoff=number(state, "in_cutoff"), out_cutoff=number(state, "out_cutoff"),
        up=whole(state, "up_factor"), down=whole(state, "down_factor"), up_taps=taps[0][0], down_taps=taps[1][0],
        padding=tuple(padding), radial=len(taps[1]) == 2,
        is_torgb=_fact(state, "is_torgb"), is_critical=_fact(state, "is_critically_sampled"),
    )  # fmt: skip


def _fact(state: dict, name: str) -> bool:
    """A yes or no among a module's attributes."""
    if not isinstance(state.get(name), bool):
        raise damaged(f"it does not say {name}")
    return state[name]


def _square(size: Any) -> int:
    """A grid size in pixels; both directions must be equal."""
    if isinstance(size, Array) and size.shape == (2,) and size.nbytes <= 16:
        sides = size.numpy().tolist()
        if sides[0] != sides[1]:
            raise unsupported("pictures that are not square")
        size = sides[0]
    return whole({"size": size}, "size")


def _reset_transform(tensors: dict[str, np.ndarray]) -> list[str]:
    """Put the identity into the input's user transform; returns what to tell if it was something else."""
    name = "synthesis.input.transform"
    found = tensors.get(name)
    tensors[name] = np.eye(3, dtype=np.float32)
    changed = found is not None and (found.shape != (3, 3) or not np.array_equal(found, tensors[name]))
    return ["The file was saved with a moved or turned picture; that was reset."] if changed else []


def _strangers(modules: dict[str, Module]) -> list[str]:
    """Classes and attributes that the published code does not have, as far as they can be told by name."""
    found = []
    for module in modules.values():
        known = _KNOWN_ATTRIBUTES.get(module.class_name)
        if known is None:
            found.append(shown(module.class_name, 30))
            continue
        names = [name for name in module.state if isinstance(name, str) and not name.startswith("_")]
        found += [shown(name, 30) for name in names if name not in known.split() and name != "training"]
    return sorted(set(found))
