"""The trace of one run: a line for each event of interest, and a digest of all of them.

The same seed gives the same lines, on every interpreter and machine: they hold no addresses, hashes or real time.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable

ROLE_SYMBOLS = {"leader": "★", "candidate": "◆", "pre-candidate": "◇", "follower": "·"}
"""What a peer is, at the beginning of its lines."""
FAULT_SYMBOL = "⚡"
CLIENT_SYMBOL = "»"


class Trace:
    """Collects lines.

    Attributes:
        count: how many there were.
    """

    def __init__(self, time: Callable[[], float], keep: int | None) -> None:
        """Begin empty; the last ``keep`` lines can be read again, all of them when it is None."""
        self.count: int = 0
        self._time = time
        self._lines: deque[str] = deque(maxlen=keep)
        self._digest = hashlib.sha256()

    def add(self, symbol: str, who: str, text: str) -> None:
        """Add a line: when, what kind, who, what."""
        line = f"{self._time():9.4f} {symbol} {who:8} {text}"
        self.count += 1
        self._lines.append(line)
        self._digest.update(line.encode() + b"\n")

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that were kept, oldest first."""
        return tuple(self._lines)

    @property
    def digest(self) -> str:
        """SHA-256 of all lines so far."""
        return self._digest.hexdigest()
