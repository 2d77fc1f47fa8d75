"""Threads that work while a page is used, and are waited for when the program ends.

A thread that dies inside native code takes the whole process down with it ("terminate called"), so none is left behind.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

BEHIND = 2  # steps of priority that work behind a page leaves to what people wait for
PATIENCE_SECONDS = 60.0  # for the step that a thread is at when the program ends

_lock = threading.Lock()
_running: list[tuple[threading.Thread, Callable[[], object]]] = []
_ended = threading.Event()
Result = TypeVar("Result")


def start(work: Callable[[], object], name: str, end: Callable[[], object] = lambda: None) -> threading.Thread:
    """Begin `work` on a thread of that name; `end` asks it to stop, and is called only when the program ends.

    RuntimeError once the program ends: nobody would wait for it any more.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    with _lock:
        if _ended.is_set():
            raise RuntimeError(f"The program is ending, so {name} is not begun.")
        _running[:] = [each for each in _running if each[0].is_alive()]
        thread.start()
        _running.append((thread, end))
    return thread


def call(work: Callable[[], Result], name: str) -> Result:
    """What `work` returns or raises, done on such a thread; for seconds of work that a page's request waits for."""
    answer: Future[Result] = Future()

    def work_and_tell() -> None:
        """Hand over the result or the fault."""
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    start(work_and_tell, name)
    return answer.result()


def step_back(steps: int = BEHIND) -> None:
    """Give this thread, for good, a lower priority where the system knows priorities of threads."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), steps)
    except (AttributeError, OSError):
        pass


@atexit.register
def wait_for_all() -> None:
    """Ask every thread to stop, and wait for the step that it is at."""
    with _lock:
        _ended.set()
        left = [each for each in _running if each[0].is_alive()]
    for _, end in left:
        end()
    for thread, _ in left:
        thread.join(timeout=PATIENCE_SECONDS)
