"""Wrong uses: type checkers find an error in each line that ends with a comment, and in no other."""

from __future__ import annotations

from sample import KV, Get, Ordered, Peer, Set, Stack


async def methods(peer: Peer[KV]) -> None:
    await peer.write(KV.set, "foo", 1)  # wrong argument type
    await peer.write(KV.set, "foo", value=1)  # wrong argument type, by name
    await peer.write(KV.set, "foo")  # missing argument
    await peer.write(KV.set, "foo", "bar", 1, 2)  # extra argument
    await peer.write(KV.set, "foo", "bar", expires=1)  # extra argument, by name
    await peer.read(KV.get)  # missing argument
    await peer.read(KV.count, 1)  # extra argument
    number: int = await peer.write(KV.set, "foo", "bar")  # wrong reply type
    text: str = await peer.read(KV.get, "foo")  # the reply may be None
    print(number, text)


async def kinds(peer: Peer[KV]) -> None:
    await peer.write(KV.get, "foo")  # a read passed to write
    await peer.read(KV.set, "foo", "bar")  # a write passed to read
    await peer.read(Set("foo", "bar"))  # a command passed to read
    await peer.write(Get("foo"))  # a query passed to write
    await peer.write(KV().set, "foo", "bar")  # the method of an instance
    await peer.write("set", "foo", "bar")  # a name


async def machines(peer: Peer[KV]) -> None:
    await peer.write(Stack.put, 1)  # another machine's write
    await peer.read(Stack.top)  # another machine's read
    await peer.read(Ordered.first)  # a read of a machine that only some KV are


async def structs(peer: Peer[KV]) -> None:
    await peer.write(Set(1))  # wrong field type
    await peer.write(Set())  # missing field
    await peer.write(Set("foo", "bar", "baz"))  # extra field
    await peer.write(Set("foo", "bar"), "baz")  # an argument beside the struct
    number: int = await peer.write(Set("foo", "bar"))  # wrong reply type
    print(number)


async def reads(peer: Peer[KV]) -> None:
    await peer.read_stale(KV.get)  # missing argument
    await peer.read_stale(KV.set, "foo", "bar")  # a write passed to a read
    await peer.read_stale(Stack.top)  # another machine's read
    number: int = await peer.read_stale(KV.count)  # the value comes with its index and age
    peer.with_options(consistency="fresh")  # no such consistency
    peer.with_options("stale")  # options go by name
    print(number)


def plain() -> None:
    KV().set("foo", 1)  # wrong argument type
    KV().set("foo")  # missing argument
    number: int = KV().set("foo", "bar")  # wrong reply type
    KV.set("foo", "bar")  # a reference is not called
    print(number)
