"""What every state machine must keep to, and no type checker sees: tried out on a list of calls, in one process.

- A write does not read the machine that it runs on.
- A write that raises ``Rejected`` has changed nothing; nor has any read.
- Machines of one process share nothing.
- What a write emits, and which timers it sets, is the same everywhere. Timers run here too: each call is a second
  later.
- The state is in the snapshot: a machine restored from it goes on as the one that it was taken of. And it is in it as
  it was when the snapshot was taken, whatever came after.

Arguments and replies are not looked at for what they share with the state: quorate decodes arguments for each peer, and
copies replies. ``guard`` does the same in processes of their own, and compares them. Knows no simulation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from quorate import keeping
from quorate.calling import MachineType, describe
from quorate.computed import is_computed
from quorate.context import Context, ReadContext
from quorate.effects import Effects
from quorate.errors import MachineError, Rejected
from quorate.firing import fire_due
from quorate.machine import Query as QueryStruct
from quorate.machine import ReadMethod, StateMachine, WriteMethod
from quorate.signatures import CallType
from quorate.testing.machine.canonical import canonical
from quorate.testing.machine.sources import Source, watching
from quorate.testing.machine.suspects import place_of, walked_sets
from quorate.timers import TimerTable

__tracebackhide__ = True  # pytest: what matters is the line of the test

BEGINNING = 1_700_000_000.0
"""The time of the first command, seconds since 1970; each is a second later than the one before."""
SHOWN = 60
"""How much is shown of a value, characters."""


class BrokenContract(AssertionError):
    """A machine does what no state machine may do; the message says which call shows it, and where to look."""


class EncodedCall(msgspec.Struct, frozen=True):
    """A call as the log or the wire holds it.

    Attributes:
        text: as a person would write it.
        name: its name in the log.
        is_write: whether it is a write.
        encoded: its bytes.
    """

    text: str
    name: str
    is_write: bool
    encoded: bytes


class Step(msgspec.Struct, frozen=True):
    """What one call came to.

    Attributes:
        outcome: the reply or refusal.
        state: every attribute behind it.
        sources: what was read meanwhile that may differ from peer to peer.
        effects: the events that it emitted, and the timers that are set behind it.
    """

    outcome: str
    state: dict[str, str]
    sources: tuple[Source, ...]
    effects: tuple[str, ...] = ()


class Trial:
    """A machine that is given calls, one after the other, as a peer would give them.

    Attributes:
        type: what its class declares.
        machine: the machine.
        before: every attribute before the last call; after the timers that were due by then.
    """

    def __init__(self, machine_type: MachineType, machine: StateMachine | None = None) -> None:
        """Begin with a fresh machine, or with the one given."""
        self.type: MachineType = machine_type
        self.machine: StateMachine = machine_type.machine() if machine is None else machine
        self.before: dict[str, str] = {}

    def timers(self) -> bytes:
        """Give the timers as they are now, encoded."""
        return msgspec.msgpack.encode(self.machine.effects.timers.table)

    def run(self, number: int, call: EncodedCall) -> Step:
        """Run the call with that number, the first being 1; time and index are made of it.

        Raises:
            BrokenContract: the machine raised what stops a peer.
        """
        now = BEGINNING + number - 1
        run = self.type.run_write if call.is_write else self.type.run_read
        sources: list[Source] = []
        bugs = 0
        try:
            with watching(sources):
                bugs = len(list(fire_due(self.type, self.machine, now, number)))
            self.before = state_of(self.type, self.machine)
            self.machine.context = (Context if call.is_write else ReadContext)(now, number)
            with watching(sources):
                reply = run(self.machine, call.encoded)
            outcome = canonical(self.type.detach_reply(call.name, reply))
        except Rejected as refused:
            outcome = f"Rejected({', '.join(map(canonical, (refused.reason, *refused.details)))})"
        except MachineError:
            outcome = "MachineError"  # its text is for people, and may hold addresses
        except (MemoryError, RecursionError, OSError) as error:
            raise BrokenContract(f"{call.text} raised {type(error).__name__}, which stops the peer: {error}") from error
        effects = self.machine.effects
        led_to = (*map(canonical, effects.events), canonical(effects.timers.table), f"{bugs} bugs in timers")
        effects.take()
        return Step(outcome, state_of(self.type, self.machine), tuple(sources), led_to)


def restored_trial(machine_type: MachineType, chunks: Iterable[bytes], timers: bytes) -> Trial:
    """Give a trial of the machine that a snapshot makes, and of its timers.

    Raises:
        MachineError: the class does not take the chunks.
    """
    trial = Trial(machine_type, machine_type.restored(chunks))
    table = msgspec.msgpack.decode(timers, type=TimerTable)
    trial.machine.effects = Effects(machine_type.events, table)
    return trial


def check_contract(machine: type[StateMachine], calls: Iterable[tuple[Any, ...]]) -> None:
    """Check that a machine keeps its contract while it is given some calls.

    Args:
        machine: the class of the machine.
        calls: each a method (or a ``Command`` or ``Query``) and its arguments.

    Raises:
        BrokenContract: it does not; the message says which call shows it.
        TypeError: a call does not fit the machine, or snapshots cannot keep its state.
    """
    machine_type = describe(machine)
    encoded = [encode(machine_type, *call) for call in calls]
    check_copies(machine_type, encoded, run_alone(machine_type, encoded, []))


def encode(machine_type: MachineType, method: Any, *args: object) -> EncodedCall:  # noqa: ANN401
    """Encode a call as a client would.

    Raises:
        TypeError: it does not fit the machine.
    """
    is_write = not isinstance(method, (ReadMethod, QueryStruct))
    encoded = (machine_type.encode_write if is_write else machine_type.encode_read)(method, args)
    text = repr(method)
    if isinstance(method, (WriteMethod, ReadMethod)):
        text = f"{machine_type.name}.{method.function.__name__}({', '.join(map(repr, args))})"
    calls = machine_type.writes if is_write else machine_type.reads
    name = method.name if isinstance(method, (WriteMethod, ReadMethod)) else calls.by_struct[type(method)].name
    return EncodedCall(text, name, is_write, encoded)


def run_alone(machine_type: MachineType, calls: Sequence[EncodedCall], steps: list[Step]) -> list[Step]:
    """Run calls on one machine, and check each by itself.

    Args:
        machine_type: of the machine.
        calls: what to run.
        steps: gets what each came to, also what came before one that breaks the contract.

    Raises:
        BrokenContract: one does.
        TypeError: snapshots cannot keep the state of a fresh machine.
    """
    trial = Trial(machine_type)
    machine_type.check_state(trial.machine)
    for number, call in enumerate(calls, 1):
        step = trial.run(number, call)
        steps.append(step)
        before = trial.before
        forbidden = [source for source in step.sources if source.is_forbidden]
        if call.is_write and forbidden:
            raise BrokenContract(f"{call_type(machine_type, call).label} {told(forbidden)}")
        changed = differing(before, step.state)
        if changed is not None and not call.is_write:
            raise BrokenContract(
                f"{call.text} is a read, and changed {shown(machine_type, changed, before, step, 'to')}"
            )
        if changed is not None and step.outcome.startswith("Rejected("):
            text = f"{call.text} raised {step.outcome} after it had changed"
            raise BrokenContract(f"{text} {shown(machine_type, changed, before, step, 'to')}")
    return steps


def check_copies(machine_type: MachineType, calls: Sequence[EncodedCall], steps: Sequence[Step]) -> None:
    """Check that other machines of this process come to the same, and those restored from snapshots.

    Args:
        machine_type: of the machines.
        calls: what to run.
        steps: what one machine alone came to.

    Raises:
        BrokenContract: they do not.
    """
    twins = Trial(machine_type), Trial(machine_type)
    for number, (call, step) in enumerate(zip(calls, steps, strict=True), 1):
        for twin in twins:
            other = twin.run(number, call)
            why = "two machines of one process share something: a class attribute, a global, or a default argument?"
            compare(machine_type, call, number, step, other, "on another machine", why)
    trial = Trial(machine_type)
    for number, (call, step) in enumerate(zip(calls, steps, strict=True), 1):
        before = state_of(machine_type, trial.machine)
        timers = trial.timers()
        try:
            frozen = machine_type.snapshot(trial.machine)
            trial.run(number, call)
            # Only now are the chunks taken, as they are in a peer: in another thread, while the machine goes on.
            trial = restored_trial(machine_type, list(frozen), timers)
        except MachineError as error:
            raise BrokenContract(
                f"no machine could be restored before command {number}, {call.text}: {error}"
            ) from error
        restored = state_of(machine_type, trial.machine)
        if (changed := differing(before, restored)) is not None:
            values = shown(machine_type, changed, before, Step("", restored, ()))
            raise BrokenContract(
                f"a snapshot taken before command {number}, {call.text}, and restored behind it, has another {values}\n"
                "  snapshot() keeps too little, or shares with the machine what changes"
            )
        other = trial.run(number, call)
        why = "something is not in the snapshot: an order, or what is kept outside of the machine?"
        compare(machine_type, call, number, step, other, "on a machine restored from a snapshot", why)


def compare(
    machine_type: MachineType, call: EncodedCall, number: int, step: Step, other: Step, where: str, why: str
) -> None:
    """Check that a call came to the same twice.

    Raises:
        BrokenContract: it did not.
    """
    changed = differing(step.state, other.state)
    if changed is not None:
        said = f"left another {shown(machine_type, changed, step.state, other)}"
    elif step.outcome != other.outcome:
        said = f"gave {shortened(step.outcome)}\n  and {shortened(other.outcome)}"
    elif step.effects != other.effects:
        one, two = next(pair for pair in itertools.zip_longest(step.effects, other.effects) if pair[0] != pair[1])
        said = f"emitted or set for later {shortened(str(one))}\n  and {shortened(str(two))}"
    else:
        return
    text = f"command {number}, {call.text}, {said}\n  {where}: {why}"
    raise BrokenContract("\n  ".join([text, *hints(machine_type, call, [*step.sources, *other.sources])]))


def hints(machine_type: MachineType, call: EncodedCall, sources: Sequence[Source]) -> list[str]:
    """Say where to look for what makes a call come to different things."""
    called = call_type(machine_type, call)
    if sources:
        return [f"{called.label} {told(sources)}"]
    if walked := walked_sets(called.function, machine_type.machine):
        return [f"{called.label} walks a set at {', '.join(walked)}: its order is none; sorted() gives one"]
    place = place_of(called.function)
    return [f"look at {called.label}, {place}, and at what it calls, or keeps outside of the machine"]


def told(sources: Sequence[Source]) -> str:
    """Say what was read where, and what to know of it."""
    first = sources[0]
    places = dict.fromkeys(source.place for source in sources if source.what == first.what)
    return f"{first.what} at {', '.join(places)}: {first.advice}"


def call_type(machine_type: MachineType, call: EncodedCall) -> CallType:
    """Give the declaration of a call."""
    return (machine_type.writes if call.is_write else machine_type.reads).by_name[call.name]


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Give the first attribute that is not the same; None when all are."""
    return next((name for name in {**before, **after} if before.get(name) != after.get(name)), None)


def shown(machine_type: MachineType, name: str, before: Mapping[str, str], step: Step, word: str = "and") -> str:
    """Name an attribute and its two values."""
    one, other = before.get(name, "nothing"), step.state.get(name, "nothing")
    return f"{machine_type.name}.{name}: {shortened(one)}\n  {word} {shortened(other)}"


def shortened(text: str) -> str:
    """Give the beginning of a text."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def state_of(machine_type: MachineType, machine: StateMachine) -> dict[str, str]:
    """Give what every attribute of the state is, in a form that is the same in every process.

    Of a class with a ``snapshot`` of its own, these are all attributes but those that begin with an underscore.
    """
    if not machine_type.has_own_snapshot:
        names = list(keeping.attributes_of(machine_type.machine))
    else:
        known = (name for name in vars(machine) if not is_computed(machine_type.machine, name))
        names = [name for name in known if not name.startswith("_")]
    return {name: canonical(getattr(machine, name)) for name in names if hasattr(machine, name)}
