"""How models get in, in a real browser: foreign files dropped on the app, and published ones from a server of ours."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import changes, drop, open_page, picture, running_app, says, slide
from conftest import save_tiny

from stylegan.checkpoint.catalogue import Published
from stylegan.checkpoint.convert import file_sha256
from stylegan.checkpoint.file import model_hash
from stylegan.render import Renderer
from stylegan.ui.answers import Answers
from stylegan.ui.arrivals import Arrivals
from stylegan.ui.controls import sentence
from stylegan.ui.session import AppContext

FIXTURES = Path(__file__).parent / "fixtures"
TINY_PICKLE = FIXTURES / "nvidia" / "sg2ada_8_tiny.pkl"
SG3_PICKLE = FIXTURES / "nvidia" / "sg3r_64.pkl"
TERMS = "for the tests of this program only"


class Server(http.server.ThreadingHTTPServer):
    """Offers one file, lets only the first `open_to` bytes of it through, and remembers which ranges were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.ranges, self.open_to, self.over = TINY_PICKLE.read_bytes(), [], 0, False

    @property
    def place(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.server_port}"

    def offers(self) -> dict[str, Published]:
        """A catalogue: a good entry, one that is gone, and one whose checksum is another."""
        good, wrong = file_sha256(TINY_PICKLE), "0" * 64
        entries = [("good-8", "good", good), ("gone-8", "gone", None), ("wrong-8", "wrong", wrong)]
        size = len(self.data)
        return {name: Published(name, f"http://{self.place}/{path}.pkl", TERMS, size, digest)
                for name, path, digest in entries}  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET, with the rest of the file where a beginning is there."""

    def log_message(self, *args) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        data, wanted = self.server.data, self.headers.get("Range")
        if "gone" in self.path:
            return self.send_error(404)
        self.server.ranges.append(wanted)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        try:
            while first < len(data) and not self.server.over:
                self.wfile.write(data[first : self.server.open_to])
                first = max(first, self.server.open_to)
                time.sleep(0.01)
        except OSError:
            pass  # nobody wants the rest


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        found.over = True
        found.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "alpha.safetensors")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def url(folder, runs, server) -> Iterator[str]:
    with running_app(folder, runs, published=server.offers(), mirrors=(server.place,)) as address:
        yield address


def shows_model(page: Any, name: str) -> None:
    """Wait until the picker names a model as the present one."""
    page.wait_for_function("name => document.querySelector('#model').value === name", arg=name)


def reads(page: Any, selector: str, text: str) -> None:
    """Wait until an element holds a text."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)", arg=[selector, text]
    )


def test_a_pickle_dropped_on_the_picker_is_explored_without_a_restart(page, folder):
    changes(page, lambda: drop(page, ".sg-models", TINY_PICKLE.name, TINY_PICKLE.read_bytes()))
    shows_model(page, "sg2ada_8_tiny")
    told = page.locator("#model-report").inner_text()
    assert "StyleGAN2 (skip)" in told and "8 x 8 px" in told and "Parameters" in told and "NVIDIA" in told
    assert (folder / "sg2ada_8_tiny.md").read_text().startswith("# sg2ada")
    assert model_hash(folder / "sg2ada_8_tiny.safetensors") == model_hash(TINY_PICKLE)
    changes(page, lambda: slide(page, "#psi", 0.1))
    changes(page, lambda: page.click("[aria-label='Next seed']"))
    assert page.locator("#noise").count() == 1 and page.locator("[id^=transform-]").count() == 0
    kept = picture(page)
    drop(page, ".sg-models", TINY_PICKLE.name, TINY_PICKLE.read_bytes())
    says(page, "already")
    assert picture(page) == kept


def test_a_stylegan3_file_brings_its_own_controls_and_no_dead_ones(page):
    changes(page, lambda: drop(page, ".sg-frame", SG3_PICKLE.name, SG3_PICKLE.read_bytes()))
    shows_model(page, "sg3r_64")
    assert "StyleGAN3-R" in page.locator("#model-report").inner_text()
    rows = page.locator("[id^=transform-].sg-row").evaluate_all("nodes => nodes.map(node => node.id)")
    assert rows == ["transform-translate_x", "transform-translate_y", "transform-rotate", "transform-scale"]
    assert page.locator("#noise, #noise-strength, #noise-seed").count() == 0
    start = picture(page)
    turned = changes(page, lambda: slide(page, "#transform-rotate", 0.6))
    page.click("#transform-rotate .sg-reset")
    page.wait_for_function("start => document.querySelector('#stage canvas').toDataURL() === start", arg=start)
    moved = changes(page, lambda: slide(page, "#transform-translate_x", 0.7))
    assert len({start, turned, moved}) == 3
    changes(page, lambda: page.select_option("#model", "alpha"))
    says(page, "no place for the shift")
    assert page.locator("[id^=transform-]").count() == 0 and page.locator("#noise").count() == 1


@pytest.mark.parametrize(("name", "word"), [("os_system.pkl", "system"), ("empty.pkl", "empty")])
def test_a_hostile_file_gets_its_sentence_and_the_app_lives_on(page, folder, name, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, kept = sorted(folder.iterdir()), picture(page)
    page.set_input_files("#controls-column input[type=file]", FIXTURES / "hostile" / name)
    says(page, word)
    page.wait_for_function("!document.querySelector('.sg-arrivals .sg-arrival')")
    assert picture(page) == kept and sorted(folder.iterdir()) == before and not list(tmp_path.iterdir())
    changes(page, lambda: page.click("[aria-label='Next seed']"))


def test_a_published_model_is_fetched_once_accepted_stopped_resumed_and_opened(page, browser, url, server, folder):
    half = len(server.data) // 2
    server.open_to = half
    kept = picture(page)
    page.wait_for_selector("#model option[value='get:good-8']", state="attached")
    page.select_option("#model", "get:good-8")
    reads(page, "#get-terms", TERMS)
    assert server.offers()["good-8"].url in page.locator("#get-terms").inner_text() and not server.ranges
    assert picture(page) == kept and page.input_value("#model") == "alpha"
    page.click("#get-accept")
    page.wait_for_selector(".sg-arrivals progress[value^='0.5'], .sg-arrivals progress[value^='0.49']")
    with open_page(browser, url, ready=".sg-arrivals progress[value]") as other:
        reads(other, ".sg-arrivals", "good-8")
        other.click(".sg-arrivals [aria-label='Stop or close good-8']")
        reads(page, ".sg-arrivals", "stopping")
        server.open_to = half + 1000
        reads(page, ".sg-arrivals", "goes on from there")
    changes(page, lambda: page.click("[aria-label='Next seed']"))
    server.open_to = len(server.data)
    page.select_option("#model", "get:good-8")
    reads(page, "#get-terms", TERMS)
    page.click("#get-accept")
    shows_model(page, "good-8")
    assert server.ranges == [None, f"bytes={half + 1000}-"]
    page.wait_for_function("!document.querySelector('.sg-arrivals .sg-arrival')")
    assert TERMS in page.locator("#model-report").inner_text() and TERMS in (folder / "good-8.md").read_text()
    assert model_hash(folder / "good-8.safetensors") == model_hash(TINY_PICKLE)
    changes(page, lambda: slide(page, "#psi", 0.1))


def test_a_refused_download_says_so_and_nothing_is_lost(page, server, folder):
    server.open_to, before, kept = len(server.data), sorted(folder.iterdir()), picture(page)
    for name, word in (("gone-8", "404"), ("wrong-8", "SHA-256")):
        page.wait_for_selector(f"#model option[value='get:{name}']", state="attached")
        page.select_option("#model", f"get:{name}")
        reads(page, "#get-terms", name.split("-")[0])
        page.click("#get-accept")
        says(page, word)
    page.click("#get-open")
    for text, word in ((f"http://{server.place}/good.pkl", "https"), ("no model at all", "neither")):
        page.fill("#get-text", text)
        page.keyboard.press("Enter")
        says(page, word)
    assert not page.locator("#get-accept").is_visible()
    assert picture(page) == kept and sorted(folder.iterdir()) == before


def test_recent_models_are_listed_as_long_as_they_open(page, runs):
    snapshot = save_tiny(runs / "one" / "snapshots" / "000000100.safetensors", seed=4)
    gone = str(runs / "gone" / "snapshots" / "000000100.safetensors")
    names = [gone, str(snapshot)]
    page.evaluate("names => localStorage.setItem('stylegan-studio-recent', JSON.stringify(names))", names)
    page.locator("#model").focus()
    page.wait_for_selector("#model optgroup[label=Recent] option", state="attached")
    assert page.locator("#model optgroup[label=Recent] option").all_inner_texts() == ["one · 000000100"]
    changes(page, lambda: page.select_option("#model", str(snapshot)))


@pytest.fixture
def arrivals(tmp_path, server) -> Arrivals:
    save_tiny(tmp_path / "models" / "tiny.safetensors")
    renderer = Renderer(tmp_path / "models", "cpu", roots=[tmp_path / "runs"])
    offers, mirrors = server.offers(), (server.place,)
    context = AppContext(renderer, renderer.folder, tmp_path / "runs", published=offers, mirrors=mirrors)
    return Arrivals(context, tmp_path / "uploads")


def ended(arrivals: Arrivals) -> dict:
    """The one download, once it is over."""
    for _ in range(1000):
        (arrival,) = arrivals.arrivals(None)["arrivals"]
        if arrival["state"] not in ("loading", "checking"):
            return arrival
        time.sleep(0.02)
    raise AssertionError("it never ended")


def test_two_pages_share_one_download(arrivals, server):
    server.open_to, before = 100, len(server.ranges)
    question = {"text": "good-8", "name": "mine", "accepted": True}
    first, second = arrivals.fetch(question)["arrival"], arrivals.fetch({**question, "name": "other"})["arrival"]
    assert (first["id"], first["name"]) == (second["id"], second["name"])
    server.open_to = len(server.data)
    assert ended(arrivals)["state"] == "done" and len(server.ranges) == before + 1
    assert [path.name for path in sorted(arrivals.context.models.path.iterdir())] == [
        "mine.md", "mine.safetensors", "tiny.safetensors"]  # fmt: skip


def test_places_without_https_are_refused_unless_named(arrivals, server):
    context = AppContext(arrivals.context.renderer, arrivals.context.models, Path("runs"), published=server.offers())
    plain = Arrivals(context, arrivals.uploads)
    plain.fetch({"text": "good-8", "name": "good-8", "accepted": True})
    assert ended(plain)["state"] == "failed" and "https" in ended(plain)["said"]


@pytest.mark.parametrize(
    ("question", "word"),
    [
        (None, "sent no"),
        ({"text": "good-8", "name": "x"}, "accept"),
        ({"text": "good-8", "name": "x", "accepted": "yes"}, "accept"),
        ({"text": "good-8", "name": "../x", "accepted": True}, "not a usable name"),
        ({"text": "good-8", "name": "tiny", "accepted": True}, "already"),
        ({"text": "file:///etc/passwd", "name": "x", "accepted": True}, "https"),
    ],
)
def test_downloads_that_are_not_begun(arrivals, question, word):
    answer = sentence(arrivals.fetch)(question)
    assert set(answer) == {"error"} and word in answer["error"] and not arrivals.arrivals(None)["arrivals"]


def test_only_files_that_were_sent_are_added(arrivals, tmp_path):
    (tmp_path / "uploads").mkdir()
    sent = Path(shutil.copy(TINY_PICKLE, tmp_path / "uploads" / "my model (1).pkl"))
    for path in (TINY_PICKLE, tmp_path / "uploads" / ".." / "models" / "tiny.safetensors", tmp_path / "uploads", "x"):
        assert "did not arrive" in sentence(arrivals.add)({"path": str(path)})["error"]
    assert arrivals.add({"path": str(sent)}) == {"name": "my-model-1"}
    known = Answers(arrivals.context).list_models({"recent": ["my-model-1", "gone", 3, str(TINY_PICKLE)]})
    assert known == {"models": ["my-model-1", "tiny"], "recent": ["my-model-1"]}
