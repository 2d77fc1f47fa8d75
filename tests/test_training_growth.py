"""Progressive growing (arXiv 1710.10196 section 2): the plan, the fades, exact resume at any moment, its snapshots."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_training_distributed import WORKER, environment, made_by_one_and_two
from test_training_kills import HARNESS, TINY, tensors_of

from stylegan.checkpoint.file import load_generator, read_checkpoint
from stylegan.data.images import open_images, sample_sets
from stylegan.errors import CheckpointError, RequestError, TrainingError
from stylegan.networks.config import DiscriminatorConfig, GeneratorConfig
from stylegan.networks.discriminator import Discriminator
from stylegan.networks.generator import build_generator
from stylegan.pixels import to_pixels
from stylegan.render import Renderer
from stylegan.request import RenderRequest
from stylegan.seeds import z_of_seeds
from stylegan.training.config import TrainConfig
from stylegan.training.continuation import like_source
from stylegan.training.estimate import estimate
from stylegan.training.growth import Stage, enlarged, reduced, stage_at, stages
from stylegan.training.loop import train
from stylegan.training.record import Record
from stylegan.training.run import TrainingRun
from stylegan.training.trainer import Trainer
from stylegan.training.verdict import verdict
from stylegan.ui.run_view import growth_fact

BATCH, STEP = 4, 0.008  # thousand images of a stage: two steps
MOMENTS = [(8, 1), (8, 1), (16, 0), (16, 0.5), (16, 1), (16, 1), (32, 0), (32, 0.5), (32, 1), (32, 1)]  # and alpha


@pytest.fixture(scope="module")
def images():
    """The shipped sample at 32 px."""
    return open_images(sample_sets()["cartoon-sample-64"], 32)


def settings(**changes) -> TrainConfig:
    small = {"data": "cartoon-sample-64", "out": "y", "resolution": 32, "preset": "stylegan1", "grow_kimg": STEP,
             "batch": BATCH, "channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2,
             "device": "cpu", "metric_images": 0, "kimg": 1.0}  # fmt: skip
    return TrainConfig(**{**small, **changes})


def numbers(trainer: Trainer) -> torch.Tensor:
    states = [network.state_dict() for network in trainer.networks().values()]
    return torch.cat([value.detach().double().flatten() for state in states for value in state.values()])


def pictures(generator, seed: int = 0) -> torch.Tensor:
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    return generator.synthesize(generator.map(z))


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_by_hand():
    plan = [(s.resolution, s.fades, s.start, s.end) for s in stages(32, 2.0)]
    assert plan == [(8, False, 0, 2000), (16, True, 2000, 4000), (16, False, 4000, 6000), (32, True, 6000, 8000),
                    (32, False, 8000, float("inf"))]  # fmt: skip
    assert stages(64, 0.0) == [Stage(64)] and stages(8, 2.0) == [Stage(8)]
    for nimg in range(0, 9000, 250):
        found = [s for s in stages(32, 2.0) if s.start <= nimg < s.end]
        assert found == [stage_at(32, 2.0, nimg)]
    fading = stage_at(32, 2.0, 6800)
    assert fading.fade(6800) == pytest.approx(0.6) and fading.words(6800) == "16 -> 32 px, 40 %"
    assert stage_at(32, 2.0, 1000).words(1000) == "8 px, 50 %" and stage_at(32, 2.0, 9000).words(9000) == "32 px"


def test_what_cannot_grow_is_one_sentence(tmp_path):
    with pytest.raises(RequestError, match="Only stylegan1 grows, not stylegan2"):
        settings(preset="auto").resolve()
    with pytest.raises(RequestError, match="takes 0.032 kimg"):
        settings(kimg=0.02).resolve()
    with pytest.raises(RequestError, match="longer than grow_kimg"):
        settings(grow_kimg=0.001).resolve()
    with pytest.raises(RequestError, match="begins with networks of 8 px"):
        settings(transfer=str(tmp_path)).resolve()
    assert settings(grow_kimg=0.0).resolve().grow_kimg == 0 and settings(resolution=8).resolve()


def test_real_pictures_fade_as_the_fakes_do():
    images = torch.randn(2, 3, 32, 32)
    half, quarter = F.avg_pool2d(images, 2), F.avg_pool2d(images, 4)
    torch.testing.assert_close(reduced(images, Stage(16), 5), half)
    faded = reduced(images, Stage(16, True, 0.0, 100.0), 25)
    torch.testing.assert_close(faded, 0.25 * half + 0.75 * F.interpolate(quarter, scale_factor=2, mode="nearest"))
    assert reduced(images, Stage(32), 5) is images and enlarged(images, 32) is images
    torch.testing.assert_close(enlarged(quarter, 32), F.interpolate(quarter, scale_factor=4, mode="nearest"))


# ---- the networks ----------------------------------------------------------------------------------------------------


def taken(small, large):
    """`large` with every tensor that `small` has."""
    own = large.state_dict()
    large.load_state_dict({name: small.state_dict().get(name, value) for name, value in own.items()})
    return large


def test_a_generator_that_fades_stands_between_two_resolutions():
    shape = {"family": "stylegan1", "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 6}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        half = build_generator(GeneratorConfig(resolution=8, **shape))
        fading = taken(half, build_generator(GeneratorConfig(resolution=16, fade=1.0, **shape)))
    whole = build_generator(GeneratorConfig(resolution=16, **shape))
    whole.load_state_dict({name: fading.state_dict()[name] for name in whole.state_dict()})
    before = F.interpolate(pictures(half), scale_factor=2, mode="nearest")
    torch.testing.assert_close(pictures(fading), before, rtol=0, atol=0)
    fading.synthesis.fade = 0.25
    torch.testing.assert_close(pictures(fading), 0.25 * before + 0.75 * pictures(whole))
    assert [piece.has_image for piece in fading.synthesis.pieces()] == [False, True, True]


def test_a_discriminator_that_fades_stands_between_two_resolutions():
    shape = {"channel_base": 64, "channel_max": 6, "mbstd_group": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        half = Discriminator(DiscriminatorConfig(resolution=8, **shape))
        fading = taken(half, Discriminator(DiscriminatorConfig(resolution=16, fades=True, **shape)))
        whole = Discriminator(DiscriminatorConfig(resolution=16, **shape))
        images = torch.randn(4, 3, 16, 16)
    whole.load_state_dict({name: fading.state_dict()[name] for name in whole.state_dict()})
    torch.testing.assert_close(fading(images), half(F.avg_pool2d(images, 2)))
    fading.fade = 0.0
    torch.testing.assert_close(fading(images), whole(images))
    fading.fade = 0.5
    assert not torch.allclose(fading(images), whole(images), atol=1e-4)


def test_only_the_file_of_a_growing_network_speaks_of_fading():
    config = GeneratorConfig(family="stylegan1", resolution=16)
    assert "fade" not in config.to_json() and GeneratorConfig.from_json(config.to_json()) == config
    growing = GeneratorConfig(family="stylegan1", resolution=16, fade=1 / 3)
    assert json.loads(growing.to_json())["fade"] == 1 / 3 and GeneratorConfig.from_json(growing.to_json()) == growing
    for wrong in ({"family": "stylegan2", "fade": 0.5}, {"family": "stylegan1", "fade": 1.5},
                  {"family": "stylegan1", "fade": -1.0}, {"family": "stylegan1", "resolution": 4, "fade": 0.5}):
        with pytest.raises(CheckpointError, match="fades"):
            GeneratorConfig(**wrong)


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_run_grows_step_by_step_and_resumes_exactly_at_any_moment(images, tmp_path):
    config = settings(mixing=1.0, augment="ada", ada_kimg=1.0).resolve()
    trainer = Trainer(config, images)
    for place, (resolution, alpha) in enumerate(MOMENTS):
        generator, state = trainer.generator, tmp_path / f"{place:09d}.safetensors"
        assert (generator.resolution, trainer.discriminator.config.resolution) == (resolution, resolution)
        assert generator.num_ws == 2 * len(generator.config.block_resolutions)
        fades = [getattr(network, "fade", None) for network in (trainer.discriminator, generator.synthesis)]
        assert fades == [1 - alpha] * 2 == [a.generator.synthesis.fade for a in trainer.averages]
        trainer.save(state)
        again = Trainer(config, images)
        again.load(state)
        assert torch.equal(numbers(trainer), numbers(again)) and again.generator.resolution == resolution
        stats = trainer.step()
        assert again.step() == stats and torch.equal(numbers(trainer), numbers(again)), f"after step {place}"
    assert trainer.nans == 0 and trainer.nimg == BATCH * len(MOMENTS)
    assert set(trainer.generator.state_dict()) == set(build_generator(config.generator()).state_dict())


def test_growing_keeps_what_was_learned(images):
    trainer = Trainer(settings().resolve(), images)
    for _ in range(2):
        before = [pictures(average.generator) for average in trainer.averages]
        weights = {name: network.state_dict() for name, network in trainer.networks().items()}
        optimizers = trainer.optimizers
        trainer.step()
    assert trainer.generator.resolution == 16 and trainer.optimizers[0] is not optimizers[0]
    assert not trainer.optimizers[0].state_dict()["state"]
    for name, network in trainer.networks().items():  # `weights` share memory with what the last step has changed
        for key, value in network.state_dict().items():
            if key in weights[name]:
                assert torch.equal(value, weights[name][key]), (name, key)
    for average, old in zip(trainer.averages, before, strict=True):
        new = pictures(average.generator)
        assert new.shape[-1] == 16 and torch.equal(new, enlarged(F.avg_pool2d(new, 2), 16))
        assert (F.avg_pool2d(new, 2) - old).abs().max() < 0.5  # one step away
    names = set(trainer.generator.state_dict())
    assert {"synthesis.b8.torgb.weight", "synthesis.b16.torgb.weight"} <= names


@pytest.mark.parametrize("num_steps", [1, 3, 8])
def test_a_growing_batch_in_parts_is_the_batch(images, num_steps):
    found = []
    for accumulate in (1, 2):
        config = settings(batch=8, grow_kimg=2 * STEP, mbstd_group=2, accumulate=accumulate).resolve()
        trainer = Trainer(config, images)
        trainer.nimg = 8 * num_steps
        trainer.grow()
        gradients: list[torch.Tensor] = []
        for optimizer in trainer.optimizers:
            optimizer.step = lambda o=optimizer, into=gradients: into.append(
                torch.cat([p.grad.flatten() for p in o.param_groups[0]["params"] if p.grad is not None]))
        trainer.step()
        found.append(gradients)
    for whole, parts in zip(*found, strict=True):
        assert float((whole - parts).norm() / whole.norm()) < 1e-4


def test_a_growing_run_ends_with_models_that_the_app_opens(images, tmp_path):
    out = tmp_path / "grown"
    config = settings(out=str(out), metric_images=16).resolve()
    said: list[str] = []
    trainer = Trainer(config, images)
    while trainer.nimg < 28:
        trainer.step()
    assert trainer.generator.synthesis.fade == 0.5
    record = Record(TrainingRun.create(out, config.to_dict()), trainer, images, None, said.append)
    record.begin()
    record.snapshot()
    record.run.finish("stopped", 28)
    (seen, path), = record.run.snapshots()
    checkpoint = read_checkpoint(path)
    assert seen == 28 and (checkpoint.config.resolution, checkpoint.config.fade) == (32, 0.5)
    best = checkpoint.provenance["ema_half_life_kimg"]
    average = next(a for a in trainer.averages if a.half_life / 1000 == best)
    torch.testing.assert_close(pictures(load_generator(path)), pictures(average.generator), atol=1e-5, rtol=1e-5)
    z = torch.from_numpy(z_of_seeds([3], average.generator.z_dim))
    image = average.generator.synthesize(average.generator.map(z))
    drawn = Renderer(path.parent).render(RenderRequest(model=path.stem, seed=3)).pixels  # by the quick engine
    assert np.abs(drawn.astype(int) - to_pixels(image)[0].astype(int)).max() <= 1
    judged = {str(event.get("name")).partition("-")[0] for event in record.run.events()[0]}
    assert {"KID", "recall", "AuthPct"} <= judged
    Record(record.run, Trainer(config, images), images, None, said.append).sample()
    sizes = {Image.open(sheet).size for _, sheet in record.run.samples()}
    assert len(record.run.samples()) == 2 and len(sizes) == 1  # the sheet keeps its size


def test_the_loop_grows_and_the_same_command_resumes(tmp_path):
    out = tmp_path / "run"
    train(settings(out=str(out), resolution=16, kimg=0.02), echo=lambda line: None)
    said: list[str] = []
    run = train(settings(out=str(out), resolution=16, kimg=0.032, grow_kimg=0.0), echo=said.append)
    assert run.state() == "done" and run.status()["nimg"] == 32 and any("resumed at" in line for line in said)
    assert run.config()["grow_kimg"] == STEP  # left open, it stays what it was
    at_once = train(settings(out=str(tmp_path / "other"), resolution=16, kimg=0.032, schedule="constant"),
                    echo=lambda line: None)  # fmt: skip
    assert read_checkpoint(at_once.snapshots()[-1][1]).config == read_checkpoint(run.snapshots()[-1][1]).config
    with pytest.raises(RequestError, match="grow_kimg"):
        train(settings(out=str(out), resolution=16, kimg=0.05, grow_kimg=0.01), echo=lambda line: None)


def test_a_branch_waits_for_the_last_resolution(tmp_path, images):
    out = tmp_path / "run"
    config = settings(out=str(out), resolution=16)
    run = TrainingRun.create(out, config.resolve().to_dict())
    trainer = Trainer(config.resolve(), open_images(sample_sets()["cartoon-sample-64"], 16))
    for nimg in (12, 24):
        while trainer.nimg < nimg:
            trainer.step()
        trainer.save(out / "state" / f"{nimg:09d}.safetensors")
        run.snapshot_path(nimg).touch()
    run.finish("stopped", 24)
    branch = TrainConfig.from_dict({**config.to_dict(), "out": "z", "transfer": str(run.snapshot_path(24))})
    resolved = like_source(branch).resolve()
    assert resolved.grow_kimg == 0
    pupil = Trainer(resolved, trainer.images)
    assert "Everything continues" in pupil.transfer(run.snapshot_path(24))
    assert torch.equal(numbers(pupil), numbers(trainer))
    early = TrainConfig.from_dict({**config.to_dict(), "out": "z", "transfer": str(run.snapshot_path(12))})
    with pytest.raises(TrainingError, match="8 -> 16 px, 50 %"):
        like_source(early)


def test_two_ranks_are_one_while_a_resolution_fades_in(repo, tmp_path):
    worker = WORKER.replace("conditional=True", 'preset="stylegan1", grow_kimg=0.032')
    worker = worker.replace("trainer.augment.p = 0.5", "trainer.nimg = 32; trainer.grow()")  # 4 steps to its end
    assert worker.count("grow") == 2
    one, two = made_by_one_and_two(repo, tmp_path, worker)
    assert len(one["gradients"]) == len(two["gradients"]) == 12
    for whole, parts in zip(one["gradients"], two["gradients"], strict=True):
        assert float((whole - parts).norm() / whole.norm()) < 1e-4
    torch.testing.assert_close(two["w_avg"], one["w_avg"])


def test_kill_9_at_any_moment_of_growing_changes_no_bit(repo, tmp_path):
    growing = {**TINY, "resolution": 16, "preset": "stylegan1", "grow_kimg": 0.08}
    harness = HARNESS.replace("(reached + 40)", "(max(reached, 160) + 40)")
    command = [sys.executable, "-c", harness, str(tmp_path / "run"), "4", json.dumps(growing)]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=900, env=environment(repo))
    assert done.returncode == 0, done.stderr[-2000:]
    killed, whole = tensors_of(tmp_path / "run"), tensors_of(tmp_path / "run-whole")
    assert killed.keys() == whole.keys() and "generator.synthesis.b16.torgb.weight" in whole
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []


# ---- what is said of it ----------------------------------------------------------------------------------------------


def test_an_estimate_adds_up_what_the_stages_take():
    shape = {"preset": "stylegan1", "grow_kimg": 10.0, "device": "cpu"}
    found = estimate(settings(**{**shape, "kimg": 60.0}).resolve(), rate=10.0)
    sizes, speeds = zip(*[(stage.sizes, speed) for stage, speed in found.steps], strict=True)
    assert sizes == ("8", "8 -> 16", "16", "16 -> 32", "32") and found.kimg == 60
    assert speeds[0] > speeds[2] > speeds[4] > speeds[3]  # a fade costs a little more than what it leads to
    assert 3600 * found.hours == pytest.approx(sum(10_000 / s for s in speeds[:4]) + 20_000 / speeds[4])
    assert found.images_per_second == pytest.approx(60_000 / (3600 * found.hours))
    assert "from 30 kimg 16 -> 32 px" in found.to_text()
    short = estimate(settings(**{**shape, "kimg": 0.0, "minutes": 15_000 / speeds[0] / 60}).resolve(), rate=10.0)
    assert short.kimg == pytest.approx(10 + 5 * speeds[1] / speeds[0])
    fixed = estimate(settings(**{**shape, "grow_kimg": 0.0, "kimg": 60.0}).resolve(), rate=10.0)
    assert fixed.images_per_second == pytest.approx(speeds[4]) and "grows" not in fixed.to_text()


def test_a_growing_run_is_neither_plateau_nor_collapse():
    config = {"resolution": 64, "grow_kimg": 20.0, "batch": 16, "schedule": "constant"}
    ticks = [{"nimg": 1000 * i, "p": 0.0, "loss_g": 1.0} for i in range(1, 120)]
    metrics = [{"nimg": 5000 * i, "name": "KID-r64-v1", "value": 0.4, "std": 0.01} for i in range(1, 24)]
    metrics += [{"nimg": 5000 * i, "name": "diversity-r64-v1", "value": 0.1} for i in range(1, 24)]
    found = verdict(ticks, metrics, config)
    assert found.name == "growing" and "32 -> 64 px, 95 %" in found.reason
    assert verdict(ticks, metrics, {**config, "grow_kimg": 0.0}).name == "collapsing"
    lost = [{**tick, "loss_g": None} for tick in ticks]
    assert verdict(lost, metrics, config).name == "diverged"
    grown = [*ticks, {"nimg": 121_000, "p": 0.0, "loss_g": 1.0}]
    assert verdict(grown, metrics, config).name == "warming up"  # what smaller pictures scored counts no more
    assert growth_fact(config, 119_000)[0][:2] == ["growing", "32 -> 64 px, 95 %"]
    assert growth_fact(config, 121_000) == [] == growth_fact({}, 5)
