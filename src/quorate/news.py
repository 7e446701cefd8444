"""News of a commit: when a leader tells followers that lack no entry how far it has committed.

The next entries tell it too, for nothing. So while those who are answered write again soon, the news waits for what
they write: a message of its own, and its answer, cost each peer a turn. Knows instants; knows no core and no callers.
"""

from __future__ import annotations

FOREVER = float("inf")

PATIENCE = 0.01
"""How long the news waits for the next write, seconds. A caller in another process that makes one call after the other
is back in less. By so much what followers hold may be older, once nobody writes any longer."""

HABIT = 3
"""After how many writes that came so soon, each behind the answers to others, the next is waited for."""


class News:
    """When one leader tells of what it has committed.

    Attributes:
        due: when the turn is due that tells of it if nobody writes before, seconds on the monotonic clock; infinity
            when nothing waits for that.
        is_next: whether it is told of by the turn that follows.
    """

    __slots__ = ("_answered_at", "_returns", "due", "is_next")

    def __init__(self) -> None:
        """Have nothing to tell."""
        self.due: float = FOREVER
        self.is_next: bool = False
        self._answered_at = -FOREVER
        self._returns = 0

    def expect(self, now: float) -> None:
        """Learn that somebody writes: whether soon after others were answered, and how often in a row."""
        self._returns = self._returns + 1 if now < self._answered_at + PATIENCE else 0

    def waits(self, now: float, *, answers: bool) -> bool:
        """Tell whether what is committed is told of later than in this turn.

        Args:
            now: seconds on the monotonic clock.
            answers: whether callers are answered in this turn.
        """
        if answers:
            self._answered_at = now
        is_patient = self._returns >= HABIT and now < self._answered_at + PATIENCE
        self.due = self._answered_at + PATIENCE if is_patient else FOREVER
        self.is_next = answers and not is_patient
        return answers or is_patient
