"""Serving: carrying out what clients and forming groups ask of a peer over the network.

What comes over the network is checked before it goes further. Knows calls and seats; knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from quorate.addresses import is_reachable
from quorate.calling import MachineType, command_name
from quorate.changing import PRIORITY_MAX
from quorate.core.configuration import Members
from quorate.errands import ChangeMembers, FindLeader, FormGroup
from quorate.errors import InvalidConfiguration, MachineError, NotLeader, QuorateError
from quorate.peer import Peer, check_size
from quorate.seat import Seat
from quorate.sessions import OpenSession, SessionWrite, encode_command
from quorate.settings import Settings
from quorate.transport import Answer
from quorate.transport.calls import (
    BootstrapCall,
    ChangeCall,
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
    WriteCall,
    failure_from_error,
)
from quorate.types import Address, PeerId, StaleRead

MEMBERS_MAX = 100
"""The most members that a configuration from the network may have."""

ID_LENGTH_MAX = 64
"""The longest id of a peer from the network; ours have 16 characters."""

GARBAGE = f"these cannot be the members of a group: more than {MEMBERS_MAX}, or with ids or addresses that are none"

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


class CallWaiter:
    """Someone at the other end of a connection who waits for a reply."""

    __slots__ = ("answer", "deadline", "encode", "id", "is_done")

    def __init__(self, request: Request, answer: Answer, deadline: float, encode: Callable[[object], Any]) -> None:
        """Answer the request, once, with what ``encode`` makes of a reply."""
        self.id: int = request.id
        self.answer: Answer = answer
        self.deadline: float = deadline
        self.encode: Callable[[object], Any] = encode
        self.is_done: bool = False

    def succeed(self, reply: object) -> None:
        """Answer with a reply, unless it is answered."""
        if self.is_done:
            return
        try:
            answer = self.encode(reply)
        except MachineError as error:
            self.fail(error)
        else:
            self.is_done = True
            self.answer(Reply(self.id, answer))

    def fail(self, error: QuorateError) -> None:
        """Answer with an error, unless it is answered."""
        if not self.is_done:
            self.is_done = True
            self.answer(Reply(self.id, failure_from_error(error)))


MakeWaiter = Callable[[float, Callable[[object], object]], CallWaiter]
"""Gives who waits for the reply to a request: for how many seconds, and what encodes the reply."""


def carry_out(place: Place, request: Request, answer: Answer, now: float) -> None:
    """Carry out a request to a peer, and answer it, now or when it is done.

    Args:
        place: the peer.
        request: what is asked; never trusted.
        answer: takes the one reply.
        now: seconds on the monotonic clock.
    """
    seat = place.seat

    def waiter(timeout: float, encode: Callable[[object], object]) -> CallWaiter:
        return CallWaiter(request, answer, now + min(max(timeout, 0.0), TIMEOUT_MAX), encode)

    match request.call:
        case WriteCall() | OpenSessionCall():
            write(place, request, request.call, answer, waiter)
        case ReadCall():
            read(place, request, request.call, answer, waiter)
        case LeaderCall(timeout=timeout):
            seat.run(FindLeader(waiter(timeout, lambda leader: LeaderIs(as_address(leader)))))
        case StatusCall():
            answer(Reply(request.id, StatusIs((seat.status(),))))
        case IdentifyCall():
            answer(Reply(request.id, identity(place)))
        case SnapshotCall():
            seat.receive_snapshot(request.call, waiter(place.settings.call_timeout, as_offset))
        case BootstrapCall() | ChangeCall():
            configure(place, request.call, waiter)


def is_sound(place: Place, request: Request, answer: Answer, encoded: bytes, check: Callable[[bytes], None]) -> bool:
    """Check a command or query from the network: it goes no further unless the machine can decode it."""
    try:
        check_size(encoded, place.settings)
        check(encoded)
    except (TypeError, ValueError) as error:
        answer(Reply(request.id, Failure("Unavailable", f"{request.peer} cannot take this call: {error}")))
        return False
    return True


def write(
    place: Place, request: Request, call: WriteCall | OpenSessionCall, answer: Answer, make_waiter: MakeWaiter
) -> None:
    """Open a session, or write, in a session or without one."""
    machine = place.machine
    encode: Callable[[object], object]
    if isinstance(call, OpenSessionCall):
        payload, encode = encode_command(OpenSession(max(0.0, call.session_timeout))), as_session
    elif not is_sound(place, request, answer, call.command, machine.check_write):
        return
    elif call.session == 0:
        payload, encode = call.command, partial(as_value, machine, command_name(call.command))
    else:
        in_session = SessionWrite(call.session, call.sequence, call.settled, call.command)
        payload, encode = encode_command(in_session), as_answered
    place.seat.write(payload, make_waiter(call.timeout, encode))


def read(place: Place, request: Request, call: ReadCall, answer: Answer, make_waiter: MakeWaiter) -> None:
    """Read, unless only a leader is to answer and this peer does not lead."""
    if not is_sound(place, request, answer, call.query, place.machine.check_read):
        return
    raft = place.seat.raft
    waiter = make_waiter(call.timeout, read_encoder(place.machine, call))
    if call.leader_only and raft.state.leader != raft.state.peer:
        waiter.fail(NotLeader(place.seat.addresses.redirect(raft.state), place.seat.name))
    else:
        place.seat.read(call.query, waiter, call.consistency)


def read_encoder(machine: MachineType, call: ReadCall) -> Callable[[object], object]:
    """Give what encodes the reply of that read."""
    return partial(as_stale_value if call.consistency == "stale" else as_value, machine, command_name(call.query))


def as_value(machine: MachineType, name: str, reply: object) -> Value:
    """Encode the reply of a write or read.

    Raises:
        MachineError: the reply cannot be encoded.
    """
    return Value(machine.encode_reply(name, reply))


def as_stale_value(machine: MachineType, name: str, reply: object) -> StaleValue:
    """Encode the reply of a stale read, with its index and age.

    Raises:
        MachineError: the reply cannot be encoded.
    """
    assert isinstance(reply, StaleRead), "a stale read is answered with its index and age"
    return StaleValue(machine.encode_reply(name, reply.value), reply.index, reply.age)


def identity(place: Place) -> Identity:
    """Tell who a peer is."""
    state = place.seat.raft.state
    return Identity(place.id, place.machine.name, state.configuration, place.seat.addresses.leader(state))


def configure(place: Place, call: BootstrapCall | ChangeCall, waiter: MakeWaiter) -> None:
    """Have the first configuration written, or the members changed, if others could be reached at their addresses."""
    errand: FormGroup | ChangeMembers
    if isinstance(call, BootstrapCall):
        members = call.configuration.members
        errand = FormGroup(waiter(place.settings.call_timeout, lambda _: identity(place)), call.configuration)
    else:
        members = call.members
        errand = ChangeMembers(waiter(call.timeout, lambda _: identity(place)), call.current, members)
    if are_sound(members):
        place.seat.run(errand)
    else:
        errand.waiter.fail(InvalidConfiguration(GARBAGE))


def are_sound(members: Members) -> bool:
    """Tell whether members from the network are such as this program would send."""
    return len(members) <= MEMBERS_MAX and all(
        is_reachable(member.address) and 0 < len(member.id) <= ID_LENGTH_MAX and abs(member.priority) <= PRIORITY_MAX
        for member in members
    )


def as_session(value: object) -> SessionIs:
    """Give the answer to a session that was opened."""
    assert isinstance(value, int), "a session is known by the index of what opened it"
    return SessionIs(value)


def as_answered(value: object) -> Value | Failure:
    """Give the answer to a write in a session: what is kept for it, already encoded."""
    assert isinstance(value, (Value, Failure)), "a write in a session leads to the answer that is kept of it"
    return value


def as_offset(value: object) -> SnapshotAt:
    """Give the answer to a piece of a snapshot that was stored."""
    assert isinstance(value, int), "a piece of a snapshot is answered by where to go on"
    return SnapshotAt(value)


def as_address(value: object) -> Address:
    """Give the leader's address that an errand was resolved with."""
    assert isinstance(value, Address), "an errand that waits for a leader is resolved with its address"
    return value
