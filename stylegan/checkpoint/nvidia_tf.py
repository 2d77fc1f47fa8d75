"""NVIDIA's TensorFlow pickles: StyleGAN2, StyleGAN2-ADA and StyleGAN1 variables under our names.

TensorFlow keeps convolution weights as [H, W, in, out] and dense ones as [in, out]; here both put the outputs first.
Its styles are `1 + affine(w)`; the published PyTorch code keeps that 1 in the bias, and so does every tensor made here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stylegan.checkpoint.foreign import Converted, Copies, dictionary, number, unsupported, whole, widths_of
from stylegan.checkpoint.pickle_records import Network, damaged, shown
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig

MAX_VARIABLES = 5000
FUSED_FROM = 128  # StyleGAN1 doubles with a transposed convolution from this resolution on
_INDIFFERENT = frozenset(
    "truncation_psi truncation_cutoff truncation_psi_val truncation_cutoff_val dlatent_avg_beta style_mixing_prob "
    "is_training is_validation is_template_graph return_dlatents randomize_noise dlatent_broadcast dtype label_size "
    "latent_size dlatent_size resolution num_channels fmap_base fmap_decay fmap_min fmap_max label_fmaps fused_modconv "
    "mapping_layers mapping_fmaps mapping_lrmul num_fp16_res conv_clamp architecture use_noise resample_kernel "
    "structure force_clean_graph fused_scale components conditioning func_name".split()
)  # read below, visible in the shapes, or without influence on a picture
_EXPECTED = {
    "nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu", "normalize_latents": True, "fmap_const": None,
    "use_wscale": True, "use_pixel_norm": False, "use_instance_norm": True, "use_styles": True,
    "const_input_layer": True, "blur_filter": [1, 2, 1], "use_spectral_norm": False,
}  # fmt: skip


class Variables:
    """A network's variables by name; each is taken once, so that what remains unused can be told."""

    def __init__(self, network: Network, copies: Copies) -> None:
        self.copies = copies
        self.records: dict[str, Any] = {}
        parts = dictionary(network.state.get("components"))
        for prefix, part in [("", network), *((f"{name}/", part) for name, part in parts.items())]:
            variables = part.state.get("variables") if isinstance(part, Network) else None
            if not isinstance(variables, list) or len(variables) > MAX_VARIABLES:
                raise damaged("its list of variables is missing")
            for item in variables:
                if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], str):
                    raise damaged("one of its variables has no name")
                self.records[prefix + item[0]] = item[1]

    def __contains__(self, name: str) -> bool:
        return name in self.records

    def take(self, name: str, rank: int) -> np.ndarray:
        """A variable as float32, which must be there and have that many dimensions."""
        if name not in self.records:
            raise damaged(f"its variable {shown(name)} is missing")
        values = self.copies.take(self.records.pop(name))
        if values.ndim != rank:
            raise damaged(f"its variable {shown(name)} has the wrong shape")
        return values

    def conv(self, name: str, flip: bool = False) -> np.ndarray:
        """A convolution weight as [out, in, H, W], with both spatial axes turned round if asked."""
        values = self.take(name, 4).transpose(3, 2, 0, 1)
        return np.ascontiguousarray(values[:, :, ::-1, ::-1] if flip else values)

    def dense(self, name: str) -> np.ndarray:
        """A dense weight as [out, in]."""
        return np.ascontiguousarray(self.take(name, 2).T)

    def plane(self, name: str) -> np.ndarray:
        """A noise picture [1, 1, R, R] as [R, R]."""
        values = self.take(name, 4)
        if values.shape[:2] != (1, 1):
            raise damaged(f"its variable {shown(name)} has the wrong shape")
        return np.ascontiguousarray(values[0, 0])


def convert_tensorflow(root: Any, copies: Copies) -> Converted:
    """The moving average `Gs` of a TensorFlow pickle `(G, D, Gs)`, or a generator stored alone."""
    network = root[-1] if isinstance(root, tuple | list) and root else root
    if not isinstance(network, Network):
        raise CheckpointError("The pickle holds no StyleGAN network; use a file with G, D and Gs, or G_ema.")
    variables = Variables(network, copies)
    settings = _settings(network)
    names = variables.records
    if "synthesis/4x4/Const/const" not in names:
        raise CheckpointError("The TensorFlow network in this file is no StyleGAN generator; use another file.")
    if any("LabelConcat" in name for name in names):
        raise unsupported("TensorFlow's label concatenation", "use a conditional StyleGAN2-ADA or StyleGAN3 file")
    if any("/StyleMod/" in name for name in names):
        return _stylegan1(settings, variables)
    if any("/ToRGB_lod" in name for name in names):
        raise unsupported("StyleGAN2's config A, B, C or D", "use a file of config E or F")
    return _stylegan2(settings, variables)


def _settings(network: Network) -> dict[str, Any]:
    """The arguments that the network was built with; one that would change the picture unseen is refused by name."""
    settings: dict[str, Any] = {}
    for part in [network, *dictionary(network.state.get("components")).values()]:
        if isinstance(part, Network):
            settings |= dictionary(part.state.get("static_kwargs"))
    for name, value in settings.items():
        if name in _EXPECTED:
            if value is not None and (type(value) not in (bool, str, list) or value != _EXPECTED[name]):
                raise unsupported(f"the setting {name} = {shown(value, 20)}")
        elif name not in _INDIFFERENT and value is not None and value is not False:
            raise unsupported(f"the setting {shown(name, 30)}", "it comes from a fork; use a file of the original code")
    return settings


def _resolutions(variables: Variables, settings: dict[str, Any]) -> list[int]:
    """The resolutions that have layers, 4 pixels and up, which must end at the one that the settings name."""
    found = [4]
    while f"synthesis/{found[-1] * 2}x{found[-1] * 2}/Conv1/weight" in variables:
        found.append(found[-1] * 2)
    if whole(settings, "resolution", found[-1]) != found[-1]:
        raise damaged("it has not the layers of its resolution")
    return found


def _mapping(settings: dict[str, Any], variables: Variables, bias_scale: float) -> tuple[dict, dict[str, np.ndarray]]:
    """Config fields and tensors of the mapping network; `bias_scale` turns the file's biases into ours."""
    tensors, count = {}, 0
    while f"mapping/Dense{count}/weight" in variables:
        tensors[f"mapping.fc{count}.weight"] = variables.dense(f"mapping/Dense{count}/weight")
        tensors[f"mapping.fc{count}.bias"] = variables.take(f"mapping/Dense{count}/bias", 1) * np.float32(bias_scale)
        count += 1
    if not count:
        raise unsupported("no mapping network")
    num_classes = 0
    if "mapping/LabelEmbed/weight" in variables:
        tensors["mapping.embed.weight"] = variables.dense("mapping/LabelEmbed/weight")
        tensors["mapping.embed.bias"] = variables.take("mapping/LabelEmbed/bias", 1)
        num_classes = tensors["mapping.embed.weight"].shape[1]
    if "dlatent_avg" in variables:
        tensors["mapping.w_avg"] = variables.take("dlatent_avg", 1)
    w_dim = tensors[f"mapping.fc{count - 1}.bias"].shape[0]
    widths = {tensors[f"mapping.fc{i}.bias"].shape[0] for i in range(count - 1)} or {w_dim}
    if len(widths) > 1:
        raise unsupported("mapping layers of different widths")
    width = widths.pop()
    config = {
        "z_dim": tensors["mapping.fc0.weight"].shape[1] - (w_dim if num_classes else 0), "w_dim": w_dim,
        "num_classes": num_classes, "mapping_layers": count, "mapping_width": 0 if width == w_dim else width,
        "mapping_lr_multiplier": number(settings, "mapping_lrmul", 0.01),
        "w_avg_beta": 0.995 if settings.get("dlatent_avg_beta") is None else number(settings, "dlatent_avg_beta"),
    }  # fmt: skip
    return config, tensors


def _widths(settings: dict[str, Any], default_base: int, widths: list[int]) -> dict[str, Any]:
    """Channels of the blocks; TensorFlow's fmap_base counts from half the resolution."""
    found = {"channel_base": 2 * whole(settings, "fmap_base", default_base)}
    found["channel_max"] = whole(settings, "fmap_max", 512)
    return found | widths_of(found, widths)


def _filter(settings: dict[str, Any]) -> tuple[float, ...]:
    """Taps of the resampling filter; None means a box of two."""
    taps = settings.get("resample_kernel", [1, 3, 3, 1])
    taps = [1, 1] if taps is None else taps
    if (
        not isinstance(taps, list | tuple)
        or not 1 <= len(taps) <= 64
        or any(type(tap) not in (int, float) for tap in taps)
    ):
        raise unsupported("a resample_kernel that is no list of numbers")
    return tuple(float(tap) for tap in taps)


def _stylegan2(settings: dict[str, Any], variables: Variables) -> Converted:
    """StyleGAN2 and StyleGAN2-ADA (arXiv 1912.04958, 2006.06676)."""
    use_noise = settings.get("use_noise", True) is not False
    architecture = settings.get("architecture") or "skip"
    if architecture not in ("orig", "skip", "resnet"):
        raise unsupported(f"the architecture {shown(architecture, 20)}")
    config, tensors = _mapping(settings, variables, 1.0)
    resolutions = _resolutions(variables, settings)
    tensors["synthesis.b4.const"] = _const(variables)
    for index, resolution in enumerate(resolutions):
        block, scope = f"synthesis.b{resolution}", f"synthesis/{resolution}x{resolution}"
        convs = (
            [("conv1", "Conv", 0)]
            if index == 0
            else [("conv0", "Conv0_up", 2 * index - 1), ("conv1", "Conv1", 2 * index)]
        )
        for ours, theirs, noise in convs:
            tensors |= _styled(variables, f"{block}.{ours}", f"{scope}/{theirs}", flip=ours == "conv0")
            if use_noise:
                tensors[f"{block}.{ours}.noise_strength"] = variables.take(f"{scope}/{theirs}/noise_strength", 0)
                tensors[f"{block}.{ours}.noise_const"] = variables.plane(f"synthesis/noise{noise}")
        if architecture == "skip" or resolution == resolutions[-1]:
            tensors |= _styled(variables, f"{block}.torgb", f"{scope}/ToRGB")
        if architecture == "resnet" and index:
            tensors[f"{block}.skip.weight"] = variables.conv(f"{scope}/Skip/weight", flip=True)
    clamp = settings.get("conv_clamp")
    widths = [tensors[f"synthesis.b{resolution}.conv1.weight"].shape[0] for resolution in resolutions]
    config |= {
        "family": "stylegan2", "resolution": resolutions[-1], "architecture": architecture, "use_noise": use_noise,
        "img_channels": tensors[f"synthesis.b{resolutions[-1]}.torgb.bias"].shape[0],
        "resample_filter": _filter(settings), "conv_clamp": 0.0 if clamp is None else number(settings, "conv_clamp"),
    }  # fmt: skip
    _nothing_left(variables, ("lod", "synthesis/lod", *(f"synthesis/noise{i}" for i in range(2 * len(resolutions)))))
    return Converted(
        GeneratorConfig(**config | _widths(settings, 16384, widths)), tensors, "NVIDIA StyleGAN2 (TensorFlow pickle)"
    )


def _const(variables: Variables) -> np.ndarray:
    """The learned constant as [C, 4, 4]."""
    values = variables.take("synthesis/4x4/Const/const", 4)
    if values.shape[0] != 1 or values.shape[2:] != (4, 4):
        raise unsupported("a constant that is not 4 x 4 (non-square pictures)")
    return np.ascontiguousarray(values[0])


def _styled(variables: Variables, ours: str, theirs: str, flip: bool = False) -> dict[str, np.ndarray]:
    """A modulated convolution: weight, bias, and the affine map whose bias takes up the 1."""
    return {
        f"{ours}.weight": variables.conv(f"{theirs}/weight", flip),
        f"{ours}.bias": variables.take(f"{theirs}/bias", 1),
        f"{ours}.affine.weight": variables.dense(f"{theirs}/mod_weight"),
        f"{ours}.affine.bias": variables.take(f"{theirs}/mod_bias", 1) + np.float32(1),
    }


def _stylegan1(settings: dict[str, Any], variables: Variables) -> Converted:
    """StyleGAN1 grown to its full resolution (arXiv 1812.04948)."""
    for name in ("lod", "synthesis/lod"):
        if name in variables and variables.take(name, 0) != 0:
            raise unsupported("a StyleGAN1 that is not fully grown", "use a snapshot from the end of its training")
    if settings.get("use_noise", True) is False:
        raise unsupported("a StyleGAN1 without noise")
    config, tensors = _mapping(settings, variables, 1 / math.sqrt(2))
    resolutions = _resolutions(variables, settings)
    tensors["synthesis.b4.const"] = _const(variables)
    for index, resolution in enumerate(resolutions):
        block, scope = f"synthesis.b{resolution}", f"synthesis/{resolution}x{resolution}"
        for row, theirs in enumerate(("Conv0_up", "Conv1") if index else ("Const", "Conv")):
            ours = f"{block}.conv{row}"
            if theirs != "Const":
                flip = theirs == "Conv0_up" and _is_fused(settings, resolution)
                tensors[f"{ours}.weight"] = variables.conv(f"{scope}/{theirs}/weight", flip)
            tensors[f"{ours}.bias"] = variables.take(f"{scope}/{theirs}/bias", 1)
            tensors[f"{ours}.noise_weight"] = variables.take(f"{scope}/{theirs}/Noise/weight", 1)
            tensors[f"{ours}.noise_const"] = variables.plane(f"synthesis/noise{2 * index + row}")
            tensors[f"{ours}.affine.weight"] = variables.dense(f"{scope}/{theirs}/StyleMod/weight")
            bias = variables.take(f"{scope}/{theirs}/StyleMod/bias", 1)
            bias[: len(bias) // 2] += np.float32(1)
            tensors[f"{ours}.affine.bias"] = bias
    last = f"synthesis.b{resolutions[-1]}"
    tensors[f"{last}.torgb.weight"] = variables.conv("synthesis/ToRGB_lod0/weight")
    tensors[f"{last}.torgb.bias"] = variables.take("synthesis/ToRGB_lod0/bias", 1)
    widths = [tensors["synthesis.b4.const"].shape[0]]
    widths += [tensors[f"synthesis.b{resolution}.conv1.bias"].shape[0] for resolution in resolutions[1:]]
    config |= {
        "family": "stylegan1", "resolution": resolutions[-1], "img_channels": tensors[f"{last}.torgb.bias"].shape[0],
    }  # fmt: skip
    unused = [f"synthesis/ToRGB_lod{i}/{leaf}" for i in range(1, len(resolutions)) for leaf in ("weight", "bias")]
    _nothing_left(variables, unused)
    return Converted(
        GeneratorConfig(**config | _widths(settings, 8192, widths)), tensors, "NVIDIA StyleGAN1 (TensorFlow pickle)"
    )


def _is_fused(settings: dict[str, Any], resolution: int) -> bool:
    """Whether the doubling to `resolution` is a transposed convolution, whose kernel lies the other way round."""
    fused = settings.get("fused_scale", "auto")
    return fused if isinstance(fused, bool) else resolution >= FUSED_FROM


def _nothing_left(variables: Variables, indifferent: Any) -> None:
    """Refuse a network with variables that nothing here knows what to do with."""
    strange = sorted(set(variables.records) - set(indifferent))
    if strange:
        raise unsupported(
            f"the variable {shown(strange[0], 50)}", "it comes from a fork; use a file of the original code"
        )
