"""Fetch a file over https: resumable, bounded, checked, and never from an address inside the user's own network.

The only room that opens a URL. Every hop of a redirect is checked like the first address, and the connection goes to
the very network address that was checked, so that a name cannot lead elsewhere in between.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import shutil
import socket
import ssl
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from stylegan.errors import DownloadError

MAX_BYTES = 4 << 30
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 5
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18
REDIRECTS = (301, 302, 303, 307, 308)


def download(
    url: str,
    target: str | Path,
    *,
    num_bytes: int | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    progress: Callable[[int, int | None], None] | None = None,
    allow: Collection[str] = (),
) -> Path:
    """Fetch `url` into `target`; what an earlier call left half done is carried on with.

    `num_bytes` and `sha256` are compared when given. `progress` is told (bytes so far, bytes in all or None). `allow`
    lists "host:port" places for which plain http and private addresses are fine, for tests and local mirrors. Raises
    DownloadError, one sentence; an interrupted download keeps its part beside the target.
    """
    fetch = _Fetch(url, Path(target), num_bytes, max_bytes, progress, frozenset(allow))
    try:
        fetch.target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(MAX_ATTEMPTS):
            before = fetch.done()
            if fetch.attempt():
                break
            if fetch.done() <= before or attempt == MAX_ATTEMPTS - 1:
                raise DownloadError(f"The connection to {fetch.host} broke; ask for the file again to go on.")
        fetch.finish(sha256)
    except OSError as error:
        raise DownloadError(f"{fetch.target.name} could not be stored: {error.strerror or 'disk error'}.") from error
    return fetch.target


@dataclass
class _Fetch:
    """One download: its part file, the note that says which version the part belongs to, and the attempts."""

    url: str
    target: Path
    num_bytes: int | None
    max_bytes: int
    progress: Callable[[int, int | None], None] | None
    allow: frozenset[str]
    host: str = field(init=False)
    part: Path = field(init=False)
    note: Path = field(init=False)

    def __post_init__(self) -> None:
        """Name the part and its note after the target."""
        self.host = _split(self.url).hostname or "the server"
        self.part = self.target.with_name(f".{self.target.name[:100]}.part")
        self.note = self.part.with_suffix(".part.json")

    def done(self) -> int:
        """Bytes in the part."""
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> bool:
        """Fetch what is missing; True when all of it is there, False when the connection broke on the way."""
        validator = self._validator()
        offset = self.done() if validator else 0
        headers = {"User-Agent": "stylegan-studio", "Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        try:
            connection, answer = self._open(headers)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{self.host} cannot be reached; check the address and the connection.") from error
        with closing(connection):
            if answer.status != 416:
                return self._store(answer, offset if answer.status == 206 else 0)
        self.part.unlink()  # it is no beginning of the file that is there now
        return self.attempt()

    def _validator(self) -> str:
        """What names the version that the part belongs to; empty when the part cannot be carried on with."""
        try:
            note = json.loads(self.note.read_text("utf-8"))
            return note["validator"] if note["url"] == self.url and self.part.exists() else ""
        except (OSError, ValueError, TypeError, KeyError):
            return ""

    def _open(self, headers: dict[str, str]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask for the file and follow checked redirects to an answer of status 200, 206 or (for a part) 416."""
        url = self.url
        for _ in range(MAX_REDIRECTS + 1):
            place = _check_address(url, self.allow)
            connection = _connect(place)
            path = place.parts.path or "/"
            connection.request("GET", f"{path}?{place.parts.query}" if place.parts.query else path, headers=headers)
            answer = connection.getresponse()
            if answer.status not in REDIRECTS:
                _check_answer(answer, place.host, "Range" in headers)
                return connection, answer
            connection.close()
            url = urljoin(url, answer.getheader("Location", ""))
        raise DownloadError(f"{self.host} redirects without end; check the address.")

    def _store(self, answer: http.client.HTTPResponse, offset: int) -> bool:
        """Write the answer's body behind the first `offset` bytes of the part; True when it was complete."""
        total = self._total(answer, offset)
        if total is not None and shutil.disk_usage(self.part.parent).free < total - offset:
            raise DownloadError(f"The disk has no room for {total / 2**20:.0f} MiB; make room and try again.")
        tag = answer.getheader("ETag", "")
        validator = tag if tag.startswith('"') else answer.getheader("Last-Modified", "")
        self.note.write_text(json.dumps({"url": self.url, "validator": validator}), "utf-8")
        with open(self.part, "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.truncate()
            while True:
                try:
                    block = answer.read1(BLOCK)
                except (OSError, http.client.HTTPException):
                    return False
                if not block:
                    break
                offset += len(block)
                if offset > self.max_bytes:
                    raise self._too_large("more")
                file.write(block)
                if self.progress:
                    self.progress(offset, total)
            file.flush()
            os.fsync(file.fileno())
        return total is None or offset == total

    def _total(self, answer: http.client.HTTPResponse, offset: int) -> int | None:
        """The whole file's size as the answer tells it, if it does and once that is plausible."""
        total = answer.getheader("Content-Length") or ""
        if answer.status == 206:
            span, _, total = (answer.getheader("Content-Range") or "").removeprefix("bytes ").partition("/")
            if not span.startswith(f"{offset}-") or not total.isdecimal():
                raise DownloadError(f"{self.host} answered with another part of the file; try again later.")
        if not total.isdecimal():
            return None
        if int(total) > self.max_bytes:
            raise self._too_large(f"{int(total) / 2**20:,.0f} MiB")
        if self.num_bytes is not None and int(total) != self.num_bytes:
            raise DownloadError(f"{self.host} offers {total} bytes instead of {self.num_bytes}; the file has changed.")
        return int(total)

    def finish(self, sha256: str | None) -> None:
        """Check what was fetched and put it in place."""
        size = self.done()
        if self.num_bytes is not None and size != self.num_bytes:
            self._clean()
            raise DownloadError(f"{self.host} sent {size} bytes instead of {self.num_bytes}; try again later.")
        if sha256 is not None:
            with open(self.part, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256.lower():
                self._clean()
                wanted = sha256.lower()[:12]
                raise DownloadError(f"The file's SHA-256 is {found[:12]}..., not {wanted}...; it was thrown away.")
        os.replace(self.part, self.target)
        self._clean()

    def _too_large(self, size: str) -> DownloadError:
        """The error for a file beyond the limit, whose part is thrown away."""
        self._clean()
        return DownloadError(f"The file has {size}, but at most {self.max_bytes / 2**20:,.0f} MiB are allowed.")

    def _clean(self) -> None:
        """Remove the part and its note."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Place:
    """Where a URL leads: its parts, the network addresses that were checked, whether plain http is fine there."""

    parts: SplitResult
    addresses: tuple[str, ...]
    trusted: bool

    @property
    def host(self) -> str:
        """The name of the server."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port of the server."""
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)


def _split(url: str) -> SplitResult:
    """The parts of a URL, which must be readable."""
    try:
        parts = urlsplit(url)
        if not parts.hostname or not url.isascii() or any(character.isspace() for character in url):
            raise ValueError
        parts.port  # noqa: B018  (raises for a port that is no number)
        return parts
    except ValueError as error:
        raise DownloadError("That is no proper web address; copy it again.") from error


def _check_address(url: str, allow: frozenset[str]) -> _Place:
    """Refuse what is not https, and any name that leads to a private, local or reserved network address."""
    parts = _split(url)
    place = _Place(parts, (), False)
    trusted = f"{place.host}:{place.port}" in allow
    if parts.scheme != "https" and not (trusted and parts.scheme == "http"):
        raise DownloadError(f"The address leads to {place.host[:60]} without https, so it was refused.")
    if parts.username or parts.password:
        raise DownloadError("The address holds a user name or password, so it was refused; leave them out.")
    try:
        answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        if _proxy(place.host):
            return _Place(parts, (), trusted)  # behind a proxy names may be known only to it
        raise DownloadError(f"There is no server {place.host[:60]}; check the address and the connection.") from error
    addresses = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
    if not trusted and not all(map(_is_public, addresses)):
        raise DownloadError(f"The address leads to {place.host[:60]}, which is in a private network; it was refused.")
    return _Place(parts, addresses, trusted)


def _is_public(address: str) -> bool:
    """True for an address that is reachable from everywhere."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (mapped is None or mapped.is_global)


def _proxy(host: str) -> SplitResult | None:
    """The proxy that the system's settings name for https to that host."""
    address = getproxies().get("https")
    return urlsplit(address) if address and not proxy_bypass(host) else None


def _connect(place: _Place) -> http.client.HTTPConnection:
    """A connection to one of the checked addresses, or through the system's proxy."""
    if place.parts.scheme == "http":
        connection = http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT)
        connection.sock = _dial(place)
        return connection
    context = ssl.create_default_context()
    proxy = None if place.trusted else _proxy(place.host)
    if proxy:
        connection = http.client.HTTPSConnection(proxy.hostname or "", proxy.port, timeout=TIMEOUT, context=context)
        connection.set_tunnel(place.host, place.port)
        return connection
    connection = http.client.HTTPSConnection(place.host, place.port, timeout=TIMEOUT, context=context)
    connection.sock = context.wrap_socket(_dial(place), server_hostname=place.host)
    return connection


def _dial(place: _Place) -> socket.socket:
    """A socket to the first checked address that answers."""
    failure = OSError("no address")
    for address in place.addresses:
        try:
            return socket.create_connection((address, place.port), timeout=TIMEOUT)
        except OSError as error:
            failure = error
    raise failure


def _check_answer(answer: http.client.HTTPResponse, host: str, resumes: bool) -> None:
    """Refuse an answer that is not the file, saying what it is."""
    host, status = host[:60], answer.status
    if status in (404, 410):
        raise DownloadError(f"{host} has no file at that address ({status}); check it.")
    if status in (401, 403):
        raise DownloadError(f"{host} wants a login ({status}); fetch it in a browser and import the file.")
    if status not in (200, 206) and not (status == 416 and resumes):
        raise DownloadError(f"{host} answered with status {status}; try again later.")
    if (answer.getheader("Content-Encoding") or "identity").lower() != "identity":
        raise DownloadError(f"{host} sends the file packed, which cannot be checked; fetch it in a browser.")
    if status == 200 and (answer.getheader("Content-Type") or "").lower().startswith("text/html"):
        raise DownloadError(f"{host} sends a web page instead of a file; use the address of the file itself.")
