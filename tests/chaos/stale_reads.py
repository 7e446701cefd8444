"""A node with a planted fault: it answers linearizable reads at once from its own machine, and asks no quorum.

Run as a node by ``python -m quorate.testing chaos run --entry tests/chaos/stale_reads.py``, which must fail.
"""

from __future__ import annotations

from quorate.apply import Apply
from quorate.core import Raft
from quorate.reading import Reads
from quorate.testing.chaos.node import main

begin_as_it_should = Reads.begin


def begin(self: Reads, raft: Raft, apply: Apply, now: float) -> float:
    apply.read(apply.last_applied, self.waiting.pop("linearizable", []))
    return begin_as_it_should(self, raft, apply, now)


Reads.begin = begin

if __name__ == "__main__":
    main()
