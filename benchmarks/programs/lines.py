"""The other end of ``benchmarks.processes``: obeys JSON lines from standard input until it ends."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec


async def obey_lines(obey: Callable[[list[Any]], Awaitable[object]]) -> None:
    """Say that this program is ready, then answer each line with what ``obey`` gives for it."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say("ready")
    following = asyncio.ensure_future(reader.readline())
    while line := await following:
        following = asyncio.ensure_future(reader.readline())
        following.add_done_callback(leave_at_end)
        answer = await obey(json.loads(line))
        following.remove_done_callback(leave_at_end)
        say(answer)


def leave_at_end(line: asyncio.Future[bytes]) -> None:
    """End at once if the input ends while a line is being obeyed: nobody waits for the answer any longer."""
    if not line.cancelled() and line.result() == b"":
        os._exit(1)


def say(answer: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


def run(main: Coroutine[Any, Any, None], loop: str) -> None:
    """Run a program on ``"asyncio"``'s own event loop or on ``"uvloop"``, with room for many connections."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an extra

        uvloop.run(main)
    else:
        asyncio.run(main)
