"""Background threads: asked to stop and waited for when the program ends, so that none dies inside native code."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from stylegan import background

ENDING = """
import threading, time
from stylegan import background

stop = threading.Event()

def work():
    stop.wait(60)
    time.sleep(0.3)
    print("finished its step", flush=True)

background.start(work, "slow", stop.set)
print("ends", flush=True)
"""


def test_the_end_of_the_program_waits_for_the_step_at_hand(repo):
    done = subprocess.run([sys.executable, "-c", ENDING], cwd=repo, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ends", "finished its step"]


def test_a_thread_runs_at_once_and_is_asked_to_stop_only_at_the_end():
    ran, asked = threading.Event(), []
    thread = background.start(ran.set, "quick", lambda: asked.append(1))
    thread.join(5)
    assert ran.is_set() and not thread.is_alive() and not asked


ASKING = """
import threading, time
from stylegan import background

def work():
    begun.set()
    time.sleep(0.5)
    print("finished", flush=True)

begun = threading.Event()
threading.Thread(target=background.call, args=(work, "asked for"), daemon=True).start()
begun.wait(9)
"""


def test_what_a_request_waits_for_is_finished_at_the_end(repo):
    done = subprocess.run([sys.executable, "-c", ASKING], cwd=repo, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0 and done.stdout.splitlines() == ["finished"], done.stderr


LATE = """
from stylegan import background

background.wait_for_all()
for begin in (background.start, background.call):
    try:
        begin(lambda: print("begun"), "late")
    except RuntimeError as error:
        print(error)
"""


def test_nothing_is_begun_once_the_program_ends(repo):
    done = subprocess.run([sys.executable, "-c", LATE], cwd=repo, capture_output=True, text=True, timeout=50)
    assert done.stdout.splitlines() == ["The program is ending, so late is not begun."] * 2, done.stderr


def test_a_call_hands_over_results_and_faults():
    assert background.call(lambda: 6 * 7, "sum") == 42
    with pytest.raises(ZeroDivisionError):
        background.call(lambda: 1 / 0, "fault")
