"""Directions: closed forms on a toy model whose W is known, calibration, conditioning, measured effects."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch
from toys import LAYER_OF, NAMES, NORMALS, D, L, StyleToy, Toy, labelled

from stylegan.directions.attributes import _idle, find_attributes, search_attributes
from stylegan.directions.boundaries import Whitening, condition, fit_normal
from stylegan.directions.classes import find_classes
from stylegan.directions.classifier import AttributeTable, auc, read_attributes
from stylegan.directions.effects import Probe, narrow_layers
from stylegan.directions.pca import find_pca
from stylegan.directions.population import calibrated, sample_w
from stylegan.directions.sefa import find_sefa
from stylegan.directions.styles import channel_direction
from stylegan.errors import DirectionError
from stylegan.latents import Direction, Latents


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=0)))))


def test_pca_finds_the_planted_axes_in_order_and_their_spread():
    spread = torch.full((D,), 0.1)
    spread[4], spread[7] = 3.0, 2.0
    first, second = find_pca(Toy(spread), num=2, samples=4000)
    assert degrees(first.vector[0], torch.eye(D)[4]) < 2 and degrees(second.vector[0], torch.eye(D)[7]) < 2
    assert float(first.vector[0].norm()) == pytest.approx(3.0, rel=0.05)
    assert first.layers == (0, L - 1) and torch.equal(first.vector[0], first.vector[L - 1])
    assert first.info["share"] == pytest.approx(9 / (9 + 4 + 10 * 0.01), rel=0.05)


def test_pca_depends_on_nothing_but_its_seed_and_fixes_signs(tiny_generator):
    once, again = find_pca(tiny_generator, 4, 500, seed=3), find_pca(tiny_generator, 4, 500, seed=3)
    assert all(torch.equal(a.vector, b.vector) for a, b in zip(once, again, strict=True))
    for direction in once:
        axis = direction.vector[0]
        assert axis[axis.abs().argmax()] > 0


def test_too_many_components_are_refused(tiny_generator):
    with pytest.raises(DirectionError, match="32 dimensions"):
        find_pca(tiny_generator, num=33, samples=100)
    flat = torch.zeros(D)
    flat[0] = 1.0
    with pytest.raises(DirectionError, match="fewer than 2"):
        find_pca(Toy(flat), num=2, samples=100)


def test_sefa_finds_the_planted_weights_by_layer():
    best, second = find_sefa(Toy(), num=2, layers=(0, 1))
    assert degrees(best.vector[0], torch.eye(D)[3]) < 0.1 and degrees(second.vector[0], torch.eye(D)[5]) < 0.1
    assert best.layers == (0, 1) and best.info["share"] == pytest.approx(25.25 / (25.25 + 4 + 0.75), rel=1e-3)
    assert degrees(find_sefa(Toy(), num=1)[0].vector[0], torch.eye(D)[7]) < 0.1  # the last layer joins in
    with pytest.raises(DirectionError, match="0-3"):
        find_sefa(Toy(), layers=(2, 4))


@pytest.mark.parametrize("find", [find_pca, find_sefa])
def test_strength_one_is_one_standard_deviation(tiny_generator, find):
    w = sample_w(tiny_generator, 4000, seed=5)
    for direction in find(tiny_generator, num=3, samples=4000, seed=5):
        vector = direction.vector[0]
        assert float((w @ vector / vector.square().sum()).std()) == pytest.approx(1.0, abs=1e-3)


def test_a_zero_axis_cannot_be_calibrated():
    with pytest.raises(DirectionError, match="zero or not finite"):
        calibrated(torch.zeros(D), torch.randn(10, D))


def test_boundaries_are_recovered_within_a_few_degrees():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4000, D, generator=generator)
    noisy = points @ NORMALS[1] * 3 + torch.randn(4000, generator=generator)
    assert degrees(fit_normal(points, noisy), NORMALS[1]) < 3
    assert degrees(fit_normal(points + 7, noisy - 5), NORMALS[1]) < 3  # neither need be centred
    assert degrees(fit_normal(points, (10 * noisy).clamp(-6, 6)), NORMALS[1]) < 5  # logits of a judge that is sure
    rare = (10 * noisy - 50).clamp(-6, 6)
    assert (rare > 0).float().mean() < 0.1 and degrees(fit_normal(points, rare), NORMALS[1]) < 6


def test_conditioning_leaves_the_others_alone_and_keeps_what_it_can():
    free = condition(NORMALS[0], NORMALS[1:])
    assert torch.allclose(NORMALS[1:] @ free, torch.zeros(2), atol=1e-6)
    assert float(free.norm()) == pytest.approx(math.sin(math.acos(0.6)), abs=1e-5)
    assert torch.equal(condition(NORMALS[2], torch.zeros(0, D)), NORMALS[2])
    twice = torch.cat([NORMALS[1:], NORMALS[1:] * 5])  # repeated conditions change nothing
    assert torch.allclose(condition(NORMALS[0], twice), free, atol=1e-5)


def test_whitening_gives_unit_spread_and_comes_back():
    w = torch.randn(3000, D, generator=torch.Generator().manual_seed(2)) * torch.linspace(0.1, 3, D) + 5
    white = Whitening.of(w)
    points = white.whiten(w)
    assert torch.allclose(points.T @ points / (len(w) - 1), torch.eye(D, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(points @ white.back + white.mean, w.double(), atol=1e-6)


@pytest.mark.parametrize(("scores", "positives", "expected"), [
    ([1, 2, 3, 4], [0, 0, 1, 1], 1.0), ([4, 3, 2, 1], [0, 0, 1, 1], 0.0), ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
    ([1, 3, 2, 4], [0, 0, 1, 1], 0.75)])  # fmt: skip
def test_auc_counts_pairs(scores, positives, expected):
    assert auc(np.array(scores, float), np.array(positives, bool)) == pytest.approx(expected)


def test_attributes_are_sorted_out_before_anything_is_learned():
    rng = np.random.RandomState(0)
    hair = rng.randint(3, size=200)
    size = rng.rand(200)
    image_set = types.SimpleNamespace(
        labels=hair, num_classes=3, class_names=("red", "brown", "grey"),
        attributes={"size": size, "big": (size > 0.5) * 1.0, "rare": (np.arange(200) < 2) * 1.0,
                    "hair=red": (hair == 0) * 1.0, "hair=brown": (hair == 1) * 1.0, "unknown": np.full(200, np.nan)})
    table = read_attributes(image_set, rename={"big": "large face!"})
    assert table.names == ("red-hair", "brown-hair", "grey", "large-face")
    assert table.others(0) == [2, 3] and table.others(3) == [0, 1, 2] and table.rivals(1) == [0]
    reasons = dict(table.dropped)
    assert "same as large-face" in reasons["size"] and "2 of 200" in reasons["rare"]
    assert "known for" in reasons["unknown"]
    with pytest.raises(DirectionError, match="labels.json"):
        read_attributes(types.SimpleNamespace(labels=None, num_classes=0, class_names=(), attributes={}))


@pytest.fixture(scope="module")
def found():
    """The toy's labelled directions: glasses and beard overlap in W, each acts through one layer."""
    return find_attributes(Toy(), labelled(), samples=1500, epochs=8, psi=1.0)


def test_named_directions_are_the_conditioned_truth(found):
    assert [direction.name for direction in found.directions] == list(NAMES)
    for index, direction in enumerate(found.directions):
        truth = condition(NORMALS[index], torch.cat([NORMALS[:index], NORMALS[index + 1 :]]))
        assert degrees(direction.vector[0], truth) < 10
        assert float(direction.vector[0].norm()) == pytest.approx(1.0, rel=0.1)  # the toy's W has unit spread


def test_named_directions_act_only_where_they_must(found):
    for direction, layer in zip(found.directions, LAYER_OF, strict=True):
        first, last = direction.layers
        assert first <= layer <= last and last - first <= 1


def test_conditioning_is_measured_to_help(found):
    matrix = found.matrix
    assert matrix.before[0, 1] > 1.0 and abs(matrix.values[0, 1]) < 0.3  # glasses dragged the beard along
    assert all(matrix.values[i, i] > 1.5 for i in range(3))
    assert matrix.leak() < 0.1 < matrix.leak(matrix.before)
    low, high = matrix.flips[0]
    assert low < 0.2 and high > 0.8 and matrix.flips[2] is None


def test_the_report_reads_as_markdown(found):
    text = found.matrix.to_markdown()
    rows = [line for line in text.splitlines() if line.startswith("| glasses")]
    assert len(rows) == 3 and "**" in rows[0] and "1-1" in rows[0]  # after, before, and the judge's own figures
    assert "chance" not in text and all(name in text for name in NAMES)
    assert all(grade.auc > 0.9 and 0.5 < grade.accuracy <= 1 for grade in found.matrix.judged)


def test_unconditioned_directions_are_the_plain_normals():
    free = find_attributes(Toy(), labelled(), samples=1000, epochs=6, psi=1.0, conditioned=False)
    assert degrees(free.directions[0].vector[0], NORMALS[0]) < 10
    assert free.matrix.values[1, 0].abs() < 0.3 < free.matrix.before[1, 0]  # the layer choice alone frees this toy


def test_what_does_not_move_is_given_up_with_its_reason():
    image_set = labelled()
    image_set.attributes["noise"] = np.random.RandomState(5).randint(2, size=500) * 1.0
    steps = list(search_attributes(Toy(), image_set, samples=600, epochs=4, psi=1.0))
    assert "judge" in dict(steps[-1].found.matrix.dropped)["noise"]
    done = [step.done for step in steps]
    assert done == sorted(done) and done[-1] == 1.0 and steps[0].found is None and "%" in str(steps[0])

    deaf = Toy()
    deaf.synthesize = lambda ws: torch.full((len(getattr(ws, "ws", ws)), 3, 16, 16), 0.3)
    with pytest.raises(DirectionError, match="No label moves"):
        find_attributes(deaf, labelled(), samples=400, epochs=2)


def test_a_direction_that_makes_a_rival_is_given_up():
    names, groups = ("brown-hair", "black-hair", "beard"), ("hair", "hair", "")
    table = AttributeTable(names, ("binary",) * 3, groups, torch.zeros(0, 3))
    probe = Probe(Toy(), None, Latents(torch.zeros(1, L, D)), torch.ones(3))
    low, high = torch.full((4, 3), -2.0), torch.tensor([[1.0, 2.0, 9.0]]).repeat(4, 1)
    assert "black-hair instead" in _idle(low, high, 0, probe, table)
    assert _idle(low, high, 1, probe, table) is None and _idle(low, high, 2, probe, table) is None
    assert "only 0.00" in _idle(low, low, 2, probe, table)
    assert "only 0%" in _idle(low, low + 1.5, 2, probe, table)  # a surer no is still a no


def test_pictures_of_another_kind_are_refused():
    image_set = labelled(60)
    grey = image_set.array()[..., :1]
    image_set.array = lambda: grey
    with pytest.raises(DirectionError, match="1 channels"):
        find_attributes(Toy(), image_set)
    few = labelled(20)
    with pytest.raises(DirectionError, match="at least 40"):
        find_attributes(Toy(), few)


def test_narrowing_keeps_the_asked_share_and_the_balance():
    judge = types.SimpleNamespace(score=lambda image: image)
    amounts = torch.tensor([[0.05, 0.6, 0.3, 0.05], [0.2, 0.2, -0.2, -0.2]])  # of each layer, for two attributes
    generator = types.SimpleNamespace(synthesize=lambda latents: latents.ws[:, :, 0] @ amounts.T)
    probe = Probe(generator, judge, Latents(torch.zeros(4, L, D)), torch.ones(2))
    whole = Direction("d", torch.ones(L, D), (0, 3))
    assert narrow_layers(probe, whole, 0, [], keep=0.85).layers == (1, 2)
    assert narrow_layers(probe, whole, 0, [], keep=0.5).layers == (1, 1)
    assert narrow_layers(probe, whole, 0, [1], keep=0.5).layers == (0, 3)  # any end alone would move the other
    assert narrow_layers(probe, whole, 0, [], keep=1.0).layers == (0, 3)
    assert torch.allclose(probe.effects(whole), torch.tensor([4.0, 0.0]))


def test_channels_are_judged_like_other_directions():
    toy = StyleToy()
    judge = types.SimpleNamespace(score=lambda image: image[:, 0, 1, [1, 13]])  # the first and the fifth square
    probe = Probe(toy, judge, Latents(torch.zeros(40, L, D)), torch.full((2,), 0.05))
    assert torch.allclose(probe.effects(channel_direction(toy, "s0.4")), torch.tensor([0.0, 4.0]), rtol=0.06)


def test_classes_give_directions_towards_each_class():
    towards = find_classes(Toy(num_classes=3), ("cat", "dog"), samples=600)
    assert [direction.name for direction in towards] == ["cat", "dog", "class2"]
    for label, direction in enumerate(towards):
        others = torch.eye(D)[:3].sum(0) - torch.eye(D)[label]
        assert degrees(direction.vector[0], torch.eye(D)[label] - others / 2) < 0.1
    assert len(find_classes(Toy(num_classes=2), samples=200)) == 1
    with pytest.raises(DirectionError, match="no classes"):
        find_classes(Toy())
