"""Files that must be refused: our own error, one sentence, little time and memory, and nothing in them runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stylegan.checkpoint.convert import convert_file
from stylegan.errors import CheckpointError

FOLDER = Path(__file__).parent / "fixtures" / "hostile"
FILES = json.loads((FOLDER / "hostile.json").read_text())
REFUSED = [entry["file"] for entry in FILES if entry["expect"] == "refuse"]


def test_the_list_is_complete():
    assert {entry["file"] for entry in FILES} == {path.name for path in FOLDER.glob("*.pkl")}
    assert len(REFUSED) >= 17


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        convert_file(FOLDER / name)
    assert time.process_time() - begin < 2
    assert not os.listdir(tmp_path)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 220
    assert not re.search(r"[.!?] [A-Z]", message), "more than one sentence"


def test_a_good_network_with_hostile_source_text_loads_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = convert_file(FOLDER / "module_src.pkl")
    assert checkpoint.config.resolution == 8 and not os.listdir(tmp_path)
    assert "PWNED" not in json.dumps(checkpoint.provenance)


@pytest.mark.parametrize(("name", "word"), [
    ("empty.pkl", "empty"), ("html_page.pkl", "web page"), ("lfs_pointer.pkl", "LFS"), ("harmless_zip.pkl", "zip"),
    ("truncated_half.pkl", "too early"), ("os_system.pkl", "system"), ("numpy_object_array.pkl", "O8"),
])  # fmt: skip
def test_the_sentence_says_what_is_wrong(name, word):
    with pytest.raises(CheckpointError, match=word):
        convert_file(FOLDER / name)


def test_hostile_files_cost_little(tmp_path):
    """The reader alone, without torch, in a process of its own that is watched."""
    code = f"""
import glob, json, resource, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from stylegan.checkpoint.nvidia_pickle import open_pickle
from stylegan.errors import CheckpointError
base, rows = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
for path in sorted(glob.glob({str(FOLDER / "*.pkl")!r})):
    begin = time.process_time()
    try:
        with open_pickle(path) as root:
            outcome = "data"
    except CheckpointError:
        outcome = "refused"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows.append([path.rpartition("/")[2], outcome, time.process_time() - begin, (peak - base) / 1024])
print(json.dumps(rows))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, outcome, seconds, mebibytes in json.loads(done.stdout):
        assert outcome == ("data" if name == "module_src.pkl" else "refused"), name
        assert seconds < 2 and mebibytes < 200, (name, seconds, mebibytes)
    assert not os.listdir(tmp_path)
