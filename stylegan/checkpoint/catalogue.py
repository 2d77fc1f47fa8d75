"""Published models that can be fetched by name, and what an address or a `owner/repository/file` means.

Nothing of these models is shipped. Their owners publish neither sizes nor checksums beside the files, so most are None
here: the file's own size limits apply, and `import` prints the SHA-256 that it found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stylegan.errors import DownloadError

NVIDIA_LICENCE = (
    "NVIDIA's source code licence: research and evaluation only, not for commercial use; "
    "terms at github.com/NVlabs/{repository} (LICENSE)"
)
UNKNOWN_LICENCE = "not known here: read the terms on the page that offers the file before you go on"
HUB_FILE = re.compile(r"([\w-][\w.-]{0,95}/[\w-][\w.-]{0,95})/((?:[\w-][\w.-]*/)*[\w-][\w.-]*\.\w{2,12})", re.ASCII)
HUB = "https://huggingface.co/{repository}/resolve/main/{file}"


@dataclass(frozen=True)
class Published:
    """A model that somebody else publishes: short name, address, what is known of the file, and its terms."""

    name: str
    url: str
    licence: str
    num_bytes: int | None = None
    sha256: str | None = None


def _table(base: str, repository: str, prefix: str, names: str) -> list[Published]:
    """Entries of one folder of files, whose names stand as they are published."""
    licence = NVIDIA_LICENCE.format(repository=repository)
    return [Published(prefix + name, f"{base}/{name}.pkl", licence) for name in names.split()]


_NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/{family}/versions/1/files"
_CDN = "https://nvlabs-fi-cdn.nvidia.com"

CATALOGUE: dict[str, Published] = {
    entry.name: entry
    for entry in [
        *_table(
            _NGC.format(family="stylegan3"), "stylegan3", "",
            "stylegan3-t-ffhq-1024x1024 stylegan3-t-ffhqu-1024x1024 stylegan3-t-ffhqu-256x256 "
            "stylegan3-r-ffhq-1024x1024 stylegan3-r-ffhqu-1024x1024 stylegan3-r-ffhqu-256x256 "
            "stylegan3-t-metfaces-1024x1024 stylegan3-t-metfacesu-1024x1024 stylegan3-r-metfaces-1024x1024 "
            "stylegan3-r-metfacesu-1024x1024 stylegan3-t-afhqv2-512x512 stylegan3-r-afhqv2-512x512",
        ),
        *_table(
            _NGC.format(family="stylegan2"), "stylegan3", "",
            "stylegan2-ffhq-1024x1024 stylegan2-ffhq-512x512 stylegan2-ffhq-256x256 stylegan2-ffhqu-1024x1024 "
            "stylegan2-ffhqu-256x256 stylegan2-metfaces-1024x1024 stylegan2-metfacesu-1024x1024 "
            "stylegan2-afhqv2-512x512 stylegan2-afhqcat-512x512 stylegan2-afhqdog-512x512 stylegan2-afhqwild-512x512 "
            "stylegan2-brecahad-512x512 stylegan2-cifar10-32x32 stylegan2-celebahq-256x256 stylegan2-lsundog-256x256",
        ),
        *_table(
            f"{_CDN}/stylegan2-ada-pytorch/pretrained", "stylegan2-ada-pytorch", "ada-",
            "ffhq metfaces afhqcat afhqdog afhqwild cifar10 brecahad",
        ),
        *_table(
            f"{_CDN}/stylegan2/networks", "stylegan2", "",
            "stylegan2-ffhq-config-f stylegan2-car-config-f stylegan2-cat-config-f stylegan2-church-config-f "
            "stylegan2-horse-config-f",
        ),
    ]
}  # fmt: skip


def find_published(text: str) -> Published | None:
    """What `text` names: an entry of the catalogue, an https address, or owner/repository/path/file on the Hub.

    None when it looks like none of these, as a local file does. Raises DownloadError for other kinds of addresses.
    """
    if text in CATALOGUE:
        return CATALOGUE[text]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        if not text.lower().startswith("https://"):
            raise DownloadError("Only https addresses are fetched; use one that begins with https://.")
        return Published(_stem(text.split("?")[0].split("#")[0]), text, UNKNOWN_LICENCE)
    match = HUB_FILE.fullmatch(text) if len(text) < 500 else None
    if not match:
        return None
    address = HUB.format(repository=match[1], file=match[2])
    return Published(_stem(match[2]), address, f"{UNKNOWN_LICENCE} (huggingface.co/{match[1]})")


def _stem(address: str) -> str:
    """A name for a model from the last part of its address."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", re.sub(r"\.\w+$", "", address.rstrip("/").rpartition("/")[2]))
    return name.strip("-")[:64] or "model"
