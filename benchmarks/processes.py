"""Processes of the harness: started, asked by JSON lines, watched in /proc, and ended, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0
"""Seconds that a process may take to answer, beside what it is told to measure."""


class Program:
    """One process that the harness started.

    Attributes:
        name: what it is, for messages.
        process: it.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    async def ask(self, *words: object, seconds: float = 0.0) -> Any:  # noqa: ANN401 - what JSON holds
        """Send one line, and give the answer, which may take ``seconds`` and some patience; without words, just wait.

        Raises:
            RuntimeError: the process ended, or did not answer.
        """
        assert self.process.stdin is not None, "it was started with a pipe"
        assert self.process.stdout is not None, "it was started with a pipe"
        if words:
            self.process.stdin.write(json.dumps(words).encode() + b"\n")
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise RuntimeError(f"{self.name} did not answer to {str(words)[:80]}") from None
        if not line:
            raise RuntimeError(f"{self.name} ended; its error output is above")
        return json.loads(line)

    async def end(self) -> None:
        """End it: ask by closing its input, then by signals."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        for seconds, number in ((5.0 if self.process.stdin else 0.0, signal.SIGTERM), (5.0, signal.SIGKILL)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), seconds)
            if self.process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        await self.process.wait()


class Programs(contextlib.AsyncExitStack):
    """Starts processes, and ends all of them at its end, also when it is cancelled.

    Each has a session of its own, so that Ctrl-C reaches the harness alone, which then ends them. One that reads
    its standard input ends by itself should the harness be killed; any other is killed with it, where setpriv is found.
    """

    async def start(
        self, name: str, *command: str | Path, obeys: bool = True, is_quiet: bool = False, cwd: Path = ROOT
    ) -> Program:
        """Start a process in a directory; with ``obeys`` it takes lines; the errors of a quiet one are not shown."""
        words = list(map(str, command))
        if not obeys and (setpriv := shutil.which("setpriv")):
            words = [setpriv, "--pdeathsig", "KILL", *words]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=PIPE if obeys else None,
            stdout=PIPE if obeys else DEVNULL,
            stderr=DEVNULL if is_quiet else None,
            limit=2**24,
            cwd=cwd,
            start_new_session=True,
        )
        program = Program(name, process)
        self.push_async_callback(program.end)
        return program

    async def start_python(self, name: str, module: str, *words: str | Path, is_quiet: bool = False) -> Program:
        """Start one of ``benchmarks.programs``, and wait until it is ready."""
        command = (sys.executable, "-m", f"benchmarks.programs.{module}", *words)
        program = await self.start(name, *command, is_quiet=is_quiet)
        if await program.ask() != "ready":
            raise RuntimeError(f"{name} did not say that it is ready")
        return program


def free_ports(count: int) -> list[int]:
    """Give ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for port in taken:
            port.bind(("127.0.0.1", 0))
        return [port.getsockname()[1] for port in taken]


def cpu_seconds(pids: list[int]) -> float:
    """Give the CPU seconds that processes have used so far, user and system."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Give how much memory of a process is resident now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
