"""What the cores of a simulated group were given, input by input, as steps that bare cores can take again.

Records while a simulation runs, in the words of scenario texts: peers are ``1``, ``2``, … in the order in which they
are first seen, the founders first. What a peer was given before its group was formed is left out, as a scenario begins
with the group. Replays nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from quorate.core import Configuration, Event, Member, Message, Raft, Ready
from quorate.core.messages import AppendEntries, InstallSnapshot
from quorate.settings import Settings
from quorate.testing.group import PEERS_MAX
from quorate.testing.invariants import History
from quorate.testing.process import Process
from quorate.testing.simulation import Simulation
from quorate.testing.watch import WatchedRaft
from quorate.types import Index, PeerId, ReadId, Snapshot

NOBODY = PeerId("")
Shape = tuple[int, ...]
"""The numbers in a message."""


@dataclass(frozen=True, slots=True)
class Step:
    """One input to one peer, by what it means: which message, not which bytes.

    Attributes:
        verb: as in a scenario text.
        peer: who is given it.
        at: the peer's clock, seconds; 0.0 where time does not matter.
        other: the sender of a message, or whom the input is about; empty when it is about nobody.
        kind: the tag of the message that arrived; empty for what is no message.
        shape: the numbers in it: one most like it arrives when steps are taken again.
        words: what else stands on the command line.
        since: for ``persist``: only writes that earlier steps than this number led to become durable.
        number: the place of the step among all, ascending.
    """

    verb: str
    peer: PeerId
    at: float = 0.0
    other: PeerId = NOBODY
    kind: str = ""
    shape: Shape = ()
    words: tuple[str, ...] = ()
    since: int = 0
    number: int = 0


@dataclass(slots=True)
class Recorder:
    """Collects the steps of one simulation, from before it runs.

    Attributes:
        steps: in the order in which they happened.
        names: the name of each peer in a scenario, by its id.
        founders: how many formed the group.
    """

    steps: list[Step] = field(default_factory=list)
    names: dict[PeerId, PeerId] = field(default_factory=dict)
    founders: int = 0
    _lives: dict[str, PeerId] = field(default_factory=dict)
    _writes: dict[str, deque[int]] = field(default_factory=dict)
    _down: set[PeerId] = field(default_factory=set)
    _count: int = 0

    @classmethod
    def of(cls, simulation: Simulation) -> Recorder:
        """Watch a simulation that has not run yet."""
        recorder = cls(founders=simulation.profile.size)
        for process in simulation.processes:
            recorder._watch(process)
        return recorder

    @property
    def fits(self) -> bool:
        """Whether a scenario has names for all these peers."""
        return len(self.names) <= PEERS_MAX

    @property
    def newcomers(self) -> list[PeerId]:
        """The names of the peers that did not form the group."""
        return list(self.names.values())[self.founders :]

    def add(self, step: Step) -> None:
        """Add a step."""
        self._count += 1
        self.steps.append(replace(step, number=self._count))

    def name(self, peer: PeerId) -> PeerId:
        """Give a peer's name in a scenario."""
        return self.names.setdefault(peer, PeerId(str(len(self.names) + 1)))

    def begins(self, process: str, peer: PeerId) -> None:
        """Note that a peer starts: for the first time, or once more."""
        name = self.name(peer)
        self._lives[process], self._writes[process] = name, deque()
        if name in self._down:
            self._down.discard(name)
            self.add(Step("restart", name))

    def forms(self, peer: PeerId) -> None:
        """Leave out what a peer was given before its group was formed."""
        self.steps = [step for step in self.steps if step.peer != self.name(peer)]

    def writes(self, process: str) -> None:
        """Note that what was given up to now is handed out for writing."""
        self._writes[process].append(self._count)

    def persisted(self, process: str, count: int) -> None:
        """Note that the oldest writes became durable."""
        waiting = self._writes[process]
        done = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        if done:
            self.add(Step("persist", self._lives[process], since=done[-1]))

    def forgot(self, process: str) -> None:
        """Note that a process ended, and what was not durable is lost."""
        name = self._lives.get(process)
        if name is not None and name not in self._down:
            self._writes[process].clear()
            self._down.add(name)
            self.add(Step("crash", name))

    def _watch(self, process: Process) -> None:
        """Watch what a process gives its core, and what its disk does."""
        persisted, forgot = process.persisted, process.forgot

        def note_persisted(count: int) -> None:
            self.persisted(process.name, count)
            persisted(count)

        def note_forgot() -> None:
            self.forgot(process.name)
            forgot()

        def watch(raft: Raft, name: str, history: History, note: Callable[[Raft, Event], None]) -> WatchedRaft:
            return RecordedRaft(raft, name, history, note, self)

        process.persisted = note_persisted  # type: ignore[method-assign]
        process.forgot = note_forgot  # type: ignore[method-assign]
        process.watch = watch


class RecordedRaft(WatchedRaft):
    """A core that is checked, and whose inputs are noted before it takes them."""

    def __init__(
        self, raft: Raft, name: str, history: History, note: Callable[[Raft, Event], None], recorder: Recorder
    ) -> None:
        """Take the place of ``raft``."""
        self._recorder = recorder
        self._process = name
        recorder.begins(name, raft.state.peer)
        super().__init__(raft, name, history, note)

    def _given(self, verb: str, now: float = 0.0, other: PeerId | None = None, words: Iterable[str] = ()) -> Step:
        """Make a step of what is given here."""
        recorder = self._recorder
        about = NOBODY if other is None else recorder.name(other)
        return Step(verb, recorder.name(self.state.peer), now, about, words=tuple(words))

    def receive(self, sender: PeerId, message: Message, now: float) -> None:
        """See ``Raft.receive``."""
        step = self._given("deliver", now, sender)
        self._recorder.add(replace(step, kind=tag(message), shape=shape(message)))
        super().receive(sender, message, now)

    def tick(self, now: float) -> None:
        """See ``Raft.tick``."""
        self._recorder.add(self._given("timeout", now))
        super().tick(now)

    def propose(self, commands: Sequence[bytes], now: float) -> range:
        """See ``Raft.propose``."""
        count = len(self._recorder.steps)
        self._recorder.add(self._given("propose", now, words=[f"c{count}.{n}" for n, _ in enumerate(commands, 1)]))
        return super().propose(commands, now)

    def read(self, now: float, *, by_lease: bool = False) -> ReadId:
        """See ``Raft.read``."""
        self._recorder.add(self._given("read", now, words=["lease"] if by_lease else []))
        return super().read(now, by_lease=by_lease)

    def transfer(self, to: PeerId | None, now: float) -> None:
        """See ``Raft.transfer``."""
        self._recorder.add(self._given("transfer", now, words=[] if to is None else [self._recorder.name(to)]))
        super().transfer(to, now)

    def form(self, configuration: Configuration, now: float) -> None:
        """See ``Raft.form``."""
        self._recorder.forms(self.state.peer)
        super().form(configuration, now)

    def unreachable(self, peer: PeerId, now: float) -> None:
        """See ``Raft.unreachable``."""
        self._recorder.add(self._given("lost", now, words=[self._recorder.name(peer)]))
        super().unreachable(peer, now)

    def change(self, members: Sequence[Member], now: float) -> None:
        """See ``Raft.change``."""
        self._recorder.add(self._given("change", now, words=[self._member(member) for member in members]))
        super().change(members, now)

    def compacted(self, taken: Snapshot) -> None:
        """See ``Raft.compacted``."""
        self._recorder.add(self._given("snapshot", words=[f"at={taken.index}"]))
        super().compacted(taken)

    def shipped(self, peer: PeerId, index: Index, *, is_complete: bool) -> None:
        """See ``Raft.shipped``."""
        verb = "shipped" if is_complete else "not-shipped"
        self._recorder.add(self._given(verb, words=[self._recorder.name(peer)]))
        super().shipped(peer, index, is_complete=is_complete)

    def ready(self, *, more_follows: bool = False) -> Ready:
        """See ``Raft.ready``."""
        ready = super().ready(more_follows=more_follows)
        if ready.writes:
            self._recorder.writes(self._process)
        return ready

    def _member(self, member: Member) -> str:
        """Give a member as a scenario names it."""
        kind = "" if member.kind == "voter" else f"/{member.kind}"
        return self._recorder.name(member.id) + kind + (f"/{member.priority}" if member.priority else "")


def tag(message: Message) -> str:
    """Give the kind of a message."""
    return str(message.__struct_config__.tag)


def shape(message: Message) -> Shape:
    """Give the numbers in a message: terms, indexes, yes or no; and the last index that it brings, if any."""
    values = [getattr(message, name) for name in message.__struct_fields__ if name != "round"]
    numbers = [value for value in values if isinstance(value, int)]
    match message:
        case AppendEntries(entries=runs):
            numbers.append(runs[-1].last if runs else 0)
        case InstallSnapshot(snapshot=snapshot):
            numbers.append(snapshot.index)
        case _:
            pass
    return tuple(numbers)


def knobs(settings: Settings) -> list[str]:
    """Give the knobs that are not as they are by default, as a scenario names them."""
    plain = Settings()
    return [
        f"{name}={getattr(settings, name)}"
        for name in settings.__struct_fields__
        if getattr(settings, name) != getattr(plain, name)
    ]
