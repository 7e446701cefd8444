"""What a disk does for a log at best: short pieces appended to a file, each made durable before the next."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import msgspec

PIECE = b"q" * 128
"""About what one small write takes in a log."""


class Syncs(msgspec.Struct, frozen=True):
    """How a disk syncs.

    Attributes:
        per_second: syncs one after the other.
        p50: the median time of one, seconds.
        p99: the time that 99 of 100 do not exceed, seconds.
    """

    per_second: float
    p50: float
    p99: float


def probe(directory: Path, seconds: float) -> Syncs:
    """Append and sync in a file of its own, which is removed; blocking, for so many seconds.

    Raises:
        OSError: the directory cannot be written to.
    """
    # Where there is no fdatasync, as on macOS, fsync has to do.
    sync = getattr(os, "fdatasync", os.fsync)
    took: list[float] = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        begin = now = time.perf_counter()
        while now < begin + seconds or not took:
            file.write(PIECE)
            sync(file.fileno())
            before, now = now, time.perf_counter()
            took.append(now - before)
    return Syncs(len(took) / (now - begin), quantile(took, 0.5), quantile(took, 0.99))


def quantile(values: list[float], share: float) -> float:
    """Give the value that the given share of the values, of which there is one at least, does not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]
