"""The plan of the house, kept by a machine: who may import whom, where third parties live, how long things may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "stylegan"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a room may import itself and the rooms above it in this list. `directions/store` only reads and
# writes a model's directions file, so it stands before the Renderer, which loads that file with the model.
ROOMS = ("errors", "files", "background", "options", "request", "shortcode", "device", "lane", "speed", "pixels",
         "film", "seeds", "ops", "latents", "networks", "checkpoint", "engines", "data", "directions.store",
         "directions.population", "directions.styles", "models", "render", "portable", "batch", "library",
         "inspection", "directions", "inversion", "drag", "video", "metrics", "training", "siblings", "doctor",
         "bench", "cli", "ui")  # fmt: skip
STRANGERS = {"cli": "ui", "ui": "cli"}

HOMES = {
    "gradio": ("ui/", "app.py"),
    "argparse": ("cli/", "options.py", "app.py", "checkpoint/rosinality.py"),  # whose files hold a Namespace
    "pickle": ("checkpoint/nvidia_pickle.py", "checkpoint/pickle_opcodes.py", "checkpoint/pickle_records.py"),
    "pickletools": ("checkpoint/nvidia_pickle.py", "checkpoint/pickle_opcodes.py", "checkpoint/pickle_records.py"),
    "torch.distributed": ("training/distributed.py",),
    "urllib": ("checkpoint/download.py",),
    "httpx": ("checkpoint/download.py",),
    "requests": ("checkpoint/download.py",),
    "av": ("data/frames.py", "film.py"),
    "openvino": ("engines/openvino.py", "engines/openvino_graphs.py"),
    "http": ("checkpoint/download.py",),
}
MAX_FILE, MAX_FUNCTION, MAX_TRAINING_LOOP = 400, 60, 120


def name_of(path: Path) -> str:
    """A file's path below the package, or below the repository when it is not in the package."""
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else REPO).as_posix()


def imports(path: Path) -> list[str]:
    """Every module that a file imports, at its top or inside a function, with the names taken from packages of ours."""
    package = list(path.relative_to(REPO).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found += [argument.value for argument in node.args[:1]
                      if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    return found


def room_of(module: str) -> str | None:
    """The room of a dotted name below `stylegan`, or None for other packages and the package itself."""
    parts = module.split(".")
    if parts[0] != "stylegan" or len(parts) < 2:
        return None
    two = ".".join(parts[1:3])
    return two if two in ROOMS else parts[1]


def room_of_file(path: Path) -> str | None:
    """The room that a file belongs to; None for the package's own two files."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return None if parts in (("__init__",), ("__main__",)) else room_of(".".join(("stylegan", *parts)))


def all_functions(path: Path) -> list[ast.FunctionDef]:
    """Every function of a file."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_there_is_something_to_check():
    assert len(FILES) > 20
    assert "stylegan.errors.RequestError" in imports(PACKAGE / "seeds.py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_only_rooms_above_them(path):
    home = room_of_file(path)
    if home is None:
        return
    assert home in ROOMS, f"{name_of(path)} belongs to no room of the plan"
    for module in imports(path):
        room = room_of(module)
        if room is None:
            continue
        assert room in ROOMS, f"{name_of(path)} imports {module}, which is no room"
        assert ROOMS.index(room) <= ROOMS.index(home), f"{name_of(path)} imports {module} from below"
        assert STRANGERS.get(home) != room, f"{name_of(path)} imports {module}; ui and cli do not know each other"


@pytest.mark.parametrize("path", [*FILES, REPO / "app.py"], ids=lambda path: name_of(path))
def test_third_parties_stay_at_home(path):
    name = name_of(path)
    for module in imports(path):
        for party, homes in HOMES.items():
            if module == party or module.startswith(party + "."):
                assert any(name == home or (home.endswith("/") and name.startswith(home)) for home in homes), (
                    f"{name} imports {module}, which lives in {', '.join(homes)}")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= MAX_FILE, f"{name_of(path)} has {lines} lines"
    for node in all_functions(path):
        length = node.end_lineno - node.lineno + 1
        limit = MAX_TRAINING_LOOP if name_of(path) == "training/loop.py" else MAX_FUNCTION
        assert length <= limit, f"{name_of(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_and_definition_says_what_it_is(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name_of(path)}:{node.lineno} {node.name} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_have_types(path):
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [argument.arg for argument in arguments if argument.annotation is None]
            assert not bare, f"{name_of(path)}:{node.lineno} {node.name} leaves {bare} without a type"
            assert node.returns is not None, f"{name_of(path)}:{node.lineno} {node.name} has no return type"


def test_no_vague_names():
    vague = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?)($|_)")
    found = [name_of(path) for path in FILES if any(map(vague.search, path.relative_to(REPO).with_suffix("").parts))]
    assert found == []


def test_127_5_lives_in_pixels():
    number = re.compile(r"\b127\.5\b")
    assert [name_of(path) for path in FILES if number.search(path.read_text("utf-8"))] == ["pixels.py"]


def test_no_loose_ends():
    loose = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [f"{name_of(path)}: {match.group()}" for path in FILES for match in loose.finditer(path.read_text("utf-8"))]
    assert found == []


def test_code_is_never_run_from_text_and_seeds_are_never_global():
    banned = re.compile(r"(?<![\w.])(eval|exec)\(|torch\.load\((?![^)]*weights_only=True)|random\.seed\(")
    assert [f"{name_of(path)}: {match.group()}" for path in FILES for match in banned.finditer(path.read_text())] == []


@pytest.mark.parametrize("code", [
    "import stylegan",
    "import stylegan; stylegan.RenderRequest(seed=3); stylegan.StyleGANError",
    "import stylegan.training.run",
    "import sys, runpy; sys.argv[1:] = ['--help']; runpy.run_module('stylegan', run_name='__main__')",
    "import sys, runpy; sys.argv[1:] = ['generate', '--help']; runpy.run_module('stylegan', run_name='__main__')",
])
def test_the_light_parts_load_neither_torch_nor_gradio(code):
    tell = ("import atexit, sys; heavy = lambda: [name for name in ('torch', 'gradio') if name in sys.modules]; "
            "atexit.register(lambda: print('LOADED', heavy()))\n")
    done = subprocess.run([sys.executable, "-c", tell + code], capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("LOADED []")


def test_request_and_options_need_no_numpy():
    code = "import sys, stylegan.request, stylegan.errors, stylegan.options; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_ruff_finds_nothing():
    result = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
