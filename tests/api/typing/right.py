"""Right uses: type checkers find nothing here, and infer exactly these types."""

from __future__ import annotations

from typing import assert_type

from asked import Asked, Client, Node, Peer, connect
from sample import KV, Changed, Get, Ordered, Set, Stack, Wiped

from quorate import (
    Address,
    Change,
    Command,
    Compacted,
    NotLeader,
    OutcomeUnknown,
    SessionExpired,
    Settings,
    StaleRead,
    StateMachine,
    Status,
    write,
)


class End(Command[None]):
    name: str


async def methods(peer: Asked[KV]) -> None:
    assert_type(await peer.write(KV.set, "foo", "bar"), str)
    assert_type(await peer.write(KV.set, "foo", value="bar", times=2), str)
    assert_type(await peer.write(KV.delete, key="foo"), None)
    assert_type(await peer.read(KV.get, "foo"), str | None)
    assert_type(await peer.read(KV.count), int)


async def reads(peer: Asked[KV]) -> None:
    assert_type(await peer.read_stale(KV.get, "foo"), StaleRead[str | None])
    assert_type(await peer.read_stale(Get("foo")), StaleRead[str | None])
    assert_type((await peer.read_stale(KV.count)).value, int)
    assert_type((await peer.read_stale(KV.count)).age, float)
    assert_type(await peer.with_options(consistency="lease").read(KV.count), int)
    wider: StaleRead[object] = await peer.read_stale(KV.count)
    print(wider, peer.with_options(timeout=1.0, consistency="stale"))


async def structs(peer: Asked[KV]) -> None:
    assert_type(await peer.write(Set("foo", "bar")), str)
    assert_type(await peer.write(Set(key="foo")), str)
    assert_type(await peer.read(Get("foo")), str | None)


async def inherited(peer: Asked[Ordered]) -> None:
    assert_type(await peer.write(KV.set, "foo", "bar"), str)
    assert_type(await peer.write(Ordered.set, "foo", "bar"), str)
    assert_type(await peer.read(Ordered.first), str)


async def others(peer: Asked[KV]) -> None:
    assert_type(await peer.leader(), Address)
    assert_type(peer.with_options(timeout=1.0), Asked[KV])
    with_more: Asked[KV] = peer.with_options(timeout=1.0, consistency="lease")
    print(with_more)


async def watches(peer: Asked[KV]) -> None:
    async for change in peer.watch(Changed, after=7):
        assert_type(change, Change[Changed])
        assert_type(change.event.key, str)
    async with peer.watch() as watch:
        assert_type(watch.after, int | None)
    async for either in peer.watch(Changed, Wiped):
        assert_type(either, Change[Changed | Wiped])
        match either.event:
            case Changed(key):
                assert_type(key, str)
            case Wiped():
                peer.watch(after=either)


async def statuses(peer: Asked[KV]) -> None:
    async for status in peer.watch_status():
        assert_type(status, Status)
        assert_type(status.leader, Address | None)
    async with peer.watch_status() as watch:
        assert_type([status async for status in watch], list[Status])


async def errors(peer: Asked[KV]) -> None:
    try:
        await peer.write(KV.set, "foo", "bar")
        async for change in peer.watch(Changed):
            print(change)
    except NotLeader as error:
        assert_type(error.redirect, Address | None)
    except SessionExpired as error:
        in_doubt: OutcomeUnknown = error
        assert_type(in_doubt.retry_safe, bool)
    except Compacted as gone:
        assert_type(gone.first, int)
        peer.watch(Changed, after=gone.first - 1)


class Leases(StateMachine):
    emits = (Changed,)
    timers: dict[str, int]

    @write
    def take(self, name: str, seconds: float) -> None:
        self.emit(Changed(name))
        assert_type(self.call_later(seconds, Leases.end, name), int)
        assert_type(self.call_at(self.context.now + seconds, Leases.end, name=name), int)
        self.timers[name] = self.call_later(seconds, End(name))
        self.cancel_call(self.timers[name])

    @write
    def end(self, name: str) -> bool:
        return self.context.timer == self.timers[name]

    def handle_write(self, command: End) -> None: ...


async def nodes(node: Node) -> None:
    peer = await node.start_peer(KV, name="peer1", join="peer2@127.0.0.1:7002", kind="learner")
    assert_type(peer, Peer[KV])
    assert_type(peer.status(), Status)
    assert_type(peer.address, Address)
    assert_type(await peer.take_snapshot(), int)
    assert_type(await peer.set_configuration(peer.address, "peer2@127.0.0.1:7002"), None)
    assert_type(await peer.transfer_leadership(), Address)


async def clients() -> None:
    async with connect(KV, "peer1@127.0.0.1:7001", settings=Settings()) as kv:
        assert_type(kv, Client[KV])
        assert_type(await kv.status(), tuple[Status, ...])
        assert_type(await kv.write(KV.set, "foo", "bar"), str)
    async with connect(KV, "peer1@127.0.0.1:7001", exactly_once=False) as kv:
        assert_type(await kv.with_options(timeout=1.0).write(Set("foo")), str)
    single = connect(KV, "peer1@unix:/run/kv.sock", Address.parse("peer2@10.0.0.2:7001"), follow=False)
    assert_type(await single.with_options(timeout=1).read(KV.count), int)
    assert_type(connect(KV, "peer1@10.0.0.1:7001", reached={"peer1": "127.0.0.1:7101"}), Client[KV])
    async with Node("127.0.0.1:0", store="memory", local="/run/kv.sock") as node:
        assert_type(node, Node)


def plain() -> None:
    assert_type(KV().set("foo", "bar"), str)
    assert_type(KV().set("foo", value="bar", times=2), str)
    assert_type(KV().get("foo"), str | None)
    assert_type(Ordered().set("foo", "bar"), str)
    assert_type(KV().context.now, float)
    assert_type(KV().context.index, int)
    assert_type(KV().context.random.random(), float)
    assert_type(Stack().put(1), int)
