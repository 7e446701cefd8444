"""Batteries: a counter, a list, a set, two queues and locks, each a group of its own on the same three nodes.

For those who come from PySyncObj; a replicated dict is quorate.machines.KV. Copy what you need, and change the types to
yours. Run it with: python examples/batteries.py
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from bisect import insort
from contextlib import AsyncExitStack

from quorate import Address, Node, Rejected, StateMachine, connect, read, write


class Counter(StateMachine):
    """A number."""

    value: int

    def __init__(self) -> None:
        self.value = 0

    @write
    def set(self, value: int) -> int:
        """Set it."""
        self.value = value
        return value

    @write
    def add(self, amount: int = 1) -> int:
        """Add to it, or take from it; give what it is then."""
        self.value += amount
        return self.value

    @read
    def get(self) -> int:
        """Give it."""
        return self.value


class Items(StateMachine):
    """A list."""

    items: list[str]

    def __init__(self) -> None:
        self.items = []

    @write
    def append(self, item: str) -> int:
        """Add an item at the end; give how many there are."""
        self.items.append(item)
        return len(self.items)

    @write
    def insert(self, position: int, item: str) -> None:
        """Put an item before the one at a position."""
        self.items.insert(position, item)

    @write
    def replace(self, position: int, item: str) -> str:
        """Put an item in the place of another; give that one."""
        if not -len(self.items) <= position < len(self.items):
            raise Rejected("no_such_position", position)
        before, self.items[position] = self.items[position], item
        return before

    @write
    def pop(self, position: int = -1) -> str:
        """Take an item out, and give it."""
        if not -len(self.items) <= position < len(self.items):
            raise Rejected("no_such_position", position)
        return self.items.pop(position)

    @write
    def remove(self, item: str) -> bool:
        """Take the first such item out; tell whether there was one."""
        if item not in self.items:
            return False
        self.items.remove(item)
        return True

    @write
    def sort(self, reverse: bool = False) -> None:
        """Sort them."""
        self.items.sort(reverse=reverse)

    @read
    def all(self) -> list[str]:
        """Give all of them."""
        return self.items


class Names(StateMachine):
    """A set, kept in order: the order of a Python set differs from process to process."""

    names: list[str]

    def __init__(self) -> None:
        self.names = []

    @write
    def add(self, name: str) -> bool:
        """Add a name; tell whether it is new."""
        if name in self.names:
            return False
        insort(self.names, name)
        return True

    @write
    def discard(self, name: str) -> bool:
        """Take a name out; tell whether it was there."""
        if name not in self.names:
            return False
        self.names.remove(name)
        return True

    @write
    def pop(self) -> str:
        """Take the first name out, and give it."""
        if not self.names:
            raise Rejected("empty")
        return self.names.pop(0)

    @read
    def contains(self, name: str) -> bool:
        """Tell whether a name is there."""
        return name in self.names


class Queue(StateMachine):
    """First in, first out."""

    length_max = 1000
    items: list[str]

    def __init__(self) -> None:
        self.items = []

    @write
    def put(self, item: str) -> int:
        """Put an item at the end; give how many there are."""
        if len(self.items) >= self.length_max:
            raise Rejected("full", self.length_max)
        self.items.append(item)
        return len(self.items)

    @write
    def get(self) -> str | None:
        """Take the first item out, and give it; None when there is none."""
        return self.items.pop(0) if self.items else None

    @read
    def length(self) -> int:
        """Give how many there are."""
        return len(self.items)


class PriorityQueue(StateMachine):
    """The lowest priority comes out first, and of equals the one that came first."""

    entries: list[tuple[int, int, str]]
    count: int

    def __init__(self) -> None:
        self.entries = []
        self.count = 0

    @write
    def put(self, priority: int, item: str) -> None:
        """Put an item in."""
        self.count += 1
        heapq.heappush(self.entries, (priority, self.count, item))

    @write
    def get(self) -> str | None:
        """Take the first item out, and give it; None when there is none."""
        return heapq.heappop(self.entries)[2] if self.entries else None


class Locks(StateMachine):
    """Locks that end by the time of the log, which is the same on every peer.

    Whoever has one holds a token that is higher than any before: what the lock protects can refuse those that come late
    with an old one.
    """

    holders: dict[str, tuple[str, float, int]]
    tokens: int

    def __init__(self) -> None:
        self.holders = {}
        self.tokens = 0

    @write
    def acquire(self, lock: str, owner: str, seconds: float) -> int:
        """Take a lock for so long, or prolong it; give the token. Refused while somebody else has it."""
        holder, until, token = self.holders.get(lock, (owner, 0.0, 0))
        if holder != owner and until > self.context.now:
            raise Rejected("held", holder)
        if holder != owner or until <= self.context.now:
            self.tokens = token = self.tokens + 1
        self.holders[lock] = (owner, self.context.now + seconds, token)
        return token

    @write
    def release(self, lock: str, owner: str) -> bool:
        """Give a lock back; tell whether one had it."""
        if lock not in self.holders or self.holders[lock][0] != owner:
            return False
        del self.holders[lock]
        return True


async def form(nodes: list[Node], machine: type[StateMachine]) -> list[Address]:
    """Form a group with one peer on each node; give the addresses of its members."""
    peers = [await node.start_peer(machine, name=f"{machine.__name__.lower()}{n}") for n, node in enumerate(nodes, 1)]
    members = [peer.address for peer in peers]
    await peers[0].set_configuration(*members)
    return members


async def show(nodes: list[Node], stack: AsyncExitStack) -> None:
    """Use each of them."""
    counter = await stack.enter_async_context(connect(Counter, *await form(nodes, Counter)))
    await counter.write(Counter.set, 42)
    print(f"counter: {await counter.write(Counter.add, 10)}, {await counter.write(Counter.add)}")

    items = await stack.enter_async_context(connect(Items, *await form(nodes, Items)))
    for item in ("pear", "fig", "plum"):
        await items.write(Items.append, item)
    await items.write(Items.sort)
    print(f"list: {await items.read(Items.all)}, pop: {await items.write(Items.pop)}")

    names = await stack.enter_async_context(connect(Names, *await form(nodes, Names)))
    added = [await names.write(Names.add, name) for name in ("bob", "ann", "bob")]
    print(f"set: {added}, pop: {await names.write(Names.pop)}")

    queue = await stack.enter_async_context(connect(Queue, *await form(nodes, Queue)))
    await asyncio.gather(*(queue.write(Queue.put, job) for job in ("one", "two", "three")))
    print(f"queue: {[await queue.write(Queue.get) for _ in range(4)]}")

    urgent = await stack.enter_async_context(connect(PriorityQueue, *await form(nodes, PriorityQueue)))
    for priority, job in ((5, "sweep"), (1, "fire"), (5, "mop")):
        await urgent.write(PriorityQueue.put, priority, job)
    print(f"priority queue: {[await urgent.write(PriorityQueue.get) for _ in range(3)]}")

    locks = await stack.enter_async_context(connect(Locks, *await form(nodes, Locks)))
    print(f"lock: ann has token {await locks.write(Locks.acquire, 'door', 'ann', 0.2)}")
    try:
        await locks.write(Locks.acquire, "door", "bob", 0.2)
    except Rejected as refused:
        print(f"lock: bob is refused, {refused}")
    await asyncio.sleep(0.3)
    print(f"lock: bob has token {await locks.write(Locks.acquire, 'door', 'bob', 0.2)}")


async def main() -> None:
    """Start three nodes, and show what runs on them."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node("127.0.0.1:0", store="memory")) for _ in range(3)]
        await show(nodes, stack)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
