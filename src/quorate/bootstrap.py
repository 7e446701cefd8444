"""Forming a group: every named peer is asked who it is, then one identical first configuration is written on each.

Knows calls and configurations. Does not know how a peer is reached: that is an argument.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from quorate.asking import Ask, as_identity
from quorate.core import Configuration, Member
from quorate.core.configuration import Members
from quorate.errors import InvalidConfiguration, QuorateError, Unavailable
from quorate.transport.calls import BootstrapCall, IdentifyCall, Identity
from quorate.types import Address


def parse_addresses(addresses: Sequence[str | Address]) -> tuple[Address, ...]:
    """Read the addresses of the members of a group.

    Args:
        addresses: all its members.

    Returns:
        The addresses in the order of their names.

    Raises:
        InvalidConfiguration: one cannot be read, or two have one name.
    """
    try:
        members = sorted(Address.parse(address) for address in addresses)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from error
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidConfiguration(f"{', '.join(twice)} is named more than once; each member needs a name of its own")
    nowhere = [str(member) for member in members if member.port == 0]
    if nowhere:
        raise InvalidConfiguration(f"{', '.join(nowhere)} has port 0, where nobody can be reached")
    return tuple(members)


async def form_group(
    own: Address,
    current: Configuration | None,
    members: tuple[Address, ...],
    ask: Ask,
    deadline: float,
    new_group: Callable[[], str],
) -> None:
    """Write the first configuration on every member, once; harmless when repeated with the same members.

    The configuration is written in the order of the names. So of two who try at once only one gets past the first
    member, and the other finds what was written there.

    Args:
        own: the peer that was asked to form the group.
        current: its configuration, if it has this one already.
        members: all members, in the order of their names.
        ask: asks one peer.
        deadline: when each must have answered, by the event loop's time.
        new_group: makes a random id for the group.

    Raises:
        InvalidConfiguration: this peer is not among the members, one of them belongs to another group, or its machine
            is another; nothing was changed.
        Unavailable: a member did not answer; the message says which, and whether to repeat the call.
    """
    if current is None and own not in members:
        named = ", ".join(map(str, members)) or "nobody"
        raise InvalidConfiguration(
            f"{own} is not among the members named ({named}); ask one of them, or name this peer by the address it has"
        )
    answers = await asyncio.gather(*(ask_or_error(ask, member, IdentifyCall(), deadline) for member in members))
    found = {member: answer for member, answer in zip(members, answers, strict=True) if isinstance(answer, Identity)}
    missing = {m: a for m, a in zip(members, answers, strict=True) if isinstance(a, QuorateError)}
    check_machines(own, found)
    configuration = agreed_configuration(members, found)
    if configuration is None:
        if missing:
            raise Unavailable(f"every member must answer to form the group; {reasons_text(missing)}")
        voters = tuple(Member(found[member].id, member) for member in members)
        configuration = Configuration(new_group(), voters)
    written = [member for member in members if member in found and found[member].configuration is not None]
    for member in addresses_of(configuration.by_formation):
        if member in found and member not in written:
            answer = await ask_or_error(ask, member, BootstrapCall(configuration), deadline)
            if isinstance(answer, InvalidConfiguration):
                raise answer
            if isinstance(answer, QuorateError):
                missing[member] = answer
            else:
                written.append(member)
        if missing and not written:
            break
    if len(written) <= len(members) // 2:
        names = ", ".join(member.name for member in written) or "none"
        raise Unavailable(
            f"the configuration is written on {names} so far; {reasons_text(missing)}; repeat the call when they answer"
        )


async def ask_or_error(
    ask: Ask, member: Address, call: IdentifyCall | BootstrapCall, deadline: float
) -> Identity | QuorateError:
    """Ask one peer, and give what it says or what went wrong."""
    try:
        return as_identity(await ask(member, call, deadline))
    except QuorateError as error:
        return error


def agreed_configuration(members: tuple[Address, ...], found: dict[Address, Identity]) -> Configuration | None:
    """Give the configuration that is already written on some of the members; None when all are empty.

    Raises:
        InvalidConfiguration: one belongs to another group, or is not the peer that the configuration names.
    """
    written = {member: identity.configuration for member, identity in found.items() if identity.configuration}
    configuration = next(iter(written.values()), None)
    if configuration is None:
        return None
    for member, other in written.items():
        if other != configuration or addresses_of(other.members) != members:
            named = ", ".join(map(str, addresses_of(other.members)))
            raise InvalidConfiguration(
                f"{member.name} already belongs to a group of {named} (group {other.group}); if its data is not needed,"
                " give it an empty data directory"
            )
    for member, identity in found.items():
        if configuration.member(identity.id) is None:
            raise InvalidConfiguration(
                f"{member} is not the peer that belongs to this group: its data directory is new, or another's. "
                f"Start it with the data directory it had; or, if that is lost, call replace_peer for it"
            )
    return configuration


def check_machines(own: Address, found: dict[Address, Identity]) -> None:
    """Check that all members run the same machine, as far as its name tells.

    Raises:
        InvalidConfiguration: one runs another.
    """
    ours = found[own].machine if own in found else None
    for member, identity in found.items():
        if ours is not None and identity.machine != ours:
            raise InvalidConfiguration(f"{member.name} runs {identity.machine}, and {own.name} runs {ours}")


def addresses_of(members: Members) -> tuple[Address, ...]:
    """Give the addresses of members, in their order."""
    return tuple(member.address for member in members)


def reasons_text(missing: dict[Address, QuorateError]) -> str:
    """Say what each of the members that did not answer said."""
    return "; ".join(f"{member}: {error}" for member, error in missing.items())
