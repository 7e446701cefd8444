"""One peer's place at its node's loop: its inbox, its core, its recent entries, its machine.

Obeys what the core hands over, but for the network and the disk, which the loop serves for all peers at once. Knows no
sockets and no files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from quorate.apply import Apply, Query
from quorate.core import Envelope, Event, EventKind, Message, Raft, Ready
from quorate.core.messages import AppendEntries
from quorate.errands import Errand, FindLeader, FormGroup, HandOver, expire, is_over, start
from quorate.errors import NotLeader, Overloaded, QuorateError, Stopped, Unavailable
from quorate.settings import Settings
from quorate.store import Batch
from quorate.store.cache import Cache
from quorate.transport import Packet
from quorate.types import Index, PeerId, ReadId, Run, Status
from quorate.waiters import FutureWaiter, Waiter

logger: logging.Logger = logging.getLogger("quorate.raft")

FOREVER = float("inf")


class Outside(Protocol):
    """What a seat asks of the loop it sits at."""

    def wake(self, seat: Seat) -> None:
        """See to it that the seat has a turn soon."""
        ...

    def post(self, node: str, packet: Packet) -> None:
        """Send a packet to a node with the next frame."""
        ...

    def read(self, seat: Seat, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        """Read entries from the disk."""
        ...

    def wall(self) -> float:
        """Give the wall clock, seconds since 1970."""
        ...

    def joined(self, seat: Seat, group: str) -> None:
        """Note that the seat's peer belongs to that group, and that its log durably says so."""
        ...


class Seat:
    """One peer at the loop.

    Attributes:
        name: the peer's name, and the name of its log.
        raft: its core.
        apply: its machine and who waits for it.
        counts: events since the start, by kind.
        failure: why it has stopped; None while it runs.
        is_closing: whether it takes no new calls.
    """

    def __init__(self, name: str, raft: Raft, apply: Apply, settings: Settings, outside: Outside, time: float) -> None:
        """Take a seat; ``time`` is the wall time of the last run in the log."""
        self.name = name
        self.raft = raft
        self.apply = apply
        self.counts: dict[EventKind, int] = dict.fromkeys(EventKind, 0)
        self.failure: QuorateError | None = None
        self.is_closing: bool = False
        self._settings = settings
        self._outside = outside
        self._time = time
        self._cache = Cache(settings.cache_bytes_max)
        self._messages: list[tuple[PeerId, Message]] = []
        self._writes: list[tuple[bytes, Waiter]] = []
        self._queries: list[Query] = []
        self._errands: list[Errand] = []
        self._waiting: list[FindLeader | HandOver] = []
        self._rounds: dict[ReadId, list[Query]] = {}
        self._reading: set[PeerId] = set()
        self._is_reading_to_apply = False
        self._written = 0
        self._durable = 0
        self._after: deque[tuple[int, tuple[Envelope, ...], list[FormGroup]]] = deque()
        self._placed: list[FormGroup] = []
        self._commit_index = Index(0)
        self._sweep_at = FOREVER
        self._founder: tuple[PeerId, str, str] | None = None
        self._group = raft.status().group
        self._idle: asyncio.Future[None] | None = None

    # What others hand in: it is looked at in the next turn.

    def write(self, command: bytes, waiter: Waiter) -> None:
        """Propose a command."""
        if self._is_refused(waiter):
            return
        self._writes.append((command, waiter))
        self._outside.wake(self)

    def read(self, query: bytes, waiter: Waiter) -> None:
        """Read, linearizably."""
        if self._is_refused(waiter):
            return
        self._queries.append(Query(query, waiter))
        self._outside.wake(self)

    def receive(self, source: str, packet: Packet) -> None:
        """Take a message of another peer, unless it is of another group.

        A peer without a configuration belongs to no group yet: whoever knows its id speaks for the one it will join.
        """
        configuration = self.raft.state.configuration
        if self.failure is None and (configuration is None or configuration.group == packet.group):
            if configuration is None:
                self._founder = (packet.sender, source, packet.group)
            self._messages.append((packet.sender, packet.message))
            self._outside.wake(self)
        else:
            self.counts[EventKind.IGNORED] += 1

    def run(self, errand: Errand) -> None:
        """Form the group, find the leader, or hand over."""
        if self._is_refused(errand.waiter):
            return
        self._errands.append(errand)
        self._outside.wake(self)

    def status(self) -> Status:
        """Tell what the peer knows of itself and its group."""
        status = self.raft.status()
        why = f"it has stopped: {self.failure}" if self.failure else status.why
        return msgspec.structs.replace(status, name=self.name, last_applied=self.apply.last_applied, why=why)

    # The turn, in the order in which the loop calls it.

    def deadline(self) -> float:
        """Give the instant at which the seat must have a turn even if nothing comes in."""
        return min(self.raft.deadline(), self._sweep_at)

    def take_inputs(self, now: float) -> None:
        """Feed the core with all that has come in, each kind as one batch."""
        raft = self.raft
        messages, self._messages = self._messages, []
        for sender, message in messages:
            raft.receive(sender, message, now)
        if now >= raft.deadline():
            raft.tick(now)
        if now >= self._sweep_at:
            self._expire(now)
        if self._errands:
            self._start_errands(now)
        if self._writes:
            self._propose(now)
        if self._queries:
            self._read(now)

    def obey(self) -> Batch | None:
        """Take what the core hands over: send what may go at once, and remember what must wait.

        Returns:
            What is to be written, or None.
        """
        ready = self.raft.ready()
        runs = self._stamp(ready.entries)
        for run in runs:
            self._cache.append(run)
        for envelope in ready.messages:
            self._send(envelope)
        if ready.writes:
            self._written = ready.number
        if ready.messages_after_persist or self._placed:
            placed, self._placed = self._placed, []
            self._after.append((self._written, ready.messages_after_persist, placed))
        self._send_what_is_durable()
        self._commit_index = ready.commit_index
        self._take_reads(ready)
        for event in ready.events:
            self._log(event)
        return Batch(self.name, ready.hard_state, runs) if ready.writes else None

    def written(self) -> int:
        """Give the number that ``persisted`` must name once the batch that ``obey`` returned is durable."""
        return self._written

    def persisted(self, number: int) -> None:
        """Learn that all up to that ``Ready`` is durable."""
        self._durable = number
        self.raft.persisted(number)
        self._send_what_is_durable()
        configuration = self.raft.state.configuration
        if configuration and configuration.group != self._group:
            # Only now: an identity that names a group must never stand beside a log that was lost.
            self._group = configuration.group
            self._outside.joined(self, self._group)
        self._outside.wake(self)

    def advance(self) -> None:
        """Apply what is committed, a bounded number of entries at a time, and answer those who wait for a leader."""
        if self._waiting:
            self._waiting = [errand for errand in self._waiting if not is_over(errand, self.raft)]
        if self._idle and self.apply.is_idle and not self._idle.done():
            self._idle.set_result(None)
        first = Index(self.apply.last_applied + 1)
        if first > self._commit_index or self._is_reading_to_apply or self.failure:
            return
        last = Index(min(self._commit_index, first + self._settings.apply_entries_max - 1))
        runs = self._cache.take(first, last, self._settings.append_bytes_max)
        if runs is None:
            self._is_reading_to_apply = True
            self._read_durable(first, last, self._apply_read)
            return
        self.apply.apply(runs)
        self._cache.trim(Index(min(self.apply.last_applied, self.raft.state.persisted_index)))
        if self.apply.last_applied < self._commit_index:
            self._outside.wake(self)

    async def close(self, patience: float) -> None:
        """Take no new calls; wait until nobody waits for a write, then hand over leadership: for ``patience`` seconds.

        The group goes on at once if its leader hands over; without that, only when its silence is noticed.
        """
        self.is_closing = True
        with contextlib.suppress(TimeoutError, QuorateError):
            async with asyncio.timeout(patience):
                if self._writes or not self.apply.is_idle:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                if self.raft.is_leading_undisturbed():
                    waiter = FutureWaiter(asyncio.get_running_loop().create_future(), FOREVER)
                    self._errands.append(HandOver(waiter))
                    self._outside.wake(self)
                    await waiter.future

    def stop(self, failure: QuorateError) -> None:
        """Stop for good, and tell all who wait. What entered the log may have happened."""
        self.failure = failure
        why = str(failure)
        for _, waiter in self._writes:
            waiter.fail(Stopped(why))
        queries = [*self._queries, *(query for queries in self._rounds.values() for query in queries)]
        errands = [*self._errands, *self._waiting, *self._placed]
        errands += [errand for _, _, placed in self._after for errand in placed]
        for waiter in [*(query.waiter for query in queries), *(errand.waiter for errand in errands)]:
            waiter.fail(Stopped(why))
        self.apply.stop(why)
        for waiting in (self._writes, self._queries, self._errands, self._waiting, self._placed, self._messages):
            waiting.clear()
        self._rounds.clear()
        self._after.clear()

    # Inputs.

    def _is_refused(self, waiter: Waiter) -> bool:
        """Refuse a call to a peer that has stopped or is about to."""
        if self.failure is None and not self.is_closing:
            return False
        waiter.fail(Stopped(str(self.failure or f"{self.name} is stopping")))
        return True

    def _propose(self, now: float) -> None:
        """Propose all commands of this turn as one batch."""
        writes, self._writes = self._writes, []
        waiters = [waiter for _, waiter in writes]
        try:
            taken = self.raft.propose([command for command, _ in writes], now)
        except NotLeader as error:
            for waiter in waiters:
                waiter.fail(NotLeader(error.redirect, self.name))
            return
        if len(taken) < len(waiters):
            limit = self._settings.uncommitted_bytes_max
            for waiter in waiters[len(taken) :]:
                waiter.fail(Overloaded(f"{limit} bytes of writes wait for a quorum already; wait and retry"))
            del waiters[len(taken) :]
        if waiters:
            self.apply.expect(Index(taken.start), self.raft.state.term, waiters)
            self._sweep_at = min(self._sweep_at, min(waiter.deadline for waiter in waiters))

    def _read(self, now: float) -> None:
        """Ask for one read index for all queries of this turn."""
        queries, self._queries = self._queries, []
        try:
            self._rounds[self.raft.read(now)] = queries
        except NotLeader as error:
            for query in queries:
                query.waiter.fail(NotLeader(error.redirect, self.name))
            return
        self._sweep_at = min(self._sweep_at, min(query.waiter.deadline for query in queries))

    def _start_errands(self, now: float) -> None:
        """Begin what was asked beside writes and reads."""
        errands, self._errands = self._errands, []
        for errand in errands:
            if not start(errand, self.raft, self.name, now):
                continue
            self._sweep_at = min(self._sweep_at, errand.waiter.deadline)
            if isinstance(errand, FormGroup):
                self._placed.append(errand)
            else:
                self._waiting.append(errand)

    def _expire(self, now: float) -> None:
        """Give up on all whose deadline has passed."""
        self.apply.expire(now)
        for queries in self._rounds.values():
            for query in queries:
                if query.waiter.deadline <= now:
                    query.waiter.fail(Unavailable(self._unconfirmed_text()))
        expire(self._waiting, self.raft, self.name, now)
        self._waiting = [errand for errand in self._waiting if errand.waiter.deadline > now]
        waiting = [query.waiter for queries in self._rounds.values() for query in queries]
        waiting += [errand.waiter for errand in self._waiting]
        later = min((waiter.deadline for waiter in waiting if waiter.deadline > now), default=FOREVER)
        self._sweep_at = min(later, self.apply.deadline(now))

    def _unconfirmed_text(self) -> str:
        """Say why a read was not confirmed in time."""
        return f"no quorum confirmed in time that {self.name} still leads; the read was not answered"

    # Outputs.

    def _stamp(self, entries: tuple[Run, ...]) -> tuple[Run, ...]:
        """Give runs that this peer appended as leader their wall time: never less than that of the run before."""
        stamped = []
        is_leader = self.raft.state.leader == self.raft.state.peer
        for run in entries:
            if is_leader and run.term == self.raft.state.term:
                self._time = max(self._time, self._outside.wall())
                run = Run(run.term, run.first, run.kind, self._time, run.payloads)
            self._time = max(self._time, run.time)
            stamped.append(run)
        return tuple(stamped)

    def _send_what_is_durable(self) -> None:
        """Send what waited for the disk and no longer does: all before it is durable too."""
        while self._after and self._after[0][0] <= self._durable:
            _, envelopes, placed = self._after.popleft()
            for envelope in envelopes:
                self._send(envelope)
            for errand in placed:
                errand.waiter.succeed(None)

    def _send(self, envelope: Envelope) -> None:
        """Send a message, with the entries it offers: from memory, or from the disk."""
        message = envelope.message
        if not envelope.first or not isinstance(message, AppendEntries):
            self._post(envelope.to, message)
            return
        if envelope.to in self._reading:
            return  # What is being read goes first; `sent` then tells the core where to go on.
        runs = self._cache.take(envelope.first, envelope.last, self._settings.append_bytes_max)
        if runs is not None:
            self._post_entries(envelope, message, runs)
            return
        self._reading.add(envelope.to)

        def attach(found: tuple[Run, ...]) -> None:
            self._reading.discard(envelope.to)
            # Within its term a leader's log only grows: an unchanged term is proof enough that these are its entries.
            if self.raft.state.term == message.term and self.raft.state.leader == self.raft.state.peer:
                self._post_entries(envelope, message, found)
                self._outside.wake(self)

        self._read_durable(envelope.first, envelope.last, attach)

    def _read_durable(self, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        """Read entries from the disk, as far as they are durable: beyond it may still hold what was truncated."""
        self._outside.read(self, first, Index(min(last, self.raft.state.persisted_index)), done)

    def _post_entries(self, envelope: Envelope, message: AppendEntries, runs: tuple[Run, ...]) -> None:
        """Attach entries and send them; when they are not all that was offered, the core hears of it."""
        self._post(envelope.to, msgspec.structs.replace(message, entries=runs))
        if runs[-1].last < self.raft.state.log.last:
            self.raft.sent(envelope.to, runs[-1].last)
            self._outside.wake(self)

    def _post(self, to: PeerId, message: Message) -> None:
        """Send a message to where the configuration says the peer is; before there is one, to where it spoke from."""
        configuration = self.raft.state.configuration
        member = configuration.member(to) if configuration else None
        me = self.raft.state.peer
        if configuration and member:
            self._outside.post(member.address.node, Packet(configuration.group, me, to, message))
        elif configuration is None and self._founder and self._founder[0] == to:
            _, node, group = self._founder
            self._outside.post(node, Packet(group, me, to, message))

    def _take_reads(self, ready: Ready) -> None:
        """Let confirmed reads wait for their index, and fail those that nobody may answer now."""
        for confirmed in ready.reads:
            self.apply.read(confirmed.index, self._rounds.pop(confirmed.id))
        for read in ready.dropped:
            for query in self._rounds.pop(read):
                query.waiter.fail(NotLeader(self.raft.leader_address(), self.name))

    def _apply_read(self, runs: tuple[Run, ...]) -> None:
        """Apply entries that came from the disk."""
        self._is_reading_to_apply = False
        if self.failure is None:
            self.apply.apply(runs)
            self._outside.wake(self)

    def _log(self, event: Event) -> None:
        """Count an event, and log it: there is one for each change of state, none for a write."""
        self.counts[event.kind] += 1
        level = logging.DEBUG if event.kind in QUIET else logging.INFO
        logger.log(level, "%s [term %d] %s", self.name, event.term, event.text)


QUIET: Sequence[EventKind] = (EventKind.IGNORED, EventKind.VOTE)
"""Events that another machine can cause at will: counted always, logged only on request."""
