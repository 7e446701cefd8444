"""What an exploration found, as a scenario text that does it again: ``quorate.testing.scenario`` replays it.

Messages that are lost are left in flight there, and never arrive. Explores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from quorate.settings import Settings
from quorate.testing.exploration.inputs import Input, give
from quorate.testing.exploration.profiles import SETTINGS, Profile, first_peers
from quorate.testing.scenario import Scenario, ScenarioError, parse


def story(profile: Profile, inputs: Sequence[tuple[Input, bool]], failure: str) -> str:
    """Tell what led to a failure, with the trace of all but the last step, which fails when it is replayed.

    Args:
        profile: where it began.
        inputs: what happened from there, and whether what arrives may arrive again.
        failure: what was broken at last.

    Raises:
        AssertionError: nothing is broken when it is told.
    """
    said, *_ = failure.splitlines()  # pytest adds lines to what an assertion says.
    head = f"# Profile {profile.name}, at the end: {said}.\n"
    return told(head, [beginning(profile), *steps(profile, inputs)], profile.name, failure)


def told(head: str, blocks: Iterable[Sequence[str]], source: str, failure: str) -> str:
    """Give a scenario that fails, with the trace of all blocks but the last, which fails when it is replayed.

    Args:
        head: comments.
        blocks: the command lines of each block.
        source: what error messages call it.
        failure: what is broken at last.

    Raises:
        AssertionError: nothing is broken when it is told.
    """
    scenario, text = Scenario(), head
    for lines in blocks:
        trace: list[str] = []
        block = "\n".join([*lines, "----"])
        try:
            for line in lines:
                step = parse(line, source)
                trace += scenario.run(step, source) if step else []
        except ScenarioError:
            # Whoever watches a whole group may see what is wrong some steps before its consequence.
            return f"{text}\n{block}\n"
        text = "\n".join([text, block, *(trace or ["ok"]), ""])
    raise AssertionError(f"what was found does not come about again: {failure}\n{text}")


def beginning(profile: Profile) -> list[str]:
    """Give the command lines that make the group."""
    plain = Settings()
    knobs = [
        f"{field.name}={getattr(SETTINGS, field.name)}"
        for field in msgspec.structs.fields(Settings)
        if getattr(SETTINGS, field.name) != getattr(plain, field.name)
    ]
    lines = [" ".join(["peers", str(profile.voters), *knobs])]
    for number, terms in enumerate(profile.logs, 1):
        lines.append(f"given {number} log={','.join(map(str, terms))} term={profile.term}")
    if profile.newcomers:
        lines.append(" ".join(["new", *profile.newcomers]))
    if profile.writes_max:
        lines += [f"hold-disk {name}" for name in first_peers(profile)]
    return lines


def steps(profile: Profile, inputs: Sequence[tuple[Input, bool]]) -> Iterator[list[str]]:
    """Give the command lines of each input."""
    peers = dict(first_peers(profile))
    flight: list[Input] = []
    for given, is_kept in inputs:
        lines = [f"wait {given.wait:g} {given.peer}"] if given.wait else []
        lines.append(command(profile, given, flight, is_kept=is_kept))
        if given.verb == "crash":
            lines.append(f"restart {given.peer}")
            lines += [f"hold-disk {given.peer}"] if profile.writes_max else []
        try:
            outcome = give(peers[given.peer], given, profile)
        except AssertionError:
            yield lines
            return
        peers[given.peer] = outcome.peer
        if given.verb == "deliver":
            flight.remove(given)
        flight += outcome.sent
        flight += [given] if is_kept else []
        yield [*lines, *[f"persist {given.peer}"] * outcome.passed]


def command(profile: Profile, given: Input, flight: Sequence[Input], *, is_kept: bool) -> str:
    """Give the command line of one input; of a message, by its place among those of its kind on its link."""
    match given.verb:
        case "deliver":
            link = [
                other
                for other in flight
                if (other.peer, other.other, tag(other)) == (given.peer, given.other, tag(given))
            ]
            word = "repeat" if is_kept else "deliver"
            nth = f" nth={link.index(given) + 1}" if len(link) > 1 else ""
            return f"{word} {given.other}>{given.peer} kind={tag(given)}{nth}"
        case "timeout" | "campaign" | "heartbeat":
            return f"tick {given.peer}"
        case "propose":
            return f"propose {given.peer} {given.command}"
        case "change":
            return f"change {given.peer} {' '.join(profile.change)}"
        case "shipped" | "not-shipped":
            return f"{given.verb} {given.peer} {given.other}"
        case "persist" | "crash" | "snapshot":
            return f"{given.verb} {given.peer}"


def tag(given: Input) -> str:
    """Give the kind of a message, as a scenario names it."""
    return str(given.message.__struct_config__.tag) if given.message is not None else ""
