"""Timers: writes that a machine has set for later. They are replicated, and run by the time of the log alone.

A timer belongs to a due time. Before the first entry whose time is that or later is applied, its write is run: on every
peer at the same index, with the same time. So no command ever sees a timer that is overdue. Knows no machines, no
clocks and no log.
"""

from __future__ import annotations

import heapq
import math

import msgspec

from quorate.errors import Rejected

TIMERS_MAX = 100_000
"""The most timers of a group. For ever the same on every peer: what a log means depends on it."""

CALL_BYTES_MAX = 16 * 1024
"""The largest encoded write of a timer. For ever the same, too."""

NEVER = float("inf")


class Timer(msgspec.Struct, frozen=True, array_like=True):
    """A write that is set for later.

    Attributes:
        due: when to run it, seconds of the log's time.
        call: the encoded write.
    """

    due: float
    call: bytes


class TimerTable(msgspec.Struct, array_like=True):
    """All timers of a group, as they are replicated.

    Attributes:
        made: how many were ever set; the id of the last one.
        by_id: those that are still set, in the order in which they were.
    """

    made: int = 0
    by_id: dict[int, Timer] = {}


class Timers:
    """The timers of one machine, and which is due first.

    Attributes:
        table: what of them is replicated.
        first: when the first one is due, seconds of the log's time; infinity when none is set.
    """

    def __init__(self, table: TimerTable) -> None:
        """Go on with these."""
        self.table: TimerTable = table
        self.first: float = NEVER
        self._due: list[tuple[float, int]] = []
        self._changed: list[tuple[int, Timer | None]] = []
        self._arrange()

    def set(self, when: float, call: bytes, now: float) -> int:
        """Set a timer, due at ``when`` or, if that is not later than now, as soon as time has passed.

        Args:
            when: seconds of the log's time.
            call: the encoded write.
            now: the time of the entry that sets it: whatever has the same time comes before the timer.

        Returns:
            Its id, which no other timer of the group ever has.

        Raises:
            ValueError: ``when`` is no instant, or the call is too large.
            Rejected: there are ``TIMERS_MAX`` of them.
        """
        if not math.isfinite(when):
            raise ValueError(f"a timer needs an instant, not {when}")
        if len(call) > CALL_BYTES_MAX:
            raise ValueError(f"the call of this timer has {len(call)} bytes; it has at most {CALL_BYTES_MAX}")
        table = self.table
        if len(table.by_id) >= TIMERS_MAX:
            raise Rejected("too_many_timers", TIMERS_MAX)
        table.made += 1
        timer = Timer(max(float(when), math.nextafter(now, math.inf)), call)
        self._changed.append((table.made, None))
        self._put(table.made, timer)
        return table.made

    def cancel(self, timer: int) -> None:
        """Take a timer back; nothing happens if it was run or taken back before."""
        found = self.table.by_id.pop(timer, None)
        if found is not None:
            self._changed.append((timer, found))
            self._arrange()

    def pop(self, now: float) -> tuple[int, bytes] | None:
        """Take out the timer that is due first, and of several the one set first; None when none is due."""
        if self.first > now:
            return None
        _, timer = heapq.heappop(self._due)
        found = self.table.by_id.pop(timer)
        self._arrange()
        return timer, found.call

    def undo(self) -> None:
        """Take back what was set and cancelled since ``settle``; the ids stay used."""
        for timer, before in reversed(self._changed):
            if before is None:
                self.table.by_id.pop(timer, None)
            else:
                self._put(timer, before)
        if self._changed:
            # In the order in which they were set: equal tables are to be equal bytes.
            self.table.by_id = dict(sorted(self.table.by_id.items()))
        self._changed.clear()
        self._arrange()

    def settle(self) -> None:
        """Take nothing back any longer of what was done so far."""
        self._changed.clear()

    def _put(self, timer: int, value: Timer) -> None:
        """Add a timer."""
        self.table.by_id[timer] = value
        heapq.heappush(self._due, (value.due, timer))
        self._arrange()

    def _arrange(self) -> None:
        """Find the first one, past those that were taken back; and forget those when they are many."""
        due, by_id = self._due, self.table.by_id
        if len(due) > 2 * len(by_id) + 64 or (not due and by_id):
            due = self._due = sorted((timer.due, number) for number, timer in by_id.items())
        while due and due[0][1] not in by_id:
            heapq.heappop(due)
        self.first = due[0][0] if due else NEVER
