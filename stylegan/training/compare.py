"""Runs side by side: where they stand, which settings differ, how their quality grew. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan.errors import StyleGANError
from stylegan.training.config import TrainConfig
from stylegan.training.digest import digest_of
from stylegan.training.run import TrainingRun
from stylegan.training.verdict import best_by_moment, goodness, grown

_INCIDENTAL = ("out", "threads", "device", "sample_seconds", "snapshot_minutes", "tensorboard")
_LABELS = {
    "data": "Pictures", "kimg": "Budget in kimg", "minutes": "Budget in minutes", "family": "Network",
    "grow_kimg": "Growing in steps of kimg", "precision": "Precision",
    "batch": "Batch", "accumulate": "Parts of a batch", "gamma": "R1 gamma", "r1_interval": "Steps between R1",
    "r2": "R2 penalty", "lr": "Learning rate", "lr_discriminator": "Learning rate of D", "schedule": "Schedule",
    "augment": "Augmentation", "ada_target": "ADA target", "ada_kimg": "ADA speed in kimg", "ada_cap": "ADA limit",
    "mirror": "Mirrored too", "conditional": "Classes", "mixing": "Style mixing", "pl_weight": "Path length weight",
    "pl_interval": "Steps between path lengths", "channel_base": "Channels at 1 px", "channel_max": "Most channels",
    "z_dim": "Width of z", "w_dim": "Width of w", "mbstd_group": "Pictures D compares",
    "conv_clamp": "Activation limit", "blur_pixels": "Blur at the start in px", "ema_kimg": "Average over kimg",
    "ema_ramp": "Ramp of the average", "transfer": "Continues from", "freeze_d": "Frozen blocks of D",
    "holdout": "Held out", "metric_images": "Judged by",
}  # fmt: skip
_NOTHING = {"kimg": "no limit", "minutes": "no limit", "transfer": "nothing", "conv_clamp": "none",
            "blur_pixels": "none", "pl_weight": "off"}  # fmt: skip


def compare(runs: Sequence[TrainingRun]) -> dict[str, Any]:
    """JSON-able: `runs` (as `summary` tells each), `differences` (setting to one value a run), `curves` (metric name to
    [images seen, value] pairs a run, empty where it was not measured), `best` (metric name to each run's best pair,
    None likewise) and `wins` (which of them are the best of all; of different pictures none is).

    A metric's name holds its version, and what differs in name is never put together.
    """
    configs = [resolved_config(run) for run in runs]
    names = [name for name in dict.fromkeys(key for config in configs for key in config) if name not in _INCIDENTAL]
    columns = {name: [config.get(name) for config in configs] for name in names}
    metrics = [digest_of(run).metrics() for run in runs]
    measured = dict.fromkeys(str(event.get("name")) for events in metrics for event in events)
    chosen = {name: [best_by_moment([event for event in events if event.get("name") == name], name)
                     for events in metrics] for name in measured}  # fmt: skip
    differing = {name: values for name, values in columns.items() if any(value != values[0] for value in values)}
    bests = {name: [max(grown(events) or events, key=goodness, default=None) for events in found]
             for name, found in chosen.items()}  # fmt: skip
    ranks = {name: [event and goodness(event) for event in found] for name, found in bests.items()}
    return {
        "runs": [summary(run) for run in runs],
        "differences": differing,
        "curves": {name: [list(map(_pair, events)) for events in found] for name, found in chosen.items()},
        "best": {name: [event and _pair(event) for event in found] for name, found in bests.items()},
        "wins": {name: _wins(found, "data" not in differing) for name, found in ranks.items()},
    }


def summary(run: TrainingRun) -> dict[str, Any]:
    """One run in a few figures: name, state, nimg, seconds, images_per_second over all of it, verdict, reason, best."""
    digest = digest_of(run)
    last, said = digest.last, digest.verdict()
    seconds = last.get("seconds") or 0.0
    return {"name": run.name, "state": run.state(), "nimg": last.get("nimg", 0), "seconds": seconds,
            "images_per_second": last.get("nimg", 0) / seconds if seconds else 0.0, "verdict": said.name,
            "reason": said.reason, "best": digest.best()}


def in_words(differences: Mapping[str, Sequence[Any]]) -> list[tuple[str, list[str]]]:
    """(setting, one value a run) of `compare`'s differences as people read them."""
    return [(_LABELS.get(name, name.replace("_", " ").capitalize()), [_words(name, value) for value in values])
            for name, values in differences.items()]


def resolved_config(run: TrainingRun) -> dict[str, Any]:
    """The run's settings with every 'choose for me' filled in; as they stand when this version cannot read them."""
    try:
        return TrainConfig.from_dict(run.config()).resolve().to_dict()
    except StyleGANError:
        return run.config()


def _words(name: str, value: Any) -> str:
    """One setting's value as people read it."""
    if name in _NOTHING and not value:
        return _NOTHING[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "data":
        return Path(str(value)).name
    if name == "transfer":
        source = Path(str(value))
        branched = source.parent.name == "snapshots" and source.stem.isdigit()
        return f"{source.parent.parent.name} at {int(source.stem) / 1000:.1f} kimg" if branched else source.name
    if name == "holdout" and isinstance(value, int | float):
        return f"{value:.0%} of the pictures" if value else "nothing"
    if name == "metric_images":
        return f"{value} pictures" if value else "nothing"
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def _wins(ranks: Sequence[float | None], comparable: bool) -> list[bool]:
    """Which of some figures that grow with quality are the best; none where there is nothing to choose."""
    known = {rank for rank in ranks if rank is not None}
    return [comparable and len(known) > 1 and rank == max(known) for rank in ranks]


def _pair(event: Mapping[str, Any]) -> list[Any]:
    """[images seen, value] of a metric event."""
    return [event["nimg"], event["value"]]
