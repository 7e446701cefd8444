"""A program to be killed: appends to a store, and prints each index once it is durable.

Usage: ``python killed_writer.py DIRECTORY``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quorate.store import Batch
from quorate.store.rocksdb import RocksDBStore
from quorate.types import HardState, Index, Kind, Run, Term

store = RocksDBStore.open(Path(sys.argv[1]))
index = store.load("peer1").last
while True:
    index = Index(index + 1)
    store.append(
        [Batch("peer1", HardState(Term(index)), (Run(Term(index), index, Kind.COMMAND, 0.0, (b"%d" % index,)),))]
    )
    store.sync()
    print(index, flush=True)
