"""Breadth first over all states of a group that a profile allows.

A state of the group is a tuple of small numbers: one for each peer's state, one for what happened before (``Past``),
one for how much of the bounds is used up, and one for each message in flight. Each input is given once to each state of
one peer, and what came of it is looked up from then on: peers share nothing. Knows no time but for the report.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import NamedTuple

import msgspec

from quorate.core.state import Leader, PreCandidate
from quorate.errors import ConfigurationError, NotLeader
from quorate.testing.exploration.copies import is_spent, peer_key
from quorate.testing.exploration.inputs import Input, Outcome, Verb, give
from quorate.testing.exploration.profiles import Profile, first_peers
from quorate.testing.record import Peer, Record
from quorate.types import PeerId, Run, Term

Group = tuple[int, ...]
"""One state of a group: the numbers of the peers' states, of the past, of what is spent, of the messages in flight."""

Way = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""A campaign on its way: the inputs given, the peers then, the questions not yet delivered, what was sent last."""

WEIGHTS: dict[Verb, int] = {"propose": 1, "crash": 16, "snapshot": 256, "change": 4096}
"""What is spent is one number, with four bits for each of these."""


class Past(msgspec.Struct, frozen=True):
    """What happened and cannot be seen in the group any more, but may not be contradicted.

    Attributes:
        leaders: who led each term.
        committed: all that any peer ever held committed.
    """

    leaders: tuple[tuple[Term, PeerId], ...] = ()
    committed: tuple[Run, ...] = ()


class Option(NamedTuple):
    """Something that can happen to a peer in a certain state, beside the arrival of a message.

    Attributes:
        given: the number of the input.
        weight: of what it costs; 0 when it is free.
        used: how often that has happened before, if it happens now.
    """

    given: int
    weight: int
    used: int


class Step(NamedTuple):
    """What came of one input to one state of a peer.

    Attributes:
        peer: the number of the state after it.
        sent: the numbers of the messages sent, in the order of sending.
    """

    peer: int
    sent: tuple[int, ...]


class Move(NamedTuple):
    """One step of a group.

    Attributes:
        given: the numbers of the inputs, each to one peer; of a message that is lost, of its arrival.
        is_kept: whether the message that arrives may arrive again.
        is_lost: whether the message is lost instead.
    """

    given: tuple[int, ...]
    is_kept: bool = False
    is_lost: bool = False


@dataclass(slots=True)
class Report:
    """What an exploration came to.

    Attributes:
        states: how many different states of the group were found.
        moves: how many steps between them were tried.
        depth: how many steps the farthest state is away from the beginning.
        widest: how many states were found at the depth that had most.
        peer_states: how many different states of single peers were found.
        inputs: how many inputs were given to the core.
        seconds: how long it took.
        is_complete: whether no state was left that was not looked at.
        failure: what was broken; None when nothing was.
        inputs_to_failure: what led there from the beginning, the breaking one last, each with whether it may come
            again.
    """

    states: int = 0
    moves: int = 0
    depth: int = 0
    widest: int = 0
    peer_states: int = 0
    inputs: int = 0
    seconds: float = 0.0
    is_complete: bool = False
    failure: str | None = None
    inputs_to_failure: list[tuple[Input, bool]] = field(default_factory=list)


class Search:
    """One profile's world, as far as it is known."""

    def __init__(self, profile: Profile) -> None:
        """Begin at the beginning of a profile."""
        self._profile = profile
        self._inputs: list[Input] = []
        self._input_numbers: dict[Input, int] = {}
        self._places: list[int] = []
        self._is_campaign: list[bool] = []
        self._is_asking: list[bool] = []
        self._senders: list[int] = []
        self._spent: dict[tuple[int, int, int], bool] = {}
        self._peers: list[Peer] = []
        self._peer_numbers: dict[object, int] = {}
        self._options: list[tuple[Option, ...]] = []
        self._views: list[int] = []
        self._view_numbers: dict[object, int] = {}
        self._pasts: list[Past] = []
        self._past_numbers: dict[Past, int] = {}
        self._steps: dict[tuple[int, int], Step | None] = {}
        self._trying: tuple[int, ...] = ()
        self._judged: dict[tuple[int, ...], int] = {}
        self._with_ages = bool(profile.snapshots_max or profile.change)
        peers = first_peers(profile)
        self._names = list(peers)
        self._count = len(peers)
        self._first: Group = (*[self._peer_number(peer) for peer in peers.values()], self._past_number(Past()), 0)
        self._parents: dict[Group, Group | None] = {self._first: None}

    def run(self, states_max: int) -> Report:
        """Explore until nothing new is found, something is broken, or there are more states than that."""
        report = Report()
        begun = time.monotonic()
        level = [self._first]
        while level and len(self._parents) <= states_max and report.failure is None:
            report.widest = max(report.widest, len(level))
            level = self._next_level(level, states_max, report)
            report.depth += bool(level)
        report.is_complete = not level and report.failure is None
        report.states, report.peer_states, report.inputs = len(self._parents), len(self._peers), len(self._steps)
        report.seconds = time.monotonic() - begun
        return report

    def _next_level(self, level: list[Group], states_max: int, report: Report) -> list[Group]:
        """Give the new states that are one step away from those of a level."""
        parents = self._parents
        found: list[Group] = []
        for group in level:
            try:
                for _, after in self._successors(group):
                    report.moves += 1
                    if after not in parents:
                        parents[after] = group
                        found.append(after)
            except AssertionError as error:
                report.failure, report.inputs_to_failure = str(error), self._retrace(group)
                break
            if len(parents) > states_max:
                break
        return found

    # Steps of the group.

    def _successors(self, group: Group) -> Iterator[tuple[Move, Group]]:
        """Give each step from a state of the group, with the state after it."""
        count = self._count
        spent, flight = group[count + 1], group[count + 2 :]
        for packet in flight:
            rest = tuple([other for other in flight if other != packet])
            yield Move((packet,), is_lost=True), (*group[: count + 2], *rest)
            place = self._places[packet]
            for is_kept, left in ((False, rest), (True, flight)):
                for after in self._given(group, place, packet, left, spent):
                    yield Move((packet,), is_kept), after
        for place in range(count):
            for given, weight, used in self._options[group[place]]:
                if weight and spent // weight % 16 != used:
                    continue
                if self._is_campaign[given]:
                    yield from self._campaigns(group, place, given)
                    continue
                for after in self._given(group, place, given, flight, spent + weight):
                    yield Move((given,)), after

    def _given(self, group: Group, place: int, given: int, left: tuple[int, ...], spent: int) -> Iterator[Group]:
        """Give the states of the group after one peer was given an input, by what of the messages is not lost."""
        self._trying = (given,)
        step = self._step(group[place], given)
        if step is None or (step.peer == group[place] and not step.sent and spent == group[self._count + 1]):
            return  # Nothing came of it.
        peers = (*group[:place], step.peer, *group[place + 1 : self._count])
        is_restart = self._inputs[given].verb == "crash"
        past = self._judge(group[self._count], group[place], place, peers, is_restart=is_restart)
        for flight in self._flights(peers, left, step.sent):
            yield (*peers, past, spent, *flight)

    def _campaigns(self, group: Group, place: int, given: int) -> Iterator[tuple[Move, Group]]:
        """Give each step in which a peer asks others for pre-votes, until it is granted enough, and asks for votes."""
        self._trying = (given,)
        step = self._step(group[place], given)
        if step is None:
            return
        count = self._count
        peers = (*group[:place], step.peer, *group[place + 1 : count])
        ways: list[Way] = [((given,), peers, step.sent, step.sent)]
        while ways:
            trail, peers, questions, sent = ways.pop()
            if not self._is_asking[peers[place]]:
                self._trying = trail
                past = self._judge(group[count], group[place], place, peers)
                for flight in self._flights(peers, group[count + 2 :], sent):
                    yield Move(trail), (*peers, past, group[count + 1], *flight)
                continue
            for number, question in enumerate(questions, 1):
                asked = self._places[question]
                self._trying = (*trail, question)
                answering = self._step(peers[asked], question)
                for answer in answering.sent if answering else ():
                    self._trying = (*trail, question, answer)
                    answered = self._step(peers[place], answer)
                    if answering and answered:
                        after = list(peers)
                        after[asked], after[place] = answering.peer, answered.peer
                        ways.append((self._trying, tuple(after), questions[number:], answered.sent))

    def _flights(self, peers: Sequence[int], left: tuple[int, ...], sent: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Give what may be in flight after more was sent: all of it, or as much as there is room for, in every way."""
        alive = [packet for packet in sorted({*left, *sent}) if not self._is_spent(packet, peers)]
        if len(alive) <= self._profile.flight_max:
            return [tuple(alive)]
        return list(combinations(alive, self._profile.flight_max))

    def _is_spent(self, packet: int, peers: Sequence[int]) -> bool:
        """Tell whether the arrival of a message, now or later, is the same as its loss."""
        sender, to = peers[self._senders[packet]], peers[self._places[packet]]
        known = (packet, sender, to)
        spent = self._spent.get(known)
        if spent is None:
            message = self._inputs[packet].message
            spent = self._spent[known] = is_spent(
                message, self._peers[sender], self._peers[to], self._profile.terms_max
            )
        return spent

    def _judge(self, past: int, before: int, place: int, peers: tuple[int, ...], *, is_restart: bool = False) -> int:
        """Check what is true of all peers together after one of them was given an input; give the past after it."""
        views = self._views
        if views[peers[place]] == views[before]:
            return past
        last = -1 if is_restart else self._peers[before].facts.last
        known = (past, place, last, *[views[number] for number in peers])
        judged = self._judged.get(known)
        if judged is None:
            by_name = {name: self._peers[number] for name, number in zip(self._names, peers, strict=True)}
            # The configuration that decided what was committed just now is the one in force before the input.
            by_name[self._names[place]].compared = None if is_restart else (self._peers[before].facts, -1)
            happened = self._pasts[past]
            record = Record(leaders=dict(happened.leaders), committed=list(happened.committed))
            record.check(self._names[place], by_name)
            leaders = tuple(sorted(record.leaders.items()))
            judged = self._judged[known] = self._past_number(Past(leaders, tuple(record.committed)))
        return judged

    # Steps of one peer.

    def _step(self, peer: int, given: int) -> Step | None:
        """Give what comes of an input; None for what is not allowed, or leads out of the bounds."""
        known = (peer, given)
        if known in self._steps:
            return self._steps[known]
        step = None
        with contextlib.suppress(NotLeader, ConfigurationError):
            outcome = give(self._peers[peer], self._inputs[given], self._profile)
            if self._is_within(outcome.peer):
                step = self._enter(outcome)
        self._steps[known] = step
        return step

    def _is_within(self, peer: Peer) -> bool:
        """Tell whether a peer is still within the bounds."""
        profile = self._profile
        is_early = peer.raft.state.term <= profile.terms_max
        return is_early and (not profile.writes_max or len(peer.writes) <= profile.writes_max)

    def _enter(self, outcome: Outcome) -> Step:
        """Number what came of an input."""
        return Step(self._peer_number(outcome.peer), tuple(dict.fromkeys(map(self._input_number, outcome.sent))))

    # Numbers.

    def _input_number(self, given: Input) -> int:
        number = self._input_numbers.setdefault(given, len(self._inputs))
        if number == len(self._inputs):
            self._inputs.append(given)
            self._places.append(self._names.index(given.peer))
            self._senders.append(self._names.index(given.other) if given.message else -1)
            self._is_campaign.append(given.verb == "campaign")
        return number

    def _past_number(self, past: Past) -> int:
        number = self._past_numbers.setdefault(past, len(self._pasts))
        if number == len(self._pasts):
            self._pasts.append(past)
        return number

    def _peer_number(self, peer: Peer) -> int:
        number = self._peer_numbers.setdefault(peer_key(peer, with_ages=self._with_ages), len(self._peers))
        if number == len(self._peers):
            self._peers.append(peer)
            self._is_asking.append(isinstance(peer.raft.state.role, PreCandidate))
            self._views.append(self._view_numbers.setdefault(view(peer), len(self._view_numbers)))
            self._options.append(tuple(self._possible(peer)))
        return number

    def _possible(self, peer: Peer) -> Iterator[Option]:
        """Give what can happen to a peer beside the arrival of a message."""
        profile, state = self._profile, peer.raft.state
        counted: list[tuple[Input, int]] = [(Input("crash", state.peer), profile.crashes_max)]
        if isinstance(state.role, Leader):
            counted.append((Input("change", state.peer), int(bool(profile.change))))
            for used in range(profile.commands_max):
                given = Input("propose", state.peer, command=f"c{used + 1}")
                yield Option(self._input_number(given), WEIGHTS["propose"], used)
        if state.commit_index > state.snapshot_index:
            counted.append((Input("snapshot", state.peer), profile.snapshots_max))
        for given in free_inputs(peer, profile):
            yield Option(self._input_number(given), 0, 0)
        for given, most in counted:
            for used in range(most):
                yield Option(self._input_number(given), WEIGHTS[given.verb], used)

    def _retrace(self, group: Group) -> list[tuple[Input, bool]]:
        """Give the inputs that led to a state of the group, and those that were tried last, from there."""
        path: list[Group] = [group]
        trying = self._trying
        while (parent := self._parents[path[-1]]) is not None:
            path.append(parent)
        path.reverse()
        moves = [next(move for move, to in self._successors(before) if to == after) for before, after in pairwise(path)]
        moves.append(Move(trying))
        return [(self._inputs[number], move.is_kept) for move in moves if not move.is_lost for number in move.given]


def free_inputs(peer: Peer, profile: Profile) -> Iterator[Input]:
    """Give what can happen to a peer as often as it likes, beside the arrival of a message."""
    state, role = peer.raft.state, peer.raft.state.role
    if isinstance(role, Leader):
        yield Input("timeout", state.peer)
        yield Input("heartbeat", state.peer)
        for other, progress in role.progress.items():
            if progress.installing:
                yield Input("shipped", state.peer, other)
                yield Input("not-shipped", state.peer, other)
    elif state.term < profile.terms_max and peer.raft.deadline() != float("inf"):
        yield Input("timeout" if profile.pre_votes_fly else "campaign", state.peer)
    if peer.writes:
        yield Input("persist", state.peer)


def view(peer: Peer) -> object:
    """Give what others' checks can see of a peer."""
    state, log, durable = peer.raft.state, peer.log, peer.durable_log
    return (
        state.term if isinstance(state.role, Leader) else 0,
        state.commit_index,
        state.snapshot,
        tuple(state.configurations),
        (log.start, tuple(log.entries)),
        (durable.start, tuple(durable.entries)),
    )
