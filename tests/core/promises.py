"""What the peers of a random walk have told each other, and must not contradict in any of their lives.

A random walk sees a fault only where something goes wrong for good: a second leader, another entry committed. These
checks see it where a promise is broken, long before that: whoever acknowledges keeps, whoever counts was told so.
Knows states, disks and messages; moves nothing.
"""

from __future__ import annotations

from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply, TimeoutNow
from quorate.core.reads import lease_end
from quorate.core.state import Leader
from quorate.testing.books import majorities
from quorate.types import Index


class Promises:
    """Who gave a vote, what was acknowledged, and what leaders believe of the others."""

    def __init__(self):
        self.votes = {}  # (term, voter): whom it voted for
        self.acknowledged = {}  # name: (term, index, term of the entry there)
        self.matches = {}  # name: [(progress, its match index)]
        self.patience = {}  # name: (until when, by its own clock, it promised a leader to vote for nobody; its term)
        self.released = set()  # (term, leader) of those who told another peer to campaign

    def note_sent(self, name, to, message, disk):
        """Note what a message promises that leaves now."""
        if isinstance(message, RequestVoteReply) and message.vote_granted:
            self.votes[message.term, name] = to
        elif isinstance(message, TimeoutNow):
            self.released.add((message.term, name))
        elif isinstance(message, AppendEntriesReply) and message.success and disk.start < message.match_index:
            assert message.match_index <= disk.last, f"{name} acknowledges {message.match_index} before it is durable"
            if message.match_index > self.acknowledged.get(name, (0, 0, 0))[1] or self.is_later(name, message):
                self.acknowledged[name] = (message.term, message.match_index, disk.runs[message.match_index].term)

    def is_later(self, name, message):
        """Tell whether a message is of a later term than what was acknowledged last."""
        return name not in self.acknowledged or message.term > self.acknowledged[name][0]

    def check_kept(self, name, state):
        """Check that a peer keeps what it has acknowledged in its term: only a later leader may replace it (§5.3)."""
        term, index, entry = self.acknowledged.get(name, (0, 0, 0))
        if term == state.term and index >= state.log.start:
            is_kept = index <= state.log.last and state.log.term(Index(index)) == entry
            assert is_kept, f"{name} drops entry {index}, which it acknowledged in this term {term}"

    def check_elected(self, name, state, peers, clock):
        """Check that a new leader has the votes of a majority, and that no lease of another one runs any more."""
        voters = {voter for (term, voter), candidate in self.votes.items() if (term, candidate) == (state.term, name)}
        assert majorities(state.groups, {*voters, name}), (
            f"{name} leads term {state.term} with no votes but of {voters}"
        )
        for other, peer in peers.items():
            before = peer.raft.state if peer.raft else None
            if before is not None and isinstance(before.role, Leader) and before.term < state.term:
                is_over = lease_end(before, before.role) <= clock(other)
                assert is_over, f"{name} leads term {state.term} while the lease of {other} runs (thesis 6.4.1)"

    def check_matches(self, name, state, peers):
        """Check that what a leader takes for durable elsewhere is, and that it never takes that back."""
        for progress, match_index in self.matches.get(name, ()):
            assert progress.match_index >= match_index, f"{name} takes back that a peer holds entry {match_index}"
        self.matches[name] = [(progress, progress.match_index) for progress in state.role.progress.values()]
        for other, progress in state.role.progress.items():
            disk, index = peers[other].disk, progress.match_index
            # In a later term it may have been truncated again.
            if max(disk.start, state.log.start) < index and disk.hard_state.term <= state.term:
                is_held = index <= disk.last and disk.runs[index].term == state.log.term(index)
                assert is_held, f"{name} believes that {other} holds entry {index} of its log"

    def check_patience(self, name, state, before, message):
        """Check that a peer votes for nobody while a lease that it granted may run, and note whether it grants one.

        Args:
            name: the peer.
            state: its state.
            before: its term and vote before it was given the message.
            message: what that was. An election that the leader asked for is refused by nobody.
        """
        has_voted = state.hard_state != before and state.voted_for is not None
        if isinstance(message, TimeoutNow) or (isinstance(message, RequestVote) and message.is_transfer):
            if has_voted:
                self.patience.pop(name, None)
        elif has_voted:
            is_free = name not in self.patience or state.now >= self.patience[name][0]
            assert is_free, f"{name} votes for {state.voted_for} within the patience that it promised (thesis 6.4.1)"
        elif isinstance(message, AppendEntries) and message.lease and message.term == state.term:
            self.patience[name] = (state.now + state.settings.election_timeout_min, state.term)

    def check_lease(self, name, state, clock):
        """Check that a leader which answers by lease knows what is committed, and is given a majority's patience."""
        assert state.commit_index >= state.role.first_index, f"{name} has a lease before it knows what is committed"
        assert (state.term, name) not in self.released, f"{name} has a lease, and let another one campaign"
        patient = {peer for peer, (until, term) in self.patience.items() if term == state.term and clock(peer) < until}
        assert majorities(state.groups, {*patient, name}), f"{name} has a lease, and only {patient} are patient"


def check_answers(message, committed, state, answers):
    """Check that a peer does not refuse what follows on an entry that it held committed: all leaders have that (§5.4).

    Args:
        message: what it was just given.
        committed: its commit index before.
        state: its state since.
        answers: what it has sent since.
    """
    if isinstance(message, AppendEntries) and message.term == state.term and message.prev_log_index <= committed:
        replies = [answer.message for answer in answers if isinstance(answer.message, AppendEntriesReply)]
        is_refused = not all(reply.success for reply in replies)
        assert not is_refused, (
            f"{state.peer} refuses what follows on entry {message.prev_log_index}, which is committed"
        )


def check_bound(taken, state):
    """Check that no more waits than may once proposals were taken: neither for a quorum nor for the own disk.

    Args:
        taken: the indexes of those that were.
        state: the leader's state since.
    """
    safe = min(state.commit_index, state.persisted_index)
    waiting = sum(size for last, size in state.uncommitted if last > safe)
    assert not taken or waiting <= state.settings.uncommitted_bytes_max, f"{state.peer} lets {waiting} bytes wait"
