"""The Explore tab in a real browser: journeys that a person would make; conditions are waited for, nothing sleeps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import becomes, changes, drop, open_page, picture, running_app, says, slide
from conftest import TINY, TINY_CLASSES, save_tiny

from stylegan.checkpoint.file import model_hash, read_checkpoint
from stylegan.directions.store import directions_path, save_directions
from stylegan.latents import Direction
from stylegan.pixels import load_pixels, read_request
from stylegan.render import Renderer

NUM_WS = TINY.num_ws


def with_directions(path: Path) -> None:
    """Two directions beside a checkpoint."""
    digest, source = model_hash(read_checkpoint(path)), torch.Generator().manual_seed(5)
    save_directions(
        directions_path(path),
        [
            Direction(name, torch.randn(NUM_WS, TINY.w_dim, generator=source), (0, NUM_WS - 1), kind, digest)
            for name, kind in (("smile", "attribute"), ("pca1", "pca"))
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    with_directions(save_tiny(folder / "alpha.safetensors"))
    save_tiny(folder / "classes.safetensors", TINY_CLASSES, seed=1)
    return folder


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory) -> Iterator[str]:
    runs = tmp_path_factory.mktemp("runs")
    with running_app(folder, runs) as address:
        yield address


def test_a_slider_is_followed_reset_undone_and_compared(page):
    start = picture(page)
    assert "16 px" in page.locator("#model-about").inner_text() and "ms" in page.locator(".sg-timing").inner_text()
    assert page.locator("#psi .sg-reset").is_disabled() and page.locator("#class-row").count() == 0
    changed = changes(page, lambda: slide(page, "#psi", 0.1))
    page.wait_for_function("document.querySelector('#stage [data-shown]').dataset.shown >= 3")
    assert float(page.locator("#psi .sg-number").input_value()) < 0
    page.click("#psi .sg-reset")
    becomes(page, start)
    page.get_by_role("button", name="Undo").click()
    becomes(page, changed)
    page.fill("#psi .sg-number", "9")
    page.locator("#psi .sg-number").blur()
    says(page, "goes from -1 to 2")
    page.click("#reset-all")
    becomes(page, start)
    page.get_by_role("button", name="Compare").click()
    changes(page, lambda: page.click("[aria-label='Next seed']"))
    assert page.locator(".sg-before").is_visible()
    page.locator(".sg-wipe").fill("20")
    assert page.locator(".sg-frame").evaluate("node => node.style.getPropertyValue('--wipe')") == "20%"
    page.get_by_role("button", name="Go back").click()
    becomes(page, start)
    page.get_by_role("button", name="Stop comparing").click()
    assert not page.locator(".sg-before").is_visible()


def test_the_picture_is_a_pad_over_the_plane_of_seeds(page):
    start, box = picture(page), page.locator("#stage canvas").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def walk():
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] - box["width"] * 0.3, middle[1] - box["width"] * 0.5, steps=8)
        page.mouse.up()

    changes(page, walk)
    where = page.locator(".sg-where").inner_text()
    assert re.fullmatch(r"seed 100 \+ \(0\.7\d, 0\.2\d\)", where), where
    snapped = changes(page, lambda: page.get_by_role("button", name="Snap").click())
    assert page.locator(".sg-where").inner_text() == "seed 101" and page.input_value("#seed") == "101"
    page.locator("#stage canvas").first.focus()
    changes(page, lambda: page.keyboard.press("ArrowRight"))
    changes(page, lambda: page.keyboard.press("ArrowLeft"))
    becomes(page, snapped)
    changes(page, lambda: page.click("[aria-label='Next seed']"))
    assert page.input_value("#seed") == "102"
    page.click("#seed-row .sg-reset")
    becomes(page, start)


def test_style_mixing_takes_layers_from_visible_sources(page):
    start = picture(page)
    page.get_by_role("tab", name="Style mixing").click()
    page.wait_for_selector(f"#mixer [data-rows='{NUM_WS}']")
    page.click("#mixer [data-rows] >> text=This picture")
    page.fill("#source-seed", "85")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.sg-face img[src]').length === 2")
    mixed = changes(page, lambda: page.locator(".sg-source").nth(1).get_by_text("coarse").click())
    weights = [page.locator(f"#mix-{row} .sg-number").input_value() for row in range(NUM_WS)]
    assert weights == ["1"] * 3 + ["0"] * (NUM_WS - 3)
    changes(page, lambda: slide(page, "#master-coarse", 0.5))
    changes(page, lambda: page.click("#mix-0 .sg-reset"))
    page.locator(".sg-source").nth(1).get_by_text("coarse").click()
    becomes(page, mixed)
    page.click(".sg-source >> nth=1 >> [aria-label='Remove seed 85']")
    becomes(page, start)


def test_directions_move_the_picture_and_show_a_strip(page):
    start, strip = picture(page), page.locator("#directions [data-name='smile']")
    page.wait_for_selector("#directions [data-strip='smile']")
    assert strip.locator(".sg-tile img").count() == 7
    moved = changes(page, lambda: strip.locator(".sg-tile").last.click())
    assert page.locator("#edit-smile .sg-number").input_value() == "3"
    page.locator("#edit-smile .sg-switch").uncheck()
    becomes(page, start)
    page.locator("#edit-smile .sg-switch").check()
    becomes(page, moved)
    ends = page.locator("#edit-smile .sg-end")
    changes(page, lambda: (ends.last.fill("1"), ends.last.blur()))
    page.get_by_role("button", name="PCA", exact=True).click()
    changes(page, lambda: page.locator("#directions [data-name='pca1'] .sg-tile").first.click())
    changes(page, lambda: slide(page, "#edit-pca1", 0.8))
    page.click("#stack-clear")
    becomes(page, start)


def test_the_sheet_loads_a_seed_and_a_reload_keeps_it(page):
    page.get_by_role("tab", name="Seeds").click()
    page.wait_for_selector("#sheet [data-first='0']")
    assert page.locator(".sg-contacts .sg-tile").count() == 24
    chosen = changes(page, lambda: page.click("[data-seed='17']"))
    page.click("[aria-label='Next page']")
    page.wait_for_selector("#sheet [data-first='24']")
    page.reload()
    page.wait_for_selector("#stage [data-shown]")
    becomes(page, chosen)
    assert page.input_value("#seed") == "17"


def test_a_saved_picture_brings_its_state_back_and_proves_it(page, folder, tmp_path):
    page.fill("#seed", "5")
    page.locator("#seed").blur()
    page.get_by_role("tab", name="Style mixing").click()
    page.click("#mixer [data-rows] >> text=This picture")
    page.wait_for_selector(".sg-source")
    page.fill("#seed", "6")
    page.locator("#seed").blur()
    edited = changes(page, lambda: page.locator(".sg-source").get_by_text("coarse").click())
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    saved = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(saved)
    assert saved.name == "alpha-seed0006.png"
    request = read_request(saved)
    assert request.seed == 6 and request.psi == 0.7 and request.mix[0].seed == 5
    assert np.array_equal(Renderer(folder, "cpu").render(request).pixels, load_pixels(saved))
    changes(page, lambda: page.click("#reset-all"))
    drop(page, ".sg-frame", saved.name, saved.read_bytes())
    says(page, "exactly the same pixels")
    becomes(page, edited)
    assert page.input_value("#seed") == "6" and page.locator(".sg-source").count() == 1
    drop(page, "#mixer .sg-mixer", saved.name, saved.read_bytes())
    page.get_by_text("saved seed 6", exact=True).wait_for()
    assert page.locator(".sg-source").count() == 2 and picture(page) == edited
    page.get_by_role("tab", name="Share").click()
    page.wait_for_function("document.querySelector('#code-shell').textContent.includes('--seeds 6')")


def test_mistakes_are_one_sentence_and_nothing_is_lost(page):
    page.fill("#seed", "3")
    page.locator("#seed").blur()
    page.wait_for_function("document.querySelector('.sg-where').textContent === 'seed 3'")
    changes(page, lambda: slide(page, "#psi", 0.9))
    kept = picture(page)
    for name, data, sentence in [("notes.png", b"not a picture at all", "not a picture"), ("empty.png", b"", "file")]:
        drop(page, ".sg-frame", name, data)
        says(page, sentence)
    page.fill("#seed", "many")
    page.locator("#seed").blur()
    says(page, "A seed is a whole number")
    assert picture(page) == kept and page.input_value("#seed") == "3"
    page.get_by_role("tab", name="Style mixing").click()
    slide(page, "#mix-0", 0.5)
    says(page, "Add a source first")
    page.set_input_files(
        "[data-testid='add-model-upload-button'], #controls-column input[type=file]",
        {"name": "broken.safetensors", "mimeType": "application/octet-stream", "buffer": b"junk"},
    )
    says(page, "broken")
    assert picture(page) == kept
    changes(page, lambda: page.click("[aria-label='Next seed']"))


def test_models_come_and_go_without_a_restart(page, folder):
    changes(page, lambda: page.select_option("#model", "classes"))
    page.wait_for_selector("#class-row")
    changes(page, lambda: page.select_option("#label", "2"))
    shutil.copy(folder / "alpha.safetensors", folder / "newcomer.safetensors")
    page.locator("#model").focus()
    page.wait_for_selector("#model option[value=newcomer]", state="attached")
    changes(page, lambda: page.select_option("#model", "newcomer"))
    says(page, "no place for the class")
    assert page.locator("#class-row").count() == 0
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector("#class-row")
    assert page.input_value("#model") == "classes" and page.input_value("#label") == "2"


def test_a_phone_keeps_the_picture_above_the_controls(browser, url):
    with open_page(browser, url, 390, 844, has_touch=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        frame, seed = page.locator(".sg-frame").bounding_box(), page.locator("#seed").bounding_box()
        assert frame["y"] + frame["height"] < seed["y"] < 844 and frame["width"] > 250
        page.locator("#directions").scroll_into_view_if_needed()
        page.mouse.wheel(0, 500)
        page.wait_for_function("scrollY > 200")
        assert 0 <= page.locator(".sg-frame").bounding_box()["y"] < 20
        changes(page, lambda: page.locator("#directions [data-name='smile'] .sg-tile").last.click())
        page.locator("#edit-smile").evaluate("row => row.scrollIntoView({block: 'center'})")
        changes(page, lambda: slide(page, "#edit-smile", 0.2))
