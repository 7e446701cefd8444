"""Machines that a test holds against their contract: each of the first has one fault, the last ones have none."""

from __future__ import annotations

import asyncio
import datetime
import enum
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import add
from pathlib import Path
from time import time as now
from typing import Annotated, Any, Literal

import msgspec

from quorate import Command, Query, Rejected, StateMachine, read, write


class Seats(StateMachine):
    taken: dict[int, str]

    def __init__(self) -> None:
        self.taken = {}

    @read
    def guest(self, seat: int) -> str | None:
        return self.taken.get(seat)


# What is read of the machine that a write runs on.


class WallClock(Seats):
    @write
    def take(self, seat: int) -> None:
        self.taken[seat] = f"at {now()}"  # fault


class Monotonic(Seats):
    @write
    def take(self, seat: int) -> bool:
        return time.monotonic() < 0  # fault


class Today(Seats):
    @write
    def take(self, seat: int) -> str:
        return str(datetime.datetime.now(datetime.UTC).year)  # fault


class Dice(Seats):
    @write
    def take(self) -> bool:
        return random.randrange(100) == 200  # fault


class OwnDice(Seats):
    @write
    def take(self) -> bool:
        return random.Random().random() > 1  # fault


class Ticket(Seats):
    @write
    def take(self) -> int:
        return len(str(uuid.uuid4()))  # fault


class File(Seats):
    @write
    def take(self) -> int:
        return len(Path(__file__).read_text("utf-8")) * 0  # fault


class Network(Seats):
    @write
    def take(self) -> bool:
        with socket.socket() as opened:  # fault
            return opened.fileno() < 0


class Host(Seats):
    @write
    def take(self) -> str:
        return socket.gethostname()  # fault


class Aside(Seats):
    @write
    def take(self, seat: int) -> None:
        threading.Thread(target=self.taken.get, args=(seat,)).start()  # fault


class Later(Seats):
    @write
    def take(self, seat: int) -> None:
        asyncio.get_running_loop().call_soon(self.taken.get, seat)  # fault


class Environment(Seats):
    @write
    def take(self) -> bool:
        return os.environ.get("NOBODY SETS THIS") is None  # fault


# What only other processes show.


class Queue(StateMachine):
    waiting: set[str]

    def __init__(self) -> None:
        self.waiting = set()

    @write
    def wait(self, guest: str) -> int:
        self.waiting.add(guest)
        return len(self.waiting)

    @write
    def first(self) -> str | None:
        known = sorted(self.waiting)
        for guest in self.waiting:  # fault
            return guest
        return known[0] if known else None


class Bill(StateMachine):
    """Adds up step by step: since Python 3.12 ``sum`` makes up for what is rounded, and hides most of the order."""

    paid: set[tuple[str, float]]

    def __init__(self) -> None:
        self.paid = set()

    @write
    def pay(self, guest: str, amount: int) -> float:
        self.paid.add((guest, 10.0 ** (7 * amount)))
        return reduce(add, (amount for _, amount in self.paid))  # fault


class Shelf(Seats):
    @write
    def take(self, guest: str) -> int:
        return hash(guest) % 8  # fault


class Address(Seats):
    @write
    def take(self, seat: int) -> None:
        self.taken[seat] = repr(object())


class Stopwatch(Seats):
    @write
    def take(self, seat: int) -> None:
        self.taken[seat] = f"after {time.perf_counter()}"  # fault


CACHE: dict[int, str] = {}


class Remembering(Seats):
    @write
    def take(self, seat: int, guest: str) -> str:
        return CACHE.setdefault(seat, guest)


# What copies show.


class Shared(Seats):
    visits: list[int]

    def __init__(self, visits: list[int] = []) -> None:  # noqa: B006 - the fault
        super().__init__()
        self.visits = visits

    @write
    def take(self, seat: int) -> int:
        self.visits.append(seat)
        return len(self.visits)


class Refusing(Seats):
    @write
    def take(self, seat: int, guest: str) -> None:
        before = self.taken.get(seat)
        self.taken[seat] = guest
        if before is not None:
            raise Rejected("taken", before)


class Counting(Seats):
    reads: int = 0

    @read
    def count(self) -> int:
        self.reads += 1
        return self.reads


class LiveRows(StateMachine):
    def __init__(self) -> None:
        self.rows: list[int] = []

    @write
    def add(self, row: int) -> int:
        self.rows.append(row)
        return len(self.rows)

    def snapshot(self) -> Iterator[bytes]:
        return (msgspec.msgpack.encode(row) for row in self.rows)  # what they are when the chunks are taken

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.rows = [msgspec.msgpack.decode(chunk, type=int) for chunk in chunks]


class HalfRows(LiveRows):
    def snapshot(self) -> Iterator[bytes]:
        return iter([msgspec.msgpack.encode(row) for row in self.rows if row % 2])


class Table(StateMachine):
    """Its set is walked in the order of its history, which no snapshot keeps."""

    numbers: set[int]

    def __init__(self) -> None:
        self.numbers = set()

    @write
    def add(self, number: int) -> int:
        self.numbers.add(8 * number)
        return next(iter(self.numbers))  # fault

    @write
    def remove(self, number: int) -> None:
        self.numbers.discard(8 * number)


class Stopping(Seats):
    @write
    def take(self) -> None:
        raise OSError("no such thing")


# Correct machines.


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Tree(msgspec.Struct, frozen=True):
    name: str
    parts: list[Tree] = []


@dataclass(frozen=True)
class Place:
    row: Annotated[int, msgspec.Meta(ge=10, le=12)]
    side: Literal["left", "right"]


class Paint(Command[int], tag="paint"):
    colour: Colour
    place: Place


class Painted(Query[int], tag="painted"):
    colour: Colour | None = None


class Waiting(StateMachine):
    """Has a length: while nobody waits it is nothing to Python, however many it has served."""

    waiting: list[str]
    served: int

    def __init__(self) -> None:
        self.waiting = []
        self.served = 0

    def __len__(self) -> int:
        return len(self.waiting)

    @write
    def wait(self, guest: str) -> None:
        self.waiting.append(guest)

    @write
    def serve(self) -> int:
        self.served += len(self.waiting)
        self.waiting.clear()
        return self.served


class Kinds(StateMachine):
    """Takes all kinds of parameters, logs, measures itself, and draws from the log's own dice."""

    log: list[str]
    known: set[str]

    def __init__(self) -> None:
        self.log = []
        self.known = set()

    @write
    def numbers(self, whole: int, real: float, exact: Decimal, span: datetime.timedelta, even: bool) -> str:
        begun = time.perf_counter()
        self.log.append(f"{whole} {real} {exact} {span} {even} {self.context.now} {self.context.random.random()}")
        logging.getLogger("kinds").debug("took %s s", time.perf_counter() - begun)
        return self.log[-1]

    @write
    def texts(
        self, text: str, raw: bytes, instant: datetime.datetime, day: datetime.date, ticket: uuid.UUID
    ) -> set[str]:
        self.known |= {text, raw.hex(), str(instant), str(day), str(ticket)}
        return self.known

    @write
    def containers(
        self,
        items: list[int],
        by_name: dict[str, tuple[int, ...]],
        some: frozenset[str],
        pair: tuple[int, str | None],
        tree: Tree,
        anything: Any,
    ) -> list[str]:
        self.log.append(f"{items} {by_name} {sorted(some)} {pair} {tree} {anything}")
        return sorted(self.known)

    @read
    def last(self, count: int = 1) -> list[str]:
        return self.log[-count:]

    def handle_write(self, command: Paint) -> object:
        self.log.append(command.colour.value)
        return command.place.row

    def handle_read(self, query: Painted) -> object:
        return sum(1 for colour in self.log if query.colour is None or colour == query.colour.value)
