"""The blocking twin of ``quorate.watching``: events and changes of status as they come, for threads that wait.

Its methods say what theirs say, word for word, and a test holds them to it.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Generic, Self, TypeVar

import quorate.watching
from quorate.blocking.background import Background
from quorate.errors import QuorateError
from quorate.events import Change, Event
from quorate.types import Status

E_co = TypeVar("E_co", covariant=True, bound=Event)


class Watch(Generic[E_co]):
    """Events as they come, each a ``Change``; made by ``Client.watch`` and ``Peer.watch`` of ``quorate.blocking``.

    ::

        for change in kv.watch(Changed):
            print(change.index, change.event)

    The thread waits for the next event, however long that takes; ``close``, from any thread, ends it. An error ends a
    ``for``, and not the watch: it can be iterated again, and goes on where it was.
    """

    def __init__(self, watch: quorate.watching.Watch[E_co], background: Background) -> None:
        """Wait for the events of a watch whose loop is in the background."""
        self._watch = watch
        self._background = background

    @property
    def after(self) -> int | None:
        """The last index of which all events were given out; None while it has not begun.

        ``watch(..., after=…)`` with it goes on from here, in another process, say. To go on in the midst of the events
        of one index, give it the last ``Change``.
        """
        return self._background.look(lambda: self._watch.after)

    def __iter__(self) -> Self:
        """Give the watch itself."""
        return self

    def __next__(self) -> Change[E_co]:
        """Wait for the next event.

        Raises:
            StopIteration: the watch was closed.
            Compacted: some events were missed: those from here on are held no longer by anyone.
            Unavailable: nobody answered, each asked for about the timeout; the message says what each said.
            Stopped: the peer asked, in this process, has stopped.
            RuntimeError: another thread waits for the next event of this watch.
        """
        if self._background.has_ended and self._watch._question.is_closed:
            raise StopIteration  # With its client; there is no loop any longer to ask.
        changes = self._watch._changes
        while True:
            try:
                self._background.call(self._watch._fill)
            except StopAsyncIteration:
                raise StopIteration from None
            # Taken out here, so that nothing is lost when the call is interrupted; and by no call, for Python looks for
            # signals after each.
            if changes:
                change = changes[0]
                del changes[0]
                return change
            # Another thread has closed the watch just now.

    def close(self) -> None:
        """End the watch; whoever waits for an event is told that there are no more. Idempotent."""
        # Of a client that was closed, or a node that was stopped, all watches have ended.
        with contextlib.suppress(QuorateError):
            self._background.call(self._watch.aclose)

    def __enter__(self) -> Self:
        """Begin: what is committed from now on will be seen.

        Raises:
            Unavailable: nobody answered in time.
            Stopped: the peer asked, in this process, has stopped.
        """
        self._background.call(self._watch.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the watch."""
        self.close()


class StatusWatch:
    """How a peer or a group stands, whenever that changes; made by ``watch_status`` of ``quorate.blocking``'s names.

    ::

        for status in kv.watch_status():
            print(status.term, status.leader, [member.address.name for member in status.members])

    The thread waits for the next change, however long that takes; ``close``, from any thread, ends it. Nothing is kept
    for later: whoever takes long with one status is given the newest next, and those between are skipped.
    """

    def __init__(self, watch: quorate.watching.StatusWatch, background: Background) -> None:
        """Wait for the changes of a watch whose loop is in the background."""
        self._watch = watch
        self._background = background

    def __iter__(self) -> Self:
        """Give the watch itself."""
        return self

    def __next__(self) -> Status:
        """Wait until something has changed.

        Raises:
            StopIteration: the watch was closed, or the peer in this process has stopped.
            Unavailable: nobody answered, each asked for about the timeout; the message says what each said.
            Stopped: the peer in this process has failed; the message says why.
            RuntimeError: another thread waits for the next of this watch.
        """
        if self._background.has_ended:
            raise StopIteration  # With its client or node; there is no loop any longer to ask.
        try:
            answer = self._background.call(self._watch._change)
        except StopAsyncIteration:
            raise StopIteration from None
        return self._watch._take(answer)  # Here, so that it is not lost when the call is interrupted.

    def close(self) -> None:
        """End the watch; whoever waits is told that there are no more. Idempotent."""
        # Of a client that was closed, or a node that was stopped, all watches have ended.
        with contextlib.suppress(QuorateError):
            self._background.call(self._watch.aclose)

    def __enter__(self) -> Self:
        """Give the watch, which asks for nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the watch."""
        self.close()
