"""Committed entries into the machine, in the order of the log, and the replies to whoever waits for them.

Knows the machine, who waits for which index, and reads that wait for an index. Does not know roles, disks or sockets:
what is committed is told to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import count, groupby

import msgspec

from quorate.calling import Bound, MachineType
from quorate.context import Context, ReadContext
from quorate.effects import Effects
from quorate.errors import MachineError, NotCommitted, OutcomeUnknown, QuorateError, Rejected, Unavailable
from quorate.firing import fire_due
from quorate.machine import StateMachine
from quorate.recent import Recent, Watcher
from quorate.sessions import MARK, PLACE, PLACE_BYTES, TICK, WRITE, OpenSession, Session, decode_command
from quorate.slowness import Slowness, places_of, writes_in
from quorate.tables import Replicated, Tables, frozen
from quorate.transport.calls import Failure, Value, failure_from_error
from quorate.types import Index, Kind, Run, Snapshot, StaleRead, Term
from quorate.waiters import Waiter

logger: logging.Logger = logging.getLogger("quorate.machine")

SILENT = "this peer is a witness, or was one, and emits no events"
"""Why nobody may wait for events here."""

PLAIN = b""
"""The form of a command of the machine that is in no session; see ``form_of``."""


class Proposed(msgspec.Struct):
    """Commands that were appended together, and who waits for them.

    Attributes:
        first: the index of the first one; the others follow.
        term: the term in which they were appended.
        waiters: one for each.
    """

    first: Index
    term: Term
    waiters: Sequence[Waiter]

    @property
    def last(self) -> int:
        """The index of the last one."""
        return self.first + len(self.waiters) - 1


Query = tuple[Bound | None, Waiter]
"""What is read, None to be told no more than the last index that is applied then; and who waits for it."""


class Apply:
    """Applies one peer's committed entries to its machine.

    Attributes:
        machine: the user's state machine.
        tables: what is kept beside it, and goes into every snapshot with it.
        recent: the events that it emitted of late, and who waits for more.
        type: what its class declares.
        last_applied: Figure 2, lastApplied. Invariant: never falls, and rises without a gap but by ``restore_to``.
        time: the wall time of the entry at ``last_applied``, seconds since 1970; 0.0 before the first.
        is_witness: whether what was applied came without its commands: this peer is a witness, and has no state.
        bytes_since: bytes of the entries applied since it was last set to 0, as ``Run.size`` counts them. Whoever takes
            a snapshot sets it to 0, and so does ``restore_to``.
        machine_errors: handlers that raised something other than ``Rejected``, since the start.
    """

    def __init__(
        self,
        machine: StateMachine,
        machine_type: MachineType,
        events_bytes_max: int = 0,
        clock: Callable[[], float] = float,
        slowness: Slowness | None = None,
    ) -> None:
        """Start with a fresh machine: before the first entry.

        Args:
            machine: the machine.
            machine_type: what its class declares.
            events_bytes_max: see ``Settings``.
            clock: the monotonic clock, seconds.
            slowness: is told what takes long by that clock.

        Raises:
            TypeError: snapshots could not keep the state of the machine, or what its ``__init__`` leads to would be
                lost; the message says what to write.
        """
        machine_type.check_state(machine)
        machine.effects.check_unused(machine_type.name)
        self.machine: StateMachine = machine
        self.tables: Tables = Tables()
        self.recent: Recent = Recent(events_bytes_max)
        self.type = machine_type
        self._adopt()
        self.last_applied: Index = Index(0)
        self.time: float = 0.0
        self.is_witness: bool = False
        self.bytes_since: int = 0
        self.machine_errors: int = 0
        self._clock = clock
        self._slowness = slowness or Slowness()
        self._proposed: list[Proposed] = []
        self._reads: list[tuple[Index, Sequence[Query]]] = []

    def expect(self, first: Index, term: Term, waiters: Sequence[Waiter]) -> None:
        """Remember who waits for the commands appended from ``first`` on."""
        batch = Proposed(first, term, waiters)
        if self._proposed and first < self._proposed[-1].first:
            # Deposed, truncated and elected again: the new batch goes where its indexes are.
            self._proposed = sorted((*self._proposed, batch), key=lambda proposed: proposed.first)
        else:
            self._proposed.append(batch)

    def apply(self, runs: Sequence[Run]) -> None:
        """Apply committed runs, contiguous from ``last_applied + 1`` on, and answer those who wait for them."""
        # All Servers 1. If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state machine
        # (§5.3)
        begun, fired = self._clock(), False
        for run in runs:
            assert run.first == self.last_applied + 1, "entries are applied in the order of the log, each once"
            # A leader stamps no earlier time than it has seen; what a deposed one left unstamped counts as no later.
            self.time = max(self.time, run.time)
            if self.time >= self.machine.effects.timers.first and not self.is_witness:
                self._fire(run.first)
                fired = True
            waiters = self._waiters(run)
            if run.kind == Kind.BARE:
                self._become_witness()
                for waiter in waiters or ():
                    if waiter:
                        waiter.fail(OutcomeUnknown("the write was committed, and its peer is a witness by now"))
            elif run.kind == Kind.COMMAND:
                self._apply_commands(run, waiters)
            self.last_applied = run.last
            self.bytes_since += run.size
        if (seconds := self._clock() - begun) >= self._slowness.limit:
            names = (*["timers"][:fired], *writes_in(runs, self.type))
            self._slowness.tell(names, places_of(runs), seconds)
        if self.machine.effects.emitted:
            self.recent.take(self.machine.effects.take(), self.last_applied)
        self._forget_applied()
        self._answer_reads()

    def watch(self, watcher: Watcher) -> None:
        """Send someone the events from a place on, as soon as there are some."""
        if self.is_witness:
            watcher.waiter.fail(Unavailable(SILENT))
        else:
            self.recent.add(watcher, self.last_applied)

    def freeze(self) -> Iterable[bytes]:
        """Give the state at ``last_applied`` in chunks, to be iterated in another thread; a witness has none.

        Raises:
            MachineError: the machine cannot give its state; also raised while iterating.
            MemoryError: there is not enough of it; also raised while iterating.
        """
        self.machine.context = Context(self.time, self.last_applied)  # It is no read that asks.
        return () if self.is_witness else frozen(self.tables, self.type.snapshot(self.machine))

    def restore_to(self, state: Replicated | None, snapshot: Snapshot) -> None:
        """Go on from a snapshot, which reaches at least to ``last_applied``.

        Args:
            state: made from the chunks of the snapshot; None for one without state, a witness's.
            snapshot: what it stands for.
        """
        assert snapshot.index >= self.last_applied, "what was applied is never undone"
        if state is None:
            self._become_witness()
        else:
            self.is_witness = False
            self.machine, self.tables = state.machine, state.tables
            self._adopt()
        self.last_applied = snapshot.index
        self.time = snapshot.time
        self.bytes_since = 0
        self.recent.restart(snapshot.index)
        for proposed in self._proposed:
            for waiter in proposed.waiters[: max(0, snapshot.index + 1 - proposed.first)]:
                waiter.fail(OutcomeUnknown("the write entered the log, and a snapshot covers its index"))
        self._forget_applied()
        self._answer_reads()

    def read(self, index: Index, queries: Sequence[Query]) -> None:
        """Answer the queries once ``last_applied`` has reached ``index``."""
        self._reads.append((index, queries))
        self._answer_reads()

    def read_now(self, call: Bound) -> object:
        """Give the answer of a read at once: whoever asks knows that all it may see is applied; see ``_read``."""
        self.machine.context = ReadContext(self.time, self.last_applied)
        return self._read(call)

    def read_stale(self, queries: Sequence[Query], age: float) -> None:
        """Answer queries at once from the machine as it is, each with a ``StaleRead`` of that age."""
        self._answer(queries, age)

    def expire(self, now: float) -> None:
        """Give up on those whose deadline has passed."""
        for proposed in self._proposed:
            for waiter in proposed.waiters:
                if waiter.deadline <= now:
                    text = "the write entered the log, and whether it was committed was not learned in time"
                    waiter.fail(OutcomeUnknown(text))
        for _, queries in self._reads:
            for _, waiter in queries:
                if waiter.deadline <= now:
                    waiter.fail(Unavailable("the read was confirmed, and its index was not applied in time"))
        # Without a quorum nothing more is applied: those who were told would be remembered for ever.
        self._proposed = [batch for batch in self._proposed if is_awaited(batch.waiters, now)]
        self._reads = [
            (index, queries) for index, queries in self._reads if is_awaited((waiter for _, waiter in queries), now)
        ]

    def deadline(self, now: float) -> float:
        """Give the first instant after ``now`` at which ``expire`` has something to do; infinity for never."""
        waiters = [waiter for proposed in self._proposed for waiter in proposed.waiters]
        waiters += [waiter for _, queries in self._reads for _, waiter in queries]
        return min((waiter.deadline for waiter in waiters if waiter.deadline > now), default=float("inf"))

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for a write."""
        return not self._proposed

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for a write, or for a read of what is not applied yet."""
        return bool(self._proposed or self._reads)

    def stop(self, why: str) -> None:
        """Tell all who wait that this peer will not answer; ``why`` ends the sentence."""
        for proposed in self._proposed:
            for waiter in proposed.waiters:
                waiter.fail(OutcomeUnknown(f"the write entered the log, and then {why}"))
        for _, queries in self._reads:
            for _, waiter in queries:
                waiter.fail(Unavailable(why))
        self._proposed.clear()
        self._reads.clear()

    def _apply_commands(self, run: Run, waiters: Sequence[Waiter | None] | None) -> None:
        """Apply a run of commands, and answer those who wait for them, if anybody does."""
        first, payloads, waiters = run.first, run.payloads, waiters or [None] * len(run.payloads)
        # Most runs hold one form of commands alone, and it costs less to see that than to ask each for its form.
        if MARK not in {payload[:1] for payload in payloads}:
            self._apply_plain(first, payloads, waiters)
        elif {payload[:2] for payload in payloads} == {WRITE} and min(map(len, payloads)) >= PLACE_BYTES:
            self._apply_in_sessions(first, payloads, waiters)
        else:
            begin = 0
            for form, alike in groupby(map(form_of, payloads)):
                end = begin + len(list(alike))
                apply_alike = {PLAIN: self._apply_plain, WRITE: self._apply_in_sessions}.get(form, self._apply_openings)
                apply_alike(first + begin, payloads[begin:end], waiters[begin:end])
                begin = end

    def _apply_plain(self, first: int, commands: Sequence[bytes], waiters: Sequence[Waiter | None]) -> None:
        """Apply commands of the machine, the first of them at that index."""
        machine, writes, now = self.machine, self.type.writes, self.time
        by_struct = writes.by_struct
        for index, struct, waiter in zip(count(first), writes.decode_committed(commands), waiters):
            machine.context = Context(now, index)
            call = by_struct[type(struct)]
            try:
                reply = call.function(machine, *call.arguments(struct))
            except Exception as error:
                self._fail(waiter, writes.failure(machine, call, error), index)
            else:
                if waiter:
                    waiter.succeed(reply)

    def _apply_in_sessions(self, first: int, payloads: Sequence[bytes], waiters: Sequence[Waiter | None]) -> None:
        """Apply writes in sessions, the first of them at that index.

        Whoever waits is given the answer that is kept of the write. Every peer does this for every write of a client,
        so what writes of one session have in common is looked up for the first of them, and few calls are made.
        """
        machine, writes, encode, now = self.machine, self.type.writes, self.type.encode_reply, self.time
        sessions, unpack = self.tables.sessions, PLACE.unpack_from
        session, found = Session(0.0, now), -1  # The session of no number.
        commands = [payload[PLACE_BYTES:] for payload in payloads]
        structs = writes.decode_committed(commands)
        for index, payload, command, struct, waiter in zip(count(first), payloads, commands, structs, waiters):
            machine.context = Context(now, index)
            _, number, sequence, settled = unpack(payload)
            try:
                if number != found:
                    session, found = sessions.use(number, now), number
                answer = None
                if sequence != session.next or settled > sequence - len(session.answers):
                    answer = session.earlier(sequence, settled)
                if answer is None:
                    answer = Value(encode(command, writes.run(machine, writes.bound(struct))))
                    session.keep(answer)
            except (Rejected, MachineError) as error:
                answer = self._failure(session, error, index)
            except QuorateError as refused:
                self._fail(waiter, refused, index)
                continue
            if waiter:
                waiter.succeed(answer)

    def _failure(self, session: Session, error: Rejected | MachineError, index: int) -> Failure:
        """Give the answer of a write in a session that was refused, or met a bug, and keep it."""
        failure = failure_from_error(error)
        if isinstance(error, MachineError):
            self._count(error, index)
            # What a bug says of itself may differ from peer to peer: an address in memory, a path. It is not kept.
            session.keep(msgspec.structs.replace(failure, message="the handler raised when this was first applied"))
        else:
            session.keep(failure)
        return failure

    def _apply_openings(self, first: int, payloads: Sequence[bytes], waiters: Sequence[Waiter | None]) -> None:
        """Open sessions, the first of them at that index; there may be ticks among them, which do nothing."""
        for index, payload, waiter in zip(count(first), payloads, waiters):
            answer = self._open(index, payload)
            if waiter:
                waiter.succeed(answer)

    def _open(self, index: int, payload: bytes) -> int:
        """Open a session, and give its id.

        Raises:
            TypeError: the command opens none, and is no tick; this must stop the peer.
        """
        if payload == TICK:
            return index
        try:
            command = decode_command(payload)
        except MachineError as error:
            # No call brought it here. Peers that know what it is apply it, and this one must not part from them.
            raise TypeError(
                f"the log holds what is {error}. Another version of quorate wrote it: start the peer with that one"
            ) from error
        assert isinstance(command, OpenSession), "a write has its place in a session"
        return self.tables.sessions.open(command, index, self.time)

    def _fail(self, waiter: Waiter | None, error: QuorateError, index: int) -> None:
        """Tell whoever waits why there is no reply; a bug of the machine is counted."""
        if isinstance(error, MachineError):
            self._count(error, index)
        if waiter:
            waiter.fail(error)

    def _adopt(self) -> None:
        """Let the machine set its timers in the tables."""
        self.machine.effects = Effects(self.type.events, self.tables.timers)

    def _fire(self, index: Index) -> None:
        """Run the timers that are due before the entry at that index: their time is the entry's."""
        for error in fire_due(self.type, self.machine, self.time, index):
            self._count(error, index)

    def _waiters(self, run: Run) -> Sequence[Waiter | None] | None:
        """Give who waits for each entry of the run, or None when nobody does.

        Whoever waits there for an entry of another term is told that it was not committed: now that is certain.
        """
        proposed = self._proposed
        if not proposed or proposed[0].first > run.last:
            return None
        only = proposed[0]
        is_alone = len(proposed) == 1 or proposed[1].first > run.last
        if is_alone and (only.first, only.term, only.last) == (run.first, run.term, run.last):
            return only.waiters
        found: list[Waiter | None] = [None] * len(run.payloads)
        for batch in proposed:
            for place, waiter in enumerate(batch.waiters, batch.first - run.first):
                if not 0 <= place < len(found):
                    continue
                if batch.term == run.term:
                    found[place] = waiter
                else:
                    waiter.fail(NotCommitted("another leader's entry was committed at this write's index"))
        return found

    def _become_witness(self) -> None:
        """Know no state from here on, nor what is emitted: who waits for events asks another."""
        self.is_witness = True
        self.recent.stop(SILENT, Unavailable)

    def _forget_applied(self) -> None:
        """Forget those who waited for entries up to ``last_applied``: they are answered."""
        applied = 0
        for proposed in self._proposed:
            if proposed.last > self.last_applied:
                break
            applied += 1
        del self._proposed[:applied]

    def _answer_reads(self) -> None:
        """Answer the reads whose index is applied; those that came first, first."""
        while self._reads and self._reads[0][0] <= self.last_applied:
            self._answer(self._reads[0][1])
            # Only now: were the peer stopped by one of them, whoever still waits is told.
            self._reads.pop(0)

    def _answer(self, queries: Sequence[Query], age: float | None = None) -> None:
        """Answer queries from the machine as it is; with an ``age`` each reply is a ``StaleRead``."""
        self.machine.context, begun = ReadContext(self.time, self.last_applied), self._clock()
        for call, waiter in queries:
            try:
                reply = self._read(call)
            except QuorateError as error:
                waiter.fail(error)
            else:
                waiter.succeed(reply if age is None else StaleRead(reply, self.last_applied, age))
        if (seconds := self._clock() - begun) >= self._slowness.limit:
            names = (call[0].label for call, _ in queries if call is not None)
            self._slowness.tell(names, f"read at index {self.last_applied}", seconds)

    def _read(self, bound: Bound | None) -> object:
        """Give the answer of a read from the machine as it is, once its context is set.

        Returns:
            What the handler returned; ``last_applied`` where nothing is called.

        Raises:
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
            Unavailable: a witness has no machine.
        """
        if self.is_witness:
            raise Unavailable("this peer is a witness, or was one, and holds no data")
        if bound is None:
            return self.last_applied
        call, args = bound
        try:
            return call.function(self.machine, *args)
        except Exception as error:
            failure = self.type.reads.failure(self.machine, call, error)
        if isinstance(failure, MachineError):
            self._count(failure, self.last_applied)
        raise failure

    def _count(self, error: MachineError, index: int) -> None:
        """Count a bug of the machine, and log it: the 1st, 2nd, 4th, 8th … time, so that no loop fills the disk."""
        self.machine_errors += 1
        if self.machine_errors & (self.machine_errors - 1) == 0:
            count = self.machine_errors
            logger.error(
                "%s (index %d, error %d of this machine)", error, index, count, exc_info=error.__cause__ or error
            )


def form_of(payload: bytes) -> bytes:
    """Give what kind of command it is: ``PLAIN``, ``WRITE``, or how another one of quorate's own begins."""
    if payload[:1] != MARK:
        return PLAIN
    return payload[:2] if payload[:2] != WRITE or len(payload) >= PLACE_BYTES else MARK


def is_awaited(waiters: Iterable[Waiter], now: float) -> bool:
    """Tell whether the deadline of any of those who wait is still to come."""
    return any(waiter.deadline > now for waiter in waiters)


def split(runs: Sequence[Run], last: Index) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Divide contiguous runs behind the entry at ``last``; either part may be empty."""
    before = tuple(run.part(run.first, last) for run in runs if run.first <= last)
    behind = tuple(run.part(Index(last + 1), run.last) for run in runs if run.last > last)
    return before, behind
