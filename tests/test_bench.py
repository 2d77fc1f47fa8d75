"""The benchmark compares like with like, and its numbers hang together. No test here times itself."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_tiny

from stylegan.bench.network import Walk, published_config, random_network
from stylegan.bench.peer import peer
from stylegan.bench.polling import LOOK_SECONDS, NEWS_SECONDS, polling
from stylegan.bench.profile import Ledger, profile
from stylegan.bench.render import convolution_gflop, piece_seconds, psnr, shares
from stylegan.bench.textbook import Textbook
from stylegan.bench.train import against_targets, bench_train
from stylegan.cli.main import main
from stylegan.engines.plain import PlainEngine
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.stylegan3_layers import design_layers
from stylegan.speed import interleave
from stylegan.training.config import TrainConfig
from stylegan.training.estimate import phase_gflop

SMALL = {"resolution": 32, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 16}
CONFIGS = {
    "stylegan1": GeneratorConfig("stylegan1", **SMALL | {"resolution": 128}),  # from 128 pixels the doubling is fused
    "stylegan2": GeneratorConfig(**SMALL, conv_clamp=0.7),
    "stylegan3-t": GeneratorConfig("stylegan3", **SMALL, conv_clamp=0.5),
    "stylegan3-r": GeneratorConfig("stylegan3", **SMALL, layers=design_layers(32, 3, 256, 16, radial=True)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_textbook_pictures_are_ours(name):
    generator = make_tiny(CONFIGS[name])
    for key, tensor in generator.synthesis.state_dict().items():
        if key.endswith(("noise_weight", ".bias")):
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    ws = generator.map(torch.randn(2, generator.z_dim)).ws
    theirs, ours = Textbook(generator)(ws), generator.synthesize(ws)
    torch.testing.assert_close(theirs, ours, atol=1e-4 * float(ours.std()), rtol=1e-4)


@pytest.mark.parametrize("family", ["stylegan1", "stylegan2", "stylegan3"])
def test_measured_networks_draw_pictures_that_matter(family):
    generator, ws = random_network(published_config(family, 16))
    image = generator.synthesize(ws)
    assert float(image.std()) == pytest.approx(0.5, abs=0.1)
    again, _ = random_network(published_config(family, 16))
    assert torch.equal(again.synthesize(ws), image)
    assert not torch.equal(generator.synthesize(ws, noise="none"), image) or family == "stylegan3"


def test_published_widths():
    assert [published_config("stylegan2", size).channel_base for size in (64, 256, 1024)] == [16384, 32768, 32768]
    assert published_config("stylegan1", 1024).width(1024) == 16
    assert [spec.out_channels for spec in published_config("stylegan3", 256).layers][-3:] == [128, 128, 3]


def test_work_is_counted_by_hand():
    generator = make_tiny(CONFIGS["stylegan2"])
    ws = generator.map(torch.randn(1, 16)).ws
    counted = convolution_gflop(lambda: Textbook(generator)(ws)) * 1e9
    by_hand = 0
    for block in generator.synthesis.pieces():
        for name, layer in block.layers():
            seen = (block.resolution // 2 if name == "conv0" else block.resolution) ** 2
            by_hand += 2 * seen * layer.weight.numel()
    assert counted == pytest.approx(by_hand)


def test_ways_are_timed_in_turn_and_the_first_round_does_not_count():
    calls = []
    seconds = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4 and set(seconds) == {"a", "b"}


@pytest.mark.parametrize("family", ["stylegan1", "stylegan2", "stylegan3"])
def test_shares_of_edits_and_previews(family):
    generator, ws = random_network(published_config(family, 32))
    walk = Walk(PlainEngine(generator.synthesis), generator, ws)
    seconds = [float(index + 1) for index in range(len(walk.pieces))]
    edit, last_third, preview = shares(walk, seconds, generator)
    names = [piece.name for piece in walk.pieces]
    assert list(edit) == names and edit[names[0]] == 1 and edit[names[-1]] == pytest.approx(seconds[-1] / sum(seconds))
    if family == "stylegan2":  # 8 rows in blocks 4, 8, 16, 32: row 6 styles the last convolution and the colours of 16
        assert last_third == pytest.approx(edit["b32"])
        assert preview == pytest.approx({"4": 0.1, "8": 0.3, "16": 0.6})
    else:
        assert preview == {}
    assert len(piece_seconds(walk, 1)) == len(names) and all(value > 0 for value in piece_seconds(walk, 1))


def test_kept_states_lead_to_the_same_picture():
    generator, ws = random_network(published_config("stylegan2", 16))
    walk = Walk(PlainEngine(generator.synthesis), generator, ws)
    assert torch.equal(walk.run(2, walk.run(last=1)).image, walk.run().image)
    assert walk.run(last=1).image.shape[-1] == 8


def test_psnr():
    exact = np.full([4, 4, 3], 100, np.uint8)
    assert psnr(exact, exact) == 99
    assert psnr(exact + 1, exact) == pytest.approx(48.13, abs=0.01)
    assert psnr(np.full_like(exact, 90), exact) == pytest.approx(28.13, abs=0.01)


def test_operations_are_put_into_kinds():
    x, weight = torch.randn(1, 8, 16, 16), torch.randn(8, 8, 3, 3)
    with Ledger() as ledger:
        torch.nn.functional.conv2d(x, weight, padding=1)
        torch.nn.functional.conv2d(x, weight[:, :1], padding=1, groups=8)
        torch.nn.functional.leaky_relu(x)
    assert set(ledger.seconds) - {"rest"} == {"convolution", "resampling", "elementwise"}
    assert ledger.gflop == pytest.approx(2 * 8 * 8 * 9 * 256 / 1e9)
    generator, ws = random_network(published_config("stylegan2", 16))
    entries = profile(Walk(PlainEngine(generator.synthesis), generator, ws), 1)
    assert [entry["piece"] for entry in entries] == ["b4", "b8", "b16"]
    assert entries[1]["resampling"] > 0 and entries[0]["convolution"] > 0


def test_the_process_beside_has_linux_own_allocator(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    for tuned in (False, True):
        with peer(published_config("stylegan2", 8).to_json(), "textbook", tuned=tuned) as other:
            environment = open(f"/proc/{other.pid}/environ").read().split("\0")
            assert f"STYLEGAN_KEEP_MALLOC={int(not tuned)}" in environment
            assert ("THP_MEM_ALLOC_ENABLE=1" in environment) is tuned
            other.render()
            assert other.memory > 0


@pytest.mark.parametrize("family", ["stylegan2", "stylegan3"])
def test_the_command_prints_rows_that_hang_together(repo, family):
    command = [sys.executable, "-m", "stylegan", "bench", "render", "--families", family, "--resolutions", "8",
               "--rounds", "1", "--profile", "--json"]  # fmt: skip
    report = json.loads(subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout)
    (row,) = report["rows"]
    ms, best = row["ms"], row["ms"][row["best"]]
    assert "8" in row["name"] and "textbook" in ms and "torch float32" in ms and all(value > 0 for value in ms.values())
    assert best == min(value for name, value in ms.items() if "textbook" not in name)
    assert row["speedup"] == pytest.approx(ms["textbook"] / best)
    assert row["speedup_plain"] == pytest.approx(ms["textbook"] / ms["torch float32"])
    assert row["share_of_floor"] == pytest.approx(row["floor_ms"] / best)
    assert row["largest_difference"] < 1e-3 and row["peak_mib"] > 0
    assert row["psnr_db"]["torch float32"] == 99 and all(value > 45 for value in row["psnr_db"].values())
    assert set(row["encode_ms"]) == {"jpeg 4:2:0", "jpeg 4:4:4", "webp", "png"}
    assert [entry["piece"] for entry in row["profile"]] == list(row["edit"])


def test_training_rows_hang_together():
    rows = list(bench_train((8,), 2, (torch.float32, torch.bfloat16), channel_base=256, batch=8))
    assert [row.precision for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        ms = row.ms
        whole = sum(ms[name] for name in ("generator", "discriminator", "data", "average", "between")) + ms["r1"] / 16
        assert row.step_ms == pytest.approx(whole) and row.images_per_second == pytest.approx(8000 / whole)
        assert all(speed == pytest.approx(8000 / ms[name]) for name, speed in row.phase_images_per_second.items())
        gflop = row.gflop_per_image
        assert gflop["step"] == pytest.approx(gflop["generator"] + gflop["discriminator"] + gflop["r1"] / 16)
        assert row.share_of_floor == pytest.approx(gflop["step"] * row.images_per_second / row.floor)
        assert row.r1_of_d == pytest.approx(ms["r1"] / ms["discriminator"])
        assert row.data_share == pytest.approx(ms["data"] / whole)
    assert rows[0].speedup == 1 and rows[1].speedup == rows[1].images_per_second / rows[0].images_per_second
    targets = {target["figure"]: target["measured"] for target in against_targets(rows, 0.5)}
    quickest = max(rows, key=lambda row: row.images_per_second)
    assert targets["page_share"] == 0.5 and targets["r1_of_d"] == quickest.r1_of_d
    assert targets["speedup"] == quickest.speedup
    assert {target["figure"]: target["measured"] for target in against_targets(rows[:1], 0.5)}["speedup"] is None


def test_work_of_a_step_grows_with_the_pictures():
    config = TrainConfig(data="x", out="y", resolution=16, batch=8, channel_base=256, channel_max=16).resolve()
    small, large = phase_gflop(config), phase_gflop(config.replace(resolution=32))
    assert set(small) == {"generator", "discriminator", "r1"} and all(large[name] > small[name] > 0 for name in small)
    # R1 runs the discriminator once and through four more gradients, the plain phase twice and through three
    assert small["discriminator"] < 1.6 * small["r1"]


def test_an_open_page_costs_more_the_longer_the_run_is():
    short, long = polling(20, 3), polling(3000, 3)
    assert long["show"] > short["show"] > 0 and long["look"] > 0
    assert long["share"] == pytest.approx(long["look"] / LOOK_SECONDS + long["show"] / NEWS_SECONDS)


def test_training_in_words_and_numbers(repo, capsys):
    assert main(["bench", "train", "--resolutions", "8", "--rounds", "1", "--channel-base", "256"]) == 0
    said = capsys.readouterr().out
    for word in ("8 px, batch 32", "images a second", "generator", "augment", "floor", "R1 / D", "open page", "core"):
        assert word in said
    command = [sys.executable, "-m", "stylegan", "bench", "train", "--resolutions", "8", "--rounds", "1", "--json",
               "--channel-base", "256"]  # fmt: skip
    report = json.loads(subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout)
    assert report["rows"][0]["precision"] == "float32" and report["rows"][0]["images_per_second"] > 0
    assert {target["figure"] for target in report["targets"]} == {"speedup", "share_of_floor", "r1_of_d", "data_share",
                                                                  "page_share"}  # fmt: skip


def test_words_for_people(repo, capsys):
    assert main(["bench", "render", "--families", "stylegan2", "--resolutions", "8", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    for word in ("StyleGAN2 8", "times the textbook", "floor", "edit from", "preview px", "PSNR", "MiB", "jpeg 4:2:0"):
        assert word in said


def test_no_round_is_no_measurement(capsys):
    assert main(["bench", "train", "--rounds", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
