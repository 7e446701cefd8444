"""What a handler may know of the world beyond its arguments: time, index and randomness, from the log.

Knows no machines, and no clock but the one it is told.
"""

from __future__ import annotations

import random
from typing import ClassVar

import msgspec


class Context(msgspec.Struct, eq=False):
    """What a handler may know of the world beyond its arguments: the same on every peer.

    Attributes:
        is_of_write: whether it is that of a write, which may do more than look.
        now: the leader's wall clock when it took the command, seconds since 1970; never falls along the log. For a
            read, that of the last command applied.
        index: the index of the command in the log; for a read, the last one applied; for the write of a timer that of
            the entry before which it runs.
        timer: the id of the timer whose write this is; 0 for one that somebody asked for.
    """

    is_of_write: ClassVar[bool] = True

    now: float = 0.0
    index: int = 0
    timer: int = 0
    _random: random.Random | None = None

    @property
    def random(self) -> random.Random:
        """A generator seeded from the log. Foreseeable, so of no use for secrets.

        Python promises only ``random()`` itself to be alike in all its versions: where peers may run different ones,
        build on that alone.
        """
        if self._random is None:
            # Timers and the command behind them have the same index and time, and are to draw their own.
            of_timer = f" timer {self.timer}" if self.timer else ""
            self._random = random.Random(f"{self.index} {self.now!r}{of_timer}")
        return self._random


class ReadContext(Context, eq=False):
    """The context of a read."""

    is_of_write: ClassVar[bool] = False
