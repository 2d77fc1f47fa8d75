"""Presets and settings: every preset trains, what was given is never overridden, the same picture in any division."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.data.images import open_images, sample_sets
from stylegan.errors import RequestError, TrainingError
from stylegan.networks.layers import dtype_at
from stylegan.ops.modulated_conv import modulated_conv
from stylegan.training.config import CHOOSABLE, TrainConfig, require_same_run
from stylegan.training.distributed import Ranks
from stylegan.training.presets import PRESETS
from stylegan.training.schedule import moment
from stylegan.training.trainer import Trainer

SMALL = {"channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "device": "cpu", "metric_images": 0}


@pytest.fixture(scope="module")
def images():
    """The shipped sample at 32 px."""
    return open_images(sample_sets()["cartoon-sample-64"], 32)


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"data": "x", "out": "y", "resolution": 32, **SMALL, **changes}).resolve()


def numbers(trainer: Trainer) -> torch.Tensor:
    states = [network.state_dict() for network in trainer.networks().values()]
    return torch.cat([value.detach().double().flatten() for state in states for value in state.values()])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_starts_and_steps_at_32_px(preset, images, tmp_path):
    config = settings(preset=preset, batch=4, mbstd_group=min(PRESETS[preset].get("mbstd_group", 4), 4))
    trainer = Trainer(config, images)
    before = trainer.averages[1].generator.state_dict()["mapping.fc0.weight"].clone()
    trainer.augment.p = min(0.4, config.ada_cap)
    stats = trainer.step()  # the first step has all lazy phases
    assert {"loss_g", "loss_d", "r1"} <= set(stats)
    assert ("r2" in stats, "path_length" in stats) == (config.r2, config.pl_weight > 0)
    stats |= trainer.step()
    assert trainer.nimg == 8 and trainer.nans == 0 and all(value == value for value in stats.values())
    assert not torch.equal(trainer.generator.mapping.fc0.weight, before)
    trainer.save(tmp_path / "000000008.safetensors")
    again = Trainer(config, images)
    again.load(tmp_path / "000000008.safetensors")
    trainer.step(), again.step()
    assert torch.equal(numbers(trainer), numbers(again))


def test_presets_mean_what_they_are_called():
    assert settings(preset="stylegan1").generator().family == "stylegan1"
    assert settings(preset="stylegan3-t").generator().layers[0].kernel == 3
    radial = settings(preset="stylegan3-r").generator().layers
    assert radial[0].kernel == 1 and any(layer.radial for layer in radial)
    r3gan = settings(preset="r3gan")
    assert (r3gan.loss, r3gan.r2, r3gan.r1_interval, r3gan.schedule) == ("relativistic", True, 1, "cosine")
    few = settings(preset="few-shot", resolution=256)
    assert (few.augment, few.gamma) == ("diffaugment", 10.0) and settings(preset="few-shot", resolution=64).gamma < 1
    assert settings(preset="transfer").freeze_d == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_given_value_is_never_overridden_by_a_preset(preset):
    usual, named = settings(), PRESETS[preset]
    for name in set(named) & CHOOSABLE - set(SMALL):
        given = getattr(usual, name)  # the very value that an untold run would have
        assert getattr(settings(preset=preset, **{name: given}), name) == given
        assert getattr(settings(preset=preset), name) == named[name]


def test_without_a_gpu_a_preset_without_widths_is_slim():
    open_widths = TrainConfig(data="x", out="y", preset="few-shot")
    assert open_widths.resolve(has_gpu=False).channel_base == PRESETS["slim"]["channel_base"]
    assert open_widths.resolve(has_gpu=True).channel_base == 16384
    assert TrainConfig(data="x", out="y", preset="paper256").resolve(has_gpu=False).channel_base == 16384


def test_many_ranks_compare_as_many_pictures_as_each_has():
    asked = TrainConfig(data="x", out="y", resolution=256)
    assert [asked.resolve(ranks=ranks).mbstd_group for ranks in (1, 8, 32, 64)] == [4, 4, 2, 1]
    assert asked.replace(mbstd_group=4).resolve(ranks=64).mbstd_group == 4


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 6, 7, 16, 64])
@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("resolution", [64, 1024])
def test_a_batch_that_is_chosen_can_be_divided(ranks, has_gpu, resolution):
    for preset, accumulate in (("auto", 1), ("slim", 1), ("few-shot", 1), ("auto", 2)):
        asked = TrainConfig(data="x", out="y", resolution=resolution, preset=preset, accumulate=accumulate)
        config = asked.resolve(has_gpu, ranks)
        if accumulate == 1 or config.batch % (2 * ranks) == 0:
            assert config.batch % (ranks * accumulate) == 0
            assert config.batch // (ranks * accumulate) % config.mbstd_group == 0


# ---- precision -------------------------------------------------------------------------------------------------------


# Largest errors seen, over three seeds and processors with AVX2, AVX-512 and its bf16 and fp16: 0.12 and 0.022.
@pytest.mark.parametrize("precision, error", [("bf16", 0.2), ("fp16", 0.05)])
def test_half_precision_is_used_where_asked_and_leads_the_same_way(precision, error, images):
    gradients, kinds = [], set()
    config = settings(batch=4, r1_interval=1, pl_weight=2.0, pl_interval=1)
    for kind in ("fp32", precision):
        trainer = lively(Trainer(config.replace(precision=kind), images))
        gradients.append(watched(trainer))
        trainer.discriminator.b16.conv0.register_forward_hook(lambda layer, x, y: kinds.add(y.dtype))
        trainer.step()
    assert kinds == {torch.float32, trainer.dtype}
    assert trainer.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    for exact, rough in zip(*gradients, strict=True):
        assert 0 < float((exact - rough).norm() / exact.norm()) < error


def test_fp16_stays_in_range():
    assert settings(precision="fp16").conv_clamp == 256 and settings(precision="fp16", conv_clamp=10.0).conv_clamp == 10
    with pytest.raises(RequestError, match="leaves the range of fp16"):
        settings(precision="fp16", preset="stylegan1")
    kinds = [dtype_at(torch.float16, size, 256) for size in (8, 16, 32, 64, 128, 256)]
    assert kinds == 2 * [torch.float32] + 4 * [torch.float16] and dtype_at(torch.bfloat16, 8, 256) == torch.bfloat16
    x, weight = 200 * torch.randn(2, 64, 8, 8), 5 * torch.randn(8, 64, 3, 3)
    styles = 100 * torch.randn(2, 64)
    exact, half = modulated_conv(x, weight, styles), modulated_conv(x.half(), weight, styles)
    assert half.dtype == torch.float16 and float((exact - half.float()).norm() / exact.norm()) < 0.01


def test_a_resumed_run_keeps_what_the_command_leaves_open():
    old = settings(batch=12, mbstd_group=2, kimg=7.0)
    again = TrainConfig(data="x", out="y", resolution=32, **SMALL).inherit(old).resolve()
    require_same_run(old, again)
    assert again == old
    slower = TrainConfig(data="x", out="y", resolution=32, **SMALL, lr=old.lr / 2).inherit(old).resolve()
    assert slower.lr_discriminator == old.lr_discriminator / 2
    with pytest.raises(RequestError, match="batch 12, not 16"):
        require_same_run(old, TrainConfig(data="x", out="y", resolution=32, **SMALL, batch=16).inherit(old).resolve())


def test_a_run_of_the_version_before_is_understood():
    old = {"data": "x", "out": "y", "resolution": 64, "preset": "slim", "batch": 16, "gamma": 0.05, "lr": 0.0025,
           "lr_decay": True, "ada": False, "ada_kimg": 50.0, "mixing": 0.9, "kimg": 0.0, "minutes": 60.0}  # fmt: skip
    config = TrainConfig.from_dict(old).resolve(has_gpu=False)
    assert (config.schedule, config.augment, config.holdout, config.ada_kimg) == ("tail", "none", 0.0, 50.0)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_schedules_by_hand():
    tail, cosine = settings(schedule="tail"), settings(schedule="cosine")
    assert moment(tail, 0.5).lr == 1 and moment(tail, 1.0).lr == pytest.approx(0.2)
    assert moment(settings(schedule="constant"), 1.0) == moment(tail, 0.0)
    start, half, end = (moment(cosine, share) for share in (0.0, 0.5, 1.0))
    assert start == (1.0, 1.0, pytest.approx(0.9), 0.0, 0.0)
    assert half.lr == pytest.approx(0.625) and half.p == pytest.approx(0.5)
    assert end == (pytest.approx(0.25), pytest.approx(0.1), pytest.approx(0.99), 1.0, 1.0)


# ---- a batch in parts ------------------------------------------------------------------------------------------------


def lively(trainer: Trainer) -> Trainer:
    """Noise that matters and augmentation that happens."""
    trainer.augment.p = 0.5
    with torch.no_grad():
        for name, value in trainer.generator.named_parameters():
            if name.endswith(("noise_strength", "noise_weight")):
                value.fill_(0.3)
    return trainer


def watched(trainer: Trainer) -> list[torch.Tensor]:
    """The gradients of every update to come, in place of the updates."""
    gradients: list[torch.Tensor] = []
    for optimizer in trainer.optimizers:
        optimizer.step = lambda o=optimizer: gradients.append(
            torch.cat([p.grad.flatten() for g in o.param_groups for p in g["params"] if p.grad is not None]))
    return gradients


@pytest.mark.parametrize("preset", ["auto", "r3gan", "stylegan3-t", "stylegan1"])
def test_a_batch_in_parts_is_the_batch(preset, images):
    config = settings(preset=preset, batch=8, mbstd_group=2, r1_interval=1, conditional=True, ada_kimg=1.0,
                      augment="ada", **({"pl_weight": 2.0, "pl_interval": 1} if preset == "auto" else {}))  # fmt: skip
    found = []
    for accumulate in (1, 2, 4):
        trainer = lively(Trainer(config.replace(accumulate=accumulate), images))
        gradients = watched(trainer)
        trainer.step()
        found.append((gradients, trainer.generator.w_avg.clone(), trainer.controller.signs, trainer.pl_mean))
    for gradients, w_avg, signs, pl_mean in found[1:]:
        assert len(gradients) == len(found[0][0]) >= 2
        for mine, whole in zip(gradients, found[0][0], strict=True):
            assert float((mine - whole).norm() / whole.norm()) < 1e-4
        torch.testing.assert_close(w_avg, found[0][1])
        torch.testing.assert_close(pl_mean, found[0][3], rtol=1e-4, atol=1e-6)
        assert signs == found[0][2]


def test_a_batch_that_cannot_be_divided_is_one_sentence(images):
    with pytest.raises(RequestError, match="cannot be divided into 3"):
        Trainer(settings(batch=8, accumulate=3), images)
    with pytest.raises(RequestError, match="whole groups of 4"):
        Trainer(settings(batch=8, accumulate=4, mbstd_group=4), images)
    with pytest.raises(RequestError, match="cannot be divided"):
        Trainer(settings(batch=8), images, Ranks(0, 3))


# ---- transfer and freezing -------------------------------------------------------------------------------------------


def test_frozen_blocks_stay_and_the_rest_learns(images, tmp_path):
    teacher = Trainer(settings(batch=4), images)
    teacher.step()
    teacher.save(tmp_path / "run" / "state" / "000000004.safetensors")
    pupil = Trainer(settings(batch=4, freeze_d=1, r1_interval=1, seed=3), images)
    assert "1 block of the discriminator as" in pupil.transfer(tmp_path / "run")
    frozen = pupil.discriminator.b32.conv0.weight.clone()
    other = pupil.discriminator.b16.conv0.weight.clone()
    pupil.step()
    assert torch.equal(pupil.discriminator.b32.conv0.weight, frozen)
    assert not torch.equal(pupil.discriminator.b16.conv0.weight, other)
    pupil.save(tmp_path / "state.safetensors")
    again = Trainer(settings(batch=4, freeze_d=1, r1_interval=1, seed=3), images)
    again.load(tmp_path / "state.safetensors")
    assert again.frozen == 1


def test_a_discriminator_that_starts_anew_is_not_frozen(images, tiny_checkpoint):
    pictures = open_images(sample_sets()["cartoon-sample-64"], 16)
    config = settings(resolution=16, batch=4, z_dim=32, w_dim=32, channel_base=256, channel_max=16, freeze_d=2)
    trainer = Trainer(config, pictures)
    assert "starts anew" in trainer.transfer(tiny_checkpoint) and trainer.frozen == 0


def test_a_snapshot_with_its_state_is_branched_from_in_full(images, tmp_path):
    first = Trainer(settings(batch=4, ada_kimg=1.0), images)
    first.augment.p = 0.25
    for _ in range(3):
        first.step()
    run = tmp_path / "run"
    first.save(run / "state" / "000000012.safetensors")
    (run / "snapshots").mkdir()
    (run / "snapshots" / "000000012.safetensors").touch()
    branch = Trainer(settings(batch=4, seed=9), images)
    assert "optimisers included" in branch.transfer(run / "snapshots" / "000000012.safetensors")
    assert torch.equal(numbers(first), numbers(branch)) and branch.augment.p == first.augment.p
    steps = [o.state_dict()["state"][0]["step"] for t in (first, branch) for o in t.optimizers]
    assert steps[:2] == steps[2:] and steps[0] > 0
    assert (branch.nimg, branch.steps, branch.seconds) == (0, 0, 0.0)


def test_transfer_takes_the_widths_of_its_source(tiny_checkpoint):
    from stylegan.training.continuation import like_source

    config = like_source(TrainConfig(data="x", out="y", resolution=16, transfer=str(tiny_checkpoint))).resolve()
    shape = config.generator()
    assert (shape.channel_base, shape.channel_max, shape.z_dim, shape.w_dim) == (256, 16, 32, 32)
    given = TrainConfig(data="x", out="y", resolution=16, transfer=str(tiny_checkpoint), z_dim=64)
    assert like_source(given).z_dim == 64
    with pytest.raises(TrainingError, match="nothing at"):
        like_source(TrainConfig(data="x", out="y", transfer="nowhere.safetensors"))


def test_held_out_logits_change_nothing(images):
    trainer = Trainer(settings(batch=4), images)
    trainer.step()
    before = numbers(trainer).clone()
    assert trainer.logits_of(images, np.arange(8)) == trainer.logits_of(images, np.arange(8))
    assert torch.equal(before, numbers(trainer)) and trainer.sampler.position == 4
