"""Serving: carrying out what clients and forming groups ask of a peer over the network.

What comes over the network is checked before it goes further. Knows calls and seats; knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from quorate.calling import MachineType, command_name
from quorate.core import Configuration
from quorate.errands import FindLeader, FormGroup
from quorate.errors import InvalidConfiguration, MachineError, QuorateError
from quorate.peer import Peer, check_size
from quorate.seat import Seat
from quorate.settings import Settings
from quorate.transport import Answer
from quorate.transport.calls import (
    BootstrapCall,
    Failure,
    IdentifyCall,
    Identity,
    LeaderCall,
    LeaderIs,
    ReadCall,
    Reply,
    Request,
    StatusCall,
    StatusIs,
    Value,
    WriteCall,
    failure_from_error,
)
from quorate.types import Address, PeerId

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


def carry_out(place: Place, request: Request, answer: Answer, now: float) -> None:
    """Carry out a request to a peer, and answer it, now or when it is done.

    Args:
        place: the peer.
        request: what is asked; never trusted.
        answer: takes the one reply.
        now: seconds on the monotonic clock.
    """
    seat, machine = place.seat, place.machine

    def waiter(timeout: float, encode: Callable[[object], object]) -> CallWaiter:
        return CallWaiter(request, answer, now + min(max(timeout, 0.0), TIMEOUT_MAX), encode)

    match request.call:
        case WriteCall(command=command, timeout=timeout):
            if is_sound(place, request, answer, command, machine.check_write):
                name = command_name(command)
                seat.write(command, waiter(timeout, lambda reply: Value(machine.encode_reply(name, reply))))
        case ReadCall(query=query, timeout=timeout):
            if is_sound(place, request, answer, query, machine.check_read):
                name = command_name(query)
                seat.read(query, waiter(timeout, lambda reply: Value(machine.encode_reply(name, reply))))
        case LeaderCall(timeout=timeout):
            seat.run(FindLeader(waiter(timeout, lambda leader: LeaderIs(as_address(leader)))))
        case StatusCall():
            answer(Reply(request.id, StatusIs((seat.status(),))))
        case IdentifyCall():
            answer(Reply(request.id, identity(place)))
        case BootstrapCall(configuration=configuration):
            place_configuration(place, configuration, waiter(place.settings.call_timeout, lambda _: identity(place)))


def is_sound(place: Place, request: Request, answer: Answer, encoded: bytes, check: Callable[[bytes], None]) -> bool:
    """Check a command or query from the network: it goes no further unless the machine can decode it."""
    try:
        check_size(encoded, place.settings)
        check(encoded)
    except (TypeError, ValueError) as error:
        answer(Reply(request.id, Failure("Unavailable", f"{request.peer} cannot take this call: {error}")))
        return False
    return True


def identity(place: Place) -> Identity:
    """Tell who a peer is."""
    return Identity(place.id, place.machine.name, place.seat.raft.state.configuration)


def place_configuration(place: Place, configuration: Configuration, waiter: CallWaiter) -> None:
    """Have the first configuration written, if its addresses are such that others could be reached there."""
    bad = [repr(member.address) for member in configuration.voters if not is_reachable(member.address)]
    if bad:
        waiter.fail(InvalidConfiguration(f"{', '.join(bad)} cannot be the address of a peer"))
    else:
        place.seat.run(FormGroup(waiter, configuration))


def is_reachable(address: Address) -> bool:
    """Tell whether an address from the network is one that could be typed."""
    try:
        return address.port > 0 and Address.parse(str(address)) == address
    except ValueError:
        return False


def as_address(value: object) -> Address:
    """Give the leader's address that an errand was resolved with."""
    assert isinstance(value, Address), "an errand that waits for a leader is resolved with its address"
    return value
