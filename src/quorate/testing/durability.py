"""What a store that outlives its process must do: cases for kills, torn tails and flipped bits.

They damage copies of a store's directory. Knows stores by their contract, and files by their bytes alone.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

from quorate.errors import StoreError, StoreLocked
from quorate.store import Batch, LogStore
from quorate.testing.killed_writer import compaction_at
from quorate.testing.logs import (
    OpenStore,
    append,
    entries_of,
    expect_refusal,
    make_compaction,
    make_run,
    numbered,
    read_entries,
)
from quorate.types import Compaction, HardState, PeerId, Run, Stored, Term

FLIPS = 8
"""Bits that are flipped in each file of a store, one at a time."""


def another_process(program: str, open_store: OpenStore, directory: Path) -> subprocess.Popen[str]:
    """Start a program of this package with a store.

    Args:
        program: the module.
        open_store: opens the store there; told to the program as the module and the name where it stands.
        directory: the store's.

    Raises:
        AssertionError: another process would not find what opens the store.
    """
    command = [sys.executable, "-m", f"quorate.testing.{program}"]
    command += [*place_of(open_store), str(directory)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def place_of(open_store: OpenStore) -> tuple[str, str]:
    """Give the module of what opens a store, and its name there.

    Of a method of a class it is the class that counts, and not the one that this has inherited it from.

    Raises:
        AssertionError: it is not to be found there.
    """
    owner = getattr(open_store, "__self__", None)
    if isinstance(owner, type):
        module, name = owner.__module__, f"{owner.__qualname__}.{open_store.__name__}"
    else:
        module, name = getattr(open_store, "__module__", ""), getattr(open_store, "__qualname__", "")
    found: object = None
    with suppress(ImportError, AttributeError, ValueError):
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    assert found == open_store, f"what opens the store must be found in a module, under its name: {open_store} is not"
    return module, name


def killing_the_process_loses_nothing_that_was_synced(open_store: OpenStore, directory: Path) -> None:
    """Another process appends, and is killed with SIGKILL; what is there then is whole, and at least what it told."""
    told = 0
    for lines in (1, 40, 300):
        with another_process("killed_writer", open_store, directory) as process:
            assert process.stdout is not None, "it was started with a pipe"
            assert process.stderr is not None, "it was started with a pipe"
            told = max([told, *map(int, islice(process.stdout, lines))])
            process.send_signal(signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
            errors = process.stderr.read()
        assert process.returncode == -signal.SIGKILL, f"the writer ended by itself: {errors}"
        with closing(open_store(directory)) as store:
            for log in ("peer1", "peer2"):
                stored = store.load(log)
                assert stored.last >= told >= lines, f"{log} ends at {stored.last}, and {told} was synced"
                assert int(stored.hard_state.term) == stored.last, f"half a batch of {log} is there"
                compaction = next(filter(None, map(compaction_at, range(stored.last, 0, -1))), None)
                assert stored.compaction == compaction, f"a compaction of {log} is not that of entry {stored.last}"
                first = begin_of(stored)
                expected = entries_of(*(numbered(at, at, at) for at in range(first, stored.last + 1)))
                assert read_entries(store, log, first) == expected
                assert first == 1 or read_entries(store, log) == [], f"{log} shows what was compacted"
            assert store.load("peer1").last - store.load("peer2").last in (0, 1), "a later batch without an earlier"


def a_second_open_is_refused(open_store: OpenStore, directory: Path) -> None:
    """With ``StoreLocked``, here and in another process; and the first goes on."""
    with closing(open_store(directory)) as store:
        expect_refusal(StoreLocked, lambda: open_store(directory).close())
        with another_process("killed_writer", open_store, directory) as process:
            printed, errors = process.communicate()
        assert (printed, "StoreLocked" in errors) == ("", True), f"another process opened it too: {errors}"
        append(store, "peer1", numbered(1, 1, 1))
        assert store.load("peer1").last == 1


def any_thread_may_call_after_another(open_store: OpenStore, directory: Path) -> None:
    """One at a time: a node opens its store on one thread and uses it there, and may close it on another.

    Raises:
        AssertionError: only the thread that opened it may use it.
    """

    def use(store: LogStore, index: int) -> None:
        append(store, "peer1", numbered(1, index, index), hard_state=HardState(Term(index)))
        store.sync()
        assert store.load("peer1").last == index, f"entry {index} is not there"
        assert read_entries(store, "peer1") == entries_of(numbered(1, 1, index))

    with closing(open_store(directory)) as store:
        for index in (1, 2):
            with ThreadPoolExecutor(max_workers=1) as other_thread:
                error = other_thread.submit(use, store, index).exception()
            if error is not None:
                raise AssertionError(f"a thread that did not open the store cannot use it: {error}") from error


def a_flipped_bit_is_never_silent(open_store: OpenStore, directory: Path) -> None:
    """The store refuses with a ``StoreError``, or all is as it was written: the bit meant nothing."""
    with closing(open_store(directory)) as store:
        for index in range(1, 21):
            append(store, "peer1", filled(index, index), hard_state=HardState(Term(index), PeerId("id-1")))
        append(store, "peer2", *(filled(1, index) for index in range(1, 11)), hard_state=HardState(Term(1)))
        store.sync()
    with closing(open_store(directory)) as store:
        append(store, "peer2", filled(2, 5), filled(2, 6), hard_state=HardState(Term(2)))
        append(store, "peer3", hard_state=HardState(Term(3), PeerId("id-3")))
        store.sync()
    flip_bits(open_store, directory, ("peer1", "peer2", "peer3"))


def a_flipped_bit_in_a_compaction_is_never_silent(open_store: OpenStore, directory: Path) -> None:
    """As above, where most of what the store holds is what the beginning of a log was replaced by."""
    large = make_compaction(1, 3, configuration=bytes(range(256)) * 100)
    with closing(open_store(directory)) as store:
        append(store, "peer1", numbered(1, 1, 3), hard_state=HardState(Term(1)))
        append(store, "peer1", numbered(1, 4, 5), compaction=large)
        store.sync()
    flip_bits(open_store, directory, ("peer1",))


def flip_bits(open_store: OpenStore, directory: Path, logs: tuple[str, ...]) -> None:
    """Flip bits in copies of a closed store, one at a time, and see that logs are refused or as they were."""

    def contents(path: Path) -> list[tuple[Stored, object]]:
        with closing(open_store(path)) as store:
            loaded = [(log, store.load(log)) for log in logs]
            return [(stored, read_entries(store, log, begin_of(stored))) for log, stored in loaded]

    expected = contents(directory)
    refused = 0
    chance = random.Random(1)
    image = directory.with_name(directory.name + "-image")
    for name in sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file()):
        for _ in range(FLIPS if (directory / name).stat().st_size else 0):
            copy_directory(directory, image)
            place = flip_bit(image / name, chance)
            try:
                seen = contents(image)
            except StoreError:
                refused += 1
            else:
                assert seen == expected, f"bit {place} of {name} was flipped, and nothing said"
    assert refused, "no flipped bit was noticed: are the files of the store in its directory?"


def torn_tails_are_repaired_by_dropping_whole_batches(open_store: OpenStore, directory: Path, tail: str) -> None:
    """A crash keeps only a part of what was appended and not synced: whole batches are left, and they stay.

    Not for a store that makes durable what it appends: it has no such tail.

    Args:
        open_store: opens the store.
        directory: where it lives.
        tail: a pattern for ``Path.glob``, such as ``"*.log"``, that matches one file in the store's directory which
            is not empty: the one to whose end is written what is not synced yet.
    """
    compaction = make_compaction(5, 11, 5)

    def batch(index: int, compaction: Compaction | None = None) -> Batch:
        return Batch("peer1", HardState(Term(index)), (filled(index, index),), compaction)

    def find(path: Path) -> Path:
        found = [file for file in path.glob(tail) if file.stat().st_size]
        assert len(found) == 1, f"{tail} should match one file that is not empty, and matches {found}"
        return found[0]

    image = directory.with_name(directory.name + "-image")
    with closing(open_store(directory)) as store:
        store.append([batch(index) for index in range(1, 11)])
        store.sync()
        synced = find(directory).stat().st_size
        store.append([batch(11), batch(12, compaction)])
        written = find(directory).stat().st_size
        assert written > synced, f"{find(directory)} did not grow: what was appended went elsewhere"
        for size in sorted({synced, synced + 1, *range(synced + 7, written, 29), written - 1, written}):
            copy_directory(directory, image)
            os.truncate(find(image), size)
            for _ in range(2):
                with closing(open_store(image)) as torn:
                    stored = torn.load("peer1")
                    last, first = stored.last, begin_of(stored)
                    assert int(stored.hard_state.term) == last, f"half a batch is left of {size} bytes"
                    assert stored.compaction == (compaction if last == 12 else None), f"of {size} bytes"
                    expected = entries_of(*(filled(at, at) for at in range(first, last + 1)))
                    assert read_entries(torn, "peer1", first) == expected
                assert 10 <= last <= 12, f"{size} bytes are left, and the log ends at {last}"


def filled(term: int, index: int) -> Run:
    """Make a run of one entry that is larger than what surrounds it on disk."""
    return make_run(term, index, b"%-200d" % index)


def begin_of(stored: Stored) -> int:
    """Give the first index that a log may hold."""
    return stored.compaction.start + 1 if stored.compaction is not None else 1


def copy_directory(source: Path, copy: Path) -> None:
    """Copy the files as they are now, in place of an earlier copy."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)


def flip_bit(file: Path, chance: random.Random) -> int:
    """Flip one bit of a file; give its number."""
    content = bytearray(file.read_bytes())
    bit = chance.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return bit


DURABLE_CASES: tuple[Callable[[OpenStore, Path], None], ...] = (
    killing_the_process_loses_nothing_that_was_synced,
    a_second_open_is_refused,
    any_thread_may_call_after_another,
    a_flipped_bit_is_never_silent,
    a_flipped_bit_in_a_compaction_is_never_silent,
)
"""For stores that outlive their process."""
