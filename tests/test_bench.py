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
from stylegan.bench.profile import Ledger, profile
from stylegan.bench.render import convolution_gflop, piece_seconds, psnr, shares
from stylegan.bench.textbook import Textbook
from stylegan.cli.main import main
from stylegan.engines.plain import PlainEngine
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.stylegan3_layers import design_layers
from stylegan.speed import interleave

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


def test_training_rows_hang_together(repo):
    command = [sys.executable, "-m", "stylegan", "bench", "train", "--resolutions", "8", "--rounds", "1", "--json"]
    report = json.loads(subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout)
    (row,) = report["rows"]
    assert all(value > 0 for name, value in row.items() if name != "name") and row["step_ms"] > 0


def test_words_for_people(repo, capsys):
    assert main(["bench", "render", "--families", "stylegan2", "--resolutions", "8", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    for word in ("StyleGAN2 8", "times the textbook", "floor", "edit from", "preview px", "PSNR", "MiB", "jpeg 4:2:0"):
        assert word in said


def test_no_round_is_no_measurement(capsys):
    assert main(["bench", "train", "--rounds", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
