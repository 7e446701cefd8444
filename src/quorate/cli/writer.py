"""The client of the demo: writes one key after the other while leaders come and go, and remembers what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from quorate import Address, OutcomeUnknown, QuorateError, Rejected, connect
from quorate.machines import KV

PAUSE = 0.01
"""Seconds between two writes: often in the midst of one when a leader dies, and few enough to read all back."""

READS = 200
"""How many keys are read at once in the end."""


class Writer:
    """Writes keys in the background.

    Attributes:
        begun: the keys of all writes.
        acknowledged: the writes that were acknowledged.
        pauses: for each of them, the seconds since the one before.
        unknown: how many writes had an outcome that could not be learned.
        failure: the last error; None when there was none.
    """

    def __init__(self, addresses: Sequence[Address], lanes: int = 1) -> None:
        """Know the members of the group; nothing is opened yet.

        Args:
            addresses: of the members, those to come among them.
            lanes: how many write at once.
        """
        self.begun: list[str] = []
        self.acknowledged: dict[str, str] = {}
        self.pauses: list[float] = []
        self.unknown: int = 0
        self.failure: QuorateError | None = None
        self._client = connect(KV, *addresses)
        self._lanes = lanes
        self._numbers = itertools.count(1)
        self._latest = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def summary(self) -> str:
        """How many writes were acknowledged, and how long there was none at most."""
        return f"{len(self.acknowledged)} writes acknowledged, the longest pause {self.longest_pause():.2f} s"

    def longest_pause(self, since: int = 0) -> float:
        """Give the most seconds between two acknowledgements, after a number of them."""
        return max(self.pauses[since:], default=0.0)

    def start(self) -> None:
        """Begin to write."""
        self._latest = asyncio.get_running_loop().time()
        self._tasks = [asyncio.create_task(self._write()) for _ in range(self._lanes)]

    async def stop(self) -> None:
        """Write no more."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        """Write no more, and close the connections."""
        await self.stop()
        await self._client.close()

    async def lost(self) -> list[str]:
        """Read back each write that was acknowledged; give the keys of those that are not there."""
        lost = []
        for key, value in self.acknowledged.items():
            try:
                if await self._client.read(KV.get, key) != value:
                    lost.append(key)
            except QuorateError as error:
                lost.append(f"{key} ({error})")
        return lost

    async def held_by(self, member: Address) -> dict[str, str]:
        """Read from one member's own machine each key that was written, acknowledged or not; give those it has.

        Raises:
            QuorateError: it does not answer.
        """
        held: dict[str, str] = {}
        async with connect(KV, member, follow=False) as client:
            stale = client.with_options(consistency="stale")

            async def read(key: str) -> None:
                with contextlib.suppress(Rejected):
                    held[key] = await stale.read(KV.get, key)

            for first in range(0, len(self.begun), READS):
                await asyncio.gather(*map(read, self.begun[first : first + READS]))
        return held

    async def _write(self) -> None:
        """Write until it is stopped."""
        for number in self._numbers:
            key, value = f"key{number}", f"value{number}"
            self.begun.append(key)
            try:
                await self._client.write(KV.set, key, value)
            except OutcomeUnknown as error:
                self.unknown += 1
                self.failure = error
            except QuorateError as error:
                self.failure = error
            else:
                self._acknowledge(key, value)
            await asyncio.sleep(PAUSE)

    def _acknowledge(self, key: str, value: str) -> None:
        """Remember a write that was acknowledged, and for how long there was none."""
        now = asyncio.get_running_loop().time()
        self.acknowledged[key] = value
        self.pauses.append(now - self._latest)
        self._latest = now
