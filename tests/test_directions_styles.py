"""S channels, changes of directions, directions from pictures and from words: closed forms on a linear toy network."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from conftest import TINY, make_tiny, save_tiny
from toys import D, L, StyleToy, Toy

from stylegan.directions.boundaries import Whitening
from stylegan.directions.change import conditioned, merged
from stylegan.directions.channels import channel_strengths, find_channels, top_channels
from stylegan.directions.pictures import analogy, find_difference, find_sorted, gather
from stylegan.directions.population import axis_direction, row_scale, sample_w
from stylegan.directions.styles import (
    channel_direction,
    strongest,
    style_direction,
    style_ranges,
    style_shifts,
    style_spreads,
)
from stylegan.directions.text import OpenClip, search_text, text_way
from stylegan.errors import DirectionError, RequestError
from stylegan.latents import Direction, Latents
from stylegan.networks.config import GeneratorConfig
from stylegan.render import Renderer
from stylegan.request import RenderRequest

SPREAD = torch.linspace(0.5, 3.0, D)


def picture(*values: float, num_ws: int = L) -> Latents:
    """A latent whose w begins with these values."""
    return Latents.from_w(torch.tensor([[*values, *[0.0] * (D - len(values))]]), num_ws)


def step(vector: torch.Tensor, name: str = "d") -> Direction:
    """A direction with the same vector [D] at each layer."""
    return Direction(name, vector.repeat(L, 1).float(), (0, L - 1))


# channels ------------------------------------------------------------------------------------------------------------


def test_spreads_are_those_of_the_population():
    toy = StyleToy(SPREAD)
    spreads = torch.cat(style_spreads(toy))
    assert torch.allclose(spreads, SPREAD, rtol=0.06)
    assert style_spreads(toy) is style_spreads(toy) and style_spreads(StyleToy(SPREAD)) is not style_spreads(toy)
    assert all(float(f"{value:.4e}") == pytest.approx(value, rel=1e-7) for value in spreads.tolist())
    assert style_ranges(toy) == [(0, 0, 5), (1, 2, 4), (2, 3, 3)]


def test_a_channel_moves_by_its_own_standard_deviation():
    toy = StyleToy(SPREAD)
    direction = channel_direction(toy, "s1.2")
    assert direction.layers == (2, 2) and direction.num_channels == 1 and not direction.vector.any()
    before, after = (toy.synthesis.styles(latents.ws, latents.offsets) for latents in
                     (picture(), picture().move(direction, -2.0)))
    moved = [(b - a)[0] for a, b in zip(before, after, strict=True)]
    assert not moved[0].any() and not moved[2].any()
    assert torch.allclose(moved[1], torch.tensor([0, 0, -2 * float(style_spreads(toy)[1][2]), 0]))
    assert float(moved[1][2]) == pytest.approx(-2 * float(SPREAD[7]), rel=0.06)


@pytest.mark.parametrize(("name", "words"), [
    ("s3.0", "s0.0 to s2.2"), ("s0.5", "s0.0 to s0.4"), ("s2.3", "s2.0 to s2.2"), ("smile", "s0.0"),
    ("s9999.99999", "s0.0")])  # fmt: skip
def test_channels_that_do_not_exist_are_refused_with_those_that_do(name, words):
    with pytest.raises(DirectionError, match=words):
        channel_direction(StyleToy(), name)


def test_several_channels_are_calibrated_together():
    toy, w = StyleToy(SPREAD), sample_w(StyleToy(SPREAD), 4000, seed=3)
    shifts = [torch.zeros(5), torch.tensor([0.0, 3.0, 0, 0]), torch.tensor([4.0, 0, 0])]
    direction = style_direction(toy, "two", shifts, "styles", {}, w)
    assert direction.rows == {1: 2, 2: 3} and direction.layers == (2, 3) and direction.info["purity"] == 2
    units = torch.cat(style_shifts(toy, direction))[[6, 9]]
    assert float(units[0] / units[1]) == pytest.approx(0.75, rel=1e-4)
    assert float(units.norm()) == pytest.approx(1.0, rel=0.06)  # two independent channels of unit spread
    same = StyleToy(SPREAD, [torch.eye(D)[[3] * 5], torch.eye(D)[[3] * 4], torch.eye(D)[5:8]])
    direction = style_direction(same, "tied", shifts[:1] + [torch.ones(4), torch.zeros(3)], "styles", {}, w)
    moved = torch.cat(style_shifts(same, direction))
    assert torch.allclose(moved[5:9], torch.ones(4), rtol=0.06)  # tied channels: all go by their own deviation
    with pytest.raises(DirectionError, match="moves no channel"):
        style_direction(toy, "none", [torch.zeros(5), torch.zeros(4), torch.zeros(3)], "styles", {}, w)


def test_strongest_keeps_signs_and_number():
    kept = strongest([torch.tensor([1.0, -5.0]), torch.tensor([3.0])], 2)
    assert [part.tolist() for part in kept] == [[0.0, -5.0], [3.0]]


def test_gradients_measure_what_channels_paint():
    toy = StyleToy(SPREAD)
    runs = [channel_strengths(toy, picture(), torch.ones(16, 16), seed=seed) for seed in range(20)]
    mean = torch.stack([torch.cat(run).square() for run in runs]).mean(0).sqrt()
    brightness = torch.cat([0.01 * torch.arange(1, num + 1) for num in (5, 4, 3)])
    truth = brightness * math.sqrt(3 * 9) * torch.cat(style_spreads(toy))
    assert torch.allclose(mean, truth, rtol=0.25)
    left = torch.zeros(16, 16)
    left[:, :3] = 1.0
    inside = channel_strengths(toy, picture(), left)
    assert {name for name, _ in top_channels(inside, 3)} == {"s0.0", "s1.0", "s2.0"}
    assert all(not strength[1:].any() for strength in inside)


@pytest.mark.parametrize("config", [
    TINY, dataclasses.replace(TINY, architecture="resnet"),
    GeneratorConfig(family="stylegan1", resolution=16, z_dim=32, w_dim=32, channel_base=256, channel_max=16),
    GeneratorConfig(family="stylegan3", resolution=16, z_dim=32, w_dim=32, channel_base=256, channel_max=16),
])  # fmt: skip
def test_gradients_agree_with_pictures_in_every_family(config):
    generator = make_tiny(config)
    base = generator.map(torch.randn(1, 32, generator=torch.Generator().manual_seed(1)))
    runs = [channel_strengths(generator, base, torch.ones(16, 16), seed=seed) for seed in range(8)]
    guess = [torch.stack(parts).square().mean(0).sqrt() for parts in zip(*runs, strict=True)]

    def change(name):
        ends = [generator.synthesize(base.move(channel_direction(generator, name), sign * 0.02)) for sign in (-1, 1)]
        return float((ends[1] - ends[0]).norm() / 0.04)

    ranges = style_ranges(generator)
    names = [(index, channel) for index, _, width in ranges for channel in range(0, width, 5)]
    true = torch.tensor([change(f"s{index}.{channel}") for index, channel in names])
    guessed = torch.tensor([float(guess[index][channel]) for index, channel in names])
    assert float(torch.corrcoef(torch.stack([true, guessed]))[0, 1]) > 0.9
    assert float(guessed.norm() / true.norm()) == pytest.approx(1.0, abs=0.15)


def test_the_strongest_channels_come_first():
    found = find_channels(StyleToy(SPREAD), num=3, pictures=4)
    assert {direction.name for direction in found} == {"s0.4", "s1.3", "s2.2"}
    assert found[0].info["change"] >= found[1].info["change"] >= found[2].info["change"] > 0


def test_a_request_moves_channels_by_their_name(tmp_path):
    save_tiny(tmp_path / "tiny.safetensors")
    renderer = Renderer(tmp_path)
    plain = RenderRequest(model="tiny", seed=2)
    edit = plain.replace(edits=(stylegan_edit("s3.1=4"),))
    generator = renderer.model("tiny").generator
    expected = renderer.latents(plain).move(channel_direction(generator, "s3.1"), 4.0)
    assert torch.equal(renderer.latents(edit).offsets[3], expected.offsets[3])
    assert (renderer.render(edit).pixels != renderer.render(plain).pixels).any()
    with pytest.raises(DirectionError, match="s99.0"):
        renderer.render(plain.replace(edits=(stylegan_edit("s99.0"),)))


def stylegan_edit(text: str):
    """An edit from its text."""
    from stylegan.request import Edit

    return Edit.parse(text)


# changes -------------------------------------------------------------------------------------------------------------


def test_rows_that_differ_are_calibrated_like_equal_ones():
    w = torch.randn(5000, D, generator=torch.Generator().manual_seed(0)) * SPREAD
    axis = torch.zeros(D)
    axis[3] = 7.0
    equal = axis.repeat(L, 1)
    assert float((equal * row_scale(equal, w))[0].norm()) == pytest.approx(float(SPREAD[3]), rel=0.03)
    single = torch.zeros(L, D)
    single[1] = axis
    assert float((single * row_scale(single, w)).norm()) == pytest.approx(float(SPREAD[3]), rel=0.03)
    with pytest.raises(DirectionError, match="zero"):
        row_scale(torch.zeros(L, D), w)


def test_conditioning_frees_a_direction_in_the_populations_own_metric():
    toy, w = StyleToy(SPREAD), sample_w(StyleToy(SPREAD), 4000)
    metric = Whitening.of(w).forward
    a, b = step(SPREAD * torch.arange(1.0, D + 1), "a"), step(SPREAD.flip(0), "b")
    free = conditioned(toy, a, [b, channel_direction(toy, "s1.2")], w)
    assert free.info["against"] == ["b", "s1.2"]
    for row in range(L):
        crossing = (free.vector[row].double() @ metric) @ (b.vector[row].double() @ metric)
        assert abs(float(crossing)) < 1e-4
    assert abs(float(free.vector[2][7])) < 1e-5 < abs(float(free.vector[1][7]))  # the channel is of layer 2 only
    assert conditioned(toy, a, []) is a
    scale = row_scale(free.vector, w)
    assert scale == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(DirectionError, match="Nothing is left of a"):
        conditioned(toy, a, [dataclasses.replace(a, name="again")], w)


def test_conditioning_of_channels_stays_on_its_channels():
    toy = StyleToy()
    w = sample_w(toy, 2000)
    shifts = [torch.tensor([1.0, 1, 0, 0, 0]), torch.zeros(4), torch.tensor([1.0, 0, 0])]
    three = style_direction(toy, "three", shifts, "styles", {}, w)
    free = conditioned(toy, three, [channel_direction(toy, "s0.1")], w)
    moved = torch.cat(style_shifts(toy, free))
    assert moved.nonzero().flatten().tolist() == [0, 9] and float(moved[0]) == pytest.approx(float(moved[9]), rel=1e-4)
    assert float(moved.norm()) == pytest.approx(1.0, rel=0.06)
    with pytest.raises(DirectionError, match="Nothing is left"):
        conditioned(toy, channel_direction(toy, "s0.1"), [three], w)


def test_merging_adds_each_on_its_own_layers():
    toy = StyleToy(SPREAD)
    axes = [axis_direction(name, torch.eye(D)[axis], sample_w(toy, 4000), L, "pca", {}) for name, axis in
            (("a", 2), ("b", 6))]
    a = dataclasses.replace(axes[0], layers=(0, 1), model_hash="x")
    both = merged(toy, a, axes[1], "both", (2.0, -1.0))
    assert both.layers == (0, L - 1) and both.kind == "merged" and "2 a + -1 b" in both.info["method"]
    assert not both.vector[2:, 2].any() and both.vector[0, 2] > 0 > both.vector[0, 6]
    assert float(both.vector[0, 2] / both.vector[0, 6]) == pytest.approx(-2 * float(SPREAD[2] / SPREAD[6]), rel=0.05)
    mixed = merged(toy, a, channel_direction(toy, "s2.0"), "mixed")
    assert mixed.channels and mixed.vector.any() and mixed.model_hash == "x"
    assert float(torch.cat(style_shifts(toy, mixed)).norm()) == pytest.approx(1.0, rel=0.06)
    with pytest.raises(DirectionError, match="zero"):
        merged(toy, axes[0], axes[0], "none", (1.0, -1.0))
    with pytest.raises(DirectionError, match="different models"):
        merged(toy, a, dataclasses.replace(axes[1], model_hash="y"), "both")


# pictures ------------------------------------------------------------------------------------------------------------


def test_the_difference_leads_from_one_picture_to_the_other():
    toy = StyleToy(SPREAD)
    a, b = picture(3.0, 1.0), picture(0.0, -1.0)
    found = find_difference(toy, a, b)
    there = b.move(found, found.info["distance"])
    assert torch.allclose(there.ws, a.ws, atol=1e-2) and found.kind == "difference"
    shifted = a.move(channel_direction(toy, "s2.1"), 1.5)
    only = find_difference(toy, shifted, a)
    assert only.rows == {2: 3} and not only.vector.any() and only.info["distance"] == pytest.approx(1.5, rel=0.06)
    group = find_difference(toy, gather([a, shifted]), b)
    assert group.vector.any() and group.channels and group.info["pictures"] == [2, 1]
    free = find_difference(toy, a, b, against=[step(torch.eye(D)[0], "first")])
    assert abs(float(free.vector[0, 0])) < 0.05 * float(free.vector[0, 1])
    with pytest.raises(DirectionError, match="same latent"):
        find_difference(toy, a, a)


def test_the_laws_of_analogies():
    toy = StyleToy()
    a, b, c = picture(1.0), picture(0.0, 2.0).move(channel_direction(toy, "s0.3"), 1.0), picture(5.0, 5.0)
    assert torch.equal(analogy(a, a, c).ws, c.ws)
    assert torch.equal(analogy(a, b, a).ws, b.ws) and torch.equal(analogy(a, b, a).offsets[0], b.offsets[0])
    assert torch.allclose(analogy(b, a, analogy(a, b, c)).ws, c.ws)
    way = channel_direction(toy, "s0.3")
    shifted = analogy(a.move(way, 2.0), a.move(way, 1.0), c.move(way, 5.0)).offsets[0]
    assert torch.allclose(shifted, 4 * way.channels[0][None], atol=1e-5)
    with pytest.raises(RequestError, match="same model"):
        analogy(a, b, picture(num_ws=L + 1))
    with pytest.raises(RequestError, match="gathered"):
        gather([])


class Wide(Toy):
    """A toy of 60 dimensions, of which the styles see four strongly and the rest hardly."""

    z_dim = w_dim = 60

    def __init__(self) -> None:
        super().__init__(torch.ones(60))
        self.w_avg = torch.zeros(60)
        self.seen = torch.ones(60) * 0.05
        self.seen[:4] = 1.0

    def style_weights(self):
        return [(row, torch.diag(self.seen)) for row in range(L)]


def sorted_pictures(truth: torch.Tensor, num: int, seed: int) -> tuple[Latents, Latents]:
    """Random pictures of the wide toy, sorted by the sign of truth . w."""
    w = torch.randn(400, 60, generator=torch.Generator().manual_seed(seed))
    scores = w @ truth
    yes, no = w[scores > 0][:num], w[scores < 0][:num]
    return Latents.from_w(yes, L), Latents.from_w(no, L)


def test_twenty_sorted_pictures_are_enough_when_styles_say_what_is_seen():
    truth = torch.zeros(60)
    truth[1], truth[2] = 0.6, 0.8
    angles, plain = [], []
    for seed in range(6):
        yes, no = sorted_pictures(truth, 10, seed)
        found = find_sorted(Wide(), yes, no)
        angles.append(float(torch.cosine_similarity(found.vector[0], truth, dim=0)))
        plain.append(float(torch.cosine_similarity((yes.ws.mean(0) - no.ws.mean(0))[0], truth, dim=0)))
        assert found.info["space"] == "W" and found.info["pictures"] == [10, 10]
        w = sample_w(Wide(), 4000)
        assert float((w @ found.vector[0] / found.vector[0].square().sum()).std()) == pytest.approx(1.0, rel=0.01)
    assert min(angles) > 0.75 and sum(angles) / 6 > 0.85 and sum(plain) / 6 < 0.6


def test_separation_is_told_on_pictures_that_were_left_out():
    truth = torch.eye(60)[0]
    yes, no = sorted_pictures(truth, 20, 1)
    assert find_sorted(Wide(), yes, no).info["separation"] > 0.8
    idle = []
    for seed in range(6):
        w = Latents.from_w(torch.randn(12, 60, generator=torch.Generator().manual_seed(seed)), L)
        idle.append(find_sorted(Wide(), w[:6], w[6:]).info["separation"])
    assert sum(idle) / 6 < 0.55  # sorted by nothing at all
    for pair in ((yes[:1], no), (yes, no[:1])):
        with pytest.raises(DirectionError, match="at least 2"):
            find_sorted(Wide(), *pair)


def test_pictures_with_layers_of_their_own_are_sorted_layer_by_layer():
    toy = StyleToy()
    generator = torch.Generator().manual_seed(0)
    yes, no = (torch.randn(12, L, D, generator=generator) * 0.3 for _ in range(2))
    yes[:, 2, 6] += 3.0  # only layer 2, what its second channel sees
    found = find_sorted(toy, Latents(yes), Latents(no))
    assert found.info["space"] == "W+" and found.info["separation"] > 0.95
    largest = int(found.vector.abs().argmax())
    assert (largest // D, largest % D) == (2, 6) and float(found.vector[2].norm()) > 5 * float(found.vector[0].norm())


def test_sorted_channels_are_the_ones_that_tell_apart():
    toy = StyleToy(SPREAD)
    w = sample_w(toy, 200, seed=4)
    yes, no = (Latents.from_w(w[chosen][:10], L) for chosen in (w[:, 6] > 0.5, w[:, 6] < -0.5))
    found = find_sorted(toy, yes, no, num_channels=1)
    assert found.kind == "styles" and found.rows == {1: 2} and found.channels[1].nonzero().flatten().tolist() == [1]
    assert float(found.channels[1][1]) == pytest.approx(float(SPREAD[6]), rel=0.06)  # one deviation, and upwards
    eye = torch.eye(D)
    hidden = StyleToy(SPREAD, [eye[[6] * 5], eye[5:9], eye[9:12]])
    hidden.synthesis.painters[0].patterns[:] = 0  # five channels that tell them apart just as well, and paint nothing
    assert find_sorted(hidden, yes, no, num_channels=1).rows == {1: 2}
    with pytest.raises(DirectionError, match="at least 1"):
        find_sorted(toy, yes, no, num_channels=0)


# words ---------------------------------------------------------------------------------------------------------------


class Words:
    """An encoder that sees how bright the first three squares of the first row are, and knows a word for each."""

    NAMES = ("red", "green", "blue")

    def images(self, image):
        seen = torch.stack([image[:, :, 0:3, 3 * c : 3 * c + 3].mean((1, 2, 3)) for c in range(3)], 1)
        return torch.nn.functional.normalize(torch.cat([20 * seen, torch.ones(len(image), 1)], 1), dim=1)

    def texts(self, texts):
        rows = [[1.0 * (name in text) for name in self.NAMES] + [1.0] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def test_words_move_the_channels_that_mean_them():
    toy = StyleToy()
    steps = list(search_text(toy, Words(), "green", "a picture", num_channels=1, pictures=4, psi=0.5))
    found = steps[-1].direction
    assert found.rows == {0: 0} and found.channels[0].nonzero().flatten().tolist() == [1]
    assert float(found.channels[0][1]) == pytest.approx(1.0, rel=0.06) and found.info["gain"] > 0
    assert [one.done for one in steps] == sorted(one.done for one in steps) and steps[-1].done == 1.0
    *_, last = search_text(toy, Words(), "green and blue", "red", num_channels=3, pictures=4, psi=0.5)
    red, green, blue = last.direction.channels[0][:3].tolist()
    assert red < 0 < green and blue > 0 and last.direction.info["purity"] == 3 and last.direction.kind == "text"


def test_words_that_say_nothing_are_refused():
    for target, words in (("green", "mean the same"), ("", "1 to 200"), ("x\ny", "one line"), ("x" * 201, "1 to 200")):
        with pytest.raises(DirectionError, match=words):
            list(search_text(StyleToy(), Words(), target, "green"))
    blind = StyleToy()
    blind.synthesis.painters[0].patterns.zero_()
    with pytest.raises(DirectionError, match="No channel"):
        list(search_text(blind, Words(), "green", pictures=2))
    grey = StyleToy()
    grey.img_channels = 1
    with pytest.raises(DirectionError, match="colour"):
        list(search_text(grey, Words(), "green"))
    assert float(text_way(Words(), "red", "x").norm()) == pytest.approx(1.0)


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(DirectionError, match="pip install open_clip_torch"):
        OpenClip(tmp_path / "weights.pt")
