"""Following: from any member to the leader, over changes of everything, and why there was no answer in the end."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections import Counter
from collections.abc import Sequence

import pytest

from quorate import Address, Node, NotLeader, Peer, Settings, Unavailable, connect
from quorate.attempts import SHARE_MAX, Attempt, note, reason, said_of
from quorate.errors import OutcomeUnknown, Overloaded
from quorate.following import LEARN_SECONDS, PAUSE_MAX, PAUSE_MIN
from quorate.machines import KV
from quorate.testing.clock import VirtualLoop
from quorate.transport import Answer, Channel, Packet, channel
from quorate.transport.calls import CancelCall, Failure, LeaderCall, ReadCall, Reply, Request, StatusCall
from quorate.transport.memory import MemoryNetwork, MemoryTransport
from tests.api.cluster import SETTINGS, cluster, free_ports
from tests.api.virtual import World, address_of, run_world


def client_of(world: World, *addresses: Address, **options):
    """Make a client in a world."""
    return connect(
        KV,
        *addresses,
        settings=world.settings,
        transport=lambda: MemoryTransport(world.network, "10.0.1.1:1", world.settings),
        random=world.random.random,
        **options,
    )


# Members are learned.


def test_one_address_is_enough_once_the_others_are_learned() -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        async with client_of(world, peers[0].address) as kv:
            assert await kv.write(KV.set, "foo", "bar") == "bar"
            await world.until(lambda: len(kv._following.addresses) == 3)
            await world.nodes[[node.peers[0] for node in world.nodes].index(peers[0])].stop()
            assert await kv.read(KV.get, "foo") == "bar"
            assert (await kv.read_stale(KV.get, "foo")).value == "bar"

    run_world(3, Settings(), tell)


def test_a_full_change_of_addresses_is_survived() -> None:
    """Every machine is replaced, one after the other, by one at an address that the client was never told."""

    async def tell(world: World) -> None:
        first = await world.form(KV, "a", "b", "c", nodes=3)
        async with client_of(world, *(peer.address for peer in first)) as kv:
            await kv.write(KV.set, "foo", "0")
            current: list[Peer[KV]] = list(first)
            for number, (old, node) in enumerate(zip(first, world.nodes[3:], strict=True), 1):
                new = await node.start_peer(KV, name=f"new{number}")
                leader = await current[-1].leader()
                asked = next(peer for peer in current if peer.address == leader)
                await asked.replace_peer(old.name, new.address)
                current = [*(peer for peer in current if peer is not old), new]
                await next(n for n in world.nodes if old in n.peers).stop()
                assert await kv.write(KV.set, "foo", str(number)) == str(number)
                await asyncio.sleep(LEARN_SECONDS)
                assert await kv.read(KV.get, "foo") == str(number)  # a client that is used learns
                await asyncio.sleep(1.0)
            assert {address.name for address in kv._following.addresses[:3]} == {"new1", "new2", "new3"}
            assert {status.name for status in await kv.status()} == {"new1", "new2", "new3"}

    run_world(6, Settings(), tell)


def test_a_group_of_one_that_grows_is_not_lost_with_its_first_member() -> None:
    """The client has met that one alone: once it is gone nobody is left to ask who the others are."""

    async def tell(world: World) -> None:
        (first,) = await world.form(KV, "a", nodes=1)
        async with client_of(world, first.address) as kv:
            await kv.write(KV.set, "foo", "0")
            await asyncio.sleep(1.0)
            for node, name in zip(world.nodes[1:], "bc", strict=True):
                await node.start_peer(KV, name=name, join=first.address)
            for number in range(3):
                await asyncio.sleep(1.0)
                await kv.write(KV.set, "foo", str(number))
            await world.nodes[0].stop()
            assert await kv.read(KV.get, "foo") == "2"

    run_world(3, Settings(), tell)


def test_who_reads_what_may_be_stale_survives_it_in_a_few_seconds() -> None:
    """A peer that does not answer may have moved: whoever asked it asks the next one who the members are."""

    async def tell(world: World) -> None:
        first = await world.form(KV, "a", "b", "c", nodes=3)
        await first[0].write(KV.set, "foo", "bar")
        async with client_of(world, *(peer.address for peer in first)) as kv:

            async def look() -> None:
                while True:
                    await kv.read_stale(KV.get, "foo")
                    await asyncio.sleep(0.1)

            looking = asyncio.create_task(look())
            await world.replace_all(first, KV, pause=3.0)
            await asyncio.sleep(2 * Settings().call_timeout)
            assert not looking.done(), looking
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    run_world(6, Settings(), tell)


def test_members_that_nobody_can_dial_are_not_believed() -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a")
        seat = world.nodes[0]._places["a"].seat
        real = seat.status

        def lie():
            status = real()
            return status.__class__(
                **{name: getattr(status, name) for name in status.__struct_fields__ if name != "members"},
                members=tuple(
                    member.__class__(
                        **{**{f: getattr(member, f) for f in member.__struct_fields__}, "address": address}
                    )
                    for member in status.members
                    for address in (Address("a", "10.0.0.1", 7000), Address("b", "/var/run/docker.sock", 1))
                ),
            )

        seat.status = lie
        async with client_of(world, peers[0].address) as kv:
            assert await kv.write(KV.set, "foo", "bar") == "bar"
            await asyncio.sleep(1.0)
            assert kv._following.addresses == (peers[0].address,)

    run_world(1, Settings(), tell)


def test_a_client_that_is_not_used_asks_nobody_and_one_that_is_seldom() -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a")
        requests = Counter()
        node = world.nodes[0]
        real = node.receive_requests

        def count(arrived, answer) -> None:
            requests.update(type(request.call).__name__ for request in arrived)
            real(arrived, answer)

        node.receive_requests = count
        async with client_of(world, peers[0].address) as kv:
            for _ in range(100):
                await kv.leader()
            await asyncio.sleep(10 * LEARN_SECONDS)
            assert requests == {"LeaderCall": 100, "StatusCall": 2}, "of which group it is, and who its members are"
            await kv.leader()
            await asyncio.sleep(1.0)
            assert requests == {"LeaderCall": 101, "StatusCall": 3}

    run_world(1, Settings(), tell)


# The leader is found.


async def test_a_redirect_is_followed() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        follower = next(peer for peer in nodes.peers.values() if peer is not leader)
        await follower.leader()
        async with connect(KV, follower.address, settings=SETTINGS) as kv:
            assert await kv.write(KV.set, "foo", "bar") == "bar"
            assert kv._following._links.leader == leader.address


def test_a_leader_that_hangs_leaves_time_for_another_also_to_a_read() -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        async with client_of(world, *(peer.address for peer in peers)) as kv:
            await kv.write(KV.set, "foo", "bar")
            world.network.isolate(address_of(peers[0]), "10.0.1.1:1")
            world.network.cut -= {(a, b) for a, b in world.network.cut if address_of(peers[0]) not in (a, b)}
            assert await kv.read(KV.get, "foo") == "bar"

    run_world(3, Settings(), tell)


@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("verb", ["write", "read", "read_stale"])
def test_a_leader_that_hangs_is_left_within_seconds_however_long_a_call_may_take(verb: str, name: str) -> None:
    """It is not asked twice in a row, wherever it stands among the addresses."""

    async def tell(world: World) -> None:
        first, *_ = peers = await world.form(KV, "a", "b", "c")
        leader = next(peer for peer in peers if peer.name == name)
        async with client_of(world, *(peer.address for peer in peers)) as kv:
            if leader is not first:
                await first.transfer_leadership(leader.address)
            await kv.write(KV.set, "foo", "bar")
            world.network.isolate(address_of(leader))
            world.network.cut |= {("10.0.1.1:1", address_of(leader)), (address_of(leader), "10.0.1.1:1")}
            begun = world.loop.time()
            patient = kv.with_options(timeout=600.0)
            match verb:
                case "write":
                    assert await patient.write(KV.append, "foo", "!") == "bar!"
                case "read":
                    assert await patient.read(KV.get, "foo") == "bar"
                case _:
                    assert (await patient.read_stale(KV.get, "foo")).value == "bar"
            assert world.loop.time() - begun < 2 * SHARE_MAX

    run_world(3, Settings(), tell)


def test_a_client_that_is_not_to_follow_stays_with_the_first_whatever_became_of_a_write() -> None:
    async def tell(world: World) -> None:
        leader, other = await world.form(KV, "a", "b")
        async with client_of(world, leader.address, other.address, follow=False) as kv:
            await kv.write(KV.set, "foo", "")
            world.network.cut.add((address_of(leader), "10.0.1.1:1"))
            with pytest.raises(OutcomeUnknown):
                await kv.write(KV.set, "foo", "bar")
            world.network.cut.clear()
            assert await kv.write(KV.set, "foo", "baz") == "baz"

    run_world(2, Settings(), tell)


def test_a_group_that_takes_long_for_a_write_is_waited_for() -> None:
    """A try of 5 s was never enough (seed 41091 of the simulator)."""

    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        for disk in world.disks:
            disk.seconds = 8.0
        async with client_of(world, *(peer.address for peer in peers)) as kv:
            patient = kv.with_options(timeout=600.0)
            begun = world.loop.time()
            assert await patient.write(KV.append, "foo", "bar") == "bar"
            assert await patient.write(KV.append, "foo", "!") == "bar!"
            assert world.loop.time() - begun < 300.0

    slow = Settings(
        heartbeat_interval=20.0,
        election_timeout_min=100.0,
        election_timeout_max=200.0,
        catch_up_timeout=400.0,
        change_timeout=900.0,
        call_timeout=900.0,
    )
    run_world(3, slow, tell)


class Refusing:
    """A network on which nobody is reached; notes when each was tried."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.tries: list[tuple[float, str]] = []

    async def connect(self, node: str) -> Channel:
        self.tries.append((self.loop.time(), node))
        raise Unavailable(f"{node} refuses the connection: no node listens there")

    async def stop(self) -> None:
        pass


def tries_of(chance: float) -> tuple[list[tuple[float, str]], str]:
    """Give when and where a client tries whose random numbers are all the same, and what it says in the end."""
    loop = VirtualLoop()
    network = Refusing(loop)

    async def tell() -> str:
        addresses = ["a@10.0.0.1:1", "b@10.0.0.2:1", "c@10.0.0.3:1"]
        async with connect(KV, *addresses, transport=lambda: network, random=lambda: chance) as kv:
            with pytest.raises(Unavailable) as caught:
                await kv.with_options(timeout=1.0).write(KV.set, "foo", "bar")
            assert loop.time() == pytest.approx(1.0)
            return caught.value.reason

    try:
        return network.tries, loop.run_until_complete(tell())
    finally:
        loop.close()


def test_pauses_grow_to_a_limit_are_jittered_and_end_at_the_deadline() -> None:
    tries, _ = tries_of(0.0)
    pauses = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(tries)]
    assert pauses[:5] == pytest.approx([0, PAUSE_MIN, 2 * PAUSE_MIN, 4 * PAUSE_MIN, PAUSE_MAX])
    assert [node for _, node in tries[:4]] == ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.1:1"]
    others, _ = tries_of(1.0)  # the most that chance takes off: half
    halves = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(others)]
    assert halves[:5] == pytest.approx([pause / 2 for pause in pauses[:5]])


async def test_what_is_not_to_be_repeated_is_tried_once_and_another_is_asked_the_next_time() -> None:
    loop = asyncio.get_running_loop()
    network = Refusing(loop)
    async with connect(KV, "a@10.0.0.1:1", "b@10.0.0.2:1", transport=lambda: network) as kv:
        for name in ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1"):
            asking = kv._following.ask(LeaderCall, loop.time() + 60.0, is_write=False, repeats=False)
            with pytest.raises(Unavailable, match=f"^{name} refuses the connection"):
                await asking
            assert network.tries.pop()[1] == name
        assert network.tries == []


class Holding:
    """A node that answers nothing but of which group it is: of none; and notes what it is asked beside that."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def receive_packets(self, source: str, packets: Sequence[Packet]) -> None:
        pass

    def lose_node(self, node: str) -> None:
        pass

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        for request in requests:
            if isinstance(request.call, StatusCall):
                answer(Reply(request.id, Failure("Unavailable", "there is no such peer")))
            else:
                self.requests.append(request)


@pytest.mark.parametrize(("place", "is_told"), [("unix:/run/kv.sock", True), ("10.0.0.1:7000", False)])
async def test_a_node_at_its_local_socket_is_told_when_the_first_call_of_a_client_is_given_up(
    place: str, is_told: bool
) -> None:
    network, node = MemoryNetwork(), Holding()
    await MemoryTransport(network, place).listen(node)
    async with connect(KV, f"a@{place}", transport=lambda: MemoryTransport(network, "10.0.1.1:1")) as kv:
        read = asyncio.create_task(kv.read(KV.get, "foo"))
        while not node.requests:  # noqa: ASYNC110
            await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        for _ in range(10):
            await asyncio.sleep(0)
    (asked, *told) = node.requests
    assert isinstance(asked.call, ReadCall)
    assert [request.call for request in told] == [CancelCall(asked.id)] * is_told


class Expiring(Holding):
    """A node that answers everything as if it were a write in a session that has ended."""

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        for request in requests:
            answer(Reply(request.id, Failure("SessionExpired", "it has ended")))


async def test_a_call_without_a_session_whose_session_is_said_to_have_ended_fails_as_calls_do() -> None:
    network = MemoryNetwork()
    await MemoryTransport(network, "10.0.0.1:1").listen(Expiring())
    async with connect(KV, "a@10.0.0.1:1", transport=lambda: MemoryTransport(network, "10.0.1.1:1")) as kv:
        for call in (kv.read(KV.get, "foo"), kv.leader()):
            with pytest.raises(OutcomeUnknown, match="it has ended"):
                await call
        with pytest.raises(Unavailable, match="no session could be opened"):
            await kv.with_options(timeout=0.1).write(KV.set, "foo", "bar")
    once = {"exactly_once": False, "transport": lambda: MemoryTransport(network, "10.0.1.2:1")}
    async with connect(KV, "a@10.0.0.1:1", **once) as kv:
        with pytest.raises(OutcomeUnknown, match="it has ended"):
            await kv.write(KV.set, "foo", "bar")


# Why there was no answer.


def test_no_call_is_said_to_have_taken_less_than_no_time() -> None:
    assert reason("no leader", -7.68e-05, {}, ()).startswith("no leader within 0 s:")


def test_the_reason_names_everybody() -> None:
    _, said = tries_of(0.5)
    assert said == (
        "no leader within 1 s: 0 of 3 reachable;"
        " a (10.0.0.1:1) refuses the connection: no node listens there;"
        " b (10.0.0.2:1) refuses the connection: no node listens there;"
        " c (10.0.0.3:1) refuses the connection: no node listens there"
    )


async def test_a_person_understands_why_there_is_no_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """One peer runs alone, one is down, the name of one is misspelt."""
    real = socket.getaddrinfo

    def resolve(host, *rest, **options):
        if host == "kv-3.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with cluster(KV, 1) as nodes:
        lonely = await nodes.start("peer1")
        down = f"peer2@127.0.0.1:{free_ports(1)[0]}"
        async with connect(KV, lonely.address, down, "peer3@kv-3.example:7003", settings=SETTINGS) as kv:
            quick = kv.with_options(timeout=1.0)
            with pytest.raises(Unavailable) as caught:
                await quick.write(KV.set, "foo", "bar")
            said = caught.value.reason
            assert re.search(r"no leader within (1|0\.\d+) s: 1 of 3 reachable; ", said)  # Less, if it opened late.
            assert "peer1 knows no leader: it has no configuration yet: form a group" in said
            assert f"peer2 ({down[6:]}) refuses the connection: no node listens there" in said
            assert "peer3 (kv-3.example:7003) cannot be reached: its name does not resolve" in said
            with pytest.raises(Unavailable, match="1 of 3 reachable"):
                await asyncio.gather(*(quick.write(KV.set, "foo", str(number)) for number in range(5)))
            with pytest.raises(Unavailable, match="1 of 3 reachable"):
                await quick.read(KV.get, "foo")
            with pytest.raises(Unavailable, match="1 of 3 reachable"):
                await quick.leader()
            assert [status.name for status in await kv.status()] == ["peer1"]


def test_a_write_in_doubt_says_what_came_after() -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a")
        async with client_of(world, peers[0].address) as kv:
            await kv.write(KV.set, "foo", "bar")
            world.network.cut.add((address_of(peers[0]), "10.0.1.1:1"))
            with pytest.raises(
                OutcomeUnknown, match=r"did not say in time .*; no leader within 5 s: 0 of 1 reachable; a"
            ):
                await kv.write(KV.set, "foo", "baz")

    run_world(1, Settings(), tell)


def test_what_is_said_of_each_way_to_fail() -> None:
    a, b = Address.parse("a@10.0.0.1:1"), Address.parse("b@10.0.0.2:1")
    for attempt, text in (
        (Attempt(NotLeader(None, "a"), answered=True), "a knows of no leader"),
        (Attempt(NotLeader(b, "a"), b, answered=True), "a says that b@10.0.0.2:1 leads"),
        (Attempt(Overloaded("too much waits"), answered=True), "a says: too much waits"),
        (Attempt(Unavailable("a cannot take this call"), answered=True), "a cannot take this call"),
        (Attempt(Unavailable("a@10.0.0.1:1 does not answer")), "a (10.0.0.1:1) does not answer"),
        (Attempt(Unavailable("10.0.0.1:1 closed the connection")), "a (10.0.0.1:1) closed the connection"),
    ):
        assert said_of(a, attempt) == (attempt.answered, text)
    said = reason("no leader", 5.0, {a: (True, "a knows of no leader")}, [a, b])
    assert said == "no leader within 5 s: 1 of 2 reachable; a knows of no leader; b was not asked in time"
    assert reason("no leader", 0.9987, {}, [a]).startswith("no leader within 1 s: ")


def test_what_was_said_of_a_leader_is_not_forgotten_for_want_of_time() -> None:
    a, tried = Address.parse("a@10.0.0.1:1"), {}
    bare = Attempt(NotLeader(None, "a"), answered=True)
    note(tried, a, bare, 1.0)
    assert tried[a] == (True, "a knows of no leader")
    note(tried, a, Attempt(Unavailable("a knows no leader: it was removed"), answered=True), 0.01)
    note(tried, a, bare, 0.01)
    assert tried[a] == (True, "a knows no leader: it was removed")
    note(tried, a, Attempt(Unavailable("no leader within 0.03 s: b was not asked in time"), answered=True), 0.03)
    assert tried[a] == (True, "a knows no leader: it was removed")
    note(tried, a, Attempt(Overloaded("too much waits"), answered=True), 0.01)
    assert tried[a] == (True, "a says: too much waits")
    note(tried, a, Attempt(Unavailable("a@10.0.0.1:1 does not answer")), 0.01)
    assert tried[a] == (True, "a says: too much waits")
    note(tried, a, Attempt(Unavailable("a@10.0.0.1:1 does not answer")), 1.0)
    assert tried[a] == (False, "a (10.0.0.1:1) does not answer")
    note(tried, a, Attempt(Unavailable("a cannot take this call"), answered=True), 0.01)
    assert tried[a] == (True, "a cannot take this call")


async def test_what_is_no_machine_no_address_and_no_timeout_is_refused_with_a_sentence() -> None:
    for machine in (int, KV(), "KV"):
        with pytest.raises(TypeError, match=r"is no state machine: give the class itself, a subclass of quorate\."):
            connect(machine, "peer1@127.0.0.1:7001")  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"'peer1@127.0.0.1:7001' is no state machine"):  # and not: there is no address
        connect("peer1@127.0.0.1:7001")  # type: ignore[type-var]
    with pytest.raises(ValueError, match="connect needs the address of a peer, such as peer1@"):
        connect(KV)
    with pytest.raises(TypeError, match=r"is no address; each is a text of its own, such as 'peer1@127"):
        connect(KV, ["peer1@127.0.0.1:7001"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not '1'"):
        connect(KV, "peer1@127.0.0.1:7001").with_options(timeout="1")  # type: ignore[arg-type]


async def test_a_client_that_was_closed_says_so_whatever_it_is_asked() -> None:
    kv = connect(KV, "peer1@127.0.0.1:9", "peer2@127.0.0.1:9")
    await kv.close()
    calls = kv.write(KV.set, "a", "b"), kv.read(KV.get, "a"), kv.read_stale(KV.get, "a"), kv.leader(), kv.status()
    for call in (*calls, anext(kv.watch_status())):
        with pytest.raises(Unavailable, match=r"^the client was closed; connect makes another$"):
            await call


@pytest.mark.parametrize("first", ["write", "stale read", "status"])
async def test_another_event_loop_is_told_whose_client_and_node_these_are(first: str) -> None:
    """Whatever the client's first call was: also one that no leader has answered."""
    async with cluster(KV, 1) as nodes:
        peer = await nodes.form()
        node = nodes.nodes["peer1"]
        async with connect(KV, peer.address) as kv:
            unused = connect(KV, peer.address)
            asyncio.get_running_loop().set_debug(False)  # It finds out by itself, and later than users do.
            await peer.write(KV.set, "a", "b")
            match first:
                case "write":
                    await kv.write(KV.set, "a", "b")
                case "status":
                    await kv.status()
                case _:
                    await kv.read_stale(KV.get, "a")

            async def elsewhere() -> None:
                calls = kv.write(KV.set, "a", "c"), kv.read(KV.get, "a"), kv.read_stale(KV.get, "a"), kv.leader()
                for call in (*calls, kv.status(), anext(kv.watch_status()), kv.close()):
                    with pytest.raises(RuntimeError, match=r"^this client belongs to another event loop, that of its"):
                        await call
                asked = (
                    peer.write(KV.set, "a", "c"),
                    peer.read(KV.get, "a"),
                    peer.read_stale(KV.get, "a"),
                    peer.leader(),
                )
                told = anext(peer.watch_status()), peer.take_snapshot(), peer.transfer_leadership()
                ended = node.start_peer(KV, name="peer2"), peer.stop(), node.stop(), node.start()
                for begun in (*asked, *told, *ended):
                    with pytest.raises(RuntimeError, match=r"this node runs on another event loop.*: call it there"):
                        async with asyncio.timeout(5):
                            await begun
                assert await unused.read(KV.get, "a") == "b", "nothing was sent"
                await unused.close()

            await asyncio.to_thread(asyncio.run, elsewhere())
            assert await kv.read(KV.get, "a") == "b"
            assert await kv.write(KV.set, "a", "d") == "d"


async def test_another_event_loop_is_told_so_while_the_first_write_waits_for_its_session() -> None:
    """It waited there until its deadline, and was told that there was no session."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connect(KV, f"peer1@127.0.0.1:{silent.getsockname()[1]}") as kv:
            waiting = asyncio.create_task(kv.write(KV.set, "a", "b"))
            await asyncio.sleep(0)

            async def elsewhere() -> None:
                with pytest.raises(RuntimeError, match=r"^this client belongs to another event loop"):
                    await kv.with_options(timeout=1.0).write(KV.set, "a", "c")

            await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(Unavailable):
            await waiting


async def test_a_node_that_was_stopped_starts_in_any_event_loop() -> None:
    node = Node("127.0.0.1:0", store="memory")

    async def once() -> None:
        async with node:
            peer = await node.start_peer(KV, name="peer1")
            await peer.stop()
        await node.stop()

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, once())


async def test_a_peer_without_a_configuration_says_what_to_do() -> None:
    async with cluster(KV, 1) as nodes:
        peer = await nodes.start("peer1")
        for call in (peer.write(KV.set, "a", "b"), peer.read(KV.get, "a")):
            with pytest.raises(NotLeader, match="no leader is known yet: it has no configuration yet: form a group"):
                await call


# Where peers are reached is told.


async def test_peers_behind_a_tunnel_are_reached_where_the_client_is_told() -> None:
    """The group has addresses that cannot be dialled from here."""
    async with cluster(KV, 1) as nodes:
        peer = await nodes.form()
        reached = {"peer1": peer.address.node}
        async with connect(KV, "peer1@kv-1.internal:7001", reached=reached, settings=SETTINGS) as kv:
            assert await kv.write(KV.set, "foo", "bar") == "bar"
    with pytest.raises(ValueError, match="cannot be used"):
        connect(KV, "peer1@kv-1.internal:7001", reached={"peer1": "nowhere"})


async def test_a_connection_that_something_on_the_way_has_forgotten_is_left_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a tunnel takes what is sent, and passes nothing on: TCP says that all is well, for ever."""
    monkeypatch.setattr(channel, "SILENT_SECONDS", 0.1)
    forgotten: set[asyncio.StreamWriter] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            if writer not in forgotten:
                writer.write(chunk)
        writer.close()

    async with cluster(KV, 1) as group:
        address = (await group.form()).address

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_connection(address.host, address.port)
            writers.extend((writer, forth))
            await asyncio.gather(pass_on(reader, forth), pass_on(back, writer))

        async with await asyncio.start_server(take, "127.0.0.1", 0) as tunnel:
            port = tunnel.sockets[0].getsockname()[1]
            async with connect(KV, address, reached={"peer1": f"127.0.0.1:{port}"}) as kv:
                assert await kv.write(KV.append, "foo", "a") == "a"
                forgotten.update(writers)
                assert await kv.with_options(timeout=2.0).write(KV.append, "foo", "b") == "ab"
                assert len(writers) == 4
                assert await kv.read(KV.get, "foo") == "ab"
