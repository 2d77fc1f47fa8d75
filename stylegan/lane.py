"""The queue before one device: first come, first served between sessions, and newest wins within one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_SESSIONS = 1024


@dataclass(eq=False)
class _Ticket:
    """One call in the queue; `dragging` says that more calls will follow while a hand moves."""

    dragging: bool


class Lane:
    """Lets one caller in at a time; `overtaken` tells the one inside that nobody waits for its result any more."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: OrderedDict[Hashable, _Ticket] = OrderedDict()
        self._newest: OrderedDict[Hashable, float] = OrderedDict()
        self._busy = False

    @contextmanager
    def turn(
        self, session: Hashable | None = None, sequence: float | None = None, dragging: bool = False
    ) -> Iterator[bool]:
        """Wait for the device; yields False when a newer call of the same session has made this one stale.

        A newer call takes over the place of the one it replaces. Calls without a session are never replaced.
        `sequence` is a caller's own count, so that calls that arrive out of order are told apart.
        """
        ticket = _Ticket(dragging)
        key = ticket if session is None else session
        with self._condition:
            mine = session is None or sequence is None or self._is_newest(session, sequence)
            if mine:
                self._waiting[key] = ticket
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._waiting.get(key) is not ticket or self._is_next(key))
                mine = self._waiting.get(key) is ticket
            if mine:
                del self._waiting[key]
                self._busy = True
        try:
            yield mine
        finally:
            if mine:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def overtaken(self, session: Hashable, dragging: bool = False) -> bool:
        """True when a newer call of this session waits, so that its result inside is not wanted any more.

        While a hand moves each result is wanted, however many calls wait behind it: else a slow model would never show
        a picture before the hand rests.
        """
        with self._condition:
            newer = self._waiting.get(session)
        return newer is not None and not (dragging and newer.dragging)

    def _is_next(self, key: Hashable) -> bool:
        """True when the device is free and `key` has waited longest."""
        return not self._busy and next(iter(self._waiting)) == key

    def _is_newest(self, session: Hashable, sequence: float) -> bool:
        """Note a session's count; False when a later one was seen before."""
        newest = sequence >= self._newest.get(session, sequence)
        if newest:
            self._newest[session] = sequence
            self._newest.move_to_end(session)
        while len(self._newest) > MAX_SESSIONS:
            self._newest.popitem(last=False)
        return newest
