"""Takes recorded steps again, or some of them, on bare cores; and writes what was taken as a scenario text.

The network is loose: everything sent may still arrive, once more or never, and a step is passed over when it makes no
sense any more, such as the arrival of a message that nobody sent this time. So any steps can be left out. Each peer has
a clock of its own that runs on as far as its next step needs. All is checked as in a scenario (``Group``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from quorate.core.state import Follower
from quorate.errors import ConfigurationError, NotLeader
from quorate.settings import Settings
from quorate.testing.contents import Contents
from quorate.testing.group import Group, Packet
from quorate.testing.lines import member
from quorate.testing.shrinking.recording import NOBODY, Recorder, Shape, Step, knobs, shape, tag
from quorate.types import HardState, PeerId

GRAIN = 10_000
"""Clocks run on by whole parts of a second, this many of them: so a text can say it."""
LATEST = 32
"""Where no message on a link is just like what is wanted, one of so many of the latest is chosen."""
INVARIANTS = {
    "both lead term": "ElectionSafety",
    "leader completeness": "LeaderCompleteness",
    "state machine safety": "StateMachineSafety",
    "log matching": "LogMatching",
    "not durable on a majority": "CommittedOnQuorum",
    "before it is durable": "PersistBeforeSend",
    "before that is durable": "PersistBeforeSend",
    "before its own vote is durable": "PersistBeforeSend",
    "before that term is durable": "PersistBeforeSend",
    "was committed before": "ReadFloor",
    "the snapshot of": "SnapshotIsCommitted",
    "cannot be done": "NothingFails",
    "a snapshot of entry": "SnapshotIsCommitted",
}
"""What the simulator calls a violation, by what a check of bare cores says of it."""

Clocks = Literal["own", "one", "recorded"]
Link = tuple[PeerId, PeerId, str]
"""Sender, receiver, and the kind of a message."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How much of what was recorded is kept beside the steps.

    Attributes:
        clocks: "own" to let a peer's clock run on when it times out, and far enough that it may vote; "one" to let that
            of all run on to the deadline of a peer that times out; "recorded" to let each run on as it did.
        has_slow_disks: whether writes wait until they become durable; else they are at once.
        settings: the knobs.
    """

    clocks: Clocks
    has_slow_disks: bool
    settings: Settings


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken.

    Attributes:
        step: the step.
        span: by how much the peer's clock ran on before, seconds.
        times: how often it was taken at once.
        place: of a message: which one on its link, from 0 on.
        sent: how many had been sent on the link by then.
    """

    step: Step
    span: float = 0.0
    times: int = 1
    place: int = 0
    sent: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of some steps.

    Attributes:
        invariant: the name of what was violated; empty when nothing was.
        text: how.
        taken: the steps that were taken, up to the violation.
    """

    invariant: str = ""
    text: str = ""
    taken: list[Taken] = field(default_factory=list)


@dataclass(slots=True)
class Rehearsal:
    """One group of bare cores, and what was sent there, kept for as long as it lasts."""

    ways: Ways
    group: Group
    sent: dict[Link, list[Packet]] = field(default_factory=dict)
    shapes: dict[Link, list[Shape]] = field(default_factory=dict)
    alike: dict[Link, dict[Shape, list[int]]] = field(default_factory=dict)
    arrived: set[tuple[Link, int]] = field(default_factory=set)
    writes: dict[PeerId, list[int]] = field(default_factory=dict)

    @classmethod
    def begin(cls, recorder: Recorder, ways: Ways) -> Rehearsal:
        """Make the group, as the text of ``header`` does."""
        group = Group(recorder.founders, ways.settings, lambda _name, _what: None)
        for name in recorder.newcomers:
            group.place(name, HardState(), Contents())
        for peer in group.peers.values():
            peer.raft.ready()
            peer.disk_waits = ways.has_slow_disks
        return cls(ways, group)

    def play(self, steps: Iterable[Step]) -> Outcome:
        """Take the steps that make sense, until something is violated."""
        outcome = Outcome()
        for step in steps:
            taken = self._prepared(step)
            if taken is None:
                continue
            try:
                self._take(taken)
            except (NotLeader, ConfigurationError, ValueError):
                continue  # It cannot be asked now.
            except AssertionError as error:
                text = str(error).splitlines()[0]
                return Outcome(invariant_of(text), text, [*outcome.taken, taken])
            except (AttributeError, LookupError) as error:  # a fault of the core itself
                return Outcome("NothingFails", repr(error), [*outcome.taken, taken])
            outcome.taken.append(taken)
            self._collect(step)
        return outcome

    def _prepared(self, step: Step) -> Taken | None:
        """Say how a step is taken now; None if it makes no sense."""
        peer = self.group.peers[step.peer]
        if peer.alive == (step.verb == "restart"):
            return None
        match step.verb:
            case "deliver":
                link = link_of(step)
                place = self._place(link, step.shape)
                if place is None:
                    return None
                return Taken(step, self._span(step), place=place, sent=len(self.sent[link]))
            case "persist":
                times = sum(number <= step.since for number in self.writes.get(step.peer, ()))
                return Taken(step, times=times) if times else None
            case "timeout" if peer.raft.deadline() == float("inf"):
                return None
            case "read" if step.words and self.ways.clocks != "one":
                return None  # A lease trusts clocks that run alike.
            case "snapshot":
                state = peer.raft.state
                return Taken(step) if state.commit_index > state.snapshot_index else None
            case _:
                return Taken(step, self._span(step))

    def _span(self, step: Step) -> float:
        """Give by how much the clock of a peer runs on before a step."""
        clock, clocks = self.group.clock(step.peer), self.ways.clocks
        if clocks == "one":
            return 0.0
        raft = self.group.peers[step.peer].raft
        wanted = step.at if clocks == "recorded" else clock
        if step.verb == "timeout":
            wanted = max(wanted, raft.deadline())
        elif step.kind in ("vote", "prevote") and clocks == "own" and isinstance(raft.state.role, Follower):
            # Late enough that no leader counts as heard any more.
            heard = max(raft.state.role.heard, raft.state.role.promised)
            wanted = max(wanted, heard + self.ways.settings.election_timeout_min)
        return math.ceil((wanted - clock) * GRAIN) / GRAIN if wanted > clock else 0.0

    def _place(self, link: Link, wanted: Shape) -> int | None:
        """Choose which message on a link arrives: the one that is most like what arrived when it was recorded.

        Of those that are as like, one that has not arrived yet, and the latest of them.
        """
        shapes = self.shapes.get(link)
        if not shapes:
            return None
        alike = self.alike[link].get(wanted)
        places = alike or range(max(len(shapes) - LATEST, 0), len(shapes))

        def unfitness(place: int) -> tuple[int, bool, int]:
            return distance(wanted, shapes[place]), (link, place) in self.arrived, -place

        return min(places, key=unfitness)

    def _take(self, taken: Taken) -> None:
        """Take a step.

        Raises:
            AssertionError: something is violated.
            NotLeader: the peer does not lead.
            ConfigurationError: the change or transfer cannot be.
            ValueError: no snapshot is under way.
        """
        group, step = self.group, taken.step
        name, about = step.peer, PeerId(step.words[0]) if step.words else NOBODY
        if taken.span:
            group.ahead[name] = group.ahead.get(name, 0.0) + taken.span
        acts: dict[str, Callable[[], object]] = {
            "deliver": lambda: self._deliver(link_of(step), taken.place),
            "timeout": lambda: group.tick_at_deadline(name) if self.ways.clocks == "one" else group.tick(name),
            "persist": lambda: self._persist(name, taken.times),
            "crash": lambda: group.crash(name),
            "restart": lambda: self._restart(name),
            "propose": lambda: group.propose(name, [word.encode() for word in step.words]),
            "read": lambda: group.read(name, by_lease=bool(step.words)),
            "transfer": lambda: group.transfer(name, about or None),
            "change": lambda: group.change(name, [member(word) for word in step.words]),
            "snapshot": lambda: group.snapshot(name, None),
            "lost": lambda: group.unreachable(name, about),
            "shipped": lambda: group.shipped(name, about, is_complete=True),
            "not-shipped": lambda: group.shipped(name, about, is_complete=False),
        }
        acts[step.verb]()

    def _deliver(self, link: Link, place: int) -> None:
        """Let one message on a link arrive."""
        self.arrived.add((link, place))
        self.group.deliver([self.sent[link][place]])

    def _persist(self, name: PeerId, times: int) -> None:
        """Make the oldest writes of a peer durable."""
        for _ in range(times):
            self.group.persist(name)

    def _restart(self, name: PeerId) -> None:
        """Start a peer anew, on the disk that it had."""
        self.group.restart(name)
        self.group.peers[name].disk_waits = self.ways.has_slow_disks

    def _collect(self, step: Step) -> None:
        """Take down what a step led to: what was sent, and what is to be written."""
        for packet in self.group.flight:
            message = packet.message
            link, numbers = (packet.sender, packet.to, tag(message)), shape(message)
            places = self.alike.setdefault(link, {}).setdefault(numbers, [])
            places.append(len(self.sent.setdefault(link, [])))
            self.sent[link].append(packet)
            self.shapes.setdefault(link, []).append(numbers)
        self.group.flight.clear()
        known, waiting = self.writes.setdefault(step.peer, []), self.group.peers[step.peer].writes
        if step.verb == "persist":
            del known[: sum(number <= step.since for number in known)]
        elif step.verb in ("crash", "restart"):
            known.clear()
        known += [step.number] * (len(waiting) - len(known))


def link_of(step: Step) -> Link:
    """Give the link on which the message of a step comes."""
    return step.other, step.peer, step.kind


def distance(wanted: Shape, found: Shape) -> int:
    """Tell how unlike two messages of a kind are."""
    return sum(abs(a - b) for a, b in zip(wanted, found, strict=True))


def invariant_of(text: str) -> str:
    """Give the simulator's name for what a check of bare cores says."""
    return next((name for words, name in INVARIANTS.items() if words in text), "CoreInvariants")


# As a text.


def header(recorder: Recorder, ways: Ways) -> list[str]:
    """Give the command lines that make the group."""
    lines = [" ".join(["peers", str(recorder.founders), *knobs(ways.settings)])]
    lines += [" ".join(["new", *recorder.newcomers])] if recorder.newcomers else []
    names = [str(number) for number in range(1, recorder.founders + 1)] + recorder.newcomers
    return lines + ([f"hold-disk {name}" for name in names] if ways.has_slow_disks else [])


def command_lines(taken: Sequence[Taken], ways: Ways) -> list[list[str]]:
    """Give the command lines of each step that was taken."""
    last = {(link_of(one.step), one.place): number for number, one in enumerate(taken) if one.step.kind}
    flight: dict[Link, list[int]] = {}
    known: Counter[Link] = Counter()
    blocks: list[list[str]] = []
    for number, one in enumerate(taken):
        step = one.step
        lines = [f"wait {decimal(one.span)} {step.peer}"] if one.span else []
        match step.verb:
            case "deliver":
                link = link_of(step)
                flying = flight.setdefault(link, [])
                flying += range(known[link], one.sent)
                known[link] = one.sent
                nth = f" nth={flying.index(one.place) + 1}" if len(flying) > 1 else ""
                flying.remove(one.place)
                verb = "deliver"
                if last[link, one.place] != number:
                    verb = "repeat"
                    flying.append(one.place)
                lines.append(f"{verb} {step.other}>{step.peer} kind={link[2]}{nth}")
            case "timeout":
                lines.append(f"{'timeout' if ways.clocks == 'one' else 'tick'} {step.peer}")
            case "persist":
                lines += [f"persist {step.peer}"] * one.times
            case "restart":
                lines.append(f"restart {step.peer}")
                lines += [f"hold-disk {step.peer}"] if ways.has_slow_disks else []
            case "snapshot":
                lines.append(f"snapshot {step.peer}")
            case verb:
                lines.append(" ".join([verb, step.peer, *step.words]))
        blocks.append(lines)
    return blocks


def decimal(span: float) -> str:
    """Write a span that is whole in ``GRAIN``."""
    return f"{span:.4f}".rstrip("0").rstrip(".")
