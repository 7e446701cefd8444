"""Wrong uses: type checkers find an error in each line that ends with a comment, and in no other."""

from __future__ import annotations

from asked import Asked, Client, Node, connect
from sample import KV, Changed, Get, Ordered, Set, Stack, Wiped

from quorate import StateMachine, read, write


async def methods(peer: Asked[KV]) -> None:
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


async def kinds(peer: Asked[KV]) -> None:
    await peer.write(KV.get, "foo")  # a read passed to write
    await peer.read(KV.set, "foo", "bar")  # a write passed to read
    await peer.read(Set("foo", "bar"))  # a command passed to read
    await peer.write(Get("foo"))  # a query passed to write
    await peer.write(KV().set, "foo", "bar")  # the method of an instance
    await peer.write("set", "foo", "bar")  # a name


async def machines(peer: Asked[KV]) -> None:
    await peer.write(Stack.put, 1)  # another machine's write
    await peer.read(Stack.top)  # another machine's read
    await peer.read(Ordered.first)  # a read of a machine that only some KV are


async def structs(peer: Asked[KV]) -> None:
    await peer.write(Set(1))  # wrong field type
    await peer.write(Set())  # missing field
    await peer.write(Set("foo", "bar", "baz"))  # extra field
    await peer.write(Set("foo", "bar"), "baz")  # an argument beside the struct
    number: int = await peer.write(Set("foo", "bar"))  # wrong reply type
    print(number)


async def reads(peer: Asked[KV]) -> None:
    await peer.read_stale(KV.get)  # missing argument
    await peer.read_stale(KV.set, "foo", "bar")  # a write passed to a read
    await peer.read_stale(Stack.top)  # another machine's read
    number: int = await peer.read_stale(KV.count)  # the value comes with its index and age
    peer.with_options(consistency="fresh")  # no such consistency
    peer.with_options("stale")  # options go by name
    print(number)


async def others(peer: Asked[KV]) -> None:
    text: str = await peer.leader()  # an address is no text
    other: Asked[Stack] = peer.with_options(timeout=1.0)  # another machine's
    peer.with_options(timeout="1")  # no number of seconds
    unfinished: str = peer.write(KV.set, "foo", "bar")  # async: not awaited
    print(text, other, unfinished)


async def watches(peer: Asked[KV]) -> None:
    peer.watch(KV)  # no event
    peer.watch(Set)  # a command is no event
    peer.watch(after="7")  # no index
    peer.watch(Changed("foo"))  # an event, and not its class
    peer.watch(Changed, after=Changed("foo"))  # an event, and not the change that held it
    async for change in peer.watch(Changed):
        number: int = str(change.event.key)  # wrong field type
        print(number, change.event.count(1))  # no such field
    async for other in peer.watch(Changed, Wiped):
        print(str(other.event.key))  # only one of the two has it


async def statuses(peer: Asked[KV]) -> None:
    peer.watch_status(Changed)  # a status is no event
    peer.watch_status(after=7)  # nothing is kept of what was
    async for status in peer.watch_status():
        print(str(status.leader.name))  # there may be none
        print(str(status.event))  # a status holds no event


class Leases(StateMachine):
    emits = (Changed,)

    @write
    def take(self, name: str) -> None:
        self.emit(Changed)  # the class, and not an event
        self.emit(Set(name))  # a command is no event
        self.emit(name)  # a text is no event
        self.call_later(1.0, Leases.end)  # missing argument
        self.call_later(1.0, Leases.end, name, 7)  # extra argument
        self.call_later(1.0, Leases.end, 7)  # wrong argument type
        self.call_later("1", Leases.end, name)  # no number of seconds
        self.call_at(1.0, Leases.held, name)  # a read passed for a write
        self.call_at(1.0, self.end, name)  # the method of an instance
        self.call_later(1.0, Stack.put, 1)  # another machine's write
        self.cancel_call(name)  # no id

    @write
    def end(self, name: str) -> None: ...

    @read
    def held(self, name: str) -> bool:
        return bool(name)


async def nodes(node: Node) -> None:
    await node.start_peer(KV, "peer1")  # the name goes by name
    await node.start_peer(KV, name="peer1", kind="observer")  # no such kind
    await node.start_peer(int, name="peer1")  # no machine
    peer = await node.start_peer(KV, name="peer1")
    await peer.write(Stack.put, 1)  # another machine's write
    await peer.set_configuration(7001)  # no address
    await peer.take_snapshot("now")  # extra argument
    Node("127.0.0.1:0", store="sqlite")  # no such store
    Node("127.0.0.1:0", local=7001)  # no path


async def clients() -> None:
    connect(int, "peer1@127.0.0.1:7001")  # no machine
    connect(KV(), "peer1@127.0.0.1:7001")  # an object, and not its class
    connect(KV, ["peer1@127.0.0.1:7001"])  # addresses are arguments of their own
    connect(KV, "peer1@127.0.0.1:7001", follow="no")  # on or off
    connect(KV, "peer1@127.0.0.1:7001", reached=["127.0.0.1:7101"])  # they go by name
    connect(KV, "peer1@127.0.0.1:7001", retry=True)  # no such option
    connect(KV, "peer1@127.0.0.1:7001", exactly_once="yes")  # on or off
    other: Client[Stack] = connect(KV, "peer1@127.0.0.1:7001")  # another machine's
    async with connect(KV, "peer1@127.0.0.1:7001") as kv:
        await kv.write(KV.get, "foo")  # a read passed to write
    print(other)


def plain() -> None:
    KV().set("foo", 1)  # wrong argument type
    KV().set("foo")  # missing argument
    number: int = KV().set("foo", "bar")  # wrong reply type
    KV.set("foo", "bar")  # a reference is not called
    print(number)
