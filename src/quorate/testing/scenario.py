"""Scenario texts: what a group of bare peers does, step by step, as a page that a person can read and a test asserts.

A text holds blocks, with comments (``#``) and blank lines between them. A block is one or more command lines, a line
``----``, and the trace that they leave, up to the next blank line; ``ok`` stands for an empty trace. Peers are named
``1`` to ``9``. Nothing moves by itself: time, messages, and the disk of a peer told to wait are moved by commands.

==================================  ===================================================================================
``peers 3 in_flight_max=2``         a group of that many, each with the first configuration at index 1; settings follow
``given 2 log=1,1,4 term=5 vote=1`` what the disk of a peer holds: the term of each entry; ``log=`` is a new, empty peer
``new 4 5``                         new, empty peers that are members of no group
``timeout 1`` · ``heartbeat 1``     time passes up to the deadline of the peer, which is told; no other one is
``tick 1`` · ``wait 0.2``           the peer is told the time as it is · time passes and nobody is told
``wait 0.2 1``                      time passes for that peer alone: its clock runs ahead
``run 2.0``                         time passes, all are told, all messages arrive at once; events alone are traced
``deliver 1>2 3> >4``               messages on these links (all, when none is named) arrive; not those sent in answer
``settle``                          all messages arrive, and those sent in answer, until there are none
``drop`` · ``repeat`` LINKS         such messages are lost · arrive, and will arrive again
``park NAME`` LINKS · ``release``   such messages are set aside under a name · and are in flight again
``partition 1|2,3`` · ``cut 1>2``   links are cut, for good until ``heal``; what is sent there is lost
``propose 1 a b``                   clients ask for that to be written
``read 1`` · ``read 1 lease``       clients read, by a round of heartbeats · by lease
``transfer 1 2``                    peer 1 is to hand over to peer 2, or to whom it likes
``lost 2 1``                        peer 2 learns that peer 1 cannot be reached, rightly or not
``change 1 1 2/5 4/learner``        these are to be the members; ``/witness``; a priority; ``2@10.0.0.2:7000``
``snapshot 1 at=4``                 the peer takes a snapshot of what is committed up to there, or of all that is
``shipped 1 3`` · ``not-shipped``   peer 1 learns that 3 has the whole snapshot that is under way · that it has not
``hold-disk 1`` · ``persist 1``     writes of the peer wait · the oldest one becomes durable · ``free-disk 1``: all do
``crash 1 2`` · ``restart 1``       what is not durable is lost · a new start from the disk
``status`` · ``log 1 2``            what peers know · the terms of their entries, with the commands proposed
``members 1``                       what a peer knows of each member
==================================  ===================================================================================

``deliver``, ``drop``, ``repeat`` and ``park`` take ``kind=append`` (any message's tag), ``count=1`` (the oldest) and
``nth=2`` (that one alone, by age).
Any command line may end in ``quiet``: its trace is left out. In a trace ``prev=3/1`` is index and term of an entry.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from quorate.core.ready import EventKind, Ready
from quorate.errors import ConfigurationError, NotLeader
from quorate.settings import Settings
from quorate.testing.contents import Contents
from quorate.testing.drive import make_log
from quorate.testing.group import Group, Packet
from quorate.testing.lines import log_line, member, member_line, packet_text, status_lines, write_text
from quorate.types import HardState, Index, PeerId, Term

REWRITE = "QUORATE_REWRITE"
"""Set to 1 in the environment: ``check_file`` writes the trace that it saw into the file instead of comparing."""


class ScenarioError(Exception):
    """A scenario cannot be run, or an invariant was broken while it ran; the message begins with file and line."""


class Step(msgspec.Struct, frozen=True):
    """One command line.

    Attributes:
        verb: its first word.
        words: the words after it, without the options.
        options: what stands as ``key=value``.
        quiet: whether the trace is left out.
    """

    verb: str
    words: list[str]
    options: dict[str, str]
    quiet: bool


def check_file(path: Path) -> None:
    """Run the scenario in a file and compare its trace, or write it there when ``QUORATE_REWRITE=1``.

    Raises:
        AssertionError: the trace is another one.
        ScenarioError: it cannot be run, or an invariant was broken.
    """
    expected = path.read_text(encoding="utf-8")
    actual = run_text(expected, str(path))
    if os.environ.get(REWRITE) == "1":
        path.write_text(actual, encoding="utf-8")
        return
    assert actual.splitlines() == expected.splitlines(), f"{path} leaves another trace; {REWRITE}=1 rewrites it"


def run_text(text: str, source: str) -> str:
    """Run a scenario, and give the text with the trace that it left in place of the one it expects.

    Args:
        text: the scenario.
        source: what error messages call it, such as a file's name.

    Raises:
        ScenarioError: it cannot be run, or an invariant was broken.
    """
    scenario = Scenario()
    result: list[str] = []
    trace: list[str] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        result.append(line)
        if line == "----":
            result += trace or ["ok"]
            trace = []
            result += skip_expected(lines)
        elif step := parse(line, f"{source}:{number}"):
            trace += scenario.run(step, f"{source}:{number}")
    if trace:
        raise ScenarioError(f"{source}: the last commands have no ---- after them")
    return "\n".join(result) + "\n"


def skip_expected(lines: Iterator[tuple[int, str]]) -> list[str]:
    """Pass over the expected trace; give the blank line that ends it, if the text does not end first."""
    return next(([""] for _, line in lines if not line.strip()), [])


def parse(line: str, where: str) -> Step | None:
    """Read a command line; None for a blank line or a comment.

    Raises:
        ScenarioError: its quotes do not match.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ScenarioError(f"{where}: {error}") from error
    if not words:
        return None
    quiet = words[-1] == "quiet"
    plain = [word for word in words[: -1 if quiet else None] if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    return Step(plain[0], plain[1:], options, quiet)


class Scenario:
    """A group that obeys command lines and traces what it does."""

    def __init__(self) -> None:
        """Begin with a group of one, until ``peers`` makes another."""
        self._group = Group(1, Settings(), lambda name, what: None)
        self._trace: list[str] = []
        self._commits: dict[PeerId, int] = {}
        self._parked: dict[str, list[Packet]] = {}
        self._only_events = False
        self._verbs: dict[str, Callable[[Step], None]] = {
            "peers": self._peers,
            "given": self._given,
            "new": self._new,
            "timeout": lambda step: self._timeout(self._name(step)),
            "heartbeat": lambda step: self._timeout(self._name(step)),
            "tick": lambda step: self._group.tick(self._name(step)),
            "wait": self._wait,
            "run": self._run,
            "deliver": lambda step: self._group.deliver(self._take(step)),
            "drop": self._drop,
            "repeat": self._repeat,
            "park": self._park,
            "release": self._release,
            "settle": lambda step: self._group.settle(),
            "partition": self._partition,
            "cut": self._cut,
            "heal": lambda step: self._group.cut.clear(),
            "propose": self._propose,
            "read": lambda step: self._group.read(self._name(step), by_lease="lease" in step.words[1:]),
            "transfer": self._transfer,
            "lost": lambda step: self._group.unreachable(self._name(step), self._known(step.words[1])),
            "change": self._change,
            "snapshot": self._snapshot,
            "shipped": lambda step: self._shipped(step, is_complete=True),
            "not-shipped": lambda step: self._shipped(step, is_complete=False),
            "hold-disk": self._hold_disk,
            "persist": lambda step: self._persist(self._name(step)),
            "free-disk": self._free_disk,
            "crash": self._crash,
            "restart": self._restart,
            "status": self._status,
            "members": self._members,
            "log": self._log,
        }

    def run(self, step: Step, where: str) -> list[str]:
        """Obey one command line, and give the trace that it left.

        Raises:
            ScenarioError: it makes no sense here, or an invariant was broken.
        """
        self._trace = []
        verb = self._verbs.get(step.verb)
        if verb is None:
            raise ScenarioError(f"{where}: unknown command {step.verb!r}; known are {', '.join(self._verbs)}")
        try:
            verb(step)
        except (NotLeader, ConfigurationError) as error:
            self._trace.append(f"{step.words[0]}: {error}")
        except (AttributeError, LookupError, ValueError) as error:
            raise ScenarioError(f"{where}: {step.verb} cannot be done: {error!r}") from error
        except AssertionError as error:
            raise ScenarioError(f"{where}: {error}") from error
        return [] if step.quiet else self._trace

    # Commands.

    def _peers(self, step: Step) -> None:
        knobs = {key: type(getattr(Settings(), key))(value) for key, value in step.options.items()}
        self._group = Group(int(step.words[0]), Settings(**knobs), self._note)
        self._commits, self._parked = {}, {}
        for peer in self._group.peers.values():
            peer.raft.ready()

    def _given(self, step: Step) -> None:
        terms = [int(term) for term in step.options.get("log", "1").split(",") if term]
        vote = step.options.get("vote")
        hard_state = HardState(
            Term(int(step.options.get("term", max(terms, default=0)))), PeerId(vote) if vote else None
        )
        log = Contents(make_log(self._group.configuration, terms))
        self._group.place(self._name(step), hard_state, log)
        self._group.peers[self._name(step)].raft.ready()

    def _new(self, step: Step) -> None:
        for word in step.words:
            member(word)
            self._group.place(PeerId(word), HardState(), Contents())
            self._group.peers[PeerId(word)].raft.ready()

    def _timeout(self, name: PeerId) -> None:
        if self._group.peers[name].raft.deadline() == float("inf"):
            self._trace.append(f"{name}: waits for no time")
        else:
            self._group.tick_at_deadline(name)

    def _wait(self, step: Step) -> None:
        span, ahead = float(step.words[0]), self._group.ahead
        for name in map(self._known, step.words[1:]):
            ahead[name] = ahead.get(name, 0.0) + span
        self._group.wait(0.0 if step.words[1:] else span)

    def _run(self, step: Step) -> None:
        self._only_events = True
        self._group.run(float(step.words[0]))
        self._only_events = False

    def _drop(self, step: Step) -> None:
        for packet in self._take(step):
            self._trace.append(f"dropped {packet_text(packet)}")

    def _repeat(self, step: Step) -> None:
        packets = self._take(step)
        self._group.deliver(packets)
        self._group.flight += packets

    def _park(self, step: Step) -> None:
        for packet in self._take(Step(step.verb, step.words[1:], step.options, step.quiet)):
            self._parked.setdefault(step.words[0], []).append(packet)
            self._trace.append(f"parked {packet_text(packet)}")

    def _release(self, step: Step) -> None:
        for packet in self._parked.pop(step.words[0]):
            self._group.flight.append(packet)
            self._trace.append(f"released {packet_text(packet)}")

    def _partition(self, step: Step) -> None:
        sides = [{self._known(name) for name in side.split(",")} for side in step.words[0].split("|")]
        for side in sides:
            self._group.cut |= {(a, b) for a in side for b in self._group.peers if b not in side}

    def _cut(self, step: Step) -> None:
        for word in step.words:
            sender, _, to = word.partition(">")
            self._group.cut.add((self._known(sender), self._known(to)))

    def _propose(self, step: Step) -> None:
        self._group.propose(self._name(step), [command.encode() for command in step.words[1:]])

    def _transfer(self, step: Step) -> None:
        to = PeerId(step.words[1]) if len(step.words) > 1 else None
        self._group.transfer(self._name(step), to)

    def _change(self, step: Step) -> None:
        members = [member(word) for word in step.words[1:]]
        for wanted in members:
            self._known(wanted.id)
        self._group.change(self._name(step), members)

    def _snapshot(self, step: Step) -> None:
        at = step.options.get("at")
        self._group.snapshot(self._name(step), Index(int(at)) if at else None)

    def _shipped(self, step: Step, *, is_complete: bool) -> None:
        self._group.shipped(self._name(step), self._known(step.words[1]), is_complete=is_complete)

    def _hold_disk(self, step: Step) -> None:
        self._group.peers[self._name(step)].disk_waits = True

    def _persist(self, name: PeerId) -> None:
        self._trace.append(f"{name}: persisted{write_text(self._group.peers[name].writes[0])}")
        self._group.persist(name)

    def _free_disk(self, step: Step) -> None:
        name = self._name(step)
        while self._group.peers[name].writes:
            self._persist(name)
        self._group.peers[name].disk_waits = False

    def _crash(self, step: Step) -> None:
        for word in step.words:
            self._group.crash(self._known(word))

    def _restart(self, step: Step) -> None:
        for word in step.words:
            self._group.restart(self._known(word))

    def _status(self, step: Step) -> None:
        for name, peer in self._group.peers.items():
            self._trace += status_lines(name, peer)

    def _members(self, step: Step) -> None:
        members = self._group.peers[self._name(step)].raft.status().members
        self._trace += [f"{step.words[0]}: {member_line(known)}" for known in members]

    def _log(self, step: Step) -> None:
        for word in step.words or list(self._group.peers):
            self._trace.append(log_line(word, self._group.peers[self._known(word)].log))

    # Words.

    def _name(self, step: Step) -> PeerId:
        return self._known(step.words[0])

    def _known(self, word: str) -> PeerId:
        if PeerId(word) not in self._group.peers:
            raise ValueError(f"there is no peer {word!r}")
        return PeerId(word)

    def _take(self, step: Step) -> list[Packet]:
        """Take the messages that a command names out of flight."""
        links = [(sender, to) for sender, _, to in (word.partition(">") for word in step.words)] or [("", "")]
        for name in {name for link in links for name in link if name}:
            self._known(name)
        tag = step.options.get("kind")
        chosen = [
            packet
            for packet in self._group.flight
            if any(sender in {"", packet.sender} and to in {"", packet.to} for sender, to in links)
            and tag in {None, packet.message.__struct_config__.tag}
        ][: int(step.options["count"]) if "count" in step.options else None]
        if "nth" in step.options:
            nth = int(step.options["nth"])
            chosen = chosen[nth - 1 : nth]
        self._group.flight = [packet for packet in self._group.flight if not any(packet is taken for taken in chosen)]
        return chosen

    # The trace.

    def _note(self, name: PeerId, what: Ready | Packet) -> None:
        match what:
            case Ready():
                assert all(isinstance(event.kind, EventKind) for event in what.events), (
                    "events are counted by their kind"
                )
                self._trace += [f"{name}: {event.text}" for event in what.events]
                if self._group.peers[name].disk_waits and what.writes:
                    self._trace.append(f"{name}: to write{write_text(what)}")
                if what.commit_index > self._commits.get(name, 0) and not self._only_events:
                    self._trace.append(f"{name}: commit index {what.commit_index}")
                self._commits[name] = what.commit_index
                self._trace += [f"{name}: read {read.id} at index {read.index}" for read in what.reads]
                self._trace += [f"{name}: read {read} dropped" for read in what.dropped]
            case Packet():
                if not self._only_events:
                    self._trace.append(packet_text(what))
