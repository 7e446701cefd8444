"""Who is in a group (thesis 4). A configuration is the payload of a log entry, and takes effect when appended.

Knows names, ids and addresses as values; does not know who leads or what anybody's log holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from quorate.errors import InvalidConfiguration
from quorate.types import Address, MemberKind, PeerId


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One member of a group.

    Attributes:
        id: the random id that its data directory holds; what votes and acknowledgements are counted by.
        address: its name, and where it was reached when the configuration was made.
        kind: voter, learner or witness.
        priority: among voters that could lead, those with the highest are preferred; 0 unless it is set.
    """

    id: PeerId
    address: Address
    kind: MemberKind = "voter"
    priority: int = 0

    @property
    def votes(self) -> bool:
        """Whether it is counted in quorums."""
        return self.kind != "learner"


Members = tuple[Member, ...]

NOBODY: frozenset[PeerId] = frozenset()
"""The one of which all configurations without a witness have this; one of their own would take 216 bytes."""


class Configuration(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The members of one group, and the change of them that is under way.

    A change goes through up to three configurations. First newcomers are members without a vote, and ``target`` says
    what is wanted; then the members are those of the target, and ``outgoing`` are the voters before them: both decide
    together (thesis 4.3, "joint consensus"); last neither is set.

    Attributes:
        group: the random id of the group, made when it was first configured.
        members: ordered by name. Invariant: names and ids are unique.
        outgoing: the voters of the configuration before, in a joint configuration; else empty.
        target: the members wanted once the newcomers among them have caught up; empty when nobody has to.
        fallback: with a ``target``: the members to return to when a newcomer does not catch up; else empty.
    """

    group: str
    members: Members
    outgoing: Members = ()
    target: Members = ()
    fallback: Members = ()

    @cached_property
    def voters(self) -> Members:
        """The members that are counted in quorums, witnesses among them."""
        return tuple([member for member in self.members if member.votes])

    @cached_property
    def groups(self) -> tuple[tuple[PeerId, ...], ...]:
        """The ids of those whose majorities decide: of the voters, and in a joint configuration of those before too."""
        groups = (self.voters, self.outgoing) if self.outgoing else (self.voters,)
        return tuple(tuple(member.id for member in group) for group in groups)

    @cached_property
    def everyone(self) -> Members:
        """All who receive entries: the members, and in a joint configuration those that are about to leave."""
        if not self.outgoing:
            return self.members
        ids = {member.id for member in self.members}
        return (*self.members, *(member for member in self.outgoing if member.id not in ids))

    @property
    def by_formation(self) -> Members:
        """The members of a new group in the order in which they are told of it: the last one campaigns at once.

        All others are formed by then. The ids are drawn at random: so many groups with the same members are led by all
        of them.
        """
        return tuple(sorted(self.members, key=lambda member: member.id))

    @property
    def goal(self) -> Members:
        """The members once the change under way is done; those of now when none is."""
        return self.target or self.members

    @property
    def is_settled(self) -> bool:
        """Whether no change of the members is under way."""
        return not self.outgoing and not self.target

    @cached_property
    def newcomers(self) -> Members:
        """The voters wanted that have no vote yet: those that catch up."""
        voters = {member.id for member in self.voters}
        return tuple([member for member in self.target if member.votes and member.id not in voters])

    @cached_property
    def by_id(self) -> dict[PeerId | None, Member]:
        """All who receive entries, by their ids."""
        return {member.id: member for member in self.everyone}

    @cached_property
    def witnesses(self) -> frozenset[PeerId]:
        """The ids of the witnesses, and of those that catch up to become one."""
        everyone = (*self.members, *self.outgoing, *self.target)
        return frozenset([member.id for member in everyone if member.kind == "witness"]) or NOBODY

    def member(self, peer: PeerId | None) -> Member | None:
        """Give who has that id, or None when nobody does."""
        return self.by_id.get(peer)

    def named(self, name: str) -> Member | None:
        """Give who has that name, or None when nobody does."""
        return next((member for member in self.everyone if member.address.name == name), None)

    def name(self, peer: PeerId | None) -> str:
        """Give the name of the member with that id, or the id itself for a stranger: for people to read."""
        member = self.member(peer)
        return member.address.name if member else str(peer)

    def is_witness(self, peer: PeerId) -> bool:
        """Tell whether a peer is a witness, or catches up to become one."""
        return peer in self.witnesses


def check_members(members: Members) -> None:
    """Check that members can be a group.

    Args:
        members: ordered by name.

    Raises:
        InvalidConfiguration: they cannot; the message says why.
    """
    names = [member.address.name for member in members]
    if names != sorted(set(names)) or len({member.id for member in members}) != len(names):
        raise InvalidConfiguration(
            "the members must have distinct ids and names, and stand in the order of their names"
        )
    kinds = [member.kind for member in members]
    if "voter" not in kinds:
        raise InvalidConfiguration("a group needs a voter at least: nobody else can lead it")
    if 2 * kinds.count("witness") >= len(kinds) - kinds.count("learner"):
        raise InvalidConfiguration("witnesses must be fewer than half of those that vote: they hold no data")


def names_text(members: Sequence[Member]) -> str:
    """Give the names of members, for people to read, with what each is if it is no voter."""
    return ", ".join(m.address.name if m.kind == "voter" else f"{m.address.name} ({m.kind})" for m in members) or "none"


def configuration_text(configuration: Configuration | None) -> str:
    """Say who is in a configuration and where a change of it stands, for people to read."""
    if configuration is None:
        return "none"
    text = names_text(configuration.members)
    if configuration.outgoing:
        return f"{text}; joint with {names_text(configuration.outgoing)}"
    if configuration.target:
        return f"{text}; catching up: {names_text(configuration.newcomers)}"
    return text


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """Write a configuration as the payload of its entry."""
    return _encoder.encode(configuration)


def is_sound(configuration: Configuration) -> bool:
    """Tell whether members are distinct, one can lead, and a change is in one phase: all that leaders append is so."""
    names = [member.address.name for member in configuration.members]
    everyone = configuration.everyone
    return (
        names == sorted(set(names))
        and len({member.id for member in everyone}) == len(everyone)
        and any(member.kind == "voter" for member in configuration.members)
        and not (configuration.outgoing and configuration.target)
        and bool(configuration.target) == bool(configuration.fallback)
    )


def decode_configuration(payload: bytes) -> Configuration:
    """Read the payload of a configuration entry.

    Raises:
        ValueError: the bytes are no configuration, or one that no leader appends.
    """
    try:
        configuration = _decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a configuration: {error}") from error
    if not is_sound(configuration):
        raise ValueError(f"not a sound configuration: {configuration_text(configuration)}")
    return configuration
