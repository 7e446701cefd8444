"""A user's own class as the sequential model that a history is held against: states by number, each step run once.

A state is what the machine's ``snapshot`` gives of it, so that any two can be compared, and a machine be made of it
anew. Knows one call after the other; nothing of time or clients.
"""

from __future__ import annotations

import typing

import msgspec

from quorate.calling import command_name, describe
from quorate.context import Context
from quorate.effects import Effects
from quorate.errors import MachineError, Rejected
from quorate.events import Event
from quorate.machine import Query, ReadMethod, StateMachine

Answer = object
"""A reply, or the ``Rejected`` or ``MachineError`` with which a machine answered."""

# Equal dicts and sets give equal bytes: a reply has no other order than the one its type has.
ENCODER = msgspec.msgpack.Encoder(order="deterministic")


class ContextAsked(Exception):
    """A handler asked for something of ``self.context``, which stands in the log and in no history."""


class UnknownContext:
    """The context of a call whose time and index in the log are not known: it answers nothing."""

    def __getattr__(self, name: str) -> typing.NoReturn:
        """Refuse to be asked.

        Raises:
            ContextAsked: always.
        """
        raise ContextAsked(f"self.context.{name}, which stands in the log and in no history")


class Unheard(Effects):
    """The effects of a call whose index is not known: its events go nowhere, and no answer depends on them."""

    def emit(self, event: Event, context: Context) -> None:
        """Take no notice."""

    def undo(self, context: Context) -> None:
        """Have nothing to take back."""


class Sequential:
    """One class of machine, run one call after the other from any state that it had before."""

    def __init__(self, machine: type[StateMachine]) -> None:
        """Begin with the state of a fresh machine, which is number 0.

        Raises:
            TypeError: snapshots cannot keep the machine's state; the message says what to write.
        """
        self._machine = describe(machine)
        fresh = machine()
        self._machine.check_state(fresh)
        self._calls: dict[tuple[bool, bytes], int] = {}
        self._encoded: list[tuple[bool, bytes]] = []
        self._answers: dict[bytes, int] = {}
        self._shown: list[Answer] = []
        self._states: dict[tuple[bytes, ...], int] = {}
        self._chunks: list[tuple[bytes, ...]] = []
        self._steps: dict[tuple[int, int], tuple[int, int]] = {}
        self.number_state(fresh)

    def number_call(self, method: object, args: tuple[object, ...]) -> int:
        """Give the number of a call; equal calls have one.

        Raises:
            TypeError: it is no write or read of the machine, or the arguments do not fit.
        """
        is_read = isinstance(method, (ReadMethod, Query))
        encode = self._machine.encode_read if is_read else self._machine.encode_write
        call = is_read, encode(method, args)
        number = self._calls.setdefault(call, len(self._encoded))
        if number == len(self._encoded):
            self._encoded.append(call)
        return number

    def number_answer(self, call: int, answer: Answer) -> int:
        """Give the number of an answer to a call; equal answers have one.

        Raises:
            MachineError: it cannot be encoded, or is not what the annotation of the call says.
        """
        name = command_name(self._encoded[call][1])
        if isinstance(answer, Rejected):
            encoded = ENCODER.encode(("Rejected", answer.reason, answer.details))
        elif isinstance(answer, MachineError):
            encoded = ENCODER.encode(("MachineError",))  # Its text is for people.
        else:
            answer = self._machine.detach_reply(name, answer)
            encoded = ENCODER.encode((answer,))
        number = self._answers.setdefault(encoded, len(self._shown))
        if number == len(self._shown):
            self._shown.append(answer)
        return number

    def number_state(self, machine: StateMachine) -> int:
        """Give the number of a machine's state; equal states have one.

        Raises:
            MachineError: the machine cannot give its state.
        """
        chunks = tuple(self._machine.snapshot(machine))
        number = self._states.setdefault(chunks, len(self._chunks))
        if number == len(self._chunks):
            self._chunks.append(chunks)
        return number

    def machine(self, state: int) -> StateMachine:
        """Make a machine in that state.

        Raises:
            MachineError: the class does not take what its snapshot gave.
        """
        made = self._machine.restored(self._chunks[state])
        made.context = typing.cast(Context, UnknownContext())
        made.effects = Unheard(self._machine.events)
        return made

    def answer(self, number: int) -> Answer:
        """Give the answer with that number."""
        return self._shown[number]

    def is_read(self, call: int) -> bool:
        """Tell whether a call is a read, which leaves the state as it is."""
        return self._encoded[call][0]

    def step(self, state: int, call: int) -> tuple[int, int]:
        """Run a call in a state; give the numbers of the state after it, and of its answer.

        Raises:
            ContextAsked: the handler asked for what no history holds.
            MachineError: the state cannot be kept, or the reply is not what its annotation says.
        """
        known = self._steps.get((state, call))
        if known is not None:
            return known
        is_read, encoded = self._encoded[call]
        machine = self.machine(state)
        run = self._machine.run_read if is_read else self._machine.run_write
        try:
            answer: Answer = run(machine, encoded)
        except Rejected as refused:
            answer = refused
        except MachineError as error:
            if isinstance(error.__cause__, ContextAsked):
                raise error.__cause__ from None
            answer = error
        after = state if is_read else self.number_state(machine)
        self._steps[state, call] = found = after, self.number_answer(call, answer)
        return found
