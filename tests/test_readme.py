"""What README says is so: paths exist, commands are commands, its Python runs, its front matter is a Space's."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from stylegan.cli.main import COMMANDS, make_parser


@pytest.fixture(scope="module")
def readme(repo):
    """README's text."""
    return (repo / "README.md").read_text()


def test_every_path_of_the_map_exists_and_every_room_is_in_it(repo, readme):
    table = readme.split("## Map")[1].split("## ")[0]
    named = []
    for cell in re.findall(r"^\| (`.*?`) \|", table, re.M):
        paths = re.findall(r"`([^`]+)`", cell)
        folder = paths[0].rpartition("/")[0] if not paths[0].endswith("/") else ""
        named += [path if "/" in path or path == "app.py" else f"{folder}/{path}" for path in paths]
    assert all((repo / path).exists() for path in named), named
    rooms = {f"stylegan/{path.name}{'/' if path.is_dir() else ''}" for path in (repo / "stylegan").iterdir()
             if path.name[0] != "_"}  # fmt: skip
    assert rooms <= set(named), rooms - set(named)


def test_every_command_parses(readme):
    lines = re.findall(r"^python -m stylegan (.*)$", readme, re.M)
    assert {line.split()[0] for line in lines} == set(COMMANDS)
    for line in lines:
        make_parser().parse_args(shlex.split(line))


def test_the_two_set_up_commands_name_files_that_exist(repo, readme):
    commands = [line for line in readme.splitlines() if line.startswith("pip install")]
    assert len(commands) == 2 and "python app.py" in commands[0] and "python -m pytest tests" in commands[1]
    for name in re.findall(r"-r (\S+)", " ".join(commands)):
        pins = [line.partition(";")[0] for line in (repo / name).read_text().splitlines()]
        assert pins and all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)
    assert commands[1] in (repo / ".ci" / "run").read_text().replace("pip install -q", "pip install")


def test_the_python_snippet_runs(repo, readme):
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    check = "\nimport json; print(json.dumps([list(image.shape), list(result.pixels.shape)]))"
    result = subprocess.run(
        [sys.executable, "-c", snippet + check], cwd=repo, capture_output=True, text=True, check=True
    )
    shape, pixels = json.loads(result.stdout)
    assert shape == [1, 3, 64, 64] and pixels == [64, 64, 3]


def test_pictures_shown_exist_and_the_space_runs_the_app(repo, readme):
    for path in re.findall(r"!\[.*?\]\((.*?)\)", readme):
        assert (repo / path).stat().st_size > 10_000
    front = readme.split("---")[1]
    assert "sdk: gradio" in front and "app_file: app.py" in front
    version = re.search(r"sdk_version: (\S+)", front)[1]
    assert f"gradio=={version}" in (repo / "requirements.txt").read_text()
