"""Clients from outside: they write and read all the while, and note what they see.

Two sorts of keys, of each a dozen in use at a time, and each given up for a fresh one after some calls, so that the
history of one key stays short enough to be judged:

- **registers** are set, compared and set, deleted, appended to, read;
- **ledgers** are appended to alone, each time with a text of its own, and read: whoever looks at one at the end sees
  with his own eyes what was lost or doubled.

Some reads ask the leader, others whichever node comes; all must be linearizable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

from quorate import Address, Client, QuorateError, Rejected, connect
from quorate.machine import ReadMethod, WriteMethod
from quorate.machines import KV
from quorate.testing.history.operations import Recorder

REGISTERS = 18
LEDGERS = 6
CALLS_MAX = 100
"""After so many calls of a key a fresh one takes its place."""

TIMEOUT = 2.0
"""The deadline of a call, seconds."""

BACK_OFF = 0.1
"""The pause after a call that failed, seconds."""


Method = WriteMethod[KV, ..., Any] | ReadMethod[KV, ..., Any]


class Keys:
    """The keys in use, and those that were.

    Attributes:
        ledgers: every ledger so far.
        registers: every register so far.
    """

    def __init__(self) -> None:
        """Begin with the first of each."""
        self.registers: list[str] = []
        self.ledgers: list[str] = []
        self._calls: dict[str, int] = {}
        self._register_slots = [self._fresh("register", self.registers) for _ in range(REGISTERS)]
        self._ledger_slots = [self._fresh("ledger", self.ledgers) for _ in range(LEDGERS)]

    def register(self, chance: random.Random) -> str:
        """Draw a register for a call."""
        return self._use(self._register_slots, chance.randrange(REGISTERS), "register", self.registers)

    def ledger(self, chance: random.Random) -> str:
        """Draw a ledger for a call."""
        return self._use(self._ledger_slots, chance.randrange(LEDGERS), "ledger", self.ledgers)

    def _use(self, slots: list[str], place: int, kind: str, known: list[str]) -> str:
        """Count a call of a key, and give the key; it may be the last call."""
        key = slots[place]
        self._calls[key] += 1
        if self._calls[key] >= CALLS_MAX:
            slots[place] = self._fresh(kind, known)
        return key

    def _fresh(self, kind: str, known: list[str]) -> str:
        """Make a key."""
        key = f"{kind}{len(known)}"
        known.append(key)
        self._calls[key] = 0
        return key


class Load:
    """All clients of a run.

    Attributes:
        keys: what they call.
        recorder: what they saw.
        acknowledged: when each write was acknowledged, seconds on the monotonic clock, ascending.
        repeats: how many tries of writes their clients made after the first one, in their sessions.
    """

    def __init__(self, addresses: Sequence[Address], chance: random.Random, *, clients: int, rate: float) -> None:
        """Describe the clients; nothing is called yet.

        Args:
            addresses: of all nodes.
            chance: draws the calls.
            clients: how many there are; each makes one call at a time.
            rate: how many calls a second they make together at most.
        """
        self.keys: Keys = Keys()
        self.recorder: Recorder = Recorder()
        self.acknowledged: list[float] = []
        self.repeats: int = 0
        self._addresses = list(addresses)
        self._chance = chance
        self._clients = clients
        self._pause = clients / rate
        self._seen: dict[str, str | None] = {}
        self._words = itertools.count()
        self._stopping = False

    async def run(self) -> None:
        """Call until ``stop``, and end with the last calls."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._run_client(number), name=f"client {number}")

    def stop(self) -> None:
        """Begin no further call."""
        self._stopping = True

    async def read_all(self) -> dict[str, str | None]:
        """Read every key, as one more client, and note it; give the value of each, None for unknown keys.

        Raises:
            Unavailable: the group does not answer.
        """
        found: dict[str, str | None] = {}
        async with connect(KV, *self._addresses) as kv:
            patient = kv.with_options(timeout=30)
            for key in [*self.keys.registers, *self.keys.ledgers]:
                await self._call(patient, self._clients, KV.get, key)
                found[key] = self._seen.get(key)
        return found

    async def _run_client(self, number: int) -> None:
        """Call, one after the other, with pauses as the rate wants them."""
        async with contextlib.AsyncExitStack() as stack:
            kv = await stack.enter_async_context(connect(KV, *self._addresses))
            single = [await stack.enter_async_context(connect(KV, a, follow=False)) for a in self._addresses]
            while not self._stopping:
                method, *arguments = self._draw(number)
                asked = kv
                if method is KV.get and self._chance.random() < 0.4:
                    asked = self._chance.choice(single)
                due = time.monotonic() + self._pause * 2 * self._chance.random()
                try:
                    await self._call(asked.with_options(timeout=TIMEOUT), number, method, *arguments)
                except QuorateError:
                    due += BACK_OFF
                await asyncio.sleep(due - time.monotonic())
            self.repeats += kv._following.repeats

    def _draw(self, number: int) -> tuple[Any, ...]:
        """Draw a call."""
        chance = self._chance
        word = f"{number}-{next(self._words)} "
        if chance.random() < 0.35:
            key = self.keys.ledger(chance)
            return (KV.get, key) if chance.random() < 0.4 else (KV.append, key, word)
        key = self.keys.register(chance)
        match chance.choices(("get", "set", "append", "compare", "delete"), (40, 25, 10, 20, 5))[0]:
            case "get":
                return KV.get, key
            case "set":
                return KV.set, key, word
            case "append":
                return KV.append, key, word
            case "compare":
                return KV.compare_and_set, key, self._seen.get(key), word
            case _:
                return KV.delete, key

    async def _call(self, kv: Client[KV], number: int, method: Method, key: str, *arguments: str | None) -> None:
        """Make one call and note it; an unknown key is an answer like any other.

        Raises:
            QuorateError: it failed, or nobody knows what became of it.
        """
        operation = self.recorder.invoke(number, method, key, *arguments)
        try:
            if isinstance(method, ReadMethod):
                output: object = await kv.read(method, key, *arguments)
            else:
                output = await kv.write(method, key, *arguments)
                self.acknowledged.append(time.monotonic())
        except Rejected as rejected:
            self.recorder.raised(operation, rejected)
            self._seen[key] = None
        except BaseException as error:
            self.recorder.raised(operation, error)
            raise
        else:
            self.recorder.ok(operation, output)
            self._seen[key] = value_after(method, arguments, output, self._seen.get(key))


def value_after(
    method: Method,
    arguments: Sequence[str | None],
    output: object,
    before: str | None,
) -> str | None:
    """Give the value that a key had when a call was answered, as far as that tells; else what it was before."""
    match method.name:
        case "delete":
            return None
        case "compare_and_set":
            return arguments[1] if output else before
        case _:
            return str(output)
