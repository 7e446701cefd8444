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
from quorate.testing.logs import numbered
from quorate.types import HardState, Index, Term


def append_for_ever(store: LogStore) -> None:
    """Append entry after entry to two logs, the first one first."""
    index = store.load("peer2").last
    while True:
        index = Index(index + 1)
        run = numbered(index, index, index)
        store.append([Batch(log, HardState(Term(index)), (run,)) for log in ("peer1", "peer2")])
        store.sync()
        print(index, flush=True)


def main(module: str, name: str, directory: str) -> None:
    """Open the store, and append."""
    open_store: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    append_for_ever(open_store(Path(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
