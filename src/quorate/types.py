"""The words of quorate as values: terms, indexes, addresses, entries, status.

Everything here is immutable and knows nothing of disks, sockets or clocks. The same values are the wire form
(MessagePack arrays, by msgspec) and the form on disk. Raft, Figure 2.
"""

from __future__ import annotations

import enum
from typing import Literal, NewType

import msgspec

Term = NewType("Term", int)
"""A term number, from 1 on; 0 before the first election (Raft §5.1)."""

Index = NewType("Index", int)
"""A log index, from 1 on; 0 is "before the first entry" (Raft, Figure 2)."""

PeerId = NewType("PeerId", str)
"""The random id a peer makes at its first start. A wiped disk makes a new one: the name alone never votes."""

ReadId = NewType("ReadId", int)
"""Names one batch of linearizable reads between the shell and the core; never reused by one ``Raft``."""

NAME_LENGTH_MAX = 128
"""Longest peer name, in characters."""


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
        """
        if isinstance(text, Address):
            return text
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


def is_name(text: str) -> bool:
    """Tell whether the text may name a peer: 1 to 128 of letters, digits, ``.``, ``_``, ``-``, no leading dot."""
    letters = text.replace("-", "").replace("_", "").replace(".", "")
    return text.isascii() and letters.isalnum() and not text.startswith(".") and len(text) <= NAME_LENGTH_MAX


def parse_node(text: str) -> tuple[str, int]:
    """Read ``host:port`` (``[::1]:port`` for IPv6).

    Returns:
        The host without brackets, and the port (0 to 65535).

    Raises:
        ValueError: the text is not of that form; the message shows one that is.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    good = bool(colon and host and port.isascii() and port.isdigit() and (bracketed or ":" not in host))
    if not good or any(character in host for character in " @/[]") or int(port) > 65535:
        raise ValueError(
            f"{text!r} is not a node's address; write it as host:port, such as 127.0.0.1:7001 or [::1]:7001"
        )
    return host, int(port)


def format_node(host: str, port: int) -> str:
    """Write ``host:port``, an IPv6 host in brackets: the opposite of ``parse_node``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Kind(enum.IntEnum):
    """What the entries of a run are."""

    NOOP = 0
    """The empty entry with which a leader begins its term (Raft §8)."""
    COMMAND = 1
    """Commands of the user's machine."""
    CONFIGURATION = 2
    """A configuration of the group (thesis 4.1): the payload is an encoded ``Configuration``."""


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


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """Figure 2, "Persistent state on all servers", without the log: durable before any message that relies on it.

    Attributes:
        term: latest term the peer has seen, 0 at first boot. Invariant: never falls.
        voted_for: the candidate that received this peer's vote in ``term``, or None. Invariant: within one term it
            changes from None to an id, and never again.
    """

    term: Term = Term(0)
    voted_for: PeerId | None = None


class Stored(msgspec.Struct, frozen=True):
    """What a store holds of one peer's log when it opens: all that the core needs, and no payload.

    Attributes:
        hard_state: term and vote.
        terms: ``(first index, term)`` for each stretch of entries of one term, ascending. Empty for an empty log.
        last: the index of the last entry; 0 for an empty log.
        configurations: ``(index, payload)`` of each configuration entry, ascending.
        time: the wall time of the last run; 0.0 for an empty log.
    """

    hard_state: HardState = HardState()
    terms: tuple[tuple[Index, Term], ...] = ()
    last: Index = Index(0)
    configurations: tuple[tuple[Index, bytes], ...] = ()
    time: float = 0.0


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
        why: a sentence: why there is no leader, and what to do; None when there is one.
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
