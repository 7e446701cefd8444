"""The events of late that one peer holds, and those who wait for the next ones.

A peer emits every event when it applies the entry that leads to it, so what it holds here is what it applied since it
started, or was given a snapshot: as much of the end of that as ``Settings.events_bytes_max`` allows. Whoever watches
asks for what stands from a place on, and waits here until there is some. Knows events as bytes; knows no machine, no
log and no sockets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice

import msgspec

from quorate.errors import Compacted, Overloaded, Stopped, Unavailable
from quorate.events import Emitted, Place
from quorate.transport.calls import Events
from quorate.types import Index
from quorate.waiters import Waiter, Watchers

ANSWER_BYTES_MAX = 48 * 1024
"""About how many bytes of events one answer holds, at most: any frame has room for them."""

LOOKS_MAX = 2_048
"""How many events are looked at for one call before it is answered, with those that are wanted or with none: many may
ask at once, each for all that is held, and want none of it."""

WATCHERS_MAX = 10_000
"""The most who may wait at one peer: each costs some hundred bytes, and a look at every event."""


class Watcher(msgspec.Struct, eq=False):
    """Someone who waits for events.

    Attributes:
        waiter: who waits; resolved with ``Events``.
        prefixes: what the events that are wanted begin with.
        place: from where on; what is before it was sent, or is not wanted.
        call: see ``Watching``.
    """

    waiter: Waiter
    prefixes: tuple[bytes, ...]
    place: Place
    call: Hashable = None


class Recent:
    """The latest events of one peer, and who waits for more.

    Attributes:
        first: from this place on all events are here that were emitted.
    """

    def __init__(self, bytes_max: int) -> None:
        """Hold at most about so many bytes of events."""
        self.first: Place = (1, 0)
        self._bytes_max = bytes_max
        self._bytes = 0
        self._events: deque[Emitted] | tuple[()] = ()  # A deque costs 700 bytes also when empty.
        self._end = Index(1)
        self._watchers: Watchers[Watcher] = Watchers()

    def take(self, emitted: Sequence[Emitted], applied: Index) -> None:
        """Take what the entries up to ``applied`` have led to, and send it to those who wait for it."""
        self._end = Index(applied + 1)
        if not self._events:
            self._events = deque()
        self._events += emitted
        self._bytes += sum(event.size for event in emitted)
        while self._bytes > self._bytes_max:
            oldest = self._events.popleft()
            self._bytes -= oldest.size
            self.first = oldest.index, oldest.place + 1
        if not self._watchers:
            return
        begun: Place = emitted[0].index, emitted[0].place
        # Nearly all who wait have seen what was before these, and many want the same: they are given the same answer.
        shared: dict[tuple[bytes, ...], Events] = {}
        for watcher in list(self._watchers.values()):
            if watcher.place > begun:
                self._serve(watcher, emitted)
                continue
            answer = shared.get(watcher.prefixes)
            if answer is None:
                answer = shared[watcher.prefixes] = choose(watcher.prefixes, begun, emitted, (self._end, 0))
            self._send(watcher, answer)

    def add(self, watcher: Watcher, applied: Index) -> None:
        """Send someone what is here from a place on, now or, if that is nothing, as soon as there is some.

        Where much is here, the answer is of the first of it, and may hold nothing that is wanted.

        Args:
            watcher: who; told ``Compacted`` if some of it is here no longer.
            applied: up to where the peer has applied its log.
        """
        self._end = Index(applied + 1)
        if watcher.place < self.first:
            watcher.waiter.fail(Compacted(self.first[0] if self.first[1] == 0 else self.first[0] + 1))
            return
        if len(self._watchers) >= WATCHERS_MAX:
            watcher.waiter.fail(Overloaded(f"{WATCHERS_MAX} wait for events at this peer already"))
            return
        begin = bisect_left(self._events, watcher.place, key=place_of)
        count = len(self._events) - begin
        if count > LOOKS_MAX:
            oldest = islice(self._events, begin, begin + LOOKS_MAX)
            end = place_of(self._events[begin + LOOKS_MAX])
            watcher.waiter.succeed(choose(watcher.prefixes, watcher.place, oldest, end))
            return
        self._watchers.add(watcher)
        self._serve(watcher, list(islice(reversed(self._events), count))[::-1])

    def remove(self, watcher: Watcher) -> None:
        """Forget someone who waits no longer."""
        self._watchers.remove(watcher)

    def cancel(self, call: Hashable) -> None:
        """Forget who waits by a call, if anybody does."""
        self._watchers.pop(call, None)

    def restart(self, applied: Index) -> None:
        """Begin anew behind a snapshot, which does not tell what was emitted up to there."""
        self._events = ()
        self._bytes = 0
        self._end = Index(applied + 1)
        self.first = (self._end, 0)
        for watcher in list(self._watchers.values()):
            if watcher.place < self.first:
                self.remove(watcher)
                watcher.waiter.fail(Compacted(self._end))

    def expire(self, now: float, applied: Index, lost: str | None) -> None:
        """Answer those whose deadline has passed: up to here there was nothing, so they know where to go on.

        Args:
            now: seconds on the monotonic clock.
            applied: up to where the peer has applied its log.
            lost: why this peer may not learn what the group does: whoever waits asks another; None if it does.
        """
        self._end = Index(applied + 1)
        for watcher in self._watchers.take_due(now):
            if lost is None:
                watcher.waiter.succeed(Events(max(watcher.place, (self._end, 0)), ()))
            else:
                watcher.waiter.fail(Unavailable(lost))

    def deadline(self) -> float:
        """Give the first deadline of those who wait; infinity when nobody does."""
        return self._watchers.deadline()

    def stop(self, why: str, kind: type[Stopped | Unavailable] = Stopped) -> None:
        """Tell all who wait that there will be nothing more here, and why."""
        watchers, self._watchers = self._watchers, Watchers()
        for watcher in watchers.values():
            watcher.waiter.fail(kind(why))

    def _serve(self, watcher: Watcher, events: Sequence[Emitted]) -> None:
        """Send someone who waits those of these events that are wanted, if any are: the rest is known not to be."""
        self._send(watcher, choose(watcher.prefixes, watcher.place, events, (self._end, 0)))

    def _send(self, watcher: Watcher, answer: Events) -> None:
        """Send someone who waits an answer, unless it holds no events: then go on behind it."""
        if answer.events:
            self.remove(watcher)
            watcher.waiter.succeed(answer)
        else:
            watcher.place = max(watcher.place, answer.place)


def place_of(event: Emitted) -> Place:
    """Give where an event stands."""
    return event.index, event.place


def choose(prefixes: tuple[bytes, ...], begun: Place, events: Iterable[Emitted], end: Place) -> Events:
    """Give those of some events that begin so, from a place on, as far as one answer has room for them.

    Args:
        prefixes: what those begin with that are wanted.
        begun: the place.
        events: from there on, or from before it on; all there are up to ``end``.
        end: where to go on if there is room for all of them.
    """
    chosen: list[Emitted] = []
    size = 0
    place = end
    for event in events:
        if not event.event.startswith(prefixes) or (event.index, event.place) < begun:
            continue
        if chosen and size + event.size > ANSWER_BYTES_MAX:
            place = event.index, event.place
            break
        chosen.append(event)
        size += event.size
    return Events(max(begun, place), tuple(chosen))
