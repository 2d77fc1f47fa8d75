"""Two processes are one trainer: the same gradients, one run folder, a message when one dies, any number again."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.checkpoint.file import load_generator
from stylegan.cli import train
from stylegan.errors import RequestError, TrainingError
from stylegan.options import options_of
from stylegan.training import loop, record
from stylegan.training.agreement import _shared, choose_first, require_same_pictures
from stylegan.training.config import TrainConfig
from stylegan.training.distributed import Ranks
from stylegan.training.draws import shares_of
from stylegan.training.interface import interface_towards
from stylegan.training.run import TrainingRun
from stylegan.training.state import read_state, state_path, states_newest_first

WORKER = """
import sys, torch
from stylegan.data.images import open_images, sample_sets
from stylegan.training.config import TrainConfig
from stylegan.training.distributed import joined, leave
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
        half_filled = [trainer.controller.signs, trainer.controller.count]
        stats = trainer.step()
    word = ranks.agree([3.0 if ranks.is_first else 5.0])
    total, windows = ranks.total([1.0]), ranks.total(half_filled)
    if ranks.is_first:
        torch.save({"gradients": found, "w_avg": trainer.generator.w_avg, "pl_mean": trainer.pl_mean,
                    "r_t": torch.tensor(stats["r_t"]), "windows": torch.tensor(windows),
                    "word": torch.tensor(word), "total": torch.tensor(total)}, sys.argv[1])
leave()
"""


def free_port() -> int:
    """A port below those that the system gives to outgoing connections, so that none takes it before it is used."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def torchrun(num: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num}", "--master-addr=127.0.0.1",
            f"--master-port={free_port()}"]  # fmt: skip


def environment(repo) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo), "GLOO_SOCKET_IFNAME": "lo"}


def made_by_one_and_two(repo, folder, worker: str) -> list[dict[str, torch.Tensor]]:
    """What one process and what two processes leave of the same worker."""
    (folder / "worker.py").write_text(worker)
    made = []
    for world in (1, 2):
        path = folder / f"{world}.pt"
        command = [*(torchrun(world) if world > 1 else [sys.executable]), str(folder / "worker.py"), str(path)]
        done = subprocess.run(command, cwd=repo, env=environment(repo), timeout=300, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        made.append(torch.load(path, weights_only=True))
    return made


@pytest.fixture(scope="module")
def by_world(repo, tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    return made_by_one_and_two(repo, tmp_path_factory.mktemp("ranks"), WORKER)


def test_two_ranks_compute_the_gradients_of_one(by_world):
    one, two = by_world
    assert len(one["gradients"]) == len(two["gradients"]) == 12
    for whole, parts in zip(one["gradients"], two["gradients"], strict=True):
        assert float((whole - parts).norm() / whole.norm()) < 1e-4
    torch.testing.assert_close(two["w_avg"], one["w_avg"])
    torch.testing.assert_close(two["pl_mean"], one["pl_mean"], rtol=1e-4, atol=1e-6)
    assert float(two["r_t"]) == pytest.approx(float(one["r_t"]))
    assert two["windows"].tolist() == (2 * one["windows"]).tolist(), "a rank lacks others' share of ADA's window"


def test_rank_0_has_the_word_and_sums_are_over_all(by_world):
    assert [float(made["word"]) for made in by_world] == [3.0, 3.0]
    assert [float(made["total"]) for made in by_world] == [1.0, 2.0]


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
    # Crashed: torchrun or an abort of gloo's was quicker than the first process's own words; seldom, but seen.
    assert run.state() in ("failed", "stopped", "crashed") and process.returncode != 0, words
    if run.state() == "failed":
        assert "training processes (at 127.0.0.1) has ended" in run.reason()
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


# More than one machine

COMMAND = """
import sys
from stylegan.cli.main import main
from stylegan.training import record
record.Record.sample = lambda self: None
sys.exit(main(sys.argv[1:]))
"""


def machines(repo, folder, arguments: list[list[str]]) -> list[tuple[int, str]]:
    """What torchrun on each of some machines, all of them this one, ended with and said."""
    (folder / "command.py").write_text(COMMAND)
    start = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(arguments)}", "--nproc-per-node=1",
             "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=test",
             "--local-addr=127.0.0.1", str(folder / "command.py"), "train"]  # fmt: skip
    found = [subprocess.Popen([*start, *given], cwd=repo, env=environment(repo), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) for given in arguments]  # fmt: skip
    try:
        words = [process.communicate(timeout=200)[0] for process in found]
        return [(process.returncode, said) for process, said in zip(found, words, strict=True)]
    finally:
        for process in found:
            process.kill()


def test_two_machines_that_share_no_disk_go_on_as_one(repo, tmp_path):
    """The second one's disk holds the run that one process began: it leads, and both do what one would have done."""
    places = [tmp_path / f"machine{i}" for i in range(2)]
    given = [flags(place, kimg=0.04, seed=3, threads=1 + i)[3:] for i, place in enumerate(places)]
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    said = vars(parser.parse_args(given[1]))
    config = TrainConfig(**{name: said[name] for name in options_of(TrainConfig) if name in said})
    begun = loop.train(config.replace(kimg=0.016), echo=lambda line: None)
    shutil.copytree(begun.path, tmp_path / "alone")
    start = read_state(states_newest_first(begun.path / "state")[0])[0]
    for code, words in machines(repo, tmp_path, given):
        assert code == 0, words[-3000:]
    assert not places[0].exists(), "only the first one's machine needs the run folder"
    alone = loop.train(config.replace(out=str(tmp_path / "alone")), echo=lambda line: None)
    ends = [read_state(states_newest_first(path / "state")[0]) for path in (places[1], alone.path)]
    assert [numbers["nimg"] for _, numbers in ends] == [40, 40]
    moved = [torch.cat([(tensors[name] - start[name]).flatten() for name in start if name.startswith("generator.")])
             for tensors, _ in ends]  # fmt: skip
    assert moved[1].norm() > 0.05 and (moved[0] - moved[1]).norm() < 0.02 * moved[1].norm()


@dataclass(frozen=True)
class Company(Ranks):
    """Three ranks, of which this is the second; the others say what the test lets them."""

    rank: int = 1
    world: int = 3
    others: tuple = ()

    def gather(self, text: str) -> list[str]:
        first, last = self.others
        return [first(text), text, last(text)]


def same(text: str) -> str:
    return text


def with_changes(**changes):
    """A rank that says the same but for some fields."""
    def change(text: str) -> str:
        said = json.loads(text)
        return json.dumps({**said, **changes, "settings": {**said["settings"], **changes.get("settings", {})}})

    return change


def config_at(path, **changes) -> TrainConfig:
    return TrainConfig(data="cartoon-sample-64", out=str(path / "run"), **changes)


@pytest.mark.parametrize("parts", [(1,), (2,), (1, 1), (2, 1), (4, 2), (1, 2, 4)])
def test_every_row_of_a_batch_is_trained_on_once_however_many_threads_each_process_has(parts):
    rows = [np.arange(96)[share.rows] for rank, num in enumerate(parts)
            for share in shares_of(96, rank, len(parts), num)]  # fmt: skip
    assert sorted(np.concatenate(rows).tolist()) == list(range(96))
    group, num_groups = 4, 96 // 4  # the discriminator compares row j with j + 24, j + 48, j + 72
    for some in rows:
        assert all({(row + k * num_groups) % 96 for k in range(group)} <= set(some.tolist()) for row in some.tolist())


def test_the_one_whose_folder_holds_the_newest_state_leads(tmp_path):
    config = config_at(tmp_path)
    assert choose_first(Company(others=(same, same)), config).first == 0
    assert choose_first(Company(others=(same, with_changes(nimg=8))), config).first == 2
    (tmp_path / "run" / "state").mkdir(parents=True)
    state_path(tmp_path / "run" / "state", 16).touch()
    assert choose_first(Company(others=(with_changes(nimg=8), same)), config).is_first
    assert choose_first(Ranks(), config).is_first


def test_other_settings_or_pictures_on_one_machine_are_named_everywhere(tmp_path):
    config = config_at(tmp_path, gamma=2.0)
    odd = with_changes(host="attic", settings={"gamma": 5.0})
    with pytest.raises(TrainingError, match=r"^Process 2 of 3, on attic, was started with gamma 5.0 and process 0, on "
                                            r"[^\n]+, with 2.0; use the same command on every machine\.$"):
        choose_first(Company(others=(same, odd)), config)
    assert not {"data", "out", "threads", "device"} & set(_shared(config)), "each machine has its own"
    data = loop.open_data(config)
    require_same_pictures(Company(others=(same, same)), data)
    with pytest.raises(TrainingError, match=r"^Process 2 of 3, on attic, reads other pictures \(5\) than process 0"):
        require_same_pictures(Company(others=(same, lambda text: "0\0005\0attic")), data)


def test_what_fails_at_one_ends_all_with_its_sentence_and_place():
    quiet, broken = (lambda text: ""), (lambda text: "attic\0There is no folder.")
    assert Company(others=(quiet, quiet)).together(lambda: 7) == 7
    with pytest.raises(TrainingError, match=r"^Process 0 of 3, on attic, cannot go on: There is no folder\.$"):
        Company(others=(broken, quiet)).together(lambda: 7)

    def full() -> None:
        raise RequestError("The disk is full.")

    with pytest.raises(RequestError, match="The disk is full"):
        Company(others=(quiet, quiet)).together(full)


def test_ranks_that_wait_are_told_that_the_first_one_lives(tmp_path, monkeypatch):
    """While a snapshot is judged the others hear from it, so that their patience can be short."""
    told: list[list[float]] = []
    monkeypatch.setattr(loop, "WORD_SECONDS", 0.0)
    monkeypatch.setattr(Ranks, "agree", lambda self, values: told.append(list(values)) or list(values))
    small = {"resolution": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "threads": 1}
    config = config_at(tmp_path, **small, batch=4, kimg=0.008, snapshot_minutes=0.05, metric_images=40)
    monkeypatch.setattr(record.Record, "due", lambda self, name, seconds: True)
    loop.train(config, echo=lambda line: None)
    orders = [values[0] for values in told]
    assert orders.count(loop.WAIT) > 3 and orders[-1] == loop.DONE, orders
    assert orders.index(loop.WAIT) > orders.index(loop.GO_ON)


def test_the_way_to_another_machine_is_found_or_left_open():
    assert interface_towards("127.0.0.1") in ("lo", "lo0", "")
    assert interface_towards("no-such-machine.invalid") == ""
