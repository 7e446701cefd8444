"""What the harness starts, it ends: however it is left, and whatever the program is doing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from benchmarks.processes import Programs, cpu_seconds, resident_bytes

ECHO = """
import asyncio, benchmarks.programs.lines as lines

async def obey(words):
    if words == ["hang"]:
        await asyncio.sleep(3600)
    return words

lines.run(lines.obey_lines(obey), "asyncio")
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the harness watches /proc")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_program_answers_and_ends_with_those_who_started_it() -> None:
    async with Programs() as programs:
        program = await programs.start("echo", sys.executable, "-c", ECHO)
        assert await program.ask() == "ready"
        assert await program.ask("a", 1) == ["a", 1]
        assert resident_bytes(program.pid) > 2**20
        assert cpu_seconds([program.pid]) > 0
        assert is_there(program.pid)
    assert not is_there(program.pid)
    assert program.process.returncode == 0


async def test_a_harness_that_is_cancelled_ends_busy_programs_and_stubborn_ones() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(3600)"
    pids: list[int] = []
    started = asyncio.Event()

    async def harness() -> None:
        async with Programs() as programs:
            busy = await programs.start("busy", sys.executable, "-c", ECHO)
            server = await programs.start("server", sys.executable, "-c", stubborn, obeys=False)
            assert await busy.ask() == "ready"
            pids.extend((busy.pid, server.pid))
            started.set()
            await busy.ask("hang")

    task = asyncio.ensure_future(harness())
    await started.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(pids) == 2
    assert not any(is_there(pid) for pid in pids)


async def test_a_program_that_ended_is_no_answer() -> None:
    async with Programs() as programs:
        program = await programs.start("echo", sys.executable, "-c", ECHO)
        assert await program.ask() == "ready"
        program.process.send_signal(signal.SIGKILL)
        with pytest.raises(RuntimeError, match="echo ended"):
            await program.ask("a")
