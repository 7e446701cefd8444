"""What was struck by which fault, as what, and while the group was at what: counted, so that one sees what never was.

A cell is a kind of fault, a role of the peer it struck, and a phase of its group. A peer that has a joint configuration
in force is counted once more, in the role ``joint``. Knows the states of the peers; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from quorate.core.state import Candidate, Leader, PreCandidate, State
from quorate.testing.network import SHAPES
from quorate.testing.process import Process

Cell = tuple[str, str, str]
"""A kind of fault, a role, and a phase."""

CRASHES = ("crash at a moment", "crash a majority", "crash all")
STRIKES = ("crash", "stop", "pause", "slow disk", "full disk", "reset")
"""What strikes one process that runs."""
MESSAGES = ("loss", "cut", "straggle", "repeat", "reorder", "park", "hang up", "lost")
"""What befalls one message: it is lost, or lost to a partition, late, doubled, overtakes another, or is set aside for
long; or its connection breaks under it. It strikes the sender, or whom a client speaks to. Or a peer is told that
another is lost, rightly or not."""
PARTITIONS = tuple(f"partition, {shape}" for shape in SHAPES)
"""What strikes the group."""
KINDS = ("crash", *CRASHES, *STRIKES[1:], *MESSAGES, *PARTITIONS)

GROUP = "group"
JOINT = "joint"
ROLES = ("leader", "follower", "candidate", "learner", "witness", "outsider", "starting", JOINT, GROUP)
"""A pre-candidate counts as a candidate. An outsider is no member of the configuration it has in force, or has none.
Who is down counts as starting: what clients and others send to it may well be late, or find its connection broken."""
PHASES = ("steady", "electing", "changing", "snapshot", "transfer")
"""What the group is at: see ``phase_of``."""

IMPOSSIBLE: tuple[tuple[Sequence[str], Sequence[str], str], ...] = (
    (PARTITIONS, [role for role in ROLES if role != GROUP], "a partition divides the group, and strikes nobody alone"),
    ([kind for kind in KINDS if kind not in PARTITIONS], [GROUP], "it strikes one peer"),
    (STRIKES[1:], ["starting"], "its victim is drawn among those that have started; healing alone kills others"),
    (("loss", "cut", "repeat", "park"), ["starting"], "it befalls what peers send, and these have started"),
    (("crash at a moment",), ["starting"], "the moment is a step of its peer, which has started"),
)
"""The kinds and roles that never meet, whatever the phase, and why."""


class Coverage:
    """Counts the faults of one run.

    Attributes:
        cells: how often each cell was visited.
        kinds: how often each kind struck; in full, such as at which moment a process was killed.
    """

    def __init__(self, processes: Sequence[Process]) -> None:
        """Count nothing yet."""
        self.cells: Counter[Cell] = Counter()
        self.kinds: Counter[str] = Counter()
        self._processes = processes
        self._by_node = {process.address.node: process for process in processes}

    def struck(self, kind: str, process: Process | None) -> str:
        """Count a fault, of one process or of the group; give the role in which that was struck."""
        phase = phase_of([state for state in map(state_of, self._processes) if state is not None])
        state = state_of(process) if process is not None else None
        role = GROUP if process is None else role_of(state)
        known = "crash at a moment" if kind.startswith("crash at ") else kind
        self.kinds[kind] += 1
        self.cells[known, role, phase] += 1
        if state is not None and state.configuration is not None and state.configuration.outgoing:
            self.cells[known, JOINT, phase] += 1
        return role

    def befell(self, kind: str, source: str, target: str) -> None:
        """Count what befell a message between two addresses, one of which is a process's."""
        process = self._by_node.get(source) or self._by_node.get(target)
        if process is not None:
            self.struck(kind, process)


def state_of(process: Process) -> State | None:
    """Give the state of a process's peer; None while there is none."""
    return process.life.peer._seat.raft.state if process.life and process.life.peer else None


def role_of(state: State | None) -> str:
    """Give what a peer is, as one of ``ROLES``."""
    if state is None:
        return "starting"
    match state.role:
        case Leader():
            return "leader"
        case PreCandidate() | Candidate():
            return "candidate"
        case _:
            me = state.me
            return "outsider" if me is None else "follower" if me.kind == "voter" else me.kind


def phase_of(states: Sequence[State]) -> str:
    """Give what a group is at, from the states of those who run, as one of ``PHASES``.

    It is electing while nobody leads the newest term. Else it does as that leader does: hands over, sends a snapshot,
    changes the members, or none of these; the first that is true counts.
    """
    members = [state for state in states if state.me is not None]
    newest = max((state.term for state in members), default=0)
    leading = next((state for state in members if state.term == newest and isinstance(state.role, Leader)), None)
    if leading is None or not isinstance(leading.role, Leader):
        return "electing"
    if leading.role.transfer is not None:
        return "transfer"
    if any(progress.installing for progress in leading.role.progress.values()):
        return "snapshot"
    return "steady" if leading.configuration and leading.configuration.is_settled else "changing"


def possible_cells() -> Iterator[Cell]:
    """Give all cells but those that cannot be."""
    never = {(kind, role) for kinds, roles, _ in IMPOSSIBLE for kind in kinds for role in roles}
    for kind in KINDS:
        for role in ROLES:
            if (kind, role) not in never:
                yield from ((kind, role, phase) for phase in PHASES)


def lacking(cells: Mapping[Cell, int], floor: int) -> list[Cell]:
    """Give the cells that could be, and were visited less often than ``floor`` times."""
    return [cell for cell in possible_cells() if cells.get(cell, 0) < floor]


def table(cells: Mapping[Cell, int], axis: int, names: Sequence[str]) -> list[str]:
    """Give a table of kinds against roles (``axis`` 1) or phases (2); ``·`` where there can be nothing."""
    possible = {(cell[0], cell[axis]) for cell in possible_cells()}
    lines = [" " * 20 + "".join(f"{name:>11}" for name in names)]
    for kind in KINDS:
        counted: Counter[str] = Counter()
        for cell, number in cells.items():
            if cell[0] == kind and (axis == 1 or cell[1] != JOINT):
                counted[cell[axis]] += number
        row = [str(counted[name]) if (kind, name) in possible else "·" for name in names]
        lines.append(f"{kind:20}" + "".join(f"{number:>11}" for number in row))
    return lines
