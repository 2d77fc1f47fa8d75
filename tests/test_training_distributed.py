"""Two processes are one trainer: the same gradients, one run folder, a message when one dies, any number again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stylegan.checkpoint.file import load_generator
from stylegan.training.run import TrainingRun
from stylegan.training.state import read_state, states_newest_first

WORKER = """
import sys, torch
from stylegan.data.images import open_images, sample_sets
from stylegan.training.config import TrainConfig
from stylegan.training.distributed import joined
from stylegan.training.trainer import Trainer

torch.set_num_threads(1)
config = TrainConfig(data="x", out="y", resolution=16, batch=8, mbstd_group=2, channel_base=256, channel_max=16,
                     z_dim=16, w_dim=16, device="cpu", r1_interval=1, r2=True, pl_weight=2.0, pl_interval=1,
                     conditional=True).resolve()
with joined("cpu") as ranks:
    trainer = Trainer(config, open_images(sample_sets()["cartoon-sample-64"], 16), ranks)
    trainer.augment.p = 0.5
    with torch.no_grad():
        for name, value in trainer.generator.named_parameters():
            if name.endswith("noise_strength"):
                value.fill_(0.3)
    found = []
    for optimizer in trainer.optimizers:
        optimizer.step = lambda o=optimizer: found.append(
            torch.cat([p.grad.flatten() for g in o.param_groups for p in g["params"] if p.grad is not None]))
    for _ in range(4):
        stats = trainer.step()
    word = ranks.agree([3.0 if ranks.is_first else 5.0])
    total = ranks.total([1.0])
    if ranks.is_first:
        torch.save({"gradients": found, "w_avg": trainer.generator.w_avg, "pl_mean": trainer.pl_mean,
                    "r_t": torch.tensor(stats["r_t"]), "word": torch.tensor(word), "total": torch.tensor(total)},
                   sys.argv[1])
"""


def torchrun(num: int) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num}", "--master-addr=127.0.0.1",
            f"--master-port={port}"]  # fmt: skip


def environment(repo) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo), "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def by_world(repo, tmp_path_factory) -> dict[int, dict[str, torch.Tensor]]:
    """What one process and what two processes made of the same four steps."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    for world, start in ((1, [sys.executable]), (2, torchrun(2))):
        command = [*start, str(folder / "worker.py"), str(folder / f"{world}.pt")]
        subprocess.run(command, cwd=repo, env=environment(repo), check=True, timeout=300, capture_output=True)
    return {world: torch.load(folder / f"{world}.pt", weights_only=True) for world in (1, 2)}


def test_two_ranks_compute_the_gradients_of_one(by_world):
    one, two = by_world[1], by_world[2]
    assert len(one["gradients"]) == len(two["gradients"]) == 12
    for whole, parts in zip(one["gradients"], two["gradients"], strict=True):
        assert float((whole - parts).norm() / whole.norm()) < 1e-4
    torch.testing.assert_close(two["w_avg"], one["w_avg"])
    torch.testing.assert_close(two["pl_mean"], one["pl_mean"], rtol=1e-4, atol=1e-6)
    assert float(two["r_t"]) == pytest.approx(float(one["r_t"]))


def test_rank_0_has_the_word_and_sums_are_over_all(by_world):
    assert [float(by_world[world]["word"]) for world in (1, 2)] == [3.0, 3.0]
    assert [float(by_world[world]["total"]) for world in (1, 2)] == [1.0, 2.0]


def processes_with(argument: str) -> list[int]:
    """The processes that were given this very argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def flags(out, **changes) -> list[str]:
    values = {"data": "cartoon-sample-64", "out": out, "resolution": 16, "batch": 8, "channel-base": 256,
              "channel-max": 16, "z-dim": 16, "w-dim": 16, "threads": 1, "device": "cpu", "metric-images": 0, **changes}
    return ["-m", "stylegan", "train", *(f"--{name}={value}" for name, value in values.items())]


def dead_rank(repo, out) -> None:
    """Kill the second of two processes, read what the run says of it, then continue with one."""
    process = subprocess.Popen([*torchrun(2), *flags(out, minutes=2)], cwd=repo, env=environment(repo),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    run = TrainingRun(out)
    try:
        deadline = time.monotonic() + 200
        while not (states_newest_first(out / "state") and run.ticks()) and time.monotonic() < deadline:
            time.sleep(0.1)
        ranks = [pid for pid in processes_with(f"--out={out}") if pid not in (run.status()["pid"], process.pid)]
        assert ranks, "the second process was not found"
        os.kill(ranks[-1], signal.SIGKILL)
        words, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert run.state() in ("failed", "stopped") and process.returncode != 0
    if run.state() == "failed":
        assert "training processes has ended" in run.reason()
    path = states_newest_first(out / "state")[0]
    saved = read_state(path)[1]["nimg"]
    assert saved > 0 and saved % 8 == 0
    done = subprocess.run([sys.executable, *flags(out, minutes=0, kimg=(saved + 80) / 1000)], cwd=repo,
                          env=environment(repo), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert f"resumed at {saved / 1000:.1f} kimg" in done.stdout
    assert run.state() == "done" and load_generator(run.snapshots()[-1][1]).resolution == 16


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="SKIPPED LOUDLY: no /proc to find a rank by")
def test_a_dead_rank_ends_the_run_with_a_message_and_one_process_continues(repo, tmp_path):
    dead_rank(repo, tmp_path / "run")
