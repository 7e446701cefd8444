"""One node in a process of its own, as a user's program would run one, with a peer of the machine ``KV``.

``python -m quorate.testing.chaos.node --peer NAME@HOST:PORT --data-dir DIR …``. Requests come on standard input, one
JSON object a line: ``{"id": 1, "call": "remove", "arguments": ["n1"], "timeout": 5.0}``; replies go to standard output,
the same way, each with the id of its request. The first reply, of id 0, says that the peer runs, and with ``--join``
that it is a member. The end of the input, SIGTERM and SIGINT stop the node; it logs to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from quorate import Address, Node, Peer, QuorateError, Settings
from quorate.machines import KV

PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a node until it is asked to stop."""
    parser = argparse.ArgumentParser(prog="python -m quorate.testing.chaos.node", description="One node.")
    parser.add_argument("--peer", required=True, type=Address.parse)
    parser.add_argument("--data-dir")
    parser.add_argument("--store", default="rocksdb")
    parser.add_argument("--join", action="append", default=[])
    parser.add_argument("--told", action="append", default=[], type=Address.parse)
    parser.add_argument("--settings", default="{}")
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    die_with_parent()
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args(arguments)))


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone, even while this one is stopped."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


async def serve(options: argparse.Namespace) -> None:
    """Run node and peer, and carry out what is asked."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    requests = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    node = Node(
        options.peer.node,
        data_dir=options.data_dir,
        store=options.store,
        settings=msgspec.json.decode(options.settings, type=Settings),
        addresses={address.name: address.node for address in options.told},
    )
    async with node:
        try:
            peer = await node.start_peer(KV, name=options.peer.name, join=options.join or None)
        except QuorateError as error:
            refuse(0, error)
            return
        say({"id": 0, "value": None})
        carrying: set[asyncio.Task[None]] = set()
        while line := await requests.readline():
            carry = asyncio.create_task(carry_out(peer, json.loads(line)))
            carrying.add(carry)
            carry.add_done_callback(carrying.discard)


async def carry_out(peer: Peer[KV], request: dict[str, Any]) -> None:
    """Carry out a request, and reply: ``form`` with these members, ``remove`` that one, ``transfer`` leadership.

    Raises:
        ValueError: it is something else.
    """
    asked, arguments = peer.with_options(timeout=request["timeout"]), request["arguments"]
    value: str | None = None
    try:
        match request["call"]:
            case "form":
                await asked.set_configuration(*arguments)
            case "remove":
                await asked.remove_peer(*arguments)
            case "transfer":
                value = str(await asked.transfer_leadership(*arguments))
            case unknown:
                raise ValueError(f"{unknown!r} is nothing that a node knows")
    except QuorateError as error:
        refuse(request["id"], error)
    else:
        say({"id": request["id"], "value": value})


def refuse(number: int, error: QuorateError) -> None:
    """Print that a request was not carried out."""
    say({"id": number, "error": type(error).__name__, "text": str(error)})


def say(what: dict[str, Any]) -> None:
    """Print one object."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
