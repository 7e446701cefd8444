"""A new group from one disk: when a majority of disks is lost for good, and from a backup."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quorate import (
    Address,
    Corrupted,
    DiskFull,
    InvalidConfiguration,
    Node,
    Peer,
    StoreError,
    StoreLocked,
    Unavailable,
    connect,
)
from quorate.cli import main
from quorate.core.configuration import Configuration, Member, encode_configuration
from quorate.machines import KV
from quorate.recovering import holdings, recover
from quorate.store import Batch
from quorate.store.directory import DataDirectory
from quorate.store.engines import open_store
from quorate.store.rocksdb import RocksDBStore
from quorate.types import Compaction, HardState, Index, Kind, PeerId, Run, Snapshot, Term

from .cluster import SETTINGS, Cluster, cluster, free_ports

ENGINES = ("rocksdb", "lmdb")


async def written(nodes: Cluster[KV], entries: int, *, snapshots: bool = False) -> None:
    """Form a group and write to it, with a snapshot in the middle if that is wanted; stop all of it."""
    leader = await nodes.form()
    for part in ("a", "b"):
        await asyncio.gather(*(leader.write(KV.set, f"{part}{n}", str(n)) for n in range(entries)))
        await nodes.converge()
        if snapshots and part == "a":
            for peer in nodes.peers.values():
                await peer.take_snapshot()
    for name in list(nodes.nodes):
        await nodes.stop(name)


async def alone(node: Node, name: str = "peer1") -> Peer[KV]:
    """Start the one peer of a new group, and wait until it leads."""
    peer = await node.start_peer(KV, name=name)
    assert (await peer.with_options(timeout=10).leader()).name == name
    return peer


def directory_of(
    path: Path, runs: tuple[Run, ...], compaction: Compaction | None = None, term: int = 3, engine: str = "rocksdb"
) -> Path:
    """Make the data directory of one peer whose log is this; give it back."""
    directory = DataDirectory.open(path, "127.0.0.1:7001")
    store = open_store(engine, directory)
    directory.identity("peer1")
    if compaction is not None:
        directory.snapshots("peer1").write(compaction.snapshot, [])
    store.append([Batch("peer1", HardState(Term(term), PeerId("somebody")), runs, compaction)])
    store.sync()
    store.close()
    directory.close()
    return path


def configuration(*names: str, **changes: Any) -> bytes:
    members = tuple(Member(PeerId(f"id-{name}"), Address(name, "127.0.0.1", 7001)) for name in names)
    return encode_configuration(Configuration("a group of before", members, **changes))


def run(term: int, first: int, kind: Kind, *payloads: bytes) -> Run:
    return Run(Term(term), Index(first), kind, 1.0, payloads)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("snapshots", [False, True], ids=["from the log", "from a snapshot and the log"])
async def test_one_disk_of_three_becomes_a_group_that_grows_again(
    tmp_path: Path, engine: str, *, snapshots: bool
) -> None:
    async with cluster(KV, 3, tmp_path, store=engine) as nodes:
        await written(nodes, 50, snapshots=snapshots)
    lost = free_ports(2)
    [taken] = recover(tmp_path / "peer2", tmp_path / "new" / "2", f"127.0.0.1:{lost[0]}")
    assert taken.name == "peer2"
    async with (
        Node(f"127.0.0.1:{lost[0]}", data_dir=tmp_path / "new" / "2", store=engine, settings=SETTINGS) as node,
        Node(f"127.0.0.1:{lost[1]}", data_dir=tmp_path / "new" / "3", store=engine, settings=SETTINGS) as other,
    ):
        peer = await alone(node, "peer2")
        assert [member.address for member in peer.status().members] == [peer.address]
        assert peer.status().group not in ("", taken.configuration and taken.configuration.group)
        for part in ("a", "b"):
            assert [await peer.read(KV.get, f"{part}{n}") for n in range(50)] == [str(n) for n in range(50)]
        newcomer = await other.start_peer(KV, name="peer3", join=peer.address)
        await peer.write(KV.set, "after", "all")
        assert await newcomer.read(KV.get, "after") == "all"
        assert await newcomer.read(KV.get, "b49") == "49"


async def test_those_of_before_that_come_back_neither_disturb_it_nor_belong_to_it(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path) as nodes:
        await written(nodes, 5)
        where = nodes.address("peer1").node
        recover(tmp_path / "peer1", tmp_path / "new", where)
        async with Node(where, data_dir=tmp_path / "new", settings=SETTINGS) as node:
            peer = await alone(node)
            term = peer.status().term
            await nodes.start("peer2")
            await nodes.start("peer3")
            before = await nodes.leader()  # the old group has two of three, and goes on by itself
            await before.write(KV.set, "a0", "of before")
            assert await peer.read(KV.get, "a0") == "0"
            assert (peer.status().term, peer.status().role) == (term, "leader")
            # A client of the group of before takes none of it for the other.
            async with connect(KV, before.address) as kv:
                assert await kv.read(KV.get, "a0") == "of before"
                await nodes.stop("peer2")
                await nodes.stop("peer3")
                with pytest.raises(Unavailable):
                    await kv.with_options(timeout=1).read(KV.get, "a0")


async def test_the_copy_of_a_learner_is_a_backup_that_becomes_a_group(tmp_path: Path) -> None:
    async with cluster(KV, 1, tmp_path) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "kept", "yes")
        [port] = free_ports(1)
        async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "learner") as node:
            learner = await node.start_peer(KV, name="backup", join=leader.address, kind="learner")
            assert await learner.read(KV.get, "kept") == "yes"
            await learner.take_snapshot()
        shutil.copytree(tmp_path / "learner", tmp_path / "backup")
        await leader.write(KV.set, "kept", "no longer")
        recover(tmp_path / "backup", tmp_path / "restored", f"127.0.0.1:{port}")
        async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "restored", settings=SETTINGS) as node:
            peer = await alone(node, "backup")
            assert await peer.read(KV.get, "kept") == "yes"
            await peer.write(KV.set, "kept", "again")
            await node.stop()
        # It is made once: the next start finds it as any other peer.
        async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "restored", settings=SETTINGS) as node:
            assert await (await alone(node, "backup")).read(KV.get, "kept") == "again"
        assert await leader.read(KV.get, "kept") == "no longer"


async def test_a_change_of_the_members_that_was_under_way_is_over(tmp_path: Path) -> None:
    three = ("peer1", "peer2", "peer3")
    two = tuple(Member(PeerId(f"id-{name}"), Address(name, "127.0.0.1", 7001)) for name in ("peer1", "peer2"))
    runs = (
        run(1, 1, Kind.CONFIGURATION, configuration(*three)),
        run(2, 2, Kind.NOOP, b""),
        run(2, 3, Kind.CONFIGURATION, configuration(*three, outgoing=two)),
    )
    source = directory_of(tmp_path / "old", runs)
    [holding] = recover(source, tmp_path / "new", "127.0.0.1:7001")
    assert holding.configuration is not None
    assert holding.configuration.outgoing == two
    [port] = free_ports(1)
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "new", settings=SETTINGS) as node:
        peer = await alone(node)
        await peer.write(KV.set, "after", "all")
        assert len(peer.status().members) == 1
        assert peer.status().commit_index > 3
        assert peer.status().term == 4  # above that in which a vote was given to somebody


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_log_of_many_pieces_is_copied_whole(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.recovering.READ_BYTES", 1000)
    async with cluster(KV, 1, tmp_path, store=engine) as nodes:
        await written(nodes, 200)
        [taken] = recover(tmp_path / "peer1", tmp_path / "new", nodes.addresses[0].node)
    assert holdings(tmp_path / "new")[0].stored.last == taken.stored.last
    async with Node(f"127.0.0.1:{free_ports(1)[0]}", data_dir=tmp_path / "new", store=engine) as node:
        peer = await alone(node)
        assert [await peer.read(KV.get, f"b{n}") for n in range(200)] == [str(n) for n in range(200)]


async def test_each_peer_of_a_node_becomes_a_group_of_its_own(tmp_path: Path) -> None:
    [port] = free_ports(1)
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "old", settings=SETTINGS) as node:
        for name in ("green", "red"):
            peer = await node.start_peer(KV, name=name)
            await peer.set_configuration(peer.address)
            await peer.write(KV.set, "name", name)
        with pytest.raises(StoreLocked, match="is in use by process"):
            holdings(tmp_path / "old")
    assert [holding.name for holding in holdings(tmp_path / "old")] == ["green", "red"]
    [only] = recover(tmp_path / "old", tmp_path / "one", f"127.0.0.1:{port}", ["red"])
    assert only.name == "red"
    assert [holding.name for holding in holdings(tmp_path / "one")] == ["red"]
    recover(tmp_path / "old", tmp_path / "both", f"127.0.0.1:{port}")
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "both", settings=SETTINGS) as node:
        green, red = await alone(node, "green"), await alone(node, "red")
        assert green.status().group != red.status().group
        assert (await green.read(KV.get, "name"), await red.read(KV.get, "name")) == ("green", "red")


def refuse_writes(monkeypatch: pytest.MonkeyPatch, source: Path) -> Callable[[], dict[str, bytes]]:
    """Have the system say that nothing can be written there; give what looks at all that is there."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: source not in Path(path).parents and access(path, mode))
    return lambda: {str(file): file.read_bytes() for file in source.rglob("*") if file.is_file()}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_directory_that_cannot_be_written_is_read_as_a_copy(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = directory_of(tmp_path / "old", (FIRST, run(2, 2, Kind.NOOP, b"")), engine=engine)
    look = refuse_writes(monkeypatch, source)
    before = look()
    for directory in (source, *(path for path in source.rglob("*") if path.is_dir())):
        directory.chmod(0o500)  # as on a disc; this is copied with all else
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    [holding] = holdings(source)
    assert (holding.name, holding.stored.last) == ("peer1", 2)
    recover(source, tmp_path / "new", "127.0.0.1:7001")
    assert holdings(tmp_path / "new")[0].stored.last == 2
    assert look() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    for directory in (source, *(path for path in source.rglob("*") if path.is_dir())):
        directory.chmod(0o700)


def test_of_a_directory_that_cannot_be_written_damage_is_named_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = directory_of(tmp_path / "old", (FIRST,))
    refuse_writes(monkeypatch, source)
    with (
        contextlib.closing(DataDirectory.open(source, "127.0.0.1:7001")),
        pytest.raises(StoreLocked, match=f"{source} is in use by process"),
    ):
        holdings(source)
    (source / "store" / "mark").unlink()
    with pytest.raises(Corrupted, match=f"^{source}/store is damaged: it holds no store"):
        holdings(source)
    os.mkfifo(source / "store" / "mark")
    with pytest.raises(Corrupted, match=f"^{source}/store/mark is damaged: it is a pipe"):
        holdings(source)
    (source / "store" / "mark").unlink()
    (source / "lock").unlink()
    (source / "store" / "mark").symlink_to("mark")
    with pytest.raises(StoreError, match=f"copying {source} failed: .*{source}/store/mark.*; put back what was there"):
        holdings(source)


@pytest.mark.parametrize("word", ["", "rockdb"])
def test_an_engine_that_nobody_can_tell_is_told(tmp_path: Path, word: str) -> None:
    source = directory_of(tmp_path / "old", (FIRST,), engine="lmdb")
    (source / "store" / "engine").write_text(word)
    with pytest.raises(Corrupted, match="store/engine is damaged: it names no engine that there is"):
        holdings(source)
    (source / "store" / "engine").unlink()
    with pytest.raises(Corrupted, match="write the one word lmdb into this file"):
        holdings(source)


# What cannot be done is said, and leaves nothing behind.

BARE = run(2, 2, Kind.BARE, b"", b"")
FIRST = run(1, 1, Kind.CONFIGURATION, configuration("peer1", "peer2"))
SNAPSHOT = Snapshot(Index(9), Term(2), 1.0, Index(1), configuration("peer1", "peer2"), is_bare=True)


@pytest.mark.parametrize(
    ("runs", "compaction", "text"),
    [
        ((), None, "peer1 never belonged to a group: there is nothing to recover"),
        ((FIRST, BARE), None, "peer1 is a witness, or was one, and holds no data; take another's disk"),
        ((), Compaction(SNAPSHOT, Index(9), Term(2), replaces_log=True), "peer1 is a witness, or was one"),
    ],
    ids=["no group", "a witness's log", "a witness's snapshot"],
)
def test_of_what_holds_no_data_no_group_is_made(
    tmp_path: Path, runs: tuple[Run, ...], compaction: Compaction | None, text: str
) -> None:
    source = directory_of(tmp_path / "old", runs, compaction)
    with pytest.raises(InvalidConfiguration) as caught:
        recover(source, tmp_path / "new", "127.0.0.1:7001")
    assert str(caught.value).startswith(text)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_source_that_is_none_is_explained_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="is no directory"):
        recover(tmp_path / "old", tmp_path / "new", "127.0.0.1:7001")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidConfiguration, match="holds no peer"):
        holdings(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    source = directory_of(tmp_path / "old", (FIRST,))
    with pytest.raises(InvalidConfiguration, match="holds nothing of peer7; it has: peer1"):
        recover(source, tmp_path / "new", "127.0.0.1:7001", ["peer7"])
    for node, text in (("nowhere", "not a node's address"), ("127.0.0.1:0", "port 0, where nobody can be reached")):
        with pytest.raises(ValueError, match=text):
            recover(source, tmp_path / "new", node)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old"]


@pytest.mark.parametrize("calls", [("os.listdir", "os.scandir"), ("pathlib.Path.is_dir",)], ids=["it", "what it is in"])
def test_a_source_that_may_not_be_read_is_not_taken_for_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, calls: tuple[str, ...]
) -> None:
    source = str(directory_of(tmp_path / "old", (FIRST,)))

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for call in calls:
        monkeypatch.setattr(call, refuse)
    for arguments in ([source], [source, "--to", str(tmp_path / "new"), "--node", "127.0.0.1:7009"]):
        assert main(["recover", *arguments]) == 1
        assert "Permission denied: " in (said := capsys.readouterr().err)
        assert "give the user that this runs as the right to read and write there" in said


def test_a_copy_that_somebody_made_of_a_peers_files_is_no_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = directory_of(tmp_path / "old", (FIRST,))
    shutil.copytree(source / "peers" / "peer1", source / "peers" / "peer1 (copy)")
    assert main(["recover", str(source)]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()] == ["PEER", "peer1"]
    recover(source, tmp_path / "new", "127.0.0.1:7001")
    assert [holding.name for holding in holdings(tmp_path / "new")] == ["peer1"]


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    source = directory_of(tmp_path / "old", (FIRST,))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for target in (source, tmp_path / "file", tmp_path / "full"):
        with pytest.raises(StoreLocked, match="is there already, and not empty"):
            recover(source, target, "127.0.0.1:7001")
    assert (tmp_path / "file").read_text() == "mine"
    for name in ("made", "linked"):  # an empty one may be there, also at the end of a link
        (tmp_path / "made").mkdir()
        (tmp_path / "linked").symlink_to("made")
        recover(source, tmp_path / name, "127.0.0.1:7001")
        assert holdings(tmp_path / name)[0].configuration is not None
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["lock", "node.json", "peers", "store"]
        (tmp_path / "linked").unlink()
        shutil.rmtree(tmp_path / "made")


def test_an_empty_directory_that_cannot_be_put_away_is_told_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = directory_of(tmp_path / "old", (FIRST,))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(RocksDBStore, "append", None)
    with pytest.raises(StoreLocked, match=r"here cannot be made anew, for this is called in it; name a directory in"):
        recover(source, Path(), "127.0.0.1:7001")
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "here")
    with pytest.raises(StoreLocked, match=r"here cannot be made anew, for a disk is mounted there; name a directory"):
        recover(source, tmp_path / "here", "127.0.0.1:7001")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "old"]


@pytest.mark.parametrize("why", ["a damaged snapshot", "no room", "a disk that fails"])
def test_what_fails_half_way_leaves_nothing_behind(tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot(Index(9), Term(2), 1.0, Index(1), configuration("peer1", "peer2"))
    compaction = Compaction(snapshot, Index(9), Term(2), replaces_log=True)
    source = directory_of(tmp_path / "old", (run(2, 10, Kind.COMMAND, b"\x92\xa3set\x90"),), compaction)
    kind: type[StoreError] = DiskFull if why == "no room" else StoreError
    if why == "a damaged snapshot":
        kind = Corrupted
        [file] = (source / "peers" / "peer1" / "snapshots").iterdir()
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    else:

        def fail(*_: object) -> None:
            raise kind("as asked for")

        monkeypatch.setattr(RocksDBStore, "append", fail)
    with pytest.raises(kind):
        recover(source, tmp_path / "new", "127.0.0.1:7001")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    monkeypatch.undo()
    if why != "a damaged snapshot":  # and the source is as it was
        recover(source, tmp_path / "new", "127.0.0.1:7001")


def test_what_is_left_of_a_copy_that_was_killed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = directory_of(tmp_path / "old", (FIRST, run(2, 2, Kind.NOOP, b""), run(2, 3, Kind.NOOP, b"")))
    monkeypatch.setattr("quorate.recovering.READ_BYTES", 1)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as nobody removes anything who is killed
    append, appended = RocksDBStore.append, iter(range(3))

    def killed(store: RocksDBStore, batches: list[Batch]) -> None:
        if next(appended, None) is None:
            raise SystemExit
        append(store, batches)

    monkeypatch.setattr(RocksDBStore, "append", killed)
    with pytest.raises(SystemExit):
        recover(source, tmp_path / "new", "127.0.0.1:7001")
    [left] = tmp_path.glob("new.*")
    for use in (holdings, lambda path: recover(path, tmp_path / "newer", "127.0.0.1:7001")):
        with pytest.raises(Corrupted, match=f"^{left} is a part .* to copy, .*: remove it, and recover anew"):
            use(left)
    with pytest.raises(Corrupted, match=f"{left} is a part"):
        asyncio.run(Node("127.0.0.1:0", data_dir=left).start())


# On the command line.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    source = directory_of(tmp_path / "old", (FIRST,))
    monkeypatch.setattr(RocksDBStore, "append", lambda *_: signal.raise_signal(number))
    before = signal.signal(number, signal.SIG_DFL)  # Whoever runs the tests in the background may ignore Ctrl-C.
    try:
        assert main(["recover", str(source), "--to", str(tmp_path / "new"), "--node", "127.0.0.1:7009"]) == 130
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_the_command_shows_what_is_there_and_makes_a_group_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = directory_of(tmp_path / "old", (FIRST, run(2, 2, Kind.NOOP, b"")))
    assert main(["recover", str(source)]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert re.split(" {2,}", heading) == ["PEER", "LAST TERM", "LAST INDEX", "WRITTEN", "MEMBERS"]
    assert row.split() == ["peer1", "2", "2", "1970-01-01", "00:00:01", "UTC", "peer1,", "peer2"]
    assert main(["recover", str(source), "--to", str(tmp_path / "new"), "--node", "127.0.0.1:7009"]) == 0
    out = capsys.readouterr().out
    assert out == (
        f"peer1 is a group of its own in {tmp_path / 'new'}, with all up to index 2\n"
        "start it as peer1@127.0.0.1:7009, and let others join it\n"
    )
    [holding] = holdings(tmp_path / "new")
    assert holding.configuration is not None
    assert [str(member.address) for member in holding.configuration.members] == ["peer1@127.0.0.1:7009"]


def test_the_command_says_what_it_needs_and_why_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, new = str(directory_of(tmp_path / "old", (FIRST,))), str(tmp_path / "new")
    for arguments, text in (
        ([source, "--node", "127.0.0.1:7009"], "--node and --peer are of a new directory: name that with --to"),
        ([source, "--to", new], "--node is needed: where the node that will run on the new directory is reached"),
        ([str(tmp_path / "none")], "is no directory"),
        ([source, "--to", source, "--node", "127.0.0.1:7009"], "is there already, and not empty"),
    ):
        assert main(["recover", *arguments]) == 1
        assert text in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["recover", source, "--to", new, "--node", "0.0.0.0:7009"])
    assert "others cannot reach 0.0.0.0:7009: name the address where they do" in capsys.readouterr().err
    empty = directory_of(tmp_path / "empty", ())
    assert main(["recover", str(empty)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["peer1", "0", "0", "-", "no", "group"]
