"""The time of the log: what a leader stamps on its entries, and when time alone needs an entry.

Knows roles and wall clocks. Does not know what is in the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorate.apply import Apply
from quorate.core import Raft
from quorate.types import Run

NEVER = float("inf")

PAUSE_MIN = 0.001
"""The shortest time until the next look at a timer that should be due, seconds: clocks are not that exact."""


class LogTime:
    """The time of one peer's log, which never falls along it.

    It is the wall clock of whoever leads. Where that shows less than the log has already, because it was set back or
    another one led before, the time of the log goes on at half the speed of real time until the clock has caught up:
    whatever waits for an instant waits twice as long meanwhile, and not for ever.

    Attributes:
        latest: the latest time in the log, seconds since 1970.
    """

    def __init__(self, latest: float, wall: Callable[[], float]) -> None:
        """Begin with a log as it was found; ``wall`` gives the wall clock, seconds since 1970."""
        self.latest: float = latest
        self._wall = wall
        self._noted_at: float | None = None

    def note(self, time: float, now: float) -> None:
        """Note a time in the log: of an entry or a snapshot; ``now`` is the monotonic clock, seconds."""
        if time > self.latest or self._noted_at is None:
            self.latest = max(time, self.latest)
            self._noted_at = now

    def read(self, now: float) -> float:
        """Give the time that an entry would be stamped with now."""
        passed = 0.0 if self._noted_at is None else now - self._noted_at
        return max(self._wall(), self.latest + passed / 2)

    def stamp(self, entries: Sequence[Run], raft: Raft, now: float) -> tuple[Run, ...]:
        """Give runs that this peer appended as leader their time, and note that of all others."""
        if not entries:
            return ()
        stamped: list[Run] = []
        is_leader = raft.state.leader == raft.state.peer
        for run in entries:
            if is_leader and run.term == raft.state.term:
                run = Run(run.term, run.first, run.kind, self.read(now), run.payloads)
            self.note(run.time, now)
            stamped.append(run)
        return tuple(stamped)

    def wait(self, raft: Raft, apply: Apply, now: float) -> float:
        """Give how long a leader waits before it writes an entry for the sake of time: until the first timer is due.

        Whatever of its log is not applied yet may bring that time: then it is seen when that is applied. Of what is not
        on its own disk yet ``uncommitted_bytes_max`` may leave no room for more: then it is seen when that is there.

        Returns:
            Seconds, 0.0 for now; infinity if there is no timer, or nothing to be done about it here.
        """
        first = apply.machine.effects.timers.first
        if first == NEVER or not raft.takes_proposals():
            return NEVER
        if min(apply.last_applied, raft.state.persisted_index) < raft.state.log.last:
            return NEVER
        left = first - self.read(now)
        return max(left, PAUSE_MIN) if left > 0 else 0.0
