"""The way of one write through three processes: when each step of it was done, and so what the caller waits for.

One caller makes one write after the other at the leader. The monotonic clock is the same in all processes of a machine;
noting an instant takes about a third of a microsecond.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import Programs
from benchmarks.quorate_cluster import start_nodes
from benchmarks.systems import VALUE
from quorate.apply import Apply
from quorate.loop import Loop
from quorate.seat import Seat
from quorate.store.disk import Disk
from quorate.store.rocksdb import RocksDBStore
from quorate.transport.connection import Connection

SECONDS = 2.0

Mark = tuple[float, str]
"""An instant, and what began or ended then."""

WATCHED: tuple[tuple[type, str], ...] = (
    (Seat, "write"),
    (Loop, "_send_frames"),
    (Connection, "data_received"),
    (Disk, "write"),
    (RocksDBStore, "append"),
    (RocksDBStore, "sync"),
    (Loop, "_persisted"),
    (Apply, "apply"),
)
"""The methods whose beginnings and ends are noted."""

CALL = "Seat.write begins"

ACKNOWLEDGED = "µs until the follower's event loop knows, and acknowledges"

PATH: tuple[tuple[str, str, str], ...] = (
    ("µs until the leader has handed its frames to the system", "leader", "Loop._send_frames ends"),
    ("µs until a follower hears of it", "follower", "Connection.data_received begins"),
    ("µs until it is decoded, and the core has said what to store", "follower", "Disk.write begins"),
    ("µs until the disk thread begins", "follower", "RocksDBStore.append begins"),
    ("µs until the record is written", "follower", "RocksDBStore.append ends"),
    ("µs until it is synced", "follower", "RocksDBStore.sync ends"),
    (ACKNOWLEDGED, "follower", "Loop._persisted begins"),
    ("µs until the leader hears of that", "leader", "Connection.data_received begins"),
    ("µs until it is committed, and applied at the leader", "leader", "Apply.apply ends"),
)
"""What the caller of a write waits for, one after the other: in words, whose it is, and the mark.

The follower is the one that is done first. It hears of it while the leader still sends to the other one.
"""

BESIDE: tuple[tuple[str, str, str], ...] = (
    ("beside it: µs until the leader's own disk thread begins", "leader", "RocksDBStore.append begins"),
    ("beside it: µs until the leader's own copy is synced", "leader", "RocksDBStore.sync ends"),
)
AGAIN = "µs until the caller has its answer, and writes again"


class Marks:
    """Notes instants of the process it is in, from ``start`` on."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.marks: list[Mark] = []
        self.is_noting = False
        for owner, name in WATCHED:
            setattr(owner, name, self._noted(getattr(owner, name), f"{owner.__name__}.{name}"))

    def start(self) -> str:
        """Begin; say so."""
        self.is_noting = True
        return "noting"

    def stop(self) -> list[Mark]:
        """End; give what was noted, in order."""
        self.is_noting = False
        return self.marks

    def _noted(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        begins, ends, clock, note = f"{name} begins", f"{name} ends", time.perf_counter, self.marks.append

        @functools.wraps(method)
        def noting(*args: object, **kwargs: object) -> object:
            if not self.is_noting:
                return method(*args, **kwargs)
            note((clock(), begins))
            try:
                return method(*args, **kwargs)
            finally:
                note((clock(), ends))

        return noting


async def timeline(rounds: int, scale: float) -> dict[str, list[float]]:
    """Give when each step was done, µs after the call: the median of each round."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
            async with Programs() as programs:
                addresses, nodes = await start_nodes(
                    programs, Path(directory), "rocksdb", "uvloop", 1, 100_000, "timeline"
                )
                leader = nodes[addresses.index(await nodes[0].ask("form", addresses))]
                seconds = SECONDS * scale
                for node in nodes:
                    await node.ask("profile")
                await leader.ask("writes", VALUE, 1, seconds, seconds / 4, seconds=2 * seconds)
                noted = [Noted.of(msgspec.convert(await node.ask("profiled"), list[Mark])) for node in nodes]
        own = noted.pop(nodes.index(leader))
        for text, median in medians(own, noted).items():
            found.setdefault(text, []).append(median)
    return found


class Noted(msgspec.Struct, frozen=True):
    """What one process noted.

    Attributes:
        instants: of each kind of mark, ascending.
    """

    instants: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, marks: Sequence[Mark]) -> Noted:
        """Sort marks by what they are of."""
        instants: dict[str, list[float]] = {}
        for when, what in sorted(marks):
            instants.setdefault(what, []).append(when)
        return cls(instants)

    def first(self, what: str, since: float) -> float:
        """Give the first instant of a kind that is not before another one; infinity when there is none."""
        found = self.instants.get(what, ())
        place = bisect.bisect_left(found, since)
        return found[place] if place < len(found) else math.inf


def medians(leader: Noted, followers: Sequence[Noted]) -> dict[str, float]:
    """Give the median over all writes of when each step was done, µs after the call.

    Raises:
        RuntimeError: no write was seen from its beginning to its end.
    """
    calls = leader.instants.get(CALL, ())
    ways = [way(leader, followers, begin, end) for begin, end in itertools.pairwise(calls)]
    whole = [each for each in ways if max(each.values()) < math.inf]
    if not whole:
        raise RuntimeError("no write was seen from its beginning to its end")
    return {text: 1e6 * statistics.median(each[text] for each in whole) for text in whole[0]}


def way(leader: Noted, followers: Sequence[Noted], begin: float, end: float) -> dict[str, float]:
    """Give when each step of the write between two calls was done, seconds after the first; infinity for never."""
    found = min((steps(leader, follower, PATH, begin) for follower in followers), key=lambda each: each[ACKNOWLEDGED])
    found[AGAIN] = end
    found |= steps(leader, leader, BESIDE, leader.first("Disk.write begins", begin))
    return {text: when - begin if when <= end else math.inf for text, when in found.items()}


def steps(leader: Noted, follower: Noted, path: Sequence[tuple[str, str, str]], begin: float) -> dict[str, float]:
    """Give when each step was done, each the first of its kind behind the one before."""
    found: dict[str, float] = {}
    when = begin
    for text, whose, mark in path:
        # A follower may hear of it before the leader has spoken to both.
        since = begin if mark == "Connection.data_received begins" and whose == "follower" else when
        found[text] = when = (leader if whose == "leader" else follower).first(mark, since)
    return found
