"""Background threads: asked to stop and waited for when the program ends, so that none dies inside native code."""

from __future__ import annotations

import subprocess
import sys
import threading

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
