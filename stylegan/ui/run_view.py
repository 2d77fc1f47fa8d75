"""What the Train tab shows of a run folder, as plain JSON-able values; no gradio, no torch, nothing is written."""

from __future__ import annotations

import base64
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from stylegan.errors import StyleGANError
from stylegan.training.compare import resolved_config
from stylegan.training.growth import stage_of
from stylegan.training.live import LIVE
from stylegan.training.run import TrainingRun, list_runs, run_folder
from stylegan.training.run_files import last_until, thin
from stylegan.training.verdict import best_by_moment, grown

POINTS = 240
QUIET_SECONDS = 60
HARDLY = 0.02  # of the highest value
STATE_WORDS = {"starting": "Starting", "running": "Training", "stopping": "Saving", "done": "Done",
               "stopped": "Stopped", "failed": "Failed", "crashed": "Crashed"}
CURVES = ("logits_real", "logits_fake", "r_t", "p", "r1", "loss_g", "loss_d", "images_per_second", "ms_generator",
          "ms_discriminator", "ms_r1", "ms_data")
MEANINGS = {
    "KID": "Distance between generated pictures and ones that were held out, as the metric sees it; lower is better.",
    "diversity": "How much generated pictures vary; 1 is as much as real ones.",
    "AuthPct": "Share of generated pictures that are no near copies of a training picture; higher is better.",
    "precision": "Share of generated pictures within reach of real ones; higher is better. Where real pictures vary "
                 "much their reach is wide, and even blobs are within it: look at KID first.",
    "recall": "Share of real pictures within reach of generated ones; higher is better. It falls too when generated "
              "pictures are merely softer than real ones; kinds does not.",
    "kinds": "How evenly all kinds of real pictures are made; 1 is as often as among real ones.",
    "density": "How densely generated pictures lie where real ones do; 1 is as real ones.",
    "coverage": "Share of real pictures with a generated one near by; higher is better.",
}


def find_run(root: Path, name: str | None) -> TrainingRun | None:
    """The named run under `root`; without a name, or when it is gone, the one that trains or the newest."""
    folder = run_folder(root, name) if name else None
    if folder is None or not TrainingRun(folder).exists():
        folder = next((run.path for run in list_runs(root)), None)
    return None if folder is None else _opened(folder)


@lru_cache(maxsize=32)
def _opened(folder: Path) -> TrainingRun:
    """The run of a folder, kept so that its history is read only once, however many pages look at it."""
    return TrainingRun(folder)


def active_run(root: Path) -> TrainingRun | None:
    """The run that trains now, if any."""
    return next((run for run in list_runs(root) if run.is_active()), None)


def run_choices(root: Path) -> list[tuple[str, str]]:
    """(label, name) of every run, those that train first."""
    return [(f"{run.name} · {STATE_WORDS[run.state()].lower()}", run.name) for run in list_runs(root)]


def view_version(run: TrainingRun | None) -> str:
    """A token that changes whenever `run_view` would: the folder's own, and the minutes since a sign of life."""
    return "" if run is None else f"{run.name}:{run.version()}:{_quiet_seconds(run) // QUIET_SECONDS}"


def run_view(run: TrainingRun | None) -> dict[str, Any]:
    """Everything on screen about one run."""
    if run is None:
        return {"run": None}
    config, state = resolved_config(run), run.state()
    ticks = run.ticks()
    tick = ticks[-1] if ticks else {}
    nimg = max(tick.get("nimg", 0), run.status().get("nimg", 0))
    samples = run.samples()
    fraction, goal = progress(config, tick, nimg)
    return {
        "run": run.name,
        "state": state,
        "word": STATE_WORDS[state],
        "said": run.reason() or _quiet_words(run),
        "nimg": nimg,
        "fraction": 1.0 if state == "done" else fraction,
        "goal": goal,
        "facts": [*growth_fact(config, nimg), *facts(tick, nimg, state)],
        "samples": [[seen, kimg(seen)] for seen, _ in samples],
        "newest": samples[-1][1].stat().st_mtime_ns if samples else 0,
        "reals": run.reals_path.is_file(),
        "sheets": [name for name, path in _sheets(run).items() if path.is_file()],
        "verdict": asdict(run.verdict()),
        "best": (run.best() or {}).get("nimg"),
        "live": {name: config.get(name) for name in LIVE} if state == "running" else {},
        "snapshots": [[seen, kimg(seen)] for seen, _ in run.snapshots()],
        "charts": [*charts(config, run.series(CURVES, POINTS), run.metrics()), *_memory_charts(ticks)],
    }


def progress(config: dict[str, Any], tick: dict[str, Any], nimg: int) -> tuple[float, str]:
    """(share done 0..1, the goal in words) of whichever budget is nearer to its end."""
    unit, spent, budget = nearer_budget(config, tick, nimg)
    if not budget:
        return 0.0, f"{kimg(nimg)}, no end set"
    goal = f"{spent:.1f} of {budget:g} kimg" if unit == "kimg" else f"{duration(60 * spent)} of {budget:g} min"
    return min(max(spent / budget, 0.0), 1.0), goal


def nearer_budget(config: dict[str, Any], tick: dict[str, Any], nimg: int) -> tuple[str, float, float]:
    """("kimg" or "minutes", how much is spent, how much was asked for) of the budget that ends the run first."""
    spent = {"kimg": nimg / 1000, "minutes": tick.get("seconds", 0.0) / 60}
    budgets = {unit: float(config.get(unit) or 0.0) for unit in spent}
    unit = max(spent, key=lambda unit: spent[unit] / budgets[unit] if budgets[unit] else -1.0)
    return unit, spent[unit], budgets[unit]


def growth_fact(config: dict[str, Any], nimg: int) -> list[list[str]]:
    """The status line's figure of a run that still grows, none of another."""
    stage = stage_of(config, nimg)
    meaning = "Each resolution fades in over the one below, then settles; the share of that is done"
    return [] if stage.is_last else [["growing", stage.words(nimg), meaning]]


def facts(tick: dict[str, Any], nimg: int, state: str) -> list[list[str]]:
    """[name, value, meaning] of the figures in the status line."""
    count, unit = kimg(nimg).split()
    shown = [[unit, count, "Training pictures shown so far; 1 kimg is a thousand"]]
    if "epoch" in tick:
        shown.append(["epochs", f"{tick['epoch']:.1f}", "How often each picture has been shown"])
    if tick.get("images_per_second"):
        shown.append(["img/s", f"{tick['images_per_second']:.1f}", "Pictures a second over the last moments"])
    if "seconds" in tick:
        shown.append(["trained", duration(tick["seconds"]), "Time spent training, pauses not counted"])
    if tick.get("eta_seconds") is not None and state in ("running", "starting"):
        shown.append(["left", duration(tick["eta_seconds"]), "Time to the nearer end of the budget at this pace"])
    if tick.get("memory_mb"):
        shown.append(["memory", f"{tick['memory_mb'] / 1024:.1f} GB", "The most memory that the trainer has held"])
    shown.append(["NaN", str(tick.get("nan", 0)), "Steps that gave no finite number and were skipped; should stay 0"])
    return shown


def charts(config: dict[str, Any], series: dict[str, list], metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The small multiples: lines over kimg, with target and limit lines where there is one; empty ones are left out."""
    target, limit = config.get("ada_target", 0.6), config.get("ada_cap", 0.8)
    made = [
        _chart("logits", "Logits", "What the discriminator says of training and generated pictures; far apart means "
               "that it tells them apart easily.", [("real", "real", "logits_real"), ("fake", "fake", "logits_fake")]),
        _chart("r_t", "Overfitting r_t", "How sure the discriminator is of the training pictures: near the target is "
               "healthy, 1 means that it knows them by heart.", [("r_t", "main", "r_t")], high=1.0,
               marks=[{"name": "target", "ink": "target", "y": target}]),
        _chart("p", "Augmentation p", "How often pictures are varied so that few of them are enough; above the red "
               "line the variations leak into the results.", [("p", "main", "p")], low=0.0, high=1.0,
               marks=[{"name": "limit", "ink": "limit", "y": limit}]),
        _chart("r1", "R1 penalty", "How steep the discriminator is around training pictures; a sudden rise warns of "
               "trouble.", [("R1", "main", "r1")], low=0.0),
        _chart("loss", "Losses", "No measure of quality: the two networks pull against each other.",
               [("G", "quiet", "loss_g"), ("D", "quiet2", "loss_d")]),
        _chart("speed", "Images a second", "Throughput of the whole loop.", [("img/s", "main", "images_per_second")],
               low=0.0),
        _chart("phases", "ms a step", "Where the time of a step goes: generator, discriminator, R1 (spread "
               "over the steps between) and waiting for pictures.", [("G", "main", "ms_generator"),
               ("D", "fake", "ms_discriminator"), ("R1", "quiet", "ms_r1"), ("data", "limit", "ms_data")], low=0.0),
    ]
    seen = [nimg / 1000 for nimg in series["nimg"]]
    for chart in made:
        lines = [{**line, "y": _rounded(series[line["y"]])} for line in chart["lines"]]
        lines = [line for line in lines if any(value is not None for value in line["y"])]
        starts = [next(i for i, value in enumerate(line["y"]) if value is not None) for line in lines]
        start = min(starts, default=0)  # a figure that came later has a chart from there on
        chart.update(x=seen[start:], lines=[{**line, "y": line["y"][start:]} for line in lines])
    return [*_metric_charts(metrics), *(chart for chart in made if chart["lines"])]


def _chart(name: str, title: str, meaning: str, lines: list[tuple[str, str, str]], **extra: Any) -> dict[str, Any]:
    """A chart whose lines still name their field; `low` and `high` fix the axis, otherwise it follows the values."""
    drawn = [{"name": label, "ink": ink, "y": field} for label, ink, field in lines]
    return {"id": name, "title": title, "meaning": meaning, "lines": drawn, "marks": [], **extra}


def _metric_charts(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One chart for each metric, KID first; of several averages the better counts, beside what real pictures score."""
    made = []
    for place, name in enumerate(dict.fromkeys(str(metric.get("name"))[:40] for metric in metrics)):
        events = best_by_moment(metrics, name)
        if not events:
            continue
        values, kind, floor = [event["value"] for event in events], name.partition("-")[0], events[-1].get("floor")
        best = min(event["value"] for event in grown(events) or events)
        marks = [{"name": "best", "ink": "main", "y": best}] if kind == "KID" else []
        if isinstance(floor, int | float):
            marks.append({"name": "real", "ink": "target", "y": floor})
        meaning = MEANINGS.get(kind, "As the metric sees generated pictures beside real ones.")
        title = kind.capitalize() if kind.islower() else kind
        low = min([0.0, *values, *(mark["y"] for mark in marks)])
        low = low if -low > HARDLY * max(values) else 0.0  # KID of like sets swings around 0
        marks = [{**mark, "y": max(mark["y"], low)} for mark in marks]
        made.append({**_chart(f"metric-{place}", title, f"{name}: {meaning}", [], low=low), "marks": marks,
                     "x": [event["nimg"] / 1000 for event in events],
                     "lines": [{"name": name, "ink": "main", "y": _rounded(values)}]})
    return made


def _memory_charts(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the discriminator says of training and of held-out pictures, where both were asked."""
    asked = thin([tick for tick in ticks if tick.get("logits_held_out") is not None], POINTS)
    if len(asked) < 2:
        return []
    chart = _chart("held-out", "Held out", "What the discriminator says of pictures that it trains on and of "
                   "ones that it has never seen; lines that part mean that it learns pictures by heart.", [])
    lines = [("train", "real", "logits_train"), ("unseen", "fake", "logits_held_out")]
    return [{**chart, "x": [tick["nimg"] / 1000 for tick in asked],
             "lines": [{"name": label, "ink": ink, "y": _rounded([tick.get(field) for tick in asked])}
                       for label, ink, field in lines]}]


def _sheets(run: TrainingRun) -> dict[str, Path]:
    """The pictures beside the generated grid, by name."""
    return {"reals": run.reals_path, "augmented": run.augmented_path, "nearest": run.pairs_path}


def picture(root: Path, question: Any) -> dict[str, str]:
    """A grid of a run as a data address: question {"run": name, "nimg": count} or {"run": name, "sheet": name}."""
    try:
        run = TrainingRun(run_folder(root, str(question["run"])))
        sheet = "reals" if question.get("reals") else question.get("sheet")
        path = _sheets(run)[sheet] if sheet else run.sample_path(int(question["nimg"]))
        return {"src": "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()}
    except (StyleGANError, OSError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return {"error": "That picture is no longer there."}


def change(root: Path, question: Any) -> dict[str, str]:
    """Change live settings of a run: {"run": name, "values": {setting: number}}; an answer in words or an error."""
    try:
        run = TrainingRun(run_folder(root, str(question["run"])))
        values = dict(question["values"])
        if not values or not run.is_active():
            return {"error": "Nothing was changed; the run does not train, or no number is new."}
        run.edit(**values)
    except StyleGANError as error:
        return {"error": str(error)}
    except (KeyError, TypeError, ValueError):
        return {"error": "That is not a change of settings."}
    return {"words": "Taken at the next tick, within seconds."}


def snapshot_at(run: TrainingRun, nimg: int) -> Path | None:
    """The last snapshot at or before `nimg` images, else the first there is, None when there is none."""
    found = last_until(run.snapshots(), nimg)
    return found and found[1]


def kimg(nimg: int) -> str:
    """Images seen as people say it: 640 images, 12.8 kimg, 350 kimg."""
    if nimg < 1000:
        return f"{nimg} images"
    return f"{nimg / 1000:.1f} kimg" if nimg < 100_000 else f"{nimg / 1000:.0f} kimg"


def duration(seconds: float) -> str:
    """A span of time in its two largest units at most."""
    seconds = max(0, int(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" if seconds >= 600 else f"{seconds // 60} min {seconds % 60} s"
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _quiet_seconds(run: TrainingRun) -> int:
    """Seconds since the trainer's last heartbeat, 0 when it does not train."""
    heartbeat = run.status().get("heartbeat", 0.0)
    return max(0, int(time.time() - heartbeat)) if heartbeat and run.is_active() else 0


def _quiet_words(run: TrainingRun) -> str:
    """A sentence about a trainer that has not been heard of for a while."""
    seconds = _quiet_seconds(run)
    return f"No sign of life for {duration(seconds)}; the machine may be busy." if seconds >= QUIET_SECONDS else ""


def _rounded(values: list[Any]) -> list[float | None]:
    """Four significant digits are more than a small chart can show; anything but a number is a gap."""
    return [float(f"{value:.4g}") if isinstance(value, int | float) else None for value in values]
