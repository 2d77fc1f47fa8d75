"""The verdict: one constructed log for each word, read back from a run folder; best, comparison and the card."""

from __future__ import annotations

import pytest

from stylegan.training import card
from stylegan.training.compare import compare
from stylegan.training.run import TrainingRun
from stylegan.training.verdict import NAMES, Verdict, verdict

SETTINGS = {"batch": 16, "ada_cap": 0.8, "augment": "ada", "schedule": "tail", "metric_images": 500, "kimg": 100.0}
FALL = [0.5, 0.3, 0.2, 0.15, 0.12, 0.1, 0.09, 0.08]


@pytest.fixture
def make(tmp_path):
    """A run folder with a log of `len(kid)` evaluations ten thousand images apart, twelve ticks each."""
    made = []

    def build(kid, name="run", gap=0.1, p=0.2, nan=0, diversity=0.95, recall=0.5, authentic=60.0, loss=0.7, real=1.0,
              **settings):
        run = TrainingRun.create(tmp_path / name, {**SETTINGS, **settings, "data": "x", "out": name, "seed": len(made)})
        made.append(run)
        num = 12 * len(kid) or 6

        def at(value, i, of):
            return value(i / max(of - 1, 1)) if callable(value) else value

        for i in range(num):
            nimg = 10_000 * (i + 1) // 12
            run.append_event("tick", nimg=nimg, seconds=nimg / 20, progress=min(nimg / 100_000, 1),
                             images_per_second=20.0, loss_g=at(loss, i, num), p=at(p, i, num), r_t=0.5, memory_mb=500.0,
                             nan=at(nan, i, num), logits_real=at(real, i, num), logits_fake=-1.0, logits_held_out=1.0,
                             logits_train=1.0 + at(gap, i, num), epoch=nimg / 1000)  # fmt: skip
        for i, value in enumerate(kid):
            figures = {"KID-r64-v1": (value, "lower"), "diversity-r64-v1": (at(diversity, i, len(kid)), "one"),
                       "recall-r64-v1": (at(recall, i, len(kid)), "higher"),
                       "AuthPct-r64-v1": (at(authentic, i, len(kid)), "higher")}  # fmt: skip
            for metric, (figure, better) in figures.items():
                for ema, worse in ((5.0, 0.0), (20.0, 0.01)):
                    shift = worse if better == "lower" else -worse
                    run.append_event("metric", nimg=10_000 * (i + 1), name=metric, value=figure + shift, std=0.005,
                                     floor=60.0 if metric.startswith("Auth") else 0.001, better=better, ema_kimg=ema)
        return run

    yield build
    for run in made:
        run._release()


@pytest.mark.parametrize("name, log", [
    ("warming up", {"kid": []}),
    ("warming up", {"kid": [0.5, 0.4], "diversity": 0.2, "recall": 0.0}),
    ("warming up", {"kid": [0.5, 0.4, 0.41][:2], "authentic": 60.0}),
    ("improving", {"kid": FALL}),
    ("improving", {"kid": FALL, "gap": lambda t: 2 * t}),  # the gap alone is no harm while quality rises
    ("improving", {"kid": [0.5, 0.3, 0.2, 0.1, 0.16, 0.09]}),  # one bad evaluation is no trend
    ("plateau", {"kid": [*FALL, 0.08, 0.081, 0.079, 0.08]}),
    ("overfitting", {"kid": [*FALL, 0.09, 0.1, 0.12], "gap": lambda t: 0.1 + 4 * t**4}),
    ("overfitting", {"kid": FALL, "authentic": lambda t: 60 - 50 * t}),
    ("overfitting", {"kid": FALL, "authentic": 40.0}),  # unseen pictures score 60
    ("improving", {"kid": FALL, "authentic": 45.0}),
    ("collapsing", {"kid": [*FALL, 0.09, 0.1, 0.1], "diversity": lambda t: 0.9 - 0.8 * (t > 0.75),
                    "recall": lambda t: 0.5 - 0.48 * (t > 0.75)}),
    ("collapsing", {"kid": FALL, "diversity": 0.2, "recall": 0.01}),
    ("diverged", {"kid": [*FALL, 0.3, 0.4, 0.5]}),
    ("diverged", {"kid": [*FALL, 0.5, 0.6]}),  # twice far worse is enough
    ("improving", {"kid": [*FALL, 0.2, 0.3]}),
    ("diverged", {"kid": [0.5], "real": lambda t: 1 + 800 * (t > 0.6)}),  # long before KID is believed
    ("warming up", {"kid": [0.5], "real": lambda t: 1 + 800 * (0.5 < t < 0.6)}),
    ("diverged", {"kid": FALL, "nan": lambda t: int(10_000 * max(t - 0.9, 0))}),
    ("diverged", {"kid": FALL, "loss": lambda t: 0.7 if t < 0.9 else float("nan")}),
    ("leaking augmentation", {"kid": FALL, "p": lambda t: min(2 * t, 0.8)}),
])  # fmt: skip
def test_every_verdict_has_its_log(make, name, log):
    said = make(**log).verdict()
    assert said.name == name, said
    assert said.reason.endswith(".") and said.advice.endswith(".") and len(said.reason) < 160


def test_every_name_is_spoken(make):
    assert set(NAMES) == {"warming up", "growing", "improving", "plateau", "overfitting", "collapsing", "diverged",
                          "leaking augmentation"}  # fmt: skip
    assert isinstance(verdict([], []), Verdict) and verdict([], []).name == "warming up"


def test_a_thousand_images_are_too_few_for_a_verdict_however_often_they_are_judged():
    kid = [{"name": "KID", "nimg": 1000 * i, "value": 0.4, "std": 0.05, "better": "lower"} for i in range(1, 9)]
    assert verdict([], kid).name == "warming up" and "8.0 of the first 10 kimg" in verdict([], kid).reason


def early(values, step=1000):
    """Evaluations of the first minutes, a thousand images apart."""
    return [{"name": "KID", "nimg": step * i, "value": value, "std": 0.02, "better": "lower"}
            for i, value in enumerate(values, 1)]


def test_a_plain_fall_is_said_within_the_first_minutes_and_nothing_else_is():
    assert verdict([], early([0.7, 0.5, 0.4])).name == "improving"
    assert verdict([], early([0.7, 0.5, 0.4, 0.45, 0.41, 0.42, 0.41])).name == "improving"  # no plateau of seconds
    assert verdict([], early([0.4, 0.42, 0.9, 1.1])).name == "warming up"  # averages swing at first
    assert verdict([], early([0.7, 0.5, 0.4], step=50)).name == "warming up"


def test_advice_fits_the_settings_and_the_end(make):
    fast = make([0.5], name="fast", real=900.0, lr=0.1).verdict()
    assert fast.name == "diverged" and "a learning rate near 0.002 (it is 0.1)" in fast.advice
    assert "(80.0 kimg)" in make([*FALL, 0.3, 0.4, 0.5], name="late").verdict().advice
    slow = make(FALL, name="slow", diversity=0.2, recall=0.01, lr=0.01, lr_discriminator=0.0002).verdict()
    assert slow.advice.startswith("Start again with a faster discriminator")
    assert "augmentation (ADA)" in make(FALL, name="copies", authentic=5.0, augment="none").verdict().advice
    run = make(FALL, name="ended")
    assert run.verdict().advice == "Go on; there is more to gain."
    run.finish("stopped", 80_000)
    assert run.verdict().name == "improving" and "continue it" in run.verdict().advice


def test_a_run_that_ended_by_divergence_says_so_whatever_its_last_tick_said(make):
    run = make(FALL)
    run.finish("error", 80_000, "Training has diverged: 20 steps in a row had no numbers; go back to another.")
    assert run.verdict().name == "diverged" and run.verdict().reason.endswith("no numbers.")


def test_few_skipped_steps_are_no_divergence(make):
    assert make(FALL, nan=3).verdict().name == "improving"
    first = verdict([{"nimg": 16, "nan": 1, "loss_g": 1.0}], [], SETTINGS)
    assert first.name == "warming up", "one bad step at the very beginning"
    growing = {**SETTINGS, "resolution": 16, "family": "stylegan1", "grow_kimg": 10.0}
    ticks = [{"nimg": nimg, "nan": 3, "loss_g": 1.0} for nimg in (15_000, 19_000, 20_016)]
    assert verdict(ticks, [], growing).name == "warming up", "bad steps long before the last resolution"


def test_a_low_cap_that_is_reached_is_not_called_a_leak(make):
    assert make(FALL, p=0.3, ada_cap=0.3).verdict().name == "improving"
    assert make(FALL, name="r3gan", p=0.3, ada_cap=0.3, augment="schedule").verdict().name == "improving"
    leaking = make(FALL, name="leaks", p=0.8)
    assert "lower the ADA limit to 0.6" in leaking.verdict().advice
    assert make(FALL, name="followed", p=0.6, ada_cap=0.6).verdict().name == "improving", "the advice was taken"


def test_a_log_with_gaps_and_strangers_is_read(make):
    run = make(FALL)
    run.append_event("tick", nimg=80_001, loss_g=None, p=None)
    run.append_event("metric", nimg=80_001, name="KID-r64-v1", value=None)
    run.append_event("metric", nimg=80_001, name="new-metric", value=3.0)
    assert run.verdict().name == "improving"


def test_the_best_is_marked_kept_and_never_worsened(make):
    run = make(FALL)
    for nimg in (100, 200, 300):
        run.snapshot_path(nimg).write_bytes(b"model")
    assert run.best() is None
    for nimg, value in ((100, 0.5), (200, 0.3), (300, 0.4)):
        run.note_best(nimg, "KID-r64-v1", value, 5.0)
    assert TrainingRun(run.path).best()["nimg"] == 200 and run.best()["file"] == "snapshots/000000200.safetensors"
    run.note_best(300, "KID-r64-v2", 0.9, 5.0)  # another measure, another scale
    assert run.best()["nimg"] == 300
    run.snapshot_path(300).unlink()
    assert run.best() is None
    for nimg, value in ((400, 0.2), (10_400, 0.5), (10_800, 0.6)):  # of noise nothing is the best for long
        run.snapshot_path(nimg).write_bytes(b"model")
        run.note_best(nimg, "KID-r64-v1", value, 5.0)
    assert run.best()["nimg"] == 10_400
    growing = make(FALL, name="grows", family="stylegan1", resolution=16, grow_kimg=10.0)
    for nimg, value in ((15_000, 0.1), (25_000, 0.3), (30_000, 0.2)):  # 16 px come with 20 kimg
        growing.snapshot_path(nimg).write_bytes(b"model")
        growing.note_best(nimg, "KID-r64-v1", value, 5.0)
    assert growing.best()["nimg"] == 30_000, "a model of fewer pixels is not the run's best"


def test_very_young_pictures_are_no_measure_of_later_ones():
    kid = [*early([0.2]), *early([0.45, 0.4, 0.36, 0.3], step=11_000)]
    assert verdict([], kid).name == "improving" and "KID fell to 0.3 at 44.0 kimg" in verdict([], kid).reason
    assert "1 of 3 evaluations after the first 10 kimg" in verdict([], [*early([0.2, 0.3]), kid[1]]).reason


def test_runs_are_compared_by_what_differs(make):
    first, second = make(FALL, name="first"), make([0.5, 0.4, 0.39], name="second", gamma=2.0)
    found = compare([first, second])
    assert [run["verdict"] for run in found["runs"]] == ["improving", "improving"]
    assert found["differences"] == {"gamma": [pytest.approx(0.0002 * 64**2 / 16), 2.0], "seed": [0, 1]}
    assert found["curves"]["KID-r64-v1"][0][-1] == [80_000, 0.08] and len(found["curves"]["KID-r64-v1"][1]) == 3
    assert found["runs"][0]["images_per_second"] == pytest.approx(20.0)


def test_the_card_tells_what_happened(make):
    run = make(FALL, transfer="/home/mine/faces.pkl")
    run.append_event("data", nimg=0, fingerprint="abcdef0123456789ff", num_images=900, num_held_out=100)
    run.change_config(5000, {"gamma": 0.25})
    run.snapshot_path(80_000).write_bytes(b"model")
    run.note_best(80_000, "KID-r64-v1", 0.08, 5.0)
    run.finish("done", 80_000)
    text = card.write_card(run).read_text()
    for words in ("**Improving.**", "900 trained on, 100 held out", "abcdef0123456789", "| 80.0 **best** | 0.08 |",
                  "real against real | 0.0010", "5.0 kimg: gamma 0.25", "curves.png", "1.11 hours", "lower is better",
                  "KID-r64-v1 0.08 (real against real: 0.0010)", "generate --model snapshots/000080000.safetensors",
                  "| kimg | KID | diversity |", "all of its budget was spent",
                  "| --transfer | faces.pkl |"):  # fmt: skip
        assert words in text, words
    assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "/home" not in text and str(run.path.parent) not in text
