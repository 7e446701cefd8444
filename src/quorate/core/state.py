"""Figure 2, "State", the four roles as data, and the few changes that several chapters share.

Knows the log's terms, who is in the group, and what is to be handed to the shell. Does not decide: the chapters do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from quorate.core.configuration import Configuration
from quorate.core.log import Log
from quorate.core.messages import AppendEntries, Message
from quorate.core.progress import Progress
from quorate.core.quorum import reached_by_majority
from quorate.core.ready import Envelope, Event, EventKind, ReadReady
from quorate.settings import Settings
from quorate.types import HardState, Index, PeerId, ReadId, Role, Run, Term


@dataclass(slots=True)
class Follower:
    """Passive: responds to candidates and leaders.

    Attributes:
        leader: the leader of this term, so that clients can be redirected; None until it is heard.
        heard: when it was last heard, seconds on the monotonic clock; what keeps candidates waiting (thesis 4.2.3).
    """

    leader: PeerId | None = None
    heard: float = float("-inf")


@dataclass(slots=True)
class PreCandidate:
    """Asks whether it could win, before it raises its term (thesis 9.6).

    Attributes:
        votes: what each peer that answered said; itself included.
    """

    votes: dict[PeerId, bool]


@dataclass(slots=True)
class Candidate:
    """Campaigns in its term.

    Attributes:
        votes: what each peer that answered said; itself included.
    """

    votes: dict[PeerId, bool]


@dataclass(slots=True)
class Transfer:
    """Leadership that is being handed over (thesis 3.10).

    Attributes:
        to: the target.
        deadline: when to give up, seconds on the monotonic clock.
        is_sent: whether the target was told to campaign.
    """

    to: PeerId
    deadline: float
    is_sent: bool = False


@dataclass(slots=True)
class Leader:
    """Leads its term.

    Attributes:
        progress: what it knows of every other member.
        first_index: the index of the no-op with which its term began: reads wait until it is committed (§8).
        heartbeat_deadline: when it must speak again, seconds on the monotonic clock.
        round: the latest round of reads begun; a number is never used twice in a term, and replies of other terms
            are never counted.
        reads: reads that no round carries yet.
        rounds: ``(round, read index, reads)`` of rounds not yet acknowledged by a quorum. Invariant: ascending.
        transfer: whom leadership is being handed over to; None while it is not.
    """

    progress: dict[PeerId, Progress]
    first_index: Index
    heartbeat_deadline: float
    round: int = 0
    reads: list[ReadId] = field(default_factory=list)
    rounds: deque[tuple[int, Index, tuple[ReadId, ...]]] = field(default_factory=deque)
    transfer: Transfer | None = None


AnyRole = Follower | PreCandidate | Candidate | Leader

ROLE_NAMES: dict[type[AnyRole], Role] = {
    Follower: "follower",
    PreCandidate: "pre-candidate",
    Candidate: "candidate",
    Leader: "leader",
}


@dataclass(slots=True)
class Unpersisted:
    """What is durable once the ``Ready`` of that number is.

    Attributes:
        number: of the ``Ready``.
        last: the last index of its log, lowered to below any truncation since: a write that was overtaken and
            rewritten promises nothing.
        hard_state: term and vote at that moment.
        since: when it was handed out, seconds on the monotonic clock.
    """

    number: int
    last: Index
    hard_state: HardState
    since: float


@dataclass(slots=True)
class Outbox:
    """What accumulates for the next ``Ready``; see there."""

    configuration: Configuration | None = None
    messages: list[Envelope] = field(default_factory=list)
    entries: list[Run] = field(default_factory=list)
    messages_after_persist: list[Envelope] = field(default_factory=list)
    reads: list[ReadReady] = field(default_factory=list)
    dropped: list[ReadId] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """One peer (Raft, Figure 2, "State").

    Attributes:
        peer: its own id.
        settings: the knobs.
        random: gives floats from 0.0 (inclusive) to 1.0 (exclusive).
        now: the time of the input being handled, seconds on the monotonic clock.
        term: Figure 2, currentTerm. Persisted before any message of the term leaves. Invariant: never falls.
        voted_for: Figure 2, votedFor. Persisted before the vote leaves. Invariant: set at most once in a term.
        log: Figure 2, log[]: the terms. Entries are persisted before they are acknowledged or counted.
        commit_index: Figure 2, commitIndex. Not persisted. Invariant: never falls, at most ``log.last``.
        configurations: ``(index, configuration)`` of every configuration entry in the log; the last one is in force
            from the moment it is appended (thesis 4.1). Invariant: ascending.
        role: what the peer is now, with what belongs to that role alone.
        election_deadline: when to ask for pre-votes; of no meaning to a leader.
        durable: term and vote as they stand on the disk.
        persisted_index: the log is durable up to here. Invariant: at most ``log.last``.
        unpersisted: what was handed out for writing and not yet confirmed. Invariant: ascending numbers.
        uncommitted: ``(last index, bytes)`` of each run that came since the start and is not yet committed, or not yet
            durable here: what must be kept in memory.
        uncommitted_bytes: their sum.
        outbox: what the next ``Ready`` will hold.
    """

    peer: PeerId
    settings: Settings
    random: Callable[[], float]
    now: float
    term: Term = Term(0)
    voted_for: PeerId | None = None
    log: Log = field(default_factory=Log)
    commit_index: Index = Index(0)
    configurations: list[tuple[Index, Configuration]] = field(default_factory=list)
    role: AnyRole = field(default_factory=Follower)
    election_deadline: float = float("inf")
    durable: HardState = HardState()
    persisted_index: Index = Index(0)
    unpersisted: deque[Unpersisted] = field(default_factory=deque)
    uncommitted: deque[tuple[Index, int]] = field(default_factory=deque)
    uncommitted_bytes: int = 0
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def configuration(self) -> Configuration | None:
        """The configuration in force: the latest in the log, committed or not (thesis 4.1); None in an empty log."""
        return self.configurations[-1][1] if self.configurations else None

    @property
    def voters(self) -> tuple[PeerId, ...]:
        """The ids of all voters in force; empty while there is no configuration."""
        return self.configuration.ids if self.configuration else ()

    @property
    def others(self) -> tuple[PeerId, ...]:
        """The ids of all voters but this peer."""
        return tuple([voter for voter in self.voters if voter != self.peer])

    @property
    def hard_state(self) -> HardState:
        """Term and vote as they are now, durable or not."""
        return HardState(self.term, self.voted_for)

    @property
    def leader(self) -> PeerId | None:
        """Who leads this term, as far as this peer knows."""
        match self.role:
            case Leader():
                return self.peer
            case Follower(leader=leader):
                return leader
            case PreCandidate() | Candidate():
                return None


def name(state: State, peer: PeerId | None) -> str:
    """Give the name of a peer for people to read; its id when the configuration does not know it."""
    return state.configuration.name(peer) if state.configuration else str(peer)


def note(state: State, kind: EventKind, text: str) -> None:
    """Hand an event to the shell."""
    state.outbox.events.append(Event(kind, state.term, text))


def send(state: State, to: PeerId, message: Message, first: Index = Index(0), last: Index = Index(0)) -> None:
    """Hand over a message that waits for no disk: it promises nothing, or only what is durable already.

    A leader's AppendEntries leaves at once only when its term is durable. A lone voter wins its election in the very
    step that raises the term; a crash could otherwise let it lead the same term twice.
    """
    if isinstance(message, AppendEntries) and state.durable.term != state.term:
        state.outbox.messages_after_persist.append(Envelope(to, message, first, last))
    else:
        state.outbox.messages.append(Envelope(to, message, first, last))


def send_after_persist(state: State, to: PeerId, message: Message) -> None:
    """Hand over a message that promises something about our disk as it will be once all handed out is durable."""
    state.outbox.messages_after_persist.append(Envelope(to, message))


def draw_election_deadline(state: State) -> None:
    """Draw the election timeout anew, so that split votes are rare and short (Raft §5.2)."""
    low, high = state.settings.election_timeout_min, state.settings.election_timeout_max
    state.election_deadline = state.now + low + (high - low) * state.random()


def become_follower(state: State, term: Term, leader: PeerId | None, reason: str) -> None:
    """Follow in ``term``, which is not below the current one; ``reason`` is the fact that led to it.

    Proposals of a deposed leader stay in the log, and their fate is decided there. Reads that no quorum has confirmed
    are dropped: nobody may answer them now (thesis 6.4).
    """
    was_follower = isinstance(state.role, Follower)
    if isinstance(state.role, Leader):
        state.outbox.dropped.extend(state.role.reads)
        for _, _, reads in state.role.rounds:
            state.outbox.dropped.extend(reads)
        draw_election_deadline(state)
    if term > state.term:
        # The vote belongs to the term: it is cleared here, where the term rises, and nowhere else. A step-down
        # within a term that cleared it would let the peer vote twice (Raft §5.2).
        state.term, state.voted_for = term, None
        state.role = Follower()
        note(state, EventKind.TERM, f"{reason} -> follower")
    elif not was_follower:
        state.role = Follower()
        note(state, EventKind.ROLE, f"{reason} -> follower")
    if leader is not None and isinstance(state.role, Follower) and state.role.leader != leader:
        state.role.leader = leader
        note(state, EventKind.LEADER, f"{name(state, leader)} leads term {term} -> follow it")


def append(state: State, run: Run, configuration: Configuration | None) -> None:
    """Add a run right behind the log's end; ``configuration`` is what its last payload says, if it says one.

    It is handed out for writing, and counts for nothing until ``persisted``.
    """
    state.log.append(run.term, len(run.payloads))
    state.outbox.entries.append(run)
    size = run.size
    state.uncommitted.append((run.last, size))
    state.uncommitted_bytes += size
    if configuration is not None:
        # "a server always uses the latest configuration in its log, regardless of whether the entry is committed"
        # (thesis 4.1).
        state.configurations.append((run.last, configuration))
        state.outbox.configuration = configuration
        note(state, EventKind.CONFIGURATION, f"configuration at index {run.last} -> {voters_text(configuration)}")


def truncate(state: State, first: Index) -> None:
    """Drop the entries from ``first`` on, which is above the commit index.

    Whatever of them was handed out for writing no longer promises anything when it is confirmed: the same indexes
    will hold other entries (the A-B-A of asynchronous writes).
    """
    note(state, EventKind.LOG, f"entries {first} to {state.log.last} conflict with the leader's -> truncate")
    state.log.truncate(first)
    kept = Index(first - 1)
    state.persisted_index = min(state.persisted_index, kept)
    for waiting in state.unpersisted:
        waiting.last = min(waiting.last, kept)
    state.outbox.entries = [run.part(run.first, kept) for run in state.outbox.entries if run.first <= kept]
    while state.uncommitted and state.uncommitted[-1][0] >= first:
        state.uncommitted_bytes -= state.uncommitted.pop()[1]
    while state.configurations and state.configurations[-1][0] >= first:
        # "a server must be prepared to fall back to the previous configuration in its log" (thesis 4.1)
        state.configurations.pop()
        state.outbox.configuration = state.configuration
        note(state, EventKind.CONFIGURATION, f"configuration entry truncated -> {voters_text(state.configuration)}")


def commit(state: State, index: Index) -> None:
    """Raise the commit index to ``index``, at most ``log.last``; a lower one changes nothing."""
    if index <= state.commit_index:
        return
    state.commit_index = index
    settle(state)


def settle(state: State) -> None:
    """Count no longer what is both committed and durable here.

    Both: were the leader's disk to hang, a quorum of the others could commit without end what only its memory holds.
    """
    while state.uncommitted and state.uncommitted[0][0] <= min(state.commit_index, state.persisted_index):
        state.uncommitted_bytes -= state.uncommitted.popleft()[1]


def hears_leader(state: State) -> bool:
    """Tell whether a live leader was heard within the minimum election timeout (thesis 4.2.3).

    A leader hears itself as long as a quorum answers it.
    """
    match state.role:
        case Leader():
            return state.now < quorum_heard(state) + state.settings.election_timeout_min
        case Follower(leader=leader, heard=heard):
            return leader is not None and state.now < heard + state.settings.election_timeout_min
        case PreCandidate() | Candidate():
            return False


def quorum_heard(state: State) -> float:
    """Give the latest instant since which a quorum, the leader included, has answered it. Only for a leader."""
    assert isinstance(state.role, Leader), "only a leader counts who answers it"
    progress = state.role.progress
    return reached_by_majority([progress[voter].heard if voter in progress else state.now for voter in state.voters])


def voters_text(configuration: Configuration | None) -> str:
    """Give the names of the voters, for people to read."""
    return ", ".join(member.address.name for member in configuration.voters) if configuration else "none"
