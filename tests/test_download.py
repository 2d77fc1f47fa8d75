"""The download path against servers of the test's own: resume, checks, limits, refusals, and the terms shown first."""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import threading
from pathlib import Path

import pytest

from stylegan.checkpoint import download as module
from stylegan.checkpoint.catalogue import CATALOGUE, find_published
from stylegan.checkpoint.download import download
from stylegan.cli.main import main
from stylegan.errors import DownloadError

DATA = random.Random(0).randbytes(3_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
FIXTURE = Path(__file__).parent / "fixtures" / "nvidia" / "sg2ada_8_tiny.pkl"


class Server(http.server.ThreadingHTTPServer):
    """A server that offers one file, remembers what it was asked for, and can be told to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.tag, self.requests = DATA, '"v1"', []
        self.cuts: list[int] = []  # bytes after which the connection of the next answers breaks
        self.headers: dict[str, str] = {}
        self.status, self.location, self.tells_length = 0, "", True

    @property
    def place(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"http://{self.place}/file.pkl"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with ranges as the standard says."""

    def log_message(self, *args) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if server.status:
            self.send_response(server.status)
            if server.location:
                self.send_header("Location", server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == server.tag:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(server.data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(server.data) - 1}/{len(server.data)}")
        else:
            self.send_response(200)
        body = server.data[first:]
        headers = {"ETag": server.tag, "Content-Type": "application/octet-stream"} | server.headers
        if server.tells_length:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)


@pytest.fixture
def server():
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, **options) -> Path:
    """Download the server's file into the folder."""
    return download(server.url, folder / "model.pkl", allow=[server.place], **options)


def test_a_file_arrives_whole(server, tmp_path):
    seen = []
    options = {"sha256": DIGEST.upper(), "num_bytes": len(DATA), "progress": lambda *told: seen.append(told)}
    path = fetch(server, tmp_path / "new", **options)
    assert path.read_bytes() == DATA and [entry.name for entry in path.parent.iterdir()] == ["model.pkl"]
    assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)
    assert server.requests[0]["Accept-Encoding"] == "identity" and "Range" not in server.requests[0]


def test_a_cut_connection_is_taken_up_again_at_once(server, tmp_path):
    server.cuts = [1_000_000, 500_000]
    assert fetch(server, tmp_path, sha256=DIGEST).read_bytes() == DATA
    assert [request.get("Range") for request in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_carries_on_where_an_earlier_one_ended(server, tmp_path):
    server.cuts = [1_000_000, 0, 0]
    with pytest.raises(DownloadError, match="ask for the file again"):
        fetch(server, tmp_path)
    assert not (tmp_path / "model.pkl").exists()
    server.cuts, server.requests = [], []
    assert fetch(server, tmp_path, sha256=DIGEST).read_bytes() == DATA
    assert server.requests[0]["Range"] == "bytes=1000000-" and len(server.requests) == 1


def test_a_file_that_changed_in_between_is_fetched_anew(server, tmp_path):
    server.cuts = [1_000_000, 0]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    server.cuts, server.data, server.tag = [], DATA[::-1], '"v2"'
    assert fetch(server, tmp_path).read_bytes() == DATA[::-1]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    server.cuts = [1_000_000, 0]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    server.cuts, server.data = [], DATA[:1000]
    assert fetch(server, tmp_path).read_bytes() == DATA[:1000]


def test_without_a_version_nothing_is_carried_on(server, tmp_path):
    server.cuts, server.tag = [1_000_000, 0], 'W/"weak"'
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    server.cuts, server.requests = [], []
    assert fetch(server, tmp_path, sha256=DIGEST).read_bytes() == DATA
    assert "Range" not in server.requests[0]


def test_a_wrong_checksum_throws_the_file_away(server, tmp_path):
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server, tmp_path, sha256="0" * 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_file_beyond_the_limit_is_refused(server, tmp_path, tells_length):
    server.tells_length = tells_length
    with pytest.raises(DownloadError, match="at most 1 MiB"):
        fetch(server, tmp_path, max_bytes=1 << 20)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_size_than_published_is_refused(server, tmp_path):
    with pytest.raises(DownloadError, match="instead of 5"):
        fetch(server, tmp_path, num_bytes=5)
    server.tells_length = False
    with pytest.raises(DownloadError, match="instead of 5"):
        fetch(server, tmp_path, num_bytes=5)
    assert not (tmp_path / "model.pkl").exists()


def test_a_redirect_is_followed_where_it_is_allowed(server, tmp_path):
    with Server() as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        other.status, other.location = 302, server.url
        path = download(other.url, tmp_path / "x.pkl", allow=[server.place, other.place])
        assert path.read_bytes() == DATA
        with pytest.raises(DownloadError, match="https"):
            download(other.url, tmp_path / "y.pkl", allow=[other.place])
        other.location = f"https://{server.place}/file.pkl"
        with pytest.raises(DownloadError, match="private network"):
            download(other.url, tmp_path / "y.pkl", allow=[other.place])
        other.location = "/again"
        with pytest.raises(DownloadError, match="without end"):
            download(other.url, tmp_path / "y.pkl", allow=[other.place])
        for location in ("", "file:///etc/passwd", "https://", "ftp://example.com/x"):
            other.location = location
            with pytest.raises(DownloadError):
                download(other.url, tmp_path / "y.pkl", allow=[other.place])
        other.shutdown()
    assert not (tmp_path / "y.pkl").exists() and len(server.requests) == 1


@pytest.mark.parametrize("url", [
    "https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x", "https://10.1.2.3/x", "https://192.168.0.1:8443/x",
    "https://169.254.169.254/latest", "https://[fe80::1]/x", "https://[::ffff:127.0.0.1]/x", "https://0.0.0.0/x",
    "https://2130706433/x", "https://224.0.0.1/x", "https://[fd00::1]/x", "https://100.64.0.1/x",
])  # fmt: skip
def test_private_addresses_are_refused(url, tmp_path):
    with pytest.raises(DownloadError, match="private network|no server"):
        download(url, tmp_path / "x")


def test_the_address_that_was_checked_is_the_one_that_is_dialled(server, tmp_path, monkeypatch):
    """A name that leads elsewhere the second time it is asked gains nothing: it is asked once."""
    asked = []

    def lookup(host, port, **options):
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(module.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(module.socket, "create_connection", lambda *a, **k: pytest.fail("a connection was made"))
    with pytest.raises(DownloadError, match="private network"):
        download("https://rebinding.example/x", tmp_path / "x")
    assert asked == ["rebinding.example"]


@pytest.mark.parametrize("url", [
    "http://example.com/x", "ftp://example.com/x", "file:///etc/passwd", "example.com/x", "https://user:word@example.com/x",
    "https://", "https://exam ple.com/", "https://example.com:99999/", "", "https://example.com/\r\nX: y",
])  # fmt: skip
def test_addresses_that_are_not_plain_https_are_refused(url, tmp_path):
    with pytest.raises(DownloadError):
        download(url, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("status", "word"), [
    (404, "no file"), (410, "no file"), (403, "login"), (500, "status 500"), (416, "status 416"),
])  # fmt: skip
def test_an_answer_without_the_file_is_explained(server, tmp_path, status, word):
    server.status = status
    with pytest.raises(DownloadError, match=word):
        fetch(server, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("header", "word"), [
    ({"Content-Type": "text/html; charset=utf-8"}, "web page"), ({"Content-Encoding": "gzip"}, "packed"),
])  # fmt: skip
def test_something_else_than_a_file_is_refused(server, tmp_path, header, word):
    server.headers = header
    with pytest.raises(DownloadError, match=word):
        fetch(server, tmp_path)


def test_a_server_that_is_not_there_is_explained(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(server, tmp_path)


def test_a_full_disk_is_seen_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DownloadError, match="no room"):
        fetch(server, tmp_path)


def test_a_folder_that_cannot_be_written_is_explained(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="could not be stored"):
        download(server.url, tmp_path / "file" / "model.pkl", allow=[server.place])


def test_the_catalogue_holds_what_is_published():
    assert len(CATALOGUE) > 30
    for name, entry in CATALOGUE.items():
        assert entry.url.startswith("https://") and entry.licence and find_published(name) is entry
    text = " ".join(CATALOGUE)
    assert all(word in text for word in ("ffhq", "afhq", "metfaces", "brecahad", "cifar10", "church", "stylegan3-r"))


@pytest.mark.parametrize(("text", "url", "name"), [
    ("https://example.com/a/My%20Model.pkl?x=1", "https://example.com/a/My%20Model.pkl?x=1", "My-20Model"),
    ("owner/repo/net.pkl", "https://huggingface.co/owner/repo/resolve/main/net.pkl", "net"),
    ("owner/repo/sub/dir/net.v2.pkl", "https://huggingface.co/owner/repo/resolve/main/sub/dir/net.v2.pkl", "net-v2"),
])  # fmt: skip
def test_addresses_and_files_on_the_hub_are_understood(text, url, name):
    found = find_published(text)
    assert (found.url, found.name, found.num_bytes, found.sha256) == (url, name, None, None)
    assert "read the terms" in found.licence


@pytest.mark.parametrize("text", [
    "model.pkl", "folder/model.pkl", "../a/b.pkl", "a/../b.pkl", "/a/b/c.pkl", "a/b/../../c.pkl",
])  # fmt: skip
def test_a_local_file_is_no_address(text):
    assert find_published(text) is None


def test_other_schemes_are_refused():
    for text in ("http://example.com/x.pkl", "file:///x.pkl"):
        with pytest.raises(DownloadError, match="https"):
            find_published(text)


def test_import_shows_the_terms_and_fetches_only_when_they_are_accepted(server, tmp_path, monkeypatch, capsys):
    server.data = FIXTURE.read_bytes()
    asked = []

    def local(url, target, **options):
        asked.append(url)
        return download(server.url, target, **(options | {"allow": [server.place]}))

    monkeypatch.setattr(module, "download", local)
    arguments = ["import", "stylegan2-cifar10-32x32", "--checkpoints", str(tmp_path)]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "NVIDIA" in told and "not for commercial use" in told and "--accept-licence" in told
    assert not asked and not list(tmp_path.iterdir())
    assert main([*arguments, "--accept-licence"]) == 0
    assert asked == [CATALOGUE["stylegan2-cifar10-32x32"].url]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["stylegan2-cifar10-32x32.md", "stylegan2-cifar10-32x32.safetensors"]
    card = (tmp_path / "stylegan2-cifar10-32x32.md").read_text()
    assert hashlib.sha256(server.data).hexdigest() in card and "not for commercial use" in card


def test_import_writes_a_model_and_its_card(tmp_path, capsys):
    assert main(["import", str(FIXTURE), "--checkpoints", str(tmp_path), "--name", "small", "--half"]) == 0
    told = capsys.readouterr().out
    assert "StyleGAN2 (skip)" in told and "8 x 8 px" in told and "NVIDIA StyleGAN2-ADA" in told
    card = (tmp_path / "small.md").read_text()
    assert hashlib.sha256(FIXTURE.read_bytes()).hexdigest() in card and "float16" in card and "example.zip" not in card
    assert main(["info", str(tmp_path / "small.safetensors"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["provenance"]["origin"].startswith("NVIDIA") and about["resolution"] == 8
    assert main(["import", str(FIXTURE), "--checkpoints", str(tmp_path), "--name", "small"]) == 2
    assert "already" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "word"), [
    (["missing.pkl"], "no file|No such"), ([], "--list"), ([str(FIXTURE), "--name", "../x"], "name"),
    ([str(FIXTURE), "--out", "model.pkl"], "must end"), (["http://example.com/x.pkl"], "https"),
])  # fmt: skip
def test_import_explains_what_it_cannot_do(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", *arguments]) == 2
    told = capsys.readouterr().err
    assert any(part in told for part in word.split("|")) and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_import_lists_the_catalogue(capsys):
    assert main(["import", "--list"]) == 0
    assert set(CATALOGUE) == {line.split()[0] for line in capsys.readouterr().out.splitlines()}
