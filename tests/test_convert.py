"""Foreign checkpoints become ours: names, configs, the same pictures, clear refusals, and the `import` command."""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import pickle
import random
import zipfile
from pathlib import Path

import foreign_writers as writers
import numpy as np
import pytest
import torch
from conftest import make_tiny

from stylegan.checkpoint.convert import convert_file
from stylegan.checkpoint.discriminators import convert_discriminator
from stylegan.checkpoint.file import build, load_generator, model_hash, read_checkpoint, save_checkpoint
from stylegan.checkpoint.foreign import Copies
from stylegan.checkpoint.nvidia_pickle import open_pickle
from stylegan.checkpoint.nvidia_tf import convert_tensorflow
from stylegan.checkpoint.nvidia_torch import convert_snapshot
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.discriminator import Discriminator
from stylegan.pixels import to_pixels

FIXTURES = Path(__file__).parent / "fixtures" / "nvidia"
BASE = GeneratorConfig(
    resolution=16, z_dim=12, w_dim=10, channel_base=128, channel_max=16, mapping_layers=3, w_avg_beta=0.995
)
VARIANTS = {
    "skip": {}, "resnet": {"architecture": "resnet"}, "orig": {"architecture": "orig"}, "grey": {"img_channels": 1},
    "rgba": {"img_channels": 4}, "classes": {"num_classes": 3}, "clamp": {"conv_clamp": 256.0},
    "no noise": {"use_noise": False}, "wide mapping": {"mapping_width": 20}, "one layer": {"mapping_layers": 1},
    "channels": {"channels": (16, 12, 5)}, "8 px": {"resolution": 8},
}  # fmt: skip


def variant(name: str) -> GeneratorConfig:
    """A small config that differs from the base in one thing."""
    return dataclasses.replace(BASE, **VARIANTS[name])


def write(path: Path, data: bytes) -> Path:
    """Write bytes and return the path."""
    path.write_bytes(data)
    return path


def same_tensors(found: dict, expected: dict) -> None:
    """Fail unless both hold the same names with the same bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name, strict=True)


def check_pictures(path: Path) -> None:
    """Compare latents, pictures and tensors with what the published code gives for the same file."""
    expected = np.load(path.with_name(path.name.split(".")[0] + ".npz"), allow_pickle=False)
    checkpoint = convert_file(path)
    digests = json.loads(str(expected["state_json"]))["G_ema"]
    moved = "synthesis.input.transform"
    assert checkpoint.tensors.keys() == digests.keys()
    for name, (shape, _, digest) in digests.items():
        tensor = checkpoint.tensors[name].numpy()
        assert list(tensor.shape) == shape
        assert name == moved or hashlib.sha256(tensor.tobytes()).hexdigest() == digest, name
    generator = build(checkpoint)
    labels = torch.tensor(expected["c"]) if expected["c"].shape[1] else None
    latents = generator.map(expected["z"], labels)
    cutoff = int(expected["truncation_cutoff"])
    w_avg = generator.w_avg
    for key, found in {"psi1": latents, "psi07": latents.truncate(w_avg, 0.7),
                       "psi07_cut4": latents.truncate(w_avg, 0.7, cutoff)}.items():  # fmt: skip
        assert np.abs(found.ws.numpy() - expected[f"ws_{key}"]).max() < 1e-5, key
    if "ws_c_soft" in expected.files:
        soft = generator.map(expected["z"][:1], torch.tensor(expected["c_soft"])).ws.numpy()
        assert np.abs(soft - expected["ws_c_soft"]).max() < 1e-5
    keys = [key for key in expected.files if key.startswith(("img_const_", "img_none_")) and key.count("_") == 2]
    assert len(keys) >= 2
    for key in keys:
        _, noise, rows = key.split("_")
        if rows in ("psi1", "psi07", "mix", "wplus"):
            image = generator.synthesize(torch.tensor(expected[f"ws_{rows}"]), noise=noise).numpy()
            assert np.abs(image - expected[key]).max() < 1e-4 * (1 + np.abs(expected[key]).max()), key
    pixels = to_pixels(generator.synthesize(torch.tensor(expected["ws_psi07"]))).astype(int)
    assert np.abs(pixels - expected["img_u8_const_psi07"]).max() <= 1
    if "transform" in expected.files:
        image = generator.synthesize(torch.tensor(expected["ws_psi1"]), transform=expected["transform"]).numpy()
        wanted = expected["img_const_transform"]
        assert np.abs(image - wanted).max() < 1e-4 * (1 + np.abs(wanted).max())


@pytest.mark.parametrize("name", ["sg2ada_8_tiny", "tf_sg2_32", "sg3r_64", "sg3t_32_cond2"])
def test_a_fixture_gives_the_published_pictures(name):
    check_pictures(FIXTURES / f"{name}.pkl")


def test_the_shared_fixtures_give_the_published_pictures(shared):
    paths = sorted((shared / "fixtures" / "nvidia").glob("*.pkl"))
    assert len(paths) >= 9
    for path in paths:
        if path.with_name(path.name.split(".")[0] + ".npz").exists():
            check_pictures(path)


@pytest.mark.parametrize("name", ["sg2ada_8_tiny", "tf_sg2_32", "sg3t_32_cond2"])
def test_the_discriminator_of_a_fixture_has_its_bits_and_judges(name):
    config, tensors = convert_discriminator(FIXTURES / f"{name}.pkl")
    digests = json.loads(str(np.load(FIXTURES / f"{name}.npz", allow_pickle=False)["state_json"]))["D"]
    assert tensors.keys() == {key for key in digests if not key.endswith("resample_filter")}
    for key, tensor in tensors.items():
        assert hashlib.sha256(tensor.numpy().tobytes()).hexdigest() == digests[key][2], key
    judge = Discriminator(config)
    judge.load_state_dict(tensors)
    label = torch.eye(config.num_classes) if config.num_classes else None
    assert judge(torch.zeros(2, 3, config.resolution, config.resolution), label).shape == (2, 1)


def test_both_training_states_of_a_tensorflow_fixture_have_their_bits():
    digests = json.loads(str(np.load(FIXTURES / "tf_sg2_32.npz", allow_pickle=False)["state_json"]))
    with open_pickle(FIXTURES / "tf_sg2_32.pkl") as root:
        for network, key in ((root[0], "G"), (root[2], "G_ema")):
            found = convert_tensorflow(network, Copies(1 << 20)).tensors
            for name, values in found.items():
                assert hashlib.sha256(values.tobytes()).hexdigest() == digests[key][name][2], name
            assert {name for name in digests[key] if name not in found} == {
                name for name in digests[key] if name.endswith("resample_filter")
            }


def test_a_file_without_a_discriminator_says_so(tmp_path):
    path = write(tmp_path / "x.pkl", writers.dump(writers.snapshot(make_tiny(BASE))))
    with pytest.raises(CheckpointError, match="no discriminator"):
        convert_discriminator(path)


@pytest.mark.parametrize("layout", ["ada", "sg3"])
@pytest.mark.parametrize("name", VARIANTS)
def test_torch_snapshots_of_every_shape_come_back(name, layout, tmp_path):
    generator = make_tiny(variant(name))
    path = write(tmp_path / "x.pkl", writers.dump(writers.snapshot(generator, layout)))
    checkpoint = convert_file(path)
    assert checkpoint.config == generator.config
    same_tensors(checkpoint.tensors, generator.state_dict())
    assert ("ADA" in checkpoint.provenance["origin"]) == (layout == "ada")
    assert "notes" not in checkpoint.provenance and checkpoint.provenance["modified"] is False


@pytest.mark.parametrize("name", [name for name in VARIANTS])
def test_tensorflow_pickles_of_every_shape_come_back(name, tmp_path):
    generator = make_tiny(variant(name))
    network = writers.tensorflow_generator(generator)
    checkpoint = convert_file(write(tmp_path / "x.pkl", writers.dump((None, None, network), 3)))
    assert checkpoint.config == generator.config
    for key, value in generator.state_dict().items():
        np.testing.assert_allclose(checkpoint.tensors[key].numpy(), value.numpy(), atol=1e-6, err_msg=key)


def test_channels_last_files_give_the_same_bits(tmp_path):
    generator = make_tiny(BASE)
    path = write(tmp_path / "x.pkl", writers.dump(writers.snapshot(generator, channels_last=True)))
    same_tensors(convert_file(path).tensors, generator.state_dict())


@pytest.mark.parametrize("legacy", [False, True])
def test_rosinality_files_come_back(legacy, tmp_path):
    config = dataclasses.replace(BASE, z_dim=10, w_avg_beta=0.998)
    generator = make_tiny(config)
    path = tmp_path / "x.pt"
    optimizer = {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "betas": (0, 0.9)}]}
    root = {"g_ema": writers.rosinality_state(generator), "d": {}, "g_optim": optimizer,
            "args": argparse.Namespace(size=16), "latent_avg": generator.w_avg.clone()}  # fmt: skip
    torch.save(root, path, _use_new_zipfile_serialization=not legacy)
    checkpoint = convert_file(path)
    found, expected = build(checkpoint), generator
    assert checkpoint.config.num_ws == config.num_ws and checkpoint.config.width(16) == config.width(16)
    same_tensors(checkpoint.tensors, expected.state_dict())
    z = np.random.RandomState(0).randn(1, 10)
    torch.testing.assert_close(found.synthesize(found.map(z)), expected.synthesize(expected.map(z)))


def test_a_missing_average_of_w_is_estimated(tmp_path):
    generator = make_tiny(dataclasses.replace(BASE, z_dim=10))
    path = tmp_path / "x.pt"
    torch.save({"g": writers.rosinality_state(generator)}, path)
    checkpoint = convert_file(path)
    w = generator.map(np.random.RandomState(1).randn(20_000, 10)).ws[:, 0]
    error = (checkpoint.tensors["mapping.w_avg"] - w.mean(dim=0)).abs().max()
    assert error < 0.05 * w.std(dim=0).max()
    assert len(checkpoint.provenance["notes"]) == 2  # no moving average of the weights either
    assert torch.equal(checkpoint.tensors["mapping.w_avg"], convert_file(path).tensors["mapping.w_avg"])


def test_the_decoder_of_an_encoder_file_is_found(tmp_path):
    generator = make_tiny(dataclasses.replace(BASE, z_dim=10))
    state = {f"decoder.{name}": value for name, value in writers.rosinality_state(generator).items()}
    average = generator.w_avg.repeat(generator.num_ws, 1)
    torch.save({"state_dict": state | {"encoder.x": torch.ones(2)}, "latent_avg": average}, tmp_path / "x.pt")
    found = convert_file(tmp_path / "x.pt").tensors
    torch.testing.assert_close(found["mapping.w_avg"], generator.w_avg)


@pytest.mark.parametrize("resolution", [8, 128])
def test_stylegan1_tensors_follow_the_papers_code(resolution):
    """Up-convolutions from 128 px on are transposed in TensorFlow, so their kernels arrive turned round."""
    network = writers.tensorflow_stylegan1(resolution)
    there = dict(network.__dict__["components"]["synthesis"].__dict__["variables"])
    found = converted(writers.dump((None, None, network)))
    assert found.config.family == "stylegan1" and found.config.resolution == resolution
    kernel = there[f"{resolution}x{resolution}/Conv0_up/weight"].transpose(3, 2, 0, 1)
    expected = kernel[:, :, ::-1, ::-1] if resolution >= 128 else kernel
    np.testing.assert_array_equal(found.tensors[f"synthesis.b{resolution}.conv0.weight"], expected)
    styles = there["4x4/Conv/StyleMod/bias"]
    np.testing.assert_array_equal(found.tensors["synthesis.b4.conv1.affine.bias"], styles + np.float32([1, 1, 0, 0]))
    np.testing.assert_array_equal(found.tensors["synthesis.b4.conv0.noise_const"], there["noise0"][0, 0])


def test_a_transposed_convolution_is_a_turned_one_of_the_doubled_picture():
    """The identity behind that turn: shifted copies of w, stride 2 (TensorFlow) against nearest x2 and w turned."""
    source = np.random.RandomState(0)
    x, w = source.randn(5), source.randn(3)
    copies = np.concatenate([w, [0]]) + np.concatenate([[0], w])  # one axis of the two: w[a] + w[a - 1]
    scattered = np.zeros(2 * 5 + 2)
    for i, value in enumerate(x):
        scattered[2 * i : 2 * i + 4] += value * copies
    doubled = np.repeat(x, 2)
    np.testing.assert_allclose(scattered[1:-1], np.correlate(np.pad(doubled, 1), w[::-1], "valid"), atol=1e-12)


def converted(data: bytes):
    """What the converters make of a pickle, before it is compared with our network."""
    path = Path(converted.folder) / "x.pkl"
    path.write_bytes(data)
    with open_pickle(path) as root:
        convert = convert_snapshot if isinstance(root, dict) else convert_tensorflow
        return convert(root, Copies(len(data)))


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    converted.folder = tmp_path


def test_stylegan1_fixture_is_understood():
    with open_pickle(FIXTURES / "tf_sg1_32.pkl") as root:
        found = convert_tensorflow(root, Copies(1 << 20))
    assert found.config == GeneratorConfig(
        family="stylegan1", resolution=32, z_dim=32, w_dim=32, channel_base=512, channel_max=32, w_avg_beta=0.995
    )
    assert len(found.tensors) == 1 + 4 + 1 + 8 * 5 + 7 + 2


@pytest.mark.parametrize("name", ["sg3r_64", "sg3t_32_cond2"])
def test_stylegan3_layers_are_read_from_the_file(name):
    with open_pickle(FIXTURES / f"{name}.pkl") as root:
        found = convert_snapshot(root, Copies(1 << 20))
        names = [layer.name for layer in found.config.layers]
        assert names == root["G_ema"].child("synthesis").state["layer_names"]
    assert found.config.num_ws == 16 and found.config.conv_clamp == 256
    assert {layer.kernel for layer in found.config.layers[:-1]} == ({1} if "r_" in name else {3})
    assert any(layer.radial for layer in found.config.layers) == ("r_" in name)
    for layer in found.config.layers:
        shape = found.tensors[f"synthesis.{layer.name}.weight"].shape
        assert shape[:2] == (layer.out_channels, layer.in_channels)
    assert GeneratorConfig.from_json(found.config.to_json()) == found.config


def change(root: dict, path: str, **attributes) -> dict:
    """Change attributes of a module inside a snapshot."""
    module = root["G_ema"]
    for name in filter(None, path.split(".")):
        module = module.meta["state"]["_modules"][name]
    module.meta["state"] |= attributes
    return root


SNAPSHOT_CHANGES = {
    "superresolution stem": ("", {"path_stem": "https://example.com/x"}),
    "their activation": ("synthesis.b8.conv0", {"activation": "relu"}),
    "their clamp": ("synthesis.b8.conv0", {"conv_clamp": 3}),
    "their architecture": ("synthesis.b16", {"architecture": "orig"}),
    "activation gain": ("synthesis.*", {"act_gain": 1.0}),
    "architecture 'unet'": ("synthesis.*", {"architecture": "unet"}),
    "img_resolution": ("synthesis", {"img_resolution": "big"}),
    "24 is not supported": ("synthesis", {"img_resolution": 24}),
    "c_dim": ("", {"c_dim": None}),
}  # fmt: skip


@pytest.mark.parametrize("word", SNAPSHOT_CHANGES)
def test_a_snapshot_that_would_be_drawn_wrongly_is_refused_by_name(word, tmp_path):
    path, attributes = SNAPSHOT_CHANGES[word]
    root = writers.snapshot(make_tiny(BASE))
    layers = ["b4", "b8", "b16", "b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    for place in [path.replace("*", layer) for layer in layers] if "*" in path else [path]:
        change(root, place, **attributes)
    with pytest.raises(CheckpointError, match=word):
        convert_file(write(tmp_path / "x.pkl", writers.dump(root)))


def test_a_non_square_constant_is_refused_by_name(tmp_path):
    root = writers.snapshot(make_tiny(BASE))
    block = root["G_ema"].meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["b4"]
    block.meta["state"]["_parameters"]["const"] = torch.nn.Parameter(torch.zeros(16, 4, 6))
    with pytest.raises(CheckpointError, match="non-square"):
        convert_file(write(tmp_path / "x.pkl", writers.dump(root)))


@pytest.mark.parametrize(("word", "network"), [
    ("config A, B, C or D", {"8x8/ToRGB_lod1/weight": np.zeros([1, 1, 2, 3], np.float32)}),
    ("label concatenation", {"LabelConcat/weight": np.zeros([2, 4], np.float32)}),
    ("variable synthesis/Attention", {"Attention/weight": np.zeros([2, 4], np.float32)}),
])  # fmt: skip
def test_a_tensorflow_network_with_strange_variables_is_refused_by_name(word, network):
    whole = writers.tensorflow_generator(make_tiny(BASE))
    whole.__dict__["components"]["synthesis"].__dict__["variables"] += list(network.items())
    with pytest.raises(CheckpointError, match=word):
        converted(writers.dump((None, None, whole)))


@pytest.mark.parametrize("setting", [
    {"fmap_decay_rate": 2}, {"nonlinearity": "relu"}, {"normalize_latents": False}, {"resolution_h": 4},
    {"architecture": "unet"}, {"resolution": 32}, {"use_spectral_norm": True}, {"resample_kernel": "box"},
], ids=str)  # fmt: skip
def test_a_tensorflow_network_with_strange_settings_is_refused(setting):
    network = writers.tensorflow_generator(make_tiny(BASE), **setting)
    with pytest.raises(CheckpointError, match=f"{next(iter(setting))}|layers of its resolution"):
        converted(writers.dump((None, None, network)))


def test_a_half_grown_stylegan1_is_refused_by_name():
    with pytest.raises(CheckpointError, match="not fully grown"):
        converted(writers.dump((None, None, writers.tensorflow_stylegan1(8, lod=1.5))))


@pytest.mark.parametrize(("module", "word"), [
    ("timm.models.efficientnet", "StyleGAN-XL"), ("dill._dill", "StyleGAN-XL"), ("tfutil", "Progressive GAN"),
    ("_codecs", "Python 2"),
])  # fmt: skip
def test_other_kinds_of_pickles_are_named(module, word, tmp_path):
    data = b"\x80\x03c" + module.encode() + b"\nThing\n."
    with pytest.raises(CheckpointError, match=word):
        convert_file(write(tmp_path / "x.pkl", data))


def test_other_kinds_of_files_are_named(tmp_path):
    cases = {
        "gzip": gzip.compress(b"model"), "no StyleGAN snapshot": pickle.dumps({"weights": 1}),
        "no network": pickle.dumps("hello"), "G, D and Gs": pickle.dumps((1, 2, 3)),
    }  # fmt: skip
    for word, data in cases.items():
        with pytest.raises(CheckpointError, match=word):
            convert_file(write(tmp_path / "x.pkl", data))
    with pytest.raises(CheckpointError, match="no file"):
        convert_file(tmp_path / "missing.pkl")
    with pytest.raises(CheckpointError, match="folder"):
        convert_file(tmp_path)


class Evil:
    """An object whose unpickling would leave a file behind."""

    def __reduce__(self):
        return open, ("PWNED", "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_with_a_payload_is_refused(legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"g_ema": Evil()}, "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        convert_file("evil.pt")
    assert not Path("PWNED").exists()


def test_torch_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    for root, word in [({"weights": torch.ones(2)}, "no StyleGAN2 generator"), ([1], "no state dict"),
                       ({"GAN": {}, "version": "1"}, "lucidrains")]:  # fmt: skip
        torch.save(root, path)
        with pytest.raises(CheckpointError, match=word):
            convert_file(path)
    state = writers.rosinality_state(make_tiny(dataclasses.replace(BASE, z_dim=10)))
    for name, value, word in [("convs.0.conv.blur.kernel", torch.ones(4, 4), "resampling filter"),
                              ("attention.weight", torch.ones(2), "tensor attention"),
                              ("to_rgb1.bias", torch.ones(3), "to_rgb1.bias"),
                              ("conv1.noise.weight", 1, "noise")]:  # fmt: skip
        torch.save({"g_ema": state | {name: value}}, path)
        with pytest.raises(CheckpointError, match=word):
            convert_file(path)


def test_archives_that_lie_about_their_size_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="compressed"):
        convert_file(path)
    write(path, path.read_bytes()[:200])
    with pytest.raises(CheckpointError):
        convert_file(path)


def test_what_an_import_tells_and_what_it_keeps_to_itself(tmp_path):
    root = change(writers.snapshot(make_tiny(BASE)), "synthesis", freeze_rate=0.5)
    path = write(tmp_path / "fork.pkl", writers.dump(root))
    provenance = convert_file(path).provenance
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert provenance["source"] == "fork.pkl" and provenance["modified"] is True
    assert "freeze_rate" in provenance["notes"][0]
    assert "author" not in json.dumps(provenance) and str(tmp_path) not in json.dumps(provenance)


def test_without_a_moving_average_the_last_state_is_used(tmp_path):
    generator = make_tiny(BASE)
    root = {"G": writers.persistent_generator(generator), "G_ema": None}
    checkpoint = convert_file(write(tmp_path / "x.pkl", writers.dump(root)))
    same_tensors(checkpoint.tensors, generator.state_dict())
    assert "G_ema" in checkpoint.provenance["notes"][0]


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    generator = make_tiny(BASE)
    generator.mapping.fc0.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="finite"):
        convert_file(write(tmp_path / "x.pkl", writers.dump(writers.snapshot(generator))))


def test_import_save_load_render_gives_equal_bits(tmp_path):
    checkpoint = convert_file(FIXTURES / "sg2ada_8_tiny.pkl")
    path = save_checkpoint(tmp_path / "tiny.safetensors", checkpoint)
    again = read_checkpoint(path)
    assert again.config == checkpoint.config and again.provenance == checkpoint.provenance
    same_tensors(again.tensors, checkpoint.tensors)
    assert model_hash(path) == model_hash(FIXTURES / "sg2ada_8_tiny.pkl")
    one, two = load_generator(path), load_generator(FIXTURES / "sg2ada_8_tiny.pkl")
    z = np.random.RandomState(3).randn(1, 8)
    assert torch.equal(one.synthesize(one.map(z)), two.synthesize(two.map(z)))


def test_progress_ends_at_one(tmp_path):
    path = write(tmp_path / "x.pkl", (FIXTURES / "tf_sg2_32.pkl").read_bytes())
    seen = []
    convert_file(path, seen.append)
    assert seen[-1] == 1 and seen == sorted(seen)


JUNK = (None, True, -1, 0, 3, 2**40, -(2**70), 1.5, float("nan"), "", "relu", "x" * 300, [], {}, (), [1, 2], (0,) * 9)


def test_settings_changed_at_random_give_data_or_our_error(tmp_path):
    """Snapshots whose modules say something else about themselves than they should, one to three times."""
    source = random.Random(0)
    generator = make_tiny(dataclasses.replace(BASE, resolution=8, num_classes=2))
    outcomes = {"data": 0, "refused": 0}
    for _ in range(60):
        root, states = writers.snapshot(generator, source.choice(["ada", "sg3"])), []
        waiting = [root["G_ema"]]
        while waiting:
            states.append(waiting.pop().meta["state"])
            waiting += states[-1]["_modules"].values()
        for _ in range(source.randint(1, 3)):
            state = source.choice(states)
            table = source.choice([state, *(value for value in state.values() if isinstance(value, dict) and value)])
            name = source.choice(list(table))
            if source.random() < 0.2:
                del table[name]
            else:
                table[name] = source.choice(JUNK)
        try:
            convert_file(write(tmp_path / "x.pkl", writers.dump(root)))
            outcomes["data"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) >= 5, outcomes
