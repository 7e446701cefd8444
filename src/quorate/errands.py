"""Errands: what is asked of a peer beside writes and reads, and when each is done.

Knows the core and who waits. Does not know inboxes, disks or sockets: its seat calls when something may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quorate.core import Configuration, Raft
from quorate.errors import ConfigurationError, InvalidConfiguration, NotLeader, Unavailable
from quorate.types import Address, PeerId
from quorate.waiters import Waiter


class FormGroup(msgspec.Struct):
    """Write the first configuration; done when it is durable here.

    Attributes:
        waiter: who waits; resolved with None.
        configuration: what to write.
    """

    waiter: Waiter
    configuration: Configuration


class FindLeader(msgspec.Struct):
    """Wait for a leader.

    Attributes:
        waiter: who waits; resolved with the leader's address.
        other_than: a leader that does not count.
    """

    waiter: Waiter
    other_than: Address | None = None


class HandOver(msgspec.Struct):
    """Hand over leadership (thesis 3.10); done when another peer leads.

    Attributes:
        waiter: who waits; resolved with the new leader's address.
        to: the name of the peer that is to lead; None for the one that is most caught up.
    """

    waiter: Waiter
    to: str | None = None


Errand = FormGroup | FindLeader | HandOver
"""Everything that can be asked beside writes and reads."""


def start(errand: Errand, raft: Raft, name: str, now: float) -> bool:
    """Begin an errand of the peer with that name.

    Returns:
        False when it is over already: its waiter has been told why it cannot be.
    """
    try:
        match errand:
            case FormGroup(configuration=configuration):
                raft.change(configuration, now)
            case HandOver(to=to):
                raft.transfer(None if to is None else member_id(raft, to), now)
            case FindLeader():
                pass
    except NotLeader as error:
        errand.waiter.fail(NotLeader(error.redirect, name))
        return False
    except ConfigurationError as error:
        errand.waiter.fail(error)
        return False
    return True


def is_over(errand: FindLeader | HandOver, raft: Raft) -> bool:
    """Resolve an errand that waits for a leader, if it is done or cannot be any longer."""
    leader = raft.leader_address()
    match errand:
        case FindLeader(other_than=other_than) if leader is not None and leader != other_than:
            errand.waiter.succeed(leader)
        case HandOver() if leader is not None and raft.state.leader != raft.state.peer:
            errand.waiter.succeed(leader)
        case HandOver() if raft.is_leading_undisturbed():
            errand.waiter.fail(
                Unavailable("the other peer did not take over within an election timeout; this one leads on")
            )
        case _:
            return False
    return True


def expire(errands: Sequence[FindLeader | HandOver], raft: Raft, name: str, now: float) -> None:
    """Give up on those whose deadline has passed."""
    why = raft.status().why or "the leader that counts was not found"
    for errand in errands:
        if errand.waiter.deadline <= now:
            errand.waiter.fail(Unavailable(f"{name} knows no leader: {why}"))


def member_id(raft: Raft, name: str) -> PeerId:
    """Give the id of the member with that name.

    Raises:
        InvalidConfiguration: there is none.
    """
    configuration = raft.state.configuration
    for member in configuration.voters if configuration else ():
        if member.address.name == name:
            return member.id
    raise InvalidConfiguration(f"{name} is no member of the group")
