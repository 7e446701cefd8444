"""``quorate demo``: three nodes agree, lose their leader twice, and lose nothing; or a group grows and changes.

The nodes are processes of their own, and the demo types into their prompts. The steps themselves are in ``steps.py``
and ``growth.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from quorate import Address, QuorateError
from quorate.cli import growth
from quorate.cli.interruption import Interrupted, interruptible
from quorate.cli.output import CommandError, Output
from quorate.cli.session import Session, SessionError
from quorate.cli.steps import Step, steps_for
from quorate.cli.walk import StepFailed, Walk

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 30000)
"""Where free ports are looked for: outside the range from which systems take ports for outgoing connections, which
could take the port of a node that is down."""


REFRESH = 0.2
"""Seconds between two looks at how far the client is, for whoever watches."""


class Plan(NamedTuple):
    """What is shown, and what that takes.

    Attributes:
        title: the sentence that it begins with.
        nodes: how many there are, those to come among them.
        settings: their knobs that are not as by default.
        lanes: how many writes of the client are under way at once.
        steps: what is shown, in this order.
    """

    title: str
    nodes: int
    settings: tuple[str, ...]
    lanes: int
    steps: tuple[Step, ...]


def plan_for(store: str, *, is_full: bool) -> Plan:
    """Give what is shown with that store."""
    if is_full:
        title = (
            f"Nodes come to this machine and go, {2 * growth.SIZE} of them, at most {growth.SIZE} at a time. They keep "
            f"one key-value store between them; their logs are in {store}."
        )
        return Plan(title, 2 * growth.SIZE, growth.SETTINGS, growth.LANES, growth.STEPS)
    title = f"Three nodes on this machine keep one key-value store between them; their logs are in {store}."
    return Plan(title, 3, (), 1, steps_for(store))


def run_demo(options: argparse.Namespace) -> int:
    """Show the whole walk; give 0 if each step was seen, else 1."""
    output = Output(plain=options.plain)
    plan = plan_for(options.store, is_full=options.full)
    began = time.monotonic()
    try:
        is_seen = asyncio.run(demonstrate(output, options.store, plan))
    except Interrupted as error:
        output.line(f"\nInterrupted by {error.number.name}: the nodes are stopped and their files removed.", "yellow")
        return 128 + error.number
    if not is_seen:
        return 1
    count, seconds = len(plan.steps), time.monotonic() - began
    output.line()
    output.line(f"Each of the {count} steps was seen, in {seconds:.1f} s. Nothing is left behind.", "bold green")
    output.line("To try it by hand, in three terminals: `quorate --help` has the commands.")
    return 0


async def demonstrate(output: Output, store: str, plan: Plan) -> bool:
    """Run the demo, and end all that it started, whatever happens; tell whether each step was seen.

    Raises:
        Interrupted: a signal ended it.
    """
    with tempfile.TemporaryDirectory(prefix="quorate-demo-") as directory:
        ports = free_ports(plan.nodes)
        addresses = [Address(f"peer{number}", LOOPBACK, port) for number, port in enumerate(ports, 1)]
        sessions = [Session(address, store, Path(directory), plan.settings) for address in addresses]
        try:
            return await interruptible(show(output, Walk(output, sessions, store, plan.lanes), plan))
        finally:
            for session in sessions:
                await session.kill()


async def show(output: Output, walk: Walk, plan: Plan) -> bool:
    """Show one step after the other; tell whether each was seen."""
    output.line(plan.title, "bold")
    async with contextlib.aclosing(walk):
        for number, (title, step) in enumerate(plan.steps, 1):
            output.line()
            output.line(f"{number:2}. {title}", "bold")
            try:
                with output.working("waiting for the nodes") as update:
                    async with client_watched(walk, update):
                        seen = await step(walk)
            except (StepFailed, SessionError, QuorateError) as error:
                report_failure(output, walk, number, error)
                return False
            output.line(f"    ok: {seen}", "green")
    return True


@contextlib.asynccontextmanager
async def client_watched(walk: Walk, update: Callable[[str], None]) -> AsyncIterator[None]:
    """Show how far the client is, for as long as the context lasts."""

    async def watch() -> None:
        while True:
            if walk.writer.begun:
                update(walk.writer.summary)
            await asyncio.sleep(REFRESH)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def report_failure(output: Output, walk: Walk, number: int, error: Exception) -> None:
    """Say which step failed and why, with what the nodes logged last."""
    output.line(f"    Step {number} failed: {error}", "bold red")
    for session in walk.sessions:
        if tail := session.log_tail():
            output.line(f"    {session.name} logged last:", "yellow")
        for text in tail:
            output.line(f"      {text}")


def free_ports(count: int) -> list[int]:
    """Find ports on loopback that nobody has.

    Raises:
        CommandError: there are too few.
    """
    free: list[int] = []
    for port in random.sample(PORTS, k=1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            free.append(port)
        if len(free) == count:
            return sorted(free)
    raise CommandError(f"no {count} free ports were found on {LOOPBACK} from {PORTS.start} to {PORTS.stop - 1}")
