"""The card that a run writes when it ends: what it learned from, how, for how long, and how good it became. No torch.

    card.md      text and tables
    curves.png   quality, logits, augmentation and speed over images seen (with matplotlib)
    samples/     the sheet that the card shows
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan.files import write_atomic
from stylegan.options import options_of
from stylegan.training.config import TrainConfig
from stylegan.training.run import TrainingRun
from stylegan.training.run_files import thin
from stylegan.training.verdict import best_by_moment, grown

CARD, CURVES = "card.md", "curves.png"
MOST_ROWS = 24
_HIDDEN = ("out", "data", "threads", "device")
_WANTED = {"KID": "lower is better", "diversity": "1 is as varied as real pictures",
           "AuthPct": "percent that copy no training picture",
           "precision": "share within reach of real pictures, which is wide where these vary much",
           "recall": "share of real pictures within its reach; softer pictures lower it too",
           "kinds": "1 is every kind as often as among real ones", "density": "1 is as real ones",
           "coverage": "share of real pictures with a generated one near by"}  # fmt: skip


def write_card(run: TrainingRun) -> Path:
    """Write `card.md`, and `curves.png` where matplotlib is installed, into the run folder."""
    ticks, metrics = run.ticks(), run.metrics()
    drawn = write_curves(run.path / CURVES, ticks, metrics)
    return write_atomic(run.path / CARD, card_text(run, ticks, metrics, drawn).encode())


def card_text(run: TrainingRun, ticks: Sequence[Mapping], metrics: Sequence[Mapping], drawn: bool) -> str:
    """The card as Markdown."""
    best, said, config = run.best(), run.verdict(), run.config()
    samples = run.samples()
    parts = [f"# {run.name}", f"**{said.name.capitalize()}.** {said.reason} {said.advice}"]
    if samples:
        parts.append(f"![Fixed seeds, unpicked, at {_kimg(samples[-1][0])}](samples/{samples[-1][1].name})")
        parts.append(f"Always the same seeds, none picked, at {_kimg(samples[-1][0])}.")
    parts.append(_table(_facts(run, ticks, metrics, best)))
    if best:
        parts.append(f"```\npython -m stylegan generate --model {best['file']} --seeds 0-59 --grid sheet.png\n```")
    if drawn:
        parts += ["## Curves", f"![Curves over images seen]({CURVES})"]
    if metrics:
        parts += ["## Quality", _quality(metrics, best), _chosen(metrics, best)]
    for title, path in (("Training pictures", run.reals_path), ("Generated, each beside the training picture nearest "
                        "to it: the closest ones", run.pairs_path)):  # fmt: skip
        if path.is_file():
            parts += [f"## {title}", f"![{title}](samples/{path.name})"]
    parts += ["## Settings", _table(_settings(config)), *_history(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(
    run: TrainingRun, ticks: Sequence[Mapping], metrics: Sequence[Mapping], best: Mapping | None
) -> dict[str, str]:
    """What happened, by name."""
    config, last, events = run.config(), ticks[-1] if ticks else {}, run.events()[0]
    data = Path(str(config.get("data", "")))
    facts = {"Data": f"{data.name}, in this folder" if data.parent.name == run.name else data.name}
    said = [event for event in events if event.get("kind") == "data"]
    if said:
        facts["Pictures"] = f"{said[-1]['num_images']:,} trained on, {said[-1]['num_held_out']:,} held out"
        facts["Data fingerprint"] = f"`{str(said[-1]['fingerprint'])[:16]}`"
    facts["Images seen"] = f"{last.get('nimg', 0):,} ({last.get('epoch', 0):.1f} epochs)"
    facts["Training time"] = _span(last.get("seconds", 0))
    times = [event["time"] for event in events if isinstance(event.get("time"), int | float)]
    if times:
        facts["When"] = " to ".join(time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in (times[0], times[-1]))
        facts["When"] += " UTC"
    if last.get("seconds"):
        facts["Images a second"] = f"{last['nimg'] / last['seconds']:.1f} on average"
    if last.get("memory_mb"):
        facts["Most memory"] = f"{max(tick.get('memory_mb') or 0 for tick in ticks) / 1024:.1f} GB"
    facts["Steps without a finite gradient"] = str(last.get("nan", 0))
    facts["Ended"] = run.reason() or {"done": "all of its budget was spent"}.get(run.state(), run.state())
    if best:
        floor = next((event.get("floor") for event in reversed(metrics) if event["name"] == best["name"]), None)
        beside = f" (real against real: {_number(floor)})" if floor is not None else ""
        facts["Best snapshot"] = f"`{best['file']}`, {best['name']} {_number(best['value'])}{beside}"
    return facts


def _quality(metrics: Sequence[Mapping], best: Mapping | None) -> str:
    """All metrics of a choice of moments; of two averages the better one counts."""
    names = list(dict.fromkeys(str(event["name"]) for event in metrics))
    columns = {name: {event["nimg"]: event for event in best_by_moment(metrics, name)} for name in names}
    moments = thin(sorted({nimg for column in columns.values() for nimg in column}), MOST_ROWS)
    lines = ["| kimg | " + " | ".join(name.partition("-")[0] for name in names) + " |",
             "|" + "---:|" * (len(names) + 1)]  # fmt: skip
    for nimg in moments:
        cells = [_number(columns[name].get(nimg, {}).get("value")) for name in names]
        mark = " **best**" if best and best["nimg"] == nimg else ""
        lines.append(f"| {nimg / 1000:.1f}{mark} | " + " | ".join(cells) + " |")
    floors = [next((_number(e.get("floor")) for e in reversed(metrics) if e["name"] == name), "") for name in names]
    lines.append("| real against real | " + " | ".join(floors) + " |")
    return "\n".join(lines)


def _chosen(metrics: Sequence[Mapping], best: Mapping | None) -> str:
    """What the columns mean, and how the best snapshot was chosen, which is no independent result."""
    kinds = dict.fromkeys(str(event["name"]).partition("-")[0] for event in metrics)
    meant = "; ".join(f"{kind}: {_WANTED[kind]}" for kind in kinds if kind in _WANTED)
    versions = dict.fromkeys(str(event["name"]).partition("-")[2] for event in metrics)
    told = f"{meant}. Measured with {', '.join(filter(None, versions))}: this project's own offline measures, not FID."
    if not best:
        return told
    return (f"{told} The best snapshot was chosen by {best['name']} as it was measured here, so quote a measurement "
            "with another seed: `python -m stylegan metrics`.")


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings by flag, without the places of this machine and what is off."""
    config = {**config, "transfer": Path(str(config.get("transfer") or "")).name}
    return {f"--{name.replace('_', '-')}": _setting(value)
            for name, value in ((name, config.get(name)) for name in options_of(TrainConfig) if name not in _HIDDEN)
            if value not in (None, "", 0, False) or name == "seed"}


def _setting(value: Any) -> str:
    """A setting in words."""
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _history(run: TrainingRun) -> list[str]:
    """Settings that were changed while the run went on."""
    changes = [event for event in run.events()[0] if event.get("kind") == "live"]
    rows = [f"- {_kimg(event['nimg'])}: " + ", ".join(f"{name} {_number(value)}"
                                                      for name, value in event["changed"].items())
            for event in changes if isinstance(event.get("changed"), dict)]
    return ["## Changed while it trained", "\n".join(rows)] if rows else []


def write_curves(path: Path, ticks: Sequence[Mapping], metrics: Sequence[Mapping]) -> bool:
    """Draw the curves as PNG; False where there is nothing to draw or matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    kid = best_by_moment(metrics, "KID")
    ticks = thin(list(ticks), 1000)
    if not ticks:
        return False
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    quality, logits, augmentation, speed = figure.subplots(2, 2).flatten()
    quality.plot([e["nimg"] / 1000 for e in kid], [e["value"] for e in kid], marker=".", label="KID")
    if kid:
        top = min(grown(kid) or kid, key=lambda e: e["value"])
        quality.plot(top["nimg"] / 1000, top["value"], "*", markersize=12, label="best")
        if top.get("floor") is not None:
            quality.axhline(top["floor"], linestyle="--", color="grey", label="real against real")
    for field, label in (("logits_real", "real, as trained on"), ("logits_fake", "generated"),
                         ("logits_held_out", "held out"), ("logits_train", "train, unvaried")):  # fmt: skip
        _line(logits, ticks, field, label)
    _line(augmentation, ticks, "p", "augmentation p")
    _line(augmentation, ticks, "r_t", "r_t")
    _line(speed, ticks, "images_per_second", "images a second")
    for axes, title in ((quality, "Quality (lower is better)"), (logits, "Logits"), (augmentation, "Augmentation"),
                        (speed, "Speed")):  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("kimg", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8) if axes.lines else None
    memory = io.BytesIO()
    figure.savefig(memory, dpi=100, format="png")
    write_atomic(path, memory.getvalue())
    return True


def _line(axes: Any, ticks: Sequence[Mapping], field: str, label: str) -> None:
    """One curve of a tick field, where there is one."""
    points = [(tick["nimg"] / 1000, tick[field]) for tick in ticks if isinstance(tick.get(field), int | float)]
    if points:
        axes.plot(*zip(*points, strict=True), linewidth=1, label=label)


def _table(rows: Mapping[str, str]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _kimg(nimg: int) -> str:
    """Images seen in words."""
    return f"{nimg / 1000:.1f} kimg"


def _span(seconds: float) -> str:
    """A time in words: minutes of a short run, hours of a long one."""
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.2f} hours"


def _number(value: Any) -> str:
    """Three digits that count, of small numbers four behind the point."""
    if not isinstance(value, int | float):
        return ""
    return f"{value:.3g}" if abs(value) >= 0.01 or not value else f"{value:.4f}".replace("-0.0000", "0.0000")
