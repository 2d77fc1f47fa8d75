"""The app around the tabs: its command line, the questions a page may ask, the public endpoint, and its locks."""

from __future__ import annotations

import base64
import gc
import json
import shlex
import socket
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from browser import faults, running_app
from conftest import TINY, make_tiny, save_tiny

import app as entry
from stylegan.errors import CheckpointError, RequestError, StyleGANError
from stylegan.pixels import encode_png, load_pixels, read_request
from stylegan.render import Renderer
from stylegan.request import Mix, RenderRequest, encode_ws
from stylegan.shortcode import to_code
from stylegan.ui import explore, theme
from stylegan.ui.answers import Answers
from stylegan.ui.arrivals import Arrivals
from stylegan.ui.controls import STATIC, sentence
from stylegan.ui.keepsakes import Keepsakes
from stylegan.ui.session import AppContext, Session


@pytest.fixture
def answers(tiny_folder, tmp_path) -> Answers:
    renderer = Renderer(tiny_folder, "cpu", roots=[tmp_path / "runs"])
    return Answers(AppContext(renderer, renderer.folder, tmp_path / "runs"))


@pytest.fixture
def keepsakes(answers) -> Keepsakes:
    return Keepsakes(answers)


def asked(model="tiny", sources=(), rows=(), **request):
    return {"session": {"request": {"model": model, **request}, "sources": list(sources), "rows": list(rows)}}


def pixels_of(src: str) -> np.ndarray:
    return load_pixels(base64.b64decode(src.split(",")[1]))


def test_help_starts_without_torch_and_gradio(repo):
    code = (
        "import sys, app\ntry: app.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'gradio', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--allow-data" in done.stdout and "127.0.0.1" in done.stdout


@pytest.mark.parametrize(
    ("argv", "space", "host", "open_doors"),
    [
        ([], "", "127.0.0.1", True),
        (["--host", "0.0.0.0"], "", "0.0.0.0", False),
        ([], "someone/space", "0.0.0.0", False),
        (["--host", "0.0.0.0", "--training", "--uploads"], "", "0.0.0.0", True),
        (["--no-training", "--no-uploads"], "", "127.0.0.1", False),
    ],
)
def test_training_and_uploads_are_off_where_others_can_reach_the_page(monkeypatch, argv, space, host, open_doors):
    monkeypatch.setenv("SPACE_ID", space)
    options = entry.arguments(argv)
    assert (options.host, options.training, options.uploads) == (host, open_doors, open_doors)


def test_only_what_a_page_says_when_it_is_left_is_no_fault():
    left = ["AbortError: signal is aborted without reason", "Unexpected error Connection errored out. "]
    assert faults([*left, "a", *left, left[1], "b"]) == ["a", left[1], "b"]


def test_a_taken_port_is_one_sentence(tiny_folder, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        asks = ["--checkpoints", str(tiny_folder), "--runs", str(tmp_path), "--device", "cpu", "--port", str(port)]
        assert entry.main(asks) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


def test_uploads_stay_out_where_they_are_off(tiny_folder, tmp_path):
    renderer = Renderer(tiny_folder, "cpu")
    context = AppContext(renderer, renderer.folder, tmp_path, allow_uploads=False)
    before = sorted(tiny_folder.iterdir())
    arrivals, path = Arrivals(context, tmp_path), save_tiny(tmp_path / "more.safetensors")
    question = {"path": str(path), "text": "stylegan2-cifar10-32x32", "name": "x", "accepted": True, "id": "x"}
    for ask in (arrivals.add, arrivals.terms, arrivals.fetch, arrivals.stop):
        assert "switched off" in sentence(ask)(question)["error"]
    assert sorted(tiny_folder.iterdir()) == before and arrivals.offers(None) == {"allowed": False, "published": []}


def test_launching_shares_nothing(answers):
    options = theme.launch_options(answers.context)
    assert options["share"] is False and options["run_history"] is False
    assert not options.get("allowed_paths")


def test_no_widget_reads_anything_from_elsewhere_or_writes_markup():
    for path in STATIC.glob("*.*s"):
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text and "innerHTML" not in text and "eval(" not in text, path.name


def test_hello_shows_the_first_model_or_the_remembered_state(answers):
    first = answers.hello(None)
    assert first["models"] == ["classes", "tiny"]
    assert first["facts"]["name"] == "classes" and first["session"]["request"] == {"model": "classes"}
    remembered = answers.hello(asked(seed=4))
    assert remembered["session"]["request"] == {"model": "tiny", "seed": 4}
    assert answers.hello(asked("gone", seed=4))["session"]["request"] == {"model": "classes"}


def test_an_empty_folder_is_said_and_not_fatal(tmp_path):
    renderer = Renderer(tmp_path, "cpu")
    answer = Answers(AppContext(renderer, renderer.folder, tmp_path)).hello(None)
    assert "no model" in answer["said"] and "facts" not in answer


def test_a_picture_of_the_page_is_the_picture_of_the_request(answers):
    rows = [[0, 0.5]] * TINY.num_ws
    asks = asked(sources=[{"name": "seed 3", "seed": 3}], rows=rows, seed=8)
    answer = answers.render({**asks, "page": "p", "sequence": 1})
    request = RenderRequest("tiny", seed=8, psi=0.7, mix=(Mix(3, weight=0.5, layers=(0, TINY.num_ws - 1)),))
    assert np.array_equal(pixels_of(answer["src"]), answers.renderer.render(request).pixels)
    assert answers.render({**asked(seed=8), "page": "p", "sequence": 0}) == {"stale": True}


def test_facts_carry_what_the_controls_need(answers):
    facts = answers.open_model({"name": "tiny"})["facts"]
    assert len(facts["layers"]) == facts["num_ws"] == make_tiny().num_ws
    assert facts["groups"] == {"coarse": (0, 2), "middle": (3, 5), "fine": (6, 5)}
    assert (facts["options"]["psi"]["low"], facts["options"]["psi"]["high"], facts["defaults"]["psi"]) == (-1, 2, 0.7)
    json.dumps(facts)


def test_saved_pictures_restore_their_state_with_proof_or_a_reason(keepsakes):
    saved = base64.b64decode(keepsakes.save(asked(seed=12, noise="random", noise_seed=4))["data"])
    data = base64.b64encode(saved).decode()
    back = keepsakes.restore({"data": data})
    assert back["mood"] == "good" and "exactly the same pixels" in back["said"]
    assert back["session"]["request"] == {"model": "tiny", "seed": 12, "noise": "random", "noise_seed": 4}
    pixels = load_pixels(saved)
    pixels[3:9, 3:9] = 0
    forged = base64.b64encode(encode_png(pixels, read_request(saved))).decode()
    back = keepsakes.restore({"data": forged})
    assert back["mood"] == "warn" and "changed after it was saved" in back["said"]
    other = base64.b64encode(encode_png(pixels, RenderRequest("nowhere"))).decode()
    with pytest.raises(RequestError, match="needs another model"):
        keepsakes.restore({"data": other})


def test_a_picture_whose_mixes_overlap_is_restored_to_the_pixel(answers, keepsakes):
    request = RenderRequest("tiny", seed=2, mix=(Mix(3, weight=0.5), Mix(4, weight=0.25, layers=(1, 2))))
    result = answers.renderer.render(request)
    back = keepsakes.restore({"data": base64.b64encode(encode_png(result.pixels, result.request)).decode()})
    again = answers.renderer.render(Session.from_page(back["session"]).request())
    assert back["mood"] == "good" and np.array_equal(again.pixels, result.pixels)


def test_sources_are_seeds_where_a_seed_says_it_all(answers):
    assert answers.source(asked(seed=7))["source"] == {"name": "seed 7", "seed": 7, "ws": None, "label": None}
    walked, request = answers.source(asked(seed=7, dx=0.5))["source"], RenderRequest("tiny", seed=7, dx=0.5, psi=0.7)
    assert walked["ws"] == encode_ws(answers.renderer.latents(request).ws.numpy().tobytes())
    thumb = answers.thumb({**asked(sources=[walked]), "index": 0})
    assert np.array_equal(pixels_of(thumb["src"]), answers.renderer.render(request).pixels)


def test_a_sheet_shows_neighbouring_seeds(answers):
    tiles = answers.sheet({**asked(), "first": 2**32 - 2, "count": 6})["tiles"]
    assert [tile["seed"] for tile in tiles] == [2**32 - 2, 2**32 - 1]
    request = RenderRequest("tiny", seed=2**32 - 2, psi=0.7)
    assert np.array_equal(pixels_of(tiles[0]["src"]), answers.renderer.render(request).pixels)


def test_the_code_shown_makes_the_same_pixels(keepsakes, tiny_folder, tmp_path, monkeypatch):
    from stylegan.cli.main import main

    rows = [[0, 0.5]] * 2 + [[-1, 0]] * (TINY.num_ws - 2)
    asks = asked(seed=21, dx=0.25, noise="random", sources=[{"name": "a", "seed": 3}], rows=rows)
    code, wanted = keepsakes.code(asks), load_pixels(base64.b64decode(keepsakes.save(asks)["data"]))
    monkeypatch.chdir(tmp_path)
    words = shlex.split(code["shell"])
    assert words[:3] == ["python", "-m", "stylegan"] and main(words[3:]) == 0
    exec(compile(code["python"].replace("out/", "again/"), "shown", "exec"), {})
    for path in (*tmp_path.glob("out/*.png"), *tmp_path.glob("again/*.png")):
        assert np.array_equal(load_pixels(path), wanted), path
    assert len(list(tmp_path.glob("*/*.png"))) == 2
    saved = read_request(tmp_path / "again" / "seed0021.png")
    assert saved == RenderRequest.from_json(code["json"])


@pytest.mark.parametrize(
    "question",
    [
        None,
        [],
        {},
        "x",
        asked(seed="x"),
        asked("/etc/passwd"),
        asked("../tiny"),
        asked(edits=[{"direction": "smile"}]),
        asked(cutoff=99),
        asked(label=1),
        asked(sources=[{"name": "a", "ws": encode_ws(bytes(8))}], rows=[[0, 1]]),
    ],
)
def test_every_wrong_question_gets_one_sentence(answers, keepsakes, question):
    extra = {"page": "p", "data": "QUJD", "index": 0, "first": 0, "count": 6, "direction": "smile", "name": "gone"}
    full = {**extra, **question} if isinstance(question, dict) else question
    for ask in (*answers.questions(), *keepsakes.questions()):
        if ask.__name__ in ("hello", "list_models", "code", "speed"):
            continue
        answer = sentence(ask)(full)
        assert set(answer) == {"error"}, (ask.__name__, answer)
        assert len(answer["error"]) < 400 and "our side" not in answer["error"], (ask.__name__, answer)


def test_only_snapshots_of_runs_can_be_opened_by_path(answers, tmp_path):
    folder = tmp_path / "runs" / "a" / "snapshots"
    folder.mkdir(parents=True)
    snapshot = save_tiny(folder / "000000100.safetensors")
    outside = save_tiny(tmp_path / "outside.safetensors")
    assert explore.open_snapshot(answers.context, str(snapshot))["open"] == str(snapshot)
    assert answers.open_model({"name": str(snapshot)})["facts"]["num_ws"] == TINY.num_ws
    for path in (None, "", str(outside), str(tmp_path / "runs" / ".." / "outside.safetensors")):
        with pytest.raises(StyleGANError):
            explore.open_snapshot(answers.context, path)
    with pytest.raises(CheckpointError):
        answers.open_model({"name": str(outside)})


def test_another_model_keeps_what_applies_and_says_what_it_drops(answers):
    answer = answers.open_model({"name": "tiny", **asked("classes", seed=9, label=2)})
    assert answer["session"]["request"] == {"model": "tiny", "seed": 9} and "the class" in answer["said"]


def test_every_endpoint_is_its_command_and_the_rest_stays_unnamed(tiny_folder, tmp_path, monkeypatch):
    from gradio_client import Client

    from stylegan.cli.main import main

    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> int:
        return main(["generate", "--checkpoints", str(tiny_folder), *words])

    def pixels(file) -> np.ndarray:
        return load_pixels(file if isinstance(file, str) else file["path"])

    with running_app(tiny_folder, tmp_path) as url:
        client = Client(url, verbose=False, download_files=str(tmp_path / "got"))
        named = client.view_api(return_format="dict")["named_endpoints"]
        assert sorted(named) == ["/directions", "/edit", "/render", "/restore", "/strip"]
        file = client.predict(model="tiny", seed=4, psi=0.5, api_name="/render")
        assert command("--model", "tiny", "--seeds", "4", "--psi", "0.5", "--out", "a.png") == 0
        assert np.array_equal(pixels(file), load_pixels("a.png"))
        code = to_code(read_request("a.png"))
        file = client.predict(request=code, api_name="/render")
        assert np.array_equal(pixels(file), load_pixels("a.png"))
        text, file = client.predict(request=code, edits="s1.2=2.5, s2.0=-1", api_name="/edit")
        assert command("--request", code, "--edit", "s1.2=2.5", "--edit", "s2.0=-1", "--out", "b.png") == 0
        assert np.array_equal(pixels(file), load_pixels("b.png"))
        assert RenderRequest.from_json(text) == read_request("b.png")
        file = client.predict(request=code, direction="s1.2", api_name="/strip")
        assert command("--request", code, "--strip", "s1.2", "--grid", "strip.png") == 0
        assert np.array_equal(pixels(file), load_pixels("strip.png"))
        assert client.predict(model="tiny", api_name="/directions") == []
        png = base64.b64encode((tmp_path / "b.png").read_bytes()).decode()
        for given in ({"png": png}, {"state": to_code(read_request("b.png"))}, {"state": text}):
            back = client.predict(**given, api_name="/restore")
            assert back["opens"] and RenderRequest.from_json(json.dumps(back["request"])) == read_request("b.png")
        for wrong in ({"model": "gone", "api_name": "/render"}, {"request": "{", "api_name": "/render"},
                      {"request": code, "edits": "smile=x", "api_name": "/edit"}):  # fmt: skip
            with pytest.raises(Exception, match="No model|not JSON|not a number"):
                client.predict(**wrong)


def test_the_shown_curl_works_as_it_stands(tiny_folder, tmp_path):
    with running_app(tiny_folder, tmp_path) as url:
        renderer = Renderer(tiny_folder, "cpu")
        keepsakes = Keepsakes(Answers(AppContext(renderer, renderer.folder, tmp_path)))
        asks = asked(seed=21, dx=0.25, noise="random", sources=[{"name": "a", "seed": 3}], rows=[[0, 0.5]] * 6)
        line = keepsakes.code({**asks, "address": url})["curl"]
        subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, timeout=60)
    wanted = load_pixels(base64.b64decode(keepsakes.save(asks)["data"]))
    assert np.array_equal(load_pixels(tmp_path / "seed0021.png"), wanted)
    assert read_request(tmp_path / "seed0021.png").mix


def test_two_people_at_once_get_their_own_pictures(answers):
    def drag(person: int) -> list[bool]:
        right = []
        for number in range(25):
            seed = 1000 * person + number
            answer = answers.render({**asked(seed=seed), "page": f"page {person}", "sequence": number})
            request = RenderRequest("tiny", seed=seed, psi=0.7)
            right.append("src" in answer and np.array_equal(pixels_of(answer["src"]), wanted.render(request).pixels))
        return right

    wanted = Renderer(answers.context.models.path, "cpu")
    with ThreadPoolExecutor(3) as pool:
        for right in pool.map(drag, range(3)):
            assert all(right)


def test_two_hundred_steps_of_undo_leave_the_server_as_it_was(tiny_folder, tmp_path):
    renderer = Renderer(tiny_folder, "cpu", cache_bytes=1 << 16)  # so that the cache of features is full at once
    answers = Answers(AppContext(renderer, renderer.folder, tmp_path))
    keepsakes = Keepsakes(answers)
    steps = [asked(seed=step % 5, psi=step / 200, edits=[]) for step in range(200)]

    def all_of_them() -> None:
        for number, step in enumerate([*steps, *reversed(steps)]):
            answers.render({**step, "page": "p", "sequence": number})
            if number % 40 == 0:
                keepsakes.code(step)

    all_of_them()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for turn in range(2):
        for step in steps:
            answers.render({**step, "page": "p", "sequence": 400 + turn})
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200 << 10, f"400 steps left {grown} bytes behind"
