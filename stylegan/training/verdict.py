"""How a run is doing, in one word with its reason and what to do: a pure function of what the run has written.

The rules are those of a person who watches the held-out signals and not the losses; the thresholds below are first
guesses that logged runs may correct. KID decides on quality, diversity and recall on collapse, the gap between what the
discriminator says of training and of held-out pictures on memorisation (arXiv 2006.06676 section 3.1), p on leaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Event = Mapping[str, Any]

NAMES = ("warming up", "improving", "plateau", "overfitting", "collapsing", "diverged", "leaking augmentation")

LEAST_JUDGED, LEAST_IMAGES = 3, 10_000  # evaluations and images seen before quality is spoken of
BAD_SHARE = 0.25  # of the last ticks' steps without a finite gradient
WORSE = 2.0  # times the best KID, three times in a row, is divergence
LOW_DIVERSITY, LOW_RECALL = 0.5, 0.1
LEAST_COLLAPSED = 6  # evaluations of a run that was never diverse
LEAKING_P = 0.8
GAP_GROWTH, LEAST_GAP = 1.5, 0.5  # of the logits' gap over its own past, and in logits
PLATEAU_SHARE = 0.25  # of the images seen without an improvement beyond the spread
RECENT = 12  # ticks that count as now
_BRANCH = "Branch from the best snapshot with a lower learning rate or a higher gamma."


@dataclass(frozen=True)
class Verdict:
    """One of NAMES, the reason in a sentence, and what to do in a sentence."""

    name: str
    reason: str
    advice: str


def verdict(
    ticks: Sequence[Event], metrics: Sequence[Event], settings: Mapping[str, Any] | None = None, ending: str = ""
) -> Verdict:
    """Judge a run by its ticks and metrics, oldest first, its resolved settings and what its end said; worst first."""
    settings = settings or {}
    if "diverged" in ending:
        return Verdict("diverged", ending.partition(";")[0].rstrip(".") + ".", _BRANCH)
    kid = best_by_moment(metrics, "KID")
    for judge in (_diverged, _collapsing, _leaking, _overfitting, _warming_up, _plateau):
        found = judge(ticks, metrics, kid, settings)
        if found:
            return found
    return _improving(kid)


def best_by_moment(metrics: Sequence[Event], prefix: str) -> list[Event]:
    """The metric events of a name's beginning, of several averages the better at each moment, by images seen."""
    chosen: dict[int, Event] = {}
    for event in metrics:
        value, nimg = event.get("value"), event.get("nimg")
        if str(event.get("name", "")).startswith(prefix) and _is_number(value) and isinstance(nimg, int):
            old = chosen.get(nimg)
            if old is None or _goodness(event) > _goodness(old):
                chosen[nimg] = event
    return [chosen[nimg] for nimg in sorted(chosen)]


def _goodness(event: Event) -> float:
    """A number that grows with quality."""
    value, better = event["value"], event.get("better", "lower")
    return -value if better == "lower" else value if better == "higher" else -abs(value - 1)


def _diverged(ticks, metrics, kid, settings) -> Verdict | None:
    """Numbers that are not finite, or quality that has fallen far below its best for three evaluations."""
    recent = ticks[-RECENT:]
    if recent:
        new = recent[-1].get("nan", 0) - (recent[0].get("nan", 0) if len(recent) > 1 else 0)
        batch = settings.get("batch") or 16
        steps = max((recent[-1]["nimg"] - recent[0]["nimg"]) / batch, 1)
        silent = all(not _is_number(tick.get("loss_g")) for tick in recent[-3:]) and "loss_g" in recent[-1]
        if new / steps > BAD_SHARE or silent:
            counted = f"{new} of the last {steps:.0f} steps gave no finite gradient."
            return Verdict("diverged", counted if new else "The losses are not numbers.", _BRANCH)
    if len(kid) > LEAST_JUDGED:
        best = min(kid, key=lambda event: event["value"])
        limit = WORSE * max(best["value"], best.get("std") or 0.0) + 3 * (best.get("std") or 0.0)
        if all(event["value"] > limit for event in kid[-3:]) and best not in kid[-3:]:
            times = kid[-1]["value"] / max(best["value"], 1e-9)
            reason = f"KID is {times:.1f} times its best ({_kimg(best)}) for three evaluations in a row."
            return Verdict("diverged", reason, _BRANCH)
    return None


def _collapsing(ticks, metrics, kid, settings) -> Verdict | None:
    """Pictures that have become alike: low diversity and hardly any recall, three evaluations in a row."""
    history, recall = best_by_moment(metrics, "diversity"), best_by_moment(metrics, "recall")[-3:]
    if len(history) < 3 or any(event["value"] >= LOW_DIVERSITY for event in history[-3:]):
        return None
    fell = any(event["value"] >= LOW_DIVERSITY for event in history[:-3])
    if not fell and len(history) < LEAST_COLLAPSED:  # every run begins with pictures that are alike
        return None
    if any(event["value"] >= LOW_RECALL for event in recall):
        return None
    reason = f"The pictures vary {history[-1]['value']:.0%} as much as real ones and cover almost none of them."
    return Verdict("collapsing", reason, "Branch from an earlier snapshot with a higher gamma or a larger batch.")


def _leaking(ticks, metrics, kid, settings) -> Verdict | None:
    """Augmentation so strong that the generator learns it (arXiv 2006.06676 section 2.2: p above about 0.8)."""
    recent = [tick["p"] for tick in ticks[-RECENT:] if _is_number(tick.get("p"))]
    cap = settings.get("ada_cap")
    limit = min(LEAKING_P, cap) if _is_number(cap) and settings.get("augment") != "schedule" else LEAKING_P
    if len(recent) < RECENT or limit <= 0.5 or min(recent) < limit - 1e-6:
        return None
    reason = f"The augmentation probability stands at {recent[-1]:.2f}, where its variations show up in the pictures."
    advice = "Add pictures, raise gamma, or lower the cap to 0.6 and watch the gap."
    return Verdict("leaking augmentation", reason, advice)


def _overfitting(ticks, metrics, kid, settings) -> Verdict | None:
    """The discriminator knows its training pictures by heart and quality falls, or the pictures are copies."""
    advice = "Stop and take the best snapshot; more pictures, a higher ADA target cap or gamma would help."
    copies = best_by_moment(metrics, "AuthPct")[-2:]
    if len(copies) == 2 and all(event["value"] < 0.5 * (event.get("floor") or 50.0) for event in copies):
        reason = f"Only {copies[-1]['value']:.0f} % of the pictures are no near copies of training pictures."
        return Verdict("overfitting", reason, advice)
    gaps = [tick["logits_train"] - tick["logits_held_out"] for tick in ticks
            if _is_number(tick.get("logits_train")) and _is_number(tick.get("logits_held_out"))]  # fmt: skip
    if len(gaps) < 8 or len(kid) < LEAST_JUDGED:
        return None
    quarter = max(len(gaps) // 4, 2)
    now, before = fmean(gaps[-quarter:]), fmean(gaps[-2 * quarter : -quarter])
    best = min(kid, key=lambda event: event["value"])
    worse = best is not kid[-1] and kid[-1]["value"] > best["value"] + (best.get("std") or 0.0)
    rising = worse and kid[-1]["value"] >= kid[-2]["value"]
    if now > LEAST_GAP and now > GAP_GROWTH * max(before, 0.0) and rising:
        reason = (f"The discriminator rates training pictures {now:.1f} above unseen ones (was {before:.1f}) "
                  f"and KID has risen since {_kimg(best)}.")
        return Verdict("overfitting", reason, advice)
    return None


def _warming_up(ticks, metrics, kid, settings) -> Verdict | None:
    """Too early to speak of quality."""
    if len(kid) >= LEAST_JUDGED and kid[-1]["nimg"] >= LEAST_IMAGES:
        return None
    if len(kid) >= LEAST_JUDGED:
        reason = f"{kid[-1]['nimg'] / 1000:.1f} of the first {LEAST_IMAGES // 1000} kimg are done."
    elif kid:
        reason = f"{len(kid)} of {LEAST_JUDGED} evaluations are done."
    elif settings.get("metric_images") == 0:
        reason = "No metric is measured in this run."
    else:
        reason = "No snapshot has been judged yet."
    return Verdict("warming up", reason, "Let it run; the first pictures say little.")


def _plateau(ticks, metrics, kid, settings) -> Verdict | None:
    """No improvement beyond the spread over the last quarter of the images seen."""
    last = kid[-1]["nimg"]
    recent = [event for event in kid if event["nimg"] > (1 - PLATEAU_SHARE) * last]
    before = [event for event in kid if event not in recent]
    if len(recent) < 2 or not before:
        return None
    best = min(before, key=lambda event: event["value"])
    if min(event["value"] for event in recent) < best["value"] - (best.get("std") or 0.0):
        return None
    share = ticks[-1].get("progress", 0.0) if ticks else 0.0
    decays = settings.get("schedule", "tail") != "constant" and share < 0.95
    advice = ("The learning rate is yet to fall; that often brings another step." if decays and share < 2 / 3 else
              "Let the learning rate finish its fall, or stop." if decays else
              "Stop and take the best snapshot, or branch from it with a lower learning rate.")
    reason = f"KID has not improved by more than its spread since {_kimg(best)}."
    return Verdict("plateau", reason, advice)


def _improving(kid: Sequence[Event]) -> Verdict:
    """What is left when nothing is wrong."""
    best = min(kid, key=lambda event: event["value"])
    floor = best.get("floor")
    beside = f"; real pictures score {floor:.4f}" if _is_number(floor) else ""
    reason = f"KID fell to {best['value']:.4f} at {_kimg(best)}{beside}."
    return Verdict("improving", reason, "Go on; there is more to gain.")


def _kimg(event: Event) -> str:
    """A moment in words."""
    return f"{event['nimg'] / 1000:.1f} kimg"


def _is_number(value: Any) -> bool:
    """True for a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
