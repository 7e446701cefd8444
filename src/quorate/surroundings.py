"""What a node lives in: network, disk, clock and chance, as one value. The real ones, or those of a simulation."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from quorate.loop import Clock
from quorate.store import LogStore
from quorate.store.directory import Directory
from quorate.store.disk import Executor
from quorate.transport import Transport

NOT_RUNNING = "the node is not running; call its start(), or use it in a `with`"
"""What is said of a node that was not started, or was stopped."""


class Surroundings(msgspec.Struct, frozen=True):
    """What a node lives in: the real things by default, those of the simulator in a simulation.

    Attributes:
        transport: the network.
        executor: runs what the disk does, one job at a time, away from the loop.
        aside: runs what takes long, snapshots, beside that.
        clock: monotonic time, and calls at an instant.
        wall: the wall clock, seconds since 1970.
        random: chance.
        directory: opens the node's identities, given its address.
        store: opens the store.
    """

    transport: Transport
    executor: Executor
    aside: Executor
    clock: Clock
    wall: Callable[[], float]
    random: random.Random
    directory: Callable[[str], Directory]
    store: Callable[[Directory], LogStore]
