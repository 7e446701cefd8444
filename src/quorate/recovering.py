"""A group made anew from one disk: from a backup, or from what is left when a majority of disks is lost for good.

The log and the snapshot of a peer are copied into another data directory, in which that peer is all of a new group. A
group of before never takes it for a member, and it never takes one of them: what they decided is not decided here.
Knows files and configurations; runs no peer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from quorate.core.configuration import Configuration, Member, decode_configuration, encode_configuration
from quorate.errors import InvalidConfiguration, StoreError, StoreLocked
from quorate.store import Batch, LogStore
from quorate.store.directory import UNFINISHED, DataDirectory, check_kinds, peers_in, random_id
from quorate.store.engines import engine_of, open_store
from quorate.store.files import DirectoryLock, copy_directory, disk_errors, make_directories, replace_file, sync_path
from quorate.types import Address, Compaction, HardState, Index, Kind, Run, Snapshot, Stored, Term, parse_node

READ_BYTES = 4 * 1024 * 1024
"""About how much of a log is read and written at a time."""


class Holding(msgspec.Struct, frozen=True):
    """What a data directory holds of one peer.

    Attributes:
        name: the peer's name.
        stored: its log, without the commands.
    """

    name: str
    stored: Stored

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot that its log begins with; None when it has none."""
        return self.stored.compaction.snapshot if self.stored.compaction else None

    @property
    def last_term(self) -> Term:
        """The term of its last entry; 0 for an empty log."""
        if self.stored.terms:
            return self.stored.terms[-1][1]
        return self.stored.compaction.term if self.stored.compaction else Term(0)

    @property
    def configuration(self) -> Configuration | None:
        """The latest configuration that it knows of, committed or not; None while it belongs to no group."""
        if self.stored.configurations:
            return decode_configuration(self.stored.configurations[-1][1])
        return decode_configuration(self.snapshot.configuration) if self.snapshot else None

    @property
    def is_witness(self) -> bool:
        """Whether it holds no data, as a witness does, or a voter that was one and was sent nothing since."""
        return bool(self.stored.bare) or (self.snapshot is not None and self.snapshot.is_bare)


def holdings(source: Path) -> tuple[Holding, ...]:
    """Tell what a data directory holds; its node must not run. The logs stay as they are.

    Args:
        source: the directory.

    Raises:
        InvalidConfiguration: no peer has data there.
        StoreLocked: its node runs, or it is not a data directory.
        Corrupted: what is on the disk is not what was written.
        StoreError: the disk failed, or the engine is not installed.
    """
    with opened(source) as (directory, store):
        return tuple(Holding(name, store.load(name)) for name in directory.peers())


def recover(source: Path, target: Path, node: str, names: Collection[str] = ()) -> tuple[Holding, ...]:
    """Make a new group of each peer of a data directory, in a new data directory; each is its only member at first.

    All entries of its log count as committed, since nobody is left to say which were: so all that was acknowledged and
    reached this disk is there, and perhaps writes whose outcome nobody was told.

    Args:
        source: the directory that was saved; its logs stay as they are.
        target: the new one: not there yet, or empty. It appears once it is whole.
        node: where the node that is to run on it will be reached, ``host:port``.
        names: the peers to take; all when none is named.

    Returns:
        What was taken.

    Raises:
        ValueError: the node's address cannot be read, or nobody can dial it.
        InvalidConfiguration: there is no such peer, or one of them never belonged to a group, or is a witness.
        StoreLocked: a node runs on the source, or it is not a data directory; or the target is not empty.
        Corrupted: what is on the disk is not what was written.
        DiskFull: there is no room.
        StoreError: the disk failed, or the engine is not installed.
    """
    host, port = parse_node(node)
    if not port:
        raise ValueError(f"{node} has port 0, where nobody can be reached; name the port that the node will have")
    with disk_errors(f"making {target}"):
        target = Path(os.path.realpath(target))  # What is renamed takes the place of a link, not of what it leads to.
    check_empty(target)
    with opened(source) as (saved, logs), made(target, node, engine_of(saved.store_path)) as (directory, store):
        taken = tuple(Holding(name, logs.load(name)) for name in chosen(source, saved.peers(), names))
        for holding in taken:
            check_holds_data(holding)
        for holding in taken:
            identity = directory.identity(holding.name)
            member = Member(identity.id, Address(holding.name, host, port))
            configuration = Configuration(random_id(), (member,))
            payload = encode_configuration(configuration)
            if (compaction := holding.stored.compaction) is not None:
                chunks = saved.snapshots(holding.name).chunks(compaction.snapshot)
                directory.snapshots(holding.name).write(anew(compaction, payload).snapshot, chunks)
            copy_log(holding, logs, store, payload)
            directory.set_group(holding.name, configuration.group)
    return taken


def check_empty(target: Path) -> None:
    """Check that nothing is where a directory is to be made, or an empty one that can be put away.

    Raises:
        StoreLocked: something is.
        StoreError: the disk refused.
    """
    with disk_errors(f"making {target}"):
        if not target.exists():
            return
        if not target.is_dir() or any(target.iterdir()):
            raise StoreLocked(f"{target} is there already, and not empty; name a directory that does not exist")
        if target.is_mount() or target.samefile("."):
            why = "a disk is mounted there" if target.is_mount() else "this is called in it"
            raise StoreLocked(f"{target} cannot be made anew, for {why}; name a directory in it, that does not exist")


def chosen(source: Path, there: list[str], names: Collection[str]) -> list[str]:
    """Give the names of the peers to take.

    Raises:
        InvalidConfiguration: one of them has no data there.
    """
    missing = sorted(set(names) - set(there))
    if missing:
        raise InvalidConfiguration(f"{source} holds nothing of {', '.join(missing)}; it has: {', '.join(there)}")
    return [name for name in there if not names or name in names]


def check_holds_data(holding: Holding) -> None:
    """Check that a group can be made of what a peer holds.

    Raises:
        InvalidConfiguration: none can.
    """
    if holding.configuration is None:
        raise InvalidConfiguration(f"{holding.name} never belonged to a group: there is nothing to recover")
    if holding.is_witness:
        raise InvalidConfiguration(f"{holding.name} is a witness, or was one, and holds no data; take another's disk")


@contextlib.contextmanager
def opened(source: Path) -> Iterator[tuple[DataDirectory, LogStore]]:
    """Open a data directory that is there; one that cannot be written, as on media for reading alone, as a copy.

    Raises:
        InvalidConfiguration: no peer has data there.
        StoreLocked: its node runs, or it is not a data directory.
        Corrupted: what is on the disk is not what was written.
        StoreError: the disk failed, or the engine is not installed.
    """
    with disk_errors(f"opening {source}"):
        is_directory = source.is_dir()
    if not is_directory:
        raise InvalidConfiguration(f"{source} is no directory; name the data directory of a node, or a copy of one")
    if not peers_in(source):
        raise InvalidConfiguration(f"{source} holds no peer; name the data directory of a node, or a copy of one")
    with (
        contextlib.nullcontext(source) if os.access(source / "store", os.W_OK) else copied(source) as place,
        contextlib.closing(DataDirectory.open(place, "")) as directory,
        contextlib.closing(open_store(engine_of(directory.store_path), directory)) as store,
    ):
        yield directory, store


@contextlib.contextmanager
def copied(source: Path) -> Iterator[Path]:
    """Copy a data directory to where temporary files are, until the end of the ``with``.

    Raises:
        StoreLocked: its node runs.
        Corrupted: something in it is no file, or what is raised inside.
        DiskFull: there is no room.
        StoreError: the disk failed.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(f"copying {source}", with_room=" where temporary files are, or name another place in TMPDIR"):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quorate-recover-")), "copy")
            check_kinds(source)
            if (source / "lock").exists():
                stack.enter_context(contextlib.closing(DirectoryLock(source, to_read=True)))
            copy_directory(source, place)
        try:
            yield place
        except StoreError as error:
            # Whoever looks for what it names finds only what the copy was made of.
            raise type(error)(str(error).replace(str(place), str(source))) from error


@contextlib.contextmanager
def made(target: Path, node: str, engine: str) -> Iterator[tuple[DataDirectory, LogStore]]:
    """Make a data directory aside, and put it in its place once it is filled; if that raises, nothing of it is left.

    Raises:
        DiskFull: there is no room.
        StoreError: the disk failed.
    """
    with disk_errors(f"making {target}"):
        make_directories(target.absolute().parent)
        aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.absolute().parent))
        try:
            with contextlib.closing(DataDirectory.open(aside, node)) as directory:
                # What is left when this process is killed would else lead a group without the rest of the log.
                replace_file(aside / UNFINISHED, b"")
                with contextlib.closing(open_store(engine, directory)) as store:
                    yield directory, store
            (aside / UNFINISHED).unlink()
            sync_path(aside)
            aside.rename(target)
            sync_path(target.absolute().parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def copy_log(holding: Holding, source: LogStore, target: LogStore, configuration: bytes) -> None:
    """Copy a log, with one configuration in the place of all that it holds."""
    stored = holding.stored
    compaction = stored.compaction and anew(stored.compaction, configuration)
    # The votes of before were given to others under another id; terms never fall.
    hard_state = HardState(Term(max(stored.hard_state.term, holding.last_term)))
    target.append([Batch(holding.name, hard_state, (), compaction)])
    first = Index(compaction.start + 1 if compaction else 1)
    while first <= stored.last:
        runs = tuple(moved(run, configuration) for run in source.read(holding.name, first, stored.last, READ_BYTES))
        target.append([Batch(holding.name, None, runs)])
        first = Index(runs[-1].last + 1)
    target.sync()


def anew(compaction: Compaction, configuration: bytes) -> Compaction:
    """Give the beginning of a log as the new group has it: behind the snapshot, since nobody lags behind that."""
    snapshot = msgspec.structs.replace(compaction.snapshot, configuration=configuration)
    return Compaction(snapshot, snapshot.index, snapshot.term, replaces_log=True)


def moved(run: Run, configuration: bytes) -> Run:
    """Give a run as the new group has it."""
    if run.kind is not Kind.CONFIGURATION:
        return run
    return msgspec.structs.replace(run, payloads=(configuration,) * len(run.payloads))
