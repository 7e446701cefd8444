"""An abstract Raft: the guarded actions that every step of the real core is held against.

After Diego Ongaro's TLA+ specification (``raft.tla``; thesis, appendix B), whose names are kept, with joint consensus
(thesis 4.3) and with a disk that lags behind. It has no time, no progress of peers and no pre-vote: who campaigns when
is free here. Logs are never compacted: a snapshot *is* the prefix that it stands for. Messages may arrive at any time
once they were sent, so loss, repetition and reordering need no action. An action is a function that demands its guards
by name, and then changes one server. It may not know how a real peer is watched (``refinement.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    Message,
    ReadIndexReply,
    RequestPreVote,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.testing.specification.abstract import (
    Disk,
    Entry,
    Log,
    Sent,
    Server,
    Unexplained,
    World,
    Write,
    decoded,
    entries_of,
    holds_entry,
    in_force,
    is_prefix,
    is_quorum,
    is_same,
    is_up_to_date,
    last_term,
    quorums_overlap,
    without_commands,
)
from quorate.types import Index, Kind, PeerId, Snapshot, Term


@dataclass(slots=True, frozen=True)
class Action:
    """One action that is about to be taken, by one server."""

    name: str
    peer: PeerId
    server: Server

    def demand(self, guard: str, holds: bool, found: object = "") -> None:
        """Demand a guard.

        Raises:
            Unexplained: it does not hold.
        """
        if not holds:
            raise Unexplained(self.name, guard, f"on {self.peer}, {found}")


def take(world: World, name: str, i: PeerId) -> Action:
    """Begin an action of one server."""
    world.taken.append(name)
    return Action(name, i, world.servers[i])


# Starting. Terms, votes and leaders (Raft §5.1, §5.2).


def begin(world: World, i: PeerId, disk: Disk) -> None:
    """Init: a server that was never seen begins with what its disk holds, and nothing committed."""
    world.servers[i] = Server(disk.current_term, disk.voted_for, disk.log, durable=disk, handed=disk)
    take(world, "Init", i)


def restart(world: World, i: PeerId) -> None:
    """Restart(i): what is not durable is lost, and so is the commit index beyond the snapshot."""
    action = take(world, "Restart", i)
    disk = action.server.durable
    world.servers[i] = Server(*disk[:3], commit_index=disk.snapshot, snapshot=disk.snapshot, durable=disk, handed=disk)


def form(world: World, i: PeerId, entry: Entry) -> None:
    """Form(i): an empty server writes the first configuration, in term 1, as every member of it does."""
    action = take(world, "Form", i)
    server = action.server
    action.demand("LogIsEmpty", not server.log)
    action.demand("FirstConfiguration", entry.kind is Kind.CONFIGURATION and entry.term == 1, entry)
    others = [other.log[0] for other in world.servers.values() if other.log]
    action.demand("SameEverywhere", all(other == entry for other in others), entry)
    server.current_term = max(server.current_term, Term(1))
    server.log = (entry,)


def update_term(world: World, i: PeerId, term: Term) -> None:
    """UpdateTerm(i): "If RPC request or response contains term T > currentTerm: ... convert to follower"."""
    action = take(world, "UpdateTerm", i)
    server = action.server
    action.demand("TermIsHigher", term > server.current_term, f"{term} after {server.current_term}")
    server.current_term, server.voted_for = term, None
    follow(server)


def step_down(world: World, i: PeerId) -> None:
    """StepDown(i): a candidate or leader gives up within its term, for any reason. Its vote stays."""
    action = take(world, "StepDown", i)
    action.demand("CampaignsOrLeads", action.server.role != "follower")
    follow(action.server)


def follow(server: Server) -> None:
    """Forget what belongs to a candidate or leader."""
    server.role, server.votes_granted, server.match_index, server.verified = "follower", frozenset(), {}, Index(0)


def timeout(world: World, i: PeerId) -> None:
    """Timeout(i): a server that does not lead campaigns in the next term, and votes for itself."""
    action = take(world, "Timeout", i)
    server = action.server
    action.demand("DoesNotLead", server.role != "leader")
    server.current_term, server.voted_for = Term(server.current_term + 1), i
    follow(server)
    server.role, server.votes_granted = "candidate", frozenset({i})


def grant_vote(world: World, i: PeerId, j: PeerId, m: RequestVote) -> None:
    """HandleRequestVoteRequest(i, j, m), granted."""
    action = take(world, "GrantVote", i)
    server = action.server
    action.demand("TermIsCurrent", m.term == server.current_term, f"{m.term} in term {server.current_term}")
    action.demand("HasNotVoted", server.voted_for in (None, j), f"voted for {server.voted_for}, asked by {j}")
    ours = (last_term(server.log), len(server.log))
    action.demand("LogIsUpToDate", is_up_to_date(m, server.log), f"ours ends {ours}, asked by {m}")
    action.demand("HasConfiguration", in_force(server.log) is not None)
    server.voted_for = j


def count_vote(world: World, i: PeerId, j: PeerId, m: RequestVoteReply) -> None:
    """HandleRequestVoteResponse(i, j, m), granted."""
    action = take(world, "CountVote", i)
    server = action.server
    action.demand("IsCandidate", server.role == "candidate", server.role)
    action.demand("TermIsCurrent", m.term == server.current_term, f"{m.term} in term {server.current_term}")
    action.demand("VoteIsGranted", m.vote_granted)
    server.votes_granted |= {j}


def become_leader(world: World, i: PeerId) -> None:
    """BecomeLeader(i): a candidate that a quorum of the configuration in force voted for leads."""
    action = take(world, "BecomeLeader", i)
    server = action.server
    action.demand("IsCandidate", server.role == "candidate", server.role)
    votes = sorted(server.votes_granted)
    action.demand("VotesAreAQuorum", is_quorum(server.log, votes), f"votes of {votes}")
    action.demand("HoldsItsCommands", all(entry.kind is not Kind.BARE for entry in server.log))
    server.role, server.match_index = "leader", {}


# The leader's log (Raft §5.3, §5.4.2; thesis 4).


def client_request(world: World, i: PeerId, entry: Entry) -> None:
    """ClientRequest(i, v), and the leader's no-op: a leader appends an entry of its term."""
    action = take(world, "ConfigurationChange" if entry.kind is Kind.CONFIGURATION else "ClientRequest", i)
    server = action.server
    action.demand("Leads", server.role == "leader", server.role)
    action.demand("TermIsCurrent", entry.term == server.current_term, entry)
    action.demand("HasItsBytes", entry.kind is not Kind.BARE, entry)
    if entry.kind is Kind.CONFIGURATION:
        latest = in_force(server.log)
        assert latest is not None, "a leader has a configuration"
        index, before = latest
        action.demand("OneChangeAtATime", index <= server.commit_index, f"configuration {index} is not committed")
        committed = server.log[: server.commit_index]
        action.demand("HasCommittedInItsTerm", last_term(committed) == server.current_term)
        action.demand("QuorumsOverlap", quorums_overlap(before, decoded(entry.value)), decoded(entry.value))
    server.log += (entry,)


def count_acknowledgement(world: World, i: PeerId, j: PeerId, m: AppendEntriesReply) -> None:
    """HandleAppendEntriesResponse(i, j, m), successful."""
    action = take(world, "CountAcknowledgement", i)
    server = action.server
    action.demand("Leads", server.role == "leader", server.role)
    action.demand("TermIsCurrent", m.term == server.current_term, f"{m.term} in term {server.current_term}")
    action.demand("IsSuccess", m.success)
    server.match_index[j] = max(m.match_index, server.match_index.get(j, Index(0)))


def advance_commit_index(world: World, i: PeerId, index: Index) -> None:
    """AdvanceCommitIndex(i): "a majority of matchIndex[i] >= N, and log[N].term == currentTerm"."""
    action = take(world, "AdvanceCommitIndex", i)
    server = action.server
    action.demand("Leads", server.role == "leader", server.role)
    action.demand("CommitIndexRises", server.commit_index < index <= len(server.log), index)
    of = server.log[index - 1].term
    action.demand("EntryIsOfThisTerm", of == server.current_term, f"entry {index} of term {of}")
    agreeing = {j for j, match_index in server.match_index.items() if match_index >= index}
    if is_prefix(server.durable.log, server.log, index):
        agreeing.add(i)  # raft.tla counts the leader at once; its disk may still be at work here (thesis 10.2.1)
    action.demand("HeldByAQuorum", is_quorum(server.log, agreeing), f"entry {index} on {sorted(agreeing)}")
    server.commit_index = index


# The follower's log (Raft §5.3, §7).


def demand_leader(action: Action, m: AppendEntries | InstallSnapshot) -> None:
    """Demand what is common to all that a leader's message leads to.

    Raises:
        Unexplained: the message is of another term, or this server does not follow.
    """
    server = action.server
    action.demand("TermIsCurrent", m.term == server.current_term, f"{m.term} in term {server.current_term}")
    action.demand("Follows", server.role == "follower", server.role)


def demand_consistency(action: Action, m: AppendEntries) -> None:
    """Demand the consistency check: the log holds what precedes the new entries (raft.tla: logOk).

    Raises:
        Unexplained: it does not.
    """
    demand_leader(action, m)
    found = f"entry {m.prev_log_index} of term {m.prev_log_term}"
    action.demand("PreviousEntryMatches", holds_entry(action.server.log, m.prev_log_index, m.prev_log_term), found)


def remove_conflict(world: World, i: PeerId, m: AppendEntries, index: int) -> None:
    """ConflictAppendEntriesRequest(i, j, m): an entry that conflicts goes, and all that follow it."""
    action = take(world, "RemoveConflict", i)
    server, new = action.server, entries_of(m.entries)
    demand_consistency(action, m)
    place = index - m.prev_log_index - 1
    conflicts = 0 <= place < len(new) and index <= len(server.log) and server.log[index - 1].term != new[place].term
    action.demand("EntryConflicts", conflicts, f"entry {index} of {len(server.log)}")
    action.demand("IsNotCommitted", index > server.commit_index, f"entry {index} of {server.commit_index}")
    server.log = server.log[: index - 1]


def append_new_entries(world: World, i: PeerId, m: AppendEntries) -> None:
    """NoConflictAppendEntriesRequest(i, j, m), or nothing new: what the log holds agrees, and the rest is appended."""
    action = take(world, "AppendNewEntries", i)
    server, new, previous = action.server, entries_of(m.entries), m.prev_log_index
    demand_consistency(action, m)
    held = server.log[previous : previous + len(new)]
    action.demand("NoConflict", all(map(is_same, held, new)), f"held {held}, sent {new}")
    server.log += new[len(held) :]
    server.verified = Index(max(server.verified, previous + len(new)))


def learn_commit_index(world: World, i: PeerId, m: AppendEntries, index: Index) -> None:
    """The end of AcceptAppendEntriesRequest: "set commitIndex = min(leaderCommit, index of last new entry)"."""
    action = take(world, "LearnCommitIndex", i)
    server = action.server
    demand_leader(action, m)
    action.demand("CommitIndexRises", server.commit_index < index <= len(server.log), index)
    action.demand("LeaderHasCommitted", index <= m.leader_commit, f"{index} of {m.leader_commit}")
    covered = m.prev_log_index + sum(len(run.payloads) for run in m.entries)
    action.demand("MessageCovers", index <= covered, f"{index} of {covered}")
    server.commit_index = index


def install_snapshot(world: World, i: PeerId, m: InstallSnapshot, prefix: Log) -> None:
    """Discard the entire log, and begin with the prefix that the snapshot stands for (Figure 13, 7 and 8)."""
    action = take(world, "InstallSnapshot", i)
    server, snapshot = action.server, m.snapshot
    demand_leader(action, m)
    action.demand("IsAhead", snapshot.index > server.commit_index, f"{snapshot.index} of {server.commit_index}")
    action.demand("LogLacksIt", not holds_entry(server.log, snapshot.index, snapshot.term), snapshot.index)
    server.log = without_commands(prefix) if snapshot.is_bare else prefix
    server.commit_index = server.snapshot = server.verified = snapshot.index


def keep_log(world: World, i: PeerId, m: InstallSnapshot, prefix: Log) -> None:
    """Retain the log: it holds all that the snapshot stands for (Figure 13, 6)."""
    action = take(world, "KeepLog", i)
    server, snapshot = action.server, m.snapshot
    demand_leader(action, m)
    action.demand("LogHoldsIt", is_prefix(server.log, prefix, snapshot.index), snapshot.index)
    server.commit_index = max(server.commit_index, snapshot.index)
    server.verified = max(server.verified, snapshot.index)


def take_snapshot(world: World, i: PeerId, snapshot: Snapshot) -> None:
    """A snapshot of the server's own machine is durable: the log is the same, but survives as committed."""
    action = take(world, "TakeSnapshot", i)
    server = action.server
    demand_snapshot(action, snapshot)
    action.demand("SnapshotRises", snapshot.index > server.snapshot, f"{snapshot.index} after {server.snapshot}")
    server.snapshot = snapshot.index


def demand_snapshot(action: Action, snapshot: Snapshot) -> None:
    """Demand that a snapshot stands for a committed prefix of the log, with the configuration as of there.

    Raises:
        Unexplained: it does not.
    """
    server, index = action.server, snapshot.index
    action.demand("IsCommitted", index <= server.commit_index, f"{index} of {server.commit_index}")
    action.demand("TermOfItsEntry", holds_entry(server.log, index, snapshot.term), snapshot.term)
    latest = in_force(server.log[:index])
    found = (snapshot.configuration_index, decoded(snapshot.configuration))
    action.demand("ConfigurationAsOfThere", latest == found, f"{found}, not {latest}")


# Messages: what they say is true when they are made, and durable when they leave.


def demand_truth(action: Action, to: PeerId, message: Message, last: int) -> None:
    """Demand that what a message says is true now.

    Args:
        action: whose guards these are.
        to: whom it is for.
        message: what it says.
        last: the last entry that may be attached to it.

    Raises:
        Unexplained: it is not.
    """
    server = action.server
    if isinstance(message, RequestPreVote):
        return  # it changes nothing anywhere
    action.demand("TermIsCurrent", message.term == server.current_term, f"{message} in term {server.current_term}")
    match message:
        case RequestVote():
            action.demand("IsCandidate", server.role == "candidate", server.role)
            end = (message.last_log_term, message.last_log_index)
            action.demand("LogEndsThere", end == (last_term(server.log), len(server.log)), message)
        case RequestVoteReply(vote_granted=True):
            action.demand("HasItsVote", server.voted_for == to, f"{server.voted_for} has it, not {to}")
        case AppendEntriesReply(success=True):
            compared = message.match_index <= server.verified
            action.demand("WasCompared", compared, f"{message.match_index} of {server.verified}")
        case AppendEntries():
            action.demand("Leads", server.role == "leader", server.role)
            previous = holds_entry(server.log, message.prev_log_index, message.prev_log_term)
            action.demand("IsOfItsLog", previous and last <= len(server.log), message)
            action.demand("HasCommitted", message.leader_commit <= server.commit_index, message)
        case InstallSnapshot():
            action.demand("Leads", server.role == "leader", server.role)
            demand_snapshot(action, message.snapshot)
        case TimeoutNow() | ReadIndexReply():
            action.demand("Leads", server.role == "leader", server.role)
        case _:
            pass


def is_durable(server: Server, i: PeerId, to: PeerId, message: Message) -> bool:
    """Tell whether what a message promises would be true after a crash too."""
    disk = server.durable
    match message:
        case RequestVote(term=term):
            return (disk.current_term, disk.voted_for) == (term, i)
        case RequestVoteReply(term=term, vote_granted=True):
            return (disk.current_term, disk.voted_for) == (term, to)
        case AppendEntriesReply(term=term, success=True, match_index=index):
            return disk.current_term == term and is_prefix(disk.log, server.log, index)
        case AppendEntries(term=term):
            return disk.current_term == term
        case _:
            return True


def offered(server: Server, message: Message, last: int) -> Log:
    """Give the log that a message is taken from, up to where it says something of it."""
    match message:
        case AppendEntries():
            return server.log[:last]
        case InstallSnapshot(snapshot=snapshot):
            return server.log[: snapshot.index]
        case _:
            return ()


def send(world: World, i: PeerId, to: PeerId, message: Message, last: int) -> None:
    """Send(i, m): a message leaves at once; what it promises is durable."""
    action = take(world, "Send", i)
    demand_truth(action, to, message, last)
    action.demand("IsDurable", is_durable(action.server, i, to, message), message)
    world.note(Sent(i, to, message), offered(action.server, message, last))


def promise(world: World, i: PeerId, to: PeerId, message: Message, last: int) -> None:
    """Promise(i, m): a message is made that leaves once all that is true now is durable."""
    action = take(world, "Promise", i)
    demand_truth(action, to, message, last)
    action.server.promises.append((Sent(i, to, message), offered(action.server, message, last)))


def hand_over(world: World, i: PeerId, number: int, disk: Disk, *, writes: bool) -> None:
    """HandOver(i): all that is to be durable is handed to the disk, and with it the messages that wait for it.

    Args:
        world: the whole state.
        i: whose disk it is.
        number: of the ``Ready``.
        disk: what the disk will hold.
        writes: whether it is written to; the messages wait for what was handed over before in any case.
    """
    server = world.servers[i]
    is_idle = not writes and not server.promises
    action = Action("Stutter", i, server) if is_idle else take(world, "HandOver", i)
    action.demand("TermAndVote", disk[:2] == server.disk[:2], f"{disk[:2]}, not {server.disk[:2]}")
    action.demand("WholeLog", disk.log == server.log, f"{len(disk.log)} entries, not {len(server.log)}")
    action.demand("Snapshot", disk.snapshot == server.snapshot, f"{disk.snapshot}, not {server.snapshot}")
    promises, server.promises, server.handed = server.promises, [], disk
    if writes:
        server.writes.append(Write(number, disk, promises))
    elif server.writes:
        server.writes[-1].promises += promises
    else:
        leave(world, promises)


def persist(world: World, i: PeerId) -> None:
    """Persist(i): the oldest write is durable, and what waited for it leaves."""
    action = take(world, "Persist", i)
    action.demand("IsWriting", len(action.server.writes) > 0)
    write = action.server.writes.popleft()
    action.server.durable = write.disk
    leave(world, write.promises)


def leave(world: World, promises: Sequence[tuple[Sent, Log]]) -> None:
    """Let messages that waited for the disk leave."""
    for sent, log in promises:
        world.note(sent, log)


def deliver(world: World, i: PeerId, j: PeerId, m: Message, header: Message) -> Log:
    """Receive(m): any message that was ever sent may arrive, an AppendEntries with fewer entries than were offered.

    Args:
        world: the whole state.
        i: who receives it.
        j: who sent it.
        m: the message.
        header: the same without entries.

    Returns:
        The log that it was taken from.
    """
    action = take(world, "Receive", i)
    log = world.messages.get(Sent(j, i, header))
    action.demand("WasSent", log is not None, f"{m} of {j}")
    if log is not None and isinstance(m, AppendEntries):
        new = entries_of(m.entries)
        held = log[m.prev_log_index : m.prev_log_index + len(new)]
        action.demand("EntriesWereOffered", len(held) == len(new) and all(map(is_same, held, new)), m)
    return log or ()
