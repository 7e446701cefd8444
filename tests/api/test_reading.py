"""How old a peer's machine may be, and until when its reads by lease are answered at once: without nodes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

from quorate.addresses import Addresses
from quorate.apply import Apply
from quorate.core import Raft
from quorate.core.messages import AppendEntries, AppendEntriesReply
from quorate.core.reads import lease_end
from quorate.core.state import Leader
from quorate.reading import MOMENT, NEVER, Reads
from quorate.testing.drive import lead, make_append, make_member, obey, receive, start
from quorate.types import Index, PeerId, Term
from quorate.waiters import Waiter


def make_reads() -> Reads:
    address = make_member("1").address
    return Reads(address.name, Addresses(address, {}))


def applied_up_to(index: int) -> Apply:
    return cast("Apply", SimpleNamespace(last_applied=Index(index)))


def hear(reads: Reads, raft: Raft, message: AppendEntries, *, applied: int, now: float) -> float:
    """Let a follower hear its leader; give how old its machine may be one second later."""
    receive(raft, "2", message, now)
    reads.hear(raft.state, PeerId("2"), message, Index(applied))
    return reads.age(raft.state, Index(applied), now + 1.0)


def test_a_new_leader_knows_what_is_committed_only_once_that_is_an_entry_of_its_own() -> None:
    """Its predecessor may have acknowledged what it holds itself, and does not know to be committed (§8)."""
    raft, reads = start(log=(1, 1)), make_reads()
    assert hear(reads, raft, make_append("2", 2, (2, 1), commit=1), applied=1, now=1.0) == math.inf
    assert hear(reads, raft, make_append("2", 2, (2, 1), [2], commit=2), applied=2, now=2.0) == math.inf
    assert hear(reads, raft, make_append("2", 2, (3, 2), commit=3), applied=3, now=3.0) == 1.0


def leader_with_a_lease() -> Raft:
    raft = start(log=(1, 1))
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(3)))
    raft.read(raft.state.now, by_lease=True)
    obey(raft)  # The round that asks for promises.
    leader = cast("Leader", raft.state.role)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(3), leader.round))
    assert lease_end(raft.state, leader) > raft.state.now
    return raft


def test_a_read_by_lease_waits_for_a_turn_while_something_committed_is_not_applied() -> None:
    raft, reads = leader_with_a_lease(), make_reads()
    now, committed = raft.state.now, raft.state.commit_index
    assert reads.look_up_lease(raft, applied_up_to(committed - 1), now) == NEVER
    assert reads.look_up_lease(raft, applied_up_to(committed), now) == now + MOMENT


def test_a_lease_is_looked_up_again_after_each_input() -> None:
    raft, reads = leader_with_a_lease(), make_reads()
    reads.look_up_lease(raft, applied_up_to(raft.state.commit_index), raft.state.now)
    found: Any = reads.answers_until
    reads.take_stock()
    assert (found, reads.answers_until) == (raft.state.now + MOMENT, None)


def test_the_leader_is_asked_no_more_for_reads_that_nobody_waits_for() -> None:
    raft, reads = start(log=(1, 1)), make_reads()
    receive(raft, "2", make_append("2", 2, (2, 1), commit=1), 1.0)
    told: list[object] = []
    waiters = [cast("Waiter", SimpleNamespace(deadline=deadline, fail=told.append)) for deadline in (2.0, 3.0)]
    reads.waiting["linearizable"] += [(None, waiter) for waiter in waiters]
    reads.begin(raft, applied_up_to(1), 1.0)
    assert (reads.expire(raft, 2.0), len(told), len(raft.state.asked)) == (3.0, 1, 1)
    assert (reads.expire(raft, 3.0), len(raft.state.asked)) == (math.inf, 0)
