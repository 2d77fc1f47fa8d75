"""The command line: flags, files, exit codes, one sentence for every fault that a person can mend."""

from __future__ import annotations

import importlib
import json
import keyword
import subprocess
import sys

import numpy as np
import pytest

from stylegan.cli.main import COMMANDS, main
from stylegan.options import options_of
from stylegan.pixels import load_pixels, read_request
from stylegan.request import RenderRequest


@pytest.fixture
def generate(tiny_folder, tmp_path, monkeypatch):
    """Run `generate` with the tiny models, in an empty folder, and return its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, model: str | None = "tiny") -> int:
        named = ["--model", model] if model else []
        return main(["generate", "--checkpoints", str(tiny_folder), *named, *words])

    return run


def fault(capsys) -> str:
    """The one sentence on stderr."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.endswith(".\n") and "Traceback" not in text
    return text.strip()


def test_seeds_become_files_with_their_requests(generate, tmp_path, capsys):
    assert generate("--seeds", "0,2-3", "--psi", "-0.5", "--cutoff", "4", "--out", "dir") == 0
    files = sorted(path.name for path in (tmp_path / "dir").iterdir())
    assert files == ["seed0000.png", "seed0002.png", "seed0003.png"]
    assert capsys.readouterr().out.split() == [f"dir/{name}" for name in files]
    request = read_request(tmp_path / "dir" / "seed0003.png")
    assert (request.model, request.seed, request.psi, request.cutoff) == ("tiny", 3, -0.5, 4)
    assert len(request.model_hash) == 64


def test_out_is_the_default_folder(generate, tmp_path):
    assert generate() == 0
    assert (tmp_path / "out" / "seed0000.png").is_file()


@pytest.mark.parametrize("source", ["png", "json file", "json text"])
def test_a_saved_request_gives_the_same_bytes(generate, tmp_path, source):
    flags = ("--seeds", "7", "--psi=-1e-1", "--mix", "85=0.5@0-3", "--noise", "random", "--noise-seed", "3",
             "--dx", "0.25", "--dy", ".5", "--noise-strength", "2")
    assert generate(*flags, "--out", "one.png") == 0
    text = read_request(tmp_path / "one.png").to_json()
    (tmp_path / "request.json").write_text(text)
    given = {"png": "one.png", "json file": "request.json", "json text": text}[source]
    assert generate("--request", given, "--out", "two.png", model=None) == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert generate(*flags[:-2], "--out", "three.png") == 0
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "three.png").read_bytes()


def test_a_request_may_be_rendered_by_another_model(generate, tmp_path):
    assert generate("--out", "one.png") == 0
    assert generate("--request", "one.png", "--out", "two.png", model="classes") == 0
    assert read_request(tmp_path / "two.png").model == "classes"


def test_a_sheet_has_columns(generate, tmp_path):
    assert generate("--seeds", "0-4", "--grid", "sheet.png", "--columns", "3") == 0
    sheet = load_pixels(tmp_path / "sheet.png")
    assert sheet.shape == (32, 48, 3) and not (tmp_path / "out").exists()
    assert generate("--seeds", "4", "--out", "four.png") == 0
    np.testing.assert_array_equal(sheet[16:, 16:32], load_pixels(tmp_path / "four.png"))
    assert not sheet[16:, 32:].any()


def test_classes(generate, tmp_path):
    for number in ("0", "2"):
        assert generate("--class", number, "--out", f"{number}.png", model="classes") == 0
    assert generate("--out", "none.png", model="classes") == 0
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "none.png").read_bytes()
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "2.png").read_bytes()


@pytest.mark.parametrize(("words", "sentence"), [
    (["--psi", "5"], "psi must be between -1.0 and 2.0"),
    (["--seeds", "text"], "not a list of seeds"),
    (["--seeds", "-5"], "not a list of seeds"),
    (["--cutoff", "99"], "cutoff must be between 0 and 6"),
    (["--class", "1"], "has no classes"),
    (["--mix", "85@4-9"], "Layers 4-9 do not exist"),
    (["--edit", "smile=1"], "no direction 'smile'"),
    (["--transform", "rotate=5"], "StyleGAN3"),
    (["--request", "nothing.json"], "neither a request in JSON"),
    (["--request", "nothing.png"], "no file"),
    (["--request", '{"format":1,"seed":-1}'], "seed must be"),
    (["--request", '{"format":1}', "--seeds", "3"], "leave seeds out"),
    (["--request", '{"format":1}', "--psi", "0.5"], "leave psi out"),
    (["--seeds", "0-3", "--out", "x.png"], "must be a folder"),
    (["--grid", "x.jpg"], "PNG"),
    (["--columns", "0", "--grid", "x.png"], "columns"),
    (["--device", "warp"], "device"),
    (["--model", "none"], "No model 'none'"),
])  # fmt: skip
def test_faults_end_with_2_and_one_sentence(generate, capsys, words, sentence):
    assert generate(*words) == 2
    assert sentence in fault(capsys)


@pytest.mark.parametrize("words", [[], ["unknown"], ["generate", "--psi", "x"], ["generate", "--mix", "x"],
                                   ["generate", "--noise", "loud"], ["generate", "--what"]])
def test_wrong_flags_end_with_2_and_one_sentence(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    fault(capsys)


def test_an_unwritable_place_is_one_sentence(generate, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert generate("--out", "file") == 2
    assert "in the way" in fault(capsys)


def test_every_setting_of_a_request_has_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = capsys.readouterr().out
    for name, about in options_of(RenderRequest).items():
        if name != "seed":
            assert about.hidden != ((about.flag or "--" + name.replace("_", "-")) in text.split()), name
    assert "--seeds" in text


def test_every_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_every_command_module_is_registered(repo):
    modules = {path.stem for path in (repo / "stylegan" / "cli").glob("*.py")} - {"__init__", "main"}
    assert {name + "_" * keyword.iskeyword(name) for name in COMMANDS} == modules
    for name in COMMANDS:
        module = importlib.import_module(f"stylegan.cli.{name}" + "_" * keyword.iskeyword(name))
        assert module.HELP.endswith(".") and callable(module.add_arguments) and callable(module.run)


def test_info(tiny_folder, capsys):
    assert main(["info", "classes", "--checkpoints", str(tiny_folder), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["family"] == "stylegan2" and about["resolution"] == 16 and about["num_classes"] == 3
    assert about["num_ws"] == 6 and about["z_dim"] == 16 and about["w_dim"] == 24
    assert about["provenance"]["licence"] == "none" and len(about["sha256"]) == len(about["model_hash"]) == 64
    assert main(["info", str(tiny_folder / "tiny.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "16 px" in text and "6 layers" in text and "a test" in text


def test_info_of_a_bad_file(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"<html>")
    assert main(["info", str(path)]) == 2
    assert "web page" in fault(capsys)


def test_the_real_command_ends_with_2_and_one_sentence(repo, tmp_path):
    done = subprocess.run([sys.executable, "-m", "stylegan", "info", "none", "--checkpoints", str(tmp_path)],
                          capture_output=True, text=True, cwd=repo)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "No model 'none'" in done.stderr
