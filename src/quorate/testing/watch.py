"""A peer under watch: the real core and the real machine, with every input shown to the ``History``.

The product knows nothing of it: the seat's core and machine are replaced by objects of these subclasses, which share
their state, before the seat has its first turn.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from quorate.apply import Apply, Query
from quorate.calling import Bound
from quorate.core import Configuration, Event, Member, Message, Raft, Ready
from quorate.core.invariants import facts
from quorate.tables import Replicated
from quorate.testing.invariants import History
from quorate.types import Index, Kind, PeerId, ReadId, Run, Snapshot
from quorate.waiters import FutureWaiter

TOLERANCE = 1e-6
"""Seconds by which an instant may be off that was computed from how long ago it was."""


class WatchedRaft(Raft):
    """A core whose every input is checked.

    Attributes:
        is_waited_for: tells whether somebody waits for a read.
    """

    is_waited_for: Callable[[ReadId], bool] = staticmethod(lambda _read: False)

    def __init__(self, raft: Raft, name: str, history: History, note: Callable[[Raft, Event], None]) -> None:
        """Take the place of ``raft``; ``note`` is told its events."""
        self.__dict__.update(raft.__dict__)
        self._name = name
        self._history = history
        self._note = note
        self._facts = facts(self.state)
        self._groups = self.state.groups
        self._floors: dict[ReadId, int] = {}
        self._durable = 0
        self._dropped: tuple[ReadId, ...] = ()
        self._heard = float("-inf")
        self._committed: deque[tuple[float, Index]] = deque()
        history.started(name, self.state)

    def _checked(self) -> None:
        """Check what the input led to."""
        self._facts = self._history.stepped(self._name, self.state, self._facts, self._groups)
        self._groups = self.state.groups

    def receive(self, sender: PeerId, message: Message, now: float) -> None:
        """See ``Raft.receive``."""
        super().receive(sender, message, now)
        self._heard = now
        self._note_committed(now)
        self._checked()

    def tick(self, now: float) -> None:
        """See ``Raft.tick``."""
        super().tick(now)
        self._note_committed(now)
        self._checked()

    def propose(self, commands: Sequence[bytes], now: float) -> range:
        """See ``Raft.propose``."""
        taken = super().propose(commands, now)
        self._checked()
        return taken

    def read(self, now: float, *, by_lease: bool = False) -> ReadId:
        """See ``Raft.read``."""
        read = super().read(now, by_lease=by_lease)
        self._floors[read] = len(self._history.committed)
        self._checked()
        return read

    def transfer(self, to: PeerId | None, now: float) -> None:
        """See ``Raft.transfer``."""
        super().transfer(to, now)
        self._checked()

    def form(self, configuration: Configuration, now: float) -> None:
        """See ``Raft.form``."""
        super().form(configuration, now)
        self._checked()

    def unreachable(self, peer: PeerId, now: float) -> None:
        """See ``Raft.unreachable``."""
        super().unreachable(peer, now)
        self._checked()

    def change(self, members: Sequence[Member], now: float) -> None:
        """See ``Raft.change``."""
        if self._is_alone:
            self._heard = now  # It needed nobody to tell it until now.
        super().change(members, now)
        self._checked()

    def snapshot_at(self, index: Index, time: float) -> Snapshot:
        """See ``Raft.snapshot_at``."""
        snapshot = super().snapshot_at(index, time)
        self._history.check_snapshot(self._name, snapshot)
        return snapshot

    def compacted(self, taken: Snapshot) -> None:
        """See ``Raft.compacted``."""
        super().compacted(taken)
        self._checked()

    def shipped(self, peer: PeerId, index: Index, *, is_complete: bool) -> None:
        """See ``Raft.shipped``."""
        super().shipped(peer, index, is_complete=is_complete)
        self._checked()

    def persisted(self, number: int) -> None:
        """See ``Raft.persisted``."""
        if number < self._durable:
            text = f"{self._name} learns that {number} is durable after {self._durable}"
            raise self._history.fail("DurableInOrder", text)
        self._durable = number
        super().persisted(number)
        self._checked()

    def sent(self, peer: PeerId, last: Index) -> None:
        """See ``Raft.sent``."""
        super().sent(peer, last)
        self._checked()

    def ready(self, *, more_follows: bool = False) -> Ready:
        """See ``Raft.ready``."""
        if any(map(self.is_waited_for, self._dropped)):
            text = f"who waits at {self._name} for a read that was dropped has not been told"
            raise self._history.fail("NobodyIsForgotten", text)
        ready = super().ready(more_follows=more_follows)
        self._dropped = ready.dropped
        for read in ready.reads:
            self._history.check_read(self._name, read.index, self._floors.pop(read.id))
        for dropped in ready.dropped:
            del self._floors[dropped]
        for event in ready.events:
            self._note(self, event)
        return ready

    @property
    def _is_alone(self) -> bool:
        """Whether nobody else decides."""
        return all(set(group) == {self.state.peer} for group in self.state.groups)

    def _note_committed(self, now: float) -> None:
        """Note how much the core holds committed at an instant of its clock."""
        if not self._committed or self._committed[-1][1] < self.state.commit_index:
            self._committed.append((now, self.state.commit_index))

    def check_age(self, since: float, applied: Index) -> None:
        """Check what a stale read says: that the machine held all that was committed at an instant of its clock.

        A voter that is alone knows it at any time. All others were told since, and have applied all that they held
        committed then.

        Args:
            since: that instant.
            applied: the last index that the machine has applied.

        Raises:
            Violation: it cannot have known it.
        """
        since -= TOLERANCE
        while self._committed and self._committed[0][1] <= applied:
            self._committed.popleft()
        if self._is_alone or since == float("-inf"):
            return
        if since > self._heard:
            text = f"{self._name} knows what was committed at {since:.6f}, and has heard nobody since {self._heard:.6f}"
            raise self._history.fail("StaleAge", text)
        if self._committed and self._committed[0][0] < since:
            when, index = self._committed[0]
            text = f"{self._name} had applied at {since:.6f} what it holds committed since {when:.6f}"
            raise self._history.fail("StaleAge", f"{text}, and has not applied entry {index} even now")


class WatchedApply(Apply):
    """A machine whose every entry, snapshot and restoring is checked.

    Attributes:
        check_age: checks the age of a stale read.
    """

    check_age: Callable[[float], None] = staticmethod(lambda _age: None)

    def __init__(self, apply: Apply, name: str, history: History) -> None:
        """Take the place of ``apply``."""
        self.__dict__.update(apply.__dict__)
        self._name = name
        self._history = history
        history.has_applied(name, self)

    def apply(self, runs: Sequence[Run]) -> None:
        """See ``Apply.apply``."""
        # A witness that no configuration names yet is known by this.
        is_bare = any(run.kind is Kind.BARE for run in runs)
        self._history.applies(self._name, runs, is_witness=self.is_witness or is_bare)
        before = self.last_applied
        super().apply(runs)
        if is_bare and not self.is_witness:
            raise self._history.fail("StateMachineSafety", f"{self._name} applies commands that it was never sent")
        if self.last_applied < before:
            raise self._history.fail("AppliedMonotonic", f"{self._name} applied {before}, and now {self.last_applied}")
        self._history.has_applied(self._name, self)

    def read_now(self, call: Bound) -> object:
        """See ``Apply.read_now``."""
        self._history.check_read(self._name, self.last_applied, len(self._history.committed))
        return super().read_now(call)

    def read_stale(self, queries: Sequence[Query], age: float) -> None:
        """See ``Apply.read_stale``."""
        self.check_age(age)
        super().read_stale(queries, age)

    def _answer_reads(self) -> None:
        """See ``Apply._answer_reads``."""
        waiting = [index for index, _ in self._reads]
        super()._answer_reads()
        for index in waiting[: len(waiting) - len(self._reads)]:
            if index > self.last_applied:
                text = f"{self._name} answers a read at index {index}, and has applied {self.last_applied} (thesis 6.4)"
                raise self._history.fail("ReadFloor", text)

    def freeze(self) -> Iterable[bytes]:
        """See ``Apply.freeze``."""
        # Whoever restores it is compared with what was frozen.
        self._history.compare_machine(self._name, self)
        return self._as_frozen(list(super().freeze()), super().freeze())

    def _as_frozen(self, frozen: Sequence[bytes], chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Give the chunks of a snapshot as they are written, and check that they are those that were frozen.

        Raises:
            Violation: they are not: the machine has gone on since.
        """
        for expected, chunk in itertools.zip_longest(frozen, chunks):
            if chunk is None or chunk != expected:
                text = f"{self._name} writes a snapshot of another state than it has frozen"
                raise self._history.fail("SnapshotOfOneState", text)
            yield chunk

    def restore_to(self, state: Replicated | None, snapshot: Snapshot) -> None:
        """See ``Apply.restore_to``."""
        covered = [
            waiter.future
            for proposed in self._proposed
            for waiter in proposed.waiters[: max(0, snapshot.index + 1 - proposed.first)]
            if isinstance(waiter, FutureWaiter)
        ]
        super().restore_to(state, snapshot)
        if not all(future.done() for future in covered):
            text = f"who waits at {self._name} for what snapshot {snapshot.index} covers has not been told"
            raise self._history.fail("NobodyIsForgotten", text)
        self._history.compare_machine(self._name, self)
