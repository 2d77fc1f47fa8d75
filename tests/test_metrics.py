"""The metrics by closed forms, and by damage: what looks worse must score worse."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, make_tiny
from PIL import Image, ImageFilter

from stylegan.checkpoint.file import Checkpoint, save_checkpoint
from stylegan.cli import metrics as command
from stylegan.data.images import ImageSet, open_images, sample_sets
from stylegan.errors import DataError, RequestError
from stylegan.metrics.evaluate import Meter, evaluate, sampler_of
from stylegan.metrics.features import FeatureExtractor, _calibrated, to_rgb, to_side
from stylegan.metrics.kid import kid, polynomial_kernel
from stylegan.metrics.memorisation import Pairs
from stylegan.metrics.report import MetricReport
from stylegan.metrics.swd import _enlarge, laplacian_pyramid, sliced_distance, swd
from stylegan.pixels import from_pixels

Damage = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor()


@pytest.fixture(scope="module")
def cartoons() -> ImageSet:
    return open_images(sample_sets()["cartoon-sample-64"])


@pytest.fixture(scope="module")
def judge(cartoons: ImageSet) -> Callable[[np.ndarray], float]:
    """KID of some pixels against the sample of cartoons."""
    extractor = FeatureExtractor()
    real = extractor(from_pixels(cartoons.array()))
    return lambda pixels: kid(real, extractor(from_pixels(pixels)))[0]


def blur(radius: float) -> Damage:
    filter = ImageFilter.GaussianBlur(radius)
    return lambda pixels: np.stack([np.asarray(Image.fromarray(one).filter(filter)) for one in pixels])


def noise(deviation: float) -> Damage:
    drawn = np.random.default_rng(0).normal(size=(96, 64, 64, 3))
    return lambda pixels: np.clip(pixels + deviation * drawn[: len(pixels)], 0, 255).astype(np.uint8)


def blocks(factor: int) -> Damage:
    return lambda pixels: pixels[:, ::factor, ::factor].repeat(factor, 1).repeat(factor, 2)


def only(num: int) -> Damage:
    return lambda pixels: pixels[np.arange(len(pixels)) % num]


# KID


def slow_kid(real: np.ndarray, fake: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    n, m = len(real), len(fake)
    within_real = sum(k(real[i], real[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_fake = sum(k(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_real + within_fake - 2 * sum(k(x, y) for x in real for y in fake) / (n * m)


def test_kid_of_everything_equals_a_slow_double_loop() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) + 0.5
    value, spread = kid(torch.from_numpy(real), torch.from_numpy(fake), subset_size=6)
    assert value == pytest.approx(slow_kid(real, fake), abs=1e-12)
    assert spread == pytest.approx(0, abs=1e-12)


def test_kid_by_hand() -> None:
    real, fake = torch.zeros(2, 2).double(), torch.ones(2, 2).double()
    assert polynomial_kernel(real, fake).tolist() == [[1, 1], [1, 1]]
    assert kid(real, fake, subset_size=2)[0] == pytest.approx(1 + 8 - 2)


def test_kid_is_unbiased_whatever_the_number_of_pictures() -> None:
    generator = torch.Generator().manual_seed(0)

    def mean_kid(num: int, shift: float) -> tuple[float, float]:
        draws = [torch.randn(2, num, 8, generator=generator, dtype=torch.float64) for _ in range(200)]
        values = np.array([kid(x[0], x[1] + shift, subset_size=num, num_subsets=1)[0] for x in draws])
        return values.mean(), values.std() / len(values) ** 0.5

    for num in (8, 40):
        same, error = mean_kid(num, 0)
        assert abs(same) < 4 * error
    (few, error_few), (many, error_many) = mean_kid(8, 0.5), mean_kid(40, 0.5)
    assert abs(few - many) < 4 * np.hypot(error_few, error_many) and many > 20 * error_many


def test_kid_of_subsets_centres_on_kid_of_all() -> None:
    generator = torch.Generator().manual_seed(1)
    real, fake = torch.randn(2, 60, 8, generator=generator).double()
    whole, _ = kid(real, fake + 0.3, subset_size=60)
    value, spread = kid(real, fake + 0.3, num_subsets=2000)
    assert spread > 0 and abs(value - whole) < 0.1 * spread
    assert kid(real, fake, seed=3) == kid(real, fake, seed=3)


@pytest.mark.parametrize("counts", [(0, 9), (3, 9), (9, 3)])
def test_kid_of_too_few_is_one_sentence(counts: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"^KID needs at least 4 [^\n]+\.$"):
        kid(torch.zeros(counts[0], 2), torch.zeros(counts[1], 2))


# The extractor


def test_the_same_bits_in_another_process(extractor: FeatureExtractor) -> None:
    code = (
        "import torch, hashlib; from stylegan.metrics.features import FeatureExtractor as E\n"
        "image = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "print(hashlib.sha256(E()(image).numpy().tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    image = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    assert other.stdout.strip() == hashlib.sha256(extractor(image).numpy().tobytes()).hexdigest(), other.stderr


def test_no_seed_from_outside_changes_the_extractor(extractor: FeatureExtractor) -> None:
    image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        before = torch.get_rng_state()
        _calibrated.cache_clear()
        assert (FeatureExtractor()(image) == extractor(image)).all()
        assert (torch.get_rng_state() == before).all()


def test_features_know_nothing_of_batches_and_take_every_size(extractor: FeatureExtractor) -> None:
    image = torch.rand(70, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = extractor(image)
    assert features.shape == (70, extractor.num_features) == (70, 2304) and features.dtype == torch.float32
    assert torch.allclose(features[65:], extractor(image[65:]), atol=1e-4)
    assert extractor(image[:0]).shape == (0, 2304)
    large = image[:2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(extractor(large), features[:2], atol=1e-4)
    for size in (16, 48, 100, (40, 80)):
        assert extractor(F.interpolate(image[:2], size)).isfinite().all()


def test_grey_and_transparent_pictures_are_judged_as_they_look(extractor: FeatureExtractor) -> None:
    grey = torch.linspace(-1, 1, 64 * 64).reshape(1, 1, 64, 64)
    assert (to_rgb(grey) == grey.expand(1, 3, 64, 64)).all()
    clear = torch.cat([grey.expand(1, 3, 64, 64), torch.full_like(grey, -1)], dim=1)
    assert (to_rgb(clear) == 1).all()
    assert torch.allclose(to_rgb(torch.cat([clear[:, :3], torch.ones_like(grey)], dim=1)), to_rgb(grey))
    assert to_side(torch.arange(16.0).reshape(1, 1, 4, 4), 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    with pytest.raises(DataError, match="2 channels"):
        extractor(torch.zeros(1, 2, 64, 64))


# Damage


@pytest.mark.parametrize(
    "damages",
    [
        [blur(0.5), blur(1), blur(2), blur(4)],
        [noise(6), noise(12), noise(24), noise(48)],
        [blocks(2), blocks(4), blocks(8)],
        [only(24), only(6), only(2), only(1)],
    ],
    ids=["blur", "noise", "blocks", "modes"],
)
def test_kid_grows_with_damage(cartoons: ImageSet, judge: Callable[[np.ndarray], float], damages: list[Damage]) -> None:
    values = [judge(cartoons.array())] + [judge(damage(cartoons.array())) for damage in damages]
    assert values == sorted(values) and len(set(values)) == len(values)
    assert values[-1] > 10 * abs(values[0])


def test_kid_sees_a_missing_class(cartoons: ImageSet, judge: Callable[[np.ndarray], float]) -> None:
    pixels, labels = cartoons.array(), cartoons.labels

    def without(*classes: int) -> float:
        left = np.flatnonzero(~np.isin(labels, classes))
        return judge(pixels[np.resize(left, 96)])

    values = [without(), without(1), without(1, 3, 5), without(1, 2, 3, 4)]
    assert min(values) == values[0] and max(values) == values[-1]


def test_the_floor_is_about_zero_and_far_below_other_pictures(cartoons: ImageSet) -> None:
    meter = Meter(cartoons, num=96)
    fruit = open_images(sample_sets()["pomological-sample-64"]).array()
    report = meter.measure(lambda _: [from_pixels(fruit)])[0]
    assert abs(report.details["floor"]) < report.details["floor_spread"] < report.value / 20


# SWD


def test_sliced_distance_of_a_shift_is_its_mean_projection() -> None:
    points = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    assert sliced_distance(points, points[torch.randperm(500)], torch.Generator()) == pytest.approx(0, abs=1e-6)
    shift = torch.zeros(5)
    shift[0] = 2.0
    found = sliced_distance(points, points + shift, torch.Generator().manual_seed(1))
    assert found == pytest.approx(2 * 3 / 8, rel=0.1)  # mean |first coordinate| of a unit vector in 5-D is 3/8


def test_the_pyramid_adds_up_again() -> None:
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = laplacian_pyramid(image, 3)
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    again = levels[2]
    for level in (levels[1], levels[0]):
        again = level + _enlarge(again, level.shape[-1])
    assert torch.allclose(again, image, atol=1e-5)
    flat = laplacian_pyramid(torch.full((1, 1, 64, 64), 5.0), 3)
    assert flat[0].abs().max() < 1e-4 and torch.allclose(flat[2], torch.tensor(5.0), atol=1e-4)


def test_swd_is_zero_for_equal_sets_and_puts_blur_at_the_fine_level(cartoons: ImageSet) -> None:
    pixels = cartoons.array()
    assert set(swd(pixels, pixels, patches_per_image=16)) == {64, 32, 16}
    halves = swd(pixels[:48], pixels[48:], patches_per_image=32)
    slight, strong = (swd(pixels[:48], blur(radius)(pixels[48:]), patches_per_image=32) for radius in (1, 3))
    assert strong[64] > slight[64] > halves[64]
    assert slight[64] - halves[64] > slight[16] - halves[16]
    with pytest.raises(DataError, match="cannot be compared"):
        swd(pixels, pixels[:, ::2, ::2])


# Reports, the network and the command


def test_a_report_reads_well_and_is_json() -> None:
    report = MetricReport("KID-r64-v1", 0.0123456, 0.001, 500, "r64-v1", {"floor": -0.0002, "train": 0.02})
    assert report.to_text() == ("KID-r64-v1         0.012346 +- 0.001  (real against real -0.0002)"
                                "  (against the training set 0.02)  500 images")
    assert json.loads(report.to_json())["details"]["floor"] == -0.0002 and report.better == "lower"


NAMES = ["KID", "diversity", "AuthPct", "precision", "recall", "kinds", "density", "coverage"]


def test_the_meter_takes_batches_stops_in_time_and_repeats_itself(cartoons: ImageSet) -> None:
    meter = Meter(cartoons, num=40)
    asked: list[int] = []

    def generate(num: int) -> Iterator[torch.Tensor]:
        asked.append(num)
        for start in range(0, 96, 16):
            asked.append(start)
            yield from_pixels(cartoons.array()[start : start + 16])

    reports = meter.measure(generate)
    assert asked == [40, 0, 16, 32]
    assert [report.name for report in reports] == [f"{name}-r64-v1" for name in NAMES]
    assert all(report.num_images == 40 and report.extractor == "r64-v1" for report in reports)
    assert [r.better for r in reports] == ["lower", "one", "higher", "higher", "higher", "higher", "one", "higher"]
    assert meter.measure(generate) == reports
    with pytest.raises(DataError, match="not numbers"):
        meter.measure(lambda num: [torch.full((num, 3, 64, 64), float("nan"))])
    with pytest.raises(DataError, match="at least 4"):
        meter.measure(lambda num: [])
    with pytest.raises(DataError, match="at least 8 training pictures, not 3"):
        Meter(cartoons.subset([0, 1, 2]))


def test_the_meter_judges_against_what_is_held_out_when_that_is_enough(cartoons: ImageSet) -> None:
    train, held_out = cartoons.split(0.4)
    fakes = [from_pixels(train.array())]
    found = {report.name.split("-")[0]: report for report in Meter(train, held_out, num=58).measure(lambda _: fakes)}
    for name in NAMES:
        assert found[name].details.get("reference", "held-out") == "held-out"
        assert name == "AuthPct" or {"floor", "train"} <= set(found[name].details)
    for name in ("KID", "precision", "recall", "kinds", "density", "coverage", "diversity"):  # as the floor
        report = found[name]  # KID draws its subsets from another order
        assert report.value == pytest.approx(report.details["floor"], abs=report.spread if name == "KID" else 1e-6)
    assert found["AuthPct"].value == 0 and found["AuthPct"].details["floor"] > 30
    assert found["AuthPct"].details["nearer_to_train"] > 75
    few = cartoons.subset(range(20))
    alone = Meter(train, few, num=58).measure(lambda _: fakes)
    assert alone[0].details["reference"] == "train" and "train" not in alone[0].details


def test_the_pairs_show_the_copies_first(cartoons: ImageSet) -> None:
    train, held_out = cartoons.split(0.4)
    meter = Meter(train, held_out, num=24)
    fakes = held_out.array()[:24].copy()
    fakes[7], fakes[13] = train.array()[30], train.array()[2]
    meter.measure(lambda _: [from_pixels(fakes)])
    pairs = meter.pairs
    assert set(pairs.indices[:2]) == {7, 13} and max(pairs.ratios[:2]) < 0.01 < pairs.ratios[2]
    assert {pairs.names[i] for i in (0, 1)} == {train.names[30], train.names[2]}
    assert (pairs.fakes[:2] == pairs.nearest[:2]).all() and list(pairs.ratios) == sorted(pairs.ratios)
    sheet = pairs.picture()
    assert sheet.shape == (4 * 68, 4 * 132, 3) and (sheet[2:66, 2:66] == pairs.fakes[0]).all()
    assert (sheet[2:66, 66:130] == pairs.nearest[0]).all()


def test_mirrored_replay_is_flagged_too() -> None:
    train, held_out = open_images(sample_sets()["pomological-sample-64"]).split(0.4)
    report = Meter(train, held_out, num=58).measure(lambda _: [from_pixels(train.array()).flip(3)])[2]
    assert report.value == 0 and report.details["floor"] > 30


def test_evaluate_judges_a_network_and_a_function(tiny_generator) -> None:
    small = open_images(sample_sets()["cartoon-sample-64"], 16)
    train, held_out = small.split(0.4)
    shown: list[Pairs] = []
    told: list[str] = []
    judged = evaluate(tiny_generator, train, held_out, num=24, on_pairs=shown.append,
                      on_progress=lambda what, done, total: told.append(f"{what} {done}/{total}"))  # fmt: skip
    assert [report.name for report in judged] == [*(f"{name}-r64-v1" for name in NAMES), "SWD"]
    assert [report.num_images for report in judged] == [24] * 9
    assert "fakes 24/24" in told and "training pictures 58/58" in told and len(shown[0].indices) == 16
    assert judged == evaluate(tiny_generator, train, held_out, num=24)
    assert judged == evaluate(sampler_of(tiny_generator), train, held_out, num=24)
    copies = evaluate(lambda num: [from_pixels(train.array()[:num])], train, held_out, num=24)
    assert copies[0].value < judged[0].value / 5 and copies[-1].value < judged[-1].value / 2
    assert copies[2].value == 0 and judged[2].value == 100
    assert all("floor" in report.details for report in judged)


def test_evaluate_does_without_a_held_out_set(tiny_generator) -> None:
    small = open_images(sample_sets()["cartoon-sample-64"], 16)
    judged = evaluate(tiny_generator, small, num=24)
    assert judged[0].details["reference"] == judged[-1].details["reference"] == "train"
    copies = evaluate(lambda num: [from_pixels(small.array()[:num])], small, num=24)
    assert copies[0].value < judged[0].value / 10 and copies[2].value == 0


def test_classes_are_drawn_as_often_as_in_the_set(tiny_folder: Path) -> None:
    from stylegan.checkpoint.file import load_generator

    generator = load_generator(tiny_folder / "classes.safetensors")
    sample = open_images(sample_sets()["cartoon-sample-64"], 16)
    assert sum(len(image) for image in sampler_of(generator)(40)) == 40
    with pytest.raises(DataError, match="has 3 classes and the pictures have 6"):
        evaluate(generator, sample, num=8)


def test_the_command_prints_lines_or_json(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args([str(tiny_checkpoint), *arguments]))

    flags = ["--data", "cartoon-sample-64", "--num", "16", "--device", "cpu", "--held-out", "0.4"]
    assert run(*flags) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("KID-r64-v1 ") and lines[8].startswith("SWD ")
    assert lines[9].endswith("seconds; 58 training pictures, 38 held out; whether the model saw those is not known")
    assert "fakes: 16" in said.err
    picture = tmp_path / "pairs.png"
    assert run(*flags, "--json", "--pairs", str(picture)) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_train"], found["num_held_out"]) == (58, 38) and found["seconds"] > 0
    assert [metric["num_images"] for metric in found["metrics"]] == [16] * 9
    assert len(found["pairs"]) == 16 and {"seed", "file", "ratio"} == set(found["pairs"][0])
    assert Image.open(picture).size == (4 * 36, 4 * 20)
    with pytest.raises(DataError, match="There is no folder"):
        run("--data", "nowhere")


@pytest.mark.parametrize(("fraction", "unseen"), [(0.4, True), (0.0, False), (0.3, None)])
def test_the_command_says_whether_the_model_saw_what_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fraction: float, unseen: bool | None
) -> None:
    images = open_images(sample_sets()["cartoon-sample-64"], 16)
    trained, _ = images.split(fraction)
    about = {"data_fingerprint": images.fingerprint(), "train_fingerprint": trained.fingerprint()}
    state = make_tiny().state_dict()
    path = save_checkpoint(tmp_path / "tiny.safetensors", Checkpoint(TINY, state, about))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    flags = ["--data", "cartoon-sample-64", "--held-out", "0.4", "--num", "8", "--json", "--device", "cpu"]
    command.run(parser.parse_args([str(path), *flags]))
    assert json.loads(capsys.readouterr().out)["held_out_unseen"] is unseen


def test_the_command_validates_the_metrics(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylegan.metrics.validation._SWD_PATCHES", 512)

    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args(list(arguments)))

    assert run("--validate", "--data", "pomological-sample-64", "--num", "32", "--json") == 0
    said = capsys.readouterr()
    assert [json.loads(said.out)[i]["damage"] for i in (0, -1)] == ["none", "replay"] and "damages: 20" in said.err
    with pytest.raises(RequestError, match=r"^Name the model to judge[^\n]+\.$"):
        run("--data", "pomological-sample-64")
