"""StyleGAN1 against a slow implementation written from the paper (arXiv 1812.04948), layer by layer in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stylegan.checkpoint.convert import convert_file
from stylegan.checkpoint.file import Checkpoint, build, load_generator, save_checkpoint
from stylegan.checkpoint.nvidia_pickle import open_pickle
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import build_generator
from stylegan.networks.stylegan1 import adain, doubling_conv
from stylegan.render import Renderer
from stylegan.request import RenderRequest

SMALL = {"family": "stylegan1", "resolution": 16, "z_dim": 8, "w_dim": 12, "channel_base": 64, "channel_max": 6}


def _generator(**changes):
    """A seeded small network whose every tensor matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(GeneratorConfig(**{**SMALL, **changes})).eval().requires_grad_(False)
        for name, value in generator.state_dict().items():
            if name.endswith(("bias", "noise_weight", "const")) and not name.endswith("noise_const"):
                value += 0.3 * torch.randn(value.shape)
    return generator


# The slow network. Its variables follow TensorFlow's layout, as the paper's own files do: convolution weights
# [3, 3, in, out], dense ones [in, out], styles as a difference from 1. Pictures are [C, R, R] in float64.


def _correlate(x, weight):
    """3x3 correlation with zeros around the picture, one tap at a time."""
    size = x.shape[1]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    result = np.zeros((weight.shape[3], size, size))
    for i in range(3):
        for j in range(3):
            result += np.einsum("chw,co->ohw", padded[:, i : i + size, j : j + size], weight[i, j])
    return result


def _double_and_blur(x, weight):
    """Every pixel four times, the convolution, then the binomial filter of bilinear sampling (appendix C)."""
    x = _correlate(x.repeat(2, axis=1).repeat(2, axis=2), weight)
    size = x.shape[1]
    padded, result = np.pad(x, ((0, 0), (1, 1), (1, 1))), np.zeros_like(x)
    for i, row in enumerate((1, 2, 1)):
        for j, column in enumerate((1, 2, 1)):
            result += row * column / 16 * padded[:, i : i + size, j : j + size]
    return result


def _style(x, layer, w, strength):
    """Noise, bias, leaky ReLU, and equation 1: each feature map normalised, scaled and biased by its style."""
    x = x + strength * layer["noise"][None] * layer["noise_weight"][:, None, None] + layer["bias"][:, None, None]
    x = np.where(x > 0, x, 0.2 * x)
    styles = w @ layer["style_weight"] / math.sqrt(len(w)) + layer["style_bias"]
    result = np.empty_like(x)
    for c, plane in enumerate(x):
        deviation = math.sqrt(((plane - plane.mean()) ** 2).mean() + 1e-8)
        result[c] = (styles[c] + 1) * (plane - plane.mean()) / deviation + styles[len(x) + c]
    return result


def _slow_synthesis(network, ws, strength=1.0):
    """Figure 1b for one picture: ws [L, D] -> [C, R, R]."""
    x = network["const"]
    for index, (layer, w) in enumerate(zip(network["layers"], ws, strict=True)):
        if index:
            weight = layer["weight"] * math.sqrt(2) / math.sqrt(layer["weight"].shape[2] * 9)
            x = _double_and_blur(x, weight) if index % 2 == 0 else _correlate(x, weight)
        x = _style(x, layer, w, strength)
    weight = network["rgb_weight"][0, 0] / math.sqrt(len(x))
    return np.einsum("chw,co->ohw", x, weight) + network["rgb_bias"][:, None, None]


def _slow_mapping(network, z):
    """Section 2: z normalised, then layers with a hundredth of the learning rate; z [Z] -> w [D]."""
    x = z / math.sqrt((z**2).mean() + 1e-8)
    for weight, bias in network["mapping"]:
        x = x @ weight * 0.01 * math.sqrt(2) / math.sqrt(len(x)) + bias * 0.01
        x = np.where(x > 0, x, 0.2 * x)
    return x


def _from_generator(generator):
    """The slow network's variables out of our tensors."""
    tensors = {name: value.double().numpy() for name, value in generator.state_dict().items()}
    layers = []
    for resolution in generator.config.block_resolutions:
        for name in (f"synthesis.b{resolution}.conv0", f"synthesis.b{resolution}.conv1"):
            num = len(tensors[f"{name}.bias"])
            one = np.concatenate([np.ones(num), np.zeros(num)])
            layers.append({
                "weight": tensors[f"{name}.weight"].transpose(2, 3, 1, 0) if f"{name}.weight" in tensors else None,
                "bias": tensors[f"{name}.bias"], "noise_weight": tensors[f"{name}.noise_weight"],
                "noise": tensors[f"{name}.noise_const"], "style_weight": tensors[f"{name}.affine.weight"].T,
                "style_bias": tensors[f"{name}.affine.bias"] - one,
            })  # fmt: skip
    last = f"synthesis.b{generator.resolution}.torgb"
    return {"const": tensors["synthesis.b4.const"], "layers": layers, "rgb_bias": tensors[f"{last}.bias"],
            "rgb_weight": tensors[f"{last}.weight"].transpose(2, 3, 1, 0)}


def _from_tensorflow(path):
    """The slow network's variables straight out of a TensorFlow pickle, past our converter."""
    with open_pickle(path) as root:
        network, found = root[-1], {}
        parts = [(f"{key}/", part) for key, part in network.state["components"].items()]
        for prefix, part in [("", network), *parts]:
            for name, value in part.state["variables"]:
                value = value.numpy() if hasattr(value, "numpy") else np.array(value)
                found[prefix + name] = np.array(value, np.float64)
    layers = []
    while (resolution := 4 << (len(layers) // 2)) <= 1024 and f"synthesis/noise{len(layers)}" in found:
        first, second = ("Conv0_up", "Conv1") if layers else ("Const", "Conv")
        for theirs in (first, second):
            scope = f"synthesis/{resolution}x{resolution}/{theirs}"
            layers.append({
                "weight": found.get(f"{scope}/weight"), "bias": found[f"{scope}/bias"],
                "noise_weight": found[f"{scope}/Noise/weight"], "noise": found[f"synthesis/noise{len(layers)}"][0, 0],
                "style_weight": found[f"{scope}/StyleMod/weight"], "style_bias": found[f"{scope}/StyleMod/bias"],
            })  # fmt: skip
    mapping = [(found[f"mapping/Dense{i}/weight"], found[f"mapping/Dense{i}/bias"])
               for i in range(sum(name.startswith("mapping/Dense") for name in found) // 2)]
    return {"const": found["synthesis/4x4/Const/const"][0], "layers": layers, "mapping": mapping,
            "rgb_weight": found["synthesis/ToRGB_lod0/weight"], "rgb_bias": found["synthesis/ToRGB_lod0/bias"]}


@pytest.mark.parametrize("changes", [{}, {"resolution": 8, "img_channels": 1}, {"channels": (5, 3, 4)},
                                     {"resolution": 64, "channel_base": 64, "channel_max": 2}])
def test_the_network_is_the_papers(changes):
    generator = _generator(**changes)
    ws = torch.randn(2, generator.num_ws, 12, generator=torch.Generator().manual_seed(0))
    network = _from_generator(generator)
    for options, strength in (({}, 1.0), ({"noise": "none"}, 0.0), ({"noise_strength": 2.5}, 2.5)):
        expected = np.stack([_slow_synthesis(network, rows.double().numpy(), strength) for rows in ws])
        image = generator.synthesize(ws, **options)
        assert image.shape == expected.shape and image.dtype == torch.float32
        assert np.abs(image.numpy() - expected).max() < 1e-4 * (1 + np.abs(expected).max())


def test_every_layer_of_a_tensorflow_file(shared):
    path = shared / "fixtures" / "nvidia" / "tf_sg1_32.pkl"
    generator, network = build(convert_file(path)), _from_tensorflow(path)
    assert len(network["layers"]) == generator.num_ws == 8
    z = np.random.RandomState(3).randn(2, generator.z_dim)
    w = np.stack([_slow_mapping(network, row) for row in z])
    assert np.abs(generator.map(z).ws.numpy() - w[:, None]).max() < 1e-5
    outputs, hooks = [], []
    for block in generator.synthesis.pieces():
        for layer in (block.conv0, block.conv1):
            hooks.append(layer.register_forward_hook(lambda *call: outputs.append(call[2].numpy())))
    ws = w[:, None].repeat(8, axis=1) + 0.1 * np.random.RandomState(4).randn(2, 8, generator.w_dim)
    image = generator.synthesize(torch.from_numpy(ws))
    for hook in hooks:
        hook.remove()
    for row in range(2):
        x = network["const"]
        for index, layer in enumerate(network["layers"]):
            if index:
                weight = layer["weight"] * math.sqrt(2) / math.sqrt(layer["weight"].shape[2] * 9)
                x = _correlate(x, weight) if index % 2 else _double_and_blur(x, weight)
            x = _style(x, layer, ws[row, index], 1.0)
            assert np.abs(outputs[index][row] - x).max() < 1e-4 * (1 + np.abs(x).max()), f"layer {index}"
        expected = _slow_synthesis(network, ws[row])
        assert np.abs(image[row].numpy() - expected).max() < 1e-4 * (1 + np.abs(expected).max())


@pytest.mark.parametrize("size", [5, 33])
def test_doubling_convolution_is_repetition_and_correlation(size):
    source = torch.Generator().manual_seed(0)
    shapes = ([1, 3, size, size], [2, 3, 3, 3])
    x, weight = (torch.randn(shape, generator=source, dtype=torch.float64) for shape in shapes)
    slow = _correlate(x[0].numpy().repeat(2, axis=1).repeat(2, axis=2), weight.permute(2, 3, 1, 0).numpy())
    assert np.abs(doubling_conv(x, weight)[0].numpy() - slow).max() < 1e-12
    wide = torch.nn.functional.pad(weight, (1, 1, 1, 1))  # from 128 px on the paper's code transposes, not turned round
    shifted = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]
    fused = torch.nn.functional.conv_transpose2d(x, shifted.transpose(0, 1), stride=2, padding=1)
    torch.testing.assert_close(doubling_conv(x, weight.flip(2, 3)), fused)
    if size == 5:
        x.requires_grad_(), weight.requires_grad_()
        assert torch.autograd.gradcheck(doubling_conv, (x, weight))
        assert torch.autograd.gradgradcheck(doubling_conv, (x[:, :, :2, :2], weight))


def test_adain_sets_mean_and_deviation():
    x = 3 + 5 * torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    styles = torch.tensor([[1.0, 2.0, 3.0, 4.0, -1.0, 0.0, 1.0, 2.0]]).repeat(2, 1)
    result = adain(x, styles)
    torch.testing.assert_close(result.mean(dim=(2, 3)), styles[:, 4:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(result.std(dim=(2, 3), unbiased=False), styles[:, :4], atol=1e-4, rtol=1e-4)
    flat = adain(torch.full([2, 4, 8, 8], 7.0), styles)
    torch.testing.assert_close(flat, styles[:, 4:, None, None].expand(2, 4, 8, 8))


def test_rows_names_and_noise():
    generator = _generator()
    names = set(generator.state_dict())
    assert {"synthesis.b4.const", "synthesis.b4.conv0.affine.weight", "synthesis.b8.conv0.noise_const",
            "synthesis.b16.torgb.bias", "synthesis.b16.conv1.noise_weight", "mapping.w_avg"} <= names
    assert not {"synthesis.b4.conv0.weight", "synthesis.b8.torgb.weight"} & names
    assert generator.num_ws == len(generator.synthesis.layers) == 6
    assert [row for row, _ in generator.style_weights()] == list(range(6))
    assert [weight.shape for _, weight in generator.style_weights()][-1] == (8, 12)
    ws = generator.map(torch.randn(2, 8)).ws
    image = generator.synthesize(ws)
    for row in range(6):
        other = ws.clone()
        other[:, row] += 1
        assert not torch.equal(generator.synthesize(other), image)
    first, second = (generator.synthesize(ws, noise="random", noise_seed=seed) for seed in (1, 2))
    assert torch.equal(first, generator.synthesize(ws, noise="random", noise_seed=1)) and not torch.equal(first, second)
    alone = torch.cat([generator.synthesize(ws[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(image, alone, atol=1e-5, rtol=1e-4)
    silent = _generator(use_noise=False)
    assert not any("noise" in name for name in silent.state_dict())
    assert silent.synthesize(ws, noise="random").shape == image.shape


def test_saved_and_loaded_the_picture_keeps_its_bits(tmp_path):
    generator = _generator()
    path = save_checkpoint(tmp_path / "one.safetensors", Checkpoint(generator.config, generator.state_dict()))
    ws = generator.map(torch.randn(1, 8))
    assert torch.equal(load_generator(path).synthesize(ws), generator.synthesize(ws))
    assert GeneratorConfig.from_json(generator.config.to_json()) == generator.config
    result = Renderer(tmp_path).render(RenderRequest(model="one", seed=2, psi=0.7))
    assert result.pixels.shape == (16, 16, 3)
