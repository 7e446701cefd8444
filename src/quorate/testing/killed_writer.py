"""A program to be killed: appends to a store, and prints each index once it is durable.

Usage: ``python -m quorate.testing.killed_writer MODULE NAME DIRECTORY``, where NAME opens the store in DIRECTORY.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

from quorate.store import Batch, LogStore
from quorate.testing.logs import make_compaction, numbered
from quorate.types import Compaction, HardState, Index, Term


def compaction_at(index: int) -> Compaction | None:
    """Give the compaction that is written together with entry ``index``, if any: some replace the log."""
    if index % 20 == 0:
        return make_compaction(index - 1, index - 1, replaces_log=True)
    return make_compaction(index - 2, index - 1, index - 2) if index % 5 == 0 else None


def append_for_ever(store: LogStore) -> None:
    """Append entry after entry to two logs, the first one first; compact them on the way."""
    index = store.load("peer2").last
    while True:
        index = Index(index + 1)
        hard_state, run = HardState(Term(index)), numbered(index, index, index)
        store.append([Batch(log, hard_state, (run,), compaction_at(index)) for log in ("peer1", "peer2")])
        store.sync()
        print(index, flush=True)


def main(module: str, name: str, directory: str) -> None:
    """Open the store, and append."""
    open_store: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    append_for_ever(open_store(Path(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
