"""The data directory: what is kept, and each refusal with a sentence that says what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from quorate.errors import Corrupted, DiskFull, StoreError, StoreLocked
from quorate.store import Batch, files
from quorate.store.directory import DataDirectory, MemoryDirectory, PeerIdentity, check_holds_no_node
from quorate.store.engines import open_store
from quorate.store.lmdb import LMDBStore
from quorate.store.memory import MemoryStore
from quorate.store.rocksdb import RocksDBStore
from quorate.types import HardState, PeerId, Term

HOME = "127.0.0.1:7001"
ELSEWHERE = "127.0.0.1:7002"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "a"


def counted() -> Callable[[], str]:
    numbers = iter(range(1, 100))
    return lambda: f"id-{next(numbers)}"


def prepared(path: Path, *peers: str, address: str = HOME, engine: str = "rocksdb") -> None:
    """Make a data directory as a node leaves it that ran these peers."""
    with closing(DataDirectory.open(path, address)) as directory:
        open_store(engine, directory).close()
        for peer in peers:
            directory.identity(peer)


def test_identities_are_made_once_and_kept(path):
    with closing(DataDirectory.open(path, HOME, counted())) as directory:
        assert directory.peers() == []
        first, second = directory.identity("peer2"), directory.identity("peer1")
        assert (directory.node_id, first.id, second.id, first.group) == ("id-1", "id-2", "id-3", "")
        assert directory.identity("peer2") == first
        directory.set_group("peer2", "g1")
        directory.set_group("peer2", "g1")
        assert directory.store_path == path / "store"
    with closing(DataDirectory.open(path, HOME)) as directory:
        assert directory.node_id == "id-1"
        assert directory.peers() == ["peer1", "peer2"]
        assert (directory.identity("peer2").id, directory.identity("peer2").group) == ("id-2", "g1")
        assert directory.identity("peer1") == second


def test_ids_are_random_hexadecimal_digits(path, tmp_path):
    with closing(DataDirectory.open(path, HOME)) as one, closing(DataDirectory.open(tmp_path / "b", HOME)) as other:
        ids = [one.node_id, other.node_id, one.identity("peer1").id, other.identity("peer1").id]
    assert len(set(ids)) == 4
    assert all(len(bytes.fromhex(each)) == 8 for each in ids)


def test_only_the_owner_may_enter(path):
    path.mkdir(parents=True, mode=0o755)
    prepared(path, "peer1")
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "peers" / "peer1" / "identity").stat().st_mode & 0o077 == 0


def test_a_directory_in_use_is_refused_and_free_again_after_close(path):
    first = DataDirectory.open(path, HOME)
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}; stop that node first"):
        DataDirectory.open(path, HOME)
    first.close()
    first.close()
    DataDirectory.open(path, HOME).close()


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_directory_whose_lock_could_not_be_written_is_free_again(path, monkeypatch, call):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(DiskFull):
            DataDirectory.open(path, HOME)
    DataDirectory.open(path, HOME).close()


@contextmanager
def held_until_killed(program: str, path: Path, says: bytes) -> Iterator[None]:
    """Have a process open a directory, see that this one is refused, and kill it; what it forked may live on."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == says
        with pytest.raises(StoreLocked, match=f"process {holder.pid}"):
            DataDirectory.open(path, HOME)
        holder.kill()
        holder.wait()
        yield


@pytest.mark.covers("pitfall 78")
def test_a_directory_in_use_by_another_process_is_refused_until_that_is_dead(path):
    program = (
        "import sys; from quorate.store.directory import DataDirectory as D;"
        " d = D.open(sys.argv[1], '127.0.0.1:7001'); print('open', flush=True); sys.stdin.read()"
    )
    with held_until_killed(program, path, b"open\n"):
        DataDirectory.open(path, HOME).close()


FORKING = """
import os, signal, sys
from pathlib import Path
from quorate.store.directory import DataDirectory
from quorate.store.lmdb import LMDBStore
path = Path(sys.argv[1])
def opened():
    directory = DataDirectory.open(path, "127.0.0.1:7001")
    return LMDBStore.open(directory.store_path), directory
first = opened()
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
for each in first:
    each.close()
again = opened()
if os.fork() == 0:
    again[1].close()
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
signal.pause()
"""
"""Opens a data directory and a store again beside a child that was forked meanwhile, and forks another one."""


def test_a_forked_child_holds_no_lock(path):
    """A worker that a web server forks off may live longer than its node."""
    with (
        held_until_killed(FORKING, path, b"forked\n"),
        closing(DataDirectory.open(path, HOME)) as directory,
        closing(LMDBStore.open(directory.store_path)),
    ):
        pass


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(path):
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreLocked, match="not empty, and not the data directory of a node"):
        DataDirectory.open(path, HOME)
    assert [child.name for child in path.iterdir()] == ["thesis.txt"]


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(StoreLocked, match="a is a file, and no data directory; give this node a directory"):
        DataDirectory.open(tmp_path / "a", HOME)
    assert (tmp_path / "a").read_text() == "mine"


OWN_FILES = ["lock", "node.json", "peers/peer1/identity", "peers/peer1/snapshots/3-1.snapshot", "store/mark"]


@pytest.mark.parametrize("name", OWN_FILES)
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "a pipe, a socket or a device, and no file"),
        (lambda file: file.symlink_to("nowhere"), "a link that leads nowhere"),
    ],
    ids=["pipe", "link"],
)
def test_what_is_no_file_is_told_and_not_waited_for(path, name, make, what):
    prepared(path, "peer1")
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).unlink(missing_ok=True)
    make(path / name)
    for _ in range(2):
        with pytest.raises(
            Corrupted, match=f"{name} is damaged: it is {what}. Check the disk, then put this file back"
        ):
            DataDirectory.open(path, HOME)


def test_links_that_lead_somewhere_are_followed_and_not_for_ever(path, tmp_path):
    prepared(path, "peer1")
    (path / "store").rename(tmp_path / "another disk")
    (path / "store").symlink_to(tmp_path / "another disk")
    (path / "peers" / "again").symlink_to(path / "peers")
    os.mkfifo(path / "not ours")
    with closing(DataDirectory.open(path, HOME)) as directory:
        open_store("rocksdb", directory).close()


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "give the user that this runs as"), (errno.EISDIR, "put back what"), (errno.EIO, "check the disk")],
)
def test_what_the_system_refuses_is_told_with_what_to_do(number, advice):
    said = rf"^opening a failed: \[Errno {number}\] .*: 'a/mark'; {advice}"
    with pytest.raises(StoreError, match=said), files.disk_errors("opening a"):
        raise OSError(number, os.strerror(number), "a/mark")


def test_a_directory_that_may_not_be_read_is_named_also_to_a_store_in_memory(path, monkeypatch):
    prepared(path, "peer1")

    def refuse(file: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(StoreError, match=f"opening {path} failed: .*Permission denied.*; give the user"):
        check_holds_no_node(path)


def test_a_first_start_that_crashed_half_way_is_begun_again(path):
    path.mkdir(parents=True)
    (path / "lock").write_text("1\n")
    (path / "node.json.new").write_text('{"id"')
    with closing(DataDirectory.open(path, HOME)) as directory:
        assert directory.peers() == []
    assert sorted(child.name for child in path.iterdir()) == ["lock", "node.json", "peers", "store"]


def test_a_new_peer_in_the_directory_of_a_node_at_another_address_is_refused(path):
    prepared(path, "peer1", "peer3")
    with closing(DataDirectory.open(path, ELSEWHERE)) as directory:
        with pytest.raises(StoreLocked) as refusal:
            directory.identity("peer2")
        assert directory.peers() == ["peer1", "peer3"]
    assert str(refusal.value) == (
        f"{path} belongs to the node at 127.0.0.1:7001 with peer1, peer3; peer2 is not among its peers. Give this node"
        " a directory of its own, or start it at 127.0.0.1:7001 to add a peer to that node"
    )
    with closing(DataDirectory.open(path, HOME)) as directory:
        directory.identity("peer2")


def test_a_node_that_moved_is_recognized_by_its_peers(path):
    prepared(path, "peer1")
    with closing(DataDirectory.open(path, ELSEWHERE)) as directory:
        directory.identity("peer1")
        directory.identity("peer2")
    with closing(DataDirectory.open(path, HOME)) as directory, pytest.raises(StoreLocked, match=ELSEWHERE):
        directory.identity("peer3")


def test_a_node_without_peers_may_be_anywhere(path):
    prepared(path)
    with closing(DataDirectory.open(path, ELSEWHERE)) as directory:
        directory.identity("peer1")
    assert json.loads((path / "node.json").read_text())["address"] == ELSEWHERE


def test_a_peer_of_another_group_is_refused(path):
    with closing(DataDirectory.open(path, HOME)) as directory:
        directory.set_group("peer1", "g1")
        with pytest.raises(StoreLocked, match=r"belongs to the group g1, not to g2\. Give the peer"):
            directory.set_group("peer1", "g2")
        assert directory.identity("peer1").group == "g1"


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "a\0", "x" * 129, None])
def test_a_name_that_no_peer_may_have_is_refused(path, name):
    with closing(DataDirectory.open(path, HOME)) as directory:
        with pytest.raises(ValueError, match="cannot name a peer"):
            directory.identity(name)
        assert directory.peers() == []


GARBLED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"id": "", "group": ""}',
    b'{"id": 7, "group": ""}',
    b'{"group": "g1"}',
    b"[" * 5000,
]


@pytest.mark.parametrize("content", GARBLED)
def test_a_garbled_identity_is_reported_and_never_replaced(path, content):
    prepared(path, "peer1")
    identity = path / "peers" / "peer1" / "identity"
    identity.write_bytes(content)
    with closing(DataDirectory.open(path, HOME)) as directory, pytest.raises(Corrupted, match="put this file back"):
        directory.identity("peer1")
    assert identity.read_bytes() == content


def test_the_identity_of_another_peer_is_refused(path):
    prepared(path, "peer1", "peer2")
    shutil.copy(path / "peers" / "peer1" / "identity", path / "peers" / "peer2" / "identity")
    with closing(DataDirectory.open(path, HOME)) as directory:
        directory.identity("peer1")
        with pytest.raises(
            Corrupted, match="peer2/identity is that of peer1, not of peer2: the data directory was put"
        ):
            directory.identity("peer2")


@pytest.mark.parametrize("bit", range(8))
def test_an_identity_of_which_a_bit_changed_is_reported(path, bit):
    with closing(DataDirectory.open(path, HOME)) as directory:
        directory.set_group("peer1", "g1")
        file = path / "peers" / "peer1" / "identity"
        content = file.read_bytes()
        for at in range(len(content)):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            with pytest.raises(Corrupted, match="put this file back"):
                directory.identity("peer1")


def test_an_identity_of_an_earlier_version_is_read_and_written_anew_with_a_checksum(path):
    prepared(path, "peer1")
    file = path / "peers" / "peer1" / "identity"
    file.write_text('{"id":"0123456789abcdef","group":""}\n')
    with closing(DataDirectory.open(path, HOME)) as directory:
        assert directory.identity("peer1", create=False) == PeerIdentity(PeerId("0123456789abcdef"), "")
        directory.set_group("peer1", "g1")
        assert directory.identity("peer1").group == "g1"
    kept = json.loads(file.read_text())
    assert (kept["id"], kept["group"], kept["name"]) == ("0123456789abcdef", "g1", "peer1")
    assert len(kept["checksum"]) == 8


@pytest.mark.parametrize("name", ["peer1", "peer2"])
def test_no_identity_is_made_where_one_must_be(path, name):
    prepared(path, "peer1")
    (path / "peers" / "peer1" / "identity").unlink()
    with closing(DataDirectory.open(path, HOME)) as directory:
        with pytest.raises(Corrupted, match=f"{name}/identity is damaged: it is missing, and the log of {name} is not"):
            directory.identity(name, create=False)
        assert directory.peers() == []
    forgetful = MemoryDirectory()
    with pytest.raises(Corrupted, match=f"the id of {name} was forgotten, and its log was not"):
        forgetful.identity(name, create=False)
    assert forgetful.identity(name) == forgetful.identity(name, create=False)


@pytest.mark.parametrize("gone", [[], ["peers"], ["store"]])
def test_a_missing_node_file_is_damage_and_no_foreign_directory(path, gone):
    prepared(path, "peer1")
    (path / "node.json").unlink()
    for name in gone:
        shutil.rmtree(path / name)
    for _ in range(2):
        with pytest.raises(Corrupted, match=r"node\.json is damaged: it is missing"):
            DataDirectory.open(path, HOME)


def test_a_garbled_node_file_is_reported_and_the_directory_let_go(path):
    prepared(path, "peer1")
    (path / "node.json").write_text("{")
    for _ in range(2):
        with pytest.raises(Corrupted, match=r"node\.json is damaged"):
            DataDirectory.open(path, HOME)


def test_peers_whose_store_was_deleted_are_refused(path):
    prepared(path, "peer1", "peer2")
    shutil.rmtree(path / "store")
    with pytest.raises(Corrupted) as refusal:
        DataDirectory.open(path, HOME)
    assert "has lost the logs of peer1, peer2" in str(refusal.value)
    assert f"remove {path}/peers/peer1, {path}/peers/peer2 too" in str(refusal.value)
    shutil.rmtree(path / "peers")
    with closing(DataDirectory.open(path, HOME)) as directory:
        open_store("rocksdb", directory).close()


@pytest.mark.parametrize("garbled", ["", "rockdb\n", "\0\0\0\0\0\0\0\0"])
def test_a_garbled_name_of_the_engine_is_damage_and_no_other_engine(path, garbled):
    prepared(path, "peer1")
    (path / "store" / "engine").write_text(garbled)
    sentence = r"store/engine is damaged: it names no engine .*put this file back"
    with closing(DataDirectory.open(path, HOME)) as directory, pytest.raises(Corrupted, match=sentence):
        open_store("rocksdb", directory)


@pytest.mark.parametrize("peers", [[], ["peer1"]])
@pytest.mark.parametrize(("engine", "other"), [("rocksdb", "lmdb"), ("lmdb", "rocksdb")])
def test_a_missing_name_of_the_engine_is_told_from_logs_that_are_gone(path, engine, other, peers):
    prepared(path, *peers, engine=engine)
    (path / "store" / "engine").unlink()
    with closing(DataDirectory.open(path, HOME)) as directory:
        for asked in (engine, other):
            with pytest.raises(Corrupted, match=f"store/engine is missing, and .* write the one word {engine} into"):
                open_store(asked, directory)
        (path / "store" / "engine").write_text(engine)
        open_store(engine, directory).close()


@pytest.mark.parametrize("kept", [[], ["engine"], ["engine", "mark"], ["mark"]])
@pytest.mark.parametrize("engine", ["rocksdb", "lmdb"])
def test_peers_whose_store_was_emptied_are_refused(path, engine, kept):
    prepared(path, "peer1", engine=engine)
    for child in (path / "store").iterdir():
        if child.name not in kept:
            shutil.rmtree(child) if child.is_dir() else child.unlink()
    with closing(DataDirectory.open(path, HOME)) as directory, pytest.raises(Corrupted):
        open_store(engine, directory)


@pytest.mark.parametrize(("engine", "kind"), [("rocksdb", RocksDBStore), ("lmdb", LMDBStore)])
def test_the_store_keeps_what_is_written_to_it(path, engine, kind):
    prepared(path, "peer1", engine=engine)
    with closing(DataDirectory.open(path, HOME)) as directory:
        with closing(open_store(engine, directory)) as store:
            assert isinstance(store, kind)
            store.append([Batch("peer1", HardState(Term(3)), ())])
            store.sync()
        with closing(open_store(engine, directory)) as store:
            assert store.load("peer1").hard_state == HardState(Term(3))


@pytest.mark.parametrize("engine", ["rocksdb", "lmdb"])
def test_a_store_that_was_moved_away_does_no_harm_to_the_one_in_its_place(path, engine):
    other = path.with_name("other")
    for directory in (path, other):
        prepared(directory, "peer1", engine=engine)
    vote = Batch("peer1", HardState(Term(7), PeerId("me")), ())
    with closing(DataDirectory.open(path, HOME)) as directory:
        store = open_store(engine, directory)
        path.rename(path.with_name("moved"))
        other.rename(path)
        store.append([vote])
        with pytest.raises(StoreError, match="store is another directory than the one that this node opened"):
            store.sync()
        with pytest.raises(StoreError, match="put back what was there"):
            store.close()
    path.rename(other)
    with closing(DataDirectory.open(other, HOME)) as directory, closing(open_store(engine, directory)) as store:
        assert store.load("peer1").hard_state == HardState(Term(0))


@pytest.mark.parametrize(("engine", "wrong"), [("lmdb", "rocksdb"), ("rocksdb", "lmdb")])
def test_a_store_of_another_engine_is_refused(path, engine, wrong):
    prepared(path, "peer1", engine=engine)
    with (
        closing(DataDirectory.open(path, HOME)) as directory,
        pytest.raises(StoreLocked, match=f'"{engine}", not "{wrong}"; start this node with store="{engine}"'),
    ):
        open_store(wrong, directory)


def test_a_store_in_memory_needs_no_directory():
    assert isinstance(open_store("memory", None), MemoryStore)


def test_a_store_of_ones_own_is_taken_as_it_is():
    store = MemoryStore()
    assert open_store(store, None) is store


@pytest.mark.parametrize("engine", ["rocksdb", "lmdb"])
def test_an_engine_without_a_directory_is_refused(engine):
    with pytest.raises(ValueError, match=f'"{engine}" needs a data directory'):
        open_store(engine, None)


def test_an_unknown_store_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match='\'rocks\'; the known ones are "rocksdb", "lmdb" and "memory"'):
        open_store("rocks", None)


@pytest.mark.parametrize(
    ("engine", "module", "line"),
    [
        ("rocksdb", "rocksdict", "pip install 'rocksdict>=0.3.29'"),
        ("lmdb", "lmdb", "pip install 'quorate[lmdb]'"),
        ("lmdb", "lmdb.verify", "pip install 'quorate[lmdb]'"),
    ],
)
def test_an_engine_that_is_not_installed_is_named_with_the_line_that_installs_it(
    path, monkeypatch, engine, module, line
):
    for loaded in [name for name in sys.modules if name.startswith(f"quorate.store.{engine}")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with closing(DataDirectory.open(path, HOME)) as directory:
        with pytest.raises(StoreError, match=re.escape(line)):
            open_store(engine, directory)
        assert list(directory.store_path.iterdir()) == [], "nothing is noted of an engine that could not be used"


def synced_directories(monkeypatch) -> set[str]:
    """Give where the directories that are synced from now on are noted."""
    synced: set[str] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return synced


@pytest.mark.covers("pitfall 77")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the names of open files")
def test_every_directory_above_a_new_one_is_made_durable(tmp_path, monkeypatch):
    synced = synced_directories(monkeypatch)
    DataDirectory.open(tmp_path / "b" / "c" / "d", HOME).close()
    assert {str(tmp_path), str(tmp_path / "b"), str(tmp_path / "b" / "c"), str(tmp_path / "b" / "c" / "d")} <= synced
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0o777 & ~umask() & 0o077, "what is above is not ours alone"
    assert (tmp_path / "b" / "c" / "d").stat().st_mode & 0o077 == 0


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.covers("pitfall 77")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the names of open files")
def test_a_directory_that_an_earlier_life_made_and_did_not_sync_is_made_durable(path, monkeypatch):
    path.mkdir(parents=True)
    synced = synced_directories(monkeypatch)
    files.make_directory(path)
    assert synced == {str(path.parent)}


@pytest.mark.covers("pitfall 77")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the names of open files")
def test_a_directory_that_another_node_makes_at_the_same_moment_is_durable_and_no_failure(path, monkeypatch):
    path.parent.mkdir()
    mkdir = Path.mkdir

    def too_late(directory: Path, *arguments, **more) -> None:
        mkdir(directory)
        mkdir(directory, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", too_late)
    synced = synced_directories(monkeypatch)
    files.make_directory(path)
    assert synced == {str(path.parent)}


def test_a_file_in_the_place_of_a_directory_is_a_failure(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        files.make_directory(tmp_path / "file")


@pytest.mark.parametrize(("number", "matters"), [(errno.EACCES, False), (errno.EINVAL, False), (errno.EIO, True)])
def test_above_the_data_directory_may_be_what_cannot_be_synced(path, monkeypatch, number, matters):
    path.mkdir(parents=True)

    def refused(_: Path) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(files, "sync_path", refused)
    if matters:
        with pytest.raises(OSError, match="refused"):
            files.make_directory(path)
    else:
        files.make_directory(path)
    with pytest.raises(OSError, match="refused"):
        files.make_directory(path / "new")


@pytest.mark.covers("pitfall 77")
def test_a_file_is_synced_under_another_name_before_it_is_renamed_and_then_its_directory(tmp_path, monkeypatch):
    order: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced = os.fstat(descriptor)
        names = [path.name for path in (tmp_path, *tmp_path.iterdir()) if os.path.samestat(path.stat(), synced)]
        order.extend(["sync", *names, "while the file is", (tmp_path / "file").read_text()])
        fsync(descriptor)

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", noted)
    files.replace_file(tmp_path / "file", b"new")
    first = ["sync", "file.new", "while the file is", "old"]
    assert order == [*first, "sync", tmp_path.name, "while the file is", "new"]
    assert (tmp_path / "file").read_bytes() == b"new"
