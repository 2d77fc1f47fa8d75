"""The Renderer: same request, same picture; newest wins; models come and go."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_CLASSES, make_tiny, save_tiny

from stylegan.checkpoint.file import model_hash
from stylegan.directions.store import directions_path, save_directions
from stylegan.errors import CheckpointError, DirectionError, RequestError
from stylegan.lane import Lane
from stylegan.latents import Direction, Latents
from stylegan.pixels import load_pixels, read_request, save_png, to_pixels
from stylegan.render import Renderer
from stylegan.request import Edit, Mix, RenderRequest, Transform, encode_ws
from stylegan.seeds import z_of

REQUEST = RenderRequest(model="tiny", seed=3, psi=0.7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `tiny`, which has two directions, and `classes`."""
    folder = tmp_path_factory.mktemp("models")
    path = save_tiny(folder / "tiny.safetensors")
    save_tiny(folder / "classes.safetensors", TINY_CLASSES, seed=1)
    ways = torch.randn(2, TINY.num_ws, TINY.w_dim, generator=torch.Generator().manual_seed(5))
    save_directions(directions_path(path), [Direction(name, vector, (0, 5), "pca", model_hash(path))
                                            for name, vector in zip(("smile", "age"), ways, strict=True)])
    return folder


@pytest.fixture(scope="module")
def renderer(folder):
    """A renderer of that folder."""
    return Renderer(folder, device="cpu")


def w_plus(result) -> str:
    """The W+ of a result as a request takes it."""
    return encode_ws(result.latents.ws[0].numpy().astype("<f4").tobytes())


def test_a_request_is_what_the_generator_says(renderer, folder, tiny_generator):
    result = renderer.render(REQUEST)
    latents = tiny_generator.map(z_of(3, 32)).truncate(tiny_generator.w_avg, 0.7)
    exact = to_pixels(tiny_generator.synthesize(latents))[0]
    assert np.abs(result.pixels.astype(int) - exact).max() <= 1  # the engine sums in another order
    assert result.pixels.shape == (16, 16, 3) and result.pixels.dtype == np.uint8
    assert torch.equal(result.latents.ws, latents.ws)
    assert result.request == REQUEST.replace(model_hash=model_hash(folder / "tiny.safetensors"))
    assert result.seconds > 0 and result.path == "torch float32" and not result.preview


@pytest.mark.parametrize("changes", [
    {}, {"noise": "none"}, {"noise": "random", "noise_seed": 4}, {"noise_strength": 3.0}, {"psi": 1.0}, {"cutoff": 2},
    {"dx": 0.5}, {"dy": 0.5}, {"seed": 4}, {"mix": (Mix(seed=9, weight=0.5, layers=(0, 2)),)},
    {"edits": (Edit("smile", 2.0),)}, {"edits": (Edit("smile", 2.0, (0, 1)),)}, {"edits": (Edit("age", 2.0),)},
])  # fmt: skip
def test_same_request_same_picture_and_every_setting_counts(folder, renderer, changes):
    request = REQUEST.replace(**changes)
    first = renderer.render(request).pixels
    renderer.render(REQUEST.replace(seed=77, noise="random"))
    np.testing.assert_array_equal(first, renderer.render(request).pixels)
    np.testing.assert_array_equal(first, Renderer(folder, "cpu").render(request).pixels)
    assert (first != renderer.render(REQUEST).pixels).any() == bool(changes)


def test_many_are_as_alone(renderer):
    requests = [RenderRequest(model="tiny", seed=seed, noise="random") for seed in range(5)]
    for request, result in zip(requests, renderer.render_many(requests), strict=True):
        np.testing.assert_array_equal(result.pixels, renderer.render(request).pixels)


def test_rendering_does_not_depend_on_the_global_random_state(renderer):
    request = REQUEST.replace(noise="random")
    before = torch.random.get_rng_state()
    first = renderer.render(request).pixels
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first, renderer.render(request).pixels)


def test_the_plane_is_bilinear_in_w(renderer):
    def w(**changes):
        return renderer.latents(RenderRequest(model="tiny", **changes)).ws

    expected = (0.75 * 0.4 * w(seed=7) + 0.25 * 0.4 * w(seed=8) + 0.75 * 0.6 * w(seed=107) + 0.25 * 0.6 * w(seed=108))
    assert torch.allclose(w(seed=7, dx=0.25, dy=0.6), expected, atol=1e-5)


def test_mixes_are_truncated_and_follow_their_order(renderer):
    base, other = (renderer.latents(REQUEST.replace(seed=seed)) for seed in (3, 9))
    mixes = (Mix(seed=9, weight=0.5, layers=(0, 2)), Mix(seed=3, weight=1.0, layers=(2, 2)))
    expected = base.mix(other, 0.5, (0, 1))
    assert torch.equal(renderer.latents(REQUEST.replace(mix=mixes)).ws, expected.ws)
    assert torch.equal(renderer.latents(REQUEST.replace(mix=(Mix(seed=9),))).ws, other.ws)


def test_edits_come_last_and_can_be_off(renderer):
    base = renderer.latents(REQUEST)
    smile = renderer.model("tiny").directions["smile"]
    edits = (Edit("smile", 1.5, (0, 3)), Edit("age", 3.0, enabled=False), Edit("unknown", enabled=False))
    assert torch.equal(renderer.latents(REQUEST.replace(edits=edits)).ws, base.move(smile, 1.5, (0, 3)).ws)


def test_a_given_latent_replaces_seed_and_psi(renderer):
    source = renderer.render(REQUEST.replace(mix=(Mix(seed=9, weight=0.5),)))
    request = RenderRequest(model="tiny", seed=50, psi=0.1, ws=w_plus(source))
    np.testing.assert_array_equal(renderer.render(request).pixels, source.pixels)
    mixed = RenderRequest(model="tiny", seed=50, psi=0.1, mix=(Mix(ws=w_plus(source)),))
    np.testing.assert_array_equal(renderer.render(mixed).pixels, source.pixels)


def test_classes_count_and_the_first_is_the_default(renderer):
    pictures = [renderer.render(RenderRequest(model="classes", label=label)) for label in (None, 0, 1)]
    assert [result.request.label for result in pictures] == [0, 0, 1]
    np.testing.assert_array_equal(pictures[0].pixels, pictures[1].pixels)
    assert (pictures[1].pixels != pictures[2].pixels).any()
    crossed = renderer.render(RenderRequest(model="classes", label=0, mix=(Mix(seed=0, label=1),)))
    np.testing.assert_array_equal(crossed.pixels, pictures[2].pixels)


@pytest.mark.parametrize(("request_", "kind", "words"), [
    (REQUEST.replace(label=0), RequestError, "has no classes"),
    (REQUEST.replace(mix=(Mix(seed=1, label=0),)), RequestError, "has no classes"),
    (RenderRequest(model="classes", label=3), RequestError, "classes 0 to 2"),
    (REQUEST.replace(cutoff=7), RequestError, "between 0 and 6"),
    (REQUEST.replace(mix=(Mix(seed=1, layers=(0, 6)),)), RequestError, "layers 0 to 5"),
    (REQUEST.replace(edits=(Edit("smile", 1.0, (6, 6)),)), RequestError, "layers 0 to 5"),
    (REQUEST.replace(edits=(Edit("frown"),)), DirectionError, "no direction 'frown'; there are: smile, age"),
    (RenderRequest(model="classes", edits=(Edit("smile"),)), DirectionError, "it has none"),
    (REQUEST.replace(transform=Transform(rotate=10)), RequestError, "StyleGAN3"),
    (REQUEST.replace(ws="AAAAAA=="), RequestError, "6 layers of 32"),
    (REQUEST.replace(ws=encode_ws(np.full(6 * 32, np.nan, "<f4").tobytes())), RequestError, "not finite"),
    (RenderRequest(model="none"), CheckpointError, "No model 'none'"),
])  # fmt: skip
def test_what_cannot_be_rendered(renderer, request_, kind, words):
    with pytest.raises(kind, match=words):
        renderer.render(request_)
    assert renderer.render(REQUEST).pixels.any()


def test_a_saved_picture_proves_itself(renderer, tmp_path):
    other = Mix(ws=w_plus(renderer.render(REQUEST)), weight=0.5)
    result = renderer.render(REQUEST.replace(seed=8, edits=(Edit("smile", 1.0),), mix=(other,)))
    path = save_png(tmp_path / "x.png", result.pixels, result.request)
    assert renderer.verify(read_request(path), load_pixels(path)) is None


def test_verify_says_why_not(renderer):
    result = renderer.render(REQUEST)
    touched = result.pixels.copy()
    touched[0, 0, 0] ^= 128
    near = result.pixels ^ 1
    for request, pixels, words in [
        (result.request, touched, "changed after it was saved"),
        (result.request, near, "different machines"),
        (result.request, result.pixels[:8], "resized or converted: it is 16x8"),
        (result.request.replace(model="gone"), result.pixels, "No model 'gone'"),
        (result.request.replace(model_hash="0" * 64), result.pixels, "another model named 'tiny'"),
        (result.request.replace(edits=(Edit("frown"),)), result.pixels, "no direction 'frown'"),
    ]:
        sentence = renderer.verify(request, pixels)
        assert words in sentence and sentence.endswith(".")


def test_another_model_of_that_name_is_rendered_under_its_true_hash(renderer):
    result = renderer.render(REQUEST.replace(model_hash="0" * 64))
    assert result.request.model_hash == renderer.model("tiny").hash


def test_a_replaced_model_is_loaded_anew(tmp_path):
    path = save_tiny(tmp_path / "tiny.safetensors")
    renderer = Renderer(tmp_path, "cpu")
    before = renderer.render(REQUEST)
    assert renderer.model("tiny") is renderer.model(str(path))
    save_tiny(path, seed=1)
    after = renderer.render(REQUEST)
    assert after.request.model_hash != before.request.model_hash and (after.pixels != before.pixels).any()
    assert len(renderer._models) == 1


def test_directions_appear_and_stale_ones_do_no_harm(tmp_path):
    path = save_tiny(tmp_path / "tiny.safetensors")
    renderer = Renderer(tmp_path, "cpu")
    assert renderer.model("tiny").directions == {}
    way = Direction("smile", torch.ones(TINY.num_ws, TINY.w_dim), (0, 5), "pca", model_hash(path))
    save_directions(directions_path(path), [way])
    assert list(renderer.model("tiny").directions) == ["smile"]
    save_tiny(path, seed=1)
    assert renderer.model("tiny").directions == {} and renderer.model("tiny").problem
    assert renderer.render(REQUEST).pixels.any()
    with pytest.raises(DirectionError, match="another model"):
        renderer.render(REQUEST.replace(edits=(Edit("smile"),)))


def test_few_models_stay_in_memory(tmp_path):
    for name in "abc":
        save_tiny(tmp_path / f"{name}.safetensors", seed=ord(name))
    renderer = Renderer(tmp_path, "cpu", max_bytes=2 * Renderer(tmp_path, "cpu").model("a").num_bytes)
    a = renderer.model("a")
    renderer.model("b")
    assert renderer.model("a") is a
    renderer.model("c")
    assert renderer._models.names == ["a", "c"]
    assert [entry.name for entry in renderer.models()] == ["a", "b", "c"]


def test_roots_reach_the_folder(tmp_path, folder):
    outside = save_tiny(tmp_path / "x.safetensors")
    assert Renderer(folder, "cpu").model(str(outside)).name == "x"
    with pytest.raises(CheckpointError, match="No model"):
        Renderer(folder, "cpu", roots=()).model(str(outside))


def test_threads_may_share_a_renderer(renderer):
    requests = [RenderRequest(model=model, seed=seed) for seed in range(4) for model in ("tiny", "classes")]
    expected = [renderer.render(request).pixels for request in requests]
    found = [None] * len(requests)
    fresh = Renderer(renderer.folder.path, "cpu", max_bytes=1)

    def work(index):
        found[index] = fresh.render(requests[index]).pixels

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_hand_that_drags_gets_the_newest(renderer):
    results, threads = {}, []

    def call(seed, session):
        results[seed] = renderer.live(session, REQUEST.replace(seed=seed))

    with renderer._lane.turn():
        for seed, session in [(1, "ann"), (2, "bob"), (3, "ann"), (4, "ann")]:
            before = dict(renderer._lane._waiting)
            threads.append(threading.Thread(target=call, args=(seed, session)))
            threads[-1].start()
            wait_until(lambda before=before: dict(renderer._lane._waiting) != before)
    for thread in threads:
        thread.join(timeout=30)
    assert results[1] is None and results[3] is None
    assert results[4].request.seed == 4 and results[2].request.seed == 2


def test_calls_that_arrive_out_of_order_are_dropped(renderer):
    assert renderer.live("eve", REQUEST.replace(seed=5), sequence=5).request.seed == 5
    assert renderer.live("eve", REQUEST.replace(seed=4), sequence=4) is None
    assert renderer.live("eve", REQUEST.replace(seed=6), sequence=6).request.seed == 6
    assert renderer.live("dan", REQUEST, sequence=1) is not None


def test_a_fault_frees_the_lane(renderer):
    with pytest.raises(RequestError):
        renderer.live("ann", REQUEST.replace(cutoff=99))
    assert renderer.live("ann", REQUEST) is not None


def wait_until(condition, seconds=10):
    """Wait for another thread, at most `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the other thread never came"
        time.sleep(0.001)


def test_lane_order_is_fair_between_sessions():
    lane, order, threads = Lane(), [], []

    def call(session, name):
        with lane.turn(session) as mine:
            order.append(name if mine else f"{name} dropped")

    with lane.turn():
        for session, name, waiting in [("ann", "ann 1", 1), (None, "save", 2), ("bob", "bob 1", 3), ("ann", "ann 2", 3),
                                       ("bob", "bob 2", 3), (None, "sheet", 4), ("ann", "ann 3", 4)]:
            before = dict(lane._waiting)
            threads.append(threading.Thread(target=call, args=(session, name)))
            threads[-1].start()
            wait_until(lambda before=before: dict(lane._waiting) != before)
            assert len(lane._waiting) == waiting
        wait_until(lambda: len(order) == 3)
        assert sorted(order) == ["ann 1 dropped", "ann 2 dropped", "bob 1 dropped"]
    for thread in threads:
        thread.join(timeout=10)
    assert order[3:] == ["ann 3", "save", "bob 2", "sheet"]


def test_lane_lets_one_in_at_a_time():
    lane, inside, most = Lane(), [], []

    def call():
        for _ in range(20):
            with lane.turn():
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.pop()

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(most) == 120 and max(most) == 1 and not lane._waiting


def test_lane_forgets_old_sessions():
    lane = Lane()
    for number in range(3000):
        with lane.turn(number, sequence=1) as mine:
            assert mine
    assert len(lane._newest) <= 1024 and not lane._waiting


def test_latents_are_frozen_values(renderer):
    result = renderer.render(REQUEST)
    result.latents.ws.add_(5)
    np.testing.assert_array_equal(renderer.render(REQUEST).pixels, result.pixels)
    assert isinstance(renderer.latents(REQUEST), Latents)
    assert make_tiny().num_ws == renderer.latents(REQUEST).num_ws
