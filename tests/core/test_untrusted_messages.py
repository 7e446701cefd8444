"""Nothing raises, and no invariant breaks, because of what another machine sent (``Raft.receive``)."""

from __future__ import annotations

import random

import pytest

from quorate.core.invariants import check
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from quorate.testing.drive import obey, receive, start
from quorate.types import Index, Kind, PeerId, Run, Term


def append(prev, *runs, term=2, leader="2"):
    """An AppendEntries with runs given as (term, first, payloads)."""
    entries = tuple(Run(Term(of), Index(first), Kind.COMMAND, 0.0, payloads) for of, first, payloads in runs)
    return AppendEntries(Term(term), PeerId(leader), Index(prev[0]), Term(prev[1]), Index(0), 0, entries)


@pytest.mark.parametrize(
    "message",
    [
        append((-1, 0)),
        append((1, 1), (2, 3, (b"a",))),
        append((1, 1), (2, 2, (b"a",)), (2, 4, (b"b",))),
        append((1, 1), (2, 2, ())),
        append((1, 1), (3, 2, (b"a",))),
        append((1, 1), (2, 2, (b"a",)), (1, 3, (b"b",))),
        append((0, 0), (0, 1, (b"a",))),
        append((0, 1)),
        append((1, 0)),
    ],
    ids=[
        "before the log",
        "gap",
        "hole",
        "empty run",
        "term of the future",
        "term falls",
        "term 0",
        "a term at 0",
        "no term at 1",
    ],
)
@pytest.mark.parametrize("log", [(), (1,), (1, 1, 1, 1)], ids=["empty", "short", "long"])
def test_entries_that_no_leader_sends_change_nothing(message, log):
    raft = start("1", log=log, term=1 if log else 0)
    before = raft.state.hard_state, raft.state.log.last
    assert receive(raft, "2", message) == []
    assert (raft.state.hard_state, raft.state.log.last) == before


def test_runs_behind_the_first_new_entry_are_taken_whole():
    # A log of ours that agrees again behind a conflict is none that any leader wrote: it leaves no hole all the same.
    raft = start("1", log=(1, 2, 4))
    receive(raft, "2", append((1, 1), (3, 2, (b"a",)), (4, 3, (b"b",)), (4, 4, (b"c",)), term=5))
    assert (raft.state.log.starts, raft.state.log.terms, raft.state.log.last) == ([1, 2, 3], [1, 3, 4], 4)


def test_an_acknowledgement_beyond_the_leaders_log_is_ignored():
    raft = start("1")
    raft.tick(1.0)
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), vote_granted=True))
    receive(raft, "2", RequestVoteReply(Term(2), vote_granted=True))
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(100)))
    assert raft.state.commit_index == 0
    check(raft.state)


def test_messages_at_random_never_raise():
    dice = random.Random(7)

    def number(low=-1, high=6):
        return dice.randint(low, high)

    def message(sender):
        entries = tuple(
            Run(Term(number()), Index(number()), Kind(number(0, 1)), 0.0, (b"",) * number(0, 2))
            for _ in range(number(0, 3))
        )
        author = PeerId(sender if dice.random() < 0.9 else "3")
        place = Index(number()), Term(number())
        return dice.choice(
            [
                AppendEntries(Term(number()), author, *place, Index(number()), number(), entries),
                AppendEntriesReply(
                    Term(number()), dice.random() < 0.5, Index(number()), number(), Index(number()), *place
                ),
                RequestVote(Term(number()), author, *place),
                RequestVoteReply(Term(number()), dice.random() < 0.5),
                RequestPreVote(Term(number()), author, *place),
                RequestPreVoteReply(Term(number()), Term(number()), dice.random() < 0.5),
            ]
        )

    for _ in range(100):
        raft = start("1", log=dice.choice([(), (1,), (1, 2, 2), (1, 1, 3, 3)]))
        now = 0.0
        for _ in range(30):
            now += dice.choice([0.0, 0.1, 0.7])
            sender = dice.choice(["1", "2", "3", "stranger"])
            raft.tick(now)
            receive(raft, sender, message(sender), now)
            obey(raft)
