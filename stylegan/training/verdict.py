"""How a run is doing, in one word with its reason and what to do: a pure function of what the run has written.

The rules are those of a person who watches the held-out signals and not the losses; the thresholds below are first
guesses that logged runs may correct. KID decides on quality, diversity and recall on collapse, the gap between what the
discriminator says of training and of held-out pictures on memorisation (arXiv 2006.06676 section 3.1), p on leaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from stylegan.training.growth import stage_of

Event = Mapping[str, Any]

NAMES = ("warming up", "growing", "improving", "plateau", "overfitting", "collapsing", "diverged",
         "leaking augmentation")  # fmt: skip

LEAST_JUDGED, LEAST_IMAGES = 3, 10_000  # evaluations and images seen before quality is spoken of
BAD_SHARE = 0.25  # of the last ticks' steps without a finite gradient
WILD_LOGITS, WILD_TICKS = 100.0, 4  # between real and generated, in so many ticks on end; healthy ones are near 10
WORSE = {2: 5.0, 3: 2.0}  # evaluations in a row that are so many times the best KID are divergence
LOW_DIVERSITY, LOW_RECALL = 0.5, 0.1
LEAST_COLLAPSED = 6  # evaluations of a run that was never diverse
MILD_CAP = 0.6  # a limit of p at which nothing leaks yet
LEAKING_P, LEAKING_SLACK = 0.8, 0.03  # where the probability stands on average, as it swings a little
OWN_SHARE = 0.7  # of the share of unseen pictures that are no near copies of training pictures
GAP_GROWTH, LEAST_GAP = 1.5, 0.5  # of the logits' gap over its own past, and in logits
PLATEAU_SHARE = 0.25  # of the images seen without an improvement beyond the spread
HIGH_RATE = 0.004  # learning rates above this are the first to be doubted
RECENT = 12  # ticks that count as now
_OVER = {"warming up": "Too short to be judged; continue it.",
         "growing": "Continue it; quality is judged from the last resolution on.",
         "improving": "It was still improving when it ended; continue it."}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """One of NAMES, the reason in a sentence, and what to do in a sentence."""

    name: str
    reason: str
    advice: str


def verdict(
    ticks: Sequence[Event],
    metrics: Sequence[Event],
    settings: Mapping[str, Any] | None = None,
    ending: str = "",
    over: bool = False,
) -> Verdict:
    """Judge a run by its ticks and metrics, oldest first, its resolved settings and what its end said; worst first.

    Of a run that is `over` the advice says so.
    """
    said = _judged(ticks, metrics, settings or {}, ending)
    return replace(said, advice=_OVER[said.name]) if over and said.name in _OVER else said


def _judged(ticks: Sequence[Event], metrics: Sequence[Event], settings: Mapping[str, Any], ending: str) -> Verdict:
    """The first of all that is wrong, or that nothing is."""
    if "diverged" in ending:
        reason = ending.partition(";")[0].rstrip(".") + "."
        return Verdict("diverged", reason, _branch(best_by_moment(metrics, "KID"), settings))
    stage = stage_of(settings, ticks[-1]["nimg"] if ticks else 0)
    if not stage.is_last:
        return _diverged(ticks, (), (), settings) or _growing(ticks, stage, settings)
    whole = ticks
    ticks = [tick for tick in ticks if tick["nimg"] > stage.start] if stage.start else ticks
    metrics = [event for event in metrics if event["nimg"] > stage.start] if stage.start else metrics
    young = best_by_moment(metrics, "KID")
    kid = grown(young)
    lost = _diverged(whole, metrics, kid, settings)
    if lost:
        return lost
    for judge in (_collapsing, _leaking, _overfitting):
        found = judge(ticks, metrics, kid, settings)
        if found:
            return found
    if len(kid) < LEAST_JUDGED:
        return _improving(young) if _falls(young) else _warming_up(young, kid, settings)
    return _plateau(ticks, kid, settings) or _improving(kid)


def best_by_moment(metrics: Sequence[Event], prefix: str) -> list[Event]:
    """The metric events of a name's beginning, of several averages the better at each moment, by images seen."""
    chosen: dict[int, Event] = {}
    for event in metrics:
        value, nimg = event.get("value"), event.get("nimg")
        if str(event.get("name", "")).startswith(prefix) and _is_number(value) and isinstance(nimg, int):
            old = chosen.get(nimg)
            if old is None or goodness(event) > goodness(old):
                chosen[nimg] = event
    return [chosen[nimg] for nimg in sorted(chosen)]


def grown(events: Sequence[Event]) -> list[Event]:
    """The events that count for quality: before the first ten thousand images the averages swing."""
    return [event for event in events if event["nimg"] >= LEAST_IMAGES]


def goodness(event: Event) -> float:
    """A number that grows with quality."""
    value, better = event["value"], event.get("better", "lower")
    return -value if better == "lower" else value if better == "higher" else -abs(value - 1)


def _diverged(ticks, metrics, kid, settings) -> Verdict | None:
    """Numbers that are not finite or out of all measure, or quality that has fallen far below its best."""
    reason = _broken(ticks, settings)
    if not reason and len(kid) > 2:
        best = min(kid, key=lambda event: event["value"])
        least = max(best["value"], best.get("floor") or 0.0, best.get("std") or 0.0, 1e-9)
        for num, times in WORSE.items():
            last = kid[-num:]
            limit = times * least + 3 * (best.get("std") or 0.0)
            if best not in last and all(event["value"] > limit for event in last):
                times = f"{kid[-1]['value'] / least:.1f} times its best ({_kimg(best)})"
                reason = f"KID is {times}, after {num} bad evaluations in a row."
                break
    return Verdict("diverged", reason, _branch(kid or best_by_moment(metrics, "KID"), settings)) if reason else None


def _broken(ticks, settings) -> str:
    """What is wrong with the numbers of a step, if anything."""
    recent = ticks[-RECENT:]
    if not recent:
        return ""
    new = recent[-1].get("nan", 0) - recent[0].get("nan", 0)
    steps = max((recent[-1]["nimg"] - recent[0]["nimg"]) / (settings.get("batch") or 16), 1)
    if new / steps > BAD_SHARE:
        return f"{new} of the last {steps:.0f} steps gave no finite gradient."
    if all(not _is_number(tick.get("loss_g")) for tick in recent[-3:]) and "loss_g" in recent[-1]:
        return "The losses are not numbers."
    apart = [abs(tick["logits_real"] - tick["logits_fake"]) for tick in ticks[-WILD_TICKS:]
             if _is_number(tick.get("logits_real")) and _is_number(tick.get("logits_fake"))]  # fmt: skip
    if len(apart) == WILD_TICKS and min(apart) > WILD_LOGITS:
        return f"The discriminator holds real and generated pictures {_count(min(apart))} apart; 10 is usual."
    return ""


def _branch(kid: Sequence[Event], settings: Mapping[str, Any]) -> str:
    """How to go on after a run that is lost."""
    rate = settings.get("lr")
    change = "a higher gamma or half the learning rate"
    if _is_number(rate) and rate > HIGH_RATE:
        change = f"a learning rate near 0.002 (it is {rate:g})"
    if not kid:
        return f"Start again with {change}."
    return f"Branch from the best snapshot ({_kimg(min(kid, key=lambda event: event['value']))}) with {change}."


def _growing(ticks, stage, settings) -> Verdict:
    """On the way to all pixels, where every new resolution upsets the figures for a while."""
    reason = f"On its way to {settings['resolution']} px: {stage.words(ticks[-1]['nimg'] if ticks else 0)}."
    return Verdict("growing", reason, "Let it run; quality is judged from the last resolution on.")


def _collapsing(ticks, metrics, kid, settings) -> Verdict | None:
    """Pictures that have become alike: low diversity and hardly any recall, three evaluations in a row."""
    history, recall = best_by_moment(metrics, "diversity"), best_by_moment(metrics, "recall")[-3:]
    if len(history) < 3 or any(event["value"] >= LOW_DIVERSITY for event in history[-3:]):
        return None
    fell = any(event["value"] >= LOW_DIVERSITY for event in history[:-3])
    if history[-1]["nimg"] < LEAST_IMAGES or not fell and len(history) < LEAST_COLLAPSED:
        return None  # every run begins with pictures that are alike
    if any(event["value"] >= LOW_RECALL for event in recall):
        return None
    reason = f"The pictures vary {history[-1]['value']:.0%} as much as real ones and cover almost none of them."
    varied = [event for event in history if event["value"] >= LOW_DIVERSITY and event["nimg"] >= LEAST_IMAGES]
    begin = f"Branch from a snapshot up to {_kimg(varied[-1])}" if varied else "Start again"
    rates = settings.get("lr"), settings.get("lr_discriminator")
    slow = all(map(_is_number, rates)) and rates[1] < rates[0] / 2
    change = "a higher gamma or a larger batch"
    if slow:
        change = f"a faster discriminator (its learning rate is {rates[1]:g}, the generator's {rates[0]:g})"
    return Verdict("collapsing", reason, f"{begin} with {change}.")


def _leaking(ticks, metrics, kid, settings) -> Verdict | None:
    """Augmentation so strong that the generator learns it (arXiv 2006.06676 section 2.2: p above about 0.8)."""
    recent = [tick["p"] for tick in ticks[-RECENT:] if _is_number(tick.get("p"))]
    cap = settings.get("ada_cap")
    limit = min(LEAKING_P, cap) if _is_number(cap) and settings.get("augment") != "schedule" else LEAKING_P
    if len(recent) < RECENT or limit <= MILD_CAP or fmean(recent) < limit - LEAKING_SLACK:
        return None
    reason = f"The augmentation probability stands at {recent[-1]:.2f}, where its variations show up in the pictures."
    advice = f"Add pictures, raise gamma, or lower the ADA limit to {MILD_CAP:g} and watch the held-out curve."
    return Verdict("leaking augmentation", reason, advice)


def _overfitting(ticks, metrics, kid, settings) -> Verdict | None:
    """The discriminator knows its training pictures by heart and quality falls, or the pictures are copies."""
    copies = best_by_moment(metrics, "AuthPct")[-2:]
    if len(copies) == 2 and all(event["value"] < OWN_SHARE * (event.get("floor") or 50.0) for event in copies):
        reason = f"{100 - copies[-1]['value']:.0f} % of the generated pictures are near copies of training pictures."
        return Verdict("overfitting", reason, _against_copies(kid or best_by_moment(metrics, "KID"), settings))
    gaps = [tick["logits_train"] - tick["logits_held_out"] for tick in ticks
            if _is_number(tick.get("logits_train")) and _is_number(tick.get("logits_held_out"))]  # fmt: skip
    if len(gaps) < 8 or len(kid) < LEAST_JUDGED:
        return None
    quarter = max(len(gaps) // 4, 2)
    now, before = fmean(gaps[-quarter:]), fmean(gaps[-2 * quarter : -quarter])
    best = min(kid, key=lambda event: event["value"])
    worse = best is not kid[-1] and kid[-1]["value"] > best["value"] + (best.get("std") or 0.0)
    rising = worse and kid[-1]["value"] >= kid[-2]["value"]
    if LEAST_GAP < now < WILD_LOGITS and now > GAP_GROWTH * max(before, 0.0) and rising:
        reason = (f"The discriminator rates training pictures {now:.1f} above unseen ones (was {before:.1f}) "
                  f"and KID has risen since {_kimg(best)}.")
        return Verdict("overfitting", reason, _against_copies(kid, settings))
    return None


def _against_copies(kid: Sequence[Event], settings: Mapping[str, Any]) -> str:
    """What helps where pictures are too few."""
    best = f" ({_kimg(min(kid, key=lambda event: event['value']))})" if kid else ""
    change = "augmentation (ADA)" if settings.get("augment") == "none" else "a lower ADA target, a higher gamma"
    return f"Stop and take the best snapshot{best}; more pictures or {change} would help."


def _warming_up(young, kid, settings) -> Verdict:
    """Too early to speak of quality."""
    if settings.get("metric_images") == 0:
        reason = "No metric is measured in this run."
    elif not young:
        reason = "No snapshot has been judged yet."
    elif len(young) < LEAST_JUDGED:
        reason = f"{len(young)} of {LEAST_JUDGED} evaluations done, KID {_figure(young[-1]['value'])}."
    elif not kid:
        reason = f"{young[-1]['nimg'] / 1000:.1f} of the first {LEAST_IMAGES // 1000} kimg done."
    else:
        reason = f"{len(kid)} of {LEAST_JUDGED} evaluations after the first {LEAST_IMAGES // 1000} kimg done."
    return Verdict("warming up", reason, "Let it run; the first pictures say little.")


def _falls(kid: Sequence[Event]) -> bool:
    """True when the best evaluation beats the first by far more than their spread, and the last one still does."""
    if len(kid) < LEAST_JUDGED or kid[-1]["nimg"] < LEAST_IMAGES / 10:
        return False
    best = min(kid, key=lambda event: event["value"])
    spread = max(kid[0].get("std") or 0.0, best.get("std") or 0.0)
    return best["value"] < kid[0]["value"] - 3 * spread and kid[-1]["value"] < kid[0]["value"] - spread


def _plateau(ticks, kid, settings) -> Verdict | None:
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
    waits = settings.get("schedule", "tail") == "tail" and share < 2 / 3
    advice = ("The learning rate is yet to fall; that often brings another step." if decays and waits else
              "Let the learning rate finish its fall, or stop." if decays else
              f"Take the best snapshot ({_kimg(min(kid, key=lambda event: event['value']))}), or branch from it with a "
              "lower learning rate.")
    reason = f"KID has not improved by more than its spread since {_kimg(best)}."
    return Verdict("plateau", reason, advice)


def _improving(kid: Sequence[Event]) -> Verdict:
    """What is left when nothing is wrong."""
    best = min(kid, key=lambda event: event["value"])
    floor = best.get("floor")
    beside = f"; real pictures score {_figure(max(floor, 0.0))}" if _is_number(floor) else ""
    reason = f"KID fell to {_figure(best['value'])} at {_kimg(best)}{beside}."
    return Verdict("improving", reason, "Go on; there is more to gain.")


def _kimg(event: Event) -> str:
    """A moment in words."""
    return f"{event['nimg'] / 1000:.1f} kimg"


def _figure(value: float) -> str:
    """A score in words: three digits that count, thousandths at most where it is small."""
    return f"{value:.3g}" if abs(value) >= 0.01 or abs(value) < 5e-5 else f"{value:.4f}"


def _count(value: float) -> str:
    """A large number in words."""
    return f"{value:,.0f}" if value < 1e6 else "millions"


def _is_number(value: Any) -> bool:
    """True for a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
