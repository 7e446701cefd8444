"""Nothing raises, and no invariant breaks, because of what another machine sent (``Raft.receive``)."""

from __future__ import annotations

import random

import pytest

from quorate.core.admission import TERMS_AHEAD_MAX
from quorate.core.configuration import encode_configuration
from quorate.core.invariants import check
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.ready import EventKind
from quorate.testing.drive import obey, receive, start
from quorate.types import Index, Kind, PeerId, ReadId, Run, Snapshot, Term


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


def messages_of(raft, term):
    """Give one message of each kind in a term."""
    index, peer = Index(1), PeerId("2")
    configuration = encode_configuration(raft.state.configuration)
    return (
        AppendEntries(term, peer, Index(0), Term(0), Index(0)),
        AppendEntriesReply(term, True, index),
        RequestVote(term, peer, index, term),
        RequestVoteReply(term, vote_granted=True),
        RequestPreVote(term, peer, index, term),
        RequestPreVoteReply(term, Term(2), vote_granted=True),
        TimeoutNow(term, peer),
        InstallSnapshot(term, peer, Snapshot(Index(9), term, 0.0, index, configuration)),
        ReadIndex(term, 1, ReadId(1)),
        ReadIndexReply(term, 1, ReadId(1), index),
    )


def test_a_term_that_no_group_can_have_reached_is_ignored_and_counted_whatever_the_message():
    for place in range(10):
        raft = start("1", log=(1,), term=7)
        raft.tick(1.0)
        raft.ready()
        before = raft.state.hard_state, raft.state.role
        raft.receive(PeerId("2"), messages_of(raft, Term(7 + TERMS_AHEAD_MAX + 1))[place], 2.0)
        assert (raft.state.hard_state, raft.state.role) == before
        [event] = raft.ready().events
        assert event.kind is EventKind.IGNORED
        assert event.text.startswith("2 claims term ")
        assert "far above ours (7)" in event.text


def test_a_peer_that_was_away_for_a_lifetime_of_elections_learns_the_term():
    for place in set(range(10)) - {4}:  # A pre-vote teaches nobody a term.
        raft = start("1", log=(1,), term=7)
        receive(raft, "2", messages_of(raft, Term(7 + TERMS_AHEAD_MAX))[place], 2.0)
        assert raft.state.term >= 7 + TERMS_AHEAD_MAX


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
