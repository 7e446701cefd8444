"""What a leader knows of one peer (Raft, Figure 2, "Volatile state on leaders"; thesis 10.2.2 for pipelining).

A peer is *probed* until it has acknowledged where its log matches: one AppendEntries at a time. Then entries are
*pipelined*: sent ahead of acknowledgements, up to a window. Knows nothing of the leader's own log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate.types import Index


@dataclass(slots=True)
class Progress:
    """What the leader knows of one other peer.

    Attributes:
        next_index: index of the next entry to send. Invariant: ``match_index < next_index``.
        heard: when a reply of this term last came, seconds on the monotonic clock.
        match_index: highest entry known to be durable there. Invariant: never falls within a term.
        probing: whether it is not yet known where the logs match.
        in_flight: the last index of each AppendEntries with entries that is not acknowledged. Invariant: ascending,
            above ``match_index``, no more than the window; while probing no more than one, and else below
            ``next_index``: so a heartbeat's consistency check finds out what was lost.
        round: the latest round of reads that the peer acknowledged.
        commit_sent: the highest commit index that was sent to it.
        installing: the index of the snapshot that is under way to it; 0 while none is. Nothing else but heartbeats is
            sent meanwhile.
        is_witness: whether it is sent entries without their commands; also while it is told that it has been removed,
            when perhaps no configuration names it that is still held.
        applied_index: the highest index that it said it had applied, or ``match_index`` with which it said that it had
            applied all it knew to be committed. Invariant: at most ``match_index``.
    """

    next_index: Index
    heard: float
    match_index: Index = Index(0)
    probing: bool = True
    in_flight: list[Index] = field(default_factory=list)
    round: int = 0
    commit_sent: Index = Index(0)
    installing: Index = Index(0)
    is_witness: bool = False
    applied_index: Index = Index(0)

    def has_room(self, in_flight_max: int) -> bool:
        """Tell whether another AppendEntries with entries may be sent now."""
        return not self.installing and len(self.in_flight) < (1 if self.probing else in_flight_max)

    def send(self, last: Index) -> None:
        """Note that entries up to ``last`` are on their way; only a pipeline goes on from there unasked."""
        self.in_flight.append(last)
        if not self.probing:
            self.next_index = Index(last + 1)

    def send_less(self, last: Index) -> None:
        """Note that of the entries noted last as sent only those up to ``last`` really were."""
        while self.in_flight and self.in_flight[-1] > last:
            self.in_flight.pop()
        if not self.probing:
            self.next_index = Index(max(min(self.next_index, last + 1), self.match_index + 1))
        # What is to be offered again already is not in flight: were it lost, nobody would learn of it.
        is_sent = self.match_index < last and (self.probing or last < self.next_index)
        if is_sent and last not in self.in_flight:
            self.in_flight.append(last)

    def acknowledge(self, match_index: Index) -> None:
        """Note that the logs match where we asked, durably up to ``match_index``: pipeline from now on."""
        self.match_index = max(self.match_index, match_index)
        self.next_index = max(self.next_index, Index(self.match_index + 1))
        while self.in_flight and self.in_flight[0] <= self.match_index:
            self.in_flight.pop(0)
        if self.probing:
            # What the probe carried may have been lost while a heartbeat got through: it goes again.
            self.in_flight.clear()
            self.probing = False

    def probe(self, next_index: Index) -> None:
        """Go back to probing from ``next_index``, which is above ``match_index``."""
        self.in_flight.clear()
        self.installing = Index(0)
        self.next_index = next_index
        self.probing = True
