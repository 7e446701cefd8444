"""Is there an order in which a machine gives every answer of a history, each call between its beginning and its end?

The search is Wing and Gong's with Lowe's two improvements (G. Lowe, "Testing for linearizability", 2017): what was
tried once is not tried again, and a call takes effect no sooner than it must ("just in time"): when a call returns that
has not taken effect yet, those that are under way take effect before it, in every order that ends with it, the shortest
first. Reads take effect as soon as their answer fits, for they change nothing.

A call of unknown fate stays under way for ever, and may take effect or not. So of two ways to the same place, the one
that made use of fewer such calls is at least as good, and the other is not followed.

Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", 1990, is where the word is from.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import msgspec

from quorate.machine import StateMachine
from quorate.testing.history.operations import Operation
from quorate.testing.history.sequential import ContextAsked, Sequential
from quorate.testing.history.timeline import Obstacle, OrderedCalls, show

Partition = Callable[[Operation], Hashable]
"""Gives what a call is about: calls about different things must not influence one another."""

Relevance = Callable[[StateMachine, Operation, StateMachine], Hashable]
"""Gives what a write of unknown fate is good for, from the machine before and after it: None if it cannot matter that
it takes effect here. Of those that have begun and are good for the same, here and ever after, the first is tried."""

STEPS_BETWEEN_LOOKS = 1000
"""After so many steps it is looked at the clock."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a history.

    Attributes:
        is_linearizable: whether it is; None if that was not decided.
        text: why not, with a drawing, or why it was not decided; empty for a linearizable history.
        operations: how many calls were judged: not those that failed, nor reads of unknown fate.
        steps: how many calls were tried, one after another.
    """

    is_linearizable: bool | None
    text: str
    operations: int
    steps: int


class Undecided(Exception):
    """The search was given up."""


def check_history(
    machine: type[StateMachine],
    operations: Iterable[Operation],
    *,
    partition: Partition | None = None,
    relevance: Callable[[Sequence[Operation]], Relevance] | None = None,
    steps_max: int | None = None,
    seconds_max: float | None = None,
) -> Verdict:
    """Decide whether a history is linearizable, with the machine's own class as what should have happened.

    Two calls of which one returned at the very instant when the other began count as concurrent. Handlers that ask for
    ``self.context`` cannot be judged: a history does not hold it.

    Args:
        machine: the class.
        operations: the history, in any order. Only writes and linearizable reads belong in it.
        partition: gives what a call is about, such as its key: each such part is decided by itself, with a fresh
            machine, which is much quicker. Right only if no call influences the answers about anything else.
        relevance: is given the calls of one part, and gives what tells which writes of unknown fate need not be tried.
            Without it many of them can make a history that is not linearizable undecidable in any useful time.
        steps_max: give up after so many steps, about a million of them in a few seconds; None for no bound.
        seconds_max: give up after so many seconds; None for no bound.

    Returns:
        The verdict; of several parts that are not linearizable, the one whose first call is the earliest is shown.

    Raises:
        TypeError: an operation is no call of the machine, or snapshots cannot keep its state.
        MachineError: an answer is not what the machine's annotations say, or its state cannot be kept.
    """
    model = Sequential(machine)
    parts: dict[Hashable, list[tuple[Operation, int]]] = {}
    for operation in sorted(operations, key=lambda operation: operation.called):
        call = model.number_call(operation.method, operation.args)
        if operation.fate == "ok" or (operation.fate == "unknown" and not model.is_read(call)):
            parts.setdefault(partition(operation) if partition is not None else None, []).append((operation, call))
    total = sum(map(len, parts.values()))
    budget = Budget(steps_max, seconds_max)
    undecided = ""
    for place, (key, part) in enumerate(parts.items()):
        judged = [operation for operation, _ in part]
        search = Search(model, judged, [call for _, call in part], budget, relevance(judged) if relevance else None)
        budget.share(len(parts) - place)
        try:
            obstacle = search.run()
        except Undecided as why:
            undecided = undecided or f"not decided{about(key)}: {why}"
            continue
        if obstacle is not None:
            text = f"not linearizable{about(key)}\n{show(obstacle, judged)}"
            return Verdict(is_linearizable=False, text=text, operations=total, steps=budget.steps)
    return Verdict(is_linearizable=None if undecided else True, text=undecided, operations=total, steps=budget.steps)


def about(key: Hashable) -> str:
    """Name a part of a history."""
    return "" if key is None else f", {key!r}"


class Budget:
    """How long a search may go on.

    Attributes:
        steps: steps so far.
    """

    def __init__(self, steps_max: int | None, seconds_max: float | None) -> None:
        """Begin with all that there is; None for no bound."""
        self.steps: int = 0
        self._steps_max = float("inf") if steps_max is None else steps_max
        self._end = float("inf") if seconds_max is None else time.monotonic() + seconds_max
        self.share(1)

    def share(self, parts: int) -> None:
        """Give the next one of so many parts its equal share of what is left."""
        now = time.monotonic()
        self._steps_here = self.steps + (self._steps_max - self.steps) / parts
        self._end_here = now + (self._end - now) / parts

    def spend(self) -> None:
        """Note a step.

        Raises:
            Undecided: there is nothing left.
        """
        self.steps += 1
        if self.steps > self._steps_here:
            raise Undecided("it would take more steps than allowed")
        if self.steps % STEPS_BETWEEN_LOOKS == 0 and time.monotonic() > self._end_here:
            raise Undecided("it would take longer than allowed")


class Place(msgspec.Struct, frozen=True):
    """The return of a call, and what is under way there.

    Attributes:
        operation: the call that returns.
        reads: the reads under way, itself among them if it is one.
        writes: the writes of known fate under way, but for itself.
        unknown: how many calls of unknown fate have begun.
    """

    operation: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    unknown: int


class Way(msgspec.Struct, frozen=True):
    """Where the search stands.

    Attributes:
        at: the next event.
        effective: the calls of known fate under way that have taken effect, as a set of bits.
        used: the calls of unknown fate that have taken effect, as a set of bits.
        state: the state of the machine.
        order: all that has taken effect.
    """

    at: int
    effective: int
    used: int
    state: int
    order: OrderedCalls


class Search:
    """The search through one part of a history."""

    def __init__(
        self,
        model: Sequential,
        operations: Sequence[Operation],
        calls: Sequence[int],
        budget: Budget,
        relevance: Relevance | None,
    ) -> None:
        """Prepare.

        Args:
            model: the machine.
            operations: the calls that were answered, and the writes of unknown fate, by the instant they began.
            calls: the number of each in the model.
            budget: how long to go on.
            relevance: what writes of unknown fate are good for; None: each that changes the state is tried.

        Raises:
            MachineError: an answer is not what the machine's annotations say.
        """
        self._model = model
        self._operations = operations
        self._calls = calls
        self._budget = budget
        self._relevance = relevance
        self._uses: dict[tuple[int, int], Hashable] = {}
        self._answers = [
            model.number_answer(call, operation.output) if operation.fate == "ok" else -1
            for operation, call in zip(operations, calls, strict=True)
        ]
        self._is_read = [model.is_read(call) for call in calls]
        self._unknown = [number for number, operation in enumerate(operations) if operation.fate == "unknown"]
        self._bits = [0] * len(operations)
        self._events = self._laid_out()
        self._tried: dict[tuple[int, int, int], list[int]] = {}
        self._obstacle = Obstacle()
        self._farthest = -1

    def run(self) -> Obstacle | None:
        """Search for an order; give None if there is one, and else what stood in the way farthest on.

        Raises:
            Undecided: the budget is spent, or the machine cannot be judged.
            MachineError: the machine's state cannot be kept, or a reply is not what its annotation says.
        """
        end = len(self._events)
        try:
            way: Way | None = self._advanced(Way(0, 0, 0, 0, None))
            alternatives: list[Iterator[Way]] = []
            while True:
                if way is None:
                    alternatives.pop()
                elif way.at == end:
                    return None
                elif self._is_new(way):
                    alternatives.append(self._continued(way))
                if not alternatives:
                    return self._obstacle
                way = next(alternatives[-1], None)
        except ContextAsked as asked:
            raise Undecided(f"a handler asked for {asked}") from None

    def _laid_out(self) -> list[int | Place]:
        """Put all beginnings and returns in order, with what is under way at each return; give each call its bit."""
        instants = [(operation.called, 0, number) for number, operation in enumerate(self._operations)]
        for number, operation in enumerate(self._operations):
            if operation.returned is not None:
                instants.append((operation.returned, 1, number))
        events: list[int | Place] = []
        free: list[int] = []
        reads: dict[int, None] = {}
        writes: dict[int, None] = {}
        unknown = 0
        for _, is_return, number in sorted(instants):
            under_way = reads if self._is_read[number] else writes
            if is_return:
                events.append(Place(number, tuple(reads), tuple(write for write in writes if write != number), unknown))
                del under_way[number]
                free.append(self._bits[number])
                continue
            events.append(number)
            if self._operations[number].fate == "unknown":
                self._bits[number] = 1 << unknown
                unknown += 1
            else:
                self._bits[number] = free.pop() if free else 1 << len(reads) + len(writes)
                under_way[number] = None
        return events

    def _advanced(self, way: Way) -> Way:
        """Go on to the first return of a call that has not taken effect, or to the end."""
        effective, state, order = way.effective, way.state, way.order
        events, bits = self._events, self._bits
        for at in range(way.at, len(events)):
            event = events[at]
            if isinstance(event, Place):
                bit = bits[event.operation]
                if not effective & bit:
                    return Way(at, effective, way.used, state, order)
                effective ^= bit
            elif self._is_read[event] and self._model.step(state, self._calls[event])[1] == self._answers[event]:
                effective |= bits[event]
                order = (order, event)
        return Way(len(events), effective, way.used, state, order)

    def _continued(self, way: Way) -> Iterator[Way]:
        """Yield the ways on which the call that returns here has taken effect, the shortest first."""
        place = self._events[way.at]
        assert isinstance(place, Place)
        bits, returning = self._bits, self._bits[place.operation]
        waiting = deque([way])
        while waiting:
            way = waiting.popleft()
            if way.effective & returning:
                yield self._advanced(way)
                continue
            self._note(way, place)
            if not self._is_read[place.operation] and (then := self._with(way, place.operation, place)) is not None:
                yield self._advanced(then)
            for write in place.writes:
                if not way.effective & bits[write] and (then := self._with(way, write, place)) is not None:
                    waiting.append(then)
            for write in self._useful(way, place):
                if (then := self._with_unknown(way, write, place)) is not None:
                    waiting.append(then)

    def _with(self, way: Way, write: int, place: Place) -> Way | None:
        """Let a write of known fate take effect; give None if the answer is another, or that was tried before."""
        self._budget.spend()
        state, answer = self._model.step(way.state, self._calls[write])
        if answer != self._answers[write]:
            return None
        then = self._with_reads(way, way.effective | self._bits[write], way.used, state, (way.order, write), place)
        return then if write == place.operation or self._is_new(then) else None

    def _useful(self, way: Way, place: Place) -> Iterator[int]:
        """Yield writes of unknown fate that have begun and may take effect here; of those that are alike, the first."""
        alike: set[Hashable] = set()
        for write in self._unknown[: place.unknown]:
            if not way.used & self._bits[write]:
                use = self._use(way.state, write)
                if use is not None and use not in alike:
                    alike.add(use)
                    yield write

    def _with_unknown(self, way: Way, write: int, place: Place) -> Way | None:
        """Let a write of unknown fate take effect; give None if that was tried before."""
        self._budget.spend()
        state, _ = self._model.step(way.state, self._calls[write])
        then = self._with_reads(way, way.effective, way.used | self._bits[write], state, (way.order, write), place)
        return then if self._is_new(then) else None

    def _with_reads(self, way: Way, effective: int, used: int, state: int, order: OrderedCalls, place: Place) -> Way:
        """Let the reads under way take effect whose answer is that of the new state."""
        if state != way.state:
            for read in place.reads:
                if (
                    not effective & self._bits[read]
                    and self._model.step(state, self._calls[read])[1] == self._answers[read]
                ):
                    effective |= self._bits[read]
                    order = (order, read)
        return Way(way.at, effective, used, state, order)

    def _use(self, before: int, write: int) -> Hashable:
        """Give what a write of unknown fate is good for in a state; None for nothing."""
        if (before, write) in self._uses:
            return self._uses[before, write]
        call = self._calls[write]
        after, _ = self._model.step(before, call)
        use: Hashable = call if after != before else None
        if use is not None and self._relevance is not None:
            use = self._relevance(self._model.machine(before), self._operations[write], self._model.machine(after))
        self._uses[before, write] = use
        return use

    def _is_new(self, way: Way) -> bool:
        """Tell whether a way leads further than those before it; note that it is followed."""
        place = way.at, way.effective, way.state
        known = self._tried.setdefault(place, [])
        if any(used & way.used == used for used in known):
            return False
        known.append(way.used)
        return True

    def _note(self, way: Way, place: Place) -> None:
        """Note what stands in the way, if nothing did farther on: the machine's answer here is another."""
        if way.at < self._farthest:
            return
        if way.at > self._farthest:
            self._farthest = way.at
            self._obstacle = Obstacle(way.order, place.operation, place.reads + place.writes)
        answer = self._model.step(way.state, self._calls[place.operation])[1]
        if answer != self._answers[place.operation]:
            self._obstacle.answers.setdefault(answer, self._model.answer(answer))
