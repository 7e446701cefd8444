"""A slow disk: strace attaches to a running process, and lets each fsync and fdatasync return late."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator

ATTACH_SECONDS = 5.0
"""How long strace may take to attach, and to let go."""


class CannotTrace(Exception):
    """There is no strace here, or it may not do this."""


@contextlib.asynccontextmanager
async def slow_syncs(pid: int, delay: float) -> AsyncIterator[None]:
    """Let each sync of a process take longer, for as long as the context lasts.

    Args:
        pid: the process, with all its threads.
        delay: how much longer, seconds.

    Raises:
        CannotTrace: strace is missing or may not attach, or the process is gone.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise CannotTrace("strace not found")
    inject = f"inject=fsync,fdatasync:delay_exit={round(delay * 1e6)}"
    tracer = await asyncio.create_subprocess_exec(
        *(strace, "-f", "-p", str(pid), "-e", "trace=fsync,fdatasync", "-e", inject, "-o", "/dev/null"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        await attached(tracer)
        yield
    finally:
        await end(tracer)


async def attached(tracer: Process) -> None:
    """Wait until strace says that it has attached.

    Raises:
        CannotTrace: it says something else, or nothing.
    """
    assert tracer.stderr is not None, "it was started with a pipe"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ATTACH_SECONDS):
            line = (await tracer.stderr.readline()).decode()
            if "attached" in line:
                return
            raise CannotTrace(line.strip() or "strace ended")
    raise CannotTrace("strace does not attach")


async def end(tracer: Process) -> None:
    """End strace: asked first, so that it lets go of the process in good order; the kernel does so if it is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            tracer.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTACH_SECONDS):
                await tracer.communicate()
                return


async def why_not() -> str | None:
    """Say why disks cannot be made slow here; None when they can: a process of ours is tried."""
    trial = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE)
    try:
        async with slow_syncs(trial.pid, 0.001):
            return None
    except CannotTrace as error:
        return str(error)
    finally:
        trial.kill()
        await trial.communicate()
