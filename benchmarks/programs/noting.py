"""A node with one peer, whose store is memory: ``python -m benchmarks.programs.noting ADDRESS PATH``.

PATH is its local socket. ``["form"]`` makes the peer a group. No disk and no quorum, so that calls themselves are what
is measured of it.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from benchmarks.programs.lines import obey_lines, run
from quorate import Address, Event, Node, Peer, Settings, StateMachine, read, write


class Noted(Event):
    """A text was noted, and whoever watches is to know."""

    text: str


class Notes(StateMachine):
    """Keeps one text."""

    emits = (Noted,)
    text: str

    def __init__(self) -> None:
        self.text = ""

    @write
    def keep(self, text: str) -> str:
        self.text = text
        return text

    @write
    def note(self, text: str) -> str:
        self.text = text
        self.emit(Noted(text))
        return text

    @read
    def get(self) -> str:
        return self.text


async def obey(peer: Peer[Notes], words: list[Any]) -> object:
    """Carry out one line."""
    if words != ["form"]:
        raise ValueError(f"not a command: {words}")
    await peer.set_configuration(peer.address)
    return str(await peer.leader())


async def main(own: str, path: str) -> None:
    """Run the node until its standard input ends."""
    address = Address.parse(own)
    async with Node(address.node, store="memory", settings=Settings(snapshot_entries=10**9), local=path) as node:
        peer = await node.start_peer(Notes, name=address.name)
        await obey_lines(partial(obey, peer))


if __name__ == "__main__":
    run(main(sys.argv[1], sys.argv[2]), "asyncio")
