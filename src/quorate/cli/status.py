"""``quorate status``: who leads a group, and how far its members are; or in a sentence why nobody leads.

Asks the peers that were named, then the other members of the groups it found.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence

import msgspec

from quorate import TLS, Address, QuorateError, Settings, Status
from quorate.cli.opening import tls_from
from quorate.cli.output import Output
from quorate.transport.calls import Failure, Request, StatusCall, StatusIs, error_from_failure
from quorate.transport.local import Target
from quorate.transport.tcp import TCPTransport
from quorate.types import PeerId

TIMEOUT = 2.0
"""How long each peer has to answer, seconds."""

COLUMNS = ("NAME", "KIND", "ROLE", "TERM", "LEADER", "COMMIT", "APPLIED", "LAST", "ADDRESS")
NUMBERS = ("TERM", "COMMIT", "APPLIED", "LAST")


class Found(msgspec.Struct):
    """One peer that answered.

    Attributes:
        address: where it was reached.
        status: what it says.
    """

    address: Target
    status: Status


class Group(msgspec.Struct):
    """The peers of one group, as far as they were reached.

    Attributes:
        id: the group's id; empty for a peer that belongs to none.
        found: those that answered; also one that was a member once, and says that it belongs to the group.
        unreachable: the reason for each member that did not.
    """

    id: str
    found: list[Found]
    unreachable: dict[Target, str]

    @property
    def latest(self) -> Status:
        """What the peer that is in the highest term says; one that is no member any longer counts for nothing else."""
        return max(
            (found.status for found in self.found),
            key=lambda status: (is_member(status, status), status.term, status.role == "leader"),
        )

    @property
    def leader(self) -> Status | None:
        """The leader that answered; None when there is none, or it was not reached."""
        return self.latest if self.latest.role == "leader" else None


def is_member(status: Status, latest: Status) -> bool:
    """Tell whether a peer is among the members that ``latest`` knows: by its id, since a name may be another's now."""
    return any(member.id == status.id for member in latest.members)


def run_status(options: argparse.Namespace) -> int:
    """Print the status of groups; give 0 when each has a leader that answered, else 1."""
    groups, unreachable = asyncio.run(survey(options.addresses, tls_from(options)))
    if options.json:
        Output(plain=True).line(json_text(groups, unreachable))
    else:
        show(Output(), groups, unreachable)
    return 0 if groups and all(group.leader for group in groups) else 1


async def survey(addresses: Sequence[Target], tls: TLS | None = None) -> tuple[list[Group], dict[Target, str]]:
    """Ask peers for their status, and then the other members of their groups.

    Args:
        addresses: whom to ask first; one without a name stands for all peers at that place.
        tls: the certificates, if the nodes have them.

    Returns:
        The groups found, and the reason for each address that was not reached and is no member of any of them.
    """
    transport = TCPTransport(None, settings=Settings(call_timeout=TIMEOUT), tls=tls, random=random.random)
    found: dict[PeerId, Found] = {}
    unreachable: dict[Target, str] = {}
    asked: dict[Target, None] = {}
    waiting: list[Target] = list(dict.fromkeys(addresses))
    try:
        while waiting:
            asked.update(dict.fromkeys(waiting))
            answers = await asyncio.gather(*(ask(transport, address) for address in waiting))
            for address, answer in zip(waiting, answers, strict=True):
                if isinstance(answer, str):
                    unreachable[address] = answer
                    continue
                for status in answer:
                    reached_at = msgspec.structs.replace(address, name=status.name)
                    found.setdefault(status.id, Found(reached_at, status))
            waiting = [member for member in members_of(found) if member not in asked]
    finally:
        await transport.stop()
    return grouped(list(found.values()), unreachable)


async def ask(transport: TCPTransport, address: Target) -> tuple[Status, ...] | str:
    """Ask one peer, or all at a place; give their status, or why there is none."""
    try:
        async with asyncio.timeout(TIMEOUT):
            channel = await transport.connect(address.node)
            reply = await channel.call(Request(0, address.name, StatusCall()))
    except TimeoutError:
        return f"{address.node} did not answer within {TIMEOUT:g} s"
    except (QuorateError, ConnectionError) as error:
        return str(error)
    match reply.answer:
        case StatusIs(peers=peers) if peers:
            return peers
        case StatusIs():
            return f"{address.node} is a node without peers"
        case Failure() as failure:
            return str(error_from_failure(failure))
        case other:
            return f"{address.node} answered with {type(other).__name__}, which is no status"


def members_of(found: dict[PeerId, Found]) -> list[Target]:
    """Give the members of all groups found that have not answered yet."""
    statuses = [peer.status for peer in found.values()]
    members: dict[Target, None] = {
        member.address: None for status in statuses for member in status.members if member.id not in found
    }
    return list(members)


def grouped(found: list[Found], unreachable: dict[Target, str]) -> tuple[list[Group], dict[Target, str]]:
    """Put those who answered, and those who did not, under their groups.

    Returns:
        The groups, and the unreachable addresses that belong to none of them.
    """
    groups: dict[str, Group] = {}
    for peer in sorted(found, key=lambda peer: (peer.status.group, peer.status.name)):
        status = peer.status
        group = groups.setdefault(status.group or status.id, Group(status.group, [], {}))
        group.found.append(peer)
    left = dict(unreachable)
    for group in groups.values():
        answered = {peer.status.id for peer in group.found}
        members = {member.id: member.address for member in group.latest.members}
        known = {member.id: member.address for peer in group.found for member in peer.status.members} | members
        for member_id, member in known.items():
            if member_id in answered:
                continue
            if member in unreachable:
                group.unreachable[member] = unreachable[member]
                left.pop(member, None)
                left.pop(Address("", member.host, member.port), None)
            elif member_id in members:
                group.unreachable[member] = f"another peer answers as {member}"
    return list(groups.values()), left


def show(output: Output, groups: list[Group], unreachable: dict[Target, str]) -> None:
    """Print a table for each group, and the sentence that sums it up."""
    for group in groups:
        output.table(COLUMNS, table_rows(group), right=NUMBERS)
        for member, reason in group.unreachable.items():
            output.line(f"{member.name} was not reached: {reason}", "yellow")
        for peer in group.found:
            if peer.status.why and group.id and not is_member(peer.status, group.latest):
                output.line(f"{peer.status.name} at {peer.address.node} is no member: {peer.status.why}", "yellow")
            elif peer.status.why and (group.leader or peer.status.leader):
                output.line(f"{peer.status.name} at {peer.address.node} is not well: {peer.status.why}", "yellow")
        output.line(summary(group), "green" if group.leader else "red")
        for line in changes(group.latest):
            output.line(line, "yellow")
        output.line()
    for reason in unreachable.values():
        output.line(f"Not reached: {reason}", "red")
    if not groups:
        output.line("Nobody was reached, so nothing is known of a leader.", "red")


def table_rows(group: Group) -> list[tuple[str, ...]]:
    """Give the rows of a group's table: who answered, then who did not."""
    rows = []
    kinds = {member.id: member.kind for member in group.latest.members}
    silent: dict[Target, str] = {member.address: member.kind for member in group.latest.members}
    for peer in group.found:
        status = peer.status
        leader = status.leader.name if status.leader else "-"
        numbers = (status.commit_index, status.last_applied, status.last_index)
        texts = (status.role, str(status.term), leader, *map(str, numbers), peer.address.node)
        rows.append((status.name, kinds.get(status.id, "-"), *texts))
    absent = ("not reached", "-", "-", "-", "-", "-")
    return rows + [(member.name, silent.get(member, "-"), *absent, member.node) for member in group.unreachable]


def changes(status: Status) -> list[str]:
    """Say what a change of the members that is under way makes of each, and how far it has come."""
    lines = []
    for member in status.members:
        name = member.address.name
        if member.becomes is None:
            lines.append(f"{name} is about to leave.")
        elif member.becomes != member.kind:
            held = (
                "" if member.match_index is None else f": it holds {member.match_index} of {status.last_index} entries"
            )
            how = ", and receives a snapshot" if member.is_installing else held
            lines.append(f"{name} is a {member.kind}, and becomes a {member.becomes}{how}.")
    return lines


def summary(group: Group) -> str:
    """Say in a sentence who leads a group, or why nobody does."""
    latest = group.latest
    members = sum(is_member(peer.status, latest) for peer in group.found)
    reached = f"{members} of its {len(latest.members)} members answered"
    if not group.id:
        return f"{latest.name} belongs to no group: {latest.why}."
    if group.leader:
        return f"{latest.name} leads this group in term {latest.term}; {reached}."
    if latest.leader:
        return f"{latest.name} follows {latest.leader.name} in term {latest.term}, which did not answer; {reached}."
    return f"This group has no leader: {latest.name} says that {latest.why}; {reached}."


def json_text(groups: list[Group], unreachable: dict[Target, str]) -> str:
    """Give the same as JSON."""
    content = {
        "groups": [
            {
                "group": group.id or None,
                "leader": str(group.leader.leader) if group.leader else None,
                "summary": summary(group),
                "peers": [peer_fields(peer) for peer in group.found],
                "unreachable": reasons(group.unreachable),
            }
            for group in groups
        ],
        "unreachable": reasons(unreachable),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def peer_fields(peer: Found) -> dict[str, object]:
    """Give the fields of a status, its addresses as people write them."""
    status = peer.status
    fields: dict[str, object] = {"address": str(peer.address)}
    for field in status.__struct_fields__:
        value = getattr(status, field)
        fields[field] = str(value) if isinstance(value, Address) else value
    fields["configuration"] = [str(member) for member in status.configuration]
    fields["members"] = [
        {name: getattr(member, name) for name in member.__struct_fields__} | {"address": str(member.address)}
        for member in status.members
    ]
    return fields


def reasons(unreachable: dict[Target, str]) -> list[dict[str, str]]:
    """Give who was not reached, and why, as JSON has it."""
    return [
        {"address": str(address) if address.name else address.node, "reason": reason}
        for address, reason in unreachable.items()
    ]
