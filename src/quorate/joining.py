"""Joining: a peer that starts asks a group to make it a member, or to note that it is reached elsewhere now.

Both are edits like any other change of members, and may be asked for as often as it takes. Knows its own log's
configuration and some addresses; the rest is learned from the leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from quorate.changing import Edit, Group, Membership, check_machine, moved, with_member
from quorate.core import Member
from quorate.core.configuration import Members
from quorate.errands import BecomeMember
from quorate.errors import ChangeInProgress, InvalidConfiguration, QuorateError, Stopped, Unavailable
from quorate.types import Address, MemberKind
from quorate.waiters import FutureWaiter

logger: logging.Logger = logging.getLogger("quorate.node")


def parse_seeds(own: str, join: str | Address | Sequence[str | Address]) -> tuple[Address, ...]:
    """Read the addresses of members of the group to be joined.

    Args:
        own: the name of the peer that joins: the same list can be given to all.
        join: one address, or some.

    Raises:
        ValueError: one cannot be read, or there is none but this peer's.
    """
    texts = [join] if isinstance(join, str | Address) else list(join)
    seeds = tuple(seed for seed in map(Address.parse, texts) if seed.name != own)
    if not seeds:
        raise ValueError("join needs the address of a member of the group, such as peer1@10.0.0.1:7001")
    return seeds


async def join_group(membership: Membership, seeds: Sequence[Address], kind: MemberKind) -> None:
    """Become a member of the group that the seeds belong to; done at once by one that its own log names as such.

    Args:
        membership: the peer that joins.
        seeds: where some of the members may be.
        kind: what it is to be.

    Raises:
        InvalidConfiguration: the group cannot take it: it belongs to another, its name is in use, or its machine is
            another.
        Unavailable: no leader was found in time, or it did not catch up.
        OutcomeUnknown: the leader was lost at the end of the time; it may have become a member.
        Stopped: the peer was stopped meanwhile.
    """
    current, own = membership.configuration, own_member(membership)
    if current is not None and current.is_settled and own is not None:
        return
    loop = asyncio.get_running_loop()
    timeout = membership.settings.change_timeout
    deadline = loop.time() + timeout
    try:
        await membership.change_from(lambda: seeds, joining(membership, kind), timeout, is_patient=True)
    except ChangeInProgress as error:
        raise Unavailable(f"there was no time in {timeout:g} s to take {membership.own} in: {error}") from error
    waiter = FutureWaiter(loop.create_future(), deadline)
    membership.seat.run(BecomeMember(waiter))
    await waiter.future


def joining(membership: Membership, kind: MemberKind) -> Edit:
    """Want the peer itself as a member, at the address that it has now."""

    async def edit(group: Group) -> Members:
        own, current = membership.own, membership.configuration
        if current is not None and current.group != group.configuration.group:
            raise InvalidConfiguration(
                f"{own.name} belongs to group {current.group}, and {group.leader} leads group"
                f" {group.configuration.group}: name a member of its own group, or, if its data is not needed, give it"
                " an empty data directory"
            )
        check_machine(own.name, membership.machine, group)
        before = member_of(group, membership)
        priority = before.priority if before is not None else 0
        return with_member(group.configuration.goal, Member(membership.id, own, kind, priority))

    return edit


async def keep_address(membership: Membership) -> None:
    """See to it that the group has the address that this peer has now; tries for as long as it takes."""

    async def edit(group: Group) -> Members:
        before = member_of(group, membership)
        if before is None:
            raise InvalidConfiguration(f"{membership.own.name} is no member any longer")
        return with_member(group.configuration.goal, moved(before, membership.own))

    while (own := own_member(membership)) is not None and own.address != membership.own:
        logger.info("%s was at %s -> ask its group to look for it at %s", own.address.name, own.address, membership.own)
        timeout = membership.settings.change_timeout
        try:
            await membership.change_from(membership.members_first_own, edit, timeout, is_patient=True)
        except Stopped:
            return
        except InvalidConfiguration as error:
            logger.warning("the group keeps the old address of %s: %s", membership.own, error)
            return
        except QuorateError as error:
            logger.warning("the group does not know yet that %s is there: %s -> try again", membership.own, error)
        else:
            return


def own_member(membership: Membership) -> Member | None:
    """Give this peer as its own log has it; None when that does not name it."""
    current = membership.configuration
    return current.member(membership.id) if current is not None else None


def member_of(group: Group, membership: Membership) -> Member | None:
    """Give this peer as its group wants it; None when it is no member."""
    return next((member for member in group.configuration.goal if member.id == membership.id), None)
