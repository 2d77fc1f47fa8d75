"""Model files: what is saved comes back, and every damaged or hostile file is refused with one sentence."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
import torch
from conftest import TINY, TINY_CLASSES, make_tiny, save_tiny

import stylegan
from stylegan.checkpoint.file import Checkpoint, build, model_hash, read_checkpoint, read_header, save_checkpoint
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig


def split(path) -> tuple[dict, bytes]:
    """A safetensors file as its decoded header and the bytes behind it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header, body: bytes, length: int | None = None) -> bytes:
    """A safetensors file of a header (an object, or raw bytes) and a body, with any claimed length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


@pytest.fixture
def refused(tmp_path):
    """Write bytes as a model file and return the one sentence with which it is refused."""
    def refuse(data: bytes) -> str:
        path = tmp_path / "bad.safetensors"
        path.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            stylegan.load_generator(path)
        sentence = str(caught.value)
        assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400
        return sentence

    return refuse


@pytest.mark.parametrize("config", [
    TINY, TINY_CLASSES, dataclasses.replace(TINY, architecture="resnet", img_channels=1),
    dataclasses.replace(TINY, architecture="orig", use_noise=False),
])  # fmt: skip
def test_what_is_saved_comes_back(tmp_path, config):
    generator = make_tiny(config)
    path = save_checkpoint(tmp_path / "x.safetensors", Checkpoint(config, generator.state_dict(), {"hours": 1.5}))
    read = read_checkpoint(path)
    assert read.config == config and read.provenance == {"hours": 1.5}
    assert read.tensors.keys() == generator.state_dict().keys()
    for name, tensor in generator.state_dict().items():
        assert torch.equal(read.tensors[name], tensor) and read.tensors[name].dtype == torch.float32


def test_a_loaded_generator_is_ready_for_use(tiny_checkpoint, tiny_generator):
    generator = stylegan.load_generator(tiny_checkpoint)
    assert not generator.training and not any(p.requires_grad for p in generator.parameters())
    assert all(tensor.device.type == "cpu" for tensor in generator.state_dict().values())
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    image = generator.synthesize(generator.map(z).truncate(generator.w_avg, psi=0.7, cutoff=4))
    assert image.shape == (2, 3, 16, 16)
    assert torch.equal(image, tiny_generator.synthesize(tiny_generator.map(z).truncate(tiny_generator.w_avg, 0.7, 4)))


def test_loading_leaves_the_random_state_alone(tiny_checkpoint):
    before = torch.random.get_rng_state()
    stylegan.load_generator(tiny_checkpoint)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_built_generator_shares_no_memory_with_its_checkpoint(tiny_checkpoint):
    checkpoint = read_checkpoint(tiny_checkpoint)
    build(checkpoint).w_avg.add_(1)
    assert model_hash(checkpoint) == model_hash(tiny_checkpoint)


def test_half_is_smaller_and_close_and_never_infinite(tmp_path):
    generator = make_tiny()
    tensors = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    tensors["mapping.w_avg"][0] = 1e6
    whole = save_checkpoint(tmp_path / "whole.safetensors", Checkpoint(TINY, tensors))
    half = save_checkpoint(tmp_path / "half.safetensors", Checkpoint(TINY, tensors), half=True)
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    read = read_checkpoint(half)
    assert read.tensors["mapping.w_avg"][0] == 1e6
    for name, tensor in tensors.items():
        assert read.tensors[name].dtype == torch.float32
        assert torch.allclose(read.tensors[name], tensor, rtol=1e-3, atol=1e-6)


def test_the_hash_is_that_of_the_network(tmp_path, tiny_checkpoint):
    checkpoint = read_checkpoint(tiny_checkpoint)
    digest = model_hash(tiny_checkpoint)
    assert len(digest) == 64 and digest == model_hash(checkpoint)
    assert digest == model_hash(Checkpoint(checkpoint.config, checkpoint.tensors, {"other": "provenance"}))
    assert digest != model_hash(save_tiny(tmp_path / "other.safetensors", seed=1))
    changed = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    changed["mapping.w_avg"][3] += 1e-6
    assert digest != model_hash(Checkpoint(checkpoint.config, changed))
    assert digest != model_hash(Checkpoint(dataclasses.replace(TINY, conv_clamp=9.0), checkpoint.tensors))


def test_the_header_is_read_without_the_tensors(tiny_checkpoint):
    header = read_header(tiny_checkpoint)
    assert header.config == TINY and header.provenance["licence"] == "none"
    assert header.num_parameters == sum(tensor.numel() for tensor in read_checkpoint(tiny_checkpoint).tensors.values())


def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    path = save_tiny(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(stylegan.StyleGANError, match="disk is full"):
        save_tiny(path, seed=1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("data", "words"), [
    (b"", "is empty"),
    (b"abc", "not a safetensors file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "Git LFS pointer"),
    (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
    (b"<html>", "web page"),
    (b"\x80\x04\x95" + b"x" * 40, "is a pickle"),
    (b"\x80\x02}q\x00." + b"x" * 40, "is a pickle"),
    (b"PK\x03\x04" + b"\0" * 60, "zip archive"),
    (b"\xff" * 100, "not a safetensors file"),
    (b"\0" * 100, "not a safetensors file"),
])  # fmt: skip
def test_files_of_other_kinds(refused, data, words):
    assert words in refused(data)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        read_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_wrong_header_lengths(refused, tiny_checkpoint):
    header, body = split(tiny_checkpoint)
    for length in (0, 1, 2**63, 11_000_000, len(body) * 100):
        assert "not a safetensors file" in refused(join(header, body, length))
    text = json.dumps(header).encode()
    for length in (len(text) - 1, len(text) + 40, 20):
        assert "header" in refused(join(header, body, length))


@pytest.mark.parametrize("text", [b"\xff\xfe{}", b"{" * 50, b"[1, 2]", b'"text"', b"[" * 100_000, b'{"a":1,"a":2}'])
def test_headers_that_are_no_objects(refused, text):
    assert "header" in refused(join(text, b""))


def test_cut_and_lengthened_files(refused, tiny_checkpoint):
    data = tiny_checkpoint.read_bytes()
    for changed in (data[:-1], data[: len(data) // 2], data + b"\0"):
        assert "bytes of tensors" in refused(changed)


@pytest.mark.parametrize(("changes", "words"), [
    ({"format": "stylegan-studio/99"}, "is of format"),
    ({"config": None}, "config inside"),
    ({"config": "{"}, "config"),
    ({"config": "[]"}, "config|Config"),
    ({"config": '{"family":"biggan"}'}, "biggan"),
    ({"config": '{"colour":1}'}, "colour"),
    ({"config": '{"resolution":1000000000}'}, "resolution"),
    ({"config": '{"resolution":24}'}, "resolution"),
    ({"config": '{"z_dim":-1}'}, "z_dim"),
    ({"config": '{"w_dim":1000000000}'}, "w_dim"),
    ({"config": '{"mapping_layers":1000000000}'}, "mapping_layers"),
    ({"config": '{"num_classes":1000000000}'}, "num_classes"),
    ({"config": '{"channel_max":"x"}'}, "channel_max"),
    ({"provenance": "[]"}, "provenance"),
    ({"provenance": "{"}, "provenance"),
])  # fmt: skip
def test_wrong_metadata(refused, tiny_checkpoint, changes, words):
    header, body = split(tiny_checkpoint)
    header["__metadata__"] |= changes
    sentence = refused(join(header, body))
    assert any(word in sentence for word in words.split("|")), sentence


def test_no_metadata(refused, tiny_checkpoint):
    header, body = split(tiny_checkpoint)
    del header["__metadata__"]
    assert "no network config" in refused(join(header, body))


@pytest.mark.parametrize("changes", [{"resolution": 32}, {"channel_max": 8}, {"w_dim": 64}, {"mapping_layers": 3},
                                     {"num_classes": 2}, {"architecture": "resnet"}, {"use_noise": False}])
def test_a_config_that_is_not_that_of_the_tensors(refused, tiny_checkpoint, changes):
    header, body = split(tiny_checkpoint)
    config = json.loads(header["__metadata__"]["config"]) | changes
    header["__metadata__"]["config"] = json.dumps(config)
    assert any(word in refused(join(header, body)) for word in ("lacks", "not its network's", "its config needs"))


def test_a_huge_config_is_refused_without_allocating(refused, tiny_checkpoint):
    header, body = split(tiny_checkpoint)
    huge = GeneratorConfig(resolution=1024, z_dim=8192, w_dim=8192, mapping_layers=64, channel_base=1 << 20,
                           channel_max=8192)
    header["__metadata__"]["config"] = huge.to_json()
    assert "lacks" in refused(join(header, body))



@pytest.mark.parametrize(("changes", "words"), [
    ({"dtype": "I64"}, "is of type I64"),
    ({"dtype": 4}, "is of type 4"),
    ({"dtype": "BF16"}, "size of its shape"),
    ({"shape": [31]}, "size of its shape"),
    ({"shape": [-32, -1]}, "wrongly"),
    ({"shape": [32.0]}, "wrongly"),
    ({"shape": "32"}, "wrongly"),
    ({"shape": [2**47, 2**47]}, "size of its shape"),
    ({"data_offsets": [0, 128]}, "overlap"),
    ({"data_offsets": [-128, 0]}, "wrongly"),
    ({"data_offsets": [0]}, "wrongly"),
    ({"data_offsets": [2**40, 2**40 + 128]}, "gaps"),
    ({"extra": 1}, "wrongly"),
    ({"shape": [4, 8]}, "its config needs"),
])  # fmt: skip
def test_wrong_tensor_entries(refused, tiny_checkpoint, changes, words):
    header, body = split(tiny_checkpoint)
    header["mapping.w_avg"] |= changes
    assert words in refused(join(header, body))


def test_renamed_tensors(refused, tiny_checkpoint):
    header, body = split(tiny_checkpoint)
    header["mapping.other"] = header.pop("mapping.w_avg")
    assert "lacks 1 tensors of its network, like mapping.w_avg" in refused(join(header, body))


def test_values_that_are_not_finite(tmp_path):
    tensors = {name: tensor.clone() for name, tensor in make_tiny().state_dict().items()}
    tensors["mapping.w_avg"][0] = float("nan")
    path = save_checkpoint(tmp_path / "x.safetensors", Checkpoint(TINY, tensors))
    with pytest.raises(CheckpointError, match="not finite"):
        read_checkpoint(path)


def test_every_single_damaged_header_byte_is_refused_or_harmless(refused, tmp_path, tiny_checkpoint):
    data = bytearray(tiny_checkpoint.read_bytes())
    path = tmp_path / "damaged.safetensors"
    for position in range(0, 8 + int.from_bytes(data[:8], "little"), 97):
        damaged = bytearray(data)
        damaged[position] ^= 0x15
        path.write_bytes(bytes(damaged))
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert str(error).endswith(".")
