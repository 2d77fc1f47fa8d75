"""StyleGAN3: filtered leaky ReLU against loops, layers and filters against the paper, and the published networks."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan.checkpoint.convert import convert_file
from stylegan.checkpoint.file import Checkpoint, build, load_generator, save_checkpoint
from stylegan.errors import CheckpointError, RequestError
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import build_generator
from stylegan.networks.pieces import Noise, State
from stylegan.networks.stylegan3 import FilteredLayer, FourierInput, low_pass, transform_matrix
from stylegan.networks.stylegan3_layers import design_layers
from stylegan.ops.filtered_lrelu import filtered_lrelu
from stylegan.render import Renderer
from stylegan.request import RenderRequest, Transform

FILES = ["sg3t_64", "sg3r_64", "sg3t_32_cond2"]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal float64 numbers that require a gradient."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=source, dtype=torch.float64).requires_grad_(True)


def _config(radial: bool = False, resolution: int = 16, num_layers: int = 14, **changes) -> GeneratorConfig:
    """A small network of config T, or R."""
    layers = design_layers(resolution, channel_base=128, channel_max=8, radial=radial, num_layers=num_layers)
    sizes = {"family": "stylegan3", "resolution": resolution, "z_dim": 8, "w_dim": 12, "layers": layers}
    return GeneratorConfig(**{**sizes, **changes})


def _generator(config: GeneratorConfig):
    """A seeded network whose every tensor matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(config).eval().requires_grad_(False)
        for name, value in generator.state_dict().items():
            if name.endswith("bias"):
                value += 0.2 * torch.randn(value.shape)
            elif name.endswith("magnitude_ema"):
                value += torch.rand([])
            elif name.endswith("input.affine.weight"):
                value += 0.3 * torch.randn(value.shape)
    return generator


def _slow_filter(x, kernel, up, down, padding, gain):
    """Zero insertion, padding, true convolution one tap at a time, and every down-th pixel."""
    if kernel is None:
        kernel = torch.ones(1, dtype=x.dtype)
    kernel = kernel.outer(kernel) if kernel.ndim == 1 else kernel
    height, width = x.shape[2:]
    wide = x.new_zeros(*x.shape[:2], height * up, width * up)
    wide[:, :, ::up, ::up] = x
    wide = F.pad(wide, (*padding, *padding))
    taps = len(kernel)
    rows, columns = wide.shape[2] - taps + 1, wide.shape[3] - taps + 1
    result = x.new_zeros(*x.shape[:2], rows, columns)
    for i in range(taps):
        for j in range(taps):
            result += kernel[taps - 1 - i, taps - 1 - j] * gain * wide[:, :, i : i + rows, j : j + columns]
    return result[:, :, ::down, ::down]


def _slow_filtered_lrelu(x, bias, up_filter, down_filter, up, down, padding, gain, slope, clamp):
    """Section 3.1 step by step: bias, upsampling that keeps the mean, leaky ReLU, clamp, downsampling."""
    x = _slow_filter(x + bias[None, :, None, None], up_filter, up, 1, padding, up**2)
    x = torch.where(x > 0, x, x * slope) * gain
    x = torch.minimum(torch.maximum(x, torch.tensor(-clamp)), torch.tensor(clamp)) if clamp else x
    return _slow_filter(x, down_filter, 1, down, (0, 0), 1.0)


CASES = [  # up, down, padding, taps of the up filter (0: none), shape of the down filter, clamp
    (2, 2, (9, 8), 12, (12,), 0.0),
    (2, 2, (-1, -2), 6, (6,), 0.5),
    (4, 2, (-2, -3), 12, (6,), 1.5),
    (4, 2, (3, 5), 8, (5, 5), 0.0),
    (2, 2, (5, 4), 6, (6, 6), 0.7),
    (1, 1, (0, 0), 0, (), 0.6),
    (1, 2, (1, 1), 0, (4,), 0.0),
    (2, 1, (3, 2), 5, (), 0.0),
]


@pytest.mark.parametrize(("up", "down", "padding", "up_taps", "down_shape", "clamp"), CASES)
def test_filtered_lrelu_is_its_definition_and_differentiable_twice(up, down, padding, up_taps, down_shape, clamp):
    x, bias = _random(1, 2, 9, 8), _random(2, seed=1)
    up_filter = _random(up_taps, seed=2).detach() if up_taps else None
    down_filter = _random(*down_shape, seed=3).detach() if down_shape else None
    settings = {"up": up, "down": down, "padding": padding, "gain": 1.3, "slope": 0.2, "clamp": clamp}
    expected = _slow_filtered_lrelu(x, bias, up_filter, down_filter, **settings)
    given = x.detach().clone()
    torch.testing.assert_close(filtered_lrelu(x, bias, up_filter, down_filter, **settings), expected)
    with torch.no_grad():  # the path that bends in place
        for form in (torch.contiguous_format, torch.channels_last):
            laid = x.detach().clone(memory_format=form)
            fast = filtered_lrelu(laid, bias, up_filter, down_filter, **settings)
            torch.testing.assert_close(fast, expected.detach())
            assert torch.equal(laid, given)
        filtered_lrelu(laid, None, up_filter, down_filter, **settings)
        assert torch.equal(laid, given)
    small = (_random(1, 1, 8, 7), _random(1, seed=1))
    if up_taps <= 8:
        run = lambda x, bias: filtered_lrelu(x, bias, up_filter, down_filter, **settings)  # noqa: E731
        assert torch.autograd.gradcheck(run, small)
        assert torch.autograd.gradgradcheck(run, small)


def test_filtered_lrelu_makes_less_alias_than_leaky_relu():
    places = torch.arange(64, dtype=torch.float64) + 0.5
    taps = low_pass(12, 24.0, 8.0, 128.0).double()
    changes = {"plain": [], "filtered": []}
    for shift in (0, 0.5):  # below Nyquist, but the overtones that bending makes are not
        wave = torch.sin(2 * math.pi * (places + shift) * 20 / 64).expand(1, 1, 64, 64)
        bent = filtered_lrelu(wave, None, taps, taps, up=2, down=2, padding=(11, 11), gain=1.0)
        for name, picture in (("plain", F.leaky_relu(wave, 0.2)), ("filtered", bent)):
            changes[name].append(torch.fft.rfft(picture[0, 0, 30, 8:40]).abs())
    plain, filtered = ((first - second).abs().max() for first, second in changes.values())
    assert filtered < 0.2 * plain  # a shift changes a spectrum's phases; its sizes only where there is alias


def test_designed_layers_are_the_published_plan():
    names = [spec.name for spec in design_layers(1024)]
    assert names[:3] == ["L0_36_512", "L1_36_512", "L2_52_512"] and names[-2:] == ["L13_1024_32", "L14_1024_3"]
    for radial in (False, True):
        layers = design_layers(256, radial=radial)
        assert [spec.kernel for spec in layers] == [1 if radial else 3] * 14 + [1]
        assert [spec.radial for spec in layers] == [radial] * 12 + [False] * 3
        assert layers[0].in_cutoff == 2 and layers[-1].out_cutoff == 128
        assert all(spec.out_cutoff <= spec.out_rate / 2 for spec in layers)
        assert all(spec.out_size == spec.out_rate + 20 for spec in layers[:-2]) and layers[-1].out_size == 256


def test_low_pass_filters_pass_low_and_stop_high():
    rate, cutoff, half_width = 128.0, 16.0, 16.0
    taps = low_pass(48, cutoff, half_width, rate).double()
    torch.testing.assert_close(taps, taps.flip(0))
    places = (torch.arange(48) - 23.5) / rate

    def response(frequency, angle=None):
        """The gain for a plane wave, through the sum of the taps."""
        if angle is None:
            return float((taps * torch.cos(2 * math.pi * frequency * places)).sum())
        along = places[:, None] * math.cos(angle) + places[None, :] * math.sin(angle)
        return float((plane * torch.cos(2 * math.pi * frequency * along)).sum())

    assert response(0) == pytest.approx(1, abs=1e-6) and response(cutoff) == pytest.approx(0.5, abs=0.02)
    assert max(abs(response(f)) for f in range(33, 64)) < 1e-3
    plane = low_pass(24, cutoff, half_width, rate, radial=True).double()
    places = (torch.arange(24) - 11.5) / rate
    assert plane.shape == (24, 24) and float(plane.sum()) == pytest.approx(1, abs=1e-6)
    for frequency in (8, 16, 24):
        turned = [response(frequency, angle) for angle in (0.0, 0.4, math.pi / 4)]
        assert max(turned) - min(turned) < 0.01


def _slow_input(layer: FourierInput, w, matrix) -> np.ndarray:
    """Every wave at every place in float64: where w and then the user's inverse matrix say the place comes from."""
    tensors = {name: value.detach().double().numpy() for name, value in layer.state_dict().items()}
    pictures = []
    for row in w.double().numpy():
        pose = tensors["affine.weight"] @ row / math.sqrt(len(row)) + tensors["affine.bias"]
        cos, sin, x, y = pose / math.hypot(pose[0], pose[1])
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        shift = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        whole = turn @ shift @ np.asarray(matrix, np.float64)
        waves = np.empty((layer.size, layer.size, len(tensors["phases"])))
        for c, (frequency, phase) in enumerate(zip(tensors["freqs"], tensors["phases"], strict=True)):
            moved = np.linalg.norm(whole[:2, :2].T @ frequency)
            fade = 1 - (moved - layer.bandwidth) / (layer.rate / 2 - layer.bandwidth)
            for i in range(layer.size):
                for j in range(layer.size):
                    x, y = ((k + 0.5 - layer.size / 2) / layer.rate for k in (j, i))
                    place = whole @ [x, y, 1]
                    wave = math.sin(2 * math.pi * (place[:2] @ frequency + phase))
                    waves[i, j, c] = wave * min(max(fade, 0), 1)
        pictures.append(waves @ tensors["weight"].T / math.sqrt(len(tensors["weight"])))
    return np.stack(pictures).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("transform", [Transform(), Transform(0.2, -0.1, 30, 1.0), Transform(0.0, 0.1, 0, 0.3)])
def test_the_input_is_waves_at_places(transform):
    layer = _generator(_config(num_layers=4)).synthesis.input
    w, matrix = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)), transform_matrix(transform)
    expected, styles = _slow_input(layer, w, matrix), [layer.affine(w)]
    assert np.abs(layer(State(matrix), styles, Noise()).x.numpy() - expected).max() < 1e-4
    layer.transform.copy_(matrix)
    assert np.abs(layer(State(), styles, Noise()).x.numpy() - expected).max() < 1e-4


def test_transforms_as_matrices():
    angle = math.radians(30)
    turn = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    seen = np.array([[1, 0, 0.2], [0, 1, -0.1], [0, 0, 1]]) @ turn @ np.diag([2.0, 2.0, 1.0])
    assert np.allclose(transform_matrix(Transform(0.2, -0.1, 30, 2)).numpy(), np.linalg.inv(seen), atol=1e-6)
    assert torch.equal(transform_matrix(Transform()), torch.eye(3))
    for wrong in (torch.eye(2), torch.full([3, 3], math.nan)):
        with pytest.raises(RequestError, match="3 x 3"):
            transform_matrix(wrong)


@pytest.mark.parametrize("radial", [False, True])
def test_a_layer_is_its_definition(radial):
    spec = _config(radial).layers[3]
    layer = FilteredLayer(spec, 12, clamp=2.0).requires_grad_(False).double()
    layer.magnitude_ema.fill_(1.7)
    x, w = _random(2, 8, 36, 36).detach(), _random(2, 12, seed=1).detach()
    pictures = []
    for picture, row in zip(x, w, strict=True):
        style = layer.affine.weight @ row / math.sqrt(12) + layer.affine.bias
        weight = layer.weight * style[None, :, None, None]
        weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt() / math.sqrt(1.7)
        pictures.append(F.conv2d(picture[None], weight, padding=spec.kernel - 1))
    settings = {"up": 2, "down": 2, "padding": spec.padding[:2], "gain": math.sqrt(2), "slope": 0.2, "clamp": 2.0}
    taps = (layer.up_filter, layer.down_filter)
    assert taps[1].ndim == 1 + radial
    expected = _slow_filtered_lrelu(torch.cat(pictures), layer.bias, *taps, **settings)
    state = layer(State(x), [layer.affine(w)], Noise(), torch.float64)
    torch.testing.assert_close(state.x, expected)


@pytest.mark.parametrize("radial", [False, True])
def test_rows_names_and_batches(radial):
    generator = _generator(_config(radial, num_classes=2, num_layers=5, img_channels=3))
    first = generator.config.layers[0].name
    names = set(generator.state_dict())
    assert {f"synthesis.{first}.magnitude_ema", f"synthesis.{first}.up_filter", f"synthesis.{first}.affine.weight",
            "synthesis.input.freqs", "synthesis.input.transform", "mapping.embed.weight"} <= names
    assert generator.num_ws == 7 and [layer.ws_index for layer in generator.synthesis.layers] == list(range(7))
    assert [row for row, _ in generator.style_weights()] == list(range(7))
    ws = generator.map(torch.randn(3, 8), [0, 1, 1]).ws
    image = generator.synthesize(ws)
    assert image.shape == (3, 3, 16, 16) and image.dtype == torch.float32 and image.std() > 1e-3
    alone = torch.cat([generator.synthesize(ws[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(image, alone, atol=1e-5, rtol=1e-4)
    assert torch.equal(image, generator.synthesize(ws, noise="random", noise_seed=4))
    for row in range(7):
        other = ws.clone()
        other[:, row] += 1
        assert not torch.equal(generator.synthesize(other), image)


@pytest.mark.parametrize("radial", [False, True])
def test_the_picture_moves_with_its_input(radial):
    generator = _generator(_config(radial, resolution=32))
    ws = generator.map(torch.randn(1, 8, generator=torch.Generator().manual_seed(1)))
    still = generator.synthesize(ws)
    contrast = still.var(dim=(2, 3)).mean()
    moved = generator.synthesize(ws, transform=Transform(translate_x=6 / 32, translate_y=-3 / 32))
    error = (moved[:, :, 5:24, 11:27] - still[:, :, 8:27, 5:21]).square().mean() / contrast
    assert error < 1e-3  # 30 dB; a picture that ignored the shift, or went the other way, has an error near 1
    quarter = generator.synthesize(ws, transform=Transform(rotate=90))
    error = (quarter - torch.rot90(still, 1, (2, 3)))[:, :, 4:-4, 4:-4].square().mean() / contrast
    assert error < 1e-3 if radial else error > 0.1  # only config R follows a turn (table 1)


def test_other_families_refuse_a_transform(tiny_generator):
    ws = tiny_generator.map(torch.randn(1, tiny_generator.z_dim))
    with pytest.raises(RequestError, match="StyleGAN3"):
        tiny_generator.synthesize(ws, transform=Transform())


def test_configs_survive_json_and_may_leave_the_layers_out():
    for radial in (False, True):
        config = _config(radial)
        assert GeneratorConfig.from_json(config.to_json()) == config
    plain = GeneratorConfig(family="stylegan3", resolution=64, channel_base=1024, channel_max=16)
    assert plain.layers == design_layers(64, channel_base=1024, channel_max=16) and plain.num_ws == 16
    assert hash(plain) == hash(GeneratorConfig.from_json(plain.to_json()))


def _damage(**changes):
    """A config's JSON with fields of its fourth layer replaced."""
    values = dataclasses.asdict(_config())
    layers = [spec._asdict() for spec in _config().layers]
    layers[3] |= changes
    return json.dumps(values | {"layers": [list(layer.values()) for layer in layers]})


@pytest.mark.parametrize("changes", [
    {"name": "forward"}, {"name": "L3_36.x"}, {"name": "L0_36_8"}, {"name": 3}, {"in_channels": 9}, {"out_size": 10**9},
    {"up": 10**12}, {"up": 0}, {"up": 1}, {"up_taps": -1}, {"kernel": 2}, {"kernel": True}, {"padding": [9, 8, 9]},
    {"padding": [9, 8, 8, 9]}, {"padding": [10**9, 8, 10**9, 8]}, {"in_rate": 0}, {"in_rate": "x"},
    {"in_cutoff": math.nan}, {"out_cutoff": math.inf}, {"out_rate": 10**400}, {"radial": 1}, {"down_taps": [12]},
])  # fmt: skip
def test_impossible_layers_are_refused_before_anything_is_allocated(changes):
    with pytest.raises(CheckpointError):
        GeneratorConfig.from_json(_damage(**changes))


def test_layers_larger_than_any_network_are_refused():
    big = _config().layers[3]._replace(name="L0_x", in_size=4096, out_size=4096, in_channels=4096, out_channels=4096)
    for layers in ([list(big)], [], [1], "L0", [[]] * 100, [list(big)[:5]]):
        text = json.dumps({"family": "stylegan3", "resolution": 48, "layers": layers})
        with pytest.raises(CheckpointError):
            GeneratorConfig.from_json(text)
    for text in ("[" * 100_000, '{"layers": ' + "[" * 600 + "]" * 600 + "}", '{"conv_clamp": NaN}',
                 '{"conv_clamp": "256"}', '{"w_avg_beta": 1e999}', '{"family": "stylegan2", "layers": [[1]]}'):
        with pytest.raises(CheckpointError):
            GeneratorConfig.from_json(text)


def test_saved_and_loaded_the_picture_keeps_its_bits_and_the_renderer_moves_it(tmp_path):
    generator = _generator(_config(num_layers=5))
    path = save_checkpoint(tmp_path / "three.safetensors", Checkpoint(generator.config, generator.state_dict()))
    ws = generator.map(torch.randn(1, 8))
    assert torch.equal(load_generator(path).synthesize(ws), generator.synthesize(ws))
    renderer, request = Renderer(tmp_path), RenderRequest(model="three", seed=5)
    still = renderer.render(request)
    moved = renderer.render(request.replace(transform=Transform(translate_x=0.25, rotate=20, scale=1.5)))
    assert not np.array_equal(still.pixels, moved.pixels)
    image = generator.synthesize(moved.latents, transform=Transform(translate_x=0.25, rotate=20, scale=1.5))
    assert np.array_equal(moved.pixels, (image * 127.5 + 128).clamp(0, 255).byte()[0].permute(1, 2, 0).numpy())
    assert np.array_equal(still.pixels, renderer.render(request.replace(transform=Transform())).pixels)


@pytest.mark.parametrize("name", FILES)
def test_published_files_give_their_pictures(shared, name):
    folder = shared / "fixtures" / "nvidia"
    expected = np.load(folder / f"{name}.npz", allow_pickle=False)
    generator = build(convert_file(folder / f"{name}.pkl"))
    labels = torch.from_numpy(expected["c"]).float() if expected["c"].shape[1] else None
    latents = generator.map(expected["z"], labels)
    for key, found in {
        "ws_psi1": latents, "ws_psi07": latents.truncate(generator.w_avg, 0.7),
        "ws_psi07_cut4": latents.truncate(generator.w_avg, 0.7, 4),
    }.items():  # fmt: skip
        assert np.abs(found.ws.numpy() - expected[key]).max() < 1e-5
    pictures = [(f"img_{noise}_{kind}", f"ws_{kind}", {"noise": noise})
                for noise in ("const", "none") for kind in ("psi1", "psi07", "mix", "wplus")]
    pictures.append(("img_const_transform", "ws_psi1", {"transform": expected["transform"]}))
    for key, ws, options in pictures:
        image = generator.synthesize(torch.from_numpy(expected[ws]), **options).numpy()
        assert np.abs(image - expected[key]).max() < 1e-4 * (1 + np.abs(expected[key]).max()), key
    image = generator.synthesize(torch.from_numpy(expected["ws_psi07"]))
    pixels = (image * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(pixels - expected["img_u8_const_psi07"]).max() <= 1
    alone = generator.synthesize(torch.from_numpy(expected["ws_psi1"][:1])).numpy()
    assert np.abs(alone - expected["img_const_psi1_batch1"]).max() < 1e-4 * (1 + np.abs(alone).max())


@pytest.mark.parametrize("name", FILES)
def test_published_files_have_the_layers_and_filters_of_the_paper(shared, name):
    folder = shared / "fixtures" / "nvidia"
    about = json.loads(str(np.load(folder / f"{name}.npz", allow_pickle=False)["meta_json"]))["init_kwargs"]
    checkpoint = convert_file(folder / f"{name}.pkl")
    designed = design_layers(about["img_resolution"], 3, about["channel_base"], about["channel_max"],
                             radial=about.get("use_radial_filters", False))
    for ours, theirs in zip(designed, checkpoint.config.layers, strict=True):
        assert ours[:-2] == theirs[:-2]
        if ours.up > 1:
            up = low_pass(ours.up_taps, ours.in_cutoff, ours.in_half_width, ours.tmp_rate)
            down = low_pass(ours.down_taps, ours.out_cutoff, ours.out_half_width, ours.tmp_rate, ours.radial)
            for key, ours_filter in (("up_filter", up), ("down_filter", down)):
                stored = checkpoint.tensors[f"synthesis.{ours.name}.{key}"]
                torch.testing.assert_close(ours_filter, stored, atol=1e-6, rtol=0)
