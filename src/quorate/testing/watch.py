"""A peer under watch: the real core and the real machine, with every input shown to the ``History``.

The product knows nothing of it: the seat's core and machine are replaced by objects of these subclasses, which share
their state, before the seat has its first turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from quorate.apply import Apply
from quorate.core import Configuration, Event, Member, Message, Raft, Ready
from quorate.core.invariants import facts
from quorate.tables import Replicated
from quorate.testing.invariants import History
from quorate.types import Index, Kind, PeerId, ReadId, Run, Snapshot


class WatchedRaft(Raft):
    """A core whose every input is checked."""

    def __init__(self, raft: Raft, name: str, history: History, note: Callable[[Raft, Event], None]) -> None:
        """Take the place of ``raft``; ``note`` is told its events."""
        self.__dict__.update(raft.__dict__)
        self._name = name
        self._history = history
        self._note = note
        self._facts = facts(self.state)
        self._groups = self.state.groups
        self._floors: dict[ReadId, int] = {}
        history.started(name, self.state)

    def _checked(self) -> None:
        """Check what the input led to."""
        self._facts = self._history.stepped(self._name, self.state, self._facts, self._groups)
        self._groups = self.state.groups

    def receive(self, sender: PeerId, message: Message, now: float) -> None:
        """See ``Raft.receive``."""
        super().receive(sender, message, now)
        self._checked()

    def tick(self, now: float) -> None:
        """See ``Raft.tick``."""
        super().tick(now)
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
        super().persisted(number)
        self._checked()

    def sent(self, peer: PeerId, last: Index) -> None:
        """See ``Raft.sent``."""
        super().sent(peer, last)
        self._checked()

    def ready(self, *, more_follows: bool = False) -> Ready:
        """See ``Raft.ready``."""
        ready = super().ready(more_follows=more_follows)
        for read in ready.reads:
            self._history.check_read(self._name, read.index, self._floors.pop(read.id))
        for dropped in ready.dropped:
            del self._floors[dropped]
        for event in ready.events:
            self._note(self, event)
        return ready


class WatchedApply(Apply):
    """A machine whose every entry, snapshot and restoring is checked."""

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

    def read_now(self, query: bytes) -> object:
        """See ``Apply.read_now``."""
        self._history.check_read(self._name, self.last_applied, len(self._history.committed))
        return super().read_now(query)

    def freeze(self) -> Iterable[bytes]:
        """See ``Apply.freeze``."""
        # Whoever restores it is compared with what was frozen.
        self._history.compare_machine(self._name, self)
        return super().freeze()

    def restore_to(self, state: Replicated | None, snapshot: Snapshot) -> None:
        """See ``Apply.restore_to``."""
        super().restore_to(state, snapshot)
        self._history.compare_machine(self._name, self)
