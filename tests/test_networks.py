"""StyleGAN2 networks: shapes, published names, options, and the laws that hold whatever the weights are."""

from __future__ import annotations

import pytest
import torch

from stylegan.errors import CheckpointError, RequestError
from stylegan.networks.config import DiscriminatorConfig, GeneratorConfig
from stylegan.networks.discriminator import Discriminator, minibatch_deviation
from stylegan.networks.generator import build_generator

SMALL = {"resolution": 16, "z_dim": 8, "w_dim": 12, "channel_base": 64, "channel_max": 8}


def _generator(**changes):
    """A seeded small generator with noise that shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(GeneratorConfig(**{**SMALL, **changes})).eval().requires_grad_(False)
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return generator


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
@pytest.mark.parametrize("img_channels", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_every_architecture_gives_pictures(architecture, img_channels, num_classes):
    generator = _generator(architecture=architecture, img_channels=img_channels, num_classes=num_classes)
    latents = generator.map(torch.randn(2, 8), 1 if num_classes else None)
    image = generator.synthesize(latents)
    assert latents.ws.shape == (2, 6, 12) and generator.num_ws == 6
    assert image.shape == (2, img_channels, 16, 16) and image.dtype == torch.float32
    assert len(generator.synthesis.layers) == generator.num_ws
    assert {row for row, _ in generator.style_weights()} <= set(range(6))


@pytest.mark.parametrize("resolution", [8, 32, 1024])
def test_resolutions_and_widths(resolution):
    config = GeneratorConfig(resolution=resolution, channel_base=2048, channel_max=16)
    with torch.device("meta"):
        generator = build_generator(config)
    assert config.num_ws == 2 * resolution.bit_length() - 4
    assert generator.synthesis.b8.conv1.weight.shape == (16, 16, 3, 3)
    assert config.width(resolution) == min(2048 // resolution, 16)


def test_names_are_the_published_ones():
    names = set(_generator(num_classes=2).state_dict())
    assert {
        "mapping.embed.weight", "mapping.fc1.bias", "mapping.w_avg", "synthesis.b4.const", "synthesis.b4.conv1.weight",
        "synthesis.b4.torgb.affine.bias", "synthesis.b8.conv0.noise_const", "synthesis.b8.conv1.noise_strength",
        "synthesis.b16.resample_filter", "synthesis.b16.conv0.resample_filter", "synthesis.b16.torgb.weight",
    } <= names  # fmt: skip
    assert "synthesis.b4.conv0.weight" not in names


def test_a_row_of_w_changes_only_from_its_layer_on():
    generator = _generator()
    ws = generator.map(torch.randn(1, 8)).ws
    other = ws.clone()
    other[:, -1] += 1  # only the last ToRGB listens to the last row
    features = []
    hook = generator.synthesis.b16.conv1.register_forward_hook(lambda *call: features.append(call[2]))
    images = [generator.synthesize(w) for w in (ws, other)]
    hook.remove()
    assert torch.equal(*features) and not torch.equal(*images)


def test_noise_modes():
    generator = _generator()
    latents = generator.map(torch.randn(1, 8))
    const, none = generator.synthesize(latents), generator.synthesize(latents, noise="none")
    assert torch.equal(const, generator.synthesize(latents)) and not torch.equal(const, none)
    first, second = (generator.synthesize(latents, noise="random", noise_seed=seed) for seed in (1, 2))
    assert torch.equal(first, generator.synthesize(latents, noise="random", noise_seed=1))
    assert not torch.equal(first, second)
    assert torch.equal(generator.synthesize(latents, noise_strength=0.0), none)
    weak = generator.synthesize(latents, noise_strength=0.01)
    assert (weak - none).abs().max() < (const - none).abs().max()


def test_batches_and_single_pictures_agree():
    generator = _generator()
    ws = generator.map(torch.randn(3, 8)).ws
    alone = torch.cat([generator.synthesize(ws[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(generator.synthesize(ws), alone, atol=1e-5, rtol=1e-5)


def test_classes_matter_and_are_checked():
    generator = _generator(num_classes=3)
    z = torch.randn(1, 8)
    assert not torch.equal(generator.map(z, 0).ws, generator.map(z, 2).ws)
    torch.testing.assert_close(generator.map(z, torch.tensor([[0.0, 0.0, 1.0]])).ws, generator.map(z, 2).ws)
    for wrong in (3, -1, [0, 1], torch.zeros(1, 2)):
        with pytest.raises(RequestError, match="class|label"):
            generator.map(z, wrong)
    with pytest.raises(RequestError, match="conditional"):
        generator.map(z)
    with pytest.raises(RequestError, match="no classes"):
        _generator().map(z, 1)


def test_wrong_shapes_are_named():
    generator = _generator()
    with pytest.raises(RequestError, match=r"\[N, 8\]"):
        generator.map(torch.randn(1, 9))
    with pytest.raises(RequestError, match=r"\[N, 6, 12\]"):
        generator.synthesize(torch.randn(1, 5, 12))
    with pytest.raises(RequestError, match="const, none or random"):
        generator.synthesize(torch.randn(1, 6, 12), noise="loud")


def test_bfloat16_stays_close():
    generator = _generator()
    ws = generator.map(torch.randn(2, 8)).ws
    exact, fast = generator.synthesis(ws), generator.synthesis(ws, dtype=torch.bfloat16)
    assert fast.dtype == torch.float32
    assert (exact - fast).abs().max() < 0.05 * (1 + exact.abs().max())


def test_config_round_trip_and_refusals():
    config = GeneratorConfig(**SMALL, channels=(8, 8, 4))
    assert GeneratorConfig.from_json(config.to_json()) == config
    for text in (
        "[]",
        "{",
        '{"family": "biggan"}',
        '{"resolution": 48}',
        '{"what": 1}',
        '{"z_dim": "8"}',
        '{"channels": [1]}',
    ):
        with pytest.raises(CheckpointError):
            GeneratorConfig.from_json(text)


@pytest.mark.parametrize("num_classes", [0, 2])
def test_discriminator(num_classes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = DiscriminatorConfig(resolution=16, num_classes=num_classes, channel_base=64, channel_max=8)
        discriminator = Discriminator(config)
    image = torch.randn(4, 3, 16, 16)
    label = torch.nn.functional.one_hot(torch.tensor([0, 1, 0, 1]), 2).float() if num_classes else None
    logits = discriminator(image, label)
    assert logits.shape == (4, 1)
    if num_classes:
        assert not torch.equal(logits, discriminator(image, label.flip(1)))


def test_minibatch_deviation_sees_a_collapsed_batch():
    same, different = torch.randn(1, 2, 4, 4).repeat(4, 1, 1, 1), torch.randn(4, 2, 4, 4)
    assert minibatch_deviation(same, 4)[:, 2].max() < 1e-3
    plane = minibatch_deviation(different, 4)[:, 2]
    torch.testing.assert_close(plane[0, 0, 0], different.std(dim=0, unbiased=False).mean())
    assert minibatch_deviation(torch.randn(5, 2, 4, 4), 4).shape == (5, 3, 4, 4)  # 5 is no multiple of 4
