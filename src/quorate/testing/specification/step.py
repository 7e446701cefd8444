"""One step of a real core: what the specification says of the peer before and after it, and what the step made.

``abstract`` is the refinement mapping: from all that a real peer knows to what an abstract server is. Explains nothing;
that is ``refinement.py``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quorate.core import Configuration, Envelope, Message, Raft
from quorate.core.messages import AppendEntriesReply
from quorate.core.state import Candidate, Leader
from quorate.testing.specification.abstract import Log
from quorate.types import Compaction, Index, PeerId, Run, Snapshot, Term

Stretches = tuple[tuple[Index, Term], ...]
"""The first index and the term of each stretch of entries of one term."""


class Abstract(NamedTuple):
    """What the specification says of one server, as far as a real peer still knows it.

    Attributes:
        current_term: its term.
        voted_for: its vote in it.
        role: what it is; a pre-candidate is a follower that asks around.
        commit_index: its commit index.
        snapshot: what its latest snapshot stands for.
        start: its log is known from behind this index on.
        stretches: the terms of the log from there.
        last: the last index of its log.
        votes_granted: whose votes a candidate counts.
        match_index: what a leader believes each peer to hold.
        configuration: the one in force, with its index; None in an empty log.
    """

    current_term: Term
    voted_for: PeerId | None
    role: str
    commit_index: Index
    snapshot: Index
    start: Index
    stretches: Stretches
    last: Index
    votes_granted: frozenset[PeerId]
    match_index: dict[PeerId, Index]
    configuration: tuple[Index, Configuration] | None


def abstract(raft: Raft) -> Abstract:
    """Map a real peer to what the specification says of one."""
    state = raft.state
    role, votes, match_index = "follower", frozenset[PeerId](), dict[PeerId, Index]()
    if isinstance(state.role, Candidate):
        role, votes = "candidate", frozenset(voter for voter, granted in state.role.votes.items() if granted)
    elif isinstance(state.role, Leader):
        role, match_index = "leader", {peer: progress.match_index for peer, progress in state.role.progress.items()}
    log = state.log
    stretches = tuple(zip(log.starts, log.terms, strict=True))
    return Abstract(
        state.term,
        state.voted_for,
        role,
        state.commit_index,
        state.snapshot_index,
        log.start,
        stretches,
        log.last,
        votes,
        match_index,
        state.configurations[-1] if state.configurations else None,
    )


class Wishes(NamedTuple):
    """What a core has waiting for its next ``Ready``."""

    messages: tuple[Envelope, ...]
    messages_after_persist: tuple[Envelope, ...]
    entries: tuple[Run, ...]
    compaction: Compaction | None


def wishes(raft: Raft) -> Wishes:
    """Take down what a core has waiting for its next ``Ready``."""
    outbox = raft.state.outbox
    return Wishes(
        tuple(outbox.messages), tuple(outbox.messages_after_persist), tuple(outbox.entries), outbox.compaction
    )


@dataclass(slots=True)
class Step:
    """One input of one peer, with what was true before and after it.

    Attributes:
        peer: whose input.
        what: the input's name: that of the method of ``Raft``.
        before: the peer before.
        after: the peer after.
        had: what waited for its next ``Ready`` before.
        has: what does after.
        sender: who sent the message that came; None for another input.
        message: the message that came; None for another input.
        snapshot: its latest snapshot after.
    """

    peer: PeerId
    what: str
    before: Abstract
    after: Abstract
    had: Wishes
    has: Wishes
    sender: PeerId | None = None
    message: Message | None = None
    snapshot: Snapshot | None = None

    @property
    def sent(self) -> list[Envelope]:
        """The messages that this input made, and that wait for no disk."""
        return new_ones(self.had.messages, self.has.messages)

    @property
    def promised(self) -> list[Envelope]:
        """The messages that this input made, and that wait for the disk."""
        return new_ones(self.had.messages_after_persist, self.has.messages_after_persist)

    @property
    def accepts(self) -> bool:
        """Whether a leader's message was taken: it is acknowledged, or it changed something."""
        replies = [envelope.message for envelope in (*self.sent, *self.promised)]
        acknowledged = any(isinstance(reply, AppendEntriesReply) and reply.success for reply in replies)
        log_before, log_after = self.before[4:8], self.after[4:8]
        return acknowledged or log_before != log_after or self.before.commit_index != self.after.commit_index

    @property
    def installs(self) -> bool:
        """Whether a snapshot replaced the whole log."""
        compaction = self.has.compaction
        return compaction is not None and compaction is not self.had.compaction and compaction.replaces_log

    def __str__(self) -> str:
        """Say which input it was, for people to read."""
        return f"{self.peer} {self.what}" + (f" {self.message} of {self.sender}" if self.message else "")


def new_ones(before: Sequence[Envelope], after: Iterable[Envelope]) -> list[Envelope]:
    """Give the envelopes that were not there before; two that say the same are still two."""
    known = {id(envelope) for envelope in before}
    return [envelope for envelope in after if id(envelope) not in known]


def first_rewritten(step: Step) -> Index | None:
    """Give the first index of the log that was dropped or written anew; None when the log only grew.

    What was dropped and written anew before it was handed to the disk, and says the same, was not dropped.
    """
    before, after = step.before, step.after
    found = [after.last + 1] if after.last < before.last else []
    if before.stretches != after.stretches:
        shared = range(max(before.start, after.start) + 1, min(before.last, after.last) + 1)
        found += [i for i in shared if term_at(before.stretches, i) != term_at(after.stretches, i)][:1]
    had, has = step.had.entries, step.has.entries
    if has and has[0].first <= before.last and (not had or has[0].first < had[0].first):
        found.append(has[0].first)
    return Index(min(found)) if found else None


def term_at(stretches: Stretches, index: int) -> Term:
    """Give the term of an entry that is held."""
    return stretches[bisect_right(stretches, index, key=lambda stretch: stretch[0]) - 1][1]


def stretches_of(log: Log, start: int) -> Stretches:
    """Give the stretches of a log from behind ``start`` on."""
    found: list[tuple[Index, Term]] = []
    for index, entry in enumerate(log[start:], start + 1):
        if not found or found[-1][1] != entry.term:
            found.append((Index(index), entry.term))
    return tuple(found)
