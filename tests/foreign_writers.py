"""Writers of foreign checkpoints: our networks laid out as NVIDIA's and rosinality's code would save them.

Python's own pickle and torch's own tensors make the bytes; stand-ins with the published module names make the globals.
"""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types

import numpy as np
import torch

from stylegan.networks.generator import Generator

SOURCE = "# a stand-in for the text of a module"


class Persistent:
    """An object that pickles itself as a call of `torch_utils.persistence._reconstruct_persistent_obj`."""

    def __init__(self, class_name: str, state: dict, source: str = SOURCE) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a call was made")


class EasyDict(dict):
    """A dictionary of `dnnlib.util`."""


class Network:
    """A network of `dnnlib.tflib.network`, which pickles its attributes."""

    def __setstate__(self, state):
        raise AssertionError("a state was set")


def _place(module_name: str, thing: type | types.FunctionType) -> None:
    """Make `thing` importable from a module of that name, as pickle demands when it writes."""
    parts = module_name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    setattr(sys.modules[module_name], thing.__name__, thing)
    thing.__module__ = module_name


_place("torch_utils.persistence", _reconstruct_persistent_obj)
_place("dnnlib.util", EasyDict)
_place("dnnlib.tflib.network", Network)


def dump(root: object, protocol: int = 4) -> bytes:
    """The pickle of `root`, as training loops write it."""
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol).dump(root)
    return stream.getvalue()


def _module(class_name: str, attributes: dict, parameters=None, buffers=None, modules=None) -> Persistent:
    """A torch module's state, with the tables and the empty hooks that torch keeps."""
    state = {
        "training": False, "_parameters": collections.OrderedDict(parameters or {}),
        "_buffers": buffers or {}, "_non_persistent_buffers_set": set(), "_forward_hooks": collections.OrderedDict(),
        "_modules": modules or {},
    }  # fmt: skip
    return Persistent(class_name, state | attributes | {"_init_args": (), "_init_kwargs": EasyDict()})


def persistent_generator(generator: Generator, layout: str = "ada", channels_last: bool = False) -> Persistent:
    """A StyleGAN2 generator of ours as stylegan2-ada-pytorch ('ada') or stylegan3 ('sg3') would pickle it."""
    config = generator.config
    tensors = {name: value.detach().clone() for name, value in generator.state_dict().items()}
    if channels_last:
        big = [name for name, value in tensors.items() if value.ndim == 4]
        tensors |= {name: tensors[name].contiguous(memory_format=torch.channels_last) for name in big}
    clamp = config.conv_clamp or None

    def part(class_name: str, path: str, attributes: dict, modules: dict | None = None) -> Persistent:
        own = {name[len(path) + 1 :]: value for name, value in tensors.items() if name.rpartition(".")[0] == path}
        buffers = {name: own.pop(name) for name in ("w_avg", "resample_filter", "noise_const") if name in own}
        parameters = {name: torch.nn.Parameter(value, requires_grad=False) for name, value in own.items()}
        return _module(class_name, attributes, parameters, buffers, modules)

    def dense(path: str, activation: str = "linear", rate: float = 1.0) -> Persistent:
        gain = np.float64(rate / np.sqrt(tensors[f"{path}.weight"].shape[1]))
        return part("FullyConnectedLayer", path, {"activation": activation, "weight_gain": gain, "bias_gain": rate})

    def conv(path: str, class_name: str, attributes: dict) -> Persistent:
        return part(class_name, path, attributes | {"conv_clamp": clamp}, {"affine": dense(f"{path}.affine")})

    styled = {"activation": "lrelu", "act_gain": np.sqrt(2), "use_noise": config.use_noise, "padding": 1}
    blocks = {}
    for resolution in config.block_resolutions:
        path = f"synthesis.b{resolution}"
        inner = {}
        for name in ("conv0", "conv1"):
            if f"{path}.{name}.weight" in tensors:
                inner[name] = conv(f"{path}.{name}", "SynthesisLayer", styled | {"resolution": resolution})
        if f"{path}.torgb.weight" in tensors:
            inner["torgb"] = conv(f"{path}.torgb", "ToRGBLayer", {"weight_gain": 1.0})
        if f"{path}.skip.weight" in tensors:
            inner["skip"] = part("Conv2dLayer", f"{path}.skip", {"activation": "linear", "up": 2, "bias": None})
        blocks[f"b{resolution}"] = part("SynthesisBlock", path, {"architecture": config.architecture}, inner)
    inside = {"w_dim": config.w_dim, "img_resolution": config.resolution, "img_channels": config.img_channels}
    synthesis = part("SynthesisNetwork", "synthesis", inside | {"num_ws": config.num_ws}, blocks)
    kwargs = EasyDict(channel_base=config.channel_base, channel_max=config.channel_max)
    kwargs["resample_filter"] = list(config.resample_filter)
    synthesis.meta["state"]["_init_kwargs"] = kwargs
    layers = {}
    for i in range(config.mapping_layers):
        layers[f"fc{i}"] = dense(f"mapping.fc{i}", "lrelu", config.mapping_lr_multiplier)
    if config.num_classes:
        layers["embed"] = dense("mapping.embed")
    mapping = part("MappingNetwork", "mapping", {"w_avg_beta": config.w_avg_beta, "num_ws": config.num_ws}, layers)
    about = {"z_dim": config.z_dim, "c_dim": config.num_classes, "num_ws": config.num_ws} | inside
    whole = _module("Generator", about, modules={"synthesis": synthesis, "mapping": mapping})
    if layout == "ada":
        whole.meta["state"]["_init_kwargs"] = EasyDict(synthesis_kwargs=kwargs)
    return whole


def snapshot(generator: Generator, layout: str = "ada", **options) -> dict:
    """A snapshot with only the moving average, as forks write it."""
    path = {"class_name": "training.dataset.ImageFolderDataset", "path": "/home/author/secret.zip"}
    return {"training_set_kwargs": path, "G_ema": persistent_generator(generator, layout, **options)}


def tensorflow_network(variables: dict, components: dict | None = None, **kwargs) -> Network:
    """A `dnnlib.tflib.Network` with these variables and arguments."""
    network = Network()
    network.__dict__.update(
        version=4, name="Gs", static_kwargs=kwargs, components=components or {}, build_module_src=SOURCE,
        build_func_name="G_main", variables=list(variables.items()),
    )  # fmt: skip
    return network


def rosinality_state(generator: Generator) -> dict[str, torch.Tensor]:
    """A generator's tensors under the names of rosinality's code."""
    ours = {name: value.detach().clone() for name, value in generator.state_dict().items()}
    kernel = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 16
    state = {"input.input": ours["synthesis.b4.const"][None]}
    for i in range(generator.config.mapping_layers):
        state |= {f"style.{i + 1}.{leaf}": ours[f"mapping.fc{i}.{leaf}"] for leaf in ("weight", "bias")}

    def styled(theirs: str, path: str, noise: int) -> None:
        state[f"{theirs}.conv.weight"] = ours[f"{path}.weight"][None]
        state[f"{theirs}.conv.modulation.weight"] = ours[f"{path}.affine.weight"]
        state[f"{theirs}.conv.modulation.bias"] = ours[f"{path}.affine.bias"]
        state[f"{theirs}.noise.weight"] = ours[f"{path}.noise_strength"].reshape(1)
        state[f"{theirs}.activate.bias"] = ours[f"{path}.bias"]
        state[f"noises.noise_{noise}"] = ours[f"{path}.noise_const"][None, None]

    def colour(theirs: str, path: str) -> None:
        state[f"{theirs}.conv.weight"] = ours[f"{path}.weight"][None]
        state[f"{theirs}.conv.modulation.weight"] = ours[f"{path}.affine.weight"]
        state[f"{theirs}.conv.modulation.bias"] = ours[f"{path}.affine.bias"]
        state[f"{theirs}.bias"] = ours[f"{path}.bias"][None, :, None, None]

    styled("conv1", "synthesis.b4.conv1", 0)
    colour("to_rgb1", "synthesis.b4.torgb")
    for i, resolution in enumerate(generator.config.block_resolutions[1:]):
        styled(f"convs.{2 * i}", f"synthesis.b{resolution}.conv0", 2 * i + 1)
        styled(f"convs.{2 * i + 1}", f"synthesis.b{resolution}.conv1", 2 * i + 2)
        colour(f"to_rgbs.{i}", f"synthesis.b{resolution}.torgb")
        state[f"convs.{2 * i}.conv.blur.kernel"] = kernel
        state[f"to_rgbs.{i}.upsample.kernel"] = kernel
    return state


def tensorflow_generator(generator: Generator, **kwargs) -> Network:
    """A StyleGAN2 generator of ours as TensorFlow's variables."""
    ours = {name: value.detach().numpy().copy() for name, value in generator.state_dict().items()}
    config, synthesis, mapping = generator.config, {}, {}

    def styled(scope: str, path: str, flip: bool = False) -> None:
        weight = ours[f"{path}.weight"]
        synthesis[f"{scope}/weight"] = (weight[:, :, ::-1, ::-1] if flip else weight).transpose(2, 3, 1, 0).copy()
        synthesis[f"{scope}/bias"] = ours[f"{path}.bias"]
        synthesis[f"{scope}/mod_weight"] = ours[f"{path}.affine.weight"].T.copy()
        synthesis[f"{scope}/mod_bias"] = ours[f"{path}.affine.bias"] - 1
        if f"{path}.noise_strength" in ours:
            synthesis[f"{scope}/noise_strength"] = np.float32(ours[f"{path}.noise_strength"])

    synthesis["4x4/Const/const"] = ours["synthesis.b4.const"][None]
    for index, resolution in enumerate(config.block_resolutions):
        path, scope = f"synthesis.b{resolution}", f"{resolution}x{resolution}"
        styled(f"{scope}/Conv1" if index else "4x4/Conv", f"{path}.conv1")
        if index:
            styled(f"{scope}/Conv0_up", f"{path}.conv0", flip=True)
        if f"{path}.torgb.weight" in ours:
            styled(f"{scope}/ToRGB", f"{path}.torgb")
        if f"{path}.skip.weight" in ours:
            synthesis[f"{scope}/Skip/weight"] = ours[f"{path}.skip.weight"].transpose(2, 3, 1, 0).copy()
        for row in (0, 1) if index else (1,):
            if config.use_noise:
                synthesis[f"noise{2 * index - 1 + row}"] = ours[f"{path}.conv{row}.noise_const"][None, None]
    for i in range(config.mapping_layers):
        mapping[f"Dense{i}/weight"] = ours[f"mapping.fc{i}.weight"].T.copy()
        mapping[f"Dense{i}/bias"] = ours[f"mapping.fc{i}.bias"]
    if config.num_classes:
        mapping["LabelEmbed/weight"] = ours["mapping.embed.weight"].T.copy()
        mapping["LabelEmbed/bias"] = ours["mapping.embed.bias"]
    about = {
        "resolution": config.resolution, "fmap_base": config.channel_base // 2, "fmap_max": config.channel_max,
        "architecture": config.architecture, "use_noise": config.use_noise, "conv_clamp": config.conv_clamp or None,
        "dlatent_avg_beta": config.w_avg_beta,
    }  # fmt: skip
    parts = {"synthesis": tensorflow_network(synthesis), "mapping": tensorflow_network(mapping)}
    top = {"lod": np.float32(0), "dlatent_avg": ours["mapping.w_avg"]}
    return tensorflow_network(top, parts, **about | kwargs)


def tensorflow_stylegan1(resolution: int, channels: int = 2, lod: float = 0.0, **kwargs) -> Network:
    """A StyleGAN1 generator of random numbers as TensorFlow's variables."""
    source = np.random.RandomState(resolution)

    def draw(*shape: int) -> np.ndarray:
        return source.randn(*shape).astype(np.float32)

    synthesis, size = {"lod": np.float32(lod), "4x4/Const/const": draw(1, channels, 4, 4)}, 4
    while size <= resolution:
        index = size.bit_length() - 3
        for row, name in enumerate(("Conv0_up", "Conv1") if index else ("Const", "Conv")):
            scope = f"{size}x{size}/{name}"
            if name != "Const":
                synthesis[f"{scope}/weight"] = draw(3, 3, channels, channels)
            synthesis[f"{scope}/bias"], synthesis[f"{scope}/Noise/weight"] = draw(channels), draw(channels)
            synthesis[f"{scope}/StyleMod/weight"] = draw(4, 2 * channels)
            synthesis[f"{scope}/StyleMod/bias"] = draw(2 * channels)
            synthesis[f"noise{2 * index + row}"] = draw(1, 1, size, size)
        grown = resolution.bit_length() - size.bit_length()
        synthesis[f"ToRGB_lod{grown}/weight"] = draw(1, 1, channels, 3)
        synthesis[f"ToRGB_lod{grown}/bias"] = draw(3)
        size *= 2
    mapping = {"Dense0/weight": draw(4, 4), "Dense0/bias": draw(4)}
    parts = {"synthesis": tensorflow_network(synthesis), "mapping": tensorflow_network(mapping)}
    top = {"lod": np.float32(lod), "dlatent_avg": draw(4)}
    return tensorflow_network(top, parts, resolution=resolution, fmap_base=4 * channels, fmap_max=channels, **kwargs)
