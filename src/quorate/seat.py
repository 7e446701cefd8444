"""One peer's place at its node's loop: its inbox, its core, its recent entries, its machine.

Obeys what the core hands over, but for the network and the disk, which the loop serves for all peers at once. Knows no
sockets and no files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import msgspec

from quorate.addresses import Addresses
from quorate.apply import Apply, split
from quorate.calling import Bound
from quorate.core import Envelope, Message, Raft
from quorate.core.messages import InstallSnapshot
from quorate.core.report import why_no_leader, why_removed
from quorate.diary import Diary
from quorate.errands import Errand, FormGroup, HandOver, Waiting, expire, is_one_too_many, ongoing, start, stopped
from quorate.errors import InvalidConfiguration, NotLeader, Overloaded, QuorateError, Stopped
from quorate.news import News
from quorate.outside import Outside
from quorate.reading import Reads, refuse
from quorate.recent import Watcher
from quorate.sending import Sender
from quorate.sessions import TICK
from quorate.settings import Settings
from quorate.snapshots import Snapshots
from quorate.stamping import LogTime
from quorate.standing import Standing, StandingWatcher, as_stopped
from quorate.store import Batch
from quorate.store.cache import Cache
from quorate.tables import Replicated, restored
from quorate.transport import Packet
from quorate.transport.calls import SnapshotCall, encodable
from quorate.types import Consistency, Index, PeerId, Run, Snapshot, Status
from quorate.waiters import FutureWaiter, Waiter, first_deadline

FOREVER = float("inf")

SWEEP_PAUSE = 0.05
"""Seconds between two looks at who has waited too long: each looks at all who wait, and they may be many."""


class Seat:
    """One peer at the loop.

    Attributes:
        name: the peer's name, and the name of its log.
        raft: its core.
        apply: its machine and who waits for it.
        snapshots: its snapshots.
        addresses: where the others are reached.
        standing: who waits until it stands otherwise.
        diary: what it tells of itself.
        failure: why it has stopped; None while it runs.
        is_closing: whether it takes no new calls.
    """

    # Rare enough to be no part of every seat, of which there may be thousands.
    _restoring: Snapshot | None = None
    _idle: asyncio.Future[None] | None = None
    _is_reading_to_apply: bool = False

    def __init__(
        self,
        name: str,
        raft: Raft,
        apply: Apply,
        snapshots: Snapshots,
        addresses: Addresses,
        settings: Settings,
        outside: Outside[Seat],
        time: float,
    ) -> None:
        """Take a seat; ``time`` is the wall time of the last run in the log."""
        self.name = name
        self.raft = raft
        self.apply = apply
        self.snapshots = snapshots
        self.addresses = addresses
        self.standing: Standing = Standing(raft, self.status)
        self.diary: Diary = Diary(name)
        self.failure: QuorateError | None = None
        self.is_closing: bool = False
        self._outside = outside
        self._log_time = LogTime(time, lambda: outside.wall())
        self._now = 0.0
        self._sender = Sender(Cache(settings.cache_bytes_max), snapshots, addresses, settings, self)
        self._messages: list[tuple[PeerId, Message]] = []
        self._commands: list[bytes] = []
        self._writers: list[Waiter] = []  # Who waits for each of them: pairs would have to be made, and taken apart.
        self._reads = Reads(name, addresses)
        self._errands: list[Errand] = []
        self._waiting: list[Waiting] = []
        self._read_ahead: tuple[Run, ...] = ()  # From the disk, from behind what is applied on.
        self._news = News()
        self._written = self._durable = self._goes_first = 0
        self._after: list[tuple[int, tuple[Envelope, ...], list[FormGroup]]] = []
        self._placed: list[FormGroup] = []
        self._commit_index = Index(0)
        self._sweep_at = FOREVER
        self._group = raft.status().group

    # What others hand in: it is looked at in the next turn.

    def write(self, command: bytes, waiter: Waiter) -> None:
        """Propose a command."""
        if self.is_closing and self._is_refused(waiter):
            return
        if not self._commands:  # The first one wakes the seat for all of this turn.
            self._outside.wake(self)
        self._commands.append(command)
        self._writers.append(waiter)

    def write_all(self, commands: list[bytes], waiters: list[Waiter]) -> None:
        """Propose commands, in their order, each with who waits for its reply."""
        if self.is_closing and all(map(self._is_refused, waiters)):
            return
        self._commands += commands
        self._writers += waiters
        self._outside.wake(self)

    def read(self, call: Bound | None, waiter: Waiter, consistency: Consistency = "linearizable") -> None:
        """Read; the first of a turn wakes the seat. The waiter of a stale read is given a ``StaleRead``."""
        if self.is_closing and self._is_refused(waiter):
            return
        queries = self._reads.waiting[consistency]
        if not queries:
            self._outside.wake(self)
        queries.append((call, waiter))

    def may_answer_now(self) -> bool:
        """Tell whether a read by lease may be answered at once, without ``read``; see ``Reads.answers_until``."""
        if self.is_closing:
            return False
        now, until = self._outside.time(), self._reads.answers_until
        if until is None:
            until = self._reads.look_up_lease(self.raft, self.apply, now)
            self._outside.wake(self)  # So that it is looked up again soon.
        return now < until

    def answer_now(self, call: Bound) -> object:
        """Answer a read by lease at once, as ``may_answer_now`` has just allowed; the reply may belong to the machine.

        Raises:
            QuorateError: as ``Apply.read_now`` has it.
            Stopped: the handler did what stops the peer.
        """
        try:
            return self.apply.read_now(call)
        except QuorateError:
            raise
        except BaseException as error:
            self._outside.fail(self, error)
            raise Stopped(str(self.failure)) from error

    def watch(self, watcher: Watcher | StandingWatcher) -> None:
        """Send someone the events from a place on, or how this peer stands, as soon as there is something new."""
        if self._is_refused(watcher.waiter):
            return
        if isinstance(watcher, Watcher):
            self.apply.watch(watcher)
        else:
            self.standing.add(watcher)
        if watcher.waiter.deadline < self._sweep_at:
            self._sweep_at = watcher.waiter.deadline
            self._outside.wake(self)

    def receive(self, source: str, packet: Packet) -> None:
        """Take a message of another peer, unless it is of another group."""
        if isinstance(packet.message, InstallSnapshot):
            self.diary.ignore()  # Only `receive_snapshot` knows whether its file is here.
        elif self.failure is None and self._is_ours(packet.sender, packet.group):
            self.addresses.hear(packet.sender, source, self.raft.state.configuration)
            self._messages.append((packet.sender, packet.message))
            self._outside.wake(self)
        else:
            self.diary.ignore()

    def receive_snapshot(self, call: SnapshotCall, waiter: Waiter) -> None:
        """Take a piece of a snapshot that the leader of this group sends."""
        if self._is_refused(waiter):
            return
        state, message = self.raft.state, call.message
        if state.configuration is not None and state.configuration.group != call.group:
            waiter.fail(InvalidConfiguration(f"{self.name} belongs to another group"))
        elif message.term < state.term:
            waiter.fail(NotLeader(self.addresses.redirect(state), self.name))
        elif message.snapshot.index <= state.commit_index:
            self._take_in(call.group, message)  # All of it is known here: the core will say so, and need no file.
            waiter.succeed(call.size)
        else:
            self.snapshots.receive(call, waiter, partial(self._take_in, call.group))

    def take_snapshot(self, waiter: Waiter) -> None:
        """Take a snapshot of what is applied now; the waiter is given its index once it is durable."""
        if not self._is_refused(waiter):
            self.snapshots.want(waiter)
            self._outside.wake(self)

    def run(self, errand: Errand) -> None:
        """Begin what is asked beside writes and reads."""
        if self._is_refused(errand.waiter) or is_one_too_many(errand, len(self._errands) + len(self._waiting)):
            return
        self._errands.append(errand)
        self._outside.wake(self)

    def status(self) -> Status:
        """Tell what the peer knows of itself and its group."""
        leader, applied = self.addresses.leader(self.raft.state), self.apply.last_applied
        status = msgspec.structs.replace(self.raft.status(), name=self.name, last_applied=applied, leader=leader)
        if self.failure is not None:
            return as_stopped(status, encodable(self.failure))
        return msgspec.structs.replace(status, why=status.why or self.snapshots.why)

    # The turn, in the order in which the loop calls it.

    def deadline(self) -> float:
        """Give the instant at which the seat must have a turn even if nothing comes in."""
        tick_at = self._now + self._log_time.wait(self.raft, self.apply, self._now)
        return min(self.raft.deadline(), self._sweep_at, self._news.due, tick_at)

    def take_inputs(self, now: float) -> None:
        """Feed the core with all that has come in, each kind as one batch."""
        raft, self._now = self.raft, now
        self._reads.take_stock()
        messages, self._messages = self._messages, []
        for sender, message in messages:
            raft.receive(sender, message, now)
            self._reads.hear(raft.state, sender, message, self.apply.last_applied)
        self._reads.lead(raft.state, self.apply.last_applied, now)
        if now >= raft.deadline():
            raft.tick(now)
        if now >= self._sweep_at:
            self._expire(now)
        if self._errands:
            self._start_errands(now)
        if self._commands:
            self._propose(now)
        elif self._log_time.wait(raft, self.apply, now) <= 0:
            raft.propose([TICK], now)
        self._sweep_at = min(self._sweep_at, self._reads.begin(raft, self.apply, now))

    def obey(self) -> Batch | None:
        """Take what the core hands over: send what may go at once, and remember what must wait.

        Returns:
            What is to be written, or None.
        """
        answers = not self.apply.is_idle and self.raft.state.commit_index > self.apply.last_applied
        ready = self.raft.ready(more_follows=self._news.waits(self._now, answers=answers))
        if ready.compaction is not None:
            self.snapshots.point_at(ready.compaction.snapshot, ready.number)
            if ready.compaction.replaces_log:
                self._restore(ready.compaction.snapshot)
        runs = self._log_time.stamp(ready.entries, self.raft, self._now)
        for run in runs:
            self._sender.cache.append(run)
        for envelope in ready.messages:
            self._sender.send(self.raft, envelope)
        if ready.writes:
            self._written = ready.number
        if ready.messages_after_persist or self._placed:
            placed, self._placed = self._placed, []
            self._after.append((self._written, ready.messages_after_persist, placed))
        self._send_what_is_durable()
        if self.apply.last_applied == self._commit_index:
            self._goes_first = self._written  # Not those behind it: there may always be another.
        self._commit_index = ready.commit_index
        self._reads.take(ready, self.raft, self.apply)
        for event in ready.events:
            self.diary.tell(event)
        return Batch(self.name, ready.hard_state, runs, ready.compaction) if ready.writes else None

    def written(self) -> int:
        """Give the number that ``persisted`` must name once the batch that ``obey`` returned is durable."""
        return self._written

    def release(self, number: int) -> None:
        """Send what waited until all up to that ``Ready`` is durable; ``persisted`` follows."""
        self._durable = number
        self._send_what_is_durable()

    def persisted(self, number: int) -> None:
        """Learn that all up to that ``Ready`` is durable."""
        self._reads.take_stock()
        self.raft.persisted(number)
        # Also what is not applied yet: it is read again. A machine that is slow, or being restored, costs no memory.
        self._sender.cache.trim(self.raft.state.persisted_index)
        self.snapshots.persisted(number)
        configuration = self.raft.state.configuration
        if configuration and configuration.group != self._group:
            # Only now: an identity that names a group must never stand beside a log that was lost.
            self._group = configuration.group
            self._outside.joined(self, self._group)
        if self.raft.state.commit_index > self._commit_index or not self.raft.state.outbox.is_empty:
            self._outside.wake(self)

    def advance(self) -> None:
        """Apply what is committed, a bounded number of entries at a time, and answer those who wait for a leader."""
        self.standing.look()
        self._waiting = ongoing(self._waiting, self.raft, self.addresses)
        if self._idle and self.apply.is_idle and not self._idle.done():
            self._idle.set_result(None)
        if self._restoring or self.failure:
            return
        self._compact()
        first = Index(self.apply.last_applied + 1)
        if first > self._commit_index or self._is_reading_to_apply:
            return
        last = Index(min(self._commit_index, first + self.raft.state.settings.apply_entries_max - 1))
        if self._durable < self._goes_first and last == self._commit_index and not self.apply.is_awaited:
            return  # Writing needs the interpreter too, and somebody waits for the acknowledgement: that goes first.
        if self._read_ahead:
            runs, self._read_ahead = split(self._read_ahead, last)
        elif (taken := self._sender.cache.take(first, last, self.raft.state.settings.append_bytes_max)) is not None:
            runs = taken
        else:
            self._is_reading_to_apply = True
            self.read_durable(first, self._commit_index, self._apply_read)
            return
        self.apply.apply(runs)
        # The next turn comes after those who were answered just now: what they write goes with it.
        if self._news.is_next or self.apply.last_applied < self._commit_index:
            self._outside.wake(self)

    async def close(self, patience: float) -> None:
        """Take no new calls; wait until nobody waits for a write, then hand over leadership: for ``patience`` seconds.

        The group goes on at once if its leader hands over; without that, only when its silence is noticed.
        """
        self.is_closing = True
        with contextlib.suppress(TimeoutError, QuorateError):
            async with asyncio.timeout(patience):
                if self._commands or not self.apply.is_idle:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                if self.raft.is_leading_undisturbed():
                    waiter = FutureWaiter(asyncio.get_running_loop().create_future(), FOREVER)
                    self._errands.append(HandOver(waiter))
                    self._outside.wake(self)
                    await waiter.future

    def stop(self, failure: QuorateError) -> None:
        """Stop for good, and tell all who wait. What entered the log may have happened."""
        self.failure, self.is_closing = failure, True
        why = str(failure)
        for waiter in self._writers:
            waiter.fail(Stopped(why))
        self._reads.stop(why)
        errands = [*self._errands, *self._waiting, *self._placed]
        errands += [errand for _, _, placed in self._after for errand in placed]
        for errand in errands:
            errand.waiter.fail(stopped(errand, why))
        for part in (self.apply, self.apply.recent, self.snapshots):
            part.stop(why)
        self.standing.stop(failure)
        for waiting in (self._commands, self._writers, self._errands, self._waiting, self._placed, self._messages):
            waiting.clear()
        self._after.clear()

    # Inputs.

    def _is_refused(self, waiter: Waiter) -> bool:
        """Refuse a call to a peer that has stopped or is about to."""
        if not self.is_closing:
            return False
        waiter.fail(Stopped(str(self.failure or f"{self.name} is stopping")))
        return True

    def _is_ours(self, sender: PeerId, group: str) -> bool:
        """Tell whether a message is of this peer's group, or of the one that it may join by what waits in its inbox."""
        configuration = self.raft.state.configuration
        if configuration is not None:
            return configuration.group == group
        return self._sender.takes_founder(sender, group, is_first=not self._messages)

    def _propose(self, now: float) -> None:
        """Propose all commands of this turn as one batch."""
        self._news.expect(now)
        commands, waiters, self._commands, self._writers = self._commands, self._writers, [], []
        try:
            taken = self.raft.propose(commands, now)
        except NotLeader:
            refuse(waiters, self.name, self.raft.state, self.addresses)
            return
        if len(taken) < len(waiters):
            limit = self.raft.state.settings.uncommitted_bytes_max
            for waiter in waiters[len(taken) :]:
                waiter.fail(Overloaded(f"{limit} bytes of writes wait for a quorum already; wait and retry"))
            del waiters[len(taken) :]
        if waiters:
            self.apply.expect(Index(taken.start), self.raft.state.term, waiters)
            self._sweep_at = min(self._sweep_at, first_deadline(waiters))

    def _start_errands(self, now: float) -> None:
        """Begin what was asked beside writes and reads; what is done by now may not look so once another has begun."""
        self._waiting = ongoing(self._waiting, self.raft, self.addresses)
        errands, self._errands = self._errands, []
        for errand in errands:
            if not start(errand, self.raft, self.addresses, self.name, now):
                continue
            self._sweep_at = min(self._sweep_at, errand.waiter.deadline)
            if isinstance(errand, FormGroup):
                self._placed.append(errand)
            else:
                self._waiting.append(errand)

    def _expire(self, now: float) -> None:
        """Give up on all whose deadline has passed."""
        self.apply.expire(now)
        why = why_removed(self.raft.state) or why_no_leader(self.raft.state)
        self.apply.recent.expire(now, self.apply.last_applied, why and f"{self.name} may learn of nothing: {why}")
        self.standing.expire(now)
        reads = self._reads.expire(self.raft, now)
        expire(self._waiting, self.raft, self.name, now)
        self._waiting = [errand for errand in self._waiting if errand.waiter.deadline > now]
        errands = min((errand.waiter.deadline for errand in self._waiting), default=FOREVER)
        first = min(reads, errands, self.apply.deadline(now), self.apply.recent.deadline(), self.standing.deadline())
        self._sweep_at = max(now + SWEEP_PAUSE, first)

    # Outputs.

    def _send_what_is_durable(self) -> None:
        """Send what waited for the disk and no longer does: all before it is durable too."""
        while self._after and self._after[0][0] <= self._durable:
            _, envelopes, placed = self._after.pop(0)
            for envelope in envelopes:
                self._sender.send(self.raft, envelope)
            for errand in placed:
                errand.waiter.succeed(None)

    # What `quorate.sending.Way` has.

    def wake(self) -> None:
        """See to it that this seat has a turn soon."""
        self._outside.wake(self)

    def post(self, node: str, packet: Packet) -> None:
        """Send a packet to a node with the next frame."""
        self._outside.post(node, packet)

    def read_durable(self, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        """Read entries from the disk, as far as they are durable: beyond it may still hold what was truncated."""
        self._outside.read(self, first, Index(min(last, self.raft.state.persisted_index)), done)

    def _apply_read(self, runs: tuple[Run, ...]) -> None:
        """Have entries that came from the disk applied from the next turn on: they may be too many for one."""
        self._is_reading_to_apply = False
        if self.failure is None and runs and runs[0].first == self.apply.last_applied + 1:
            self._read_ahead = runs
            self._outside.wake(self)

    # Snapshots.

    def _compact(self) -> None:
        """Take a snapshot if one is due or asked for: of the machine as it is now, written while it goes on."""
        apply, raft = self.apply, self.raft
        if self.snapshots.is_due(apply, raft.state.snapshot_index):
            apply.bytes_since = 0
            done = partial(self._outside.act, self, self._taken)
            self.snapshots.take(raft.snapshot_at(apply.last_applied, apply.time), apply.freeze, done)

    def _taken(self, snapshot: Snapshot) -> None:
        """Learn that a snapshot's file is durable: the log may be shortened."""
        self.raft.compacted(snapshot)
        self._outside.wake(self)

    def _take_in(self, group: str, message: InstallSnapshot) -> None:
        """Let the core decide what becomes of a snapshot whose file is here, whole and durable."""
        if self.failure is None and self._is_ours(message.leader_id, group):
            self._messages.append((message.leader_id, message))
            self._outside.wake(self)

    def _restore(self, snapshot: Snapshot) -> None:
        """Begin anew with a snapshot; nothing is applied until the machine has been made from it."""
        self._sender.cache.clear()
        self._restoring = snapshot
        if snapshot.is_bare:
            self._restored(snapshot, None)
            return
        done = partial(self._outside.act, self, self._restored, snapshot)
        self.snapshots.restore(snapshot, lambda chunks: restored(self.apply.type, chunks), done)

    def _restored(self, snapshot: Snapshot, outcome: object) -> None:
        """Go on from a snapshot, or stop if the machine cannot be made from it."""
        if snapshot is not self._restoring:
            return  # A later one has taken its place.
        if isinstance(outcome, BaseException):
            raise outcome
        assert outcome is None or isinstance(outcome, Replicated), "a snapshot is restored into a state"
        self._restoring, self._read_ahead = None, ()
        self._log_time.note(snapshot.time, self._now)
        self.apply.restore_to(outcome, snapshot)
        self._outside.wake(self)
