"""Processes that are forked from one with a node in it: they harm nobody, and keep nothing that is not theirs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

from .cluster import free_ports

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from quorate import Node, connect
from quorate.machines import KV

address, directory, store = sys.argv[1:]

async def main():
    async with Node(address, data_dir=directory + "/a", store=store, local=directory + "/s") as node:
        peer = await node.start_peer(KV, name="a")
        await peer.set_configuration(peer.address)
        await peer.leader()
        kv = connect(KV, peer.address)
        await kv.write(KV.set, "foo", "bar")
{body}

asyncio.run(main())
"""


def start(program: str, address: str, directory: Path, store: str) -> subprocess.Popen[str]:
    """Run a program."""
    arguments = [sys.executable, "-c", program, address, str(directory), store]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def with_a_leader(body: str) -> str:
    """Give a program that does something in its node's loop."""
    return PROGRAM.format(body=indent(body, 8 * " "))


SLEEPING = """
print("ready", flush=True)
await asyncio.to_thread(sys.stdin.readline)
child = os.fork()
if not child:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
signal.pause()
"""

GOING_ON = """
print(await kv.write(KV.append, "foo", "d"), await kv.read(KV.get, "foo"))
"""


@pytest.mark.parametrize("store", ["rocksdb", "lmdb"])
def test_a_node_starts_anew_beside_a_child_that_outlives_it(store: str, tmp_path: Path) -> None:
    """What ``multiprocessing`` has forked may run for hours, and knows nothing of the node."""
    port = free_ports(1)[0]
    with start(with_a_leader(SLEEPING), f"127.0.0.1:{port}", tmp_path, store) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            assert caller.recv(4096), "the node says who it is"
            process.stdin.write("\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            try:
                process.kill()
                process.wait()
                assert caller.recv(4096) == b"", "the connection is not held by another process"
                with start(with_a_leader(GOING_ON), f"127.0.0.1:{port}", tmp_path, store) as again:
                    assert again.communicate(timeout=30)[0] == "bard bard\n"
            finally:
                os.kill(child, signal.SIGKILL)


WAITING = """
import os, sys
from quorate.blocking import Node, connect
from quorate.machines import KV

address, directory, store = sys.argv[1:]

with Node(address, data_dir=directory, store=store) as node:
    peer = node.start_peer(KV, name="a")
    peer.set_configuration(peer.address)
    peer.leader()
    peer.write(KV.set, "foo", "bar")
    if not (child := os.fork()):
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(peer.write(KV.append, "foo", "d"))
with Node(address, data_dir=directory, store=store) as node:
    peer = node.start_peer(KV, name="a")
    peer.leader()
    print(peer.read(KV.get, "foo"))
"""


@pytest.mark.parametrize("store", ["rocksdb", "lmdb"])
def test_a_child_ends_like_any_process_and_the_node_goes_on(store: str, tmp_path: Path) -> None:
    """As workers that a web server has forked do: they unwind, and let go of all that they have a copy of.

    RocksDB itself, when all is done, joins threads that were not forked, and that may end with a signal.
    """
    with start(WAITING, "127.0.0.1:0", tmp_path / "a", store) as process:
        status, *rest = process.communicate(timeout=30)[0].split()
    assert int(status) == 7 or (store, int(status)) == ("rocksdb", -signal.SIGSEGV)
    assert rest == ["bard", "bard"]


CALLS = """
def call():
    async def all():
        for call in (
            lambda: peer.write(KV.set, "foo", "child"),
            lambda: peer.read_stale(KV.get, "foo"),
            lambda: peer.add_peer("b@127.0.0.1:1"),
            lambda: node.start_peer(KV, name="c"),
            node.stop,
            lambda: kv.write(KV.set, "foo", "child"),
        ):
            try:
                print(await call(), flush=True)
            except RuntimeError as error:
                print(error, flush=True)
        async with connect(KV, peer.address) as own:
            print(await own.write(KV.append, "foo", "c"), flush=True)
    asyncio.run(all())

child = os.fork()
if not child:
    thread = threading.Thread(target=call)  # Not the one that the loop of the node seems to run in.
    thread.start()
    thread.join()
    os._exit(0)
await asyncio.to_thread(os.waitpid, child, 0)
"""


def test_a_child_is_told_that_node_and_client_are_not_its_own(tmp_path: Path) -> None:
    with start(with_a_leader(CALLS + GOING_ON), "127.0.0.1:0", tmp_path, "memory") as process:
        *errors, own, last = process.communicate(timeout=30)[0].splitlines()
    assert len(errors) == 6
    assert all("forked" in error for error in errors), errors
    assert (own, last) == ("barc", "barcd barcd")


STORE = """
import gc, os, sys
from pathlib import Path
from quorate.store import Batch
from quorate.store.lmdb import LMDBStore
from quorate.store.rocksdb import RocksDBStore
from quorate.types import Index, Kind, Run, Term

path, engine = Path(sys.argv[2]), {"lmdb": LMDBStore, "rocksdb": RocksDBStore}[sys.argv[3]]

def write(index):
    store.append([Batch("a", None, (Run(Term(1), Index(index), Kind.COMMAND, 0.0, (b"foo",)),), None)])
    store.sync()

store = engine.open(path)
write(1)
marked = (path / "mark").read_bytes()
if not (child := os.fork()):
    store.close()
    del store
    gc.collect()
    os._exit((path / "mark").read_bytes() != marked)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
write(2)
store.close()
store = engine.open(path)
print(store.load("a").last)
"""


@pytest.mark.parametrize("store", ["rocksdb", "lmdb"])
def test_a_child_that_lets_go_of_a_store_waits_for_nothing_and_writes_nothing(store: str, tmp_path: Path) -> None:
    with start(STORE, "", tmp_path / "a", store) as process:
        try:
            assert process.communicate(timeout=30)[0] == "0\n2\n"
        finally:
            process.kill()
