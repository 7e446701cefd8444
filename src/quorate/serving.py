"""Serving: carrying out what clients and forming groups ask of a peer over the network.

What comes over the network is checked before it goes further. Knows calls and seats; knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from quorate.calling import Bound, MachineType
from quorate.changing import PRIORITY_MAX
from quorate.core.configuration import Members
from quorate.errands import ChangeMembers, FindLeader, FormGroup
from quorate.errors import InvalidConfiguration, MachineError, NotLeader, QuorateError, Unavailable
from quorate.peer import Peer, check_size
from quorate.recent import Watcher
from quorate.seat import Seat
from quorate.sessions import OpenSession, encode_opening, encode_write
from quorate.settings import Settings
from quorate.standing import StandingWatcher
from quorate.transport import Answer
from quorate.transport.calls import (
    BootstrapCall,
    CancelCall,
    ChangeCall,
    Events,
    Failure,
    IdentifyCall,
    Identity,
    LeaderCall,
    LeaderIs,
    OpenSessionCall,
    ReadCall,
    Reply,
    Request,
    SessionIs,
    SnapshotAt,
    SnapshotCall,
    StaleValue,
    StatusCall,
    StatusIs,
    Value,
    WatchCall,
    WatchStatusCall,
    WriteCall,
    WritesCall,
    failure_from_error,
    singly,
)
from quorate.types import MEMBERS_MAX, PeerId, StaleRead, is_reachable
from quorate.waiters import Waiter

ID_LENGTH_MAX = 64
"""The longest id of a peer from the network; ours have 16 characters."""

GARBAGE = f"these cannot be the members of a group: more than {MEMBERS_MAX}, or with ids or addresses that are none"

WATCH_SECONDS_MAX = 60.0
"""The longest that one call may wait for events or changes, seconds: so long a peer remembers someone who is gone."""

TIMEOUT_MAX = 3600.0
"""The longest deadline that a call from the network may ask for, seconds."""


class Place(msgspec.Struct):
    """One peer of this node.

    Attributes:
        peer: what the user holds.
        seat: its place at the loop.
        id: its random id.
        machine: what its machine's class declares.
        settings: the knobs of its node.
    """

    peer: Peer[Any]
    seat: Seat
    id: PeerId
    machine: MachineType
    settings: Settings

    def value(self, call: bytes, reply: object) -> Value:
        """Give the answer to an encoded write or read.

        Raises:
            MachineError: the reply cannot be encoded.
        """
        return Value(self.machine.encode_reply(call, reply))

    def stale_value(self, call: bytes, reply: StaleRead[object]) -> StaleValue:
        """Give the answer to an encoded stale read, with its index and age.

        Raises:
            MachineError: the reply cannot be encoded.
        """
        return StaleValue(self.machine.encode_reply(call, reply.value), reply.index, reply.age)


class CallWaiter(msgspec.Struct, eq=False):
    """Someone at the other end of a connection who waits for a reply.

    Attributes:
        id: that of the request.
        answer: takes the one reply.
        deadline: when to give up, seconds on the monotonic clock.
        encode: makes the answer, of the command or query and what the peer replies; None where that is the answer.
        call: the encoded command or query; empty if there is none.
        is_done: whether it is answered.
    """

    id: int
    answer: Answer
    deadline: float
    encode: Callable[[bytes, Any], Any] | None = None
    call: bytes = b""
    is_done: bool = False

    def succeed(self, reply: object) -> None:
        """Answer with a reply, unless it is answered."""
        if self.is_done:
            return
        answer: Any = reply
        if self.encode is not None:
            try:
                answer = self.encode(self.call, reply)
            except MachineError as error:
                self.fail(error)
                return
        self.is_done = True
        self.answer(Reply(self.id, answer))

    def fail(self, error: QuorateError) -> None:
        """Answer with an error, unless it is answered."""
        if not self.is_done:
            self.is_done = True
            self.answer(Reply(self.id, failure_from_error(error)))


def carry_out_all(place: Place, requests: Iterable[Request], answer: Answer, now: float) -> None:
    """Carry out requests to a peer, and answer each, now or when it is done: writes and reads together, each kind.

    Args:
        place: the peer.
        requests: what is asked; never trusted.
        answer: takes the replies.
        now: seconds on the monotonic clock.
    """
    writes: list[tuple[Request, WriteCall | WritesCall]] = []
    reads: list[tuple[Request, ReadCall]] = []
    for request in requests:
        call = request.call
        if isinstance(call, ReadCall):
            reads.append((request, call))
        elif isinstance(call, (WriteCall, WritesCall)):
            writes.append((request, call))
        else:
            carry_out(place, request, answer, now)
    if writes:
        write_all(place, writes, answer, now)
    if reads:
        read_all(place, reads, answer, now)


def answer_for_all(places: Mapping[str, Place], requests: Iterable[Request], answer: Answer) -> None:
    """Answer requests that are to none of the peers of a node: with the status of all, if that is asked, or an error.

    Each peer is looked at once for all who ask: that costs, and in one turn a thousand may ask.
    """
    everyone: StatusIs | None = None
    running = ", ".join(places) or "none"
    for request in chain.from_iterable(map(singly, requests)):
        if isinstance(request.call, StatusCall) and not request.peer:
            everyone = everyone or StatusIs(tuple([place.seat.status() for place in places.values()]))
            answer(Reply(request.id, everyone))
        else:
            unknown = f"there is no peer named {request.peer} on this node; it has: {running}"
            answer(Reply(request.id, Failure("Unavailable", unknown)))


def deadline_of(timeout: float, now: float) -> float:
    """Give the deadline of a call that may take so many seconds, as its caller says."""
    return now + (timeout if timeout < TIMEOUT_MAX else TIMEOUT_MAX)  # min() would let what is no number through.


def carry_out(place: Place, request: Request, answer: Answer, now: float) -> None:
    """Carry out one request to a peer; see ``carry_out_all``."""
    seat, call = place.seat, request.call
    deadline = deadline_of(getattr(call, "timeout", place.settings.call_timeout), now)
    waiter = CallWaiter(request.id, answer, deadline)
    match call:
        case WriteCall() | WritesCall() | ReadCall():
            carry_out_all(place, [request], answer, now)
        case OpenSessionCall():
            waiter.encode = lambda _call, number: SessionIs(number)
            seat.write(encode_opening(OpenSession(max(0.0, call.session_timeout))), waiter)
        case WatchCall() | WatchStatusCall():
            watch(place, call, waiter, now)
        case LeaderCall():
            waiter.encode = lambda _call, address: LeaderIs(address)
            seat.run(FindLeader(waiter))
        case CancelCall():
            cancel(place, call, answer)
        case StatusCall() | IdentifyCall():
            waiter.succeed(identity(place) if isinstance(call, IdentifyCall) else StatusIs((seat.status(),)))
        case SnapshotCall():
            waiter.encode = lambda _call, offset: SnapshotAt(offset)
            seat.receive_snapshot(call, waiter)
        case BootstrapCall() | ChangeCall():
            configure(place, call, waiter)


def unsound(place: Place, error: Exception) -> Failure:
    """Give the answer to a command or query that goes no further, since the machine cannot decode it."""
    return failure_from_error(Unavailable(f"{place.seat.name} cannot take this call: {error}"))


def write_all(
    place: Place, requests: Sequence[tuple[Request, WriteCall | WritesCall]], answer: Answer, now: float
) -> None:
    """Write, in sessions or without: each command is answered by itself.

    Of one request the first command that is not sound is refused, and so are all behind it, which could not be applied
    without it.
    """
    check, settings, value = place.machine.writes.check, place.settings, place.value
    payloads: list[bytes] = []
    waiters: list[Waiter] = []
    for request, call in requests:
        number, session, sequence, deadline = request.id, call.session, call.sequence, deadline_of(call.timeout, now)
        commands = call.commands if isinstance(call, WritesCall) else (call.command,)
        try:
            for command in commands:
                check_size(command, settings)
                check(command)
                if session:
                    payloads.append(encode_write(session, sequence, call.settled, command))
                    waiters.append(CallWaiter(number, answer, deadline))
                else:
                    payloads.append(command)
                    waiters.append(CallWaiter(number, answer, deadline, value, command))
                number, sequence = number + 1, sequence + 1
        except (TypeError, ValueError) as error:
            failure = unsound(place, error)
            for refused in range(number, request.id + len(commands)):
                answer(Reply(refused, failure))
    place.seat.write_all(payloads, waiters)


def read_all(place: Place, requests: Sequence[tuple[Request, ReadCall]], answer: Answer, now: float) -> None:
    """Read, unless only a leader is to answer and this peer does not lead."""
    seat, reads, settings, value = place.seat, place.machine.reads, place.settings, place.value
    leads = seat.raft.state.leader == seat.raft.state.peer
    for request, call in requests:
        query = call.query
        try:
            check_size(query, settings)
            bound = reads.bound(reads.check(query))
        except (TypeError, ValueError) as error:
            answer(Reply(request.id, unsound(place, error)))
            continue
        waiter = CallWaiter(request.id, answer, deadline_of(call.timeout, now), value, query)
        if call.leader_only and not leads:
            waiter.fail(NotLeader(seat.addresses.redirect(seat.raft.state), seat.name))
        elif call.consistency == "linearizable":
            seat.read(bound, waiter)
        else:
            read_otherwise(place, call, bound, waiter)


def read_otherwise(place: Place, call: ReadCall, bound: Bound, waiter: CallWaiter) -> None:
    """Read by lease, at once if that may be, or what may be stale."""
    seat = place.seat
    if call.consistency == "stale":
        waiter.encode = place.stale_value
    elif seat.may_answer_now():
        try:
            waiter.succeed(seat.answer_now(bound))
        except QuorateError as error:
            waiter.fail(error)
        return
    seat.read(bound, waiter, call.consistency)


def watch(place: Place, call: WatchCall | WatchStatusCall, waiter: CallWaiter, now: float) -> None:
    """Send the events from a place on, or say where those begin that are yet to come; or tell how the peer stands."""
    prefixes = place.machine.events.prefixes
    if isinstance(call, WatchStatusCall):
        waiter.deadline = min(waiter.deadline, now + WATCH_SECONDS_MAX)
        place.seat.watch(StandingWatcher(waiter, call.mark, (waiter.answer, waiter.id)))
    elif not call.names or not all(name in prefixes for name in call.names):
        known = ", ".join(prefixes) or "no events"
        waiter.fail(Unavailable(f"{place.seat.name} cannot take this call: {place.machine.name} emits {known}"))
    elif call.place is None:
        waiter.encode = lambda _call, applied: Events((applied + 1, 0), ())
        place.seat.read(None, waiter)
    else:
        waiter.deadline = min(waiter.deadline, now + WATCH_SECONDS_MAX)
        wanted = tuple(prefixes[name] for name in dict.fromkeys(call.names))
        place.seat.watch(Watcher(waiter, wanted, call.place, (waiter.answer, waiter.id)))


def cancel(place: Place, call: CancelCall, answer: Answer) -> None:
    """Forget a call of the same connection that waits for events or for a change: nobody waits for its answer.

    None of the others who wait is looked at: in one turn a thousand calls may be taken back among many thousand.
    """
    place.seat.apply.recent.cancel((answer, call.request))
    place.seat.standing.cancel((answer, call.request))


def identity(place: Place) -> Identity:
    """Tell who a peer is."""
    state = place.seat.raft.state
    return Identity(place.id, place.machine.name, state.configuration, place.seat.addresses.leader(state))


def configure(place: Place, call: BootstrapCall | ChangeCall, waiter: CallWaiter) -> None:
    """Have the first configuration written, or the members changed, if others could be reached at their addresses."""
    waiter.encode = lambda _call, _reply: identity(place)
    errand: FormGroup | ChangeMembers
    if isinstance(call, BootstrapCall):
        members = call.configuration.members
        errand = FormGroup(waiter, call.configuration)
    else:
        members = call.members
        errand = ChangeMembers(waiter, call.current, members)
    if are_sound(members):
        place.seat.run(errand)
    else:
        waiter.fail(InvalidConfiguration(GARBAGE))


def are_sound(members: Members) -> bool:
    """Tell whether members from the network are such as this program would send."""
    return len(members) <= MEMBERS_MAX and all(
        is_reachable(member.address) and 0 < len(member.id) <= ID_LENGTH_MAX and abs(member.priority) <= PRIORITY_MAX
        for member in members
    )
