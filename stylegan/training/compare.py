"""Runs side by side: where they stand, which settings differ, how their quality grew. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stylegan.errors import StyleGANError
from stylegan.training.config import TrainConfig
from stylegan.training.run import TrainingRun
from stylegan.training.verdict import best_by_moment

_INCIDENTAL = ("out", "threads", "device", "sample_seconds", "snapshot_minutes", "tensorboard")


def compare(runs: Sequence[TrainingRun]) -> dict[str, Any]:
    """JSON-able: `runs` (name, state, nimg, seconds, images a second, verdict, reason, best), `differences` (setting to
    one value a run) and `curves` (metric name to [images seen, value] pairs a run).
    """
    configs = [_resolved(run) for run in runs]
    names = [name for name in dict.fromkeys(key for config in configs for key in config) if name not in _INCIDENTAL]
    columns = {name: [config.get(name) for config in configs] for name in names}
    metrics = [run.metrics() for run in runs]
    measured = dict.fromkeys(str(event.get("name")) for events in metrics for event in events)
    curves = {name: [[[e["nimg"], e["value"]] for e in best_by_moment(events, name)] for events in metrics]
              for name in measured}
    differing = {name: values for name, values in columns.items() if any(value != values[0] for value in values)}
    return {"runs": [_summary(run) for run in runs], "differences": differing, "curves": curves}


def _summary(run: TrainingRun) -> dict[str, Any]:
    """One run in a few figures."""
    ticks, said = run.ticks(), run.verdict()
    last = ticks[-1] if ticks else {}
    seconds = last.get("seconds") or 0.0
    return {"name": run.name, "state": run.state(), "nimg": last.get("nimg", 0), "seconds": seconds,
            "images_per_second": last.get("nimg", 0) / seconds if seconds else 0.0, "verdict": said.name,
            "reason": said.reason, "best": run.best()}


def _resolved(run: TrainingRun) -> dict[str, Any]:
    """The run's settings with everything filled in, or as they stand when this version cannot read them."""
    try:
        return TrainConfig.from_dict(run.config()).resolve().to_dict()
    except StyleGANError:
        return run.config()
