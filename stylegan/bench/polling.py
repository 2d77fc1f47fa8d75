"""What an open page costs the machine that trains: how long it takes to ask whether a run has news, and to show them.

The page looks from the app's process, so a process of its own measures here what the app does; it loads no gradio and
no PyTorch, and reads a run folder of a long run, written for the occasion.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stylegan.training.config import TrainConfig
from stylegan.training.run import TrainingRun

TICKS, SAMPLES, METRICS = 2000, 150, 30  # of three hours
LOOK_SECONDS, NEWS_SECONDS = 1.0, 5.0  # how often the page looks, and how often a run has news
ROUNDS = 20
_PAGE = """
import json, statistics, sys, time
from pathlib import Path
from stylegan.ui import run_view
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
run = run_view.find_run(root, "run")
def look(): run_view.run_choices(root), run_view.view_version(run_view.find_run(root, "run"))
def show(): json.dumps(run_view.run_view(run_view.find_run(root, "run")))
def seconds(act):
    act()
    taken = []
    for turn in range(rounds):
        run.append_event("tick", nimg=10_000_000 + turn, logits_real=0.5)
        start = time.process_time()
        act()
        taken.append(time.process_time() - start)
    return statistics.median(taken)
print(json.dumps({"look": seconds(look), "show": seconds(show)}))
"""


def polling(ticks: int = TICKS, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of one core that a page takes to `look` at a run of so many ticks and to `show` its news; and its
    `share` of one core's time while it is open."""
    root = Path(__file__).resolve().parents[2]
    with TemporaryDirectory() as folder:
        _long_run(Path(folder) / "run", ticks)
        answer = subprocess.run([sys.executable, "-c", _PAGE, folder, str(rounds)], cwd=root, capture_output=True,
                                text=True, check=True)  # fmt: skip
    found: dict[str, Any] = json.loads(answer.stdout)
    return found | {"share": found["look"] / LOOK_SECONDS + found["show"] / NEWS_SECONDS}


def _long_run(path: Path, ticks: int) -> None:
    """A run folder as a training of some hours leaves it, whose trainer is this process."""
    config = TrainConfig(data="cartoon-sample-64", out=str(path), preset="slim").resolve(has_gpu=False)
    run = TrainingRun.create(path, config.to_dict())
    names = ("lr", "loss_g", "loss_d", "logits_real", "logits_fake", "logits_train", "logits_held_out", "grad_g",
             "grad_d", "r1", "p", "r_t", "ms_generator", "ms_discriminator", "ms_r1", "ms_data", "ms_average",
             "images_per_second", "memory_mb", "epoch", "progress", "eta_seconds")  # fmt: skip
    lines = [{"kind": "tick", "nimg": 80 * turn, "seconds": 5.0 * turn, "nan": 0, **{name: 0.5 for name in names}}
             for turn in range(ticks)]  # fmt: skip
    for turn in range(METRICS):
        lines.append({"kind": "metric", "name": "KID-r64-v1", "nimg": 80 * turn, "value": 0.1, "ema_kimg": 5.0})
    with open(path / "events.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    for turn in range(SAMPLES):
        run.sample_path(800 * turn).write_bytes(b"")
    run.write_status("running", 80 * ticks)
