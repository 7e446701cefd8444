"""The processes of a group, and their lives: started, asked, stopped, killed, paused, emptied, and never lost.

Knows processes, directories and what stands between the nodes; what is done to them is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quorate import Address
from quorate.testing.chaos.isolation import Isolation

PATIENCE = 60.0
"""Seconds that a process may take to be ready, or to end when asked to: far more than it ever should."""

ENTRY = ("-m", "quorate.testing.chaos.node")
"""What Python runs as a node."""


class NodeGone(Exception):
    """The process of a node ended, or did not answer; the message says which."""


class Refused(Exception):
    """A node refused what it was asked.

    Attributes:
        kind: the name of the error, one of ``quorate.errors``.
    """

    def __init__(self, kind: str, text: str) -> None:
        """Keep both."""
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the nodes of a run are made.

    Attributes:
        directory: where their data and their logs go.
        store: the name of their store.
        settings: the knobs that are not as they are by default.
        entry: what Python runs: arguments of the interpreter.
    """

    directory: Path
    store: str = "rocksdb"
    settings: Mapping[str, float] = field(default_factory=dict)
    entry: Sequence[str] = ENTRY


class NodeProcess:
    """One node: a name, an address, a directory, and at most one process.

    Attributes:
        name: of the node, and of its peer.
        address: where it listens.
        lives: how many processes it has had.
        accidents: what its processes did that nobody asked for, such as ending.
    """

    def __init__(self, address: Address, recipe: Recipe, isolation: Isolation) -> None:
        """Describe a node; nothing runs yet."""
        self.name: str = address.name
        self.address: Address = address
        self.lives: int = 0
        self.accidents: list[str] = []
        self._recipe = recipe
        self._isolation = isolation
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._expects_end = False

    @property
    def is_running(self) -> bool:
        """Whether it has a process, be it paused."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The id of its process, or of the last one."""
        assert self._process is not None, "the node was never started"
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Where its processes log."""
        return self._recipe.directory / f"{self.name}.log"

    @property
    def data_dir(self) -> Path:
        """Where its data are."""
        return self._recipe.directory / self.name

    async def start(self, join: Sequence[Address] = ()) -> None:
        """Start the process and wait until the peer runs, and is a member if it is to join.

        Args:
            join: members of the group that it is to join; one that is a member already asks nobody.

        Raises:
            NodeGone: it ended, or was not ready in time.
            Refused: it did not become a member, and has ended.
        """
        wrapping = self._isolation.wrapping(self.name)
        command = [*wrapping.prefix, sys.executable, *self._recipe.entry, "--peer", str(self.address)]
        command += ["--data-dir", str(self.data_dir), "--store", self._recipe.store]
        command += ["--settings", json.dumps(dict(self._recipe.settings))]
        command += [part for seed in join for part in ("--join", str(seed))]
        command += [part for name, node in wrapping.told.items() for part in ("--told", f"{name}@{node}")]
        self.lives += 1
        self._expects_end = False
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=log, pass_fds=wrapping.descriptors, start_new_session=True
            )
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies = {0: ready}
        self._reading = asyncio.create_task(self._read(self._process, self._replies), name=f"replies of {self.name}")
        await self._answer(ready, PATIENCE)

    async def ask(self, call: str, *arguments: str, within: float) -> str | None:
        """Ask the node for something that ``node.py`` knows; give its answer.

        Args:
            call: what is asked for.
            arguments: what belongs to it.
            within: seconds that it may take.

        Raises:
            NodeGone: the process ended, or did not answer in time.
            Refused: it answered that it cannot.
        """
        if not self.is_running:
            raise NodeGone(f"{self.name} does not run")
        assert self._process is not None, "it runs"
        assert self._process.stdin is not None, "it was started with a pipe"
        self._number += 1
        request = {"id": self._number, "call": call, "arguments": arguments, "timeout": within}
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[self._number] = reply
        with contextlib.suppress(ConnectionError):  # Who reads its replies sees that it has ended.
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        value: str | None = (await self._answer(reply, within + 1))["value"]
        return value

    async def kill(self) -> None:
        """End the process with SIGKILL, if there is one: no code of its runs any more."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask the process to end, and wait for that; an exit status other than 0 is an accident.

        Raises:
            NodeGone: it does not end.
        """
        if not self.is_running:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            raise NodeGone(f"{self.name} did not stop within {PATIENCE:g} s") from None
        assert self._process is not None, "it ran"
        if self._process.returncode != 0:
            self.accidents.append(f"{self.name} ended with exit status {self._process.returncode} when it was stopped")

    def pause(self) -> None:
        """Stop the process with SIGSTOP: it does nothing, and nobody is told."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on, if there is one."""
        self._signal(signal.SIGCONT)

    def empty(self) -> None:
        """Remove all its data; the process must have ended."""
        assert not self.is_running, "a process owns the directory"
        shutil.rmtree(self.data_dir, ignore_errors=True)

    async def _end(self, number: signal.Signals) -> None:
        """Send a signal that ends the process, and wait until it has, and all that it printed is read."""
        self._expects_end = True
        self._signal(number)
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    def _signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if there is one."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _answer(self, future: asyncio.Future[dict[str, Any]], within: float) -> dict[str, Any]:
        """Wait for a reply.

        Raises:
            NodeGone: it does not come.
            Refused: it says that what was asked cannot be done.
        """
        try:
            async with asyncio.timeout(within):
                answer = await future
        except TimeoutError:
            raise NodeGone(f"{self.name} did not answer within {within:g} s") from None
        if "error" in answer:
            raise Refused(answer["error"], answer["text"])
        return answer

    async def _read(self, process: Process, replies: dict[int, asyncio.Future[dict[str, Any]]]) -> None:
        """Hand over what a process prints, until it ends."""
        assert process.stdout is not None, "it was started with a pipe"
        while line := await process.stdout.readline():
            reply = json.loads(line)
            self._expects_end |= reply["id"] == 0 and "error" in reply
            future = replies.pop(reply["id"], None)
            if future is not None and not future.done():
                future.set_result(reply)
        status = await process.wait()
        if not self._expects_end:
            self.accidents.append(f"{self.name} ended by itself, with exit status {status}")
        for future in replies.values():
            if not future.done():
                future.set_exception(NodeGone(f"the process of {self.name} has ended"))
                future.exception()  # seen, should nobody wait for it any longer


class Cluster:
    """All nodes of a group.

    Attributes:
        nodes: by name.
    """

    def __init__(self, recipe: Recipe, isolation: Isolation) -> None:
        """Describe the nodes that the isolation has room for."""
        self.nodes: dict[str, NodeProcess] = {
            name: NodeProcess(address, recipe, isolation) for name, address in isolation.addresses.items()
        }

    @property
    def addresses(self) -> list[Address]:
        """Where the nodes are."""
        return [node.address for node in self.nodes.values()]

    @property
    def accidents(self) -> list[str]:
        """What processes did that nobody asked for."""
        return [accident for node in self.nodes.values() for accident in node.accidents]

    async def form(self) -> None:
        """Start all nodes, and form the group.

        Raises:
            NodeGone: one is not ready in time.
            Refused: the group cannot be formed.
        """
        await asyncio.gather(*(node.start() for node in self.nodes.values()))
        first = next(iter(self.nodes.values()))
        await first.ask("form", *map(str, self.addresses), within=PATIENCE)

    async def stop(self) -> None:
        """Stop all nodes as an operator would.

        Raises:
            NodeGone: one does not end.
        """
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))

    async def kill(self) -> None:
        """End every process there still is."""
        await asyncio.gather(*(node.kill() for node in self.nodes.values()))

    def others(self, name: str) -> list[Address]:
        """Give where all nodes but one are."""
        return [node.address for node in self.nodes.values() if node.name != name]
