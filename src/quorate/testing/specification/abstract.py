"""A state of the abstract Raft (``actions.py``), and what is asked of it: quorums, logs, configurations.

Figure 2 "State" once more, as plainly as can be and without the core's own rules: logs are whole, from index 1 on, and
messages are never received and gone, but all that were ever sent. Changes nothing; knows no real peers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from quorate.core.configuration import Configuration, decode_configuration
from quorate.core.messages import Message, RequestVote
from quorate.types import Index, Kind, PeerId, Run, Term


class Entry(NamedTuple):
    """One entry of a log.

    Attributes:
        term: the term in which a leader created it.
        kind: what it is; ``Kind.BARE`` where a witness holds a command without its bytes.
        value: what it says.
    """

    term: Term
    kind: Kind
    value: bytes


Log = tuple[Entry, ...]
"""A whole log: the entry of index 1 stands first."""


class Disk(NamedTuple):
    """What survives a crash: Figure 2, "Persistent state on all servers".

    Attributes:
        current_term: the term.
        voted_for: the vote in it.
        log: the log.
        snapshot: how much of it a snapshot stands for, and is known to be committed after a crash too.
    """

    current_term: Term = Term(0)
    voted_for: PeerId | None = None
    log: Log = ()
    snapshot: Index = Index(0)


class Sent(NamedTuple):
    """A message as the network knows it: from whom, for whom, what it says; without its entries."""

    sender: PeerId
    to: PeerId
    message: Message


@dataclass(slots=True)
class Write:
    """What was handed to the disk and is not durable yet.

    Attributes:
        number: of the real ``Ready`` that handed it over.
        disk: what the disk will hold then.
        promises: the messages that may leave then, each with the log that it was taken from.
    """

    number: int
    disk: Disk
    promises: list[tuple[Sent, Log]]


@dataclass(slots=True)
class Server:
    """One server: Figure 2, "State", and where its disk is.

    Attributes:
        current_term: latest term it has seen.
        voted_for: who has its vote in that term.
        log: its log.
        commit_index: how much of the log it knows to be committed.
        role: what it is; a pre-candidate is a follower here.
        votes_granted: who voted for it, while it is a candidate.
        match_index: what each follower has acknowledged, while it leads.
        verified: how much of its log it has compared with that of the leader it follows in this term.
        snapshot: how much a snapshot of its own stands for.
        durable: what its disk holds.
        handed: what its disk will hold when all that was handed to it is durable.
        writes: what was handed over and is not durable yet.
        promises: messages that say something about its disk, and were not handed over yet.
    """

    current_term: Term = Term(0)
    voted_for: PeerId | None = None
    log: Log = ()
    commit_index: Index = Index(0)
    role: Literal["follower", "candidate", "leader"] = "follower"
    votes_granted: frozenset[PeerId] = frozenset()
    match_index: dict[PeerId, Index] = field(default_factory=dict)
    verified: Index = Index(0)
    snapshot: Index = Index(0)
    durable: Disk = field(default_factory=Disk)
    handed: Disk = field(default_factory=Disk)
    writes: deque[Write] = field(default_factory=deque)
    promises: list[tuple[Sent, Log]] = field(default_factory=list)

    @property
    def disk(self) -> Disk:
        """What its disk has to hold for all that it says now to be true after a crash."""
        return Disk(self.current_term, self.voted_for, self.log, self.snapshot)


class Unexplained(AssertionError):
    """A step is none of the abstract Raft's.

    Attributes:
        action: the action that it would have been.
        guard: the guard of that action that does not hold.
    """

    def __init__(self, action: str, guard: str, text: str) -> None:
        """Name the action and its guard, and say what was found."""
        super().__init__(f"{action}: {guard} does not hold: {text}")
        self.action = action
        self.guard = guard


@dataclass(slots=True)
class World:
    """The whole state.

    Attributes:
        servers: by id.
        messages: all that were ever sent, each with the log of its sender up to where it says something of it.
        taken: the actions of the step that is being explained.
    """

    servers: dict[PeerId, Server] = field(default_factory=dict)
    messages: dict[Sent, Log] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)

    def note(self, sent: Sent, log: Log) -> None:
        """Note that a message was sent; of two that differ in the entries offered, that which offers more."""
        if len(log) >= len(self.messages.get(sent, ())):
            self.messages[sent] = log


# Predicates.


def last_term(log: Log) -> Term:
    """Give the term of the last entry, 0 for an empty log (raft.tla: LastTerm)."""
    return log[-1].term if log else Term(0)


def holds_entry(log: Log, index: int, term: int) -> bool:
    """Tell whether a log holds an entry of that term at that index; index 0 is before the first one."""
    return index == 0 or (index <= len(log) and log[index - 1].term == term)


def is_same(ours: Entry, theirs: Entry) -> bool:
    """Tell whether two entries are the same one, as far as a witness knows."""
    return ours == theirs or (ours.term == theirs.term and Kind.BARE in (ours.kind, theirs.kind))


def is_prefix(log: Log, other: Log, length: int) -> bool:
    """Tell whether two logs hold the same entries up to an index."""
    if log[:length] == other[:length]:
        return length <= len(log)
    return length <= min(len(log), len(other)) and all(map(is_same, log[:length], other[:length]))


def is_up_to_date(candidate: RequestVote, log: Log) -> bool:
    """Tell whether a candidate's log is at least as up-to-date (§5.4.1; raft.tla: logOk)."""
    return (candidate.last_log_term, candidate.last_log_index) >= (last_term(log), len(log))


@lru_cache(maxsize=4096)
def decoded(payload: bytes) -> Configuration:
    """Give the configuration that an entry says."""
    return decode_configuration(payload)


def in_force(log: Log) -> tuple[Index, Configuration] | None:
    """Give the latest configuration in a log, committed or not (thesis 4.1), and its index; None when there is none."""
    for index in range(len(log), 0, -1):
        entry = log[index - 1]
        if entry.kind is Kind.CONFIGURATION:
            return Index(index), decoded(entry.value)
    return None


def groups(configuration: Configuration) -> list[frozenset[PeerId]]:
    """Give the voters: those of now, and in a joint configuration those before too (thesis 4.3)."""
    voters = frozenset(member.id for member in configuration.members if member.kind != "learner")
    return [voters, frozenset(member.id for member in configuration.outgoing)] if configuration.outgoing else [voters]


def is_quorum(log: Log, agreeing: Collection[PeerId]) -> bool:
    """Tell whether those who agree are a majority of each group of voters in force (raft.tla: Quorum)."""
    found, agreed = in_force(log), set(agreeing)
    return found is not None and all(2 * len(group & agreed) > len(group) for group in groups(found[1]))


def quorums_overlap(before: Configuration, after: Configuration) -> bool:
    """Tell whether no two disjoint sets of voters can decide, one under each configuration: they share a group."""
    return any(group in groups(after) for group in groups(before))


def entries_of(runs: Sequence[Run]) -> Log:
    """Give the entries of runs."""
    return tuple(Entry(run.term, run.kind, payload) for run in runs for payload in run.payloads)


def without_commands(log: Log) -> Log:
    """Give a log as a witness holds it."""
    return tuple(Entry(e.term, Kind.BARE, b"") if e.kind is Kind.COMMAND else e for e in log)
