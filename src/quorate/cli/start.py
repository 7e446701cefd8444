"""``quorate start``: one node in the foreground, as a service runs it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from quorate import Node, Overloaded, Peer, StateMachine, Stopped, Unavailable
from quorate.cli.opening import load_machine, log_to_stderr, loop_factory, opened, ready_text
from quorate.cli.output import CommandError, Output

logger: logging.Logger = logging.getLogger("quorate.cli")

CHECK_SECONDS = 1.0
"""How often it is checked that the peer still runs."""


def run_start(options: argparse.Namespace) -> int:
    """Run a node until SIGTERM or SIGINT; give the exit status."""
    log_to_stderr(options.log_level)
    machine = load_machine(options.machine)
    with asyncio.Runner(loop_factory=loop_factory(options)) as runner:
        runner.run(serve(options, machine))
    return 0


async def serve(options: argparse.Namespace, machine: type[StateMachine]) -> None:
    """Run a node until it is asked to stop."""
    asked_to_stop = asyncio.Event()
    stop_when_signalled(asyncio.get_running_loop(), asked_to_stop)
    async with contextlib.AsyncExitStack() as stack:
        peer = await until_asked(asked_to_stop, stack.enter_async_context(opened(options, machine)))
        if peer is None:
            logger.info("%s stops before it was ready", options.peer)
            return
        Output(plain=True).line(ready_text(peer))
        gc.freeze()  # All that stands by now stays: the garbage collector need not look through it again and again.
        while not asked_to_stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await asked_to_stop.wait()
            await check_runs(peer)
        logger.info("%s stops", peer.address)
    logger.info("%s has stopped", peer.address)


async def until_asked(
    asked_to_stop: asyncio.Event, opening: Coroutine[Any, Any, tuple[Node, Peer[Any]]]
) -> Peer[Any] | None:
    """Open a node, and give its peer; None when it was asked to stop before: joining a group may take long.

    Raises:
        CancelledError: the caller was cancelled.
    """
    task = asyncio.create_task(opening)
    asking = asyncio.create_task(asked_to_stop.wait())
    asking.add_done_callback(lambda _: task.cancel())
    try:
        _, peer = await task
    except asyncio.CancelledError:
        if not asked_to_stop.is_set():
            raise
        return None
    finally:
        asking.cancel()
    return peer


def stop_when_signalled(loop: asyncio.AbstractEventLoop, asked_to_stop: asyncio.Event) -> None:
    """Set the event at the first SIGTERM or SIGINT. The next one ends the process at once, whatever it is doing."""

    # Not the loop's own signal handlers: they wait for the loop, which a machine's handler may keep busy for long.
    def ask_to_stop(number: int, frame: object) -> None:
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_DFL)
        loop.call_soon_threadsafe(asked_to_stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)


async def check_runs(peer: Peer[Any]) -> None:
    """Check that the peer runs: a service whose peer has stopped must end, so that whoever watches it learns of it.

    Raises:
        CommandError: it has stopped of itself.
    """
    try:
        await peer.with_options(timeout=0.01).leader()
    except (Unavailable, Overloaded):
        pass  # It runs, and knows of no leader now; so many may wait for one that nobody else is let in.
    except Stopped as error:
        raise CommandError(f"{peer.name} has stopped: {error}") from error
