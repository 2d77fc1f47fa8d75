"""State in a real browser: the tree of the history, links and codes, batches, the library; nothing is ever lost."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import becomes, changes, drop, open_page, picture, running_app, says
from conftest import save_tiny

from stylegan.engines import openvino
from stylegan.pixels import load_pixels, read_request
from stylegan.render import Renderer
from stylegan.request import RenderRequest
from stylegan.shortcode import from_code, to_code


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "alpha.safetensors")
    save_tiny(folder / "beta.safetensors", seed=3)
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def url(folder, shelf, tmp_path_factory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:  # one engine for all pictures, so that they can be told by their bits
        patch.setattr(openvino, "version", lambda: None)
        with running_app(folder, tmp_path_factory.mktemp("runs"), library=shelf) as address:
            yield address


def seed(page, number: int) -> str:
    """Type a seed; returns the picture that follows."""

    def act():
        page.fill("#seed", str(number))
        page.locator("#seed").blur()

    return changes(page, act)


def steps(page, number: int) -> None:
    """Wait until the history has so many steps, each with its picture."""
    page.wait_for_selector(f"#history [data-steps='{number}']")
    page.wait_for_function("[...studio.tree.nodes.values()].every(node => node.thumb)")


def test_the_history_is_a_tree_that_survives_and_travels(page, tmp_path):
    steps(page, 1)
    start = picture(page)
    one, two = seed(page, 1), seed(page, 2)
    steps(page, 3)
    page.locator(".sg-where").click()
    page.keyboard.press("Control+z")
    becomes(page, one)
    page.keyboard.press("Control+z")
    becomes(page, start)
    page.keyboard.press("Control+Shift+z")
    becomes(page, one)
    branch = seed(page, 5)
    steps(page, 4)
    tops = page.evaluate("[...document.querySelectorAll('.sg-node')].map(node => node.style.top)")
    assert len(set(tops)) == 2, "the branch has a lane of its own"
    page.get_by_label("Step: seed 2").click()
    becomes(page, two)
    page.click("[aria-label='Star this step, so that it is never forgotten']")
    page.wait_for_selector(".sg-starred")
    page.click("[aria-label='Choose another step to see beside the present one']")
    page.get_by_label("Step: seed 5").click()
    page.wait_for_selector("#stage [data-pinned='1']")
    assert page.locator(".sg-before").is_visible() and picture(page) == two
    page.get_by_role("button", name="Difference").click()
    page.wait_for_function("Number(document.querySelector('#stage [data-difference]')?.dataset.difference) > 0")
    page.get_by_role("button", name="Go back to the pinned").click()
    becomes(page, branch)
    page.wait_for_function("document.querySelector('#stage [data-difference]').dataset.difference === '0'")
    page.get_by_role("button", name="Wipe").click()
    page.get_by_role("button", name="Stop comparing").click()

    page.reload()
    page.wait_for_selector("#stage [data-shown]")
    becomes(page, branch)
    steps(page, 5)
    assert page.locator(".sg-starred").count() == 1
    page.keyboard.press("Control+z")
    becomes(page, two)
    with page.expect_download() as waiting:
        page.click("[aria-label='Save the whole history as one file']")
    file = tmp_path / "history.json"
    waiting.value.save_as(file)
    for _ in range(2):
        page.click("[aria-label='Forget all steps but the present one']")
    page.wait_for_selector("#history [data-steps='1']")
    broken = json.loads(file.read_text())
    broken["nodes"][1]["session"]["request"]["seed"] = "<img src=x onerror=alert(1)>"
    drop(page, ".sg-history", "history.json", json.dumps(broken).encode(), "application/json")
    says(page, "Step 2 of the history is damaged")
    drop(page, ".sg-history", "history.json", b"{", "application/json")
    says(page, "no history of this app")
    drop(page, ".sg-history", "history.json", file.read_bytes(), "application/json")
    steps(page, 6)
    assert page.locator(".sg-starred").count() == 2 and picture(page) == two


def test_hundreds_of_steps_stay_bounded_and_all_can_be_undone(browser, url):
    with open_page(browser, url) as page:
        steps(page, 1)
        start = picture(page)
        page.evaluate("for (let seed = 1; seed <= 200; seed++) studio.set({seed})")
        page.wait_for_selector("#history [data-steps='201']")
        page.evaluate("for (let step = 0; step < 200; step++) studio.undo()")
        page.wait_for_function("!studio.tree.canUndo")
        becomes(page, start)
        page.evaluate("studio.tree.star(1); for (let seed = 1001; seed <= 1150; seed++) studio.set({seed})")
        page.wait_for_selector("#history [data-steps='300']")
        kept = page.evaluate("[...studio.tree.nodes.values()].map(node => node.session.request.seed || 0)")
        assert kept[0] == 0 and kept[-1] == 1150 and 200 not in kept, "the old branch's leaves went first"
        assert {1000 + step for step in range(1, 151)} <= set(kept)


def test_a_link_and_a_code_open_on_another_machine(page, browser, url, folder):
    page.select_option("#model", "beta")
    page.wait_for_function("studio.facts.name === 'beta'")
    shown = seed(page, 12)
    page.get_by_role("tab", name="Share").click()
    page.wait_for_function("document.querySelector('#code-shell').textContent.includes('--seeds 12')")
    code, curl = page.locator("#code-code").inner_text(), page.locator("#code-curl").text_content()
    assert from_code(code).model == "beta" and url.rstrip("/") in curl and code in curl
    page.click("#as-json")
    assert RenderRequest.from_json(page.locator("#code-json").inner_text()) == from_code(code)
    with open_page(browser, f"{url}#s={code}") as other:
        becomes(other, shown)
        says(other, "Restored")
        assert other.input_value("#seed") == "12" and "#" not in other.url
        elsewhere = seed(other, 3)
        other.get_by_role("tab", name="Share").click()
        other.fill("#open-code", to_code(RenderRequest("gone", "ab" * 32, 4)))
        other.keyboard.press("Enter")
        says(other, "another model, 'gone' (hash abababababab), so nothing was changed")
        assert picture(other) == elsewhere
        other.fill("#open-code", code[:-3])
        other.keyboard.press("Enter")
        says(other, "no code of StyleGAN Studio")
        other.fill("#open-code", f"{url}#s={code}")
        other.keyboard.press("Enter")
        becomes(other, shown)
        other.evaluate("code => { location.hash = 's=' + code }", to_code(RenderRequest("alpha", seed=77, psi=0.7)))
        other.wait_for_function("studio.request.seed === 77 && studio.facts.name === 'alpha'")
        assert picture(page) == shown and page.input_value("#seed") == "12", "the first page is as it was"


def test_a_batch_makes_a_zip_and_can_be_stopped(page, folder, tmp_path):
    page.get_by_role("tab", name="Seeds").click()
    page.fill("#batch-seeds", "many")
    page.click("#batch-make")
    says(page, "not a list of seeds")
    page.fill("#batch-seeds", "0-5000")
    page.click("#batch-make")
    says(page, "at most 1000")
    page.fill("#batch-seeds", "3,8-9")
    page.click("#batch-make")
    page.wait_for_selector("#batch [data-batch='done']")
    with page.expect_download() as waiting:
        page.click("#batch-download")
    saved = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(saved)
    assert saved.name == "alpha-batch.zip"
    with zipfile.ZipFile(saved) as archive:
        assert sorted(archive.namelist()) == sorted(f"seed000{n}.{kind}" for n in (3, 8, 9) for kind in ("png", "json"))
        data = archive.read("seed0008.png")
    wanted = Renderer(folder, "cpu").render(RenderRequest("alpha", seed=8, psi=0.7))
    assert np.array_equal(load_pixels(data), wanted.pixels) and read_request(data) == wanted.request
    drop(page, ".sg-batch", "states.zip", saved.read_bytes(), "application/zip")
    page.wait_for_function("document.querySelector('.sg-batch-line').textContent.includes('3 pictures')")
    page.fill("#batch-seeds", "0-999")
    page.click("#batch-make")
    page.wait_for_selector("#batch [data-batch='running']")
    page.click("[aria-label='Stop the batch']")
    page.wait_for_selector("#batch [data-batch='stopped']")
    assert page.locator("#batch-download").is_hidden() and page.locator("#batch-make").is_enabled()


def test_favourites_are_kept_found_opened_mixed_and_set_aside(page, shelf):
    shown = seed(page, 41)
    page.get_by_role("tab", name="Library").click()
    page.wait_for_selector("#library [data-favourites='0']")
    page.fill("#keep-note", "<b>the best</b>")
    page.fill("#keep-tags", "calm, red")
    page.click("#keep")
    page.wait_for_selector("#library [data-favourites='1']")
    other = seed(page, 42)
    page.click("#keep")
    page.wait_for_selector("#library [data-favourites='2']")
    files = sorted(path.suffix for path in shelf.iterdir())
    assert files == [".json", ".json", ".png", ".png"] and picture(page) == other
    page.click("text=#calm")
    page.wait_for_selector("#library [data-favourites='1']")
    tile = page.locator(".sg-favourites .sg-tile")
    assert tile.inner_text() == "<b>the best</b>"
    tile.click()
    page.get_by_role("button", name="Open", exact=True).nth(1).click()
    becomes(page, shown)
    assert page.input_value("#seed") == "41"
    page.get_by_role("button", name="Mix with it").click()
    says(page, "is a source in Style mixing now")
    page.get_by_label("Note of this favourite").fill("second thoughts")
    page.get_by_label("Note of this favourite").blur()
    page.wait_for_function("document.querySelector('.sg-favourites').textContent.includes('second thoughts')")
    for _ in range(2):
        page.get_by_role("button", name="Take it out of the library").click()
    says(page, "It lies in")
    page.wait_for_selector("#library [data-favourites='0']")
    assert len(list((shelf / ".removed").iterdir())) == 2


def test_one_latent_is_scrubbed_through_models(page, folder):
    shown = seed(page, 6)
    page.get_by_role("tab", name="Timeline").click()
    page.wait_for_selector("#timeline [data-drawn='2']")
    assert page.locator("#timeline-which option").all_inner_texts() == [f"models in {folder.name} (2)"]
    page.locator("#timeline-range").fill("1")
    page.wait_for_selector("#stage [data-pinned]")
    page.wait_for_selector("#timeline [data-stop='1']")
    assert page.locator(".sg-before").is_visible() and picture(page) == shown
    wanted = Renderer(folder, "cpu").render(RenderRequest("beta", seed=6, psi=0.7)).pixels
    pinned = page.evaluate("""() => { const canvas = document.querySelector(".sg-before");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; }""")
    assert np.array_equal(np.array(pinned, np.uint8).reshape(16, 16, 4)[..., :3], wanted)
    changes(page, lambda: page.get_by_role("button", name="Open this one").click())
    assert page.input_value("#model") == "beta" and page.input_value("#seed") == "6"
    page.keyboard.press("Control+z")
    becomes(page, shown)


def test_the_layers_show_what_is_inside(page):
    page.get_by_role("tab", name="Layers").click()
    page.wait_for_selector("#layers [data-layers='8'][data-looked]")
    page.get_by_role("option", name="b16.conv0").click()
    page.wait_for_selector("#layers [data-looked='b16.conv0 components']")
    assert "16 × 16" in page.locator("#layers .sg-facts").inner_text()
    page.locator(".sg-features").click(position={"x": 5, "y": 5})
    page.wait_for_selector("#layers [data-answers='8']")
    page.locator(".sg-tops .sg-tile").first.click()
    page.wait_for_function("/b16.conv0 \\d+$/.test(document.querySelector('#layers [data-looked]').dataset.looked)")
    page.fill("#layer-channel", "999")
    page.locator("#layer-channel").blur()
    says(page, "has the channels 0 to")
    before = page.locator(".sg-features").get_attribute("src")
    seed(page, 30)
    page.wait_for_function("before => document.querySelector('.sg-features').src !== before", arg=before)


def test_a_preview_follows_the_hand_and_the_whole_picture_comes_when_it_rests(page, monkeypatch):
    live = Renderer.live

    def slow(self, session, request, sequence=None, dragging=False, budget=0.1):
        result = live(self, session, request, sequence)
        return dataclasses.replace(result, pixels=result.pixels[::4, ::4], preview=True) if dragging else result

    monkeypatch.setattr(Renderer, "live", slow)
    steps(page, 1)
    thumb = page.locator("#psi input[type=range]").bounding_box()
    y = thumb["y"] + thumb["height"] / 2
    page.mouse.move(thumb["x"] + thumb["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(thumb["x"] + thumb["width"] * 0.2, y, steps=4)
    page.wait_for_selector("#stage [data-preview='true']")
    assert page.locator(".sg-timing").inner_text().startswith("preview 4 px · ")
    assert page.locator("#stage canvas").first.evaluate("node => getComputedStyle(node).imageRendering") == "auto"
    page.mouse.up()
    page.wait_for_selector("#stage [data-preview='false']")
    steps(page, 2)
    assert page.locator("#stage canvas").first.evaluate("node => node.width") == 16


def test_the_page_tells_how_quick_it_is(page):
    page.click(".sg-timing")
    page.wait_for_function("/takes about \\d+ ms a picture/.test(document.querySelector('.sg-doctor').textContent)")
    page.click(".sg-timing")
    assert page.locator(".sg-doctor").is_hidden()


def test_two_pages_do_not_disturb_each_other(page, browser, url):
    with open_page(browser, url) as other:
        steps(page, 1)
        steps(other, 1)
        for number in range(3):
            seed(page, 100 + number)
            seed(other, 200 + number)
        steps(page, 4)
        steps(other, 4)
        assert page.input_value("#seed") == "102" and other.input_value("#seed") == "202"
        for each, first in ((page, "1"), (other, "2")):
            seeds = each.evaluate("[...studio.tree.nodes.values()].map(node => String(node.session.request.seed || 0))")
            assert all(text == "0" or text.startswith(first) for text in seeds)
