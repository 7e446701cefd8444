"""What a peer tells of itself: the events of its core, counted and logged. Knows no core, and decides nothing."""

from __future__ import annotations

import logging

from quorate.core import QUIET, Event, EventKind

logger: logging.Logger = logging.getLogger("quorate.raft")


class Diary:
    """The events of one peer.

    Attributes:
        counts: events since the start, by kind.
    """

    __slots__ = ("_latest", "_name", "counts")

    def __init__(self, name: str) -> None:
        """Begin empty; ``name`` is the peer's."""
        self.counts: dict[EventKind, int] = dict.fromkeys(EventKind, 0)
        self._name = name
        self._latest: dict[EventKind, tuple[str, int]] = {}

    def tell(self, event: Event) -> None:
        """Count an event, and log it: there is one for each change of state, none for a write.

        One that repeats the one of its kind before it is logged the 2nd, 4th, 8th … time: a peer that is cut off asks
        for pre-votes for as long as that lasts, and fills no disk with it.
        """
        self.counts[event.kind] += 1
        text, times = self._latest.get(event.kind, ("", 0))
        times = times + 1 if event.text == text else 1
        self._latest[event.kind] = event.text, times
        if times & (times - 1) == 0:
            level = logging.DEBUG if event.kind in QUIET else logging.INFO
            again = f" (time {times} in a row)" if times > 1 else ""
            logger.log(level, "%s [term %d] %s%s", self._name, event.term, event.text, again)
