"""The store of a data directory: of which engine it is, for ever, and how that is opened.

``DIR/store/engine`` holds the engine's name, noted before its store is made; the rest of ``DIR/store`` is the engine's
own. Knows the engines by name, and imports the one that is wanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from quorate.errors import Corrupted, StoreError, StoreLocked
from quorate.store import LogStore
from quorate.store.directory import DataDirectory, damaged, lost_logs
from quorate.store.files import disk_errors, replace_file
from quorate.store.memory import MemoryStore

PACKAGES = {"rocksdb": ("rocksdict", "rocksdict>=0.3.29"), "lmdb": ("lmdb", "quorate[lmdb]")}
"""The package of each engine, and what to ask pip for."""


def open_store(kind: str | LogStore, directory: DataDirectory | None) -> LogStore:
    """Open the store of a node by the name of its engine.

    Args:
        kind: ``"rocksdb"``, ``"lmdb"``, ``"memory"``, or a store that is open already, which is returned as it is.
        directory: where it lives. May be None for ``"memory"`` and for a store that is open.

    Raises:
        ValueError: the name is unknown, or the engine needs a directory.
        StoreLocked: the directory holds a store of another engine, or is in use.
        Corrupted: the store is damaged or gone.
        StoreError: the disk refused, or the engine is not installed.
    """
    match kind:
        case "memory":
            return MemoryStore()
        case "rocksdb" | "lmdb":
            if directory is None:
                raise ValueError(f'the store "{kind}" needs a data directory; give one, or use store="memory"')
            open_engine = _load_engine(kind)
            create = _settle_engine(kind, directory)
            return open_engine(directory.store_path, create=create)
        case str():
            raise ValueError(f'there is no store {kind!r}; the known ones are "rocksdb", "lmdb" and "memory"')
        case _:
            return kind


class _OpenEngine(Protocol):
    """Opens the store of one engine in its own directory; makes it there only with ``create``."""

    def __call__(self, directory: Path, *, create: bool) -> LogStore: ...


def _load_engine(name: Literal["rocksdb", "lmdb"]) -> _OpenEngine:
    """Import an engine: only when it is wanted, because one is an extra, and neither has wheels for every interpreter.

    Raises:
        StoreError: it is not installed.
    """
    try:
        match name:
            case "rocksdb":
                from quorate.store.rocksdb import RocksDBStore  # noqa: PLC0415

                return RocksDBStore.open
            case "lmdb":
                from quorate.store.lmdb import LMDBStore  # noqa: PLC0415

                return LMDBStore.open
    except ModuleNotFoundError as error:
        package, wanted = PACKAGES[name]
        raise StoreError(
            f'the store "{name}" needs the package {package}, which is not installed. On Python before 3.15:'
            f" pip install '{wanted}'"
        ) from error


def _settle_engine(name: str, directory: DataDirectory) -> bool:
    """Note the engine of a data directory for ever; tell whether its store may be made anew.

    Raises:
        StoreLocked: the directory holds a store of another engine.
        Corrupted: the peers of the directory had a store, and it is gone; or nobody can tell its engine.
        StoreError: the disk refused.
    """
    peers = directory.peers()
    engine = directory.store_path / "engine"
    with disk_errors(f"opening {directory.store_path}"):
        recorded = _recorded_engine(directory.store_path)
        found = _engine_of_files(directory.store_path)
        if recorded is None and found:
            raise Corrupted(
                f"{engine} is missing, and the logs beside it are there: those of the engine {found}. Check the disk,"
                f" then write the one word {found} into this file"
            )
        if recorded is None and peers:
            raise Corrupted(lost_logs(directory.store_path.parent, peers))
        if recorded is not None and recorded not in PACKAGES:
            why = f"it names no engine that there is ({' or '.join(PACKAGES)}), but {recorded!r}"
            raise Corrupted(damaged(engine, why))
        if recorded is None:
            replace_file(engine, name.encode() + b"\n")
        elif recorded != name:
            raise StoreLocked(
                f'{directory.store_path} holds a store of the engine "{recorded}", not "{name}"; start this node with'
                f' store="{recorded}", or give it a directory of its own'
            )
    return not peers


def engine_of(path: Path) -> str:
    """Give the engine of a store that is there; where nobody can tell it, one whose opening says so.

    Raises:
        StoreError: the disk refused.
    """
    with disk_errors(f"opening {path}"):
        recorded = _recorded_engine(path)
    return recorded if recorded in PACKAGES else "rocksdb"


def _recorded_engine(path: Path) -> str | None:
    """Give the word in which the engine of a store is noted; None where there is none."""
    engine = path / "engine"
    return engine.read_text("ascii", "replace").strip() if engine.exists() else None


def _engine_of_files(path: Path) -> str | None:
    """Tell by its files of which engine a store is; None when it has none."""
    if any(path.glob("db-*")):
        return "rocksdb"
    return "lmdb" if (path / "logs.mdb").exists() else None
