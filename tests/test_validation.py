"""The table that shows the metrics telling the truth: real pictures, damaged more and more."""

from __future__ import annotations

import pytest

from stylegan.data.images import open_images, sample_sets
from stylegan.errors import DataError
from stylegan.metrics.validation import DamageScore, to_table, validate


@pytest.fixture(scope="module")
def scores() -> list[DamageScore]:
    found = validate(open_images(sample_sets()["cartoon-sample-64"]))
    print("\n" + to_table(found))
    return found


def column(scores: list[DamageScore], damage: str, metric: str) -> list[float]:
    """A metric from the undamaged pictures to the most damaged."""
    return [score.values[metric] for score in scores if score.damage in ("none", damage)]


@pytest.mark.parametrize("damage", ["blur", "jpeg"])
def test_kid_grows_step_by_step(scores: list[DamageScore], damage: str) -> None:
    values = column(scores, damage, "KID")
    assert values == sorted(values) and len(set(values)) == len(values) == 5


@pytest.mark.parametrize("damage", ["blur", "noise", "jpeg"])
def test_swd_grows_step_by_step(scores: list[DamageScore], damage: str) -> None:
    values = column(scores, damage, "SWD fine")  # of 48 pictures it is sure within 2 %, which the weakest levels are
    assert all(after > 0.98 * before for before, after in zip(values, values[1:], strict=False))
    assert values[2:] == sorted(values[2:]) and values[-1] > 1.4 * values[0]


@pytest.mark.parametrize("damage", ["noise", "modes", "repeats"])
def test_kid_sees_the_strongest_of_every_damage(scores: list[DamageScore], damage: str) -> None:
    values = column(scores, damage, "KID")
    assert values[-1] == max(values) > 0.03 > 10 * values[0]


@pytest.mark.parametrize(
    ("damage", "metric"),
    [("blur", "recall"), ("modes", "coverage"), ("repeats", "coverage"), ("repeats", "recall"),
     ("repeats", "diversity"), ("blur", "diversity")],
)  # fmt: skip
def test_lost_variety_is_seen_step_by_step(scores: list[DamageScore], damage: str, metric: str) -> None:
    values = column(scores, damage, metric)
    assert values == sorted(values, reverse=True) and values[-1] < values[0]
    assert metric == "diversity" or values[-1] < 0.6


def test_dropping_modes_leaves_fidelity_alone(scores: list[DamageScore]) -> None:
    assert min(column(scores, "modes", "precision")) > 0.9
    assert column(scores, "modes", "recall")[-1] < 0.5


def test_kinds_hardly_mind_what_recall_takes_for_lost_variety(scores: list[DamageScore]) -> None:
    clear, soft = (score.values for score in scores if (score.damage, score.level) in (("none", 0), ("blur", 1.2)))
    assert soft["recall"] < 0.6 * clear["recall"] and soft["kinds"] > 0.85 * clear["kinds"]
    assert column(scores, "modes", "kinds")[-1] < 0.85 * clear["kinds"]


def test_replayed_training_data_scores_best_and_is_flagged(scores: list[DamageScore]) -> None:
    replay = scores[-1]
    assert replay.damage == "replay"
    assert replay.values["KID"] <= min(score.values["KID"] for score in scores)
    assert replay.values["AuthPct"] == 0 and replay.values["precision"] == replay.values["recall"] == 1
    assert min(score.values["AuthPct"] for score in scores[:-1] if score.damage != "repeats") >= 45


def test_the_table_has_a_line_a_damage(scores: list[DamageScore]) -> None:
    lines = to_table(scores).splitlines()
    assert len(lines) == 1 + len(scores) == 21 and len({len(line) for line in lines}) == 1
    assert lines[0].split()[:3] == ["damage", "level", "KID"] and lines[-1].split()[:2] == ["replay", "1"]


def test_too_few_pictures_are_one_sentence() -> None:
    few = open_images(sample_sets()["cartoon-sample-64"], 16).subset(range(40))
    with pytest.raises(DataError, match=r"^[^\n]*at least 64 pictures, not 40; add some\.$"):
        validate(few)
