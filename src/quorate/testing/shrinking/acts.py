"""What was done to a simulated group from outside, as a list: calls of clients and faults, each at its instant.

Recorded while a simulation draws them, and done again by one that draws none of its own (``script``). What no longer
makes sense, such as the start of a process that runs, is passed over. Shrinks nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec

import msgspec

from quorate.calling import Calls, command_name, describe
from quorate.errors import QuorateError
from quorate.machine import StateMachine
from quorate.testing.clients import NEWCOMER
from quorate.testing.process import Life, Process
from quorate.testing.simulation import Simulation
from quorate.testing.workload import Call

P = ParamSpec("P")
CALLS = ("write", "read")
"""The verbs of calls; all others are faults."""

DIGITS = 4
"""To how many digits of a second an instant is known."""


@dataclass(frozen=True, slots=True)
class Act:
    """One call or fault.

    Attributes:
        at: virtual seconds after clients and faults began.
        verb: ``write`` or ``read``, or what the fault is: ``crash``, ``start``, ``stop``, ``pause``, ``resume``,
            ``slow`` and ``full`` of a disk, ``reset``, ``cut``, ``heal``, ``release``.
        words: the process that is struck, or the ways that are cut, or the share that is released; of a call the
            client, its patience in seconds, and the peer in whose process it is made, or ``-``.
        call: what is called; None for a fault.
    """

    at: float
    verb: str
    words: tuple[str, ...] = ()
    call: Call | None = None


@dataclass(slots=True)
class Acts:
    """Collects the acts of one simulation, from before it runs.

    Attributes:
        acts: in the order in which they happened.
    """

    acts: list[Act] = field(default_factory=list)
    _begun: float | None = None

    @classmethod
    def of(cls, simulation: Simulation) -> Acts:
        """Watch a simulation that has not run yet."""
        acts = cls()
        acts._watch_times(simulation)
        for process in simulation.processes:
            acts._watch(simulation, process)
        network, label = simulation.network, simulation.faults._label

        def ways(cut: Iterable[tuple[str, str]]) -> tuple[str, ...]:
            return tuple(f"{label(source)}>{label(target)}" for source, target in cut)

        acts._note(simulation, network, "cut", ways)
        acts._note(simulation, network, "heal", lambda **_: ())
        acts._note(simulation, network, "release", lambda share=1.0: (f"{share:.3f}",))
        acts._note(simulation, network, "reset", lambda node: (label(node),))
        acts._watch_calls(simulation)
        return acts

    def add(self, simulation: Simulation, verb: str, words: tuple[str, ...], call: Call | None = None) -> None:
        """Add an act, if clients and faults go on."""
        if self._begun is not None:
            self.acts.append(Act(round(simulation.loop.time() - self._begun, DIGITS), verb, words, call))

    def _note(self, simulation: Simulation, target: object, verb: str, words: Callable[P, tuple[str, ...]]) -> None:
        """Note each call of a method of an object before it is made."""
        method: Callable[P, object] = getattr(target, verb)

        def noted(*args: P.args, **kwargs: P.kwargs) -> object:
            self.add(simulation, verb, words(*args, **kwargs))
            return method(*args, **kwargs)

        setattr(target, verb, noted)

    def _watch(self, simulation: Simulation, process: Process) -> None:
        """Watch what befalls a process."""
        for verb in ("crash", "start", "stop", "pause", "resume"):
            self._note(simulation, process, verb, lambda: (process.name,))

    def _watch_times(self, simulation: Simulation) -> None:
        """Watch when clients and faults begin, when faults end, and what befalls disks."""
        begin, heal_core, note = simulation.watchers.begin, simulation.faults.heal_core, simulation.faults._note
        names = {"slow disk": "slow", "full disk": "full"}

        def begins() -> None:
            self._begun = simulation.loop.time()
            begin()

        async def heals() -> list[Process]:
            self._begun = None
            return await heal_core()

        def struck(kind: str, process: Process) -> None:
            if kind in names:
                self.add(simulation, names[kind], (process.name,))
            note(kind, process)

        simulation.watchers.begin = begins  # type: ignore[method-assign]
        simulation.faults.heal_core = heals  # type: ignore[method-assign]
        simulation.faults._note = struck  # type: ignore[method-assign]

    def _watch_calls(self, simulation: Simulation) -> None:
        """Watch what clients call."""
        make = simulation.clients.call

        async def call(name: str, call: Call, patience: float, life: Life | None = None) -> object:
            if name != NEWCOMER:
                peer = next((process.name for process in simulation.processes if life and process.life is life), "-")
                verb = "write" if call.is_write else "read"
                self.add(simulation, verb, (name, f"{patience:g}", peer), call)
            return await make(name, call, patience, life)

        simulation.clients.call = call  # type: ignore[method-assign]


def count_demands(simulation: Simulation) -> list[Call]:
    """Give the list, empty yet, of the calls that a simulation will make to see whether a healed group goes on."""
    demands: list[Call] = []
    make = simulation.clients.call

    async def call(name: str, call: Call, patience: float, life: Life | None = None) -> object:
        if name == NEWCOMER:
            demands.append(call)
        return await make(name, call, patience, life)

    simulation.clients.call = call  # type: ignore[method-assign]
    return demands


def script(simulation: Simulation, acts: Sequence[Act]) -> list[Act]:
    """Let a simulation that has not run yet do these acts and draw none; give the list of those that it has done."""
    done: list[Act] = []

    async def each(chosen: Sequence[Act], act: Callable[[Act], None]) -> None:
        begun = simulation.loop.time()
        for one in chosen:
            await asyncio.sleep(max(begun + one.at - simulation.loop.time(), 0.0))
            act(one)

    async def strike(until: float) -> None:
        await each([act for act in acts if act.verb not in CALLS], fault)
        await asyncio.sleep(max(until - simulation.loop.time(), 0.0))

    async def work(until: float) -> None:
        tasks: list[asyncio.Task[object]] = []
        await each([act for act in acts if act.verb in CALLS], lambda act: make_call(simulation, act, done, tasks))
        await asyncio.gather(*tasks)

    def fault(act: Act) -> None:
        if strikes(simulation, act):
            done.append(act)

    simulation.faults.strike = strike  # type: ignore[method-assign]
    simulation.clients.work = work  # type: ignore[method-assign]
    return done


def make_call(simulation: Simulation, act: Act, done: list[Act], tasks: list[asyncio.Task[object]]) -> None:
    """Begin a call; one from within a process only if it runs."""
    client, patience, peer = act.words
    process = next((process for process in simulation.processes if process.name == peer), None)
    if (process is None) == (peer != "-") or (process and (process.role is None or process.is_paused)):
        return
    assert act.call is not None, "a call says what is called"
    name = client if client in simulation.clients.clients else "client1"
    life = process.life if process else None
    tasks.append(simulation.loop.create_task(simulation.clients.call(name, act.call, float(patience), life)))
    done.append(act)


def strikes(simulation: Simulation, act: Act) -> bool:
    """Inject a fault; tell whether it made sense."""
    nodes = {process.name: process.address.node for process in simulation.processes}
    nodes |= {name: f"{name}:1" for name in simulation.clients.clients}
    network = simulation.network
    match act.verb:
        case "cut":
            ways = [tuple(nodes.get(name, "") for name in word.split(">")) for word in act.words]
            network.cut([(source, target) for source, target in ways if source and target])
        case "heal":
            network.heal()
        case "release":
            network.release(float(act.words[0]))
        case _:
            process = next((process for process in simulation.processes if process.name == act.words[0]), None)
            return process is not None and befalls(simulation, act.verb, process)
    return True


def befalls(simulation: Simulation, verb: str, process: Process) -> bool:
    """Let something befall a process; tell whether it made sense."""
    runs = process.role is not None and process.changing is None
    pace = simulation.profile.pace
    acts: dict[str, tuple[bool, Callable[[], object]]] = {
        "crash": (process.life is not None, process.crash),
        "start": (process.life is None and process.changing is None, process.start),
        "stop": (runs, process.stop),
        "pause": (runs and not process.is_paused, process.pause),
        "resume": (process.is_paused, process.resume),
        "reset": (runs, lambda: simulation.network.reset(process.address.node)),
        "slow": (runs, lambda: slow(process, 0.9 * pace)),
        "full": (runs, lambda: fill(process)),
    }
    makes_sense, act = acts[verb]
    if makes_sense:
        act()
    return makes_sense


def slow(process: Process, latency: float) -> None:
    """Let each write of a disk take that many seconds at most, until all is healed."""
    process.disk_rates = msgspec.structs.replace(process.disk_rates, latency=latency)


def fill(process: Process) -> None:
    """Leave no room for snapshots on a disk, until all is healed."""
    process.snapshots.is_full = lambda: True


# As text.


def line(act: Act, machine: type[StateMachine]) -> str:
    """Write an act on a line."""
    words = [f"{act.at:.{DIGITS}f}", act.verb, *act.words]
    if act.call is not None:
        words += [] if act.call.consistency == "linearizable" else [act.call.consistency]
        words.append(call_text(act.call, machine))
    return " ".join(words)


def parsed(text: str, machine: type[StateMachine]) -> Act:
    """Read such a line.

    Raises:
        ValueError: it is none.
    """
    at, verb, rest = [*text.split(" ", 2), ""][:3]
    if verb not in CALLS:
        return Act(float(at), verb, tuple(rest.split()))
    client, patience, peer, said = rest.split(" ", 3)
    first, _, after = said.partition(" ")
    consistency = first if first in ("lease", "stale") else "linearizable"
    call = call_of(after if consistency != "linearizable" else said, machine, is_write=verb == "write")
    return Act(float(at), verb, (client, patience, peer), msgspec.structs.replace(call, consistency=consistency))


def call_text(call: Call, machine: type[StateMachine]) -> str:
    """Write a call as JSON, its name first; as hexadecimal digits where JSON cannot say it."""
    described = describe(machine)
    encoded = (described.encode_write if call.is_write else described.encode_read)(call.method, call.args)
    try:
        text = msgspec.json.encode(msgspec.msgpack.decode(encoded)).decode()
        if call_of(text, machine, is_write=call.is_write) == call:
            return text
    except (msgspec.MsgspecError, QuorateError, TypeError):
        pass
    return f"0x{encoded.hex()}"


def call_of(text: str, machine: type[StateMachine], *, is_write: bool) -> Call:
    """Read a call.

    Raises:
        ValueError: it is none of this machine's.
    """
    described = describe(machine)
    calls: Calls = described.writes if is_write else described.reads
    encoded = bytes.fromhex(text[2:]) if text.startswith("0x") else msgspec.msgpack.encode(json.loads(text))
    struct = calls.decode(encoded)
    known = calls.by_name[command_name(encoded)]
    method = next((method for method, one in calls.by_method.items() if one is known), None)
    if method is None:
        return Call(struct, (), is_write)
    return Call(method, msgspec.structs.astuple(struct), is_write)
