"""Watching: the events of a group as an iterator, each once, in the order of the log, over any number of connections.

A watch asks some peer for what stands from a place on, gives that out, and asks again from where that ended: who is
asked may change each time, and no peer remembers whom it told what. Does not know which peer is asked, nor how.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from quorate.attempts import Attempt, Said, reason, said_of
from quorate.errors import Compacted, QuorateError, Unavailable
from quorate.events import Change, Event, EventTypes, Place
from quorate.following import Following
from quorate.transport.calls import Events, WatchCall
from quorate.transport.local import Target

E_co = TypeVar("E_co", covariant=True, bound=Event)

Ask = Callable[[Place | None], Awaitable[Events]]
"""Asks for the events from a place on, and waits for some; of None for where those begin that are yet to come."""

GRACE = 1.0
"""How much later than asked for an answer may come, seconds, before the peer that was asked is given up."""

PAUSE_MIN = 0.01
"""The first pause before the next peer is asked, seconds; doubles each time."""

PAUSE_MAX = 0.25
"""The longest such pause, seconds."""


class Watch(Generic[E_co]):
    """Events as they come, each a ``Change``; made by ``Client.watch`` and ``Peer.watch``.

    ::

        async for change in kv.watch(Changed):
            print(change.index, change.event)

    Without ``after`` it begins with what is committed after it began: with the first event asked for, or when ``async
    with`` is entered, whichever comes first.

    An error ends a ``for``, and not the watch: it can be iterated again, and goes on where it was. ``aclose``, or the
    end of ``async with``, ends it; so does being forgotten, for it holds nothing while nobody waits for an event.
    """

    def __init__(self, types: EventTypes, ask: Ask, place: Place | None) -> None:
        """Begin at a place, or when the first event is asked for."""
        self._types = types
        self._ask = ask
        self._place = place
        self._changes: deque[Change[Any]] = deque()
        self._asking: asyncio.Future[Events] | None = None
        self._is_closed = False

    @property
    def after(self) -> int | None:
        """The last index of which all events were given out; None while it has not begun.

        ``watch(..., after=…)`` with it goes on from here, in another process, say. To go on in the midst of the events
        of one index, give it the last ``Change``.
        """
        place = (self._changes[0].index, self._changes[0].place) if self._changes else self._place
        return None if place is None else place[0] - 1

    def __aiter__(self) -> Self:
        """Give the watch itself."""
        return self

    async def __anext__(self) -> Change[E_co]:
        """Wait for the next event.

        Raises:
            StopAsyncIteration: the watch was closed.
            Compacted: some events were missed: those from here on are held no longer by anyone.
            Unavailable: for the timeout nobody answered; the message says who was tried and what each said.
            Stopped: the peer asked, in this process, has stopped.
            RuntimeError: another task waits for the next event of this watch.
        """
        while not self._changes:
            if self._is_closed:
                raise StopAsyncIteration
            await self._fetch()
        return self._changes.popleft()

    async def aclose(self) -> None:
        """End the watch; whoever waits for an event is told that there are no more. Idempotent."""
        self._is_closed = True
        self._changes.clear()
        if self._asking is not None:
            self._asking.cancel()

    async def __aenter__(self) -> Self:
        """Begin: what is committed from now on will be seen.

        Raises:
            Unavailable: nobody answered in time.
            Stopped: the peer asked, in this process, has stopped.
        """
        if self._place is None:
            await self._fetch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the watch."""
        await self.aclose()

    async def _fetch(self) -> None:
        """Ask once, and keep what comes.

        Raises:
            StopAsyncIteration: the watch was closed meanwhile.
            CancelledError: whoever waits for this was cancelled.
            RuntimeError: another task asks already.
        """
        if self._asking is not None:
            raise RuntimeError("another task waits for the next event of this watch; give each task a watch of its own")
        self._asking = asyncio.ensure_future(self._ask(self._place))
        try:
            answer = await self._asking
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if self._is_closed and me is not None and not me.cancelling():
                raise StopAsyncIteration from None
            raise
        finally:
            self._asking = None
        self._take(answer)

    def _take(self, answer: Events) -> None:
        """Keep the events of an answer.

        Raises:
            Unavailable: one is none of those asked for; nothing of the answer is kept.
        """
        assert self._types.decoder is not None, "a watch is of some events"
        try:
            self._changes.extend(
                [Change(told.index, told.place, self._types.decoder.decode(told.event)) for told in answer.events]
            )
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Unavailable(f"the peer sent what is none of the events watched: {error}") from error
        self._place = answer.place


def beginning(after: int | Change[Any] | None) -> Place | None:
    """Give the place of the first event that comes after an index or another event.

    Raises:
        ValueError: the index is below 0.
    """
    match after:
        case None:
            return None
        case Change():
            return after.index, after.place + 1
        case _:
            if after < 0:
                raise ValueError(f"after must be an index, 0 or more, not {after}")
            return after + 1, 0


class Asking:
    """How a client asks for events: whichever peer answered last, then the others."""

    def __init__(self, following: Following, names: tuple[str, ...], timeout: float) -> None:
        """Ask for the events with these names; each call waits for ``timeout`` seconds, and then is made again."""
        self._following = following
        self._names = names
        self._timeout = timeout
        self._turn = 0

    async def __call__(self, place: Place | None) -> Events:
        """Ask for what stands from a place on, until somebody answers.

        Raises:
            Compacted: nobody holds it any longer.
            Unavailable: for ``timeout`` nobody answered, or not with events.
            QuorateError: with ``follow=False``: what the peer asked answers.
        """
        if place is None:
            deadline = asyncio.get_running_loop().time() + self._timeout
            answer = await self._following.ask(
                lambda left: WatchCall(left, self._names, None), deadline, is_write=False
            )
            return self._checked(answer)
        return await self._poll(place)

    async def _poll(self, place: Place) -> Events:
        """Ask one peer after the other until one answers.

        Raises:
            Compacted: nobody holds it any longer.
            Unavailable: for ``timeout`` nobody answered.
            QuorateError: with ``follow=False``: what the peer asked answers.
        """
        loop, following = asyncio.get_running_loop(), self._following
        begun, pause = loop.time(), PAUSE_MIN
        tried: dict[Target, QuorateError] = {}
        said: dict[Target, Said] = {}
        while True:
            addresses = following.addresses if following.follow else following.addresses[:1]
            target = addresses[self._turn % len(addresses)]
            call = WatchCall(self._timeout, self._names, place)
            try:
                answer = await following.ask_one(target, call, loop.time() + self._timeout + GRACE)
                return self._checked(answer)
            except (Attempt, Compacted) as failed:
                attempt = failed if isinstance(failed, Attempt) else Attempt(failed, answered=True)
                tried[target], said[target] = attempt.error, said_of(target, attempt)
            if not following.follow:
                raise tried[target]
            self._turn += 1
            if len(tried) < len(addresses):
                continue
            gone = [error for error in tried.values() if isinstance(error, Compacted)]
            if len(gone) == len(addresses) or (gone and loop.time() >= begun + self._timeout):
                raise Compacted(min(error.first for error in gone))
            if loop.time() >= begun + self._timeout:
                raise Unavailable(reason("nobody answered", self._timeout, said, addresses))
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)

    def _checked(self, answer: object) -> Events:
        """Give an answer that holds events.

        Raises:
            Unavailable: it is another one.
        """
        if not isinstance(answer, Events):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, which holds no events")
        return answer
