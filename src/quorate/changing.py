"""Changing the members of a group: what is wanted is worked out here, and carried to the leader, whoever that is.

One path for every change: read the members from the leader, edit them, and ask it to go from these to those. So of two
who change at once the second reads anew, and undoes nothing. Knows calls and configurations; how a peer is reached is
an argument, and what a change goes through is the core's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import get_args

import msgspec

from quorate.asking import Ask, identify
from quorate.bootstrap import addresses_of, form_group, parse_addresses
from quorate.core import Configuration, Member
from quorate.core.configuration import Members, configuration_text
from quorate.errors import (
    ChangeInProgress,
    InvalidConfiguration,
    NotLeader,
    OutcomeUnknown,
    QuorateError,
    Stopped,
    Unavailable,
)
from quorate.seat import Seat
from quorate.settings import Settings
from quorate.transport.calls import ChangeCall
from quorate.types import Address, MemberKind, PeerId, parse_node
from quorate.waiters import check_home

PAUSE_MIN = 0.02
"""The first pause before the group is asked again, seconds; doubles each time, less a random part."""

PAUSE_MAX = 0.5
"""The longest such pause: about the time an election takes."""

REDIRECTS_MAX = 3
"""Redirects followed without a pause: more than that are peers that send the caller in circles."""

FIRST_INDEX = 1
"""Where the first configuration of a group stands in its log."""

PRIORITY_MAX = 1_000_000
"""The highest priority, and below 0 the lowest: numbers that every program can carry."""


class Group(msgspec.Struct, frozen=True):
    """A group as its leader knows it, for one who wants to change it.

    Attributes:
        leader: where that is reached.
        machine: the name of its machine's class.
        configuration: the configuration in force there.
        deadline: when the change is to be given up.
    """

    leader: Address
    machine: str
    configuration: Configuration
    deadline: float


Edit = Callable[[Group], Awaitable[Members]]
"""Gives the members wanted of a group as it is; raises what makes it impossible."""


class Membership:
    """What one peer asks of its group, and of others: to form it, and to change its members.

    Attributes:
        own: the peer, and where its node is reached.
        seat: its place at the loop.
        machine: the name of its machine's class.
        settings: the knobs.
        ask: asks a peer.
    """

    def __init__(
        self,
        own: Address,
        seat: Seat,
        machine: str,
        settings: Settings,
        *,
        ask: Ask,
        random: Callable[[], float],
        new_group: Callable[[], str],
    ) -> None:
        """Speak for a peer.

        Args:
            own: the peer, and where its node is reached.
            seat: its place at the loop.
            machine: the name of its machine's class.
            settings: the knobs.
            ask: asks a peer.
            random: gives floats from 0.0 to 1.0, for the jitter of pauses.
            new_group: makes a random id for a group.
        """
        self.own = own
        self.seat = seat
        self.machine = machine
        self.settings = settings
        self.ask = ask
        self._random = random
        self._new_group = new_group
        self._home = asyncio.get_running_loop()

    @property
    def id(self) -> PeerId:
        """The peer's random id."""
        return self.seat.raft.state.peer

    @property
    def configuration(self) -> Configuration | None:
        """The configuration that the peer's own log holds; None while it is empty."""
        return self.seat.raft.state.configuration

    async def set(self, members: Sequence[str | Address], call_timeout: float, change_timeout: float) -> None:
        """Form the group, or go to other members: see ``Peer.set_configuration``."""
        self.check_runs()
        addresses = parse_addresses(members)
        current = self.configuration
        is_first = [index for index, _ in self.seat.raft.state.configurations] == [FIRST_INDEX]
        if current is None or (is_first and addresses_of(current.members) == addresses):
            deadline = asyncio.get_running_loop().time() + call_timeout
            await form_group(self.own, current, addresses, self.ask, deadline, self._new_group)
        else:
            await self.change(self.setting(addresses), change_timeout)

    async def change(self, edit: Edit, patience: float) -> None:
        """Change the members, and wait until that is done.

        Raises:
            InvalidConfiguration: this peer belongs to no group yet, or as ``edit`` and the leader say.
            ChangeInProgress: another change is under way.
            Unavailable: no leader was found, or a newcomer does not answer or catch up; nothing was changed.
            OutcomeUnknown: the leader was lost, or the deadline passed, while the change was under way.
            Stopped: this peer has stopped.
        """
        self.check_runs()
        if self.configuration is None:
            raise InvalidConfiguration(
                f"{self.own.name} belongs to no group yet: form one with set_configuration, or start it with join=…"
            )
        await self.change_from(self.members_first_own, edit, patience)

    async def replace(self, name: str, address: Address, patience: float) -> None:
        """Put another in the place of a member; of one of the same name the old one has to leave first."""
        if address.name != name:
            await self.change(self.replacing(name, address), patience)
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        gone: list[Member] = []

        async def edit(group: Group) -> Members:
            await self._newcomer(group, address)
            gone[:] = [member_named(group, name)]
            return tuple(member for member in group.configuration.goal if member not in gone)

        await self.change(edit, patience)
        await self.change(self.adding(address, gone[0].kind, gone[0].priority), deadline - loop.time())

    def check_runs(self) -> None:
        """Check that this peer runs, and here.

        Raises:
            Stopped: it does not.
            RuntimeError: it runs on another event loop.
        """
        check_home(self._home)
        if self.seat.is_closing:
            raise Stopped(str(self.seat.failure or f"{self.own.name} is stopping"))

    def members_first_own(self) -> Sequence[Address]:
        """Give whom to ask for the leader: this peer, which most often knows, then the other members."""
        configuration = self.configuration
        everyone = configuration.everyone if configuration else ()
        others = [member for member in everyone if member.address.name != self.own.name]
        reached = [self.seat.addresses.find(member.id, configuration) for member in others]
        found = [at(member.address.name, node) for member, node in zip(others, reached, strict=True) if node]
        return [self.own, *found]

    async def change_from(
        self, seeds: Callable[[], Sequence[Address]], edit: Edit, patience: float, *, is_patient: bool = False
    ) -> None:
        """Change the members of the group that some addresses lead to, and wait until that is done.

        Args:
            seeds: gives members of the group.
            edit: what to change; called again whenever the members have changed meanwhile.
            patience: seconds until the deadline.
            is_patient: whether whatever may pass is tried again until the deadline: only for an edit that may
                be made twice.

        Raises:
            InvalidConfiguration: as ``edit`` and the leader say.
            ChangeInProgress: another change is under way.
            Unavailable: no leader was found, or a newcomer does not answer or catch up; nothing was changed.
            OutcomeUnknown: the leader was lost, or the deadline passed, while the change was under way.
            Stopped: this peer has stopped.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        pause = PAUSE_MIN
        failure: QuorateError | None = None
        redirect: Address | None = None
        while True:
            try:
                group = await self.find_group(seeds, redirect, deadline)
            except Unavailable as error:
                raise failure or error from None
            redirect = None
            try:
                await self._change_at(group, edit, deadline, is_patient=is_patient)
            except NotLeader as error:
                failure, redirect = Unavailable(str(error)), error.redirect
            except ChangeInProgress as error:
                if not is_patient and not await self._is_settled(group.leader, deadline):
                    raise
                failure = error
            except (Unavailable, OutcomeUnknown, Stopped) as error:
                if not is_patient:
                    raise
                failure = error
            else:
                return
            pause = await self._sleep(pause, deadline)

    async def _change_at(self, group: Group, edit: Edit, deadline: float, *, is_patient: bool) -> None:
        """Ask the leader to go from the members that it has to those wanted; answered when it has come to that."""
        loop = asyncio.get_running_loop()
        current = group.configuration.goal
        wanted = await edit(group)
        if is_patient:  # A leader that has died says nothing: ask again, in time to find the next one.
            deadline = min(deadline, loop.time() + self.settings.call_timeout)
        left = max(deadline - loop.time(), 0.0)
        await self.ask(group.leader, ChangeCall(current, wanted, left), deadline)

    async def _is_settled(self, leader: Address, deadline: float) -> bool:
        """Tell whether the leader has no change under way: then another one is only just done."""
        try:
            found = await identify(self.ask, leader, self._soon(deadline))
        except QuorateError:
            return True  # Whoever leads then is asked again.
        return found.configuration is None or found.configuration.is_settled

    async def find_group(self, seeds: Callable[[], Sequence[Address]], first: Address | None, deadline: float) -> Group:
        """Find the leader by way of whoever knows it, until the deadline.

        Args:
            seeds: gives members of the group, those asked first at the front.
            first: who is asked before them.
            deadline: when to give up.

        Raises:
            Unavailable: none was found; the message says who was asked and what each said.
            Stopped: this peer has stopped.
        """
        loop = asyncio.get_running_loop()
        tried: dict[Address, str] = {}
        self.check_runs()
        place, redirects, pause = 0 if first else 1, 0, PAUSE_MIN
        target = first or seeds()[0]
        while loop.time() < deadline:
            redirect = None
            try:
                found = await identify(self.ask, target, self._soon(deadline))
            except QuorateError as error:
                tried[target] = str(error)
            else:
                if found.configuration is None:
                    tried[target] = "it belongs to no group yet"
                elif found.leader is None:
                    tried[target] = "it knows of no leader"
                elif found.leader.name == target.name:
                    return Group(target, found.machine, found.configuration, deadline)
                else:
                    redirect = found.leader
                    tried[target] = f"{redirect} leads"
            if redirect is not None and redirects < REDIRECTS_MAX:
                target, redirects = redirect, redirects + 1
                continue
            self.check_runs()
            addresses = seeds()
            target, place, redirects = addresses[place % len(addresses)], place + 1, 0
            pause = await self._sleep(pause, deadline)
        said = "; ".join(f"{address}: {text}" for address, text in tried.items()) or "nobody was asked"
        raise Unavailable(f"no leader of the group was found in time ({said})")

    async def _sleep(self, pause: float, deadline: float) -> float:
        """Wait for about that long, but not beyond the deadline; give how long to wait the next time."""
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(max(min(pause * (1 - self._random() / 2), left), 0))
        return min(2 * pause, PAUSE_MAX)

    def _soon(self, deadline: float) -> float:
        """Give the deadline of one question, so that one peer that hangs does not use up the time for all."""
        return min(deadline, asyncio.get_running_loop().time() + self.settings.call_timeout)

    # What can be wanted.

    def setting(self, addresses: Sequence[Address]) -> Edit:
        """Want exactly these: members keep their ids, kinds and priorities, whoever else is asked who it is."""

        async def edit(group: Group) -> Members:
            known = {member.address.name: member for member in group.configuration.goal}
            strangers = [address for address in addresses if address.name not in known]
            found = await asyncio.gather(*(self._newcomer(group, address) for address in strangers))
            kept = [moved(known[address.name], address) for address in addresses if address.name in known]
            return in_order([*kept, *(Member(id_, address) for id_, address in zip(found, strangers, strict=True))])

        return edit

    def adding(self, address: Address, kind: MemberKind, priority: int) -> Edit:
        """Want one more."""

        async def edit(group: Group) -> Members:
            peer = await self._newcomer(group, address)
            return with_member(group.configuration.goal, Member(peer, address, kind, priority))

        return edit

    def removing(self, name: str) -> Edit:
        """Want one less."""

        async def edit(group: Group) -> Members:
            gone = member_named(group, name)
            return tuple(member for member in group.configuration.goal if member is not gone)

        return edit

    def replacing(self, name: str, address: Address) -> Edit:
        """Want another in the place of one, of the same kind and priority."""

        async def edit(group: Group) -> Members:
            old = member_named(group, name)
            peer = await self._newcomer(group, address)
            check_replaces(group, old, peer)
            kept = tuple(member for member in group.configuration.goal if member is not old)
            return with_member(kept, Member(peer, address, old.kind, old.priority))

        return edit

    def moving(self, name: str, node: str) -> Edit:
        """Want a member at another address."""

        async def edit(group: Group) -> Members:
            old = member_named(group, name)
            return with_member(group.configuration.goal, moved(old, at(name, node)))

        return edit

    def preferring(self, name: str, priority: int) -> Edit:
        """Want another priority for a member."""

        async def edit(group: Group) -> Members:
            old = member_named(group, name)
            return with_member(group.configuration.goal, Member(old.id, old.address, old.kind, priority))

        return edit

    async def _newcomer(self, group: Group, address: Address) -> PeerId:
        """Ask one that is to become a member who it is.

        Raises:
            InvalidConfiguration: it belongs to another group, or runs another machine.
            Unavailable: it does not answer.
        """
        try:
            found = await identify(self.ask, address, self._soon(group.deadline))
        except (Unavailable, Stopped) as error:
            raise Unavailable(f"{address} must run before it can become a member: {error}") from error
        if found.configuration is not None and found.configuration.group != group.configuration.group:
            raise InvalidConfiguration(
                f"{address} already belongs to another group (group {found.configuration.group}); if its data is not"
                " needed, give it an empty data directory"
            )
        check_machine(address.name, found.machine, group)
        return found.id


def check_machine(name: str, machine: str, group: Group) -> None:
    """Check that a newcomer runs the machine of the group, as far as its name tells.

    Raises:
        InvalidConfiguration: it runs another.
    """
    if machine != group.machine:
        raise InvalidConfiguration(f"{name} runs {machine}, and the group of {group.leader} runs {group.machine}")


def member_named(group: Group, name: str) -> Member:
    """Give the member with that name.

    Raises:
        InvalidConfiguration: there is none.
    """
    for member in group.configuration.goal:
        if member.address.name == name:
            return member
    raise InvalidConfiguration(f"{name} is no member of the group of {configuration_text(group.configuration)}")


def check_replaces(group: Group, old: Member, peer: PeerId) -> None:
    """Check that a peer can take the place of a member: one that has a place already would leave the other empty.

    A learner has no vote, and takes the place of one that has.

    Raises:
        InvalidConfiguration: it cannot.
    """
    for member in group.configuration.goal:
        if member.id == peer and (member.votes or not old.votes):
            raise InvalidConfiguration(
                f"{member.address.name} is a {member.kind} of this group already, and would be one instead of two: name"
                f" a peer that is none, or call remove_peer({old.address.name!r})"
            )


def with_member(members: Members, member: Member) -> Members:
    """Give the members with one more, or with one in its new form.

    Raises:
        InvalidConfiguration: its name is another's.
    """
    for other in members:
        if other.address.name == member.address.name and other.id != member.id:
            raise InvalidConfiguration(
                f"the name {other.address.name} is in use by another peer (id {other.id}): give the newcomer a name of"
                f" its own, or call remove_peer({other.address.name!r}) first if that one is gone for good"
            )
    return in_order([*(other for other in members if other.id != member.id), member])


def at(name: str, node: str) -> Address:
    """Give the address of a peer on a node, ``host:port``."""
    return Address(name, *parse_node(node))


def moved(member: Member, address: Address) -> Member:
    """Give a member at another address."""
    return Member(member.id, address, member.kind, member.priority)


def in_order(members: Sequence[Member]) -> Members:
    """Give members in the order of their names."""
    return tuple(sorted(members, key=lambda member: member.address.name))


def checked_kind(kind: MemberKind) -> MemberKind:
    """Give a kind of member that there is.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in get_args(MemberKind):
        raise ValueError(f"{kind!r} is no kind of member; there are {', '.join(get_args(MemberKind))}")
    return kind


def checked_priority(priority: int) -> int:
    """Give a priority that is within its bounds.

    Raises:
        ValueError: it is not.
        TypeError: it is no whole number.
    """
    if not isinstance(priority, int):
        raise TypeError(f"a priority must be a whole number, not {priority!r}")
    if abs(priority) > PRIORITY_MAX:
        raise ValueError(f"a priority must be from {-PRIORITY_MAX} to {PRIORITY_MAX}, not {priority}")
    return priority
