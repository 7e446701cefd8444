"""docs/reference/specification.md names what is there: actions, guards, functions, and the tests that saw them fail."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from quorate import Node
from quorate.testing import Simulation

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "specification.md").read_text("utf-8")
INVARIANTS = [row.split(" | ") for row in PAGE.partition("| invariant |")[2].splitlines()[2:] if row.startswith("| ")]
WANTED = {
    "ElectionSafety",
    "VoteOnce",
    "TermMonotonic",
    "LeaderAppendOnly",
    "LogMatching",
    "LeaderCompleteness",
    "StateMachineSafety",
    "CommitMonotonic",
    "AppliedMonotonic",
    "AppliedIsCommitted",
    "CommittedOnQuorum",
    "AckedPrefixDurable",
    "ConfigFromLog",
    "QuorumsOverlap",
    "OnePendingConfig",
    "SnapshotPrefix",
    "NoHole",
    "DigestEqual",
    "ReadFloor",
    "NothingLeaks",
    "PersistBeforeSend",
}


def is_defined(path: Path, name: str) -> bool:
    """Tell whether a file defines a function or a method of that name."""
    text = path.read_text("utf-8")
    owner, _, function = name.rpartition(".")
    return (
        re.search(rf"^ *(async )?def {function}\(", text, re.MULTILINE) is not None
        and re.search(rf"^class {owner}\b" if owner else "", text, re.MULTILINE) is not None
    )


def test_each_invariant_of_the_bar_stands_there_once():
    names = [row[0].strip("| ") for row in INVARIANTS]
    assert sorted(set(names)) == sorted(names)
    assert set(names) >= WANTED


def test_each_is_checked_by_what_is_there_and_was_seen_to_fail_in_what_is_there():
    for name, _, predicates, seen in INVARIANTS:
        checks = re.findall(r"`([\w/]+\.py):([\w.]+)`", predicates)
        tests = re.findall(r"`(tests/[\w/]+\.py):(\w+)`", seen)
        assert checks, name
        assert tests, name
        for path, function in checks:
            assert is_defined(ROOT / "src" / "quorate" / path, function), f"{name}: {path}:{function}"
        for path, function in tests:
            assert is_defined(ROOT / path, function), f"{name}: {path}:{function}"


def test_the_actions_and_guards_are_those_of_the_specification():
    source = (ROOT / "src" / "quorate" / "testing" / "specification" / "actions.py").read_text("utf-8")
    rows = PAGE.partition("| action |")[2].partition("\n\n")[0].splitlines()[2:]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    taken = set(re.findall(r'take\(\s*world, "(\w+)"', source)) | {"ConfigurationChange", "ClientRequest"}
    assert told == taken
    demanded = set(re.findall(r'demand\("(\w+)"', source))
    for row in rows:
        listed = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]*)+\b", row.split(" | ")[2])) - told
        assert listed <= demanded, listed - demanded


def task_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, left = Node.stop, []

    async def stop_and_leave(self: Node) -> None:
        await stop(self)
        left.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))

    monkeypatch.setattr(Node, "stop", stop_and_leave)


def test_a_task_that_is_left_behind_is_seen(monkeypatch):
    task_left_behind(monkeypatch)
    assert (Simulation(0).run().failure or "").startswith("NothingLeaks")
