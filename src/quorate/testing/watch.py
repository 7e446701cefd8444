"""A peer under watch: the real core and the real machine, with every input shown to the ``History``.

The product knows nothing of it: the seat's core and machine are replaced by objects of these subclasses, which share
their state, before the seat has its first turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorate.apply import Apply
from quorate.core import Configuration, Event, Message, Raft, Ready
from quorate.core.invariants import facts
from quorate.testing.invariants import History
from quorate.types import Index, PeerId, ReadId, Run


class WatchedRaft(Raft):
    """A core whose every input is checked."""

    def __init__(self, raft: Raft, name: str, history: History, note: Callable[[Raft, Event], None]) -> None:
        """Take the place of ``raft``; ``note`` is told its events."""
        self.__dict__.update(raft.__dict__)
        self._name = name
        self._history = history
        self._note = note
        self._facts = facts(self.state)
        self._floors: dict[ReadId, int] = {}
        history.started(name, self.state)

    def _checked(self) -> None:
        """Check what the input led to."""
        self._facts = self._history.stepped(self._name, self.state, self._facts)

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

    def read(self, now: float) -> ReadId:
        """See ``Raft.read``."""
        read = super().read(now)
        self._floors[read] = len(self._history.committed)
        self._checked()
        return read

    def change(self, configuration: Configuration, now: float) -> None:
        """See ``Raft.change``."""
        super().change(configuration, now)
        self._checked()

    def persisted(self, number: int) -> None:
        """See ``Raft.persisted``."""
        super().persisted(number)
        self._checked()

    def sent(self, peer: PeerId, last: Index) -> None:
        """See ``Raft.sent``."""
        super().sent(peer, last)
        self._checked()

    def ready(self) -> Ready:
        """See ``Raft.ready``."""
        ready = super().ready()
        for read in ready.reads:
            self._history.check_read(self._name, read.index, self._floors.pop(read.id))
        for dropped in ready.dropped:
            del self._floors[dropped]
        for event in ready.events:
            self._note(self, event)
        return ready


class WatchedApply(Apply):
    """A machine whose every entry is checked."""

    def __init__(self, apply: Apply, name: str, history: History) -> None:
        """Take the place of ``apply``."""
        self.__dict__.update(apply.__dict__)
        self._name = name
        self._history = history

    def apply(self, runs: Sequence[Run]) -> None:
        """See ``Apply.apply``."""
        self._history.applies(self._name, runs)
        before = self.last_applied
        super().apply(runs)
        if self.last_applied < before:
            raise self._history.fail("AppliedMonotonic", f"{self._name} applied {before}, and now {self.last_applied}")
        self._history.has_applied(self._name, self)
