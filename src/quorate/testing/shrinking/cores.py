"""The shortest script of inputs to bare cores that violates what a simulation violated, as a scenario text.

Every input that the cores of the failing run were given is known (``recording.py``), and any of them can be left out
(``rehearsal.py``). What the shell around the cores did wrong does not show here: that is for ``worlds.py``.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from quorate.settings import Settings
from quorate.testing.exploration.story import told
from quorate.testing.scenario import ScenarioError, run_text
from quorate.testing.shrinking.minimizing import Budget, minimized
from quorate.testing.shrinking.recording import Recorder, Step, knobs
from quorate.testing.shrinking.rehearsal import Clocks, Outcome, Rehearsal, Ways, command_lines, header, invariant_of

CLOCKS: tuple[Clocks, ...] = ("own", "one", "recorded")
"""How clocks may run, the simplest first."""
EVENTS_MAX = 30
"""A script that is no longer than this is short enough: no other way is tried."""
Class = tuple[str, ...]
"""What some steps have in common."""


@dataclass(slots=True)
class Script:
    """Steps that violate something.

    Attributes:
        recorder: who takes part.
        ways: how they are taken.
        outcome: what came of them.
    """

    recorder: Recorder
    ways: Ways
    outcome: Outcome

    @property
    def events(self) -> int:
        """How many inputs to peers it has. By when they come, a wait says, which is no input."""
        return sum(one.times for one in self.outcome.taken)

    def text(self, head: str) -> str:
        """Give it as a scenario text, with the trace of each step."""
        blocks = [header(self.recorder, self.ways), *command_lines(self.outcome.taken, self.ways)]
        return told(head, blocks, "script", self.outcome.text)


def shrunk_cores(recorder: Recorder, invariant: str, settings: Settings, budget: Budget) -> Script | None:
    """Give a script that violates an invariant, as short as the budget allows.

    Args:
        recorder: what the cores of the failing run were given.
        invariant: its name.
        settings: the knobs of all peers.
        budget: how much may be tried.

    Returns:
        The script; None if the invariant cannot be violated by the cores alone.
    """
    best: Script | None = None
    for script in scripts(recorder, invariant, settings):
        shorter = shortened(script, invariant, budget)
        if best is None or shorter.events < best.events:
            best = shorter
        if best.events <= EVENTS_MAX or budget.is_spent:
            break
    return None if best is None else tidied(best, invariant)


def scripts(recorder: Recorder, invariant: str, settings: Settings) -> Iterator[Script]:
    """Give each way to take all steps that violates the invariant too, the simplest first."""
    if not recorder.fits:
        return
    whole = recorder.steps
    single = [replace(step, words=step.words[:1]) if step.verb == "propose" else step for step in whole]
    for has_slow_disks in (False, True):
        for steps in (single, whole):
            for clocks in CLOCKS:
                script = taken_again(recorder, Ways(clocks, has_slow_disks, settings), steps, invariant)
                if script is not None:
                    yield script


def taken_again(recorder: Recorder, ways: Ways, steps: Sequence[Step], invariant: str) -> Script | None:
    """Take steps; None unless they violate the invariant."""
    outcome = Rehearsal.begin(recorder, ways).play(steps)
    return Script(recorder, ways, outcome) if outcome.invariant == invariant else None


def shortened(script: Script, invariant: str, budget: Budget) -> Script:
    """Leave out steps: first all that have something in common, then any."""

    def attempt(steps: Sequence[Step]) -> list[Step] | None:
        shorter = taken_again(script.recorder, script.ways, steps, invariant)
        return None if shorter is None else [one.step for one in shorter.outcome.taken]

    steps = [one.step for one in script.outcome.taken]
    for name, _ in Counter(trait for step in steps for trait in classes(step)).most_common():
        rest = [step for step in steps if name not in classes(step)]
        if len(rest) < len(steps) and not budget.is_spent:
            budget.spend()
            steps = attempt(rest) or steps
    steps = minimized(steps, attempt, budget)
    shorter = taken_again(script.recorder, script.ways, steps, invariant)
    assert shorter is not None, "what was tried can be tried again"
    return shorter


def classes(step: Step) -> list[Class]:
    """Give what a step shares with others, of which a violation may need none."""
    found: list[Class] = [(step.verb,), (step.verb, step.peer), ("to", step.peer)]
    if step.kind:
        found += [
            (step.verb, step.kind),
            (step.verb, step.kind, step.peer),
            (step.kind, "from", step.other),
            (step.verb, step.kind, step.peer, step.other),
            ("between", *sorted((step.peer, step.other))),
        ]
    return found


def tidied(script: Script, invariant: str) -> Script:
    """Leave out what a reader need not know: other clocks, disks that wait, knobs, peers that do nothing."""
    steps = [one.step for one in script.outcome.taken]
    names = iter(f"c{number}" for number in range(1, 10_000))
    steps = [
        replace(one, words=tuple(next(names) for _ in one.words)) if one.verb == "propose" else one for one in steps
    ]
    silent = [peer for peer in script.recorder.newcomers if not any(takes_part(peer, step) for step in steps)]
    recorder = replace(script.recorder, names={i: n for i, n in script.recorder.names.items() if n not in silent})
    script = taken_again(recorder, script.ways, steps, invariant) or script
    ways = [replace(script.ways, clocks="one"), replace(script.ways, has_slow_disks=False)]
    for way in ways:
        script = no_longer(script, taken_again(script.recorder, way, steps, invariant))
    for knob in knobs(script.ways.settings):
        name, _, _ = knob.partition("=")
        with contextlib.suppress(ValueError):  # Some knobs bound others.
            simpler = msgspec.structs.replace(script.ways.settings, **{name: getattr(Settings(), name)})
            way = replace(script.ways, settings=simpler)
            script = no_longer(script, taken_again(script.recorder, way, steps, invariant))
    return script


def no_longer(script: Script, other: Script | None) -> Script:
    """Give the other script, unless there is none, or it is longer."""
    return script if other is None or other.events > script.events else other


def takes_part(peer: str, step: Step) -> bool:
    """Tell whether a step names a peer."""
    return peer in (step.peer, step.other) or any(word.split("/")[0] == peer for word in step.words)


def violation(text: str, source: str) -> str:
    """Run a scenario; give what is violated, or nothing.

    Where it can no longer be done as it stands, as a fault that it needs is gone, nothing is violated.

    Args:
        text: the scenario.
        source: what messages call it.
    """
    try:
        run_text(text, source)
    except ScenarioError as error:
        if isinstance(error.__cause__, (AssertionError, AttributeError)):
            return f"{invariant_of(str(error))}: {error}"
    return ""
