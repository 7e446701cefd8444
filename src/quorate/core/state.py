"""Figure 2, "State", the four roles as data, and the few changes that several chapters share.

Knows the log's terms, who is in the group, and what is to be handed to the shell. Does not decide: the chapters do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from quorate.core.configuration import Configuration, Member, configuration_text
from quorate.core.log import Log
from quorate.core.messages import AppendEntries, Message, RequestPreVote, acknowledges
from quorate.core.progress import Progress
from quorate.core.quorum import reached_by_quorum
from quorate.core.ready import Envelope, Event, EventKind, ReadReady
from quorate.settings import Settings
from quorate.types import Compaction, HardState, Index, Kind, PeerId, ReadId, Role, Run, Snapshot, Term


@dataclass(slots=True)
class Follower:
    """Passive: responds to candidates and leaders.

    Attributes:
        leader: the leader of this term, so that clients can be redirected; None until it is heard, and once it is lost.
        heard: when it was last heard, seconds on the monotonic clock; what keeps candidates waiting (thesis 4.2.3).
        promised: when a leader that answers reads by lease was last heard: until the minimum election timeout has
            passed since, nobody gets our vote, whatever becomes of that leader. Invariant: at most ``heard``.
        put_off: who asked last for a pre-vote that was refused only because a leader was heard, with what it asked.
    """

    leader: PeerId | None = None
    heard: float = float("-inf")
    promised: float = float("-inf")
    put_off: tuple[PeerId, RequestPreVote] | None = None


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
class CatchUp:
    """How far a newcomer has come on its way to a vote (thesis 4.2.1): in rounds, each shorter than the one before.

    Attributes:
        end: the leader's last index when the round began: it ends when the newcomer holds that, and is not applying.
        since: when the round began, seconds on the monotonic clock.
        round: the number of the round, from 1 on.
        is_done: whether it has caught up; it need not do so again.
        match_index: what it held when that last rose.
        moved: when that was, or a snapshot was last under way to it, or it had all and was still applying it.
    """

    end: Index
    since: float
    round: int = 1
    is_done: bool = False
    match_index: Index = Index(0)
    moved: float = float("-inf")


class RemoteRead(msgspec.Struct, frozen=True):
    """A batch of reads that waits at another peer.

    Attributes:
        peer: who asked.
        life: what the answer must name.
        id: the batch, as that peer names it.
    """

    peer: PeerId
    life: int
    id: ReadId


AnyRead = ReadId | RemoteRead
"""A batch of reads, of this peer's callers or of another's."""


@dataclass(slots=True)
class Leader:
    """Leads its term.

    Attributes:
        progress: what it knows of every other peer that receives entries: the members, and those it still tells that
            they have been removed.
        first_index: the index of the no-op with which its term began: reads wait until it is committed (§8).
        heartbeat_deadline: when it must speak again, seconds on the monotonic clock.
        round: the latest round of reads begun; a number is never used twice in a term, and replies of other terms
            are never counted.
        reads: reads that no round carries yet.
        rounds: ``(round, read index, reads)`` of rounds not yet acknowledged by a quorum. Invariant: ascending.
        transfer: whom leadership is being handed over to; None while it is not.
        lease_until: until when the followers are asked for the promises that reads by lease rest on, seconds on the
            monotonic clock.
        beats: ``(round, when it was sent)`` of the latest rounds, if each of them asked for those promises; else
            empty. Invariant: ascending.
        catch_ups: how far each newcomer has come.
        leaving: until when those that were removed are told so, seconds on the monotonic clock.
        change_failure: why the last change of members was given up; None when it was not.
        prefer_at: when to look next whether a voter of higher priority could lead.
        preferred: how often leadership was handed over for that reason, in vain: each time it is tried later.
        has_released: whether a peer was ever told in this term to campaign at once. The elections that this allows are
            refused by nobody, and may come late: a transfer given up takes none of them back.
    """

    progress: dict[PeerId, Progress]
    first_index: Index
    heartbeat_deadline: float
    round: int = 0
    reads: list[AnyRead] = field(default_factory=list)
    rounds: list[tuple[int, Index, tuple[AnyRead, ...]]] = field(default_factory=list)
    transfer: Transfer | None = None
    lease_until: float = float("-inf")
    beats: list[tuple[int, float]] = field(default_factory=list)
    catch_ups: dict[PeerId, CatchUp] = field(default_factory=dict)
    leaving: dict[PeerId, float] = field(default_factory=dict)
    change_failure: str | None = None
    prefer_at: float = float("inf")
    preferred: int = 0
    has_released: bool = False


FOREVER = float("inf")

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


class Outbox(msgspec.Struct):
    """What accumulates for the next ``Ready``; see there. A struct, for one is made in every turn of every peer."""

    compaction: Compaction | None = None
    messages: list[Envelope] = []
    entries: list[Run] = []
    messages_after_persist: list[Envelope] = []
    reads: list[ReadReady] = []
    dropped: list[ReadId] = []
    events: list[Event] = []

    @property
    def is_empty(self) -> bool:
        """Whether the next ``Ready`` would hold nothing that an input has led to."""
        promises = self.compaction or self.messages or self.entries or self.messages_after_persist
        return not (promises or self.reads or self.dropped or self.events)


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
            from the moment it is appended (thesis 4.1). What was compacted is left out but for the latest one of it.
            Invariant: ascending.
        groups: the voters of the configuration in force: see ``Configuration.groups``.
        others: the ids of all that receive entries but this peer.
        snapshot: the latest durable snapshot; None before the first one. Invariant: its index is committed.
        role: what the peer is now, with what belongs to that role alone.
        election_deadline: when to ask for pre-votes; of no meaning to a leader.
        durable: term and vote as they stand on the disk.
        persisted_index: the log is durable up to here. Invariant: at most ``log.last``.
        unpersisted: what was handed out for writing and not yet confirmed. Invariant: ascending numbers.
        uncommitted: ``(last index, bytes)`` of each run that came since the start and is not yet committed, or not yet
            durable here: what must be kept in memory.
        uncommitted_bytes: their sum.
        bare: the first index that is held without its commands, in the log or in the snapshot; 0 when there is none.
            Who holds such is a witness, and never anything else.
        life: drawn at the start, so that an answer to an earlier life of this peer is known as such.
        asked: when the leader was last asked for the read index of each batch of reads that waits for it here.
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
    groups: tuple[tuple[PeerId, ...], ...] = ()
    others: tuple[PeerId, ...] = ()
    snapshot: Snapshot | None = None
    role: AnyRole = field(default_factory=Follower)
    election_deadline: float = float("inf")
    durable: HardState = HardState()
    persisted_index: Index = Index(0)
    unpersisted: list[Unpersisted] = field(default_factory=list)
    uncommitted: list[tuple[Index, int]] = field(default_factory=list)
    uncommitted_bytes: int = 0
    bare: Index = Index(0)
    life: int = 0
    asked: dict[ReadId, float] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def configuration(self) -> Configuration | None:
        """The configuration in force: the latest in the log, committed or not (thesis 4.1); None in an empty log."""
        return self.configurations[-1][1] if self.configurations else None

    @property
    def me(self) -> Member | None:
        """This peer as a member of the configuration in force; None when it is none."""
        return self.configuration.member(self.peer) if self.configuration else None

    @property
    def may_campaign(self) -> bool:
        """Whether this peer could lead: it is a voter, and no witness."""
        # "a server that is not part of its own latest configuration should still start new elections, as it might still
        # be needed until the C_new entry is committed" (thesis 4.2.2): the others may lack entries that it holds.
        is_certain = bool(self.configurations) and self.configurations[-1][0] <= self.commit_index
        found = [configuration for _, configuration in self.configurations[-1 if is_certain else -2 :]]
        is_voter = any(self.peer in group for configuration in found for group in configuration.groups)
        return is_voter and not self.bare and not any(configuration.is_witness(self.peer) for configuration in found)

    @property
    def snapshot_index(self) -> Index:
        """The last index in the latest snapshot; 0 before the first one."""
        return self.snapshot.index if self.snapshot else Index(0)

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


def withdraw(state: State, first: Index) -> None:
    """Say of no entry from ``first`` on that it is durable, if it was not handed out: it never will be."""
    waiting = state.outbox.messages_after_persist
    state.outbox.messages_after_persist = [each for each in waiting if not acknowledges(each.message, first)]


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
    before = state.role if isinstance(state.role, Follower) else Follower()
    if isinstance(state.role, Leader):
        waiting = [*state.role.reads, *(read for _, _, reads in state.role.rounds for read in reads)]
        # Those that wait elsewhere are asked for again there.
        state.outbox.dropped.extend(read for read in waiting if not isinstance(read, RemoteRead))
        draw_election_deadline(state)
    if term > state.term:
        # The vote belongs to the term: it is cleared here, where the term rises, and nowhere else. A step-down
        # within a term that cleared it would let the peer vote twice (Raft §5.2).
        state.term, state.voted_for = term, None
        # A leader may answer reads by a lease for as long as we promised it not to vote: also across terms.
        state.role = Follower(heard=before.heard, promised=before.promised)
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
    if run.kind is Kind.BARE:
        state.bare = state.bare or run.first
    state.outbox.entries.append(run)
    size = run.size
    state.uncommitted.append((run.last, size))
    state.uncommitted_bytes += size
    if configuration is not None:
        # "servers do not wait for configuration entries to be committed, and each server always uses the latest
        # configuration found in its log" (thesis 4.1)
        state.configurations.append((run.last, configuration))
        use_configuration(state)
        text = f"configuration at index {run.last} -> {configuration_text(configuration)}"
        note(state, EventKind.CONFIGURATION, text)


def use_configuration(state: State) -> None:
    """Put the latest configuration in the log in force, committed or not."""
    configuration = state.configuration
    state.groups = configuration.groups if configuration else ()
    everyone = configuration.everyone if configuration else ()
    state.others = tuple([member.id for member in everyone if member.id != state.peer])
    if isinstance(state.role, Leader):
        progress = state.role.progress
        for peer in state.others:
            if peer not in progress:
                progress[peer] = Progress(next_index=Index(state.log.last + 1), heard=state.now)
            progress[peer].is_witness = configuration is not None and configuration.is_witness(peer)
            state.role.leaving.pop(peer, None)
        gone = [peer for peer in progress if peer not in state.others and peer not in state.role.leaving]
        # Those removed are told: otherwise they would ask for votes for ever (thesis 4.2.3).
        state.role.leaving.update(dict.fromkeys(gone, state.now + state.settings.catch_up_timeout))


def truncate(state: State, first: Index) -> None:
    """Drop the entries from ``first`` on, which is above the commit index.

    Whatever of them was handed out for writing no longer promises anything when it is confirmed: the same indexes
    will hold other entries (the A-B-A of asynchronous writes).
    """
    note(state, EventKind.LOG, f"entries {first} to {state.log.last} conflict with the leader's -> truncate")
    state.log.truncate(first)
    kept = Index(first - 1)
    state.persisted_index = min(state.persisted_index, kept)
    state.bare = state.bare if state.bare < first else Index(0)
    for waiting in state.unpersisted:
        waiting.last = min(waiting.last, kept)
    state.outbox.entries = [run.part(run.first, kept) for run in state.outbox.entries if run.first <= kept]
    withdraw(state, first)
    while state.uncommitted and state.uncommitted[-1][0] >= first:
        state.uncommitted_bytes -= state.uncommitted.pop()[1]
    while state.configurations and state.configurations[-1][0] >= first:
        # "a server must be prepared to fall back to the previous configuration in its log" (thesis 4.1)
        state.configurations.pop()
        use_configuration(state)
        text = f"configuration entry truncated -> {configuration_text(state.configuration)}"
        note(state, EventKind.CONFIGURATION, text)


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
    count = 0
    for last, size in state.uncommitted:
        if last > min(state.commit_index, state.persisted_index):
            break
        state.uncommitted_bytes -= size
        count += 1
    del state.uncommitted[:count]


def next_beat(state: State) -> float:
    """Give the instant of the next heartbeat: the same one for all groups that this node leads.

    So their heartbeats leave in one turn, and in one frame for each neighbour.
    """
    interval = state.settings.heartbeat_interval
    # One that is due within a hundredth of it is left out: by rounding, a beat would else often be sent twice.
    return ((state.now + interval / 100) // interval + 1) * interval


def hears_leader(state: State) -> bool:
    """Tell whether a leader was heard within the minimum election timeout (thesis 4.2.3).

    A leader hears itself as long as a quorum answers it.
    """
    match state.role:
        case Leader():
            return state.now < quorum_heard(state) + state.settings.election_timeout_min
        case Follower(heard=heard):
            return state.now < heard + state.settings.election_timeout_min
        case PreCandidate() | Candidate():
            return False


def is_answering(state: State, progress: Progress) -> bool:
    """Tell whether a peer answered its leader within the minimum election timeout."""
    return state.now < progress.heard + state.settings.election_timeout_min


def quorum_heard(state: State) -> float:
    """Give the latest instant since which a quorum, the leader included, has answered it. Only for a leader.

    Infinity for a lone voter: it needs no answer, now or later.
    """
    assert isinstance(state.role, Leader), "only a leader counts who answers it"
    progress = state.role.progress
    return reached_by_quorum(state.groups, lambda voter: FOREVER if voter == state.peer else progress[voter].heard)
