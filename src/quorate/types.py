"""The words of quorate as values: terms, indexes, addresses, entries, status.

Everything here is immutable and knows nothing of disks, sockets or clocks. The same values are the wire form
(MessagePack arrays, by msgspec) and the form on disk. Raft, Figure 2.
"""

from __future__ import annotations

import enum
import functools
from typing import Generic, Literal, NewType, TypeVar

import msgspec

from quorate.notebook import table

Term = NewType("Term", int)
"""A term number, from 1 on; 0 before the first election (Raft §5.1)."""

Index = NewType("Index", int)
"""A log index, from 1 on; 0 is "before the first entry" (Raft, Figure 2)."""

PeerId = NewType("PeerId", str)
"""The random id a peer makes at its first start. A wiped disk makes a new one: the name alone never votes."""

ReadId = NewType("ReadId", int)
"""Names one batch of linearizable reads between the shell and the core; never reused by one ``Raft``."""

R_co = TypeVar("R_co", covariant=True)

NAME_LENGTH_MAX = 128
"""Longest peer name, in characters."""


NODE_LENGTH_MAX = 300
"""The longest ``host:port`` that is believed: a host name has 253 characters at most."""

MEMBERS_MAX = 100
"""The most members that are believed of a group, where a peer or a client is told of it by the network."""


class Address(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Where a peer is reached: ``name@host:port``. The name is the identity; host and port are of today.

    Attributes:
        name: the peer's name, 1 to 128 characters of letters, digits, ``.``, ``_`` and ``-``.
        host: a host name, an IPv4 address, or an IPv6 address without brackets.
        port: 0 to 65535; 0 only where a free port is asked for.
    """

    name: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str | Address) -> Address:
        """Read ``name@host:port`` (``name@[::1]:port`` for IPv6); an ``Address`` is returned as it is.

        Raises:
            ValueError: the text is not of that form; the message shows one that is.
            TypeError: it is no text.
        """
        if isinstance(text, Address):
            return text
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no address; each is a text of its own, such as 'peer1@127.0.0.1:7001'")
        name, at, node = text.partition("@")
        if not at or not is_name(name):
            raise ValueError(
                f"{text!r} is not a peer's address; write it as name@host:port, such as peer1@127.0.0.1:7001"
            )
        host, port = parse_node(node)
        return cls(name, host, port)

    @property
    def node(self) -> str:
        """The address of the node, ``host:port``, without the peer's name."""
        return format_node(self.host, self.port)

    def __str__(self) -> str:
        """Give the form that ``parse`` reads."""
        return f"{self.name}@{self.node}"

    def __repr__(self) -> str:
        """Give the form that a person would type."""
        return f"Address({str(self)!r})"


def is_name(text: object) -> bool:
    """Tell whether the text may name a peer: 1 to 128 of letters, digits, ``.``, ``_``, ``-``, no leading dot."""
    if not isinstance(text, str):
        return False  # Such as what a variable that is not set gives.
    letters = text.replace("-", "").replace("_", "").replace(".", "")
    return text.isascii() and letters.isalnum() and not text.startswith(".") and len(text) <= NAME_LENGTH_MAX


def parse_node(text: str) -> tuple[str, int]:
    """Read ``host:port`` (``[::1]:port`` for IPv6).

    Returns:
        The host without brackets, and the port (0 to 65535).

    Raises:
        ValueError: the text is not of that form; the message shows one that is.
        TypeError: it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no node's address, which is a text such as '127.0.0.1:7001'")
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    good = bool(colon and host and port.isascii() and port.isdigit() and (bracketed or ":" not in host))
    if not good or not host.isprintable() or any(character in host for character in " @/[]") or int(port) > 65535:
        raise ValueError(
            f"{text!r} is not a node's address; write it as host:port, such as 127.0.0.1:7001 or [::1]:7001"
        )
    return host, int(port)


@functools.lru_cache(maxsize=1024)  # Every call of a client asks for the same few.
def format_node(host: str, port: int) -> str:
    """Write ``host:port``, an IPv6 host in brackets: the opposite of ``parse_node``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_node(text: str) -> bool:
    """Tell whether the text, which may come from anybody, is a ``host:port`` that can be dialled."""
    try:
        return len(text) <= NODE_LENGTH_MAX and parse_node(text)[1] > 0
    except ValueError:
        return False


def is_reachable(address: Address) -> bool:
    """Tell whether an address from the network is one that could be typed."""
    try:
        return is_node(address.node) and Address.parse(str(address)) == address
    except ValueError:
        return False


class Kind(enum.IntEnum):
    """What the entries of a run are."""

    NOOP = 0
    """The empty entry with which a leader begins its term (Raft §8)."""
    COMMAND = 1
    """Commands of the user's machine."""
    CONFIGURATION = 2
    """A configuration of the group (thesis 4.1): the payload is an encoded ``Configuration``."""
    BARE = 3
    """What a witness holds of commands: that they are there. The payloads are empty."""


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive entries of one term and kind: what is stored as one record and sent as one piece.

    Each payload has an index of its own: ``first``, ``first + 1``, …

    Attributes:
        term: the term in which a leader created these entries.
        first: the index of the first one. Invariant: ``first >= 1``.
        kind: what they are; all of one kind.
        time: the leader's wall clock when it appended them, seconds since 1970. Stamped by the leader's shell;
            0.0 until then. Invariant: never less than that of the run before it in the same log.
        payloads: one ``bytes`` for each entry. Invariant: never empty (a no-op has one empty payload).
    """

    term: Term
    first: Index
    kind: Kind
    time: float
    payloads: tuple[bytes, ...]

    @property
    def last(self) -> Index:
        """The index of the last entry of the run."""
        return Index(self.first + len(self.payloads) - 1)

    @property
    def size(self) -> int:
        """The payloads' bytes, and 16 for each entry: what the limits in ``Settings`` count."""
        return sum(map(len, self.payloads)) + 16 * len(self.payloads)

    def part(self, first: Index, last: Index) -> Run:
        """Give the entries from ``first`` to ``last`` inclusive, both clipped to the run; they must meet it."""
        if first <= self.first and last >= self.last:
            return self
        low, high = max(first, self.first), min(last, self.last)
        payloads = self.payloads[low - self.first : high - self.first + 1]
        return Run(self.term, Index(low), self.kind, self.time, payloads)

    def without_commands(self) -> Run:
        """Give the run as a witness keeps it: the same entries, commands without their bytes."""
        if self.kind is not Kind.COMMAND:
            return self
        return Run(self.term, self.first, Kind.BARE, self.time, (b"",) * len(self.payloads))


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """Figure 2, "Persistent state on all servers", without the log: durable before any message that relies on it.

    Attributes:
        term: latest term the peer has seen, 0 at first boot. Invariant: never falls.
        voted_for: the candidate that received this peer's vote in ``term``, or None. Invariant: within one term it
            changes from None to an id, and never again.
    """

    term: Term = Term(0)
    voted_for: PeerId | None = None


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot stands for: the state of a group's machine up to an index (Raft §7). The bytes are in a file.

    Attributes:
        index: the last entry whose effect is in it (Figure 13, lastIncludedIndex). Invariant: committed.
        term: the term of that entry (Figure 13, lastIncludedTerm).
        time: the wall time of that entry, seconds since 1970.
        configuration_index: the index of the latest configuration entry at or below ``index``.
        configuration: the payload of that entry.
        is_bare: whether it is a witness's, and its file holds no state.
    """

    index: Index
    term: Term
    time: float
    configuration_index: Index
    configuration: bytes
    is_bare: bool = False


class Compaction(msgspec.Struct, frozen=True, array_like=True):
    """What the beginning of a log was replaced by.

    Entries between ``start`` and ``snapshot.index`` may still be there, for peers that are a little slow.

    Attributes:
        snapshot: what holds the state that the dropped entries led to. Its file is durable before this is written.
        start: the log begins right behind this index: entries up to here are dropped. Invariant: at most
            ``snapshot.index``.
        term: the term of the entry at ``start``.
        replaces_log: whether all that the log held is dropped, beyond ``start`` too: the snapshot came from a leader.
    """

    snapshot: Snapshot
    start: Index
    term: Term
    replaces_log: bool = False


class Stored(msgspec.Struct, frozen=True):
    """What a store holds of one peer's log when it opens: all that the core needs, and no payload.

    Attributes:
        hard_state: term and vote.
        terms: ``(first index, term)`` for each stretch of entries of one term, ascending. Empty for an empty log.
        last: the index of the last entry; ``compaction.start`` for a log without entries, 0 without both.
        configurations: ``(index, payload)`` of each configuration entry, ascending.
        time: the wall time of the last run; that of the snapshot for a log without entries, 0.0 without both.
        compaction: what the log's beginning was replaced by; None for a log that begins at index 1.
        bare: the first index of ``Kind.BARE``; 0 when there is none.
    """

    hard_state: HardState = HardState()
    terms: tuple[tuple[Index, Term], ...] = ()
    last: Index = Index(0)
    configurations: tuple[tuple[Index, bytes], ...] = ()
    time: float = 0.0
    compaction: Compaction | None = None
    bare: Index = Index(0)


Consistency = Literal["linearizable", "lease", "stale"]
"""As new as every write acknowledged before the call, by asking a quorum / the same, by trusting the clocks (thesis
6.4.1) / what the peer asked holds just now."""


class StaleRead(msgspec.Struct, Generic[R_co], frozen=True):
    """What a peer's machine answered as it was, and how far behind it may have been.

    Attributes:
        value: what the machine's handler returned.
        index: the last entry that the machine had applied.
        age: seconds since the peer knew, on its own clock, that its machine held all that was committed: since it last
            heard from its leader (or, leading, from a quorum) and had applied what was committed by then. Infinity when
            it never knew. Writes acknowledged since then may be missing.
    """

    value: R_co
    index: Index
    age: float


MemberKind = Literal["voter", "learner", "witness"]
"""Counted in quorums / receives entries, no vote / votes, keeps terms and configurations, no machine."""


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer knows of one member of its group.

    Attributes:
        address: its name, and where the configuration says that it is reached.
        id: its random id.
        kind: what it is now. A peer that catches up to become a voter is a learner.
        becomes: what it is to be when the change under way is done; None when it is to leave.
        match_index: the highest entry known to be durable there; None but on the leader.
        heard: seconds since it last answered; None but on the leader.
        is_installing: whether a snapshot is under way to it, as far as the leader knows.
    """

    address: Address
    id: PeerId
    kind: MemberKind
    becomes: MemberKind | None
    match_index: Index | None = None
    heard: float | None = None
    is_installing: bool = False


Role = Literal["follower", "pre-candidate", "candidate", "leader"]
"""The roles of a peer (Raft §5.1; the pre-candidate is of thesis 9.6)."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer knows of itself and its group at one instant: for people, tests and metrics.

    Attributes:
        name: the peer's name.
        id: its random id.
        group: the id of its group; empty while it has no configuration.
        role: what it is now.
        term: its current term.
        leader: the leader it follows or is; None when it knows of none.
        configuration: the addresses of the group's voters; empty while it has no configuration.
        commit_index: the highest index known to be committed.
        last_applied: the highest index applied to the machine. Invariant: ``last_applied <= commit_index``.
        last_index: the last index of its log. Invariant: ``commit_index <= last_index``.
        why: a sentence: that it has stopped, or was removed; why there is no leader, and what to do; why its snapshots
            fail. None when all is well.
        members: every member with what is known of it, in the order of their names.
        first_index: the first index that its log still holds.
        snapshot_index: the last index in its latest snapshot; 0 while it has none.
    """

    name: str
    id: PeerId
    group: str
    role: Role
    term: Term
    leader: Address | None
    configuration: tuple[Address, ...]
    commit_index: Index
    last_applied: Index
    last_index: Index
    why: str | None
    members: tuple[MemberStatus, ...] = ()
    first_index: Index = Index(1)
    snapshot_index: Index = Index(0)

    def __str__(self) -> str:
        """Give the sentence that matters most: ``peer2 follows peer1 in term 3, with 41 of 41 entries applied``."""
        name = self.name or "a peer"
        does = f"follows {self.leader.name}" if self.leader else f"is a {self.role}"
        who = f"{name} {'leads' if self.role == 'leader' else does} in term {self.term}"
        what = f"{who}, with {self.last_applied} of {self.last_index} entries applied"
        return f"{what}; {self.why}" if self.why else what

    def __repr__(self) -> str:
        """Give that sentence: a table of all fields would not fit a line."""
        return f"<Status: {self}>"

    def _repr_html_(self) -> str:
        """Give a table of the members, for notebooks."""
        rows = [
            (
                member.address.name,
                member.kind if member.becomes in (member.kind, None) else f"{member.kind}, becomes {member.becomes}",
                member.address.node,
                "leads" if self.leader and member.address.name == self.leader.name else None,
                member.match_index,
                None if member.heard is None else f"{member.heard:.1f} s ago",
            )
            for member in self.members
        ]
        note = (
            f"log {self.first_index} to {self.last_index}, committed {self.commit_index}, applied {self.last_applied},"
            f" snapshot {self.snapshot_index}"
        )
        return table(str(self), ("member", "kind", "address", "", "holds", "heard"), rows, note)


class Statuses(tuple[Status, ...]):
    """What several peers of a group know, as a notebook shows it: in one table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Give that table."""
        rows = [
            (each.name, each.role, each.term, each.leader and each.leader.name, each.commit_index, each.last_applied)
            for each in self
        ]
        reasons = "; ".join(f"{each.name}: {each.why}" for each in self if each.why)
        leader = next((each for each in self if each.role == "leader"), None)
        title = f"{leader.name} leads in term {leader.term}" if leader else "no leader answered"
        return table(title, ("peer", "role", "term", "follows", "committed", "applied"), rows, reasons)
