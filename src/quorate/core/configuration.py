"""Who is in a group (thesis 4.1). A configuration is the payload of a log entry, and takes effect when appended.

Knows names, ids and addresses as values; does not know who leads or what anybody's log holds.
"""

from __future__ import annotations

import msgspec

from quorate.types import Address, PeerId


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One voter of a group.

    Attributes:
        id: the random id that its data directory holds; what votes and acknowledgements are counted by.
        address: its name, and where it was reached when the configuration was made.
    """

    id: PeerId
    address: Address


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The members of one group.

    Attributes:
        group: the random id of the group, made when it was first configured.
        voters: the peers counted in quorums, ordered by name. Invariant: names and ids are unique.
    """

    group: str
    voters: tuple[Member, ...]

    @property
    def ids(self) -> tuple[PeerId, ...]:
        """The ids of all members, in the order of their names."""
        return tuple([member.id for member in self.voters])

    def member(self, peer: PeerId | None) -> Member | None:
        """Give the member with that id, or None when there is none."""
        return next((member for member in self.voters if member.id == peer), None)

    def name(self, peer: PeerId | None) -> str:
        """Give the name of the member with that id, or the id itself for a stranger: for people to read."""
        member = self.member(peer)
        return member.address.name if member else str(peer)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """Write a configuration as the payload of its entry."""
    return _encoder.encode(configuration)


def decode_configuration(payload: bytes) -> Configuration:
    """Read the payload of a configuration entry.

    Raises:
        ValueError: the bytes are no configuration.
    """
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a configuration: {error}") from error
