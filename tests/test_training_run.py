"""The run folder: what a trainer writes is what any other process reads, whatever happens between two bytes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from stylegan.errors import StyleGANError, TrainingError
from stylegan.training import process
from stylegan.training.run import TrainingRun, list_runs, run_folder, thin

CONFIG = {"data": "pictures.zip", "resolution": 16, "kimg": 1}


@pytest.fixture
def run(tmp_path):
    """A run that this very process claims to train."""
    made = TrainingRun.create(tmp_path / "runs" / "faces", CONFIG)
    yield made
    made._release()


def write_ticks(run: TrainingRun, counts, **fields) -> None:
    for nimg in counts:
        run.append_event("tick", nimg=nimg, loss_g=nimg / 2, **fields)


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def set_status(run: TrainingRun, **fields) -> None:
    (run.path / "status.json").write_text(json.dumps({**run.status(), **fields}))


def test_the_config_comes_back_and_a_new_run_is_starting(run):
    other = TrainingRun(run.path)
    assert other.exists() and other.config() == CONFIG
    assert other.state() == "starting" and other.is_active() and other.reason() == ""
    assert [event["kind"] for event in other.events()[0]] == ["config"]


def test_an_empty_folder_is_no_run(tmp_path):
    run = TrainingRun(tmp_path / "nothing")
    assert not run.exists() and run.config() == {} and run.status() == {} and run.events() == ([], 0)
    assert run.samples() == [] and run.snapshots() == [] and run.series(["p"]) == {"nimg": [], "p": []}
    assert list_runs(tmp_path / "no such root") == []


def test_events_are_read_once_each_and_a_torn_last_line_waits_for_its_rest(run):
    _, start = run.events()
    write_ticks(run, [100])
    with open(run.path / "events.jsonl", "ab") as file:
        file.write(b'{"kind":"tick","nim')
    events, place = run.events(start)
    assert [event["nimg"] for event in events] == [100]
    assert run.events(place) == ([], place)
    with open(run.path / "events.jsonl", "ab") as file:
        file.write(b'g":200}\n')
    assert [event["nimg"] for event in run.events(place)[0]] == [200]


def test_a_line_cut_short_by_a_dead_trainer_costs_only_itself(run):
    write_ticks(run, [100])
    with open(run.path / "events.jsonl", "ab") as file:
        file.write(b'{"kind":"tick","nimg":15')
    write_ticks(run, [200])
    assert TrainingRun(run.path).series([])["nimg"] == [100, 200]


def test_a_shorter_file_is_read_from_its_beginning(run):
    write_ticks(run, range(100, 1000, 100))
    assert len(run.ticks()) == 9
    (run.path / "events.jsonl").write_text('{"kind":"tick","nimg":7}\n')
    assert [tick["nimg"] for tick in run.ticks()] == [7]


def test_a_run_resumed_further_back_replaces_the_ticks_it_repeats(run):
    write_ticks(run, [100, 200, 300], p=0.1)
    write_ticks(run, [200, 250], p=0.5)
    assert run.series(["p"]) == {"nimg": [100, 200, 250], "p": [0.1, 0.5, 0.5]}


def test_a_folder_made_anew_is_read_anew_by_a_reader_that_knew_the_old_one(run):
    write_ticks(run, [100, 200])
    reader = TrainingRun(run.path)
    assert len(reader.ticks()) == 2
    (run.path / "events.jsonl").unlink()
    run._write_config(CONFIG)
    write_ticks(run, [10, 20, 30])
    assert [tick["nimg"] for tick in reader.ticks()] == [10, 20, 30]


def test_metrics_stand_with_their_ticks_and_the_last_word_counts(run):
    def metric(nimg, value):
        run.append_event("metric", nimg=nimg, name="KID-r64-v1", value=value, std=0.1)

    write_ticks(run, [100])
    metric(100, 5.0)
    metric(100, 4.0)
    write_ticks(run, [200])
    metric(200, 3.0)
    assert [m["value"] for m in run.metrics()] == [4.0, 3.0]
    write_ticks(run, [150])  # resumed from 100
    assert [m["value"] for m in run.metrics()] == [4.0]


def test_a_nan_is_a_gap_and_the_line_stays_plain_json(run):
    run.append_event("tick", nimg=5, loss_g=float("nan"), nan=1)
    line = (run.path / "events.jsonl").read_text().splitlines()[-1]
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name))["loss_g"] is None
    assert run.series(["loss_g", "nan"]) == {"nimg": [5], "loss_g": [None], "nan": [1]}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 399, 400, 401, 1000, 12345])
def test_thinning_keeps_both_ends_and_the_order(count):
    items = list(range(count))
    thinned = thin(items, 400)
    assert len(thinned) == min(count, 400) and thinned == sorted(set(thinned))
    assert thinned[:1] == items[:1] and thinned[-1:] == items[-1:]


def test_the_version_changes_with_all_that_is_news_and_with_nothing_else(run):
    def news(act) -> bool:
        before = TrainingRun(run.path).version()
        time.sleep(0.01)
        act()
        return TrainingRun(run.path).version() != before

    assert not news(lambda: None)
    assert not news(lambda: run.write_status("starting"))  # a heartbeat is no news
    assert news(lambda: run.write_status("running", 100))
    assert news(lambda: write_ticks(run, [100]))
    assert news(lambda: run.sample_path(100).write_bytes(b"jpeg"))
    assert news(lambda: run.snapshot_path(100).write_bytes(b"model"))
    assert news(run.ask_stop)
    assert news(lambda: run.finish("stopped", 100))


def test_samples_and_snapshots_are_listed_by_images_seen_and_strangers_ignored(run):
    for nimg in (2_000_000_000, 0, 51_200):
        run.sample_path(nimg).write_bytes(b"jpeg")
        run.snapshot_path(nimg).write_bytes(b"model")
    run.reals_path.write_bytes(b"jpeg")
    (run.path / "samples" / "fakes_x.jpg").write_bytes(b"")
    (run.path / "snapshots" / ".000000001.safetensors.tmp").write_bytes(b"")
    assert [nimg for nimg, _ in run.samples()] == [0, 51_200, 2_000_000_000]
    assert run.samples()[1][1].name == "fakes_000051200.jpg" and run.samples()[1][1].is_file()
    assert [nimg for nimg, _ in run.snapshots()] == [0, 51_200, 2_000_000_000]


def test_requests_reach_the_trainer_once_and_a_stop_stands_until_the_end(run):
    reader = TrainingRun(run.path)
    assert not run.stop_requested() and not run.snapshot_requested()
    reader.ask_snapshot()
    assert run.snapshot_requested() and not run.snapshot_requested()
    reader.ask_stop()
    assert run.stop_requested() and run.stop_requested() and reader.state() == "stopping"
    run.finish("stopped", 640)
    assert reader.state() == "stopped" and reader.status()["nimg"] == 640 and not run.stop_requested()


def test_a_finished_run_cannot_be_asked_anything_and_a_new_trainer_forgets_old_requests(run):
    run.finish("done", 1000)
    run.ask_stop()
    run.ask_snapshot()
    assert not (run.path / "stop").exists() and not (run.path / "snapshot").exists()
    (run.path / "stop").touch()
    set_status(run, pid=dead_pid())
    again = TrainingRun.create(run.path, CONFIG)
    assert not again.stop_requested() and again.status()["nimg"] == 1000
    again._release()


def test_a_stop_asked_between_spawn_and_first_breath_is_kept(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(process.status_of(os.getpid(), "starting", 0, "")))
    (folder / "stop").touch()
    run = TrainingRun.create(folder, CONFIG)
    assert run.stop_requested()
    run._release()


def test_the_end_is_told_with_its_sentence(run):
    run.finish("error", 64, "The pictures are gone.")
    assert run.state() == "failed" and run.reason() == "The pictures are gone."
    last = run.events()[0][-1]
    assert (last["kind"], last["reason"], last["nimg"]) == ("end", "error", 64)


def test_a_dead_trainer_is_a_crash_told_with_its_last_words(run):
    run.write_status("running", 128)
    (run.path / "log.txt").write_text("step 1\nKilled by the cold\n\n")
    set_status(run, pid=dead_pid())
    assert run.state() == "crashed" and "Killed by the cold" in run.reason()


def test_a_pid_given_to_another_process_is_no_proof_of_life(run):
    run.write_status("running", 128)
    assert run.state() == "running"
    set_status(run, started=run.status()["started"] - 1)
    assert run.state() == "crashed"


def test_an_unreaped_child_does_not_look_alive(run):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = process.status_of(child.pid, "running", 0, "")
    assert process.is_alive(status)
    child.stdin.close()
    for _ in range(500):  # no wait(): it must be seen as a zombie
        if not process.is_alive(status):
            break
        time.sleep(0.01)
    assert not process.is_alive(status)
    child.wait()


def test_a_trainer_on_another_machine_is_judged_by_its_heartbeat(run):
    run.write_status("running", 128)
    set_status(run, host="elsewhere", pid=1, started=1)
    assert run.state() == "running"
    set_status(run, heartbeat=time.time() - 1000)
    assert run.state() == "crashed"


def test_two_trainers_never_share_a_folder(run):
    code = ("import sys; from stylegan.training.run import TrainingRun\n"
            "from stylegan.errors import StyleGANError\n"
            "try: TrainingRun.create(sys.argv[1], {})\n"
            "except StyleGANError as error: print(error)")
    said = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).stdout
    assert "already being trained" in said and str(os.getpid()) in said and run.config() == CONFIG


def test_a_status_is_never_half_written(run, monkeypatch):
    run.write_status("running", 100)

    def no_replace(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(StyleGANError, match="disk is full"):
        run.write_status("running", 200)
    assert run.status()["nimg"] == 100 and not list(run.path.glob("*.tmp")) and not list(run.path.glob(".*.tmp"))


def test_a_full_disk_is_one_sentence_and_the_end_is_still_told(run, monkeypatch):
    real_write, room = os.write, {"reserve": True}

    def write(file, data):
        room["reserve"] = (run.path / "reserve").exists()
        return real_write(file, data[:3] if room["reserve"] else data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(TrainingError, match="disk is full"):
        write_ticks(run, [100])
    run.finish("error", 100, "The disk is full.")
    assert not room["reserve"] and run.state() == "failed" and run.reason() == "The disk is full."
    assert run.events()[0][-1]["reason"] == "error" and run.ticks() == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="in the way"):
        TrainingRun.create(tmp_path / "file" / "run", CONFIG)


def fake_python(tmp_path, body: str) -> str:
    """A stand-in for the interpreter that gets the trainer's command line."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


def test_start_spawns_the_command_once_and_lets_it_go_its_way(tmp_path):
    python = fake_python(tmp_path, 'echo "$@"; exec sleep 30')
    config = {**CONFIG, "out": str(tmp_path / "runs" / "new")}
    first = TrainingRun.start(config, python)
    second = TrainingRun.start(config, python)
    try:
        pid = first.status()["pid"]
        assert second.status()["pid"] == pid and first.state() == "starting" and first.config() == config
        assert os.getsid(pid) == pid  # its own session: closing ours does not end it
        log = first.path / "log.txt"
        while not log.read_text().endswith("\n"):
            time.sleep(0.01)
        assert log.read_text().split() == ["-m", "stylegan", "train", "--config", str(first.path / "config.json")]
    finally:
        os.kill(pid, 9)
    while first.is_active():
        time.sleep(0.01)
    assert first.state() == "crashed"


def test_a_command_that_dies_at_once_is_a_crash_with_its_sentence(tmp_path):
    python = fake_python(tmp_path, "echo The pictures are not there. >&2; exit 2")
    run = TrainingRun.start({**CONFIG, "out": str(tmp_path / "runs" / "new")}, python)
    while run.is_active():
        time.sleep(0.01)
    assert run.state() == "crashed" and "The pictures are not there." in run.reason()


def test_the_trainer_inherits_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hush")
    run = TrainingRun.start({"out": str(tmp_path / "run")}, fake_python(tmp_path, "env"))
    while run.is_active():
        time.sleep(0.01)
    log = (run.path / "log.txt").read_text()
    assert "PYTHONPATH=" in log and "hush" not in log


def test_runs_are_listed_active_first_then_newest(tmp_path):
    for name in ("old", "new", "live"):
        run = TrainingRun.create(tmp_path / name, CONFIG)
        if name != "live":
            run.finish("done")
        set_status(run, heartbeat={"old": 10.0, "new": 20.0, "live": 5.0}[name])
    (tmp_path / "not a run").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["live", "new", "old"]
    run._release()


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", ".hidden", "a\nb", "x" * 65, "ä"])
def test_a_run_name_stays_inside_the_root(tmp_path, name):
    with pytest.raises(StyleGANError):
        run_folder(tmp_path, name)


def test_a_linked_run_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StyleGANError, match="link"):
        run_folder(tmp_path, "link")
    assert run_folder(tmp_path, "faces-64") == tmp_path / "faces-64"
