"""What a peer tells of itself: the events of its core, counted and logged. Knows no core, and decides nothing."""

from __future__ import annotations

import logging

from quorate.core import QUIET, Event, EventKind

logger: logging.Logger = logging.getLogger("quorate.raft")

NOTHING = "", 0, 0
"""What is known of a kind of which there was none."""


class Diary:
    """The events of one peer."""

    __slots__ = ("_name", "_told")

    def __init__(self, name: str) -> None:
        """Begin empty; ``name`` is the peer's."""
        self._name = name
        # Of each kind the latest text, how often it came in a row, and how often any came: one table of few, since
        # each of a thousand idle groups has its own.
        self._told: dict[EventKind, tuple[str, int, int]] = {}

    def tell(self, event: Event) -> None:
        """Count an event, and log it: there is one for each change of state, none for a write.

        One that repeats the one of its kind before it is logged the 2nd, 4th, 8th … time: a peer that is cut off asks
        for pre-votes for as long as that lasts, and fills no disk with it.
        """
        text, times, count = self._told.get(event.kind, NOTHING)
        times = times + 1 if event.text == text else 1
        self._told[event.kind] = event.text, times, count + 1
        if times & (times - 1) == 0:
            level = logging.DEBUG if event.kind in QUIET else logging.INFO
            again = f" (time {times} in a row)" if times > 1 else ""
            logger.log(level, "%s [term %d] %s%s", self._name, event.term, event.text, again)

    def ignore(self) -> None:
        """Count what is ignored before the core sees it, of which nothing is logged."""
        text, times, count = self._told.get(EventKind.IGNORED, NOTHING)
        self._told[EventKind.IGNORED] = text, times, count + 1

    def count(self, kind: EventKind) -> int:
        """Tell how many events of a kind there were since the start."""
        return self._told.get(kind, NOTHING)[2]
