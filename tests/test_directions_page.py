"""The Directions tab in a real browser: the stack, painting a region, the browser, new directions, and packs."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import PICTURE, becomes, changes, drop, open_page, picture, running_app, says, slide
from conftest import TINY, TINY_CLASSES, save_tiny
from PIL import Image

from stylegan.checkpoint.file import model_hash, read_checkpoint
from stylegan.directions.discover import DiscoverStep
from stylegan.directions.store import directions_path, load_directions, mine_path, save_directions
from stylegan.latents import Direction

NUM_WS = TINY.num_ws


def with_directions(path: Path) -> None:
    """Two directions beside a checkpoint."""
    digest, source = model_hash(read_checkpoint(path)), torch.Generator().manual_seed(5)
    named = (("smile", "attribute"), ("beard", "attribute"))
    save_directions(
        directions_path(path),
        [
            Direction(name, torch.randn(NUM_WS, TINY.w_dim, generator=source), (0, NUM_WS - 1), kind, digest)
            for name, kind in named
        ],
    )


def nothing_found(generator, *_):
    """A search that is over at once."""
    yield DiscoverStep(1.0, "done")


@pytest.fixture(scope="module", autouse=True)
def quiet_search() -> Iterator[None]:
    """No search in the background but where a test wants one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stylegan.directions.discover.discover", nothing_found)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    with_directions(save_tiny(folder / "alpha.safetensors"))
    save_tiny(folder / "other.safetensors", TINY_CLASSES, seed=1)
    return folder


@pytest.fixture(scope="module")
def url(models, tmp_path_factory) -> Iterator[str]:
    with running_app(models, tmp_path_factory.mktemp("runs")) as address:
        yield address


def tile(page, name: str, strength: int):
    """The picture of a direction at a strength, in the browser."""
    return page.locator(f"#directions [data-name='{name}'] .sg-tile").nth(strength + 3)


def order(page) -> list[str]:
    """The names of the stack's rows, from the top."""
    return page.locator("#stack .sg-stacked > label").all_inner_texts()


def rows(page, number: int) -> None:
    """Wait until the stack has so many rows."""
    page.wait_for_selector(f"#stack [data-rows='{number}']", state="attached")


def pixels(page) -> np.ndarray:
    """What the canvas shows, as pixels [H, W, C]."""
    data = base64.b64decode(picture(page).split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def paint(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a line on the picture, in shares of its width and height."""
    box = page.locator(".sg-frame").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=6)
    page.mouse.up()


def test_a_stack_is_reordered_isolated_locked_switched_baked_and_undone(page):
    start = picture(page)
    smiling = changes(page, lambda: tile(page, "smile", 2).click())
    both = changes(page, lambda: tile(page, "beard", -3).click())
    assert order(page) == ["smile", "beard"] and page.locator("#edit-beard .sg-number").input_value() == "-3"

    page.locator("#edit-smile .sg-grip").focus()
    page.keyboard.press("ArrowDown")
    says(page, "smile is now 2 of 2")
    assert order(page) == ["beard", "smile"]
    assert page.evaluate("document.activeElement.closest('.sg-stacked').id") == "edit-smile"
    grip, target = page.locator("#edit-smile .sg-grip").bounding_box(), page.locator("#edit-beard").bounding_box()
    page.mouse.move(grip["x"] + 5, grip["y"] + 10)
    page.mouse.down()
    page.mouse.move(grip["x"] + 5, target["y"] + 2, steps=5)
    page.mouse.up()
    says(page, "smile is now 1 of 2")
    assert order(page) == ["smile", "beard"]
    becomes(page, both)

    page.click("[aria-label='Only smile']")
    becomes(page, smiling)
    stored = page.evaluate("JSON.stringify(studio.session.request.edits)")
    assert "enabled" not in stored
    page.click("[aria-label='Only smile']")
    becomes(page, both)

    page.locator("#edit-beard .sg-switch").uncheck()
    becomes(page, smiling)
    assert page.locator("#edit-beard .sg-number").input_value() == "-3"
    page.locator("#edit-beard .sg-switch").check()
    becomes(page, both)

    page.click("[aria-label^='Lock smile']")
    page.click("#reset-all")
    becomes(page, smiling)
    assert order(page) == ["smile"]
    page.get_by_role("button", name="Undo").click()
    becomes(page, both)

    page.click("#stack-accept")
    says(page, "2 rows are part of the latent now")
    rows(page, 0)
    becomes(page, both)
    assert page.locator(".sg-where").inner_text() == "restored latent"
    page.get_by_role("button", name="Undo").click()
    rows(page, 2)
    page.click("#stack-clear")
    rows(page, 1)
    page.click("[aria-label='Delete smile']")
    becomes(page, start)


def test_rows_are_duplicated_limited_to_layers_and_reset(page):
    start = picture(page)
    once = changes(page, lambda: tile(page, "smile", 1).click())
    changes(page, lambda: page.click("[aria-label='Duplicate smile']"))
    assert order(page) == ["smile", "smile"]
    page.locator("#edit-smile-1 .sg-end").last.fill("0")
    changes(page, lambda: page.locator("#edit-smile-1 .sg-end").last.blur())
    page.click("#edit-smile-1 .sg-reset")
    becomes(page, once)
    assert page.locator("#edit-smile-1 .sg-end").last.input_value() == str(NUM_WS - 1)
    changes(page, lambda: slide(page, "#edit-smile-1", 0.8))
    page.reload()
    page.wait_for_selector("#stage [data-shown]")
    rows(page, 2)
    assert float(page.locator("#edit-smile-1 .sg-number").input_value()) == pytest.approx(3, abs=0.4)
    page.click("#stack-clear")
    becomes(page, start)


def test_mixes_noise_and_transforms_are_rows_that_keep_their_values(page):
    start = picture(page)
    page.get_by_role("tab", name="Style mixing").click()
    page.fill("#source-seed", "85")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sg-source")
    mixed = changes(page, lambda: page.locator(".sg-source").get_by_text("coarse").click())
    page.get_by_role("tab", name="Directions").click()
    rows(page, 1)
    page.get_by_label("seed 85 on").uncheck()
    becomes(page, start)
    page.get_by_label("seed 85 on").check()
    becomes(page, mixed)
    changes(page, lambda: slide(page, "#stack-mix-0", 0.5))
    page.click("#stack-mix-0 .sg-reset")
    becomes(page, mixed)
    noisy = changes(page, lambda: page.locator("#noise").get_by_text("random").click())
    assert "random" in page.locator("#stack-noise .sg-about").inner_text()
    page.get_by_label("Noise on", exact=True).uncheck()
    becomes(page, mixed)
    rows(page, 2)
    page.get_by_label("Noise on", exact=True).check()
    becomes(page, noisy)
    page.click("[aria-label='Reset the Noise']")
    becomes(page, mixed)
    page.click("[aria-label='Take seed 85 out of the mix']")
    becomes(page, start)


def test_an_edit_stays_inside_the_region_that_is_painted(page):
    page.wait_for_selector("#directions [data-strip='smile']")
    start = pixels(page)
    changes(page, lambda: tile(page, "smile", 3).click())
    everywhere = pixels(page)
    page.click("[aria-label='Paint where smile acts']")
    assert page.locator(".sg-frame.sg-painting").count() == 1
    changes(page, lambda: paint(page, (0.1, 0.12), (0.4, 0.12)))
    confined = pixels(page)
    page.get_by_role("button", name="Done").click()
    mask = np.asarray(page.evaluate("Array.from(studio.unpackMask(studio.edits[0].region))")).reshape(32, 32)
    assert 0 < (mask > 0).sum() < 256 and not mask[16:].any()
    below = slice(10, 16)  # rows of the picture far from the paint, where features that were blended no longer reach
    assert np.abs(confined[below] - start[below]).max() <= 2 and np.abs(confined[:6] - start[:6]).max() > 20
    assert np.abs(everywhere[below] - start[below]).mean() > 20
    assert page.locator("#edit-smile .sg-painted").count() == 1
    page.hover("#edit-smile .sg-badge")
    page.wait_for_selector(".sg-frame.sg-masked")
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector("#edit-smile .sg-painted", state="detached")


def test_a_region_is_painted_with_the_keyboard_and_the_eraser(page):
    tile(page, "smile", 2).click()
    page.click("[aria-label='Paint where smile acts']")
    page.locator(".sg-mask").press("ArrowLeft")
    changes(page, lambda: page.locator(".sg-mask").press(" "))
    painted = page.evaluate("studio.unpackMask(studio.edits[0].region).filter(Boolean).length")
    assert 20 < painted < 200
    page.get_by_role("button", name="Invert the region").click()
    page.wait_for_function(f"studio.unpackMask(studio.edits[0].region).filter(Boolean).length > {1024 - painted}")
    page.get_by_role("button", name="Eraser").click()
    paint(page, (0.1, 0.9), (0.9, 0.9))
    page.wait_for_function("studio.unpackMask(studio.edits[0].region)[32 * 29 + 16] === 0")
    page.get_by_role("button", name="Clear the region").click()
    page.wait_for_function("!studio.edits[0].region")
    page.locator(".sg-mask").press("Escape")
    page.wait_for_selector(".sg-paintbar", state="hidden")


def test_directions_that_change_a_region_are_found_with_channels(page):
    page.wait_for_selector("#directions [data-count='2']", state="attached")
    page.click("#find-region")
    paint(page, (0.3, 0.3), (0.6, 0.5))
    page.get_by_role("button", name="Done").click()
    page.wait_for_selector("#directions [data-inside]", state="attached")
    names = page.locator("#directions .sg-dir-name").all_inner_texts()
    assert {"smile", "beard"} <= set(names)
    channel = next(name for name in names if name.startswith("s") and "." in name)
    page.wait_for_selector(f"#directions [data-strip='{channel}']")
    changes(page, lambda: tile(page, channel, 3).click())
    assert order(page) == [channel]
    page.click("#stack-accept")
    says(page, "nothing was changed")
    page.click("#leave-region")
    page.wait_for_selector("#directions [data-count='2']", state="attached")


def test_a_stack_is_copied_to_another_model_and_what_does_not_fit_is_named(page):
    tile(page, "smile", 2).click()
    rows(page, 1)
    page.evaluate("studio.addEdit('s1.0', 4)")
    rows(page, 2)
    page.click("#stack-copy")
    says(page, "2 rows")
    page.click("#stack-clear")
    page.click("[aria-label='Next seed']")
    page.click("#stack-paste")
    rows(page, 2)
    page.click("#stack-clear")
    page.select_option("#model", "other")
    page.wait_for_selector("#class-row")
    page.click("#stack-paste")
    says(page, "other has no place for the direction smile")
    rows(page, 1)
    assert order(page) == ["s1.0"]


def test_sorted_pictures_become_a_direction_that_is_used_and_shared(page, models, tmp_path):
    page.locator("#make summary").click()
    page.wait_for_selector("#make [data-sheet='0']", state="attached")
    grid = page.locator("#make .sg-sorting .sg-tile")
    assert grid.count() == 20 and page.locator("#make-sorted").is_disabled()
    for index in (0, 2, 4):
        grid.nth(index).click()
    for index in (1, 3, 5):
        grid.nth(index).dblclick()
    assert grid.nth(0).get_attribute("data-mark") == "yes" and grid.nth(1).get_attribute("data-mark") == "no"
    grid.nth(5).click()
    assert grid.nth(5).get_attribute("aria-label") == "Seed 5: neither"
    assert "3 yes, 2 no" in page.locator("#make").inner_text()
    page.get_by_label("Pick beard").check()
    assert "leaves beard alone" in page.locator("#make").inner_text()
    page.click("#make-sorted")
    says(page, "Give the direction a name first")
    page.fill("#make-name", "even seeds")
    page.click("#make-sorted")
    says(page, "not a usable name")
    page.fill("#make-name", "even")
    page.click("#make-sorted")
    says(page, "it is under Mine")
    page.wait_for_selector("#directions [data-strip='even']")
    changes(page, lambda: tile(page, "even", 3).click())
    assert "even" in order(page)
    stored = load_directions(mine_path(models / "alpha.safetensors"))
    assert [each.name for each in stored] == ["even"] and stored[0].info["against"] == ["beard"]

    page.get_by_label("Pick even").check()
    page.get_by_role("button", name="Pick none").click()
    page.get_by_label("Pick even").check()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="JSON").click()
    pack = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(pack)
    assert pack.name == "alpha-even.json"
    page.click("[aria-label='Delete the direction even']")
    says(page, "even is deleted")
    rows(page, 0)
    assert not mine_path(models / "alpha.safetensors").exists()
    drop(page, "#directions .sg-directions", pack.name, pack.read_bytes(), "application/json")
    says(page, "The pack brought even")
    page.wait_for_selector("#directions [data-strip='even']")
    page.click("[aria-label='Star even']")
    page.wait_for_selector("[aria-label='Star even'][aria-pressed=true]")
    page.click("[aria-label='Rename even']")
    page.fill(".sg-rename", "<b>odd")
    page.keyboard.press("Enter")
    says(page, "not a usable name")
    changed = changes(page, lambda: tile(page, "even", 3).click())
    page.click("[aria-label='Rename even']")
    page.fill(".sg-rename", "odd")
    page.keyboard.press("Enter")
    says(page, "even is called odd now")
    page.wait_for_selector("#edit-odd")
    assert order(page) == ["odd"] and picture(page) == changed
    page.click("[aria-label='Delete the direction odd']")
    page.wait_for_selector("#directions [data-name='odd']", state="detached")  # the stack, which uses it, speaks next
    drop(page, "#directions .sg-directions", "pack.json", b"{}", "application/json")
    says(page, "pack")


def test_the_difference_of_two_pictures_and_an_analogy(page, models):
    page.locator("#make summary").click()
    page.get_by_role("button", name="A − B").click()
    for letter, seed in (("A", "3"), ("B", "4")):
        page.fill(f"[aria-label='Seed for {letter}']", seed)
        page.keyboard.press("Enter")
        page.wait_for_selector(f"[data-slot={letter}] img[src]")
    page.fill("#make-name", "three")
    page.click("#make-difference")
    says(page, "three leads from B to A")
    page.wait_for_selector("#directions [data-strip='three']")
    page.get_by_role("button", name="A : B :: C : ?").click()
    page.click("[aria-label='Add the present picture to C']")
    page.wait_for_selector("[data-slot=C] img[src]")
    changes(page, lambda: page.click("#make-analogy"))
    assert page.locator(".sg-where").inner_text() == "restored latent"
    page.get_by_role("button", name="From words").click()
    page.get_by_text("needs CLIP weights of your own").wait_for()
    page.click("[aria-label='Delete the direction three']")
    says(page, "three is deleted")


def test_the_search_in_the_background_shows_how_far_it_is_and_can_be_stopped(browser, models, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)

    def slow(generator, *_):
        if not generator.num_classes:
            return
        yield DiscoverStep(0.0, "factorising the style weights")
        from stylegan.directions.sefa import find_sefa

        yield DiscoverStep(0.3, "principal components of W", tuple(find_sefa(generator, 2, samples=200)))
        for number in range(400):
            time.sleep(0.05)
            yield DiscoverStep(0.3 + number / 1000, "principal components of W")

    monkeypatch.setattr("stylegan.directions.discover.discover", slow)
    with running_app(folder, tmp_path / "runs") as url, open_page(browser, url) as page:
        page.select_option("#model", "other")
        page.wait_for_selector(".sg-finding:not([hidden])")
        page.wait_for_selector("#directions [data-name='sefa1']")
        assert page.locator(".sg-finding progress").evaluate("node => node.value") >= 0.3
        page.get_by_role("button", name="Stop looking").click()
        page.wait_for_selector("#find-directions:not([hidden])")
        assert page.locator("#directions .sg-dir").count() == 2
        page.reload()
        page.wait_for_selector("#find-directions:not([hidden])")
        monkeypatch.setattr("stylegan.directions.discover.discover", nothing_found)
        page.click("#find-directions")
        page.wait_for_selector("#directions [data-finding='done']", state="attached")


def test_two_pages_do_not_meet(browser, url):
    with open_page(browser, url) as one, open_page(browser, url) as two:
        start = picture(two)
        tile(one, "smile", 3).click()
        rows(one, 1)
        tile(two, "beard", -2).click()
        rows(two, 1)
        one.wait_for_function(f"before => {PICTURE} !== before", arg=start)
        assert order(one) == ["smile"] and order(two) == ["beard"]
        two.click("#stack-clear")
        becomes(two, start)
        assert order(one) == ["smile"] and picture(one) != start


def test_where_nothing_is_kept_the_page_says_so_and_hands_the_pack_over(browser, models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    before = sorted(path.name for path in folder.iterdir())
    with running_app(folder, tmp_path / "runs", allow_uploads=False) as url, open_page(browser, url) as page:
        page.locator("#make summary").click()
        page.get_by_text("keeps nothing that its visitors make").wait_for()
        page.get_by_role("button", name="A − B").click()
        for letter, seed in (("A", "3"), ("B", "4")):
            page.fill(f"[aria-label='Seed for {letter}']", seed)
            page.keyboard.press("Enter")
            page.wait_for_selector(f"[data-slot={letter}] img[src]")
        page.fill("#make-name", "mine")
        with page.expect_download() as waiting:
            page.click("#make-difference")
        assert waiting.value.suggested_filename == "alpha-mine.safetensors"
        says(page, "pack")
    after = sorted(path.name for path in folder.iterdir())
    assert [name for name in after if name != ".cache"] == [name for name in before if name != ".cache"]


def test_a_phone_stacks_and_paints_by_touch(browser, url):
    with open_page(browser, url, 390, 844, has_touch=True) as page:
        changes(page, lambda: tile(page, "smile", 3).tap())
        row = page.locator("#edit-smile")
        row.evaluate("row => row.scrollIntoView({block: 'center'})")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("[aria-label='Paint where smile acts']").tap()
        page.wait_for_selector(".sg-painting")
        box = page.locator(".sg-frame").bounding_box()
        changes(page, lambda: page.touchscreen.tap(box["x"] + 60, box["y"] + 60))
        assert page.evaluate("studio.unpackMask(studio.edits[0].region).filter(Boolean).length") > 10
        page.get_by_role("button", name="Finish painting").or_(page.get_by_role("button", name="Done")).first.tap()
        page.wait_for_selector(".sg-paintbar", state="hidden")
