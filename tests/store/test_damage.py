"""Each file of a data directory, damaged in each way: the next start has all that was promised, or says what is wrong.

The directory is as a process leaves it that is killed: two peers, each with a term and vote, a snapshot and entries
behind it; with RocksDB tables, and three logs of its WAL. The mark is exact, as a second after the last write: what
may be lost unnoticed before that stands in ``test_rocksdb.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from quorate import Address, Node, QuorateError
from quorate.core.configuration import Configuration, Member, encode_configuration
from quorate.machines import KV
from quorate.store import Batch, LogStore, MarkedStore, rocksdb_recovery
from quorate.store.directory import DataDirectory
from quorate.store.engines import open_store
from quorate.tables import Tables, encode_tables
from quorate.types import Compaction, HardState, Index, Kind, PeerId, Run, Snapshot, Stored, Term

HOME = "127.0.0.1:7001"
PEERS = ("peer1", "peer2")
ENGINES = ("rocksdb", "lmdb")
SNAPSHOT = Index(40)
PAGE = 4096


def configuration(name: str, id: PeerId) -> bytes:
    """Make a group of three, of which the others run nowhere: so nobody leads, and no log changes at a start."""
    others = (Member(PeerId(f"other{n}"), Address(f"other{n}", "127.0.0.1", n)) for n in (1, 2))
    own = Member(id, Address(name, "127.0.0.1", 7001))
    return encode_configuration(Configuration(f"group of {name}", (*others, own)))


def write(store: LogStore, name: str, first: int, last: int, term: int | None = None) -> None:
    """Write entries of a kilobyte or two, and perhaps a term and vote beside the last; durable when it returns."""
    for index in range(first, last + 1):
        payload = msgspec.msgpack.encode(("set", f"{name}-{index % 50}", f"{index}" * 500))
        vote = HardState(Term(term), PeerId(f"candidate of {term}")) if term is not None and index == last else None
        store.append([Batch(name, vote, (Run(Term(1), Index(index), Kind.COMMAND, 1.0, (payload,)),))])
        store.sync()


def take_snapshot(directory: DataDirectory, store: LogStore, name: str, settled: bytes) -> None:
    snapshot = Snapshot(SNAPSHOT, Term(1), 1.0, Index(1), settled)
    state = [encode_tables(Tables()), msgspec.msgpack.encode(("entries", {"snapshot": "of " + name}))]
    directory.snapshots(name).write(snapshot, state)
    store.append([Batch(name, None, (), Compaction(snapshot, Index(30), Term(1)))])
    store.sync()


Held = dict[str, tuple[Stored, tuple[Run, ...]]]
"""All that a log holds, by the peer's name."""


class Promised(NamedTuple):
    """What a data directory holds.

    Attributes:
        path: the directory.
        older: what it held before its last entries, votes and snapshot.
        held: all that its logs hold.
    """

    path: Path
    older: Path
    held: Held


def held_in(path: Path, engine: str) -> Held:
    """Give all that the logs hold."""
    with closing(DataDirectory.open(path, HOME)) as directory, closing(open_store(engine, directory)) as store:
        held: Held = {}
        for name in PEERS:
            stored = store.load(name)
            first = Index((stored.compaction.start if stored.compaction else 0) + 1)
            held[name] = stored, store.read(name, first, stored.last, 1 << 30)
        return held


def make(place: Path, engine: str) -> Promised:
    """Make a directory as a process leaves it that is killed."""
    run, older, path = place / "run", place / "older", place / "killed"
    with closing(DataDirectory.open(run, HOME)) as directory:
        with closing(open_store(engine, directory)) as store:
            settled = {name: configuration(name, directory.identity(name).id) for name in PEERS}
            for name in PEERS:
                store.append([Batch(name, None, (Run(Term(1), Index(1), Kind.CONFIGURATION, 1.0, (settled[name],)),))])
                write(store, name, 2, 60, term=2)
        shutil.copytree(run, older)
        for name in PEERS:
            directory.set_group(name, f"group of {name}")
        with closing(open_store(engine, directory)) as store:
            logs = Logs(run, place / "logs") if engine == "rocksdb" else None
            for name in PEERS:
                take_snapshot(directory, store, name, settled[name])
            for last in itertools.count(61):
                for name in PEERS:
                    write(store, name, last, last, term=3)
                if logs is None or logs.gather() == 3:
                    break
            write(store, "peer1", last + 1, last + 3)
            assert isinstance(store, MarkedStore)
            store.mark()
            shutil.copytree(run, path, ignore=shutil.ignore_patterns("db-*"))
            if logs is not None:
                logs.put_back(path)
    shutil.copytree(path, place / "sound")
    return Promised(path, older, held_in(place / "sound", engine))


class Logs:
    """The logs of a running database, kept when the engine has put what they hold into tables and removes them."""

    def __init__(self, run: Path, kept: Path) -> None:
        """Begin with the database as it is now."""
        self._database, self._kept = run / "store" / "db-1", kept
        shutil.copytree(self._database, kept)

    def gather(self) -> int:
        """Keep the logs that there are; give how many there have been."""
        for log in self._database.glob("*.log"):
            with contextlib.suppress(FileNotFoundError):  # removed just now: it was kept when it was begun
                kept = self._kept / log.name
                if not kept.exists() or not kept.samefile(log):
                    os.link(log, self._kept / "linked")
                    os.replace(self._kept / "linked", kept)
        return len(list(self._kept.glob("*.log")))

    def put_back(self, path: Path) -> None:
        """Have the database in a copy of the directory as if nothing had been put into tables meanwhile."""
        shutil.copytree(self._kept, path / "store" / "db-1")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory where syncs take no time: nothing here cuts the power."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").exists() else None) as place:
        yield Path(place)


@pytest.fixture(scope="module")
def promised(engine: str, place: Path) -> Iterator[Promised]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rocksdb_recovery, "MEMTABLE_BYTES", 64 * 1024)
        yield make(place / engine, engine)


# The ways.


def replaced(change: Callable[[bytearray], None]) -> Callable[[Path, Path], None]:
    """Give what changes the content of a file."""

    def damage(file: Path, _: Path) -> None:
        content = bytearray(file.read_bytes())
        change(content)
        file.write_bytes(content)

    return damage


def zeroed(first: float, size: int) -> Callable[[Path, Path], None]:
    """Give what makes zeros of so many bytes, from a page on that is so far into the file."""

    def change(content: bytearray) -> None:
        at = int(len(content) * first) // PAGE * PAGE
        content[at : at + size] = bytes(len(content[at : at + size]))

    return replaced(change)


def flipped(where: float) -> Callable[[Path, Path], None]:
    """Give what flips a bit so far into the file."""

    def change(content: bytearray) -> None:
        if content:
            content[min(int(len(content) * where), len(content) - 1)] ^= 1 << int(where * 80) % 8

    return replaced(change)


def instead(make: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    """Give what puts something else in the place of a file."""

    def damage(file: Path, _: Path) -> None:
        file.unlink()
        make(file)

    return damage


def put_older(file: Path, older: Path) -> None:
    if older.is_file():
        shutil.copy(older, file)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "gone": lambda file, _: file.unlink(),
    "emptied": lambda file, _: os.truncate(file, 0),
    "cut in half": lambda file, _: os.truncate(file, file.stat().st_size // 2),
    "one byte short": lambda file, _: os.truncate(file, max(0, file.stat().st_size - 1)),
    "of zeros": zeroed(0, 1 << 30),
    "its first page zeros": zeroed(0, PAGE),
    "a page in its middle zeros": zeroed(0.5, PAGE),
    "its first bit flipped": flipped(0),
    "a bit flipped early": flipped(0.2),
    "a bit flipped in the middle": flipped(0.5),
    "a bit flipped late": flipped(0.85),
    "its last bit flipped": flipped(1),
    "an older one": put_older,
    "a directory": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a link to nowhere": instead(lambda file: file.symlink_to("/nowhere/at/all")),
    "a link to itself": instead(lambda file: file.symlink_to(file)),
}
"""What happens to a file, given it and an older copy."""

FAST = ("gone", "cut in half", "its first page zeros", "a bit flipped late", "an older one", "a pipe")


def files_of(path: Path) -> list[Path]:
    """Give the files in a directory."""
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


def start(path: Path, engine: str) -> Held | QuorateError:
    """Start a node with its peers, and stop it; give what its logs hold then, or the error with which that fails."""
    outcome: list[Held | QuorateError] = []

    async def run() -> None:
        async with Node("127.0.0.1:0", data_dir=path, store=engine) as node:
            for name in PEERS:
                await node.start_peer(KV, name=name)

    def started() -> None:
        try:
            asyncio.run(run())
            outcome.append(held_in(path, engine))
        except QuorateError as error:
            outcome.append(error)

    # On a thread of its own, and not for ever: a start that hangs would hang the tests.
    thread = threading.Thread(target=started, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the start hangs"
    assert outcome, "the start raises what is no error of quorate"
    return outcome[0]


def check_starts(promised: Promised, path: Path, engine: str, files: Sequence[Path]) -> None:
    """Check that a damaged directory holds all that was promised, or that its start fails with what is wrong: twice."""
    for _ in range(2):
        outcome = start(path, engine)
        if not isinstance(outcome, QuorateError):
            assert outcome == promised.held
            continue
        text = str(outcome)
        assert any(str(path / file) in text or str((path / file).parent) in text for file in files), text
        assert any(advice in text for advice in ("Check the disk", "check the disk", "put ", "give ", "remove ")), text
        assert "\n" not in text


def check(promised: Promised, engine: str, place: Path, *damages: tuple[Path, str]) -> None:
    """Damage files of a copy of the directory, and check its next starts."""
    path = place / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(promised.path, path)
    for file, way in damages:
        WAYS[way](path / file, promised.older / file)
    try:
        check_starts(promised, path, engine, [file for file, _ in damages])
    except AssertionError as error:
        error.add_note(f"{damages}")
        raise


def test_the_directory_is_as_a_killed_process_leaves_it(promised, engine, place):
    names = [file.name for file in files_of(promised.path)]
    for stored, _ in promised.held.values():
        assert (stored.hard_state.term, stored.compaction.start, stored.compaction.snapshot.index) == (3, 30, SNAPSHOT)
        assert stored.last > SNAPSHOT
    if engine == "rocksdb":
        assert len([name for name in names if name.endswith(".log")]) == 3
        assert any(name.endswith(".sst") for name in names)
    check(promised, engine, place)


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way in FAST else pytest.mark.slow) for way in WAYS])
def test_one_file_that_is_damaged_is_told_or_does_no_harm(promised, engine, place, way):
    for file in files_of(promised.path):
        check(promised, engine, place, (file, way))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_two_files_that_are_damaged_are_told_or_do_no_harm(promised, engine, place, seed):
    chance = random.Random(seed)
    for _ in range(20):
        pair = chance.sample(files_of(promised.path), 2)
        check(promised, engine, place, *((file, chance.choice(list(WAYS))) for file in pair))
