"""Which commands of a log take effect, and when: what exactly once means (thesis 6.3), written down a second time.

Simpler than what peers do, and slower: it forgets nothing, keeps no answers, and knows no limits. Simulations hold what
machines became, and what clients were told, against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quorate.errors import MachineError
from quorate.sessions import MARK, TICK, OpenSession, decode_command
from quorate.types import Index, Kind, Run


class Effects:
    """The sessions of one log, from index 1 on.

    Attributes:
        opened: how many were opened.
        expired: how many of them a write found ended by the log's time.
        repeated: how many writes came once more after they had taken effect, or were given up.
    """

    def __init__(self) -> None:
        """Begin before the first entry."""
        self.opened: int = 0
        self.expired: int = 0
        self.repeated: int = 0
        self._time = 0.0
        self._timeouts: dict[int, float] = {}
        self._used: dict[int, float] = {}
        self._next: dict[int, int] = {}

    def of(self, run: Run) -> Iterator[tuple[Index, float, bytes]]:
        """Give the commands of the next run of the log that reach the machine: index, the log's time, command."""
        self._time = max(self._time, run.time)
        if run.kind is not Kind.COMMAND:
            return
        for index, payload in enumerate(run.payloads, run.first):
            command = self._effect(index, payload)
            if command is not None:
                yield Index(index), self._time, command

    def _effect(self, index: int, payload: bytes) -> bytes | None:
        """Give the command that one entry has the machine run; None for none."""
        if not payload.startswith(MARK):
            return payload
        if payload == TICK:
            return None
        try:
            command = decode_command(payload)
        except MachineError:
            return None
        if isinstance(command, OpenSession):
            opened = index + (0 if command.by_index else int(1_000_000 * min(self._time, 10**12)))
            self._timeouts[opened], self._used[opened], self._next[opened] = command.timeout, self._time, 1
            self.opened += 1
            return None
        session = command.session
        if session not in self._used or self._time - self._used[session] > self._timeouts[session]:
            self.expired += self._used.pop(session, None) is not None
            return None
        self._used[session] = self._time
        self._next[session] = max(self._next[session], command.settled)
        if command.sequence != self._next[session]:
            self.repeated += command.sequence < self._next[session]
            return None
        self._next[session] += 1
        return command.command


def effects(runs: Sequence[Run]) -> Iterator[tuple[Index, float, bytes]]:
    """Give the commands of a whole log that reach the machine: index, the log's time, command."""
    log = Effects()
    for run in runs:
        yield from log.of(run)
