"""The data directory of a node: whose it is, who its peers are, and where the store lives.

::

    DIR/lock                  held while the node runs; the process that holds it
    DIR/node.json             the node's id, and its address at its last start
    DIR/peers/NAME/identity   the peer's random id, its group once it has one, its name, and a checksum of these
    DIR/peers/NAME/snapshots  the peer's latest snapshot
    DIR/store                 the logs (``store/engines.py``)

An id says "whoever remembers what I promised". So an id never outlives the log that holds the promises, nor a log its
id: identities without a store are refused, and so are logs without an identity, or with that of another peer. A
directory that is wiped whole gives its peers new ids.
"""

from __future__ import annotations

import os
import secrets
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import msgspec

from quorate.errors import Corrupted, StoreLocked
from quorate.store.files import ASIDE, DirectoryLock, disk_errors, make_directories, make_directory, replace_file
from quorate.store.snapshots import MemorySnapshots, SnapshotFiles, SnapshotStore
from quorate.types import PeerId, is_name

T = TypeVar("T", bound=msgspec.Struct)

_OWN = ("lock", "node.json", "node.json" + ASIDE, "peers", "store")
"""What a node keeps in its data directory."""

UNFINISHED = "unfinished"
"""A file that is there while a data directory is filled by other means than its node: until then none may start."""

_DEPTH = 3
"""How many directories lie in one another in it: peers, NAME, snapshots."""

_NotEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class PeerIdentity(msgspec.Struct, frozen=True):
    """Who a peer is.

    Attributes:
        id: random, made at its first start.
        group: the id of its group; empty until it is configured.
    """

    id: Annotated[PeerId, msgspec.Meta(min_length=1)]
    group: str


class KeptIdentity(msgspec.Struct, frozen=True):
    """A peer's identity as its file has it.

    Attributes:
        id: as in ``PeerIdentity``.
        group: as in ``PeerIdentity``.
        name: the peer's name; empty in a file of an earlier version, which has no checksum either.
        checksum: 8 hexadecimal digits, the CRC-32 of the others.
    """

    id: Annotated[PeerId, msgspec.Meta(min_length=1)]
    group: str
    name: str = ""
    checksum: str = ""

    @classmethod
    def of(cls, identity: PeerIdentity, name: str) -> KeptIdentity:
        """Give what the file of this peer is to have."""
        return cls(identity.id, identity.group, name, _checksum(identity.id, identity.group, name))


def _checksum(*texts: str) -> str:
    return f"{zlib.crc32(msgspec.json.encode(texts)):08x}"


class NodeIdentity(msgspec.Struct, frozen=True):
    """Whose a data directory is.

    Attributes:
        id: random, made at the node's first start.
        address: where the node was at its last start, ``host:port``.
    """

    id: _NotEmpty
    address: _NotEmpty


def random_id() -> str:
    """Give 16 random hexadecimal digits."""
    return secrets.token_hex(8)


class Directory(Protocol):
    """What a node asks of the place where its peers' identities and snapshots are kept."""

    def identity(self, name: str, *, create: bool = True) -> PeerIdentity:
        """Give a peer's identity, making it at the peer's first start: with ``create``, for a peer without a log."""
        ...

    def set_group(self, name: str, group: str) -> None:
        """Note the group of a peer, for ever."""
        ...

    def snapshots(self, name: str) -> SnapshotStore:
        """Give the place of a peer's snapshots; the peer has an identity."""
        ...

    def close(self) -> None:
        """Let go of it; idempotent."""
        ...


class MemoryDirectory:
    """Identities and snapshots that are forgotten with the logs of a ``MemoryStore``: no id must outlive its log."""

    def __init__(self, make_id: Callable[[], str] = random_id) -> None:
        """Know nobody; ``make_id`` gives an id that nobody else has."""
        self._make_id = make_id
        self._identities: dict[str, PeerIdentity] = {}
        self._snapshots: dict[str, MemorySnapshots] = {}

    def identity(self, name: str, *, create: bool = True) -> PeerIdentity:
        """Give a peer's identity, making it at the peer's first start.

        Raises:
            Corrupted: it is not known, and with ``create`` being false must be.
        """
        if not create and name not in self._identities:
            raise Corrupted(
                f"the id of {name} was forgotten, and its log was not: give a store that outlives its node a data"
                " directory (data_dir=…)"
            )
        return self._identities.setdefault(name, PeerIdentity(PeerId(self._make_id()), ""))

    def set_group(self, name: str, group: str) -> None:
        """Note the group of a peer."""
        self._identities[name] = PeerIdentity(self._identities[name].id, group)

    def snapshots(self, name: str) -> MemorySnapshots:
        """Give the place of a peer's snapshots, the same one each time."""
        return self._snapshots.setdefault(name, MemorySnapshots())

    def close(self) -> None:
        """Do nothing."""


def peers_in(path: Path) -> list[str]:
    """Give the names of the peers that have an identity in a data directory, in order: none where there is none.

    What has a name that no peer may have is none: a copy that somebody made beside, such as ``peer1 (copy)``.

    Raises:
        StoreError: the disk refused.
    """
    peers = path / "peers"
    with disk_errors(f"reading {peers}"):
        try:
            names = os.listdir(peers)  # Not `glob`: what may not be read it takes for empty.
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if is_name(name) and (peers / name / "identity").exists())


def lost_logs(path: Path, names: list[str]) -> str:
    """Say that peers have an identity and no log, and what to do."""
    directories = ", ".join(str(path / "peers" / name) for name in names)
    return (
        f"{path} has lost the logs of {', '.join(names)}. Peers without their logs must not vote under their old ids:"
        f" remove {directories} too, and let them join their groups anew (join=…)"
    )


def _check_ours(path: Path) -> None:
    """Refuse a directory that holds something else, or a node's without the file that says so.

    Raises:
        StoreLocked: it is not that of a node.
        Corrupted: it is, and ``node.json`` is missing, or something in it is no file; or it was never finished.
    """
    if path.exists() and not path.is_dir():
        raise StoreLocked(f"{path} is a file, and no data directory; give this node a directory, which need not exist")
    if path.is_dir():
        check_kinds(path)
        if (path / UNFINISHED).exists():
            raise Corrupted(
                f"{path} is a part of what quorate recover was to copy, and lacks the rest: remove it, and recover anew"
            )
        if not (path / "node.json").exists() and (peers_in(path) or (path / "store" / "engine").exists()):
            raise Corrupted(damaged(path / "node.json", "it is missing, and what else a node keeps is there"))
        strange = any(child.name not in _OWN[:3] for child in path.iterdir())
        if strange and not (path / "node.json").exists():
            raise StoreLocked(f"{path} is not empty, and not the data directory of a node; give this node an empty one")


def check_kinds(path: Path, depth: int = _DEPTH) -> None:
    """Refuse what is neither file nor directory among a node's own: to read a pipe would be to wait for ever.

    Args:
        path: the data directory; or with a lower ``depth`` what is in it.
        depth: how many directories may still lie in one another: links to directories may lead in a circle.

    Raises:
        Corrupted: there is something else, or a link that leads nowhere.
        OSError: the disk refused.
    """
    with os.scandir(path) as entries:
        for entry in entries:
            if depth == _DEPTH and entry.name not in _OWN:
                continue
            try:
                mode = entry.stat().st_mode
            except FileNotFoundError as error:
                if entry.is_symlink():
                    raise Corrupted(damaged(Path(entry.path), "it is a link that leads nowhere")) from error
                continue  # removed just now, by the node that has the directory
            if stat.S_ISDIR(mode):
                if depth:
                    check_kinds(Path(entry.path), depth - 1)
            elif not stat.S_ISREG(mode):
                raise Corrupted(damaged(Path(entry.path), "it is a pipe, a socket or a device, and no file"))


def check_holds_no_node(path: Path | None) -> None:
    """Refuse to leave a node's data alone, beside a store that begins with none.

    Raises:
        StoreLocked: it is there.
        StoreError: the disk refused.
    """
    if path is None:
        return
    with disk_errors(f"opening {path}"):
        is_there = (path / "node.json").exists()
    if is_there:
        raise StoreLocked(
            f'{path} holds the data of a node, and the store "memory" would begin without it: name the store that it '
            "has, or give no data directory"
        )


def _read(path: Path, kind: type[T]) -> T | None:
    """Read a small file of JSON, or None when it is not there.

    Raises:
        Corrupted: it is there, and cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise Corrupted(damaged(path, str(error))) from error


def damaged(path: Path, why: str) -> str:
    """Say what to do about a small file that does not hold what was written."""
    return (
        f"{path} is damaged: {why}. Check the disk, then put this file back from a copy, or give this node an"
        " empty data directory and let its peers join their groups anew (join=…)"
    )


def mixed_up(fact: str) -> str:
    """Say what to do about files that do not belong together."""
    return f"{fact}: the data directory was put together from two. Restore it as it was"


def _write(path: Path, content: msgspec.Struct) -> None:
    replace_file(path, msgspec.json.encode(content) + b"\n")


class DataDirectory:
    """An open data directory; no other node opens it until ``close``. Made by ``open``."""

    def __init__(
        self, path: Path, address: str, node: NodeIdentity, lock: DirectoryLock, make_id: Callable[[], str]
    ) -> None:
        """Take over a directory that is locked."""
        self._path = path
        self._address = address
        self._node = node
        self._lock = lock
        self._make_id = make_id

    @classmethod
    def open(cls, path: str | Path, address: str, make_id: Callable[[], str] = random_id) -> DataDirectory:
        """Open a node's data directory, making it if it is not there or empty.

        Args:
            path: the directory.
            address: where the node is reached now, ``host:port``.
            make_id: gives an id that nobody else has, 1 character or more.

        Raises:
            StoreLocked: it is in use, or is not a data directory.
            Corrupted: it is one, and damaged.
            StoreError: the disk refused.
        """
        path = Path(path)
        with disk_errors(f"opening {path}"):
            _check_ours(path)
            make_directories(path)
            lock = DirectoryLock(path)
            try:
                node = _read(path / "node.json", NodeIdentity)
                if node is None:
                    node = NodeIdentity(make_id(), address)
                    path.chmod(0o700)
                    _write(path / "node.json", node)
                opened = cls(path, address, node, lock, make_id)
                opened._check_logs()
                make_directory(path / "peers")
                make_directory(path / "store")
            except BaseException:
                lock.close()
                raise
        return opened

    @property
    def store_path(self) -> Path:
        """Where the engine of the store lives."""
        return self._path / "store"

    @property
    def node_id(self) -> str:
        """The node's random id."""
        return self._node.id

    def peers(self) -> list[str]:
        """Give the names of the peers that have an identity here, in order.

        Raises:
            StoreError: the disk refused.
        """
        return peers_in(self._path)

    def identity(self, name: str, *, create: bool = True) -> PeerIdentity:
        """Give a peer's identity, making it at the peer's first start.

        A peer that is here already may be started at any address: its node has moved.

        Args:
            name: the peer's name.
            create: whether to make it if there is none. Not for a peer that has a log: its promises are not those of
                a new id.

        Raises:
            StoreLocked: the peer is new, and the directory is that of a node at another address.
            Corrupted: its identity cannot be read, is that of another peer, or is missing.
            StoreError: the disk refused.
            ValueError: the name cannot name a peer.
        """
        if not is_name(name):
            raise ValueError(f"{name!r} cannot name a peer: a name is 1 to 128 letters, digits, '.', '_' and '-'")
        with disk_errors(f"opening the data of {name} in {self._path}"):
            identity = self._read_identity(name)
            if identity is None:
                if not create:
                    raise Corrupted(damaged(self._identity_path(name), f"it is missing, and the log of {name} is not"))
                self._check_at_home(name)
                identity = PeerIdentity(PeerId(self._make_id()), "")
                make_directory(self._path / "peers" / name)
                self._write_identity(name, identity)
            if self._node.address != self._address:
                self._node = NodeIdentity(self._node.id, self._address)
                _write(self._path / "node.json", self._node)
        return identity

    def set_group(self, name: str, group: str) -> None:
        """Note the group of a peer, for ever.

        Raises:
            StoreLocked: the peer belongs to another group.
            Corrupted: its identity cannot be read.
            StoreError: the disk refused.
        """
        identity = self.identity(name)
        if identity.group == group:
            return
        if identity.group:
            raise StoreLocked(
                f"{name} in {self._path} belongs to the group {identity.group}, not to {group}. Give the peer of the"
                " other group another name, or a node with a data directory of its own"
            )
        with disk_errors(f"writing the identity of {name} in {self._path}"):
            self._write_identity(name, PeerIdentity(identity.id, group))

    def snapshots(self, name: str) -> SnapshotFiles:
        """Give the place of a peer's snapshots; the peer has an identity.

        Raises:
            StoreError: the disk refused.
        """
        path = self._path / "peers" / name / "snapshots"
        with disk_errors(f"making {path}"):
            make_directory(path)
        return SnapshotFiles(path)

    def close(self) -> None:
        """Let other nodes have the directory; idempotent."""
        self._lock.close()

    def _identity_path(self, name: str) -> Path:
        return self._path / "peers" / name / "identity"

    def _read_identity(self, name: str) -> PeerIdentity | None:
        """Read a peer's identity, or None when there is none.

        Raises:
            Corrupted: it cannot be read, or is that of another peer.
        """
        path = self._identity_path(name)
        kept = _read(path, KeptIdentity)
        if kept is None:
            return None
        identity = PeerIdentity(kept.id, kept.group)
        if kept != KeptIdentity(kept.id, kept.group):
            if kept != KeptIdentity.of(identity, kept.name):
                raise Corrupted(damaged(path, "its checksum does not match"))
            if kept.name != name:
                raise Corrupted(mixed_up(f"{path} is that of {kept.name}, not of {name}"))
        return identity

    def _write_identity(self, name: str, identity: PeerIdentity) -> None:
        _write(self._identity_path(name), KeptIdentity.of(identity, name))

    def _check_logs(self) -> None:
        """Refuse peers whose logs are gone.

        Raises:
            Corrupted: they are.
        """
        names = self.peers()
        if names and not self.store_path.is_dir():
            raise Corrupted(lost_logs(self._path, names))

    def _check_at_home(self, name: str) -> None:
        """Refuse a new peer in the directory of another node.

        Raises:
            StoreLocked: it is another node's.
        """
        names, home = self.peers(), self._node.address
        if names and home != self._address:
            raise StoreLocked(
                f"{self._path} belongs to the node at {home} with {', '.join(names)}; {name} is not among its peers."
                f" Give this node a directory of its own, or start it at {home} to add a peer to that node"
            )
