"""The trainer: it learns, resumes to the bit, counts what is not a number, and ends when it is asked to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stylegan.checkpoint.discriminators import convert_discriminator
from stylegan.checkpoint.file import load_generator
from stylegan.data.images import open_images, sample_sets
from stylegan.errors import RequestError, TrainingError
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import build_generator
from stylegan.training import loop
from stylegan.training.augment import Augment, Controller, _Warp
from stylegan.training.config import PRESETS, TrainConfig
from stylegan.training.ema import Average
from stylegan.training.losses import discriminator_loss, generator_loss
from stylegan.training.regularizers import gradient_penalty, path_lengths
from stylegan.training.run import TrainingRun
from stylegan.training.trainer import MOST_BAD_STEPS, Trainer
from stylegan.training.workers import num_workers

TINY = {
    "data": "cartoon-sample-64", "resolution": 16, "batch": 4, "channel_base": 256, "channel_max": 16, "z_dim": 16,
    "w_dim": 16, "threads": 1, "device": "cpu", "metric_images": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """The shipped sample at 16 px."""
    return open_images(sample_sets()["cartoon-sample-64"], 16)


def _config(out: Path | str = "unused", **changes) -> TrainConfig:
    """A resolved tiny config."""
    return TrainConfig(**{**TINY, "out": str(out), **changes}).resolve()


def _numbers(trainer: Trainer) -> torch.Tensor:
    """Every number of every network of a trainer, in one row."""
    return torch.cat(
        [v.detach().double().flatten() for n in trainer.networks().values() for v in n.state_dict().values()]
    )


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_losses_by_closed_form():
    zero = torch.zeros(1, 1)
    assert float(generator_loss(zero)) == pytest.approx(0.6931472)
    assert float(discriminator_loss(zero, zero)) == pytest.approx(2 * 0.6931472)
    assert float(discriminator_loss(zero + 20, zero - 20)) < 1e-6 < float(generator_loss(zero - 20))


def test_r1_of_a_linear_critic_is_its_squared_norm():
    weight = torch.arange(12.0).reshape(1, 3, 2, 2)
    images = torch.randn(5, 3, 2, 2).requires_grad_(True)
    logits = (images * weight).sum(dim=(1, 2, 3), keepdim=True).flatten(1)
    torch.testing.assert_close(gradient_penalty(logits, images), weight.square().sum().expand(5))


def test_path_length_of_a_linear_generator():
    ws = torch.randn(4, 2, 3).requires_grad_(True)
    images = (ws.sum(dim=(1, 2)) * 3)[:, None, None, None] * torch.ones(1, 1, 2, 2)
    noise = torch.ones(4, 1, 2, 2)
    lengths = path_lengths(images, ws, noise)  # every row of ws has the gradient 6 in 3 places
    torch.testing.assert_close(lengths, torch.full([4], 4 / 2 * 3 * 3**0.5))


def test_average_halves_the_distance_in_its_half_life():
    generator = build_generator(GeneratorConfig(resolution=8, z_dim=4, w_dim=4, channel_base=32, channel_max=4))
    average = Average(generator, half_life=100.0, ramp=1.0)
    before = average.generator.synthesis.b4.const.clone()
    with torch.no_grad():
        generator.synthesis.b4.const.add_(1.0)
    average.update(generator, nimg=1000, batch=100)
    torch.testing.assert_close(average.generator.synthesis.b4.const, before + 0.5)


def test_augmentation_does_nothing_at_zero_and_is_differentiable_twice():
    images = torch.rand(2, 3, 8, 8)
    assert Augment(0.0)(images, torch.Generator()) is images
    moved = Augment(0.9)(images, torch.Generator().manual_seed(1))
    assert moved.shape == images.shape and not torch.equal(moved, images)
    assert torch.equal(moved, Augment(0.9)(images, torch.Generator().manual_seed(1)))
    warp = Augment(0.9)._geometry(2, 8, 8, torch.Generator().manual_seed(2)).double()
    grid = F.affine_grid(warp[:, :2], [2, 1, 8, 8], align_corners=False)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _Warp.apply(x, grid), (x,))
    assert torch.autograd.gradgradcheck(lambda x: _Warp.apply(x, grid), (x,))


def test_colour_augmentation_keeps_grey_grey():
    matrices = Augment(1.0)._colour(64, torch.Generator().manual_seed(0))  # [64, 4, 4]
    grey = matrices[:, :3, :3].sum(dim=2) * 0.3 + matrices[:, :3, 3]  # what becomes of (0.3, 0.3, 0.3)
    torch.testing.assert_close(grey, grey.mean(dim=1, keepdim=True).expand(-1, 3))


def test_controller_follows_its_target_and_its_cap():
    controller = Controller(target=0.6, kimg=1.0, cap=0.5)
    p = 0.0
    for step in range(4, 400, 4):
        controller.observe(16, 16)
        p = controller.step(p, step, batch=16)
    assert p == 0.5 and controller.r_t == 1.0
    controller.observe(-16, 16)
    assert controller.step(p, 400, batch=16) == pytest.approx(0.5 - 16 * 4 / 1000)


# ---- config ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_steps(preset, images):
    config = TrainConfig(data="x", out="y", resolution=32, preset=preset).resolve()
    assert config.batch and config.gamma and config.lr and config.kimg and config.channel_base
    small = config.replace(resolution=16, batch=4, channel_base=128, channel_max=8, z_dim=8, w_dim=8, metric_images=0)
    trainer = Trainer(small, images)
    stats = trainer.step()
    assert trainer.nimg == 4 and all(map(lambda value: value == value, stats.values()))


def test_auto_is_the_published_formula():
    config = TrainConfig(data="x", out="y", resolution=64).resolve()
    assert (config.batch, config.channel_base, config.lr) == (32, 16384, 0.0025)
    assert config.gamma == pytest.approx(0.0256)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_wrong_settings_are_named():
    for wrong, word in (({"resolution": 48}, "power of two"), ({"batch": -1}, "batch"), ({"data": ""}, "data"),
                        ({"preset": "best"}, "preset")):  # fmt: skip
        with pytest.raises(RequestError, match=word):
            _config(**wrong)
    with pytest.raises(RequestError, match="speed"):
        TrainConfig.from_dict({"data": "x", "out": "y", "speed": 11})


# ---- trainer ---------------------------------------------------------------------------------------------------------


def test_discriminator_learns_and_averages_follow(images):
    trainer = Trainer(_config(augment="none"), images)
    start = trainer.averages[0].generator.synthesis.b4.const.clone()
    losses = [trainer.step()["loss_d"] for _ in range(40)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert not torch.equal(trainer.averages[0].generator.synthesis.b4.const, start)
    assert trainer.generator.w_avg.abs().max() > 0


def test_resume_equals_the_uninterrupted_run_bit_for_bit(images, tmp_path):
    config = _config(ada_kimg=1.0, r1_interval=2, pl_weight=2.0, pl_interval=3)
    whole, path = Trainer(config, images), tmp_path / "000000020.safetensors"
    for step in range(12):
        if step == 5:
            whole.save(path)
        whole.step()
    resumed = Trainer(config, images)
    resumed.load(path)
    for _ in range(7):
        resumed.step()
    assert resumed.augment.p == whole.augment.p > 0
    assert resumed.sampler.position == whole.sampler.position
    assert torch.equal(_numbers(whole), _numbers(resumed))


def test_parts_of_a_batch_side_by_side_give_what_the_whole_gives(images, tmp_path):
    config = _config(batch=16, ada_kimg=1.0, r1_interval=2, pl_weight=2.0, pl_interval=3)
    before = torch.get_num_threads()
    trainers, path = [], tmp_path / "000000048.safetensors"
    try:
        for threads in (1, 2, 2, 2):
            torch.set_num_threads(threads)
            trainers.append(Trainer(config, images))
        whole, parts, again, resumed = trainers
        assert [trainer.workers.num for trainer in trainers] == [1, 2, 2, 2]
        for step in range(5):
            if step == 3:
                parts.save(path)
                resumed.load(path)
            stats = [trainer.step() for trainer in trainers[:3]]
            if not step:  # later steps drift apart as Adam takes the sign of the smallest gradients
                for name, value in stats[0].items():
                    assert stats[1][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        for _ in range(2):
            resumed.step()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(_numbers(parts), _numbers(again)) and torch.equal(_numbers(parts), _numbers(resumed))
    assert whole.augment.p == parts.augment.p > 0
    torch.testing.assert_close(_numbers(whole), _numbers(parts), rtol=0, atol=0.05)


def test_parts_hold_whole_groups_and_enough_pictures():
    assert [num_workers(16, 4, threads) for threads in (1, 2, 3, 8)] == [1, 2, 2, 2]
    assert [num_workers(32, 4, threads) for threads in (2, 3, 4, 64)] == [2, 2, 4, 4]
    assert num_workers(8, 4, 2) == num_workers(4, 4, 16) == num_workers(24, 5, 2) == 1


def test_what_goes_wrong_in_a_part_is_raised_by_the_step(images, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trainer = Trainer(_config(batch=16), images)
        monkeypatch.setattr(Trainer, "_judge", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trainer.step()
    finally:
        torch.set_num_threads(before)


def test_conditional_training_uses_the_labels(images):
    trainer = Trainer(_config(conditional=True), images)
    trainer.step()
    assert trainer.num_classes == images.num_classes > 1
    assert trainer.averages[0].generator.config.num_classes == trainer.num_classes


def test_nans_are_counted_and_end_the_run(images):
    trainer = Trainer(_config(), images)
    trainer.steps = 1  # no R1, which looks at reals only and would still be finite
    with torch.no_grad():
        trainer.generator.synthesis.b4.const.fill_(float("nan"))
    before = trainer.discriminator.b4.out.weight.clone()
    trainer.step()
    assert trainer.nans >= 2 and torch.equal(trainer.discriminator.b4.out.weight, before)
    with pytest.raises(TrainingError, match="diverged"):
        for _ in range(MOST_BAD_STEPS):
            trainer.step()


def test_transfer_takes_what_fits(images, tmp_path):
    first = Trainer(_config(), images)
    first.step()
    first.save(tmp_path / "run" / "state" / "000000004.safetensors")
    second = Trainer(_config(seed=5), images)
    assert not torch.equal(_numbers(first), _numbers(second))
    assert "Both networks" in second.transfer(tmp_path / "run")
    assert torch.equal(_numbers(first), _numbers(second))
    with pytest.raises(TrainingError, match="not saved any state"):
        second.transfer(tmp_path)


# ---- loop ------------------------------------------------------------------------------------------------------------


def test_a_run_fills_its_folder_and_the_same_call_resumes(tmp_path):
    config = TrainConfig(**{**TINY, "out": str(tmp_path / "run"), "kimg": 0.04, "metric_images": 16})
    run = loop.train(config, echo=lambda line: None)
    assert run.state() == "done" and run.status()["nimg"] == 40
    kinds = [event["kind"] for event in run.events()[0]]
    assert {"config", "tick", "sample", "snapshot", "metric", "end"} <= set(kinds)
    assert run.samples()[0][0] == 0 and run.reals_path.exists()
    nimg, path = run.snapshots()[-1]
    assert nimg == 40 and load_generator(path).resolution == 16
    run = loop.train(config.replace(kimg=0.06), echo=lambda line: None)
    assert run.status()["nimg"] == 60 and run.snapshots()[-1][0] == 60
    with pytest.raises(RequestError, match="batch"):
        loop.train(config.replace(batch=8), echo=lambda line: None)


def test_a_stop_request_saves_and_ends(tmp_path, images):
    config = TrainConfig(**{**TINY, "out": str(tmp_path / "run"), "kimg": 1000})
    run = TrainingRun(config.out)
    lines = []

    def stop_soon(line):
        lines.append(line)
        run.ask_stop()

    loop.train(config, echo=stop_soon)
    assert run.state() == "stopped" and run.snapshots() and list((run.path / "state").glob("*.safetensors"))


def test_bad_data_is_one_sentence_and_the_run_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Exception, match="no pictures|No|no image") as caught:
        loop.train(TrainConfig(**{**TINY, "data": str(tmp_path / "empty"), "out": str(tmp_path / "run")}))
    run = TrainingRun(tmp_path / "run")
    assert run.state() == "failed" and str(caught.value) in run.reason()


def wait_until_running(run: TrainingRun) -> None:
    """Wait until a run in another process takes its first step, a minute at most."""
    for _ in range(600):
        if run.status().get("state") == "running":
            return
        time.sleep(0.1)
    raise AssertionError(f"the run never began: {run.status()}")


def test_terminating_the_command_saves_and_ends_within_seconds(tmp_path, repo):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    command = [sys.executable, "-m", "stylegan", "train", *flags, f"--out={tmp_path / 'run'}", "--kimg=1000"]
    process = subprocess.Popen(command, cwd=repo, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    run = TrainingRun(tmp_path / "run")
    try:
        wait_until_running(run)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
    assert run.state() == "stopped" and run.snapshots()


@pytest.mark.parametrize("hold", [False, True])
def test_a_closed_terminal_saves_and_ends_the_run_unless_it_was_started_with_nohup(tmp_path, repo, hold):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    command = [sys.executable, "-m", "stylegan", "train", *flags, f"--out={tmp_path / 'run'}", "--kimg=1000"]
    process = subprocess.Popen(["nohup", *command] if hold else command, cwd=repo, stdout=subprocess.PIPE,
                               env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))  # whatever tests run in
    run = TrainingRun(tmp_path / "run")
    try:
        wait_until_running(run)
        process.stdout.close()  # from now on printing fails
        process.send_signal(signal.SIGHUP)
        if hold:
            reached = run.status()["nimg"]
            for _ in range(300):
                if run.status()["nimg"] > reached:
                    break
                time.sleep(0.1)
            assert process.poll() is None and run.status()["nimg"] > reached
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        process.kill()
    assert run.state() == "stopped" and run.snapshots() and run.reason() == ""


def test_the_command_line_names_what_is_wrong(repo):
    command = [sys.executable, "-m", "stylegan", "train", "--data", "nowhere.zip", "--out", "x/y", "--resolution", "50"]
    result = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert result.returncode == 2 and "power of two" in result.stderr and result.stderr.count("\n") == 1


def test_transfer_from_nvidias_snapshot_takes_both_networks(tmp_path):
    path = Path(__file__).parent / "fixtures" / "nvidia" / "sg2ada_8_tiny.pkl"
    (config, judge), shape = convert_discriminator(path), load_generator(path).config
    settings = _config(resolution=8, z_dim=shape.z_dim, w_dim=shape.w_dim, channel_base=config.channel_base,
                       channel_max=config.channel_max, mapping_layers=shape.mapping_layers)  # fmt: skip
    trainer = Trainer(settings, open_images(sample_sets()["cartoon-sample-64"], 8))
    assert "continues too" in trainer.transfer(path)
    assert all(torch.equal(value, judge[name]) for name, value in trainer.discriminator.state_dict().items())
    assert torch.equal(trainer.generator.synthesis.b4.const, load_generator(path).synthesis.b4.const)
