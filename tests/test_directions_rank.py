"""What directions do to the picture on screen, and the search in the background."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from conftest import make_tiny
from toys import D, L, StyleToy, ToyRenderer

from stylegan.directions import rank as rank_room
from stylegan.directions.discover import DONE, FAILED, RUNNING, STOPPED, Discovery, discover, usable_names
from stylegan.directions.rank import LEVELS, Effect, rank, rank_steps, strip
from stylegan.directions.store import cache_path, load_directions, mine_path, save_directions
from stylegan.directions.styles import style_spreads
from stylegan.directions.zones import COLOUR, FORM, TEXTURE, structure_share, style_zones, zone_of
from stylegan.errors import CheckpointError, DirectionError, RequestError
from stylegan.latents import Direction, Latents
from stylegan.networks.config import GeneratorConfig
from stylegan.render import Renderer
from stylegan.request import RenderRequest, encode_region

REQUEST = RenderRequest(model="toy")


def axis(place: int, name: str, length: float = 1.0) -> Direction:
    """A direction along one coordinate of w, on all layers."""
    vector = torch.zeros(L, D)
    vector[:, place] = length
    return Direction(name, vector, (0, L - 1), "pca", "a" * 64)


@pytest.fixture
def renderer() -> ToyRenderer:
    """Three directions of the toy, in no order: coordinates 1, 4 and 11 paint the squares s0.1, s0.4 and s2.2."""
    directions = [axis(1, "dim"), axis(4, "bright"), axis(11, "low")]
    return ToyRenderer(StyleToy(), Latents(torch.zeros(1, L, D)), directions)


def left_half() -> str:
    """A mask of the left half of the picture: the columns 0 to 7 of the toy's 16."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    return encode_region(mask.tobytes())


def painted(brightness: float, strength: float = 2.0) -> float:
    """The mean change of the toy's picture, in levels, when a 3 x 3 square changes by strength times brightness."""
    return strength * brightness * 9 / 256 * LEVELS


# ranking -------------------------------------------------------------------------------------------------------------


def test_effects_are_those_of_the_squares(renderer):
    effects = rank(renderer, REQUEST)
    assert [(effect.name, effect.zone) for effect in effects] == [("bright", FORM), ("low", COLOUR), ("dim", FORM)]
    for effect, brightness in zip(effects, (0.05, 0.03, 0.02), strict=True):
        assert effect.total == pytest.approx(painted(brightness), rel=1e-4)
        assert effect.inside == effect.total and effect.inside_share == 1.0
    assert [effect.name for effect in rank(renderer, REQUEST, ["dim", "s0.4", "dim"])] == ["s0.4", "dim"]


def test_a_painted_region_asks_for_what_changes_there(renderer):
    effects = {effect.name: effect for effect in rank(renderer, REQUEST, mask=left_half())}
    assert list(effects) == ["dim", "low", "bright"]  # bright paints the columns 12 to 14
    low, bright = effects["low"], effects["bright"]
    assert low.total == pytest.approx(painted(0.03), rel=1e-4)
    assert low.inside_share == pytest.approx(2 / 3, abs=0.07)  # columns 6 and 7 of 6 to 8
    assert bright.inside_share == pytest.approx(0.0, abs=1e-6) and bright.inside == pytest.approx(0.0, abs=1e-6)
    assert effects["dim"].inside == pytest.approx(2 * painted(0.02), rel=0.05)  # half the pixels, all of the change


def test_channels_are_found_by_gradients_and_told_by_pictures(renderer):
    found = rank(renderer, REQUEST, names=[], mask=left_half(), channels=3)
    spreads = style_spreads(renderer.generator)
    assert {effect.name for effect in found} == {"s0.1", "s1.1", "s2.1"}  # brighter ones lie half outside
    for effect in found:
        index, channel = map(int, effect.name[1:].split("."))
        assert effect.total == pytest.approx(painted(0.01 * (channel + 1) * float(spreads[index][channel])), rel=1e-3)
        assert effect.inside_share > 0.6
    assert [effect.score for effect in found] == sorted((effect.score for effect in found), reverse=True)


def test_steps_tell_how_far_they_are_and_hold_the_lane_for_one_direction_at_a_time(renderer):
    steps = rank_steps(renderer, REQUEST)
    first = next(steps)
    assert first.done == 0 and first.effects == () and renderer.turns == 0
    assert len(next(steps).effects) == 1 and renderer.turns == 1
    rest = list(steps)
    assert rest[-1].done == 1.0 and renderer.turns == 3


def test_effects_are_remembered_by_picture_and_direction(renderer, monkeypatch):
    once = rank(renderer, REQUEST)
    turns = renderer.turns
    assert rank(renderer, REQUEST) == once and renderer.turns == turns
    assert rank(renderer, REQUEST.replace(seed=1)) == once and renderer.turns == turns + 3
    renderer.loaded.directions["dim"] = axis(4, "dim")
    again = {effect.name: effect for effect in rank(renderer, REQUEST)}
    assert again["dim"].total == pytest.approx(again["bright"].total) and renderer.turns == turns + 4
    monkeypatch.setattr(rank_room, "MAX_REMEMBERED", 2)
    for seed in range(2, 6):
        rank(renderer, REQUEST.replace(seed=seed))
    assert len(rank_room._SEEN[renderer]) == 2


def test_strips_show_the_steps(renderer):
    pictures = strip(renderer, REQUEST, "bright", (-10, 0, 10), side=16)
    assert pictures.shape == (3, 16, 16, 3) and pictures.dtype == np.uint8
    square = pictures[:, 1, 13, 0].astype(int)
    assert square[1] - square[0] == pytest.approx(0.5 * LEVELS, abs=1) and square[2] > square[1]
    assert (pictures[:, 8, 8] == pictures[1, 8, 8]).all()
    assert strip(renderer, REQUEST, "s0.4", side=8).shape == (7, 8, 8, 3)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda r: rank(r, REQUEST, ["nothing"]), DirectionError, "no direction 'nothing'"),
    (lambda r: rank(r, REQUEST, ["s9.9"]), DirectionError, "s0.0 to s2.2"),
    (lambda r: rank(r, REQUEST, mask=encode_region(bytes(1024))), DirectionError, "Nothing is painted"),
    (lambda r: rank(r, REQUEST, mask="AAAA"), RequestError, "32 x 32"),
    (lambda r: strip(r, REQUEST, "dim", ()), DirectionError, "1 to 64"),
    (lambda r: strip(r, REQUEST, "dim", side=4000), DirectionError, "8 to 1024")])  # fmt: skip
def test_what_cannot_be_measured_is_refused(renderer, call, error, words):
    with pytest.raises(error, match=words):
        call(renderer)


def test_directions_of_a_real_network_are_ranked_by_what_they_do(tiny_folder):
    renderer = Renderer(tiny_folder)
    request = RenderRequest(model="tiny", seed=1, noise="none")
    found = rank(renderer, request, ["s0.0", "s1.1"], channels=2)
    base = renderer.render(request).pixels.astype(int)
    for effect in found:
        ends = [renderer.render(request.replace(edits=(dataclasses.replace(edit(effect.name), strength=sign * 2.0),)))
                for sign in (-1, 1)]
        true = np.mean([np.abs(end.pixels.astype(int) - base).mean() for end in ends])
        assert effect.total == pytest.approx(true, abs=0.6)
    assert isinstance(found[0], Effect) and 2 <= len(found) <= 4


def edit(name: str):
    """An edit along a direction."""
    from stylegan.request import Edit

    return Edit(name)


# zones ---------------------------------------------------------------------------------------------------------------


def disk(x: float, y: float = 32.0, radius: float = 14.0, inner=(0.6, 0.2, -0.2), outer=(-0.4, -0.3, 0.1)):
    """A soft disk [1, 3, 64, 64] on a plain ground."""
    down, across = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    cover = ((radius - ((across - x) ** 2 + (down - y) ** 2).sqrt()) / 2 + 0.5).clamp(0, 1)
    inner, outer = (torch.tensor(colour)[:, None, None] for colour in (inner, outer))
    return (outer + (inner - outer) * cover)[None]


@pytest.mark.parametrize(("moved", "stays"), [
    (disk(36), False), (disk(32, radius=18), False), (disk(33, 28), False), (disk(32.5), False),
    (disk(32) + 0.15 * (torch.arange(64) % 2 * 2.0 - 1), False), (0.8 * disk(34), False),
    (disk(32, inner=(-0.2, 0.7, 0.3)), True), (disk(32, outer=(0.4, -0.7, 0.1)), True), (disk(32) * 0.5 + 0.2, True),
    (disk(32) + 0.3, True), (-disk(32), True), (disk(32), True)])  # fmt: skip
def test_recolouring_is_told_from_moving(moved, stays):
    share = structure_share(disk(32), torch.cat([moved, moved]))
    assert share < 0.05 if stays else share > 0.9
    grey = structure_share(disk(32)[:, :1], moved[:, :1])
    assert grey < 0.05 if stays else grey > 0.9


def test_the_zone_is_where_most_energy_acts_unless_only_colours_change():
    zones = (FORM, FORM, TEXTURE, COLOUR)
    shifts = [torch.tensor(values) for values in ([1.0, 0.0], [1.0], [1.0, 1.0], [3.0])]
    strengths = [torch.tensor(values) for values in ([1.0, 9.0], [1.0], [1.2, 1.2], [0.1])]
    assert zone_of(zones, shifts, strengths, disk(32), disk(36)) == TEXTURE  # 2.88 against 2 and 0.09
    strengths[1] *= 1.5
    assert zone_of(zones, shifts, strengths, disk(32), disk(36)) == FORM
    assert zone_of(zones, shifts, strengths, disk(32), disk(32, inner=(0.1, 0.9, 0.2))) == COLOUR
    strengths[3] *= 10
    assert zone_of(zones, shifts, strengths, disk(32), disk(36)) == COLOUR


def test_zones_of_layers_follow_the_paper():
    generator = make_tiny(GeneratorConfig(resolution=64, z_dim=16, w_dim=16, channel_base=128, channel_max=8))
    # 4: conv1, torgb; 8: conv0, conv1, torgb; ... 64
    assert style_zones(generator) == [FORM, COLOUR, *[FORM, FORM, COLOUR], *[TEXTURE, TEXTURE, COLOUR] * 2,
                                      *[COLOUR] * 3]
    three = GeneratorConfig(family="stylegan3", resolution=16, z_dim=16, w_dim=16, channel_base=128, channel_max=8)
    zones = style_zones(make_tiny(three))
    assert zones[0] == FORM and zones[-1] == COLOUR and zones == sorted(zones, key=(FORM, TEXTURE, COLOUR).index)


# discovery -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A folder of models of its own, with `tiny` and `classes`."""
    for path in tiny_folder.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    return tmp_path


def wait(discovery: Discovery, name: str, seconds: float = 60.0):
    """The progress of a search once it has ended."""
    end = time.monotonic() + seconds
    while discovery.progress(name).state == RUNNING and time.monotonic() < end:
        time.sleep(0.01)
    return discovery.progress(name)


def test_the_quickest_come_first(folder):
    generator = Renderer(folder).model("classes").generator
    steps = list(discover(generator, class_names=("a cat", "dog", "s1.1x")))
    kinds = [step.directions[0].kind for step in steps if step.directions]
    assert kinds == ["sefa", "pca", "attribute", "channel"] and steps[-1].done == 1.0
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    named = [one.name for step in steps for one in step.directions if one.kind == "attribute"]
    assert named == ["a-cat", "dog", "s1.1x"]
    assert [step.directions[0].kind for step in discover(generator, frozenset({"pca", "attribute"}))
            if step.directions] == ["sefa", "channel"]
    assert usable_names(["a", "A b", "s1.1"]) == () and usable_names(["a b", "a-b"]) == ()


def test_a_model_gets_directions_by_itself(folder):
    renderer = Renderer(folder)
    network = renderer.model("tiny").generator
    discovery = Discovery(renderer)
    assert discovery.progress("tiny").state == "idle"
    discovery.start("tiny")
    discovery.start("tiny")
    end = wait(discovery, "tiny")
    model = renderer.model("tiny")
    assert end.state == DONE and end.found == 16 + 16 + 24 == len(model.directions) and end.done == 1.0
    assert model.generator is network  # the network was not read again
    assert {one.info["source"] for one in model.directions.values()} == {"found"}
    assert {one.kind for one in model.directions.values()} == {"sefa", "pca", "channel"}
    request = RenderRequest(model="tiny", edits=(edit("pca1"), edit("s0.0")))
    renderer.render(request)
    later = Discovery(Renderer(folder))
    later.start("tiny")
    assert wait(later, "tiny").message == "found before" and later.progress("tiny").found == 56
    with pytest.raises(CheckpointError):
        discovery.start("nobody")


def test_a_search_can_be_stopped_and_goes_on_later(folder, monkeypatch):
    renderer = Renderer(folder)
    discovery = Discovery(renderer)
    turns = threading.Semaphore(0)
    real = renderer.turn
    monkeypatch.setattr(renderer, "turn", lambda: (turns.acquire(timeout=30), real())[1])
    discovery.start("tiny")
    turns.release(2)  # SeFa's step and the one before
    while discovery.progress("tiny").found < 16:
        time.sleep(0.01)
    discovery.cancel("tiny")
    turns.release(1)
    end = wait(discovery, "tiny")
    kept = load_directions(cache_path(folder, renderer.model("tiny").hash), channels=True)
    assert end.state == STOPPED and {one.kind for one in kept} <= {"sefa", "pca"} and len(kept) == end.found < 56
    turns.release(100)
    discovery.start("tiny")
    assert wait(discovery, "tiny").found == 56
    discovery.close()
    discovery.start("classes")
    assert discovery.progress("classes").state == "idle"


def test_a_cache_that_cannot_be_written_or_read_is_no_error(folder):
    (folder / ".cache").write_text("in the way")
    renderer = Renderer(folder)
    discovery = Discovery(renderer)
    discovery.start("tiny")
    end = wait(discovery, "tiny")
    assert end.state == DONE and "cannot be written" in end.message and end.found == 56
    (folder / ".cache").unlink()
    path = cache_path(folder, renderer.model("tiny").hash)
    path.parent.mkdir(parents=True)
    path.write_text("damaged")
    fresh = Renderer(folder)
    assert fresh.model("tiny").directions == {} and fresh.model("tiny").problem == ""
    again = Discovery(fresh)
    again.start("tiny")
    assert wait(again, "tiny").found == 56 and len(fresh.model("tiny").directions) == 56


def test_networks_that_cost_too_much_are_not_differentiated(folder, monkeypatch):
    from stylegan.directions import channels as room

    monkeypatch.setattr(room, "MAX_GRADIENT", 8)
    renderer = Renderer(folder)
    discovery = Discovery(renderer)
    discovery.start("tiny")
    assert wait(discovery, "tiny").found == 32
    again = Discovery(Renderer(folder))
    again.start("tiny")
    assert wait(again, "tiny").message == "found before"
    monkeypatch.setattr(room, "channel_strengths", None)
    effects = rank(renderer, RenderRequest(model="tiny"), ["pca1"], channels=3)
    assert [effect.name for effect in effects] == ["pca1"] and effects[0].zone in (FORM, TEXTURE, COLOUR)


def test_a_flat_w_gives_what_it_has(folder):
    generator = Renderer(folder).model("tiny").generator
    with torch.no_grad():
        generator.mapping.fc1.weight[5:] = 0  # five dimensions of 32 are left
    found = [one for step in discover(generator, frozenset({"sefa", "channel"})) for one in step.directions]
    assert [one.name for one in found] == ["pca1", "pca2", "pca3", "pca4"]


def test_a_search_that_fails_says_so(folder, monkeypatch):
    from stylegan.directions import discover as room

    def broken(*arguments, **settings):
        raise DirectionError("This model's W is flat.")

    monkeypatch.setattr(room, "find_sefa", broken)
    discovery = Discovery(Renderer(folder))
    discovery.start("tiny")
    end = wait(discovery, "tiny")
    assert end.state == FAILED and end.message == "This model's W is flat."


# one list from three files -------------------------------------------------------------------------------------------


def test_shipped_come_before_my_own_before_found_ones(folder):
    renderer = Renderer(folder)
    model = renderer.model("tiny")
    size = model.generator.num_ws, model.generator.w_dim

    def some(name: str, value: float, **info) -> Direction:
        return Direction(name, torch.full(size, value), (0, 1), "pca", model.hash, info)

    save_directions(folder / "tiny.directions.safetensors", [some("a", 1.0)])
    save_directions(mine_path(folder / "tiny.safetensors"),
                    [some("a", 2.0, starred=True, note="the best"), some("b", 2.0, starred=True)])
    cache = cache_path(folder, model.hash)
    channel = dataclasses.replace(some("s0.0", 0.0), kind="channel", channels={0: torch.ones(16)}, rows={0: 0})
    save_directions(cache, [some("a", 3.0), some("b", 3.0), some("c", 3.0), channel], channels=True)
    merged = renderer.model("tiny").directions
    values = {name: float(one.vector[0, 0]) for name, one in merged.items()}
    assert values == {"a": 1.0, "b": 2.0, "c": 3.0, "s0.0": 0.0}
    assert [one.info["source"] for one in merged.values()] == ["shipped", "mine", "found", "found"]
    assert merged["a"].info["starred"] and merged["a"].info["note"] == "the best" and merged["b"].info["starred"]
    assert renderer.model("tiny").generator is model.generator and [one.name for one in renderer.models()] == [
        "classes", "tiny"]
    mine_path(folder / "tiny.safetensors").write_text("damaged")
    after = renderer.model("tiny")
    assert "tiny.mine.safetensors is damaged" in after.problem and float(after.directions["b"].vector[0, 0]) == 3.0
