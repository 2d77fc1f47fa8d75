"""What the tests share: a tiny seeded network, files made of it, and the optional folder of shared reference files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import open_browser, open_page

from stylegan.checkpoint.file import Checkpoint, save_checkpoint
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import Generator, build_generator

TINY = GeneratorConfig(resolution=16, z_dim=32, w_dim=32, channel_base=256, channel_max=16)
TINY_CLASSES = GeneratorConfig(resolution=16, z_dim=16, w_dim=24, channel_base=128, channel_max=8, num_classes=3)


def make_tiny(config: GeneratorConfig = TINY, seed: int = 0) -> Generator:
    """A freshly initialised generator, the same for the same seed, with noise and an average w that matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(config)
        with torch.no_grad():
            for name, value in generator.state_dict().items():
                if name.endswith(("noise_strength", "w_avg")):
                    value.copy_(0.1 * torch.randn(value.shape))
    return generator.eval().requires_grad_(False)


def save_tiny(path: Path, config: GeneratorConfig = TINY, seed: int = 0) -> Path:
    """Write such a generator as a checkpoint."""
    generator = make_tiny(config, seed)
    return save_checkpoint(path, Checkpoint(config, generator.state_dict(), {"source": "a test", "licence": "none"}))


@pytest.fixture(scope="session")
def tiny_generator() -> Generator:
    """A 16 px generator, read only."""
    return make_tiny()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `tiny_generator`, read only."""
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `tiny` and, with three classes, `classes`; read only."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_tiny(folder / "tiny.safetensors")
    save_tiny(folder / "classes.safetensors", TINY_CLASSES, seed=1)
    return folder


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository, where `python -m stylegan` works."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared reference files beside the repository, or $STYLEGAN_SHARED; skips when there is none."""
    folder = Path(os.environ.get("STYLEGAN_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no shared reference files at {folder}; set STYLEGAN_SHARED to their folder")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium for the tests of one file."""
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def profile(browser) -> Iterator[Any]:
    """A browser profile that keeps the page's scripts between the tests of one file."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context
    context.close()


@pytest.fixture
def page(browser, url, profile) -> Iterator[Any]:
    """A page on the app at the file's own `url`."""
    with open_page(browser, url, profile=profile) as opened:
        yield opened
