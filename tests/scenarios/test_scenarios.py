"""Every text in this folder is a test: QUORATE_REWRITE=1 writes the traces anew; then read the difference.

A text that begins with lines ``# covers: NAME, NAME`` shows what those names of tests/suites.toml say.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from quorate.testing.scenario import REWRITE, ScenarioError, check_file, run_text

TEXTS = sorted(Path(__file__).parent.glob("*.txt"))
CLAIM = "# covers: "


def claimed(path):
    """Give the names that a text claims to cover."""
    lines = itertools.takewhile(lambda line: line.startswith(CLAIM), path.read_text("utf-8").splitlines())
    return [name.strip() for line in lines for name in line.removeprefix(CLAIM).split(",")]


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.covers(*claimed(path)), id=path.stem) for path in TEXTS]
)
def test_scenario(path):
    check_file(path)


# The runner itself.

STORY = """\
# Comments and blank lines stay where they are.

peers 1
timeout 1 quiet  # as do these

log
----
1: 1 2

# Nothing to tell is told.
wait 1.0
----
ok
"""


def test_the_trace_takes_the_place_of_what_was_expected():
    assert run_text(STORY, "story") == STORY
    other = STORY.replace("1: 1 2\n", "anything\nelse\n").replace("ok\n", "")
    assert run_text(other, "story") == STORY


def test_a_file_is_compared_or_rewritten(tmp_path, monkeypatch):
    path = tmp_path / "story.txt"
    path.write_text(STORY.replace("1: 1 2", "1: 1 2 3"))
    monkeypatch.delenv(REWRITE, raising=False)
    with pytest.raises(AssertionError, match="leaves another trace"):
        check_file(path)
    monkeypatch.setenv(REWRITE, "1")
    check_file(path)
    assert path.read_text() == STORY
    monkeypatch.delenv(REWRITE)
    check_file(path)


def test_a_scenario_leaves_the_same_trace_each_time():
    text = next(path for path in TEXTS if path.stem == "figure_8").read_text()
    assert run_text(text, "figure_8") == run_text(text, "figure_8")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("dance 1", "unknown command 'dance'; known are peers, given"),
        ("timeout 4", "there is no peer '4'"),
        ("timeout", "timeout cannot be done"),
        ("cut 1>9", "there is no peer '9'"),
        ("deliver 7>1", "there is no peer '7'"),
        ("peers 10", "1 to 9 peers"),
        ("peers 3 dice=2", "no attribute 'dice'"),
        ("release never", "release cannot be done"),
        ("persist 1", "persist cannot be done"),
        ("crash 1\ntimeout 1", "1 is down"),
        ("propose 1 'a", "No closing quotation"),
        ("new 4 x", "new cannot be done"),
        ("change 1 1 4", "there is no peer '4'"),
        ("change 1 1/chief", "change cannot be done"),
        ("snapshot 1", "1 can take a snapshot above 0 up to 0"),
        ("shipped 1 2", "no snapshot is under way from 1 to 2"),
    ],
)
def test_what_makes_no_sense_is_named_with_file_and_line(command, reason):
    line = 3 + command.count("\n")
    with pytest.raises(ScenarioError, match=f"^story.txt:{line}: .*{reason}"):
        run_text(f"peers 3\n\n{command}\n----\n", "story.txt")


def test_commands_without_an_expectation_are_an_error():
    with pytest.raises(ScenarioError, match="the last commands have no ---- after them"):
        run_text("peers 1\ntimeout 1\n", "story.txt")
