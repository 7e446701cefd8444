"""Watching: the events of a group as an iterator, each once and in the order of the log; and how it stands, as another.

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
from quorate.transport.calls import Call, Events, StandingIs, WatchCall, WatchStatusCall
from quorate.transport.local import Target
from quorate.types import Status

E_co = TypeVar("E_co", covariant=True, bound=Event)
T = TypeVar("T")
A = TypeVar("A")

Ask = Callable[[Place | None], Awaitable[Events]]
"""Asks for the events from a place on, and waits for some; of None for where those begin that are yet to come."""

AskStatus = Callable[[bytes], Awaitable[StandingIs]]
"""Asks how a peer stands, and waits until that is no longer what a mark stands for: see ``WatchStatusCall``."""

GRACE = 1.0
"""How much later than asked for an answer may come, seconds, before the peer that was asked is given up."""

PAUSE_MIN = 0.01
"""The first pause before the next peer is asked, seconds; doubles each time."""

PAUSE_MAX = 0.25
"""The longest such pause, seconds."""


class Question(Generic[T, A]):
    """What a watch asks, once at a time; it can be cut short.

    Attributes:
        is_closed: whether nothing is asked any longer.
    """

    def __init__(self, ask: Callable[[T], Awaitable[A]]) -> None:
        """Ask by ``ask``, of what is known."""
        self.is_closed: bool = False
        self._ask = ask
        self._asking: asyncio.Future[A] | None = None

    async def ask(self, known: T) -> A:
        """Ask, and wait for the answer.

        Raises:
            StopAsyncIteration: there are no more: the watch was closed.
            CancelledError: whoever waits for this was cancelled.
            RuntimeError: another task asks already.
        """
        if self.is_closed:
            raise StopAsyncIteration
        if self._asking is not None:
            raise RuntimeError("another task waits for this watch already; give each task a watch of its own")
        self._asking = asyncio.ensure_future(self._ask(known))
        try:
            return await self._asking
        except asyncio.CancelledError:
            if self._was_closed():
                raise StopAsyncIteration from None
            raise
        finally:
            self._asking = None

    def _was_closed(self) -> bool:
        """Tell whether it was ``close`` that cancelled the question, and not whoever waits."""
        me = asyncio.current_task()
        return self.is_closed and me is not None and not me.cancelling()

    def close(self) -> None:
        """Ask no longer, and tell whoever waits that there are no more. Idempotent."""
        self.is_closed = True
        if self._asking is not None:
            self._asking.cancel()


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
        self._question = Question(ask)
        self._place = place
        self._changes: deque[Change[Any]] = deque()

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
            Unavailable: nobody answered, each asked for about the timeout; the message says what each said.
            Stopped: the peer asked, in this process, has stopped.
            RuntimeError: another task waits for the next event of this watch.
        """
        await self._fill()
        return self._changes.popleft()

    async def _fill(self) -> None:
        """Wait until there is an event to give out."""
        while not self._changes:
            self._take(await self._question.ask(self._place))

    async def aclose(self) -> None:
        """End the watch; whoever waits for an event is told that there are no more. Idempotent."""
        self._question.close()
        self._changes.clear()

    async def __aenter__(self) -> Self:
        """Begin: what is committed from now on will be seen.

        Raises:
            Unavailable: nobody answered in time.
            Stopped: the peer asked, in this process, has stopped.
        """
        if self._place is None:
            self._take(await self._question.ask(None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the watch."""
        await self.aclose()

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


class StatusWatch:
    """How a peer or a group stands, whenever that changes; made by ``Client.watch_status`` and ``Peer.watch_status``.

    ::

        async for status in kv.watch_status():
            print(status.term, status.leader, [member.address.name for member in status.members])

    The first ``Status`` tells how things are when it is asked for. Nothing is kept for later: whoever takes long with
    one is given the newest next, and those between are skipped.

    An error ends a ``for``, and not the watch: it can be iterated again. ``aclose``, or the end of ``async with``, ends
    it; so does being forgotten, for it holds nothing while nobody waits.
    """

    def __init__(self, ask: AskStatus, view: Callable[[Status], object]) -> None:
        """Tell of each status that differs from the one before in what ``view`` gives of it."""
        self._question = Question(ask)
        self._view = view
        self._mark = b""
        self._seen: object = None

    def __aiter__(self) -> Self:
        """Give the watch itself."""
        return self

    async def __anext__(self) -> Status:
        """Wait until something has changed.

        Raises:
            StopAsyncIteration: the watch was closed, or the peer in this process has stopped.
            Unavailable: nobody answered, each asked for about the timeout; the message says what each said.
            Stopped: the peer in this process has failed; the message says why.
            RuntimeError: another task waits for the next of this watch.
        """
        return self._take(await self._change())

    async def _change(self) -> StandingIs:
        """Wait until something has changed; that counts as seen only when it is taken."""
        while True:
            answer = await self._question.ask(self._mark)
            if self._view(answer.status) != self._seen:
                return answer
            self._mark = answer.mark

    def _take(self, answer: StandingIs) -> Status:
        """Give out what has changed."""
        self._mark, self._seen = answer.mark, self._view(answer.status)
        return answer.status

    async def aclose(self) -> None:
        """End the watch; whoever waits is told that there are no more. Idempotent."""
        self._question.close()

    async def __aenter__(self) -> Self:
        """Give the watch, which asks for nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the watch."""
        await self.aclose()


def view_of_group(status: Status) -> object:
    """Give what a status says of the group: the same on each of its peers, once they know all that there is to know."""
    members = [(member.address, member.id, member.kind, member.becomes) for member in status.members]
    return status.group, status.term, status.leader, members


def view_of_peer(status: Status) -> object:
    """Give what a status says of the peer and its group, beside what changes with each write or heartbeat."""
    return status.role, view_of_group(status)


class Asking:
    """How a client asks for events: the leader where to begin, and from there on any peer."""

    def __init__(self, following: Following, names: tuple[str, ...], timeout: float) -> None:
        """Ask for the events with these names; each call waits for ``timeout`` seconds, and then is made again."""
        self._following = following
        self._names = names
        self._timeout = timeout
        self._rounds = Rounds(following, Events, timeout)

    async def __call__(self, place: Place | None) -> Events:
        """Ask for what stands from a place on, until somebody answers.

        Raises:
            Compacted: nobody holds it any longer.
            Unavailable: for ``timeout`` nobody answered, or not with events.
            QuorateError: with ``follow=False``: what the peer asked answers.
        """
        if place is not None:
            return await self._rounds.ask(WatchCall(self._timeout, self._names, place))
        deadline = asyncio.get_running_loop().time() + self._timeout
        answer = await self._following.ask(lambda left: WatchCall(left, self._names, None), deadline, is_write=False)
        return self._rounds.checked(answer)


class AskingStatus:
    """How a client asks how its group stands: any peer, as long as that knows the latest term."""

    def __init__(self, following: Following, timeout: float) -> None:
        """Each call waits for ``timeout`` seconds, and then is made again."""
        self._following = following
        self._timeout = timeout
        self._rounds = Rounds(following, StandingIs, timeout)
        self._newest: Status | None = None

    async def __call__(self, mark: bytes) -> StandingIs:
        """Ask how things are, until somebody answers that they are others than a mark stands for, or the time is over.

        Raises:
            Unavailable: for ``timeout`` nobody answered, or not with that.
            QuorateError: with ``follow=False``: what the peer asked answers.
        """
        answer = await self._rounds.ask(WatchStatusCall(self._timeout, mark), self._refuse_older)
        self._newest = answer.status
        self._following.learn(self._rounds.target, answer.status)
        if answer.mark == mark and answer.status.why is not None:
            self._rounds.leave()  # It knows of no leader, or was removed, or is not well: others may know more.
        return answer

    def _refuse_older(self, answer: StandingIs) -> None:
        """Refuse what is older than what another peer has told.

        Raises:
            Attempt: it is; another peer may know more.
        """
        status, newest = answer.status, self._newest
        if newest is not None and status.group == newest.group and status.term < newest.term:
            behind = Unavailable(f"it is in term {status.term} yet, and its group in term {newest.term}")
            raise Attempt(behind, answered=True)


class Rounds(Generic[A]):
    """Asks whichever peer answered last, then the others, for what each may wait for before it answers.

    Attributes:
        target: who was asked last.
    """

    def __init__(self, following: Following, kind: type[A], timeout: float) -> None:
        """Ask for answers of that kind, and give up if there was none for ``timeout`` seconds."""
        self.target: Target = following.addresses[0]
        self._following = following
        self._kind = kind
        self._timeout = timeout
        self._turn = 0

    async def ask(self, call: Call, check: Callable[[A], None] = lambda answer: None) -> A:
        """Ask one peer after the other until one answers.

        Args:
            call: what is asked; a peer may take ``timeout`` seconds for it.
            check: raises ``Attempt`` if an answer counts for nothing.

        Raises:
            Compacted: nobody holds it any longer.
            Unavailable: nobody answered, each asked for about ``timeout``.
            QuorateError: with ``follow=False``: what the peer asked answers.
        """
        loop, following = asyncio.get_running_loop(), self._following
        begun, pause = loop.time(), PAUSE_MIN
        tried: dict[Target, QuorateError] = {}
        said: dict[Target, Said] = {}
        while True:
            addresses = following.addresses if following.follow else following.addresses[:1]
            self.target = target = addresses[self._turn % len(addresses)]
            try:
                answer = self.checked(await following.ask_one(target, call, loop.time() + self._timeout + GRACE))
                check(answer)
                following.learn_soon(target, loop.time())
                return answer
            except (Attempt, Compacted) as failed:
                attempt = failed if isinstance(failed, Attempt) else Attempt(failed, answered=True)
                tried[target], said[target] = attempt.error, said_of(target, attempt)
            if not following.follow or following.closed:
                raise tried[target]
            self.leave()
            following.learn_at = 0.0
            if len(tried) < len(addresses):
                continue
            gone = [error for error in tried.values() if isinstance(error, Compacted)]
            if len(gone) == len(addresses) or (gone and loop.time() >= begun + self._timeout):
                raise Compacted(min(error.first for error in gone))
            if loop.time() >= begun + self._timeout:
                raise Unavailable(reason("nobody answered", loop.time() - begun, said, addresses))
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)

    def leave(self) -> None:
        """Ask another peer next."""
        self._turn += 1

    def checked(self, answer: object) -> A:
        """Give an answer that is of the kind asked for.

        Raises:
            Unavailable: it is another one.
        """
        if not isinstance(answer, self._kind):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, and not with {self._kind.__name__}")
        return answer
