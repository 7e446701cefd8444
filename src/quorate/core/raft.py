"""Raft: the inputs, and "Rules for Servers" (Raft, Figure 2) in the paper's order.

The only class of the core that the shell touches. It does no input or output, has no clock and no dice: time is an
argument, chance is a callable, and what is to be done is drained by ``ready()``. Nothing raises because of what another
machine sent; only local misuse raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorate.core import admission, election, membership, reads, replication, report, snapshot, transfer
from quorate.core.configuration import Configuration, Member, configuration_text, decode_configuration
from quorate.core.log import Log
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.ready import EventKind, ReadReady, Ready
from quorate.core.state import (
    Candidate,
    Follower,
    Leader,
    Outbox,
    PreCandidate,
    State,
    Unpersisted,
    become_follower,
    draw_election_deadline,
    name,
    note,
    quorum_heard,
    settle,
    use_configuration,
)
from quorate.errors import ChangeInProgress, Corrupted, InvalidConfiguration, NotLeader
from quorate.settings import Settings
from quorate.types import Address, Index, PeerId, ReadId, Snapshot, Status, Stored, Term

LIVES = 2**53
"""How many lives of a peer are told apart: as many as a random float has values."""

DISK_PATIENCE = 5
"""A leader gives way when its disk has confirmed nothing for this many of the longest election timeouts: far more than
a busy disk takes, and less than a group should have to wait."""


class Raft:
    """One peer's part in the protocol: inputs are methods, outputs are drained by ``ready``.

    After any input, or any number of them, take ``ready()`` and obey its fields in their order.

    Attributes:
        state: all that the peer knows; to be read, never written.
    """

    def __init__(
        self, peer_id: PeerId, settings: Settings, stored: Stored, random: Callable[[], float], now: float
    ) -> None:
        """Start from what the disk holds, as a follower that waits a whole election timeout.

        Args:
            peer_id: the peer's own id.
            settings: the knobs.
            stored: what the store holds. The commit index is not stored: it is learned anew from a leader.
            random: gives floats from 0.0 (inclusive) to 1.0 (exclusive).
            now: seconds on the monotonic clock.

        Raises:
            Corrupted: a stored configuration cannot be read.
        """
        compaction = stored.compaction
        start, start_term = (compaction.start, compaction.term) if compaction else (Index(0), Term(0))
        starts, terms = [first for first, _ in stored.terms], [term for _, term in stored.terms]
        log = Log(start, start_term, starts, terms, stored.last)
        payloads = list(stored.configurations)
        if compaction:
            held = compaction.snapshot
            payloads = [found for found in payloads if found[0] > held.index]
            payloads.insert(0, (held.configuration_index, held.configuration))
        try:
            configurations = [(index, decode_configuration(payload)) for index, payload in payloads]
        except ValueError as error:
            raise Corrupted(f"a configuration entry in the log is {error}") from error
        self.state: State = State(
            peer=peer_id,
            settings=settings,
            random=random,
            now=now,
            term=stored.hard_state.term,
            voted_for=stored.hard_state.voted_for,
            log=log,
            commit_index=compaction.snapshot.index if compaction else Index(0),
            configurations=configurations,
            snapshot=compaction.snapshot if compaction else None,
            bare=compaction.snapshot.index if compaction and compaction.snapshot.is_bare else stored.bare,
            durable=stored.hard_state,
            persisted_index=stored.last,
            life=int(random() * LIVES),
        )
        self._number = 0
        self._reads = 0
        self._handed = stored.hard_state
        self._disk_patience = DISK_PATIENCE * settings.election_timeout_max
        draw_election_deadline(self.state)
        use_configuration(self.state)
        if configurations:
            # We may have promised a leader our patience just before a crash: its lease may still run.
            self.state.role = Follower(heard=now, promised=now)
        started = f"started with {stored.last} entries in term {stored.hard_state.term} -> follower"
        note(self.state, EventKind.STARTED, started)

    # Inputs.

    def receive(self, sender: PeerId, message: Message, now: float) -> None:
        """Take a message of another peer of the group. After calling this, take ``ready()``.

        Args:
            sender: the id of the peer that sent it.
            message: what it says; never trusted.
            now: seconds on the monotonic clock.
        """
        state = self.state
        state.now = now
        if admission.is_refused(state, sender, message):
            return
        # All Servers 2. If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to
        # follower (§5.1)
        if not isinstance(message, RequestPreVote) and message.term > state.term:
            become_follower(state, message.term, None, f"remote term is higher ({message.term} > {state.term})")
        self._dispatch(sender, message)
        self._conclude()

    def tick(self, now: float) -> None:
        """Apply the rules that depend on time; to be called when ``deadline()`` has passed, harmless before.

        Args:
            now: seconds on the monotonic clock.
        """
        state = self.state
        state.now = now
        match state.role:
            case Leader(heartbeat_deadline=deadline) as leader:
                # "a leader ... steps down if an election timeout elapses without a successful round of heartbeats to a
                # majority of its cluster" (thesis 6.2)
                if now >= quorum_heard(state) + state.settings.election_timeout_max:
                    become_follower(state, state.term, None, "no quorum answered for an election timeout")
                elif self._is_disk_hung() and transfer.targets(state, leader):
                    # Deviation: a leader whose disk hangs gives way to one whose disk works, though its heartbeats go
                    # on. Where nobody else could lead it would only be elected anew, again and again.
                    become_follower(state, state.term, None, "our disk has confirmed nothing for long")
                elif now >= deadline:
                    replication.send_heartbeats(state)
                if isinstance(state.role, Leader):
                    transfer.abort_late_transfer(state, state.role)
                    transfer.prefer(state, state.role)
            case Follower() | PreCandidate() | Candidate():
                # Followers 2. If election timeout elapses without receiving AppendEntries RPC from current leader or
                # granting vote to candidate: convert to candidate
                # Candidates 4. If election timeout elapses: start new election
                # Deviation: both by way of the pre-vote (thesis 9.6); one that cannot win does not raise its term.
                if now >= state.election_deadline and state.may_campaign:
                    election.start_pre_vote(state)
                elif now >= state.election_deadline:
                    election.forget_leader(state)
        self._conclude()

    def propose(self, commands: Sequence[bytes], now: float) -> range:
        """Append commands to the log, each under an index of its own. After calling this, take ``ready()``.

        Args:
            commands: encoded commands.
            now: seconds on the monotonic clock.

        Returns:
            The indexes of the commands taken, from the front. Those beyond did not fit in
            ``Settings.uncommitted_bytes_max``: they never entered the log.

        Raises:
            NotLeader: this peer does not lead, is handing over just now, or is about to leave; nothing was appended.
        """
        self.state.now = now
        self._demand_leader()
        if not self.takes_proposals():
            raise NotLeader(None, name(self.state, self.state.peer))
        return replication.append_commands(self.state, commands)

    def read(self, now: float, *, by_lease: bool = False) -> ReadId:
        """Ask for the read index of a batch of reads that have arrived. After calling this, take ``ready()``.

        A leader asks a quorum whether it still leads; any other peer asks the leader, and answers from its own machine.

        Args:
            now: seconds on the monotonic clock.
            by_lease: whether the clocks of the group may be relied on (``Settings.clock_drift_max``): a leader that
                heard a quorum just now then answers at once. The reads are right as of ``now``: it must have been
                taken after they arrived.

        Returns:
            What ``Ready.reads`` or ``Ready.dropped`` will name.

        Raises:
            NotLeader: this peer does not lead and knows of no leader, or is a witness, which has no machine.
        """
        state = self.state
        state.now = now
        is_witness = state.configuration is not None and state.configuration.is_witness(state.peer)
        if state.leader is None or is_witness or state.bare:
            raise NotLeader(self.leader_address(), name(state, state.peer))
        self._reads += 1
        read = ReadId(self._reads)
        if not isinstance(state.role, Leader):
            reads.ask_leader(state, read, state.leader)
        elif by_lease and reads.use_lease(state, state.role):
            state.outbox.reads.append(ReadReady(read, state.commit_index))
        else:
            reads.add_read(state.role, read)
        return read

    def forget(self, read: ReadId) -> None:
        """Ask the leader no more for a batch of reads that nobody waits for any longer; ``Ready`` may still name it.

        Args:
            read: what ``read`` returned.
        """
        self.state.asked.pop(read, None)

    def transfer(self, to: PeerId | None, now: float) -> None:
        """Hand over leadership, and take no proposals meanwhile. After calling this, take ``ready()``.

        Args:
            to: the peer that is to lead; None for the one that has most of the log.
            now: seconds on the monotonic clock.

        Raises:
            NotLeader: this peer does not lead.
            InvalidConfiguration: the target is no other voter of the group, or there is none.
            ChangeInProgress: leadership is being handed over already.
        """
        state = self.state
        state.now = now
        leader = self._demand_leader()
        if to == state.peer:
            return
        target = transfer.best_target(state, leader) if to is None else to
        if target is None:
            raise InvalidConfiguration("there is no other voter that could lead")
        if target not in transfer.targets(state, leader):
            members = configuration_text(state.configuration)
            raise InvalidConfiguration(f"{name(state, target)} is no voter that could lead the group of {members}")
        if leader.transfer is not None and leader.transfer.to != target:
            raise ChangeInProgress(f"leadership is being handed over to {name(state, leader.transfer.to)} already")
        if leader.transfer is None:
            transfer.start_transfer(state, leader, target)

    def form(self, configuration: Configuration, now: float) -> None:
        """Write the first configuration of the group into an empty log, as every one of its members does.

        It is the same entry on each: index 1, term 1. Once it is durable on a majority, that majority can elect.

        Args:
            configuration: the members, this peer among them.
            now: seconds on the monotonic clock.

        Raises:
            InvalidConfiguration: this peer is not among the members, or belongs to a group with another configuration.
        """
        state = self.state
        state.now = now
        if configuration == state.configuration:
            return
        membership.write_first(state, configuration)
        election.await_first_election(state)

    def change(self, members: Sequence[Member], now: float) -> None:
        """Change the members of the group to those given (thesis 4). After calling this, take ``ready()``.

        The configuration in force then says how far the change has come; it is done once one is committed that has
        these members and is settled. Newcomers that are to vote catch up first.

        Args:
            members: all members wanted, in any order.
            now: seconds on the monotonic clock.

        Raises:
            NotLeader: this peer does not lead.
            InvalidConfiguration: they cannot be the members of this group; the message says why.
            ChangeInProgress: another change is under way, or leadership is being handed over, or the leader is too new.
        """
        self.state.now = now
        membership.start_change(self.state, self._demand_leader(), members)
        self._conclude()

    def snapshot_at(self, index: Index, time: float) -> Snapshot:
        """Say what a snapshot stands for of the machine that has just applied ``index``, at that wall time.

        Args:
            index: committed, and not below the index of the latest snapshot.
            time: seconds since 1970.
        """
        return snapshot.snapshot_at(self.state, index, time)

    def compacted(self, taken: Snapshot) -> None:
        """Learn that the file of a snapshot that ``snapshot_at`` named is durable. Then take ``ready()``.

        Args:
            taken: the snapshot.
        """
        snapshot.compact(self.state, taken)

    def shipped(self, peer: PeerId, index: Index, *, is_complete: bool) -> None:
        """Learn how sending a snapshot ended: see ``InstallSnapshot``. Then take ``ready()``.

        Args:
            peer: ``Envelope.to``.
            index: the index of the snapshot.
            is_complete: whether the peer has all of it; if not, a snapshot will be sent anew.
        """
        progress = self.state.role.progress.get(peer) if isinstance(self.state.role, Leader) else None
        if progress is not None and progress.installing == index:
            next_index = index + 1 if is_complete else progress.next_index
            progress.probe(Index(max(next_index, progress.match_index + 1)))

    def persisted(self, number: int) -> None:
        """Learn that the disk part of that ``Ready``, and of all before it, is durable. Then take ``ready()``.

        Args:
            number: ``Ready.number``.
        """
        state = self.state
        while state.unpersisted and state.unpersisted[0].number <= number:
            done = state.unpersisted.pop(0)
            state.persisted_index = max(state.persisted_index, done.last)
            state.durable = done.hard_state
        settle(state)
        self._conclude()

    def sent(self, peer: PeerId, last: Index) -> None:
        """Learn that of the entries last offered to ``peer`` only those up to ``last`` were attached.

        Args:
            peer: ``Envelope.to``.
            last: the last index attached; ``Envelope.first - 1`` if none was.
        """
        if isinstance(self.state.role, Leader) and peer in self.state.role.progress:
            self.state.role.progress[peer].send_less(last)

    def unreachable(self, peer: PeerId, now: float) -> None:
        """Learn that nothing listens where a peer is reached. After calling this, take ``ready()``.

        A hint, never a proof: it may be wrong, come late, or not at all.

        Args:
            peer: whose node it is.
            now: seconds on the monotonic clock.
        """
        self.state.now = now
        election.lose_leader(self.state, peer)

    # Outputs.

    def deadline(self) -> float:
        """Give the instant at which ``tick`` is to be called, seconds on the monotonic clock; infinity for never."""
        role = self.state.role
        if isinstance(role, Leader):
            heartbeat = role.heartbeat_deadline if role.progress else float("inf")  # There may be nobody to speak to.
            return heartbeat if role.transfer is None else min(heartbeat, role.transfer.deadline)
        has_deadline = self.state.leader is not None or self.state.may_campaign
        return self.state.election_deadline if has_deadline else float("inf")

    def ready(self, *, more_follows: bool = False) -> Ready:
        """Hand over all that is to be done since the last time. After calling this, obey its fields in their order.

        Args:
            more_follows: another is taken as soon as ``commit_index`` is applied: idle peers are told of it then.
        """
        state = self.state
        if isinstance(state.role, Leader):
            if reads.begin_round(state):
                replication.send_heartbeats(state)
                reads.release_reads(state)
            replication.send_entries(state, tells_idle=not more_follows)
            transfer.send_timeout_now(state)
        self._number += 1
        outbox, state.outbox = state.outbox, Outbox()
        before, self._handed = self._handed, state.hard_state
        hard_state = self._handed if self._handed != before else None
        if hard_state is not None or outbox.compaction is not None or outbox.entries:
            state.unpersisted.append(Unpersisted(self._number, state.log.last, self._handed, state.now))
        return Ready(
            number=self._number,
            messages=tuple(outbox.messages),
            hard_state=hard_state,
            compaction=outbox.compaction,
            entries=tuple(outbox.entries),
            messages_after_persist=tuple(outbox.messages_after_persist),
            commit_index=state.commit_index,
            reads=tuple(outbox.reads),
            dropped=tuple(outbox.dropped),
            events=tuple(outbox.events),
        )

    def is_leading_undisturbed(self) -> bool:
        """Tell whether this peer leads, and hands over to nobody."""
        return isinstance(self.state.role, Leader) and self.state.role.transfer is None

    def takes_proposals(self) -> bool:
        """Tell whether ``propose`` takes commands now: this peer leads undisturbed, and is not about to leave."""
        # Once the configuration without us is committed we lead no longer, and would not learn what became of more.
        return self.is_leading_undisturbed() and not membership.is_removed(self.state)

    def status(self) -> Status:
        """Tell what the peer knows, for people; the shell adds ``last_applied``."""
        return report.status(self.state)

    def leader_address(self) -> Address | None:
        """Give the address of the leader, as far as this peer knows it."""
        return report.leader_address(self.state)

    # What follows what.

    def _dispatch(self, sender: PeerId, message: Message) -> None:
        """Give a message to the chapter that it belongs to."""
        state = self.state
        # Followers 1. Respond to RPCs from candidates and leaders
        match message:
            case AppendEntries():
                replication.receive_append_entries(state, sender, message)
            case InstallSnapshot():
                snapshot.receive_install_snapshot(state, sender, message)
            case RequestVote():
                election.receive_request_vote(state, sender, message)
            case RequestPreVote():
                election.receive_request_pre_vote(state, sender, message)
            case TimeoutNow() if transfer.is_asked_to_campaign(state, sender):
                election.start_election(state, is_transfer=True)
            case ReadIndex():
                reads.receive_read_index(state, sender, message)
            case _:
                self._dispatch_reply(sender, message)

    def _dispatch_reply(self, sender: PeerId, message: Message) -> None:
        """Give a reply to the chapter that asked; what no longer concerns us changes nothing."""
        state = self.state
        match message:
            case AppendEntriesReply() if isinstance(state.role, Leader):
                replication.receive_append_entries_reply(state, sender, message)
            case RequestVoteReply():
                election.receive_request_vote_reply(state, sender, message)
            case RequestPreVoteReply():
                election.receive_request_pre_vote_reply(state, sender, message)
            case ReadIndexReply():
                reads.receive_read_index_reply(state, message)
            case _:
                pass

    def _conclude(self) -> None:
        """Draw the consequences of an input, in the paper's order: elections first, then what is committed."""
        state = self.state
        if isinstance(state.role, PreCandidate) and election.has_won(state, state.role.votes):
            election.start_election(state)
        # Candidates 2. If votes received from majority of servers: become leader
        if isinstance(state.role, Candidate) and election.has_won(state, state.role.votes):
            election.become_leader(state)
            replication.append_no_op(state)
        if isinstance(state.role, Leader):
            reads.take_over_reads(state, state.role)
            replication.advance_commit_index(state)
            reads.release_reads(state)
            if membership.advance_change(state, state.role):
                transfer.leave(state, state.role)
                become_follower(state, state.term, None, "removed from the group")
        else:
            reads.ask_again(state)

    def _is_disk_hung(self) -> bool:
        """Tell whether the disk has confirmed nothing for long, counted from what waits for it first."""
        state = self.state
        return bool(state.unpersisted) and state.now >= state.unpersisted[0].since + self._disk_patience

    def _demand_leader(self) -> Leader:
        """Give the leader's part of the state.

        Raises:
            NotLeader: this peer does not lead; it says who does.
        """
        state = self.state
        if not isinstance(state.role, Leader):
            raise NotLeader(self.leader_address(), name(state, state.peer))
        return state.role
