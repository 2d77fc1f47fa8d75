"""The benchmark compares like with like, and its numbers hang together. No test here times itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import make_tiny

from stylegan import bench
from stylegan.cli.main import main


def test_textbook_pictures_are_ours():
    generator = make_tiny()
    ws = generator.map(torch.randn(2, generator.z_dim)).ws
    theirs, ours = bench.textbook_synthesis(generator.synthesis, ws), generator.synthesize(ws)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


def test_ways_are_timed_in_turn_and_the_first_round_does_not_count():
    calls = []
    seconds = bench.interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4 and set(seconds) == {"a", "b"}


@pytest.mark.parametrize("what", ["render", "train"])
def test_the_command_prints_rows_that_hang_together(repo, what):
    command = [sys.executable, "-m", "stylegan", "bench", what, "--resolutions", "8", "--rounds", "1", "--json"]
    report = json.loads(subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout)
    (row,) = report["rows"]
    assert "8" in row["name"] and all(value > 0 for name, value in row.items() if name not in ("name",))
    if what == "render":
        assert row["speedup"] == pytest.approx(row["textbook_ms"] / row["ours_ms"])
        assert row["largest_difference"] < 1e-3
    else:
        assert row["gflop_per_image"] > 0


def test_no_round_is_no_measurement(capsys):
    assert main(["bench", "train", "--rounds", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
