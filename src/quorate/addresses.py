"""Where peers are reached: what this node was told by name, else where each was heard last, else the configuration.

The name is the identity, the address is of today. Knows names and ids as values; knows no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping

from quorate.core import Configuration
from quorate.core.state import State
from quorate.types import Address, PeerId, is_name, is_node, parse_node

HEARD_MAX = 256
"""How many peers are remembered: far more than a group has, and little enough to let anybody claim anything."""


class Addresses:
    """Where one peer reaches the others of its group."""

    def __init__(self, own: Address, told: Mapping[str, str]) -> None:
        """Know what the node was told.

        Args:
            own: the peer itself, and where its node is reached.
            told: for some names, where they are reached, ``host:port``; it goes before everything else.
        """
        self._told = {**told, own.name: own.node}
        self._heard: dict[PeerId, tuple[str, Configuration | None]] = {}

    def hear(self, peer: PeerId, node: str, configuration: Configuration | None) -> None:
        """Remember where a peer says that it is: a hint, never a proof, and of no use once its address is changed."""
        heard = self._heard.get(peer)
        if heard is not None and heard[0] == node and heard[1] is configuration:
            return
        if is_node(node):
            self._heard.pop(peer, None)
            self._heard[peer] = (node, configuration)
            if len(self._heard) > HEARD_MAX:
                del self._heard[next(iter(self._heard))]

    def find(self, peer: PeerId, configuration: Configuration | None) -> str | None:
        """Give where a peer is reached, ``host:port``: also one that was removed, or that the log does not name yet."""
        configured = address_in(configuration, peer)
        if configured is not None and configured.name in self._told:
            return self._told[configured.name]
        node, then = self._heard.get(peer, (None, None))
        # A change of address in the configuration is newer than what was heard before it.
        if node is not None and (configured is None or then is configuration or address_in(then, peer) == configured):
            return node
        return configured.node if configured is not None else None

    def leader(self, state: State) -> Address | None:
        """Give the leader that a peer follows or is, at the address where it is reached; None when it knows of none."""
        member = state.configuration.member(state.leader) if state.configuration and state.leader else None
        if member is None:
            return None
        node = self.find(member.id, state.configuration)
        if node is None or node == member.address.node:
            return member.address
        return Address(member.address.name, *parse_node(node))

    def redirect(self, state: State) -> Address | None:
        """Give whom to ask instead of this peer: the leader, unless that is this peer, which cannot answer just now."""
        return None if state.leader == state.peer else self.leader(state)


def address_in(configuration: Configuration | None, peer: PeerId) -> Address | None:
    """Give the address that a configuration has for a peer; None when it does not name it."""
    member = configuration.member(peer) if configuration is not None else None
    return member.address if member is not None else None


def check_told(told: Mapping[str, str]) -> dict[str, str]:
    """Check what a node or a client is told.

    Args:
        told: for names, where they are reached.

    Returns:
        A copy.

    Raises:
        ValueError: a name or an address cannot be one.
    """
    for name, node in told.items():
        if not is_name(name) or not is_node(node):
            raise ValueError(f'{name!r}: {node!r} cannot be used; write {{"peer1": "10.0.0.1:7001"}}')
    return dict(told)
