"""Each store holds what a plain model of a log does, after any history of appends, truncations and compactions."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.store import Batch
from quorate.store.lmdb import LMDBStore
from quorate.store.memory import MemoryStore
from quorate.store.rocksdb import RocksDBStore
from quorate.testing.logs import OpenStore
from quorate.testing.model import LogModel, random_batches

MEMORIES: dict[Path, MemoryStore] = {}

STORES: dict[str, OpenStore] = {
    "memory": lambda directory: MEMORIES.setdefault(directory, MemoryStore()),
    "rocksdb": RocksDBStore.open,
    "lmdb": LMDBStore.open,
}

numbers = itertools.count()


@pytest.mark.parametrize("name", STORES)
def test_two_logs_go_through_appends_of_many_batches_and_restarts(name, tmp_path_factory):
    directory = tmp_path_factory.mktemp(name) / "store"

    @settings(max_examples=12)
    @given(st.randoms(use_true_random=False), st.integers(1, 12))
    def go_through(random, count):
        models = {f"log{next(numbers)}": LogModel() for _ in range(2)}
        histories = {log: list(random_batches(random, log, count)) for log in models}
        waiting: list[Batch] = []
        store = STORES[name](directory)
        try:
            while any(histories.values()):
                log = random.choice([log for log, history in histories.items() if history])
                waiting.append(batch := histories[log].pop(0))
                models[log].append(batch)
                if random.random() < 0.4 or not any(histories.values()):
                    store.append(waiting)
                    store.sync()
                    waiting.clear()
                    if random.random() < 0.2:
                        store.close()
                        store = STORES[name](directory)
                    for each, model in models.items():
                        assert model.differs(store, each) is None
        finally:
            store.close()

    go_through()
