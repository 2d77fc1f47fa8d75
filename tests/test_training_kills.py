"""Nothing is lost: kill -9 at any moment, a full disk, a power cut that damages the newest file, another clock.

STYLEGAN_KILLS=100 python -m pytest tests/test_training_kills.py kills a run a hundred times instead of twenty.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from stylegan.checkpoint.file import load_generator
from stylegan.data.images import open_images, sample_sets
from stylegan.errors import StyleGANError
from stylegan.training import loop, record
from stylegan.training.config import TrainConfig
from stylegan.training.run import TrainingRun
from stylegan.training.state import read_state, state_path, states_newest_first
from stylegan.training.trainer import Trainer

NUM_KILLS = int(os.environ.get("STYLEGAN_KILLS", "20"))
TINY = {"data": "cartoon-sample-64", "resolution": 8, "batch": 4, "channel_base": 64, "channel_max": 8, "z_dim": 8,
        "w_dim": 8, "threads": 1, "device": "cpu", "metric_images": 0, "schedule": "constant", "ada_kimg": 1.0,
        "r1_interval": 2, "sample_seconds": 1.0}  # fmt: skip

# One process that has imported everything forks the trainers, so that a start costs a tenth of a second.
HARNESS = """
import json, os, random, signal, sys, time
import torch
from stylegan.training import loop, record
from stylegan.training.config import TrainConfig
from stylegan.training.run import TrainingRun
from stylegan.training.state import read_state, states_newest_first

out, num_kills, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
record.TICK_SECONDS = record.STATE_SECONDS = 0.03


def start(**changes):
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        code = 1
        try:
            loop.train(TrainConfig(**{**settings, **changes}), echo=lambda line: None)
            code = 0
        finally:
            os._exit(code)
    return pid


random.seed(1)
run, reached, told = TrainingRun(out), 0, []
for kill in range(num_kills):
    pid, begun, before = start(out=out, kimg=1000.0), time.monotonic(), states_newest_first(run.path / "state")
    if random.random() < 0.7 or not kill:  # three of ten die while they start
        while states_newest_first(run.path / "state") == before and time.monotonic() - begun < 60:
            time.sleep(0.005)
        if random.random() < 0.3:
            (run.path / "snapshot").touch()
        time.sleep(random.random() * 0.15)
    else:
        time.sleep(random.random())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    states = states_newest_first(run.path / "state")
    now = read_state(states[0])[1]["nimg"] if states else 0
    assert now >= reached, (now, reached)
    assert run.config()["batch"] == 4 and run.state() == "crashed"
    reached = now
    told.append(now)
goal = (reached + 40) / 1000
assert os.waitpid(start(out=out, kimg=goal), 0)[1] == 0
assert os.waitpid(start(out=out + "-whole", kimg=goal), 0)[1] == 0
print(json.dumps({"nimg": told, "goal": goal}))
"""


def tensors_of(folder) -> dict[str, torch.Tensor]:
    return read_state(states_newest_first(folder / "state")[0])[0]


def test_kill_9_at_any_moment_loses_nothing_saved_and_changes_no_bit(tmp_path, repo):
    out = tmp_path / "run"
    command = [sys.executable, "-c", HARNESS, str(out), str(NUM_KILLS), json.dumps(TINY)]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=60 + 12 * NUM_KILLS,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo)})
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["nimg"]) == NUM_KILLS and len(set(told["nimg"])) > NUM_KILLS // 3, "hardly any kill hit training"
    killed, whole = tensors_of(out), tensors_of(tmp_path / "run-whole")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []
    run = TrainingRun(out)
    assert run.state() == "done" and run.ticks()[-1]["nimg"] == round(told["goal"] * 1000)
    for _, path in run.snapshots():
        assert load_generator(path).resolution == 8
    assert not list(run.path.rglob(".*.tmp")), "what a killed process left half written is swept away"


# Each process dies a little later than the one before: within every write of a run, before and after its rename.
MOMENTS = """
import json, os, signal, sys
import torch
from stylegan.metrics.features import FeatureExtractor
from stylegan.metrics.meter import Meter
from stylegan.training import loop, record
from stylegan.training.config import TrainConfig
from stylegan.training.state import read_state, states_newest_first

out, settings = sys.argv[1], json.loads(sys.argv[2])
record.TICK_SECONDS = record.STATE_SECONDS = 0.0
torch.set_num_threads(1)
FeatureExtractor()  # calibrated once for all


def train(out, moment):
    count = [0]

    def mortal(real):
        def call(*given, **named):
            count[0] += 1
            if count[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return call

    if os.fork() == 0:
        torch.set_num_threads(1)
        os.fsync, os.replace, Meter.measure = mortal(os.fsync), mortal(os.replace), mortal(Meter.measure)
        code = 1
        try:
            loop.train(TrainConfig(**settings, out=out), echo=lambda line: None)
            code = 0
        finally:
            os._exit(code)
    return os.wait()[1]


ends, reached, moment = [], 0, 1
while not ends or ends[-1]:
    ends.append(train(out, moment))
    states = states_newest_first(loop.TrainingRun(out).path / "state")
    now = read_state(states[0])[1]["nimg"] if states else 0
    assert now >= reached, (now, reached)
    reached, moment = now, moment + 7
assert set(ends[:-1]) == {signal.SIGKILL}, ends
assert train(out + "-whole", 0) == 0
print(json.dumps(len(ends)))
"""


def test_death_within_any_write_or_judgement_loses_nothing_and_changes_no_bit(tmp_path, repo):
    out = tmp_path / "run"
    settings = {**TINY, "kimg": 0.012, "metric_images": 8, "holdout": 0.0}
    done = subprocess.run([sys.executable, "-c", MOMENTS, str(out), json.dumps(settings)], cwd=repo,
                          capture_output=True, text=True, timeout=600,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) > 6
    killed, whole = tensors_of(out), tensors_of(tmp_path / "run-whole")
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []
    assert TrainingRun(out).state() == "done" and not list(out.rglob(".*.tmp"))
    for _, path in TrainingRun(out).snapshots():
        assert load_generator(path).resolution == 8


def config_of(out, **changes) -> TrainConfig:
    return TrainConfig(**{**TINY, "out": str(out), **changes})


def test_a_full_disk_ends_the_run_with_a_sentence_and_keeps_the_last_state(tmp_path, monkeypatch):
    out = tmp_path / "run"
    loop.train(config_of(out, kimg=0.04), echo=lambda line: None)
    before = states_newest_first(out / "state")[0].read_bytes()
    real_open = open

    def no_room(path, mode="r", *rest, **named):
        if "state" in str(path) and "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_open(path, mode, *rest, **named)

    monkeypatch.setattr("builtins.open", no_room)
    with pytest.raises(StyleGANError, match="disk is full"):
        loop.train(config_of(out, kimg=0.08), echo=lambda line: None)
    monkeypatch.undo()
    run = TrainingRun(out)
    assert run.state() == "failed" and "disk is full" in run.reason()
    assert states_newest_first(out / "state")[0].read_bytes() == before
    assert loop.train(config_of(out, kimg=0.08), echo=lambda line: None).status()["nimg"] == 80


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty"])
def test_a_state_damaged_by_a_power_cut_costs_only_the_work_since_the_one_before(tmp_path, damage):
    out = tmp_path / "run"
    loop.train(config_of(out, kimg=0.04), echo=lambda line: None)
    loop.train(config_of(out, kimg=0.06), echo=lambda line: None)
    path = state_path(out / "state", 60)
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "zeros": data[:-4096] + bytes(4096), "empty": b""}[damage])
    lines: list[str] = []
    run = loop.train(config_of(out, kimg=0.08), echo=lines.append)
    assert any("is damaged" in line for line in lines) and "resumed at 0.0 kimg" in lines
    assert run.state() == "done" and run.status()["nimg"] == 80


def test_other_or_missing_pictures_are_one_sentence_and_cost_nothing(tmp_path):
    """The data of a run is replaced, gone, cut short, and put back."""
    out, data = tmp_path / "run", tmp_path / "faces.zip"
    good, other = (sample_sets()[name].read_bytes() for name in ("cartoon-sample-64", "pomological-sample-64"))
    data.write_bytes(good)
    loop.train(config_of(out, kimg=0.02, data=str(data)), echo=lambda line: None)
    for content, words in ((other, "training data has changed"), (None, "no folder or file"), (good[:9000], "zip")):
        data.unlink(missing_ok=True)
        if content:
            data.write_bytes(content)
        with pytest.raises(StyleGANError, match=rf"^[^\n]*{words}[^\n]*$"):
            loop.train(config_of(out, kimg=0.04, data=str(data)), echo=lambda line: None)
        assert TrainingRun(out).state() == "failed" and words in TrainingRun(out).reason()
    data.write_bytes(good)
    assert loop.train(config_of(out, kimg=0.04, data=str(data)), echo=lambda line: None).status()["nimg"] == 40


def test_a_clock_that_runs_backwards_changes_nothing(tmp_path, monkeypatch):
    hours = iter(range(10**6))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(hours))
    run = loop.train(config_of(tmp_path / "run", kimg=0.04), echo=lambda line: None)
    assert run.state() == "done" and run.ticks()[-1]["nimg"] == 40
    assert loop.train(config_of(tmp_path / "run", kimg=0.06), echo=lambda line: None).ticks()[-1]["nimg"] == 60


def test_only_the_newest_two_states_and_the_best_are_kept(tmp_path):
    out = tmp_path / "run"
    for kimg in (0.02, 0.04, 0.06, 0.08):
        loop.train(config_of(out, kimg=kimg), echo=lambda line: None)
        if kimg == 0.02:
            TrainingRun(out).note_best(20, "KID", 0.1, 1.0)
    assert [int(path.stem) for path in states_newest_first(out / "state")] == [80, 60, 20]


def test_a_budget_of_minutes_resumes_to_the_bit_whatever_the_clock(tmp_path):
    images = open_images(sample_sets()["cartoon-sample-64"], 8)
    config = config_of("unused", minutes=1.0, schedule="tail").resolve()
    whole, path = Trainer(config, images), tmp_path / "000000012.safetensors"
    for _ in range(3):
        whole.step()
    whole.seconds = 30.0
    whole.replan(seconds=30.0, num_images=12)
    assert whole.plan == 24 and whole.progress() == 0.5
    whole.save(path)
    resumed = Trainer(config, images)
    resumed.load(path)
    rates = []
    for _ in range(3):  # one machine is quick, the other slow
        whole.seconds, resumed.seconds = whole.seconds + 0.1, resumed.seconds + 9.0
        rates.append((whole.step()["lr"], resumed.step()["lr"]))
    assert all(mine == other for mine, other in rates) and rates[-1][0] < rates[0][0]
    assert all(torch.equal(a, b) for a, b in zip(whole.generator.parameters(), resumed.generator.parameters(),
                                                 strict=True))  # fmt: skip


def test_a_budget_that_is_lengthened_begins_where_it_stands_in_the_new_one(tmp_path):
    images = open_images(sample_sets()["cartoon-sample-64"], 8)
    config, path = config_of("unused", minutes=1.0, schedule="tail").resolve(), tmp_path / "1.safetensors"
    over = Trainer(config, images)
    over.step()
    over.seconds = 60.0
    over.replan(seconds=60.0, num_images=4)
    assert over.progress() == 1.0
    over.save(path)
    longer = Trainer(config.replace(minutes=4.0), images)
    longer.load(path)
    assert longer.progress() == 0.25 and longer.step()["lr"] == longer.config.lr


def test_states_are_saved_often_enough_for_a_short_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "TICK_SECONDS", 0.2)
    run = loop.train(config_of(tmp_path / "run", minutes=0.05, schedule="tail"), echo=lambda line: None)
    assert run.ticks()[-1]["lr"] < 0.6 * run.ticks()[0]["lr"]
