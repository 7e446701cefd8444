"""Right uses: type checkers find nothing here, and infer exactly these types."""

from __future__ import annotations

from typing import assert_type

from sample import KV, Get, Ordered, Peer, Set, Stack

from quorate.types import StaleRead


async def methods(peer: Peer[KV]) -> None:
    assert_type(await peer.write(KV.set, "foo", "bar"), str)
    assert_type(await peer.write(KV.set, "foo", value="bar", times=2), str)
    assert_type(await peer.write(KV.delete, key="foo"), None)
    assert_type(await peer.read(KV.get, "foo"), str | None)
    assert_type(await peer.read(KV.count), int)


async def reads(peer: Peer[KV]) -> None:
    assert_type(await peer.read_stale(KV.get, "foo"), StaleRead[str | None])
    assert_type(await peer.read_stale(Get("foo")), StaleRead[str | None])
    assert_type((await peer.read_stale(KV.count)).value, int)
    assert_type((await peer.read_stale(KV.count)).age, float)
    assert_type(await peer.with_options(consistency="lease").read(KV.count), int)
    wider: StaleRead[object] = await peer.read_stale(KV.count)
    print(wider, peer.with_options(timeout=1.0, consistency="stale"))


async def structs(peer: Peer[KV]) -> None:
    assert_type(await peer.write(Set("foo", "bar")), str)
    assert_type(await peer.write(Set(key="foo")), str)
    assert_type(await peer.read(Get("foo")), str | None)


async def inherited(peer: Peer[Ordered]) -> None:
    assert_type(await peer.write(KV.set, "foo", "bar"), str)
    assert_type(await peer.write(Ordered.set, "foo", "bar"), str)
    assert_type(await peer.read(Ordered.first), str)


def plain() -> None:
    assert_type(KV().set("foo", "bar"), str)
    assert_type(KV().set("foo", value="bar", times=2), str)
    assert_type(KV().get("foo"), str | None)
    assert_type(Ordered().set("foo", "bar"), str)
    assert_type(KV().context.now, float)
    assert_type(KV().context.index, int)
    assert_type(KV().context.random.random(), float)
    assert_type(Stack().put(1), int)
