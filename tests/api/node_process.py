"""One node with one peer, in a process of its own: ``python node_process.py ADDRESS DATA_DIR [MEMBER…]``.

Prints ``ready`` once it runs. With members it then forms the group, and prints ``formed``. Runs until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from quorate import Address, Node
from quorate.machines import KV


async def main(own: str, data_dir: str, *members: str) -> None:
    address = Address.parse(own)
    async with Node(address.node, data_dir=data_dir) as node:
        peer = await node.start_peer(KV, name=address.name)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if members:
            await peer.set_configuration(*members)
            sys.stdout.write("formed\n")
            sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
