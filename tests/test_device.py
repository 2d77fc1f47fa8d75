"""Devices: what is picked, and that temporary modes end."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from stylegan.device import autocast_dtype, describe_device, eval_mode, pick_device
from stylegan.errors import RequestError


def test_devices_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("warp", "", "cuda:99", "meta"):
        with pytest.raises(RequestError, match="cannot be used here"):
            pick_device(name)


def test_half_precision_only_where_it_is_faster(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert autocast_dtype(cpu) == torch.bfloat16 and "bfloat16" in describe_device(cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert autocast_dtype(cpu) == torch.float32 and "float32" in describe_device(cpu)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert autocast_dtype(cpu) == torch.float32


def test_evaluation_mode_ends_as_it_began():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout())
    network[1].eval()
    with pytest.raises(KeyError), eval_mode(network) as same:
        assert same is network and not any(part.training for part in network.modules())
        raise KeyError
    assert [part.training for part in network.modules()] == [True, True, False]


FIRST_CALLS = """
import sys, torch
from torch.utils._python_dispatch import TorchDispatchMode

class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_tensor(args[0]) and args[0].numel() == 1:
            names.add((func.overloadpacket.__name__, args[0].dtype))
        return func(*args, **(kwargs or {}))

names = set()
with Seen():
    __import__(sys.argv[1])
from stylegan.device import VECTOR_FUNCTIONS
print(sorted({(name, kind) for name in VECTOR_FUNCTIONS for kind in (torch.float32, torch.float64)} - names))
"""


@pytest.mark.parametrize("room", ["networks.generator", "metrics.features", "directions.pca", "render"])
def test_no_vector_function_is_first_called_by_several_threads(repo, room):
    """In a fresh process, whichever room it comes to first; where threads race for it, results are wrong by 1e-4."""
    done = subprocess.run([sys.executable, "-c", FIRST_CALLS, f"stylegan.{room}"], cwd=repo, capture_output=True,
                          text=True)  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


PRECISION = """
import threading, torch
from stylegan.device import full_precision

def settings():
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic

torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
before, a = settings(), torch.randn(64, 64)
with torch.autocast("cpu", torch.bfloat16):
    with full_precision():
        assert (a @ a).dtype == torch.float32 and settings() == (False, False, False, True), settings()
    assert (a @ a).dtype == torch.bfloat16
assert settings() == before

first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
def first():
    with full_precision():
        first_in.set(); second_in.wait(9)
    first_out.set()
thread = threading.Thread(target=first); thread.start(); first_in.wait(9)
with full_precision():
    second_in.set(); first_out.wait(9)
    assert settings() == (False, False, False, True), settings()
thread.join()
assert settings() == before, settings()
"""


def test_full_precision_restores_everything_even_when_two_threads_overlap(repo):
    """In a process of its own: the settings are the process's, and other tests leave apps that render behind."""
    subprocess.run([sys.executable, "-c", PRECISION], cwd=repo, check=True)


@pytest.mark.parametrize(("keep", "tuned"), [("1", False), ("0", sys.platform == "linux")])
def test_the_allocator_can_be_left_alone(repo, keep, tuned):
    code = (f"import os; os.environ['STYLEGAN_KEEP_MALLOC'] = '{keep}'; import platform, sys\n"
            "from stylegan.device import tune_allocator\n"
            "print(tune_allocator(), 'torch' in sys.modules, platform.libc_ver()[0])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repo, check=True)
    changed, heavy, libc = done.stdout.split() if len(done.stdout.split()) == 3 else (*done.stdout.split(), "")
    assert heavy == "False" and changed == str(tuned and libc == "glibc")
