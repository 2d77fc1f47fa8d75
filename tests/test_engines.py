"""Engines give the pictures of the modules; the walk gives the same bits from wherever it starts."""

from __future__ import annotations

import pytest
import torch

from stylegan import models
from stylegan.engines import packed
from stylegan.engines.gpu import GpuEngine
from stylegan.engines.plain import TOLERANCE, PlainEngine
from stylegan.engines.walk import Plan, Prefixes, Region, _on_grid, prefix_keys, walk
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import build_generator
from stylegan.networks.pieces import Noise, State
from stylegan.networks.stylegan3 import transform_matrix
from stylegan.ops.winograd import winograd_conv, winograd_weight
from stylegan.request import Transform

SMALL = {"resolution": 32, "z_dim": 8, "w_dim": 12, "channel_base": 256, "channel_max": 16}
NETWORKS = {
    "skip": {}, "grey": {"img_channels": 1}, "alpha": {"img_channels": 4}, "clamped": {"conv_clamp": 0.5},
    "orig": {"architecture": "orig"}, "resnet": {"architecture": "resnet", "conv_clamp": 1.0},
    "filter of six": {"resample_filter": (1.0, 2.0, 3.0, 3.0, 2.0, 1.0)}, "quiet": {"use_noise": False},
    "wide": {"channel_base": 4096, "channel_max": 128}, "stylegan1": {"family": "stylegan1"},
    "wide stylegan1": {"family": "stylegan1", "channel_base": 4096, "channel_max": 128},
    "stylegan3": {"family": "stylegan3", "conv_clamp": 256.0},
    "wide stylegan3": {"family": "stylegan3", "channel_base": 4096, "channel_max": 128},
}  # fmt: skip


def _generator(**changes):
    """A seeded small generator with noise and biases that show."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(GeneratorConfig(**{**SMALL, **changes})).eval().requires_grad_(False)
        for name, value in generator.named_parameters():
            if name.endswith(("noise_strength", "noise_weight")) or (name.endswith("bias") and "affine" not in name):
                value.copy_(0.3 * torch.randn(value.shape))
            if name == "synthesis.input.affine.weight":  # zero at first, so that w would not matter
                value.copy_(0.3 * torch.randn(value.shape))
    return generator


def _ws(generator, num=1, seed=1):
    """Rows of W+ that differ from each other, [N, L, D]."""
    return torch.randn(num, generator.num_ws, generator.w_dim, generator=torch.Generator().manual_seed(seed))


def _plan(generator, ws, noise=None, **changes):
    """A plan for ws."""
    mode = noise or Noise()
    key = repr((mode.mode, mode.strength)).encode()
    return Plan(generator.synthesis.styles(ws), mode, State(), **{"key": key, **changes})


def _drawn(seed=3):
    """Random noise, always the same."""
    return Noise("random", 1.0, torch.Generator().manual_seed(seed))


class Counted(PlainEngine):
    """The plain engine, which remembers what it ran."""

    def __init__(self, synthesis):
        super().__init__(synthesis)
        self.ran = []

    def run(self, index, *rest):
        self.ran.append(index)
        return super().run(index, *rest)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num", [1, 3])
def test_the_plain_engine_gives_the_modules_picture(name, num):
    generator = _generator(**NETWORKS[name])
    ws = _ws(generator, num)
    engine, pieces = PlainEngine(generator.synthesis), generator.synthesis.pieces()
    exact = generator.synthesize(ws)
    found = walk(engine, pieces, _plan(generator, ws)).state.image
    assert found.shape == exact.shape and (found - exact).abs().max() < TOLERANCE / 10 * exact.std().clamp(min=1)
    for noise in (Noise("none"), Noise("const", 2.0)):
        expected = generator.synthesis(ws, noise)
        assert torch.allclose(walk(engine, pieces, _plan(generator, ws, noise)).state.image, expected, atol=1e-4)
    if generator.config.family == "stylegan2" and generator.config.use_noise:
        expected = generator.synthesis(ws, _drawn())
        assert torch.allclose(walk(engine, pieces, _plan(generator, ws, _drawn())).state.image, expected, atol=1e-4)


def test_a_transform_reaches_the_first_piece():
    generator = _generator(family="stylegan3")
    matrix, ws = transform_matrix(Transform(rotate=20)), _ws(generator)
    plan = Plan(generator.synthesis.styles(ws), Noise(), State(matrix), b"")
    found = walk(PlainEngine(generator.synthesis), generator.synthesis.pieces(), plan).state.image
    assert torch.allclose(found, generator.synthesize(ws, transform=Transform(rotate=20)), atol=1e-4)
    assert not torch.allclose(found, generator.synthesize(ws), atol=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num", [1, 2])
def test_bfloat16_is_close(name, num):
    generator = _generator(**NETWORKS[name])
    ws, pieces = _ws(generator, num), generator.synthesis.pieces()
    engine, exact = PlainEngine(generator.synthesis, torch.bfloat16), generator.synthesize(ws)
    found = walk(engine, pieces, _plan(generator, ws)).state.image
    assert engine.name == "torch bfloat16" and found.dtype == torch.float32
    assert 1e-5 < (found - exact).square().mean().sqrt() < 0.05 * exact.std()


def test_missing_operators_run_the_plain_way(monkeypatch):
    generator = _generator()
    ws, pieces = _ws(generator), generator.synthesis.pieces()
    monkeypatch.setattr(packed, "prepacking_works", lambda: False)
    found = walk(PlainEngine(generator.synthesis), pieces, _plan(generator, ws)).state.image
    assert torch.allclose(found, generator.synthesize(ws), atol=1e-4)


@pytest.mark.parametrize("kind", [packed.PlainConv, packed.PrepackedConv, packed.WinogradConv])
@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("parts", ["all", "none", "bias"])
def test_every_formulation_is_the_convolution(kind, num, parts):
    if kind is packed.PrepackedConv and not packed.prepacking_works():
        pytest.skip("this PyTorch has no operators for laid-out weights")
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(num, 6, 9, 9, generator=draw), torch.randn(5, 6, 3, 3, generator=draw)
    styles, scale, bias = (torch.rand(shape, generator=draw) + 0.5 for shape in ((num, 6), (num, 5), (5,)))
    expected = torch.nn.functional.conv2d(x * (styles[:, :, None, None] if parts == "all" else 1), weight, padding=1)
    expected = expected * (scale[:, :, None, None] if parts == "all" else 1)
    expected = expected + (0 if parts == "none" else bias[:, None, None])
    conv = kind(weight, 9, 1) if kind is packed.PrepackedConv else kind(weight, 1)
    given = {"all": (styles, scale, bias), "none": (), "bias": (None, None, bias)}[parts]
    torch.testing.assert_close(conv(x, *given), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [8, 128, 2048])
@pytest.mark.parametrize("num", [1, 2])
def test_every_doubling_is_the_transposed_convolution(size, num):
    draw = torch.Generator().manual_seed(0)
    kernel = torch.rand(4, 4, generator=draw)
    x, weight = torch.randn(num, 6, 7, 7, generator=draw), torch.randn(5, 6, 3, 3, generator=draw)
    styles, scale, bias = (torch.rand(shape, generator=draw) + 0.5 for shape in ((num, 6), (num, 5), (5,)))
    wide = torch.nn.functional.conv_transpose2d(x * styles[:, :, None, None], weight.transpose(0, 1), stride=2)
    blur = (4 * kernel.flip(0, 1)).expand(5, 1, 4, 4)
    expected = torch.nn.functional.conv2d(wide, blur, padding=1, groups=5) * scale[:, :, None, None]
    conv = packed.DoublingConv.smoothed(weight, kernel, size)
    assert (conv.phases is not None) == (size == 2048)
    torch.testing.assert_close(conv(x, styles, scale, bias), expected + bias[:, None, None], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width", "padding"), [(16, 16, 1), (9, 14, 1), (11, 13, 2), (4, 4, 0)])
def test_winograd_is_the_convolution(height, width, padding, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 5, height, width, generator=draw), torch.randn(7, 5, 3, 3, generator=draw)
    expected = torch.nn.functional.conv2d(x, weight, padding=padding)
    torch.testing.assert_close(winograd_conv(x, winograd_weight(weight), padding), expected, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("stylegan.ops.winograd.MAX_STRIP", 1)  # one row of tiles at a time
    torch.testing.assert_close(winograd_conv(x, winograd_weight(weight), padding), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["skip", "resnet", "stylegan1", "stylegan3", "wide"])
@pytest.mark.parametrize("mode", ["const", "random"])
def test_known_beginnings_change_no_bit(name, mode):
    generator = _generator(**NETWORKS[name])
    engine, pieces, prefixes = Counted(generator.synthesis), generator.synthesis.pieces(), Prefixes()
    noise = _drawn if mode == "random" else Noise
    ws = _ws(generator)
    walk(engine, pieces, _plan(generator, ws, noise()), prefixes)
    affines = generator.synthesis.affines()
    for row in range(generator.num_ws - 1, -1, -1):
        edited = ws.clone()
        edited[:, row] += 0.5
        engine.ran.clear()
        found = walk(engine, pieces, _plan(generator, edited, noise()), prefixes)
        first = min(i for i, piece in enumerate(pieces) if any(affines[j][0] == row for j in _numbers(piece)))
        assert engine.ran == list(range(first, len(pieces))) and found.first == first
        alone = walk(engine, pieces, _plan(generator, edited, noise()))
        assert torch.equal(found.state.image, alone.state.image)
    engine.ran.clear()
    again = walk(engine, pieces, _plan(generator, ws, noise()), prefixes)
    assert not engine.ran
    assert torch.equal(again.state.image, walk(engine, pieces, _plan(generator, ws, noise())).state.image)


def _numbers(piece):
    """Which affine maps style a piece."""
    return range(piece.styles.start, piece.styles.stop)


def test_a_key_differs_when_anything_does():
    generator = _generator()
    pieces, ws = generator.synthesis.pieces(), _ws(generator)
    base = prefix_keys(pieces, _plan(generator, ws))
    assert len(set(base)) == len(pieces) and base == prefix_keys(pieces, _plan(generator, ws))
    assert not {*base} & {*prefix_keys(pieces, _plan(generator, ws, key=b"other"))}
    assert not {*base} & {*prefix_keys(pieces, _plan(generator, ws.repeat(2, 1, 1)))}
    late = ws.clone()
    late[:, -1] += 1
    assert prefix_keys(pieces, _plan(generator, late))[:-1] == base[:-1]
    assert prefix_keys(pieces, _plan(generator, late))[-1] != base[-1]
    region = Region(torch.ones(1, 1, 4, 4), generator.synthesis.styles(late))
    assert prefix_keys(pieces, _plan(generator, ws, regions=(region,)))[:-1] == base[:-1]
    masked = prefix_keys(pieces, _plan(generator, ws, regions=(region,)))[-1]
    other = Region(torch.zeros(1, 1, 4, 4), region.styles)
    assert len({masked, base[-1], prefix_keys(pieces, _plan(generator, ws, regions=(other,)))[-1]}) == 3


def test_prefixes_stay_within_their_bytes():
    prefixes = Prefixes(max_bytes=1000)
    for number in range(20):
        prefixes.keep(bytes([number]), State(torch.zeros(1, 1, 5, 5), None), None)  # 100 bytes each
    assert len(prefixes) == 10 and prefixes.num_bytes == 1000
    assert prefixes.find([bytes([9])]) is None and prefixes.find([bytes([10]), bytes([0])])[0] == 1
    prefixes.keep(b"new", State(torch.zeros(1, 1, 5, 5), None), None)
    assert prefixes.find([bytes([10])]) and not prefixes.find([bytes([11])])  # the last used one stays
    prefixes.keep(b"huge", State(torch.zeros(1, 1, 20, 20), None), None)
    prefixes.keep(b"new", State(torch.zeros(1, 1, 5, 5), None), None)
    assert not prefixes.find([b"huge"]) and prefixes.num_bytes == 1000
    prefixes.clear()
    assert len(prefixes) == prefixes.num_bytes == 0


def test_a_walk_stops_early_and_can_be_given_up():
    generator = _generator()
    engine, pieces, plan = Counted(generator.synthesis), generator.synthesis.pieces(), _plan(generator, _ws(generator))
    early = walk(engine, pieces, plan, stop=lambda first: first + 1)
    assert engine.ran == [0, 1] and early.state.image.shape[2:] == (8, 8) and len(early.seconds) == 2
    engine.ran.clear()
    assert walk(engine, pieces, plan, goes_on=lambda: len(engine.ran) < 2) is None and engine.ran == [0, 1]


@pytest.mark.parametrize("name", ["skip", "resnet", "stylegan1", "stylegan3"])
def test_regions_blend_two_pictures(name):
    generator = _generator(**NETWORKS[name])
    engine, pieces = Counted(generator.synthesis), generator.synthesis.pieces()
    ws = _ws(generator)
    edited = ws.clone()
    edited[:, -2:] += 1.5
    here, there = _plan(generator, ws), _plan(generator, edited)
    base, other = (walk(engine, pieces, plan).state.image for plan in (here, there))

    def blended(mask, noise=None):
        return walk(engine, pieces, _plan(generator, ws, noise, regions=(Region(mask, there.styles),))).state.image

    assert torch.allclose(blended(torch.ones(1, 1, 8, 8)), other, atol=1e-4)
    assert torch.equal(blended(torch.zeros(1, 1, 8, 8)), base)
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    half = blended(left)
    assert torch.allclose(half[..., :2], other[..., :2], atol=0.2 * (other - base).abs().max())
    assert (half - base)[..., -2:].abs().max() < 0.2 * (half - base)[..., :8].abs().max()
    engine.ran.clear()
    blended(left)
    assert len(engine.ran) < 2 * len(pieces)  # what does not differ runs once
    if name == "skip":
        noises = blended(torch.ones(1, 1, 8, 8), _drawn()), walk(engine, pieces, _plan(generator, edited, _drawn()))
        assert torch.allclose(noises[0], noises[1].state.image, atol=1e-4)


def test_a_mask_lies_on_the_picture_and_not_on_its_margins():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :8] = 1
    found = _on_grid(mask, torch.zeros(1, 3, 36, 36), 16)[0, 0]  # a picture of 16 px with margins of 10
    assert found.shape == (36, 36) and bool((found[:, :14] == 1).all()) and not found[:, 14:].any()
    finer = _on_grid(mask, torch.zeros(1, 3, 64, 64), 64)[0, 0]
    assert bool((finer[:, :15] == 1).all()) and not finer[:, 17:].any()


@pytest.mark.parametrize("name", ["skip", "resnet", "stylegan1", "stylegan3"])
def test_the_gpu_engine_records_each_piece_once(name):
    generator = _generator(**NETWORKS[name])
    pieces, recorded = generator.synthesis.pieces(), []

    def record(function, given):
        recorded.append(len(given))
        return lambda tensors: function(*tensors)

    engine = GpuEngine(generator.synthesis, torch.float32, record)
    for seed in (1, 2):
        ws = _ws(generator, seed=seed)
        found = walk(engine, pieces, _plan(generator, ws)).state.image
        assert torch.allclose(found, generator.synthesize(ws), atol=1e-4)
    assert len(recorded) == len(pieces)
    ws = _ws(generator, num=2)
    assert torch.allclose(walk(engine, pieces, _plan(generator, ws)).state.image, generator.synthesize(ws), atol=1e-4)
    walk(engine, pieces, _plan(generator, _ws(generator), _drawn()))
    walk(engine, pieces, _plan(generator, _ws(generator), Noise("const", 0.5)))
    assert len(recorded) == len(pieces)  # what varies is not recorded


def test_the_gpu_engine_goes_on_where_nothing_can_be_recorded():
    def record(function, given):
        raise RuntimeError("no graphs here")

    generator = _generator()
    ws, pieces = _ws(generator), generator.synthesis.pieces()
    engine = GpuEngine(generator.synthesis, torch.bfloat16, record)
    with torch.no_grad():
        exact = generator.synthesis(ws, dtype=torch.bfloat16)
    found = walk(engine, pieces, _plan(generator, ws)).state.image
    assert engine.name == "torch bfloat16 on a GPU" and (found - exact).abs().max() < 0.1 * exact.abs().max()
    dtypes = []
    engine = GpuEngine(_generator(resolution=256).synthesis, torch.float16, record)
    for piece in engine._pieces:
        piece.forward = lambda state, styles, noise, dtype: dtypes.append(dtype) or State(torch.zeros(1, 1, 4, 4))
    for index in range(len(engine._pieces)):
        engine.run(index, State(), [torch.zeros(1, 1)], Noise())
    plain = dtypes[::2] if len(dtypes) > len(engine._pieces) else dtypes
    assert plain == [torch.float32] * 3 + [torch.float16] * 4


def test_a_gpu_gets_its_engine(monkeypatch, tmp_path):
    folder = models.ModelFolder(tmp_path)
    kinds = {"cuda": (GpuEngine, torch.bfloat16), "mps": (PlainEngine, torch.float32)}
    generator = _generator()
    for kind, (engine, dtype) in kinds.items():
        monkeypatch.setattr(models, "autocast_dtype", lambda device, dtype=dtype: dtype)
        kept = models.Models(folder, torch.device(kind), 1, None)
        exact = PlainEngine(generator.synthesis)
        assert isinstance(kept._quick(generator, exact, "0"), engine)
