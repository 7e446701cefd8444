"""How far many runs have come, told on stderr while they run."""

from __future__ import annotations

import sys
import time
from typing import Protocol

PROGRESS_PAUSE = 30.0
"""How often it is told where there is no terminal, seconds."""


class Totals(Protocol):
    """What some runs came to so far."""

    @property
    def progress(self) -> str:
        """Where it stands, in a line."""
        ...


class Progress:
    """Tells now and then how far it has come: on a terminal in place of what it said before, else in lines."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._is_terminal = sys.stderr.isatty()
        self._pause = 0.5 if self._is_terminal else PROGRESS_PAUSE
        self._next = time.monotonic() + self._pause

    def show(self, totals: Totals) -> None:
        """Tell it, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._pause
            before, after = ("\r\x1b[K", "") if self._is_terminal else ("", "\n")
            print(f"{before}{totals.progress}", end=after, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for what is printed."""
        if self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
