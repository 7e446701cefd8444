"""Errands: what is asked of a peer beside writes and reads, and when each is done.

Knows the core and who waits. Does not know inboxes, disks or sockets: its seat calls when something may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quorate.addresses import Addresses
from quorate.core import Configuration, Raft
from quorate.core.configuration import Members, configuration_text
from quorate.core.state import Leader
from quorate.errors import (
    ChangeInProgress,
    ConfigurationError,
    InvalidConfiguration,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    Stopped,
    Unavailable,
)
from quorate.types import Address, PeerId, Term
from quorate.waiters import Waiter

ERRANDS_MAX = 10_000
"""With so many who wait at a peer nobody else waits there for a leader: each of them is looked at in every turn."""


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
    """Hand over leadership (thesis 3.10); done when another peer leads, or at once where the one named leads.

    Attributes:
        waiter: who waits; resolved with the new leader's address.
        to: the name of the peer that is to lead; None for the one that is most caught up.
    """

    waiter: Waiter
    to: str | None = None


class ChangeMembers(msgspec.Struct):
    """Change the members (thesis 4); done when the configuration that has those wanted is committed and settled.

    Attributes:
        waiter: who waits; resolved with None.
        current: the members that the caller knows of: see ``ChangeCall``.
        members: those wanted, in the order of their names.
        term: the term in which this peer led when the change began.
    """

    waiter: Waiter
    current: Members
    members: Members
    term: Term = Term(0)


class BecomeMember(msgspec.Struct):
    """Wait until this peer's own log names it as a member, and no change is under way.

    Attributes:
        waiter: who waits; resolved with None.
    """

    waiter: Waiter


Waiting = FindLeader | HandOver | ChangeMembers | BecomeMember
"""What is done when the core has come to something."""

Errand = FormGroup | Waiting
"""Everything that can be asked beside writes and reads."""


def is_one_too_many(errand: Errand, waiting: int) -> bool:
    """Refuse to wait for a leader where so many wait already: whoever may call at all may ask for that."""
    if waiting < ERRANDS_MAX or not isinstance(errand, FindLeader):
        return False
    errand.waiter.fail(Overloaded(f"{ERRANDS_MAX} wait at this peer already"))
    return True


def start(errand: Errand, raft: Raft, addresses: Addresses, name: str, now: float) -> bool:
    """Begin an errand of the peer with that name, and resolve it if there is nothing to wait for.

    Args:
        errand: what is asked.
        raft: the core.
        addresses: where the leader is reached.
        name: the peer's name.
        now: seconds on the monotonic clock.

    Returns:
        False when it is over already: its waiter has been told.
    """
    try:
        match errand:
            case FormGroup(configuration=configuration):
                raft.form(configuration, now)
            case HandOver(to=to):
                raft.transfer(None if to is None else member_id(raft, to), now)
            case ChangeMembers():
                start_change(errand, raft, now)
            case FindLeader() | BecomeMember():
                pass
    except NotLeader:
        errand.waiter.fail(NotLeader(addresses.redirect(raft.state), name))
        return False
    except ConfigurationError as error:
        errand.waiter.fail(error)
        return False
    return isinstance(errand, FormGroup) or not is_over(errand, raft, addresses)


def start_change(errand: ChangeMembers, raft: Raft, now: float) -> None:
    """Begin to change the members; one that is on its way to those wanted is only waited for.

    Raises:
        NotLeader: this peer does not lead; or it is too new to know what is committed, or hands over just now: then
            nobody is named, and the caller tries again.
        InvalidConfiguration: they cannot be the members of this group.
        ChangeInProgress: another change is under way, or was made since the caller looked.
    """
    state = raft.state
    configuration = state.configuration
    if configuration is None or not isinstance(state.role, Leader):
        raise NotLeader
    if state.role.transfer is not None or state.commit_index < state.role.first_index:
        raise NotLeader
    errand.term = state.term
    if configuration.goal == errand.members:
        return
    if configuration.goal != errand.current:
        raise ChangeInProgress(f"the members have changed meanwhile: {configuration_text(configuration)}")
    raft.change(errand.members, now)


def ongoing(errands: Sequence[Waiting], raft: Raft, addresses: Addresses) -> list[Waiting]:
    """Resolve those of some errands that are over, and give the others."""
    return [errand for errand in errands if not is_over(errand, raft, addresses)]


def is_over(errand: Waiting, raft: Raft, addresses: Addresses) -> bool:
    """Resolve an errand, if it is done or cannot be any longer."""
    leader = addresses.leader(raft.state)
    match errand:
        case ChangeMembers():
            return is_changed(errand, raft)
        case BecomeMember():
            configuration = raft.state.configuration
            if configuration is None or not configuration.is_settled or raft.state.me is None:
                return False
            errand.waiter.succeed(None)
        case FindLeader(other_than=other_than) if leader is not None and leader != other_than:
            errand.waiter.succeed(leader)
        case HandOver(to=to) if leader is not None and (raft.state.leader != raft.state.peer or leader.name == to):
            errand.waiter.succeed(leader)
        case HandOver() if raft.is_leading_undisturbed():
            errand.waiter.fail(
                Unavailable("the other peer did not take over within an election timeout; this one leads on")
            )
        case _:
            return False
    return True


def is_changed(errand: ChangeMembers, raft: Raft) -> bool:
    """Resolve a change of the members, if it is done or this peer no longer knows what becomes of it."""
    state = raft.state
    index, configuration = state.configurations[-1]
    is_committed = configuration.is_settled and index <= state.commit_index
    # First of all: a leader that removes itself leads no longer once this is committed.
    if is_committed and configuration.members == errand.members:
        errand.waiter.succeed(None)
    elif not isinstance(state.role, Leader) or state.term != errand.term:
        errand.waiter.fail(
            OutcomeUnknown("leadership was lost; the change goes on under the next leader: status() tells how it ended")
        )
    elif is_committed and state.role.change_failure is not None:
        errand.waiter.fail(Unavailable(f"{state.role.change_failure}; the members are as they were"))
    else:
        return False
    return True


def expire(errands: Sequence[Waiting], raft: Raft, name: str, now: float) -> None:
    """Give up on those whose deadline has passed."""
    late = [errand for errand in errands if errand.waiter.deadline <= now]
    why = (raft.status().why if late else None) or "the leader that counts was not found"
    for errand in late:
        match errand:
            case ChangeMembers():
                text = f"the change is under way: {configuration_text(raft.state.configuration)}"
                errand.waiter.fail(OutcomeUnknown(f"{text}; it goes on, and status() tells how it ended"))
            case BecomeMember():
                errand.waiter.fail(Unavailable(f"the leader did not tell {name} in time that it is a member"))
            case FindLeader() | HandOver():
                errand.waiter.fail(Unavailable(f"{name} knows no leader: {why}"))


def stopped(errand: Errand, why: str) -> QuorateError:
    """Give the error for an errand of a peer that stops; ``why`` says why it does."""
    if isinstance(errand, ChangeMembers) and errand.term:
        return OutcomeUnknown(f"{why}; the change goes on under the next leader: status() tells how it ended")
    return Stopped(why)


def member_id(raft: Raft, name: str) -> PeerId:
    """Give the id of the member with that name.

    Raises:
        InvalidConfiguration: there is none.
    """
    configuration = raft.state.configuration
    member = configuration.named(name) if configuration else None
    if member:
        return member.id
    raise InvalidConfiguration(f"{name} is no member of the group")
