"""Dialling: a connection to a host, at whichever of its addresses somebody answers.

A name may stand for an IPv6 and an IPv4 address, or for an old machine and a new one, and one of them may swallow all
that is sent to it. Knows addresses and sockets; knows no TLS and no frames.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

HANG_SECONDS = 1.0
"""How long one of several addresses may take, but for the last of them."""

Place = tuple[int, int, int, tuple[object, ...]]
"""Family, kind, protocol and address, as ``socket`` has them."""


async def open_socket(host: str, port: int, seconds: float) -> socket.socket:
    """Connect to a host: its addresses are tried in the order in which the system gives them.

    Args:
        host: its name or address.
        port: where it listens.
        seconds: how long that may take. An address that hangs leaves each of the others its part of that.

    Raises:
        OSError: nobody answers at any of them, or the name does not resolve; of several errors the first.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    found = await addresses_of(host, port)
    refusal: OSError | None = None
    for place, (family, kind, protocol, address) in enumerate(found):
        left, others = deadline - loop.time(), len(found) - place - 1
        try:
            async with asyncio.timeout(min(left / (others + 1), HANG_SECONDS) if others else left):
                return await connected(family, kind, protocol, address)
        except OSError as error:  # TimeoutError is one.
            refusal = refusal or error
    raise refusal or OSError(f"{host} has no address")


async def addresses_of(host: str, port: int, flags: int = 0) -> list[Place]:
    """Give the addresses of a host; nobody is asked for those of one that is an address itself.

    Args:
        host: its name or address.
        port: of the addresses.
        flags: as ``socket.getaddrinfo`` takes them.

    Raises:
        OSError: the name does not resolve.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    else:
        # In bytes: for a text Python loads its codec of international names, which takes half a megabyte.
        address = host.encode()
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST)
    return list(dict.fromkeys((family, kind, protocol, address) for family, kind, protocol, _, address in found))


async def connected(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    """Give a socket that is connected to an address.

    Raises:
        OSError: nobody answers there.
    """
    dialled = socket.socket(family, kind, protocol)
    try:
        dialled.setblocking(False)
        await asyncio.get_running_loop().sock_connect(dialled, address)
    except BaseException:
        dialled.close()
        raise
    return dialled
