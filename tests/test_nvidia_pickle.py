"""The reader of foreign pickles: equal bits, every protocol and spelling, refusals, budgets, and chance damage."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import foreign_writers as writers
import numpy as np
import pytest
import torch
from conftest import make_tiny

from stylegan.checkpoint.foreign import Copies
from stylegan.checkpoint.nvidia_pickle import open_pickle, read_pickle
from stylegan.checkpoint.nvidia_torch import convert_snapshot
from stylegan.checkpoint.pickle_opcodes import MAX_OPERATIONS
from stylegan.checkpoint.pickle_records import Array, Network, Source, Tensor
from stylegan.errors import CheckpointError
from stylegan.networks.config import GeneratorConfig

FIXTURES = Path(__file__).parent / "fixtures" / "nvidia"
TORCH_FILES = sorted(path.name for path in FIXTURES.glob("sg*.pkl"))
SMALL = GeneratorConfig(resolution=8, z_dim=8, w_dim=8, channel_base=64, channel_max=8, conv_clamp=256.0)


def read(data: bytes):
    """What the reader makes of a pickle."""
    return read_pickle(Source(io.BytesIO(data), 0, len(data)))


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL of a name."""
    return text(module) + text(name) + b"\x93"


def check_bits(path: Path) -> int:
    """Compare every tensor of every network of a snapshot with its SHA-256; returns how many there were."""
    stem = path.name.split(".")[0]
    expected = json.loads(str(np.load(path.with_name(stem + ".npz"), allow_pickle=False)["state_json"]))
    count = 0
    with open_pickle(path) as root:
        for name in expected:
            if expected[name] is None:
                assert root[name] is None
                continue
            tensors = root[name].tensors()
            assert tensors.keys() == expected[name].keys()
            for key, (shape, dtype, digest) in expected[name].items():
                array = tensors[key].numpy()
                assert (list(array.shape), str(array.dtype)) == (shape, dtype)
                assert hashlib.sha256(array.tobytes()).hexdigest() == digest, key
                count += 1
    return count


@pytest.mark.parametrize("name", TORCH_FILES)
def test_every_tensor_of_a_fixture_has_its_bits(name):
    assert check_bits(FIXTURES / name) > 50


def test_every_tensor_of_the_shared_fixtures_has_its_bits(shared):
    for path in sorted((shared / "fixtures" / "nvidia").glob("sg*.pkl")):
        assert check_bits(path) > 50, path.name


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_all_protocols_and_strides_give_the_same_tensors(protocol, channels_last):
    generator = make_tiny(SMALL)
    root = read(writers.dump(writers.snapshot(generator, channels_last=channels_last), protocol))
    found = root["G_ema"].tensors()
    for name, value in generator.state_dict().items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), strict=True)
    assert any(tensor.stride[1:2] == (1,) and len(tensor.shape) == 4 for tensor in found.values()) or not channels_last


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(protocol):
    value = {"a": [1, -2, 70000, 2**40, 1.5, None, True, False, "ä" * 300, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
             "b": {"c": {}, 7: []}, "s": {"x", "y"}}  # fmt: skip
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("array", [
    np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">i4"), np.array([True, False]), np.array(3.5), np.zeros([0, 3], np.float16),
], ids=str)  # fmt: skip
def test_numpy_arrays_of_every_layout_come_back(protocol, array):
    found = read(pickle.dumps({"x": array}, protocol))["x"]
    assert isinstance(found, Array)
    np.testing.assert_array_equal(found.numpy(), array)
    assert found.numpy().flags.writeable and found.numpy().dtype.isnative


@pytest.mark.parametrize("scalar", [np.float64(1.25), np.float32(-2), np.int64(7), np.bool_(True), np.int32(-5)])
def test_numpy_scalars_become_python_numbers(scalar):
    found = read(pickle.dumps({"x": scalar}))["x"]
    assert found == scalar.item() and type(found) is type(scalar.item())


def test_old_and_new_spellings_of_numpy_are_one():
    data = pickle.dumps({"x": np.float64(1.25), "y": np.arange(3)}, protocol=3)
    assert b"numpy._core.multiarray" in data
    old = read(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert old["x"] == 1.25 and old["y"].numpy().tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"])
def test_every_storage_type_is_read(kind):
    dtype = getattr(torch, kind)
    tensor = torch.arange(6).reshape(2, 3).t().to(dtype)
    found = read(pickle.dumps({"x": tensor[1:]}))["x"]
    assert isinstance(found, Tensor) and found.offset == 1
    np.testing.assert_array_equal(found.numpy(), tensor[1:].float().numpy() if dtype == torch.bfloat16 else tensor[1:])


def test_a_parameter_with_attributes_is_read():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = "kept"
    assert read(pickle.dumps([parameter]))[0].numpy().tolist() == [1, 1]


def test_a_tensorflow_network_is_data():
    network = writers.tensorflow_network({"lod": np.float32(0), "noise0": np.ones([1, 1, 4, 4], np.float32)})
    root = read(writers.dump((network, None, network)))
    assert isinstance(root[2], Network) and root[0] is root[2]
    assert root[2].state["variables"][1][1].numpy().shape == (1, 1, 4, 4)


def test_the_source_text_is_kept_but_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = writers.Persistent("Generator", {}, source="open('PWNED', 'w')")
    assert read(writers.dump({"G_ema": network}))["G_ema"].source == "open('PWNED', 'w')"
    assert not os.listdir(tmp_path)


FORBIDDEN = [
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch.storage", "io.open"),
    ("torch.utils.collect_env", "run"), ("numpy.testing._private.utils", "runstring"), ("torch", "load"),
    ("dnnlib.util", "get_obj_by_name"), ("torch", "FloatStorage"), ("collections", "OrderedDict.fromkeys"),
    ("torch.serialization", "load"), ("numpy", "load"), ("dnnlib.util", "EasyDict.__init__"),
    ("torch_utils.persistence", "_src_to_module"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), FORBIDDEN)
def test_a_name_off_the_list_is_refused(module, name):
    with pytest.raises(CheckpointError):
        read(b"\x80\x04" + named(module, name) + b".")
    with pytest.raises(CheckpointError):
        read(b"\x80\x03c" + module.encode() + b"\n" + name.encode() + b"\n.")


def test_a_name_on_the_list_is_not_refused():
    assert read(b"\x80\x04" + named("collections", "OrderedDict") + b")R.") == {}


@pytest.mark.parametrize(("data", "why"), [
    (b"\x80\x04N.N", "data after the end"), (b"\x80\x04N\x80\x04.", "a second header"), (b"\x80\x01N.", "protocol 1"),
    (b"\x80\x06N.", "protocol 6"), (b"N.", "no header"), (b"\x80\x04.", "no value"), (b"\x80\x04NN.", "two values"),
    (b"\x80\x04(N.", "an open mark"), (b"\x80\x04t.", "no mark"), (b"\x80\x04h\x00.", "an unknown memo"),
    (b"\x80\x04q\x00.", "a memo of nothing"), (b"\x80\x04}N.", "no pair"), (b"\x80\x04}(NNu.", "a key that is no text"),
    (b"\x80\x04}(K\x01u.", "half a pair"), (b"\x80\x04]}a\x90.", "an item for no set"), (b"\x80\x04Na.", "no list"),
    (b"\x80\x04" + b"\x8d" + b"\xff" * 8 + b".", "text of 2**64 bytes"),
    (b"\x80\x04" + b"\x8e" + b"\xff" * 8 + b".", "bytes of 2**64 bytes"),
    (b"\x80\x05" + b"\x96" + b"\x00" * 7 + b"\x80.", "a byte array of 2**63 bytes"),
    (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "a frame past the end"),
    (b"\x80\x04X\x02\x00\x00\x00\xff\xff.", "not UTF-8"),
    (b"\x80\x04\x8a\x20" + b"\x01" * 32 + b".", "a very long integer"), (b"\x80\x04r\xf0\xff\xff\xff.", "a huge memo"),
    (b"\x80\x04NNR.", "a call of None"), (b"\x80\x04NNb.", "a state for None"), (b"\x80\x04NQ.", "a reference"),
    (b"\x80\x04" + named("numpy", "ndarray") + b")R.", "a call of a class that may only be named"),
    (b"\x80\x04ccollections\nOrderedDict", "a name without end"), (b"\x80\x04i__main__\nx\n.", "INST"),
    (b"\x80\x04N0.", "POP"), (b"\x80\x04\x82\x01.", "EXT1"), (b"\x80\x04P1\n.", "PERSID"),
    (b"\x80\x04N\x92.", "NEWOBJ_EX"),
    (b"\x80\x04(I1\nl.", "protocol 0's numbers"), (b"\x80\x05\x97.", "an out-of-band buffer"),
])  # fmt: skip
def test_a_malformed_pickle_is_refused(data, why):
    with pytest.raises(CheckpointError):
        read(data)


def storage_bytes(**changes) -> bytes:
    """A torch storage of four numbers as bytes, with parts changed."""
    part = {"magic": 0x1950A86A20F9469CFC6C, "version": 1001, "endian": True, "kind": "FloatStorage", "claim": 4,
            "count": 4, "key": "1", "keys": ["1"], "data": b"\0" * 16, "view": None} | changes  # fmt: skip
    reference = b"\x80\x02(" + text("storage") + b"ctorch\n" + part["kind"].encode() + b"\n" + text(part["key"])
    reference += text("cpu") + pickle.dumps(part["claim"], 2)[2:-1] + pickle.dumps(part["view"], 2)[2:-1] + b"tQ."
    pickles = [pickle.dumps(part["magic"], 2), pickle.dumps(part["version"], 2)]
    pickles += [pickle.dumps({"little_endian": part["endian"]}, 2), reference, pickle.dumps(part["keys"], 2)]
    return b"".join(pickles) + struct.pack("<q", part["count"]) + part["data"]


def tensor_pickle(storage: bytes, offset=0, shape=(4,), stride=(1,)) -> bytes:
    """A pickle of one tensor over that storage."""
    load = named("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(storage)) + storage + b"\x85R"
    sizes = b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, shape, stride))
    return b"\x80\x04" + named("torch._utils", "_rebuild_tensor_v2") + b"(" + load + sizes + b"\x89}tR."


def test_a_hand_made_tensor_is_read():
    assert read(tensor_pickle(storage_bytes())).numpy().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("changes", [
    {"magic": 1}, {"version": 1000}, {"endian": False}, {"kind": "UntypedStorage"}, {"claim": 5}, {"count": 5},
    {"claim": 2**40, "count": 2**40}, {"claim": -1, "count": -1}, {"keys": ["2"]}, {"keys": []}, {"keys": "1"},
    {"data": b"\0" * 15}, {"data": b"\0" * 17}, {"data": b""}, {"view": ("a", 0, 4)}, {"kind": "load"},
], ids=str)  # fmt: skip
def test_a_storage_that_is_not_as_torch_writes_it_is_refused(changes):
    with pytest.raises(CheckpointError):
        read(tensor_pickle(storage_bytes(**changes)))


@pytest.mark.parametrize(("offset", "shape", "stride"), [
    (1, (4,), (1,)), (0, (5,), (1,)), (0, (2, 2), (3, 1)), (-1, (4,), (1,)), (0, (4,), (-1,)), (0, (-4,), (1,)),
    (0, (4,), ()), (0, (2**20, 2**20), (0, 0)), (0, (8,), (0,)), (0, [4], (1,)), (0, (4.0,), (1,)), (None, (4,), (1,)),
    (0, (1,) * 9, (1,) * 9), (2**62, (1,), (1,)), (0, (True,), (1,)),
])  # fmt: skip
def test_a_tensor_that_leaves_its_storage_is_refused(offset, shape, stride):
    with pytest.raises(CheckpointError):
        read(tensor_pickle(storage_bytes(), offset, shape, stride))


@pytest.mark.parametrize("array", [
    np.array([None, 1], object), np.array(["text"]), np.array([b"bytes"]), np.array([1j]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.array(["2020-01-01"], "M8[D]"),
], ids=str)  # fmt: skip
def test_arrays_of_anything_but_numbers_are_refused(array):
    for protocol in (4, 5):
        with pytest.raises(CheckpointError):
            read(pickle.dumps({"x": array}, protocol))


def test_nesting_and_size_have_limits():
    with pytest.raises(CheckpointError, match="nested"):
        read(b"\x80\x04" + b"]" * 200 + b"a" * 199 + b".")
    with pytest.raises(CheckpointError, match="more parts"):
        read(b"\x80\x04(" + b"N" * (MAX_OPERATIONS + 1) + b"t.")
    with pytest.raises(CheckpointError, match="more text"):
        read(b"\x80\x04(" + (b"X\x00\x00\x10\x00" + b"a" * 2**20) * 9 + b"t.")
    assert read(b"\x80\x04" + b"]" * 50 + b"a" * 49 + b".") is not None


def test_modules_that_contain_themselves_end():
    meta = text("type") + text("class") + text("version") + b"K\x06" + text("module_src") + text("")
    meta += text("class_name") + text("Generator") + text("state") + b"h\x00"
    itself = named("torch_utils.persistence", "_reconstruct_persistent_obj") + b"}(" + meta + b"u\x85Rq\x01"
    data = b"\x80\x04]}q\x00a" + itself + b"a]h\x00" + text("_modules") + b"}" + text("a") + b"h\x01ssaa."
    with pytest.raises(CheckpointError, match="without end"):
        read(data)[1].tensors()


def test_modules_that_share_parts_without_measure_end():
    network = writers.Persistent("Generator", {})
    for _ in range(12):
        network = writers.Persistent("Generator", {"_modules": {"a": network, "b": network}})
    with pytest.raises(CheckpointError, match="without end"):
        read(writers.dump(network)).tensors()


def test_a_refusal_shows_little_of_the_file():
    with pytest.raises(CheckpointError) as caught:
        read(b"\x80\x04" + named("secret" * 20, "\x1b[31m" * 5) + b".")
    assert len(str(caught.value)) < 160 and "\x1b" not in str(caught.value)


def mutate(data: bytes, source: random.Random) -> bytes:
    """The same file with one to three accidents."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(changed))
        kind = source.randrange(5)
        if kind == 0:
            changed[place] = source.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << source.randrange(8)
        elif kind == 2:
            del changed[place : place + source.randint(1, 40)]
        elif kind == 3:
            other = source.randrange(len(changed))
            changed[place:place] = changed[other : other + source.randint(1, 40)]
        else:
            changed[place:place] = source.randbytes(source.randint(1, 8))
    return bytes(changed)


def test_chance_damage_gives_data_or_our_error():
    """A few hundred files here; STYLEGAN_FUZZ=10000 for as many."""
    source = random.Random(0)
    good = [(FIXTURES / "sg2ada_8_tiny.pkl").read_bytes(), writers.dump(writers.snapshot(make_tiny(SMALL)), 4),
            writers.dump(writers.snapshot(make_tiny(SMALL)), 3)]  # fmt: skip
    outcomes = {"data": 0, "refused": 0}
    for number in range(int(os.environ.get("STYLEGAN_FUZZ", 300))):
        data = mutate(good[number % 10 and 1 + number % 2], source)
        try:
            root = read(data)
            convert_snapshot(root, Copies(len(data)))
            outcomes["data"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) >= 5, outcomes


def test_reading_needs_neither_torch_nor_memory(tmp_path):
    """A file of 64 MiB is read in a process without torch that grows by far less than the file."""
    big = {"G_ema": writers.Persistent("Generator", {"_parameters": {"x": torch.zeros(1 << 24)}})}
    path = tmp_path / "big.pkl"
    path.write_bytes(writers.dump(big))
    code = f"""
import resource, sys
from stylegan.checkpoint.nvidia_pickle import open_pickle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_pickle({str(path)!r}) as root:
    assert root["G_ema"].tensors()["x"].shape == (1 << 24,)
print("torch" in sys.modules, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    has_torch, grown = done.stdout.split()
    assert has_torch == "False" and int(grown) < 16 << 10
