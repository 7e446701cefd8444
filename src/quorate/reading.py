"""Reads: those that wait until their index is confirmed, those that wait for nothing, and how old the answers may be.

Asks the core once a turn for all reads that want the same, and hands them to the machine when it may answer (thesis
6.4). Knows no sockets and no disk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter

from quorate.addresses import Addresses
from quorate.apply import Apply, Query, is_awaited
from quorate.core import Message, Raft, Ready
from quorate.core.messages import AppendEntries
from quorate.core.reads import lease_end
from quorate.core.report import why_no_leader, why_removed
from quorate.core.state import Leader, State, quorum_heard
from quorate.errors import NotLeader, Stopped, Unavailable
from quorate.types import Consistency, Index, PeerId, ReadId
from quorate.waiters import Waiter, first_deadline

NEVER = float("-inf")

MOMENT = 0.001
"""Seconds after a turn in which reads by lease are answered at once: far less than anybody waits for a heartbeat."""


class Reads:
    """The reads of one peer.

    Attributes:
        waiting: those that wait for the next turn, of each kind.
        answers_until: until when reads by lease are answered at once, between two turns; None when that must be looked
            up.
    """

    def __init__(self, name: str, addresses: Addresses) -> None:
        """Have none; ``name`` is the peer's, and ``addresses`` are those of the others, for what callers are told."""
        self._name = name
        self._addresses = addresses
        self.waiting: defaultdict[Consistency, list[Query]] = defaultdict(list)
        self._rounds: dict[ReadId, list[Query]] = {}
        self.answers_until: float | None = None
        self._known = NEVER
        self._heard: tuple[float, Index] | None = None

    def look_up_lease(self, raft: Raft, apply: Apply, now: float) -> float:
        """Find, and give, until when reads by lease are answered at once, between two turns.

        The lease is looked up once after each turn, since nothing else changes it, and all that is committed must be
        applied. Only for a moment: then whoever reads without a pause waits for a turn like everybody else, so that
        the event loop comes to others too.
        """
        role = raft.state.role
        if isinstance(role, Leader) and apply.last_applied >= raft.state.commit_index:
            self.answers_until = min(lease_end(raft.state, role), now + MOMENT)
        else:
            self.answers_until = NEVER
        return self.answers_until

    def take_stock(self) -> None:
        """Look the lease up again: the core has had an input."""
        self.answers_until = None

    def begin(self, raft: Raft, apply: Apply, now: float) -> float:
        """Ask the core for one read index for all reads of this turn that want the same; answer stale ones.

        Returns:
            The first deadline of those that wait now; infinity when none does.
        """
        first = float("inf")
        for consistency, queries in list(self.waiting.items()):
            try:
                if consistency == "stale":
                    self._answer_stale(queries, raft, apply, now)
                elif why_removed(raft.state) is not None:
                    self._refuse(queries, raft.state)
                else:
                    self._rounds[raft.read(now, by_lease=consistency == "lease")] = queries
                    first = min(first, first_deadline(map(itemgetter(1), queries)))
            except NotLeader:
                self._refuse(queries, raft.state)
            # Only now: were the peer stopped by one of them, whoever still waits is told.
            del self.waiting[consistency]
        return first

    def take(self, ready: Ready, raft: Raft, apply: Apply) -> None:
        """Let confirmed reads wait for their index, and fail those that nobody may answer now."""
        for confirmed in ready.reads:
            queries = self._rounds.pop(confirmed.id, None)
            if queries is not None:
                apply.read(confirmed.index, queries)
        for read in ready.dropped:
            self._refuse(self._rounds.pop(read, []), raft.state)

    def expire(self, raft: Raft, now: float) -> float:
        """Give up on all whose deadline has passed.

        Returns:
            The first deadline of those that go on waiting; infinity when none does.
        """
        waiters = self._unconfirmed()
        for waiter in waiters:
            if waiter.deadline <= now:
                waiter.fail(Unavailable(unconfirmed_text(self._name, raft.state)))
        for read, queries in list(self._rounds.items()):
            if not is_awaited((waiter for _, waiter in queries), now):
                del self._rounds[read]
                raft.forget(read)
        return min((waiter.deadline for waiter in waiters if waiter.deadline > now), default=float("inf"))

    def stop(self, why: str) -> None:
        """Tell all who wait that this peer has stopped, and why."""
        for waiter in [*(waiter for batch in self.waiting.values() for _, waiter in batch), *self._unconfirmed()]:
            waiter.fail(Stopped(why))
        self.waiting.clear()
        self._rounds.clear()

    # How old the machine may be.

    def hear(self, state: State, sender: PeerId, message: Message, applied: Index) -> None:
        """Note what a message says of how much is committed.

        Args:
            state: after the core has received it.
            sender: who sent it.
            message: what it says.
            applied: the last index that the machine has applied.
        """
        if not isinstance(message, AppendEntries) or state.leader != sender or message.term != state.term:
            return
        # Before it has committed an entry of its own term a leader does not know what is committed (§8).
        if state.commit_index >= message.leader_commit and state.log.term(state.commit_index) == state.term:
            self._note(state.now, state.commit_index, applied)

    def lead(self, state: State, applied: Index, now: float) -> None:
        """Note since when a leader knows that nobody else leads, while its machine is behind: else ``age`` asks."""
        if state.commit_index > applied:
            self._note_lead(state, applied, now)

    def age(self, state: State, applied: Index, now: float) -> float:
        """Give for how long more may have been committed than is applied, seconds; infinity when it was never known."""
        self._note_lead(state, applied, now)
        self._settle(applied)
        return now - self._known

    def _note_lead(self, state: State, applied: Index, now: float) -> None:
        """Note since when a leader knows that nobody else leads."""
        if isinstance(state.role, Leader) and state.commit_index >= state.role.first_index:
            self._note(min(quorum_heard(state), now), state.commit_index, applied)

    def _note(self, when: float, commit_index: Index, applied: Index) -> None:
        """Note that at that instant no more than that was committed, unless an earlier note still waits to be true."""
        self._settle(applied)
        if self._heard is None:
            self._heard = when, commit_index

    def _settle(self, applied: Index) -> None:
        """Believe the note once the machine has applied all that it speaks of."""
        if self._heard is not None and self._heard[1] <= applied:
            self._known = max(self._known, self._heard[0])
            self._heard = None

    # Answers.

    def _answer_stale(self, queries: list[Query], raft: Raft, apply: Apply, now: float) -> None:
        """Answer from the machine as it is.

        Raises:
            NotLeader: this peer is a witness, which has none.
        """
        if apply.is_witness:
            raise NotLeader
        apply.read_stale(queries, self.age(raft.state, apply.last_applied, now))

    def _refuse(self, queries: list[Query], state: State) -> None:
        """Tell all of a batch whom to ask instead."""
        refuse((waiter for _, waiter in queries), self._name, state, self._addresses)

    def _unconfirmed(self) -> list[Waiter]:
        """Give who waits for an index to be confirmed."""
        return [waiter for queries in self._rounds.values() for _, waiter in queries]


def refuse(waiters: Iterable[Waiter], name: str, state: State, addresses: Addresses) -> None:
    """Tell who asks a peer that does not lead whom to ask instead; of one that was removed, that it learns no more."""
    removed, why = why_removed(state), why_no_leader(state) or "where it is reached was not learned"
    for waiter in waiters:
        if removed is None:
            waiter.fail(NotLeader(addresses.redirect(state), name, why))
        else:
            waiter.fail(Unavailable(f"{name} cannot answer: {removed}"))


def unconfirmed_text(name: str, state: State) -> str:
    """Say why a read was not confirmed in time."""
    if isinstance(state.role, Leader):
        return f"no quorum confirmed in time that {name} still leads; the read was not answered"
    return f"no leader told {name} in time how much is committed; the read was not answered"
