"""Locks with leases: who holds one must renew it, and who waits is told when it is free.

A lease ends by the time of the log, by a timer of the machine: no clock of a client or a peer decides it. Each time a
lock changes hands it gives out a greater token. Show the token to whatever the lock protects, and let that refuse a
smaller one than it has seen: so a holder that slept through the end of its lease does no harm. Run it with:
python examples/locks.py
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec

from quorate import Client, Event, Node, Rejected, StateMachine, connect, read, write


class Taken(Event):
    """Somebody holds the lock now."""

    name: str
    holder: str
    token: int


class Released(Event):
    """Nobody holds the lock any longer: it was given back, or its lease has ended."""

    name: str
    holder: str
    is_expired: bool


class Lease(msgspec.Struct, frozen=True):
    """Who holds a lock.

    Attributes:
        holder: who.
        token: what it shows to what the lock protects.
        timer: the timer at which the lease ends.
    """

    holder: str
    token: int
    timer: int


class Locks(StateMachine):
    """Locks by their names.

    Attributes:
        leases: the locks that are held.
        last_token: the token that was given out last.
    """

    emits = (Taken, Released)
    leases: dict[str, Lease]
    last_token: int

    def __init__(self) -> None:
        self.leases = {}
        self.last_token = 0

    @write
    def take(self, name: str, holder: str, seconds: float) -> int:
        """Take a lock that is free, or renew the lease that this holder has; give the token."""
        held = self.leases.get(name)
        if held is not None and held.holder != holder:
            raise Rejected("held", held.holder)
        timer = self.call_later(seconds, Locks.expire, name)
        if held is not None:
            self.cancel_call(held.timer)
            self.leases[name] = Lease(holder, held.token, timer)
            return held.token
        self.last_token += 1
        self.leases[name] = Lease(holder, self.last_token, timer)
        self.emit(Taken(name, holder, self.last_token))
        return self.last_token

    @write
    def release(self, name: str, token: int) -> None:
        """Give a lock back, unless its lease has ended: then it is somebody else's, or nobody's."""
        held = self.leases.get(name)
        if held is None or held.token != token:
            raise Rejected("not_yours", name)
        self.cancel_call(held.timer)
        self._free(name, is_expired=False)

    @write
    def expire(self, name: str) -> None:
        """End a lease: what its timer runs, and nobody else can."""
        held = self.leases.get(name)
        if held is None or held.timer != self.context.timer:
            raise Rejected("not_yet", name)
        self._free(name, is_expired=True)

    @read
    def holder(self, name: str) -> str | None:
        """Give who holds a lock, None for nobody."""
        held = self.leases.get(name)
        return held.holder if held else None

    def _free(self, name: str, *, is_expired: bool) -> None:
        held = self.leases.pop(name)
        self.emit(Released(name, held.holder, is_expired))


async def take(locks: Client[Locks], name: str, holder: str, seconds: float) -> int:
    """Take a lock, as soon as it is free."""
    async with locks.watch(Released) as changes:  # Before the first try: so no release is missed.
        while True:
            try:
                return await locks.write(Locks.take, name, holder, seconds)
            except Rejected as refused:
                print(f"{holder} waits: {refused.details[0]} holds it")
            async for change in changes:
                if change.event.name == name:
                    break


async def tell(locks: Client[Locks]) -> None:
    """Tell what happens to the locks, until everybody has had one."""
    async for change in locks.watch(Taken, Released, after=0):
        match change.event:
            case Taken(name, holder, token):
                print(f"{name} is taken by {holder}, token {token}")
            case Released(name, holder, is_expired):
                print(f"{name} is {'lost' if is_expired else 'given back'} by {holder}")
                if holder == "cat":
                    return


async def run(stack: AsyncExitStack) -> None:
    """Let three clients want one lock; the first one that has it dies, and the leader is stopped."""
    nodes = [await stack.enter_async_context(Node("127.0.0.1:0", store="memory")) for _ in range(3)]
    peers = [await node.start_peer(Locks, name=f"peer{number}") for number, node in enumerate(nodes, 1)]
    members = [peer.address for peer in peers]
    await peers[0].set_configuration(*members)
    locks = await stack.enter_async_context(connect(Locks, *members))
    telling = asyncio.create_task(tell(locks))

    lost = await take(locks, "door", "ann", 1.0)  # and ann is never heard of again
    bob = asyncio.create_task(take(locks, "door", "bob", 60.0))
    await asyncio.sleep(0.3)
    leader = await locks.leader()
    await next(peer for peer in peers if peer.address == leader).stop()
    token = await bob
    assert token > lost
    try:
        await locks.write(Locks.release, "door", lost)
    except Rejected as refused:
        print(f"ann is late: {refused}")

    cat = asyncio.create_task(take(locks, "door", "cat", 60.0))
    await asyncio.sleep(0.3)
    await locks.write(Locks.release, "door", token)
    await locks.write(Locks.release, "door", await cat)
    await telling


async def main() -> None:
    """Run it in one process."""
    async with AsyncExitStack() as stack:
        await run(stack)


if __name__ == "__main__":
    asyncio.run(main())
