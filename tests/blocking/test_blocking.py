"""``quorate.blocking`` on real nodes: each name does what its twin does, from any thread, and ends in peace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from quorate import (
    Address,
    Event,
    MachineError,
    NotLeader,
    QuorateError,
    Rejected,
    StateMachine,
    Status,
    Stopped,
    Unavailable,
    read,
    write,
)
from quorate.blocking import Client, Node, Peer, connect
from quorate.machines import KV
from tests.api.cluster import SETTINGS, free_ports


class Log(StateMachine):
    """Words in the order in which they were written."""

    words: list[str]

    def __init__(self) -> None:
        self.words = []

    @write
    def add(self, word: str) -> int:
        if not word:
            raise Rejected("empty")
        self.words.append(word)
        return len(self.words)

    @read
    def all(self) -> list[str]:
        return self.words


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("127.0.0.1:0", store="memory", settings=SETTINGS) as node:
        yield node


@pytest.fixture
def peer(node: Node) -> Peer[Log]:
    peer = node.start_peer(Log, name="peer1")
    peer.set_configuration(peer.address)
    peer.leader()
    return peer


@pytest.fixture
def log(peer: Peer[Log]) -> Iterator[Client[Log]]:
    with connect(Log, peer.address, settings=SETTINGS) as log:
        yield log


def test_nothing_is_begun_by_describing() -> None:
    before = threading.enumerate()
    client, node = connect(KV, "peer1@127.0.0.1:1"), Node("127.0.0.1:0", store="memory")
    assert node.peers == ()
    assert "stopped" in repr(node)
    with pytest.raises(Stopped):
        print(node.address)
    client.close()
    node.stop()
    assert threading.enumerate() == before


def test_a_group_lives_through_the_walk_of_the_guide() -> None:
    ports = free_ports(3)
    nodes = [Node(f"127.0.0.1:{port}", store="memory", settings=SETTINGS) for port in ports]
    try:
        for node in nodes:
            node.start()
        peers = [node.start_peer(Log, name=f"peer{number}") for number, node in enumerate(nodes, 1)]
        members = [peer.address for peer in peers]
        peers[0].set_configuration(*members)
        leader = peers[0].leader()
        assert {peer.leader() for peer in peers} == {leader}
        by_name = {peer.name: peer for peer in peers}
        assert by_name[leader.name].write(Log.add, "one") == 1
        follower = next(peer for peer in peers if peer.address != leader)
        with pytest.raises(NotLeader):
            follower.write(Log.add, "two")
        assert follower.read(Log.all) == ["one"]
        assert follower.with_options(consistency="stale", timeout=1.0).read(Log.all) == ["one"]
        assert follower.read_stale(Log.all).value == ["one"]
        with connect(Log, *members, settings=SETTINGS) as log:
            assert log.leader() == leader
            assert log.write(Log.add, "two") == 2
            assert by_name[leader.name].transfer_leadership(follower.address) == follower.address
            assert log.write(Log.add, "three") == 3
            nodes[peers.index(follower)].stop()
            assert log.write(Log.add, "four") == 4
            assert log.with_options(consistency="lease").read(Log.all) == ["one", "two", "three", "four"]
            assert len(log.status()) == 2
        with pytest.raises(Stopped):
            follower.write(Log.add, "five")
    finally:
        for node in nodes:
            node.stop()


class Heard(Event):
    word: str


class Telling(Log):
    emits = (Heard,)

    @write
    def tell(self, word: str) -> None:
        self.words.append(word)
        self.emit(Heard(word))


def test_what_happens_is_watched(node: Node) -> None:
    peer = node.start_peer(Telling, name="telling")
    peer.set_configuration(peer.address)
    peer.leader()
    with connect(Telling, peer.address, settings=SETTINGS) as log:
        with log.watch(Heard) as watch, peer.watch() as here:
            for word in ("a", "b", "c"):
                log.write(Telling.tell, word)
            assert [next(watch).event.word for _ in range(3)] == ["a", "b", "c"]
            first = next(here)
            assert (first.event, first.place) == (Heard("a"), 0)
            assert next(log.watch(Heard, after=first)).event.word == "b"
            assert watch.after is not None
            assert watch.after >= first.index
        assert list(watch) == []
        waiting, heard = log.watch(), []
        waiting.__enter__()
        thread = threading.Thread(target=lambda: heard.extend(waiting))
        thread.start()
        log.write(Telling.tell, "d")
        while not heard:
            pass
        waiting.close()
        thread.join(10)
        assert [change.event for change in heard] == [Heard("d")]
        ended = log.watch()
        with pytest.raises(TypeError):
            log.watch(Log)  # type: ignore[arg-type,call-overload]
    assert list(ended) == []
    ended.close()


def test_a_watch_that_fails_says_so_and_goes_on(node: Node) -> None:
    peer = node.start_peer(Telling, name="telling")
    peer.set_configuration(peer.address)
    peer.leader()
    with connect(Telling, peer.address, settings=SETTINGS) as log:
        log.write(Telling.tell, "a")
        watch = log.with_options(timeout=0.3).watch(Heard, after=0)
        assert next(watch).event.word == "a"
        peer.stop()
        with pytest.raises(Unavailable, match=r"nobody answered within 0\.3"):
            next(watch)
        again = node.start_peer(Telling, name="telling")
        again.leader()
        log.write(Telling.tell, "b")
        assert next(watch).event.word == "b"


def test_what_an_interrupted_thread_was_not_told_it_is_told_when_it_asks_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption may come when the loop has the answer already."""
    peer = node.start_peer(Telling, name="telling")
    peer.set_configuration(peer.address)
    leader = peer.leader()
    with connect(Telling, peer.address, settings=SETTINGS) as log:
        for word in ("a", "b"):
            log.write(Telling.tell, word)
        background = log._background
        real = background.call

        def call(*args: Any, **kwargs: Any) -> None:
            monkeypatch.undo()
            real(*args, **kwargs)
            raise KeyboardInterrupt

        events, statuses = log.watch(Heard, after=0), log.watch_status()
        for watch in (events, statuses):
            monkeypatch.setattr(background, "call", call)
            with pytest.raises(KeyboardInterrupt):
                next(watch)
        log.write(Telling.tell, "c")
        assert [next(events).event.word for _ in range(2)] == ["a", "b"]
        closing = threading.Timer(10.0, statuses.close)
        closing.start()
        assert next(statuses).leader == leader
        closing.cancel()


def test_changes_of_the_status_are_watched(node: Node, peer: Peer[Log], log: Client[Log]) -> None:
    with log.watch_status() as watch, peer.watch_status() as here:
        assert next(watch).leader == next(here).leader == peer.address
        with Node("127.0.0.1:0", store="memory", settings=SETTINGS) as other:
            joined = other.start_peer(Log, name="peer2", join=peer.address, kind="learner")
            for told in (watch, here):
                assert [member.address.name for member in next(told).members] == ["peer1", "peer2"]
            seen: list[Status] = []
            thread = threading.Thread(target=lambda: seen.extend(joined.watch_status()))
            thread.start()
            while not seen:
                pass
            ended = joined.watch_status()
        thread.join(10)
        assert not thread.is_alive()
        assert list(ended) == []
    assert list(watch) == []
    waiting = log.watch_status()
    next(waiting)
    closing = threading.Timer(0.1, waiting.close)
    closing.start()
    assert list(waiting) == []
    ended = log.watch_status()
    log.close()
    assert list(ended) == []


def test_members_are_changed(node: Node, peer: Peer[Log], log: Client[Log]) -> None:
    log.write(Log.add, "one")
    with Node("127.0.0.1:0", store="memory", settings=SETTINGS) as other:
        joined = other.start_peer(Log, name="peer2", join=peer.address, kind="learner")
        assert joined.read(Log.all) == ["one"]
        peer.add_peer(joined.address)
        peer.set_priority("peer2", 3)
        assert [member.kind for member in peer.status().members] == ["voter", "voter"]
        assert peer.take_snapshot() > 0
        peer.change_address("peer2", other.address)
        assert [known.name for known in other.peers] == ["peer2"]
        peer.remove_peer("peer2")
        other.peers[0].stop()
        assert other.peers == ()
        fresh = other.start_peer(Log, name="peer3")
        peer.add_peer(fresh.address, kind="learner")
        peer.replace_peer("peer3", other.start_peer(Log, name="peer4").address)
        peer.set_configuration(peer.address)
        assert [member.address.name for member in peer.status().members] == ["peer1"]


def test_errors_are_those_of_the_twin(peer: Peer[Log], log: Client[Log]) -> None:
    with pytest.raises(Rejected, match="empty"):
        log.write(Log.add, "")
    with pytest.raises(Rejected, match="empty"):
        peer.write(Log.add, "")
    with pytest.raises(TypeError):
        log.write(Log.add)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="timeout"):
        log.with_options(timeout=0)


def test_every_call_ends_at_its_deadline(node: Node) -> None:
    lonely = node.start_peer(Log, name="lonely")
    with connect(Log, lonely.address) as log:
        with pytest.raises(Unavailable):
            log.with_options(timeout=0.1).write(Log.add, "one")
        with pytest.raises(Unavailable):
            log.with_options(timeout=0.1).leader()
    with pytest.raises(Unavailable):
        lonely.with_options(timeout=0.1).leader()


def test_many_threads_share_one_client_and_each_keeps_its_order(peer: Peer[Log], log: Client[Log]) -> None:
    def write_all(name: str) -> None:
        for number in range(20):
            log.write(Log.add, f"{name}{number}")

    threads = [threading.Thread(target=write_all, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words = log.read(Log.all)
    assert len(words) == 160
    for name in "abcdefgh":
        assert [word for word in words if word[0] == name] == [f"{name}{number}" for number in range(20)]


async def test_it_works_where_another_loop_runs_as_in_a_notebook() -> None:
    with Node("127.0.0.1:0", store="memory", settings=SETTINGS) as node:
        peer = node.start_peer(Log, name="peer1")
        peer.set_configuration(peer.address)
        with connect(Log, peer.address) as log:
            assert log.write(Log.add, "one") == 1


def test_a_machine_that_calls_its_own_group_fails_at_once_and_blocks_nobody(node: Node) -> None:
    clients: list[Client[Calling]] = []

    class Calling(StateMachine):
        @write
        def call_myself(self) -> int:
            return clients[0].read(Calling.number)

        @read
        def number(self) -> int:
            return 1

    peer = node.start_peer(Calling, name="calling")
    peer.set_configuration(peer.address)
    with connect(Calling, peer.address) as client:
        clients.append(client)
        with pytest.raises(MachineError, match="its own event loop"):
            client.write(Calling.call_myself)
        assert client.read(Calling.number) == 1


def test_a_client_that_was_closed_stays_closed(log: Client[Log]) -> None:
    log.write(Log.add, "one")
    other = log.with_options(timeout=1.0)
    log.close()
    log.close()
    for client in (log, other):
        with pytest.raises(Unavailable, match="closed"):
            client.read(Log.all)


def test_calls_under_way_fail_when_the_client_is_closed(node: Node) -> None:
    lonely = node.start_peer(Log, name="lonely")
    client, errors = connect(Log, lonely.address), []
    begun = threading.Barrier(4)

    def call() -> None:
        begun.wait()
        try:
            client.with_options(timeout=30.0).write(Log.add, "one")
        except QuorateError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    client.close()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in errors] == [Unavailable] * 3


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_call_leaves_the_client_sound(node: Node, peer: Peer[Log]) -> None:
    lonely = node.start_peer(Log, name="lonely")
    with connect(Log, lonely.address) as client:
        for seconds in (0.001, 0.02, 0.1):
            timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))

            def write_meanwhile(timer: threading.Timer) -> None:
                timer.start()
                client.with_options(timeout=30.0).write(Log.add, "meanwhile")

            with pytest.raises(KeyboardInterrupt):
                write_meanwhile(timer)
            timer.join()
        lonely.set_configuration(lonely.address)
        assert client.write(Log.add, "one") == 1
        assert client.read(Log.all) == ["one"]


def test_a_node_may_be_started_again(tmp_path: Path) -> None:
    node = Node("127.0.0.1:0", data_dir=tmp_path / "a", settings=SETTINGS)
    with node:
        first = node.start_peer(Log, name="peer1")
        first.set_configuration(first.address)
        first.leader()
        assert first.write(Log.add, "one") == 1
    node.stop()
    with node:
        again = node.start_peer(Log, name="peer1")
        again.leader()
        assert again.read(Log.all) == ["one"]
    first.stop()
    assert first.status().last_applied > 0


def test_a_node_that_cannot_start_leaves_no_thread(node: Node) -> None:
    before = threading.enumerate()
    with pytest.raises(OSError, match="cannot listen"), Node(node.address, store="memory"):
        pass
    assert threading.enumerate() == before


PROGRAM = """
import os, sys
from quorate import Stopped
from quorate.blocking import Node, connect
from quorate.machines import KV
"""


def run(program: str) -> str:
    """Run a program in a process of its own; it must end in peace, and say nothing on stderr."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM + dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("uses", ["used before the fork", "not used before"])
def test_a_forked_process_has_a_loop_and_a_session_of_its_own(peer: Peer[Log], uses: str) -> None:
    """What gunicorn does to a client that was made before its workers were (``--preload``)."""
    with Node("127.0.0.1:0", store="memory", settings=SETTINGS) as node:
        kv = node.start_peer(KV, name="kv")
        kv.set_configuration(kv.address)
        kv.leader()
        printed = run(f"""
            with connect(KV, "{kv.address}") as kv:
                quick = kv.with_options(timeout=20.0)
                if {uses == "used before the fork"}:
                    quick.write(KV.append, "log", "p.")
                children = []
                for number in range(3):
                    child = os.fork()
                    if not child:
                        for _ in range(20):
                            quick.write(KV.append, "log", f"{{number}}.")
                        kv.close()
                        sys.exit(0)
                    children.append(child)
                for _ in range(20):
                    quick.write(KV.append, "log", "p.")
                print([os.waitpid(child, 0)[1] for child in children])
                print(kv.read(KV.get, "log"))
            """)
    statuses, words = printed.splitlines()
    assert statuses == "[0, 0, 0]"
    counts = {name: words.split(".").count(name) for name in "p012"}
    assert counts == {"p": 20 + (uses == "used before the fork"), "0": 20, "1": 20, "2": 20}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_is_told_that_the_node_is_not_its_own() -> None:
    printed = run("""
        with Node("127.0.0.1:0", store="memory") as node:
            peer = node.start_peer(KV, name="peer1")
            peer.set_configuration(peer.address)
            peer.leader()
            child = os.fork()
            if not child:
                for call in (peer.status, lambda: peer.read(KV.get, "foo"), node.start, lambda: node.address):
                    try:
                        call()
                    except Stopped as error:
                        print(error, flush=True)
                node.stop()
                os._exit(0)
            os.waitpid(child, 0)
            print(peer.write(KV.set, "foo", "bar"))
        """)
    *errors, last = printed.splitlines()
    assert len(errors) == 4
    assert all("forked from" in error for error in errors)
    assert last == "bar"


def test_a_program_that_closes_nothing_ends_in_peace(tmp_path: Path) -> None:
    """Its node too: the same directory opens again, with all that was written."""
    program = f"""
        node = Node("127.0.0.1:0", data_dir={str(tmp_path / "a")!r})
        node.start()
        peer = node.start_peer(KV, name="peer1")
        peer.set_configuration(peer.address)
        peer.leader()
        kv = connect(KV, peer.address)
        print(kv.write(KV.append, "foo", "a"))
        """
    run(program)
    printed = run(program)
    assert printed == "aa\n"


def test_a_client_knows_addresses_as_texts_and_as_values(peer: Peer[Log]) -> None:
    with connect(Log, str(peer.address)) as log:
        assert isinstance(log.leader(), Address)
        assert str(peer.address) in repr(log)
    assert repr(peer).startswith("<Peer peer1 leader")
