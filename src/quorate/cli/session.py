"""A ``quorate shell`` in a process of its own, and who types into it: how the demo runs its nodes.

What is typed is what a person would type, and what comes back is what a person would see.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from quorate import Address

PROMPT = b">>> "

PATIENCE = 20.0
"""Seconds that a session may take to start, to answer a line, or to end: far more than it ever should."""


class SessionError(Exception):
    """A session ended, or did not answer; the message says which."""


class Session:
    """One node in a process of its own, with a prompt.

    Attributes:
        address: its peer.
        command: the arguments after ``quorate`` that start it.
    """

    def __init__(self, address: Address, store: str, directory: Path, settings: Sequence[str] = ()) -> None:
        """Describe a session; nothing runs yet.

        Args:
            address: the peer, and where its node listens.
            store: the name of the store.
            directory: where its data and its log file go.
            settings: the knobs that are not as they are by default, each ``NAME=VALUE``.
        """
        self.address = address
        self.data_dir: Path = directory / address.name
        place = ["--store", store] if store != "rocksdb" else []  # as a person would type it: not what is so anyway
        place += ["--data-dir", str(self.data_dir)] if store != "memory" else []
        knobs = [argument for setting in settings for argument in ("--setting", setting)]
        self.command: list[str] = ["shell", "quorate.machines:KV", "--peer", str(address), *place, *knobs]
        self._log_path = directory / f"{address.name}.log"
        self._process: Process | None = None

    @property
    def name(self) -> str:
        """The name of the peer."""
        return self.address.name

    @property
    def pid(self) -> int:
        """The id of the process that runs, or of the last one."""
        return self._running.pid

    @property
    def _running(self) -> Process:
        """The process that runs, or the last one."""
        assert self._process is not None, "the session was never started"
        return self._process

    @property
    def _input(self) -> asyncio.StreamWriter:
        """What it reads."""
        stdin = self._running.stdin
        assert stdin is not None, "it was started with a pipe"
        return stdin

    async def start(self) -> str:
        """Start the process; give what it prints before its first prompt.

        Raises:
            SessionError: it ended, or did not answer.
        """
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "quorate", *self.command, "--log-level", "info"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the demo is for the demo, which then ends the nodes.
            )
        return await self._read()

    async def type(self, code: str) -> str:
        """Type a line; give what it prints.

        Raises:
            SessionError: the process ended, or did not answer.
        """
        try:
            self._input.write(code.encode() + b"\n")
            await self._input.drain()
        except ConnectionError as error:
            raise SessionError(f"the process of {self.name} has ended") from error
        return await self._read()

    async def kill(self) -> None:
        """End the process with SIGKILL, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        """Leave the prompt, and wait for the node to stop.

        Raises:
            SessionError: it did not end, or not well.
        """
        with contextlib.suppress(ConnectionError):
            # Not by the end of the input alone: its status would tell whether anything that was typed has raised.
            self._input.write(b"raise SystemExit\n")
            await self._input.drain()
        self._input.close()
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._running.wait()
        except TimeoutError as error:
            raise SessionError(f"{self.name} did not stop within {PATIENCE:g} s") from error
        if status != 0:
            raise SessionError(f"{self.name} ended with exit status {status}")

    def log_tail(self, lines: int = 8) -> list[str]:
        """Give the last lines of what the process logged."""
        return self.log()[-lines:]

    def log(self) -> list[str]:
        """Give all lines that the process logged."""
        if not self._log_path.exists():
            return []
        return self._log_path.read_text("utf-8", "replace").splitlines()

    async def _read(self) -> str:
        """Read up to the next prompt.

        Raises:
            SessionError: the process ended, or did not answer.
        """
        output = self._running.stdout
        assert output is not None, "it was started with a pipe"
        try:
            async with asyncio.timeout(PATIENCE):
                printed = await output.readuntil(PROMPT)
        except asyncio.IncompleteReadError as error:
            raise SessionError(f"the process of {self.name} has ended") from error
        except TimeoutError as error:
            raise SessionError(f"{self.name} did not answer within {PATIENCE:g} s") from error
        return printed.removesuffix(PROMPT).decode().strip()
