"""The library: a plain folder, newest first, searched by words and tags; bad files are passed over, nothing is lost."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from stylegan.errors import RequestError, StyleGANError
from stylegan.library import Library
from stylegan.pixels import encode_png, load_pixels, read_request
from stylegan.render import Renderer
from stylegan.request import Mix, RenderRequest
from stylegan.shortcode import from_sidecar
from stylegan.ui.answers import Answers
from stylegan.ui.controls import sentence
from stylegan.ui.keepsakes import Keepsakes
from stylegan.ui.session import AppContext
from stylegan.ui.shelf import PAGE, Shelf

PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path / "library")


def test_what_is_kept_is_found_and_is_the_same(library):
    assert library.list() == []
    request = RenderRequest("tiny", "ab", 7, mix=(Mix(3),))
    first = library.add(PIXELS, request, "a calm one", ["calm", "#blue", "calm"])
    second = library.add(PIXELS, request.replace(seed=8))
    assert [each.name for each in library.list()] == [second.name, first.name]
    assert library.list()[1] == first and first.tags == ("calm", "blue")
    for text, found in (("calm", [first]), ("#blue", [first]), ("#blu", []), ("BLU one", [first]), ("tiny", 2)):
        assert len(library.list(text)) == found if found == 2 else library.list(text) == found, text
    assert np.array_equal(load_pixels(library.picture(first.name)), PIXELS)
    assert read_request(library.picture(first.name)) == request
    assert from_sidecar((library.folder / f"{first.name}.json").read_text())[0] == request
    changed = library.describe(first.name, "other", ["x"])
    assert Library(library.folder).find(first.name) == changed and changed.added == first.added


def test_taking_out_deletes_nothing(library):
    name = library.add(PIXELS, RenderRequest("tiny"), "dear").name
    aside = library.remove(name)
    assert library.list() == [] and (aside / f"{name}.png").is_file() and (aside / f"{name}.json").is_file()
    with pytest.raises(RequestError, match="no picture"):
        library.picture(name)


def test_pictures_put_there_by_hand_count_and_junk_does_not(library):
    library.folder.mkdir()
    (library.folder / "mine.png").write_bytes(encode_png(PIXELS, RenderRequest("tiny", seed=5)))
    (library.folder / "holiday.png").write_bytes(encode_png(PIXELS))
    (library.folder / "broken.png").write_bytes(b"junk")
    (library.folder / "huge name \n.png").write_bytes(encode_png(PIXELS, RenderRequest("tiny")))
    (library.folder / "torn.png").write_bytes(encode_png(PIXELS, RenderRequest("tiny")))
    (library.folder / "torn.json").write_text('{"request": {"format": 1, "evil": 1}}')
    os.symlink("/nowhere", library.folder / "gone.png")
    assert [(each.name, each.request.seed) for each in library.list()] == [("mine", 5)]
    (library.folder / "torn.json").write_text(json.dumps({"request": {"format": 1}, "note": "fine", "tags": 3,
                                                          "added": "x"}))
    assert sorted(each.name for each in library.list()) == ["mine", "torn"]


@pytest.mark.parametrize(("note", "tags"), [("x" * 2001, []), ("a\x00", []), (3, []), ("", ["two words"]),
                                            ("", ["x" * 41]), ("", [str(n) for n in range(21)]), ("", ["a\nb"])])
def test_unusable_words_are_one_sentence(library, note, tags):
    with pytest.raises(RequestError):
        library.add(PIXELS, RenderRequest("tiny"), note, tags)
    assert library.list() == []


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StyleGANError, match="in the way"):
        Library(tmp_path / "file").add(PIXELS, RenderRequest("tiny"))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a/b", ".hidden", "gone", "x" * 200])
def test_names_do_not_lead_out_of_the_folder(library, tmp_path, name):
    (tmp_path / "secret.png").write_bytes(encode_png(PIXELS, RenderRequest("tiny")))
    library.add(PIXELS, RenderRequest("tiny"))
    for act in (library.find, library.picture, library.remove):
        with pytest.raises(RequestError):
            act(name)


def shelf_of(tiny_folder, tmp_path, **settings) -> Shelf:
    renderer = Renderer(tiny_folder, "cpu")
    answers = Answers(AppContext(renderer, renderer.folder, tmp_path, **settings))
    return Shelf(answers, Keepsakes(answers))


def test_the_page_sees_it_in_parts_and_cannot_misuse_it(tiny_folder, tmp_path):
    shelf = shelf_of(tiny_folder, tmp_path, library=tmp_path / "library")
    session = {"session": {"request": {"model": "tiny", "seed": 3}, "sources": [], "rows": []}}
    kept = shelf.keep({**session, "note": "n", "tags": ["t"]})["item"]
    opened = shelf.open_kept({"name": kept["name"]})
    assert opened["session"]["request"] == session["session"]["request"] and opened["mood"] == "good"
    assert shelf.kept_source({**session, "name": kept["name"]})["source"]["name"] == "n"
    for _ in range(PAGE):
        shelf.keep(session)
    assert len(shelf.library({})["items"]) == PAGE
    assert shelf.library({"first": PAGE})["items"][0]["name"] == kept["name"]
    wrong = ({"name": "../x"}, {"text": 3}, {"first": -1}, {**session, "note": 3}, {**session, "tags": [1]})
    for ask in shelf.questions():
        for question in wrong:
            answer = sentence(ask)(question)
            assert "our side" not in answer.get("error", ""), (ask.__name__, question, answer)


def test_it_is_off_where_uploads_are_off(tiny_folder, tmp_path):
    for settings in ({"allow_uploads": False, "library": tmp_path / "library"}, {}):
        shelf = shelf_of(tiny_folder, tmp_path, **settings)
        assert shelf.library({})["allowed"] is False
        question = {"session": {"request": {"model": "tiny"}}, "name": "x", "note": "", "tags": []}
        assert all("no library here" in sentence(ask)(question)["error"] for ask in shelf.questions()[1:])
    assert not (tmp_path / "library").exists()
