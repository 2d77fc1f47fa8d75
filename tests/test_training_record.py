"""The writing side of a run: when snapshots come, and that judging them neither looks dead nor holds up a stop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from stylegan.data.images import open_images, sample_sets
from stylegan.errors import DataError
from stylegan.training import record
from stylegan.training.config import TrainConfig
from stylegan.training.record import Record
from stylegan.training.run import TrainingRun
from stylegan.training.trainer import Trainer


@pytest.fixture
def make(tmp_path):
    """A record of a tiny run that has taken one step, and what it says."""
    made = []

    def build(**changes):
        config = TrainConfig(data="cartoon-sample-64", out=str(tmp_path / f"run{len(made)}"), resolution=16, batch=4,
                             channel_base=128, channel_max=8, z_dim=8, w_dim=8, threads=1, device="cpu",
                             **changes).resolve()  # fmt: skip
        data = open_images(sample_sets()["cartoon-sample-64"], 16)
        trainer, said = Trainer(config, data), []
        trainer.step()
        made.append(TrainingRun.create(config.out, config.to_dict()))
        return Record(made[-1], trainer, data, None, said.append), said

    yield build
    for run in made:
        run._release()


def moments(one: Record, monkeypatch, minutes: float, judging: float = 0.0) -> list[float]:
    """The minutes at which a record makes snapshots whose judging takes so many seconds."""
    clock, found = [0.0], []
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])
    one.clock = dict.fromkeys(one.clock, 0.0)

    def snapshot():
        found.append(one.trainer.seconds / 60)
        clock[0] += judging
        one.judging_seconds, one.clock["snapshot"] = judging, clock[0]

    one.snapshot, one.sample, one.save = snapshot, lambda: None, lambda: None
    one.trainer.seconds = 0.0
    while one.trainer.seconds < 60 * minutes:
        one.whatever_is_due()
        clock[0] += 1.0
        one.trainer.seconds += 1.0
    return found


def test_the_first_verdict_needs_minutes_and_later_snapshots_come_as_configured(make, monkeypatch):
    found = moments(make(kimg=1000, snapshot_minutes=10, metric_images=50)[0], monkeypatch, 90)
    assert found[0] <= 1.1 and found[2] <= 4
    gaps = [after - before for before, after in zip(found, found[1:], strict=False)]
    assert gaps[-1] == pytest.approx(10, abs=0.1) and max(gaps) < 10.1 and gaps == sorted(gaps)


def test_judging_takes_a_tenth_of_the_time_but_a_short_budget_is_judged_all_the_same(make, monkeypatch):
    slow = moments(make(kimg=1000, snapshot_minutes=1, metric_images=50)[0], monkeypatch, 60, judging=30)
    assert 9 <= len(slow) <= 13
    assert len(moments(make(minutes=12, metric_images=50)[0], monkeypatch, 12, judging=90)) >= 5


def test_without_metrics_snapshots_come_as_configured_from_the_start(make, monkeypatch):
    one, _ = make(kimg=1000, snapshot_minutes=10, metric_images=0)
    assert moments(one, monkeypatch, 45) == pytest.approx([10, 20, 30, 40], abs=0.2)


def test_fakes_are_judged_in_classes_as_frequent_as_in_the_set(make):
    one, _ = make(kimg=1, metric_images=60, conditional=True)
    order = np.argsort(one.data.labels)  # the pictures of some sets lie in the order of their classes
    one.trainer.images = one.data.subset(order)
    asked = []

    def measure(fakes, on_progress=None):
        mapping = one.trainer.averages[0].generator.mapping
        mapping.register_forward_pre_hook(lambda _, inputs: asked.extend(inputs[1].argmax(dim=1).tolist()))
        list(fakes(60))
        raise DataError("enough")

    one.meter = SimpleNamespace(measure=measure)
    one.snapshot()
    shares = [np.bincount(each, minlength=one.data.num_classes) / len(each) for each in (asked, one.data.labels)]
    assert len(asked) == 60 and np.abs(shares[0] - shares[1]).max() < 0.1


@pytest.mark.parametrize("num", [3, 10, 45, 96])
def test_few_pictures_are_shown_once_each_and_many_evenly(make, num):
    one, _ = make()
    one.trainer.images = one.trainer.images.subset(range(num))
    columns, most = record.sheet(16)
    pixels, beside = one._some_reals()
    assert (len(pixels), beside) == (min(num, most), columns)
    assert len({picture.tobytes() for picture in pixels}) == len(pixels)
    assert (pixels[0] == one.trainer.images.pixels(0)).all()
    assert num > most or (pixels[-1] == one.trainer.images.pixels(num - 1)).all()


def test_judging_says_what_it_does(make, monkeypatch):
    monkeypatch.setattr(record, "TICK_SECONDS", 0.0)
    one, _ = make(kimg=1, metric_images=24)
    seen = []
    monkeypatch.setattr(one, "wait", lambda: seen.append((one.run.reason(), one.run.version())))
    one.snapshot()
    said = [sentence for sentence, _ in seen if sentence]
    assert any(s.startswith("Judging the pictures: training pictures, ") and s.endswith("of 96.") for s in said), said
    assert len({version for _, version in seen}) > 2  # so that a page asks for it
    one.add({"logits_real": 0.0, "logits_fake": 0.0, "r_t": 0.0, "p": 0.0})
    one.tick(0.1)
    assert one.run.reason() == "" and len(one.run.metrics()) >= 7


def test_a_stop_does_not_wait_for_the_judging(make):
    one, said = make(kimg=1, metric_images=24)
    (one.run.path / "stop").touch()
    one.snapshot()
    assert one.run.snapshots() and not one.run.metrics()
    assert any("asked to stop" in line for line in said)
