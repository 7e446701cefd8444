"""What stands between the nodes: namespaces of the kernel where that is allowed, else proxies on loopback, or nothing.

Knows how a node's process is started behind it; knows nothing of what the process is.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from quorate import Address

PORTS = range(20_000, 32_000)
"""Where nodes listen: below the ports that Linux gives to outgoing connections, which could take a dead node's."""


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How a node's process must be started to be where it belongs.

    Attributes:
        prefix: what its command begins with.
        descriptors: which file descriptors it inherits.
        told: where it reaches the others, by name; empty for where they are.
    """

    prefix: Sequence[str] = ()
    descriptors: Sequence[int] = ()
    told: Mapping[str, str] = field(default_factory=dict)


class Isolation(Protocol):
    """What stands between the nodes; made for a list of names, and closed at the end.

    Attributes:
        text: what it is, for people.
        addresses: where each node listens, and where clients reach it.
    """

    @property
    def text(self) -> str:
        """What it is, for people."""
        ...

    @property
    def addresses(self) -> Mapping[str, Address]:
        """Where each node listens, and where clients reach it."""
        ...

    def wrapping(self, name: str) -> Wrapping:
        """Give how the process of a node is to be started."""
        ...

    async def start(self) -> None:
        """Begin to carry what the nodes send."""
        ...

    async def close(self) -> None:
        """Carry nothing more, and leave nothing behind. Idempotent."""
        ...


class Loopback:
    """Nothing between the nodes but loopback: for measurements."""

    text: str = "all on loopback, nothing between them"

    def __init__(self, names: Sequence[str]) -> None:
        """Choose a port for each."""
        self.addresses: Mapping[str, Address] = loopback_addresses(names)

    def wrapping(self, name: str) -> Wrapping:
        """Start every node as it is."""
        return Wrapping()

    async def start(self) -> None:
        """Carry nothing: the kernel does."""

    async def close(self) -> None:
        """Leave nothing behind: nothing was made."""


def loopback_addresses(names: Sequence[str]) -> dict[str, Address]:
    """Give an address on loopback to each name."""
    ports = free_ports(len(names))
    return {name: Address(name, "127.0.0.1", port) for name, port in zip(names, ports, strict=True)}


def free_ports(count: int) -> list[int]:
    """Give ports of loopback that nobody listens on.

    Raises:
        OSError: there are not as many.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    raise OSError(f"fewer than {count} free ports on loopback")
