"""Effects: what the writes of a machine lead to beside its state and their replies: events, and timers.

Of a write that raises everything is taken back. Knows no machine and no log.
"""

from __future__ import annotations

from quorate.context import Context
from quorate.events import Emitted, Event, EventTypes
from quorate.timers import Timers, TimerTable
from quorate.types import Index


class Effects:
    """What the writes of one machine have led to.

    On a plain machine, outside of any group, events gather with each call. A peer takes from it what each entry led to.

    Attributes:
        emitted: the events, in order.
        timers: the timers that are set.
    """

    def __init__(self, types: EventTypes, table: TimerTable | None = None) -> None:
        """Begin with no events; ``types`` are those that the machine emits, and ``table`` holds its timers."""
        self.emitted: list[Emitted] = []
        self.timers: Timers = Timers(TimerTable() if table is None else table)
        self._types = types
        self._index: int | None = None
        self._kept = 0

    @property
    def events(self) -> list[Event]:
        """The events themselves, as whoever watches gets them."""
        decoder = self._types.decoder
        return [decoder.decode(emitted.event) for emitted in self.emitted] if decoder is not None else []

    def check_unused(self, machine: str) -> None:
        """Check that a fresh machine has led to nothing: it is made anew on each peer, and at each start.

        Raises:
            TypeError: its ``__init__`` has emitted an event, or set a timer.
        """
        if self.emitted or self.timers.table.by_id:
            raise TypeError(
                f"{machine}.__init__ emits an event or sets a timer, which would be lost: a write does such things, so"
                " have one that begins them, and call it once"
            )

    def emit(self, event: Event, context: Context) -> None:
        """Take an event of the write that runs.

        Raises:
            TypeError: the machine does not emit it, it does not hold what its class declares, or this is a read.
            ValueError: it is larger than an event may be.
        """
        encoded = self._types.encode(event)
        index = self._begin(context)
        last = self.emitted[-1] if self.emitted else None
        place = last.place + 1 if last is not None and last.index == index else 0
        self.emitted.append(Emitted(index, place, encoded))

    def set_timer(self, when: float, call: bytes, context: Context) -> int:
        """Set a timer in the write that runs; see ``Timers.set``.

        Raises:
            TypeError: this is a read.
            ValueError: ``when`` is no instant, or the call is too large.
            Rejected: there are too many timers.
        """
        self._begin(context)
        return self.timers.set(when, call, context.now)

    def cancel_timer(self, timer: int, context: Context) -> None:
        """Take a timer back in the write that runs.

        Raises:
            TypeError: this is a read.
        """
        self._begin(context)
        self.timers.cancel(timer)

    def undo(self, context: Context) -> None:
        """Take back what the write that runs led to: it raised. A read led to nothing."""
        if context.is_of_write and self._index == context.index:
            del self.emitted[self._kept :]
            self.timers.undo()
            self._index = None

    def settle(self) -> None:
        """Take nothing back any longer of what was led to so far: that write is over."""
        self._index = None

    def take(self) -> list[Emitted]:
        """Give the events of all writes that are over, and keep none of them."""
        emitted, self.emitted = self.emitted, []
        self.settle()
        return emitted

    def _begin(self, context: Context) -> Index:
        """Remember where the write that runs has begun; give its index.

        Raises:
            TypeError: it is a read that runs.
        """
        if not context.is_of_write:
            raise TypeError("a read only looks: it emits nothing, and sets no timers")
        if self._index != context.index:
            self._index, self._kept = context.index, len(self.emitted)
            self.timers.settle()
        return Index(context.index)
