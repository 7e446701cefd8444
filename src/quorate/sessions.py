"""Client sessions: a write that comes twice is applied once, and answered twice with the same reply (thesis 6.3).

What a group replicates of them: it changes only as entries are applied, and its time is that of the log, so all peers
hold the same sessions after the same index. Knows no clients, no clocks, no log and no machine.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import msgspec

from quorate.errors import MachineError, OutcomeUnknown, SessionExpired, Unavailable
from quorate.transport.calls import Failure, Value

MARK = b"\xc1"
"""Begins each command that is quorate's own: those for sessions, and ticks. No command of a machine does: MessagePack
never uses this byte."""

SESSIONS_MAX = 10_000
"""The most sessions of a group; one more ends the one that was not used for the longest. The same on every peer, for
ever: what a log means depends on it."""

ANSWERS_MAX = 1_024
"""The most answers that are kept of one session, those of its last writes: a write that is so many places behind one
that still needs its answer takes that away. For ever the same, too."""


OPEN = MARK + b"s"
WRITE = MARK + b"w"
"""How the two commands begin. Numbers of fixed length follow, and then the machine's command: every peer takes every
write apart, so they are made to be taken apart at little cost."""

OPEN_BY_INDEX = MARK + b"o"
"""How the opening of a session began whose id is the index of its command: logs hold such, and the writes in them."""

TICK = MARK + b"t"
"""A command that does nothing: its entry brings the time at which a timer is due, when no other entry comes."""

NUMBER_MAX = 2**64 - 1
"""The largest session, sequence or settled that a command can hold."""

TIME_MAX = 1e12
"""The latest time that tells sessions apart, seconds: ids have less than 63 bits, whatever a clock shows."""

_OPENING = struct.Struct(">2sd")
PLACE: struct.Struct = struct.Struct(">2sQQQ")
"""How a write in a session begins: ``WRITE``, session, sequence and settled; the machine's command follows."""

PLACE_BYTES: int = PLACE.size


class OpenSession(msgspec.Struct, frozen=True):
    """A command that opens a session; see ``session_id``.

    Attributes:
        timeout: after so many seconds of the log's time without a write the session has expired; above 0.
        by_index: whether its id is the index of the command, as it was before ``session_id``.
    """

    timeout: float
    by_index: bool = False


class SessionWrite(msgspec.Struct, frozen=True, gc=False):
    """A command of the machine, sent in a session.

    Attributes:
        session: the id of the session.
        sequence: its place among the writes of the session; the first has 1.
        settled: all writes before this one were answered, or are given up: their answers may be forgotten.
        command: the encoded command.
    """

    session: int
    sequence: int
    settled: int
    command: bytes


def encode_opening(command: OpenSession) -> bytes:
    """Give a command that opens a session as the log holds it."""
    return _OPENING.pack(OPEN_BY_INDEX if command.by_index else OPEN, command.timeout)


def encode_write(session: int, sequence: int, settled: int, command: bytes) -> bytes:
    """Give a ``SessionWrite`` as the log holds it; its numbers are from 0 to ``NUMBER_MAX``."""
    return PLACE.pack(WRITE, session, sequence, settled) + command


def decode_command(payload: bytes) -> OpenSession | SessionWrite:
    """Read a command that begins with ``MARK``.

    Raises:
        MachineError: it is none; the same on every peer.
    """
    try:
        if payload[:2] == WRITE:
            _, session, sequence, settled = PLACE.unpack_from(payload)
            return SessionWrite(session, sequence, settled, payload[PLACE_BYTES:])
        if payload[:2] in (OPEN, OPEN_BY_INDEX):
            return OpenSession(_OPENING.unpack(payload)[1], payload[:2] == OPEN_BY_INDEX)
    except struct.error as error:
        raise MachineError(f"not a command for sessions: {error}") from error
    raise MachineError(f"not a command for sessions: it begins with {payload[:2]!r}")


def machine_command(payload: bytes) -> bytes | None:
    """Give the machine's command in a payload of the log; None when there is none in it.

    Raises:
        MachineError: it begins with ``MARK``, and is no command for sessions.
    """
    if payload[:1] != MARK:
        return payload
    if payload == TICK:
        return None
    command = decode_command(payload)
    return command.command if isinstance(command, SessionWrite) else None


def without_heads(payloads: Iterable[bytes], heads: tuple[bytes, ...]) -> list[bytes]:
    """Give those payloads of the log whose command of the machine begins with none of the heads, or that have none.

    Args:
        payloads: what the log holds.
        heads: as ``calling.call_heads`` gives them: behind the byte that says how many elements follow.
    """
    others = [payload for payload in payloads if not payload.startswith(heads, 1)]
    behind = PLACE_BYTES + 1
    return [payload for payload in others if not (payload[:2] == WRITE and payload.startswith(heads, behind))]


class Session(msgspec.Struct, array_like=True):
    """One client's session.

    Attributes:
        timeout: see ``OpenSession``.
        used: when it was opened or last written in, seconds of the log's time.
        next: the sequence of the write that is applied next.
        answers: what the writes before it were answered; only of those that may be asked for again. Invariant: the last
            one is of the write before ``next``, and each stands behind that of the write before its own.
    """

    timeout: float
    used: float
    next: int = 1
    answers: list[Value | Failure] = []

    @property
    def first(self) -> int:
        """The sequence of the first write whose answer is kept; ``next`` when there is none."""
        return self.next - len(self.answers)

    def earlier(self, sequence: int, settled: int) -> Value | Failure | None:
        """Settle what is settled; give what a write was answered before, or None if it is to be applied now.

        Args:
            sequence: that of the write.
            settled: see ``SessionWrite``.

        Raises:
            Unavailable: one of the writes before it has not come yet; the write was not applied.
            OutcomeUnknown: it was applied or given up before, and its answer is kept no longer.
        """
        self.settle(settled)
        if sequence == self.next:
            return None
        if sequence > self.next:
            text = f"write {sequence} of the session came before write {self.next}"
            raise Unavailable(f"{text}, and they are applied in their order")
        if sequence < self.first:
            raise OutcomeUnknown("the write was answered before, or given up, and its answer is kept no longer")
        return self.answers[sequence - self.first]

    def settle(self, before: int) -> None:
        """Forget the answers of all writes before that one, and wait for none of them any longer."""
        settled = before - self.next + len(self.answers)
        if settled > 0:
            del self.answers[:settled]
            if before > self.next:
                self.next = before

    def keep(self, answer: Value | Failure) -> None:
        """Keep the answer of the write that was applied just now."""
        self.answers.append(answer)
        self.next += 1
        if len(self.answers) > ANSWERS_MAX:
            del self.answers[0]


class Sessions(msgspec.Struct, array_like=True, dict=True):
    """All sessions of a group.

    Attributes:
        by_id: the sessions by their ids. Invariant: those that were used last stand last.
    """

    by_id: dict[int, Session] = {}

    # Not replicated, and without an annotation no fields: they change nothing but how often expired sessions are looked
    # for. No session was used before the one instant, none has a timeout below the other number: while these two
    # together have not expired, nothing has. Here, so that a group without sessions holds none.
    _used_from = math.inf
    _timeout_from = math.inf

    def __post_init__(self) -> None:
        """Learn of the sessions that a snapshot holds."""
        if self.by_id:
            self._used_from = min(session.used for session in self.by_id.values())
            self._timeout_from = min(session.timeout for session in self.by_id.values())

    def open(self, command: OpenSession, index: int, now: float) -> int:
        """Open a session; end those that have expired, and the one used least recently if there are too many.

        Args:
            command: what the client asked for.
            index: the index of the command.
            now: seconds of the log's time.

        Returns:
            The id of the session.
        """
        for found, session in list(self.by_id.items()):
            if not is_over(session, now) and len(self.by_id) < SESSIONS_MAX:
                break  # Those after it were used later.
            del self.by_id[found]
        number = index if command.by_index else session_id(index, now)
        self.by_id[number] = Session(command.timeout, now)
        self._used_from = min(self._used_from, now)
        self._timeout_from = min(self._timeout_from, command.timeout)
        return number

    def use(self, number: int, now: float) -> Session:
        """Give a session that is written in, and note when; forget those used least recently that have expired.

        Nobody may write in those any longer, and nobody may ever open another: their answers would stay for good.

        Args:
            number: the id of the session.
            now: seconds of the log's time.

        Raises:
            SessionExpired: there is no such session any longer.
        """
        session = self.by_id.pop(number, None)
        if session is None or is_over(session, now):
            raise SessionExpired(f"session {number} has expired: nothing was written in it for too long")
        session.used = now
        self.by_id[number] = session
        # Among many sessions the first one is slow to find: each that was used has left a gap in front of it.
        if now - self._used_from > self._timeout_from:
            while (first := next(iter(self.by_id))) != number and is_over(self.by_id[first], now):
                del self.by_id[first]
            self._used_from = self.by_id[first].used
        return session


def session_id(index: int, now: float) -> int:
    """Give the id of the session that is opened at an index: unique in its group, and in whatever takes its place.

    A group that was wiped, or put back to a backup, comes to the same index again. Whoever holds a session of before
    must not write in that of another client: it would be given the other's answers.

    Args:
        index: the index of the command that opens it.
        now: seconds of the log's time, which never falls along it.
    """
    return int(min(now, TIME_MAX) * 1e6) + index


def is_over(session: Session, now: float) -> bool:
    """Tell whether a session has expired by the log's time."""
    return now - session.used > session.timeout
