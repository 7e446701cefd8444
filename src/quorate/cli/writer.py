"""The client of the demo: writes one key after the other while leaders come and go, and remembers what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from quorate import Address, OutcomeUnknown, QuorateError, connect
from quorate.machines import KV

PAUSE = 0.01
"""Seconds between two writes: often in the midst of one when a leader dies, and few enough to read all back."""


class Writer:
    """Writes keys in the background.

    Attributes:
        acknowledged: the writes that were acknowledged.
        unknown: how many writes had an outcome that could not be learned.
        failure: the last error; None when there was none.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        """Know the members of the group; nothing is opened yet."""
        self.acknowledged: dict[str, str] = {}
        self.unknown: int = 0
        self.failure: QuorateError | None = None
        self._client = connect(KV, *addresses)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Write no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

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

    async def _write(self) -> None:
        """Write until it is stopped."""
        for number in itertools.count(1):
            key, value = f"key{number}", f"value{number}"
            try:
                await self._client.write(KV.set, key, value)
            except OutcomeUnknown as error:
                self.unknown += 1
                self.failure = error
            except QuorateError as error:
                self.failure = error
            else:
                self.acknowledged[key] = value
            await asyncio.sleep(PAUSE)
