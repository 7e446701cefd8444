"""Raft: the inputs, and "Rules for Servers" (Raft, Figure 2) in the paper's order.

The only class of the core that the shell touches. It does no input or output, has no clock and no dice: time is an
argument, chance is a callable, and what is to be done is drained by ``ready()``. Nothing raises because of what another
machine sent; only local misuse raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorate.core import election, reads, replication, transfer
from quorate.core.configuration import Configuration, decode_configuration, encode_configuration
from quorate.core.log import Log
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.ready import EventKind, Ready
from quorate.core.state import (
    ROLE_NAMES,
    Candidate,
    Follower,
    Leader,
    Outbox,
    PreCandidate,
    State,
    Unpersisted,
    append,
    become_follower,
    draw_election_deadline,
    hears_leader,
    name,
    note,
    quorum_heard,
    settle,
    voters_text,
)
from quorate.errors import ChangeInProgress, Corrupted, InvalidConfiguration, NotLeader
from quorate.settings import Settings
from quorate.types import Address, Index, Kind, PeerId, ReadId, Run, Status, Stored, Term

FIRST_TERM = Term(1)
"""The term of the first configuration, which is written before there is any leader."""

DISK_PATIENCE = 5
"""A leader steps down when its disk has confirmed nothing for this many of the longest election timeouts: far more than
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
        log = Log([first for first, _ in stored.terms], [term for _, term in stored.terms], stored.last)
        try:
            configurations = [(index, decode_configuration(payload)) for index, payload in stored.configurations]
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
            configurations=configurations,
            durable=stored.hard_state,
            persisted_index=stored.last,
        )
        self._number = 0
        self._reads = 0
        self._handed = stored.hard_state
        self._disk_patience = DISK_PATIENCE * settings.election_timeout_max
        draw_election_deadline(self.state)
        self.state.outbox.configuration = self.state.configuration
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
        if self._is_refused(sender, message):
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
            case Leader(heartbeat_deadline=deadline):
                # "a leader ... steps down if an election timeout elapses without a successful round of heartbeats to a
                # majority of its cluster" (thesis 6.2)
                if now >= quorum_heard(state) + state.settings.election_timeout_max:
                    become_follower(state, state.term, None, "no quorum answered for an election timeout")
                elif state.unpersisted and now >= state.unpersisted[0].since + self._disk_patience:
                    # Deviation: a leader whose disk hangs gives way to one whose disk works, though its heartbeats go
                    # on.
                    become_follower(state, state.term, None, "our disk has confirmed nothing for long")
                elif now >= deadline:
                    replication.send_heartbeats(state)
                if isinstance(state.role, Leader):
                    transfer.abort_late_transfer(state, state.role)
            case Follower() | PreCandidate() | Candidate():
                # Followers 2. If election timeout elapses without receiving AppendEntries RPC from current leader or
                # granting vote to candidate: convert to candidate
                # Candidates 4. If election timeout elapses: start new election
                # Deviation: both by way of the pre-vote (thesis 9.6); one that cannot win does not raise its term.
                if now >= state.election_deadline and state.peer in state.voters:
                    election.start_pre_vote(state)
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
            NotLeader: this peer does not lead, or is handing over just now; nothing was appended.
        """
        self.state.now = now
        if self._demand_leader().transfer is not None:
            raise NotLeader(None, name(self.state, self.state.peer))
        return replication.append_commands(self.state, commands)

    def read(self, now: float) -> ReadId:
        """Ask for the read index of a batch of reads that have arrived. After calling this, take ``ready()``.

        Args:
            now: seconds on the monotonic clock.

        Returns:
            What ``Ready.reads`` or ``Ready.dropped`` will name.

        Raises:
            NotLeader: this peer does not lead.
        """
        self.state.now = now
        leader = self._demand_leader()
        self._reads += 1
        read = ReadId(self._reads)
        reads.add_read(leader, read)
        return read

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
        target = transfer.best_target(leader) if to is None else to
        if target is None:
            raise InvalidConfiguration("there is no other voter that could lead")
        if target not in leader.progress:
            raise InvalidConfiguration(f"{target} is no voter of the group of {voters_text(state.configuration)}")
        if leader.transfer is not None and leader.transfer.to != target:
            raise ChangeInProgress(f"leadership is being handed over to {name(state, leader.transfer.to)} already")
        if leader.transfer is None:
            transfer.start_transfer(state, leader, target)

    def change(self, configuration: Configuration, now: float) -> None:
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
        if state.configuration is not None or state.log.last > 0:
            members = voters_text(state.configuration)
            raise InvalidConfiguration(
                f"this peer already belongs to the group of {members}; changing members is not supported yet"
            )
        names = [member.address.name for member in configuration.voters]
        if names != sorted(set(names)) or len(set(configuration.ids)) != len(names):
            raise InvalidConfiguration(
                "the members must have distinct ids and names, and stand in the order of their names"
            )
        if state.peer not in configuration.ids:
            raise InvalidConfiguration(f"this peer is not among the members {voters_text(configuration)}")
        state.term = max(state.term, FIRST_TERM)
        payload = encode_configuration(configuration)
        append(state, Run(FIRST_TERM, Index(1), Kind.CONFIGURATION, 0.0, (payload,)), configuration)
        draw_election_deadline(state)

    def persisted(self, number: int) -> None:
        """Learn that the disk part of that ``Ready``, and of all before it, is durable. Then take ``ready()``.

        Args:
            number: ``Ready.number``.
        """
        state = self.state
        while state.unpersisted and state.unpersisted[0].number <= number:
            done = state.unpersisted.popleft()
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

    # Outputs.

    def deadline(self) -> float:
        """Give the instant at which ``tick`` is to be called, seconds on the monotonic clock; infinity for never."""
        if isinstance(self.state.role, Leader):
            handover = self.state.role.transfer
            heartbeat = self.state.role.heartbeat_deadline
            return heartbeat if handover is None else min(heartbeat, handover.deadline)
        return self.state.election_deadline if self.state.peer in self.state.voters else float("inf")

    def ready(self) -> Ready:
        """Hand over all that is to be done since the last time. After calling this, obey its fields in their order."""
        state = self.state
        if isinstance(state.role, Leader):
            if reads.begin_round(state):
                for peer in state.role.progress:
                    replication.send_heartbeat(state, state.role, peer)
                reads.release_reads(state)
            replication.send_entries(state)
            transfer.send_timeout_now(state)
        self._number += 1
        outbox, state.outbox = state.outbox, Outbox()
        hard_state = state.hard_state if state.hard_state != self._handed else None
        self._handed = state.hard_state
        if hard_state is not None or outbox.entries:
            state.unpersisted.append(Unpersisted(self._number, state.log.last, state.hard_state, state.now))
        return Ready(
            number=self._number,
            configuration=outbox.configuration,
            messages=tuple(outbox.messages),
            hard_state=hard_state,
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

    def status(self) -> Status:
        """Tell what the peer knows, for people; the shell adds ``last_applied``."""
        state = self.state
        configuration = state.configuration
        me = configuration.member(state.peer) if configuration else None
        return Status(
            name=me.address.name if me else "",
            id=state.peer,
            group=configuration.group if configuration else "",
            role=ROLE_NAMES[type(state.role)],
            term=state.term,
            leader=self.leader_address(),
            configuration=tuple(member.address for member in configuration.voters) if configuration else (),
            commit_index=state.commit_index,
            last_applied=Index(0),
            last_index=state.log.last,
            why=self._why_no_leader(),
        )

    def leader_address(self) -> Address | None:
        """Give the address of the leader, as far as this peer knows it."""
        member = self.state.configuration.member(self.state.leader) if self.state.configuration else None
        return member.address if member else None

    # What follows what.

    def _dispatch(self, sender: PeerId, message: Message) -> None:
        """Give a message to the chapter that it belongs to."""
        state = self.state
        # Followers 1. Respond to RPCs from candidates and leaders
        match message:
            case AppendEntries():
                replication.receive_append_entries(state, sender, message)
            case RequestVote():
                election.receive_request_vote(state, sender, message)
            case RequestPreVote():
                election.receive_request_pre_vote(state, sender, message)
            case AppendEntriesReply() if isinstance(state.role, Leader):
                replication.receive_append_entries_reply(state, sender, message)
            case RequestVoteReply():
                election.receive_request_vote_reply(state, sender, message)
            case RequestPreVoteReply():
                election.receive_request_pre_vote_reply(state, sender, message)
            case TimeoutNow():
                if transfer.is_asked_to_campaign(state, sender):
                    election.start_election(state, is_transfer=True)
            case AppendEntriesReply():
                pass  # We led this term no longer when it came.

    def _is_refused(self, sender: PeerId, message: Message) -> bool:
        """Tell whether a message may change nothing, not even the term."""
        state = self.state
        match message:
            case (
                AppendEntries(leader_id=author) | RequestVote(candidate_id=author) | RequestPreVote(candidate_id=author)
            ):
                if author != sender or sender == state.peer:
                    note(state, EventKind.IGNORED, f"{name(state, sender)} speaks for {name(state, author)} -> ignore")
                    return True
                if isinstance(message, AppendEntries):
                    if not replication.is_sound(message):
                        note(state, EventKind.IGNORED, f"{name(state, sender)} sends what no leader can -> ignore")
                        return True
                    return isinstance(state.role, Leader) and message.term == state.term
                # A peer without a configuration never votes: under its name it may have voted before its disk was lost.
                if state.configuration is None:
                    return True
                # "if a server receives a RequestVote request within the minimum election timeout of hearing from a
                # current leader, it does not update its term or grant its vote" (thesis 4.2.3)
                return isinstance(message, RequestVote) and not message.is_transfer and hears_leader(state)
            case TimeoutNow(leader_id=leader):
                return leader != sender or message.term < state.term
            case AppendEntriesReply(term=term) | RequestVoteReply(term=term):
                # Votes and acknowledgements count only from members, and only in the term they were given in.
                return sender not in state.others or term < state.term
            case RequestPreVoteReply():
                return sender not in state.others

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
            replication.advance_commit_index(state)
            reads.release_reads(state)

    def _demand_leader(self) -> Leader:
        """Give the leader's part of the state.

        Raises:
            NotLeader: this peer does not lead; it says who does.
        """
        state = self.state
        if not isinstance(state.role, Leader):
            raise NotLeader(self.leader_address(), name(state, state.peer))
        return state.role

    def _why_no_leader(self) -> str | None:
        """Say in a sentence why there is no leader and what to do; None when there is one."""
        state = self.state
        if state.leader is not None:
            return None
        if state.configuration is None:
            return "it has no configuration yet: call set_configuration on one peer of the group"
        if state.peer not in state.voters:
            return f"it is not a member of the group of {voters_text(state.configuration)}"
        return election.pending_text(state)
