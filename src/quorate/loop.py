"""The one loop of a node: inputs → core → network and disk → apply, for all its peers at once.

A turn serves every peer that has something to do: one frame for each neighbour, one batch for the disk, then the
machines. Nothing polls: a turn follows an input or a deadline. Knows no sockets, no files and no clock but those it is
given, so it runs on virtual time as well.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from quorate.errors import QuorateError, StoreError
from quorate.seat import FOREVER, Seat
from quorate.settings import Settings
from quorate.store import Batch
from quorate.store.disk import Disk
from quorate.transport import Packet, Transport
from quorate.types import Index, Run

logger: logging.Logger = logging.getLogger("quorate.loop")

P = ParamSpec("P")
T = TypeVar("T")


class Handle(Protocol):
    """A call that was scheduled."""

    def cancel(self) -> None:
        """Take it back."""
        ...


class Clock(Protocol):
    """Monotonic time and calls at an instant: an asyncio event loop is one."""

    def time(self) -> float:
        """Give the monotonic clock, seconds."""
        ...

    def call_soon(self, callback: Callable[[], object], /) -> Handle:
        """Call when what is under way has finished."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Handle:
        """Call at that instant of ``time``."""
        ...


class Loop:
    """Serves the peers of one node.

    Attributes:
        seats: the peers served, by name.
    """

    def __init__(
        self,
        clock: Clock,
        wall: Callable[[], float],
        transport: Transport,
        disk: Disk,
        settings: Settings,
        joined: Callable[[str, str], None],
    ) -> None:
        """Serve nobody yet.

        Args:
            clock: monotonic time.
            wall: the wall clock, seconds since 1970; only stamped on entries, never compared.
            transport: the network.
            disk: the disk.
            settings: the knobs.
            joined: told the name of a peer and its group, once the log durably says so.
        """
        self.seats: dict[str, Seat] = {}
        self.wall = wall
        self._clock = clock
        self._transport = transport
        self._disk = disk
        self._settings = settings
        self._joined = joined
        self._dirty: dict[str, Seat] = {}
        self._is_scheduled = False
        self._frames: dict[str, list[Packet]] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._armed: dict[str, float] = {}
        self._timer: Handle | None = None
        self._timer_at = FOREVER

    def add(self, seat: Seat) -> None:
        """Serve a peer from now on."""
        self.seats[seat.name] = seat
        self.wake(seat)

    def remove(self, seat: Seat, why: QuorateError) -> None:
        """Serve a peer no longer, and tell all who wait for it why."""
        self.seats.pop(seat.name, None)
        self._dirty.pop(seat.name, None)
        self._armed.pop(seat.name, None)
        seat.stop(why)

    def stop(self, why: QuorateError) -> None:
        """Serve nobody any longer."""
        for seat in list(self.seats.values()):
            self.remove(seat, why)
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def lose_node(self, node: str) -> None:
        """Tell each peer whose leader lives at a node, ``host:port``, that nothing listens there."""
        now = self._clock.time()
        for seat in list(self.seats.values()):
            state = seat.raft.state
            if state.leader is not None and seat.addresses.find(state.leader, state.configuration) == node:
                self._guard(seat, seat.raft.unreachable, state.leader, now)
                self.wake(seat)

    # What a seat asks for: see ``quorate.seat.Outside``.

    def wake(self, seat: Seat) -> None:
        """See to it that the seat has a turn soon."""
        self._dirty[seat.name] = seat
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.call_soon(self._turn)

    def post(self, node: str, packet: Packet) -> None:
        """Send a packet to a node with the frame of this turn."""
        self._frames.setdefault(node, []).append(packet)

    def read(self, seat: Seat, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        """Read entries from the disk, about ``append_bytes_max`` of them."""
        self._disk.read(
            seat.name, first, last, self._settings.append_bytes_max, lambda runs: self._guard(seat, done, runs)
        )

    def act(self, seat: Seat, act: Callable[..., object], *args: object) -> None:
        """Let a seat act outside its turn."""
        self._guard(seat, act, *args)

    def fail(self, seat: Seat, error: BaseException) -> None:
        """Stop a peer because of what it raised: what is not deterministic, or a fault of ours. Loudly.

        What is to end the program does so in a call of its own: this one serves other peers, and what they are to write
        must not be lost.
        """
        logger.error("%s stops", seat.name, exc_info=error)
        self.remove(seat, failure_of(seat.name, error))
        if not isinstance(error, Exception):
            self._clock.call_soon(partial(end, error))

    def time(self) -> float:
        """Give the monotonic clock, seconds."""
        return self._clock.time()

    def joined(self, seat: Seat, group: str) -> None:
        """Note which group the seat's peer belongs to."""
        self._joined(seat.name, group)

    # The turn.

    def _turn(self) -> None:
        """Serve every seat that has something to do, and see to it that those woken meanwhile have a turn.

        That one comes behind all who were answered in this one, whichever seat answered them: what they ask goes with
        it.
        """
        dirty, self._dirty = list(self._dirty.values()), {}
        try:
            self._serve(dirty)
        finally:
            self._is_scheduled = bool(self._dirty)
            if self._is_scheduled:
                self._clock.call_soon(self._turn)

    def _serve(self, dirty: list[Seat]) -> None:
        """Take the inputs of seats, serve network and disk for all of them at once, and let their machines go on."""
        now = self._clock.time()
        batches: list[Batch] = []
        written: list[tuple[Seat, int]] = []
        for seat in dirty:
            self._guard(seat, seat.take_inputs, now)
        for seat in dirty:
            batch = self._guard(seat, seat.obey)
            if batch is not None:
                batches.append(batch)
                written.append((seat, seat.written()))
        # The network first: the leader's disk works in parallel with it (thesis 10.2.1).
        self._send_frames()
        if batches:
            self._disk.write(batches, lambda: self._persisted(written))
        for seat in dirty:
            self._guard(seat, seat.advance)
            self._arm(seat)

    def _persisted(self, written: list[tuple[Seat, int]]) -> None:
        """Tell each seat that what it wrote is durable."""
        # Acknowledgements wait for no turn, nor for anything else: whoever made the calls waits for them.
        for seat, number in written:
            self._guard(seat, seat.release, number)
        self._send_frames()
        for seat, number in written:
            self._guard(seat, seat.persisted, number)
        for seat, _ in written:
            if seat.name not in self._dirty:  # The core has nothing to hand over: what is left needs no turn.
                self._guard(seat, seat.advance)
                self._arm(seat)

    def _send_frames(self) -> None:
        """Send what was posted, as one frame for each node."""
        frames, self._frames = self._frames, {}
        for node, packets in frames.items():
            self._transport.send(node, packets)

    def _guard(self, seat: Seat, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Let a seat act. What it raises stops that peer, and no other."""
        if seat.failure is not None:
            return None
        try:
            return act(*args, **kwargs)
        except BaseException as error:
            self.fail(seat, error)
            return None

    # Deadlines.

    def _arm(self, seat: Seat) -> None:
        """See to it that the seat is woken at its deadline.

        A deadline that moves away, as an election's does with each heartbeat, is not touched: it is looked at again
        when it would be the first of all.
        """
        deadline = seat.deadline()
        if deadline < self._armed.get(seat.name, FOREVER) and seat.name in self.seats:
            self._armed[seat.name] = deadline
            heapq.heappush(self._deadlines, (deadline, seat.name))
            self._set_timer(deadline)

    def _set_timer(self, first: float) -> None:
        """Have one timer, for the first deadline of all; one that is set for an earlier instant stays."""
        if self._timer is not None and first >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if first < FOREVER:
            self._timer_at = first
            self._timer = self._clock.call_at(first, self._wake_due)

    def _wake_due(self) -> None:
        """Wake every seat whose deadline has passed."""
        self._timer = None
        now = self._clock.time()
        while (first := self._first_deadline()) <= now:
            _, name = heapq.heappop(self._deadlines)
            del self._armed[name]
            self.wake(self.seats[name])
        self._set_timer(first)

    def _first_deadline(self) -> float:
        """Give the first deadline of all, and put those that have moved away where they are now.

        So a node whose seats all hear their leaders has one timer in an election timeout, and not one for each seat.
        """
        while self._deadlines:
            deadline, name = self._deadlines[0]
            if self._armed.get(name) != deadline:
                heapq.heappop(self._deadlines)  # An earlier one took its place, or the seat is gone.
                continue
            moved = self.seats[name].deadline()
            if moved <= deadline:
                return deadline
            heapq.heappop(self._deadlines)
            del self._armed[name]
            if moved < FOREVER:
                self._armed[name] = moved
                heapq.heappush(self._deadlines, (moved, name))
        return FOREVER


def end(error: BaseException) -> None:
    """Let whoever runs the loop have what is to end the program."""
    raise error


def failure_of(name: str, error: BaseException) -> QuorateError:
    """Say why a peer stops: a store's own words, or what its program raised."""
    if isinstance(error, StoreError):
        return error
    # What was noted on its way here says which handler it was.
    said = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    return QuorateError(f"{name} stopped because of {said}")
