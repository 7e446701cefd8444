"""What ``quorate start --join`` prints until the peer is a member: a line whenever it has come further."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from quorate import TLS, Address, Node, Peer, QuorateError, StateMachine, Status, connect
from quorate.cli.output import Output

LOOK_SECONDS = 0.3
"""How often it is looked how far the peer has come."""


@contextlib.asynccontextmanager
async def progress_shown(
    output: Output, node: Node, machine: type[StateMachine], options: argparse.Namespace, tls: TLS | None
) -> AsyncIterator[None]:
    """Print, while the context lasts, how far the peer that joins has come; nothing for one that does not."""
    if not options.join:
        yield
        return
    task = asyncio.create_task(show(output, node, machine, options, tls))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def show(
    output: Output, node: Node, machine: type[StateMachine], options: argparse.Namespace, tls: TLS | None
) -> None:
    """Print a line whenever there is something new to say."""
    said = None
    while True:
        peer = next((peer for peer in node.peers if peer.name == options.peer.name), None)
        text = await progress_text(peer, options.join, machine, tls) if peer is not None else None
        if text is not None and text != said:
            output.line(text)
            said = text
        await asyncio.sleep(LOOK_SECONDS)


async def progress_text(peer: Peer[Any], seeds: Sequence[Address], machine: type[StateMachine], tls: TLS | None) -> str:
    """Say how far a peer that joins by way of some members has come: its leader knows best."""
    leader = peer.status().leader
    if leader is None:
        asked = ", ".join(map(str, seeds))
        return f"{peer.name} asks {asked} to let it join; no leader has answered yet"
    status = peer.status()
    if leader != peer.address:
        with contextlib.suppress(QuorateError):
            async with connect(machine, leader, follow=False, tls=tls) as group:
                (status,) = await group.with_options(timeout=LOOK_SECONDS).status()
    return member_text(peer, status)


def member_text(peer: Peer[Any], status: Status) -> str:
    """Say what a peer is, by the status of itself or its leader."""
    member = next((member for member in status.members if member.address.name == peer.name), None)
    if member is None:
        return f"{peer.name} asks to join"
    if member.kind == member.becomes:
        return f"{peer.name} is a {member.kind}"
    if member.is_installing:
        return f"{peer.name} is a {member.kind}, and receives a snapshot"
    held = peer.status().last_index if member.match_index is None else member.match_index
    return f"{peer.name} is a {member.kind}, and has caught up {held} of {status.last_index} entries"
