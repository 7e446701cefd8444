"""``quorate demo``: three nodes agree, lose their leader twice, and lose nothing.

The nodes are processes of their own, and the demo types into their prompts. The steps themselves are in ``walk.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import socket
import tempfile
import time
from pathlib import Path

from quorate import Address, QuorateError
from quorate.cli.output import CommandError, Output
from quorate.cli.session import Session, SessionError
from quorate.cli.steps import steps_for
from quorate.cli.walk import StepFailed, Walk

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 30000)
"""Where free ports are looked for: outside the range from which systems take ports for outgoing connections, which
could take the port of a node that is down."""


def run_demo(options: argparse.Namespace) -> int:
    """Show the whole walk; give 0 if each step was seen, else 1."""
    output = Output(plain=options.plain)
    began = time.monotonic()
    try:
        is_seen = asyncio.run(demonstrate(output, options.store))
    except Interrupted as error:
        output.line(f"\nInterrupted by {error.number.name}: the nodes are stopped and their files removed.", "yellow")
        return 128 + error.number
    if not is_seen:
        return 1
    count, seconds = len(steps_for(options.store)), time.monotonic() - began
    output.line()
    output.line(f"Each of the {count} steps was seen, in {seconds:.1f} s. Nothing is left behind.", "bold green")
    output.line("To try it by hand, in three terminals: `quorate --help` has the commands.")
    return 0


class Interrupted(Exception):
    """A signal ended the demo.

    Attributes:
        number: which one.
    """

    def __init__(self, number: signal.Signals) -> None:
        """Remember the signal."""
        super().__init__(number.name)
        self.number = number


async def demonstrate(output: Output, store: str) -> bool:
    """Run the demo, and end all that it started, whatever happens; tell whether each step was seen.

    Raises:
        Interrupted: a signal ended it.
    """
    signals: list[signal.Signals] = []
    task = asyncio.current_task()
    assert task is not None, "this runs as a task"

    def leave(number: signal.Signals) -> None:
        signals.append(number)
        if len(signals) == 1:  # A second one must not disturb the clearing up.
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, leave, number)
    with tempfile.TemporaryDirectory(prefix="quorate-demo-") as directory:
        addresses = [Address(f"peer{number}", LOOPBACK, port) for number, port in enumerate(free_ports(3), 1)]
        sessions = [Session(address, store, Path(directory)) for address in addresses]
        try:
            return await show(output, Walk(output, sessions, store))
        except asyncio.CancelledError:
            raise Interrupted(signals[0]) from None
        finally:
            for session in sessions:
                await session.kill()


async def show(output: Output, walk: Walk) -> bool:
    """Show one step after the other; tell whether each was seen."""
    output.line(
        f"Three nodes on this machine keep one key-value store between them; their logs are in {walk.store}.", "bold"
    )
    async with contextlib.aclosing(walk):
        for number, (title, step) in enumerate(steps_for(walk.store), 1):
            output.line()
            output.line(f"{number:2}. {title}", "bold")
            try:
                with output.working("waiting for the nodes"):
                    seen = await step(walk)
            except (StepFailed, SessionError, QuorateError) as error:
                report_failure(output, walk, number, error)
                return False
            output.line(f"    ok: {seen}", "green")
    return True


def report_failure(output: Output, walk: Walk, number: int, error: Exception) -> None:
    """Say which step failed and why, with what the nodes logged last."""
    output.line(f"    Step {number} failed: {error}", "bold red")
    for session in walk.sessions:
        output.line(f"    {session.name} logged last:", "yellow")
        for text in session.log_tail():
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
