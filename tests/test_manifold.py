"""Precision, recall, density, coverage, diversity and memorisation by hand and by closed forms."""

from __future__ import annotations

import pytest
import torch

from stylegan.errors import DataError
from stylegan.metrics.kinds import kinds
from stylegan.metrics.manifold import density_coverage, distances, diversity, precision_recall, radii
from stylegan.metrics.memorisation import nearer_to_train, nearest_other, neighbours


def normal(num: int, seed: int, shift: float = 0.0, size: float = 1.0) -> torch.Tensor:
    return torch.randn(num, 8, generator=torch.Generator().manual_seed(seed)) * size + shift


def line(*places: float) -> torch.Tensor:
    return torch.tensor(places, dtype=torch.float32)[:, None]


def test_distances_and_radii_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0], [6.0, 8.0]])
    assert torch.allclose(distances(a, b), torch.tensor([[0.0, 3.0, 10.0], [5.0, 4.0, 5.0]]), atol=1e-5)
    within = distances(line(0, 1, 3, 7), line(0, 1, 3, 7))
    assert torch.allclose(radii(within, 1), torch.tensor([1.0, 1.0, 2.0, 4.0]), atol=1e-5)
    assert torch.allclose(radii(within, 2), torch.tensor([3.0, 2.0, 3.0, 6.0]), atol=1e-5)
    assert torch.allclose(radii(within, 99), torch.tensor([7.0, 6.0, 4.0, 7.0]), atol=1e-5)  # all others there are


def test_far_from_the_origin_distances_stay_exact() -> None:
    a = normal(20, 0).double()
    assert torch.allclose(distances(a + 1e4, a + 1e4).double(), torch.cdist(a, a), atol=1e-2)


def test_precision_and_recall_by_hand() -> None:
    real, fake = line(0, 1, 10, 11), line(0.5, 5, 5.25, 5.75)
    precision, recall = precision_recall(real, fake, 1)  # reals reach 1 each; fakes 4.5, 0.25, 0.25, 0.5
    assert (precision, recall) == (0.25, 0.5)
    density, coverage = density_coverage(real, fake, 1)  # only 0.5 is reached, by two reals
    assert (density, coverage) == (0.5, 0.5)


def test_density_and_coverage_count_over_k() -> None:
    real = line(0, 1, 2, 3)
    fake = line(1.5, 9.0)
    density, coverage = density_coverage(real, fake, 2)  # reach 2, 1, 1, 2: all four reach 1.5
    assert (density, coverage) == (4 / (2 * 2), 1.0)


def test_two_draws_of_one_distribution_score_as_they_should() -> None:
    real, fake = normal(600, 0), normal(600, 1)
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    assert precision == pytest.approx(recall, abs=0.05) and precision > 0.85
    assert density == pytest.approx(1, abs=0.1) and coverage == pytest.approx(1 - 0.5**5, abs=0.04)
    assert diversity(real, fake) == pytest.approx(1, abs=0.03)


def test_less_variety_costs_recall_and_worse_pictures_cost_precision() -> None:
    real = normal(400, 0)
    narrow, wide = normal(400, 1, size=0.3), normal(400, 1, size=3.0)
    (narrow_precision, narrow_recall), (wide_precision, wide_recall) = (precision_recall(real, x)
                                                                       for x in (narrow, wide))  # fmt: skip
    assert narrow_precision > 0.99 and narrow_recall < 0.1
    assert wide_precision < 0.1 and wide_recall > 0.9
    assert precision_recall(real, real) == (1, 1)
    far = normal(400, 1, shift=100)
    assert precision_recall(real, far) == (0, 0) and density_coverage(real, far) == (0, 0)


def test_diversity_is_the_ratio_of_scales_and_zero_when_collapsed() -> None:
    real = normal(200, 0)
    assert diversity(real, 0.25 * real + 7) == pytest.approx(0.25, abs=1e-4)
    assert diversity(real, real[:1].expand(50, -1)) == pytest.approx(0, abs=1e-3)


def test_kinds_are_the_overlap_of_how_often_each_is_seen() -> None:
    real = line(*[0] * 10, *[100] * 10)  # two kinds, half and half
    assert kinds(real, line(*[1] * 3, *[99] * 3)) == 1
    assert kinds(real, line(*[1] * 3, 99)) == 0.75 and kinds(real, line(0, 1, 2)) == 0.5
    assert kinds(normal(600, 0), normal(600, 1)) > 0.85


def test_recall_falls_when_pictures_are_merely_softer_and_kinds_does_not() -> None:
    centres = 30 * normal(10, 7)
    real, other = (centres[torch.arange(400) % 10] + normal(400, seed) for seed in (0, 1))
    softer = centres[torch.arange(400) % 10] + 0.3 * normal(400, 1)
    fewer = other[torch.arange(400) % 10 < 6]
    assert precision_recall(real, softer)[1] < 0.3 and kinds(real, softer) > 0.85 * kinds(real, other)
    assert precision_recall(real, other)[1] > 0.9 and kinds(real, fewer) < 0.7


@pytest.mark.parametrize("num", [0, 1])
def test_too_few_is_one_sentence(num: int) -> None:
    for measure in (precision_recall, density_coverage, diversity, kinds):
        with pytest.raises(DataError, match=r"^[^\n]+at least 2[^\n]+\.$"):
            measure(normal(num, 0), normal(9, 1))
    with pytest.raises(DataError, match="at least 3 training"):
        nearest_other(normal(2, 0))


# Memorisation


def test_authenticity_by_hand() -> None:
    train = line(0, 1, 3, 7)  # their nearest others are 1, 1, 2 and 4 away
    found = neighbours(train, line(0.4, -1.5, 7.5, 12.0))
    assert found.index.tolist() == [0, 0, 3, 3]
    assert torch.allclose(found.ratio, torch.tensor([0.4, 1.5, 0.125, 1.25]), atol=1e-5)
    assert found.authentic == 50


def test_copies_are_flagged_though_the_set_holds_some_pictures_twice() -> None:
    train = torch.cat([normal(200, 0), normal(200, 0)[:40]])  # 40 twins: their nearest other is themselves
    assert (nearest_other(train) > 0.1).all()
    assert neighbours(train, train[:40]).authentic == 0
    assert neighbours(train, train[:40] + 0.01 * normal(40, 5)).authentic == 0
    assert neighbours(train, normal(200, 3)).authentic > 30


def test_nearer_to_train_is_half_when_nothing_is_memorised() -> None:
    train, held = normal(900, 0), normal(100, 1)
    assert nearer_to_train(train, held, normal(2000, 2)) == pytest.approx(50, abs=3)
    assert nearer_to_train(train[:100], held, train[:100]) == 100
    assert nearer_to_train(train, held, held) == 0
    memorised = torch.cat([train[:100] + 0.05 * normal(100, 3), normal(100, 4)])
    assert nearer_to_train(train[:100], held, memorised) == pytest.approx(75, abs=6)


def test_many_rows_are_done_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train = normal(50, 0)
    whole = nearest_other(train)
    monkeypatch.setattr("stylegan.metrics.memorisation._BLOCK", 7)
    assert torch.allclose(nearest_other(train), whole)
    expected = torch.cdist(train, train).fill_diagonal_(torch.inf).min(1).values
    assert torch.allclose(whole, expected, atol=1e-4)


def test_a_mirrored_copy_is_a_copy() -> None:
    train, mirrored = normal(100, 0), normal(100, 1)
    both = torch.stack([train, mirrored], dim=1)
    copies = torch.stack([mirrored, train], dim=1)[:30]  # the mirror images of the first 30, seen as pictures
    assert neighbours(train, mirrored[:30]).authentic > 30
    found = neighbours(both, copies)
    assert found.authentic == 0 and found.index.tolist() == list(range(30))
    assert nearer_to_train(both[:30], torch.stack([normal(30, 5), normal(30, 6)], dim=1), copies) == 100
    expected = torch.minimum(torch.cdist(train, train), torch.cdist(train, mirrored)).fill_diagonal_(torch.inf)
    assert torch.allclose(nearest_other(both), expected.min(0).values, atol=1e-4)
