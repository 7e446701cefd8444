"""Mutants are what they say they are, are judged by the tests that reach them, and survivors have reasons that hold.

What the score is, `make score` tells; it takes longer than these tests may.
"""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from .results import (
    CORE,
    RESULTS,
    ROOT,
    Line,
    Outcome,
    add_outcome,
    encode_outcomes,
    interval,
    read_first_outcomes,
    read_outcomes,
    remaining_tests,
    settled,
)
from .sources import Function, Mutant, functions
from .survivors import Reason, by_place, check, read_reasons

TEXT = """\
    def larger(self, one: int) -> int:
        # The larger of two.
        if one > 1 and self:
            return one
        return max(one, 2)
"""
FUNCTION = Function("some.py", "Some.larger", 3, TEXT)
SOURCE = f"ONE = 1\nclass Some:\n{TEXT}TWO = 2\n"
MUTANT = Mutant(FUNCTION, TEXT.replace("return one", "return None"), range(6, 7))


def edits(function: Function) -> list[str]:
    """Give every change of a function in a line."""
    mutations = pytest.importorskip("tests.score.mutations", reason="`make score` installs mutmut")
    return [" -> ".join(mutant.edit) for mutant in mutations.mutants(function)]


def test_every_small_change_of_a_function_is_a_mutant() -> None:
    line = "if one > 1 and self:"
    assert sorted(edits(FUNCTION)) == sorted(
        [
            f"{line} -> if one >= 1 and self:",
            f"{line} -> if one > 2 and self:",
            f"{line} -> if one > 1 or self:",
            f"{line} -> if (one > 1):",
            f"{line} -> if (self):",
            f"{line} -> if True:",
            f"{line} -> if False:",
            "return one -> pass",
            "return max(one, 2) -> pass",
            "return max(one, 2) -> return min(one, 2)",
            "return max(one, 2) -> return max(one, 3)",
            "return max(one, 2) -> return max(one, None)",
            "return max(one, 2) -> return max(None, 2)",
            "return max(one, 2) -> return max(one, )",
            "return max(one, 2) -> return max(2)",
        ]
    )


def test_annotations_docstrings_and_what_does_not_compile_are_no_mutants() -> None:
    lines = [
        'def one(two: "str" = "2") -> "int":',
        '"It is one."',
        "while two: break",
        'assert two, "!"',
        "return len(two)",
    ]
    text = "\n    ".join(lines) + "\n"
    assert edits(Function("one.py", "one", 1, text)) == [
        "while two: break -> while False: break",
        "while two: break -> while two: return",
        "return len(two) -> pass",
    ]


def test_a_mutant_is_put_where_its_function_stands() -> None:
    assert MUTANT.source(SOURCE) == SOURCE.replace("return one", "return None")
    assert MUTANT.edit == ("return one", "return None")
    assert MUTANT.place == ("some.py", "Some.larger", "return one", "return None")


def test_a_mutant_keeps_its_key_when_what_stands_before_it_grows_and_no_longer() -> None:
    moved = Function("some.py", "Some.larger", 30, TEXT)
    assert Mutant(moved, MUTANT.text, range(33, 34)).key == MUTANT.key
    changed = Function("some.py", "Some.larger", 3, TEXT.replace("The larger", "The greater"))
    assert Mutant(changed, MUTANT.text, range(6, 7)).key != MUTANT.key


def test_functions_are_found_with_their_lines(tmp_path) -> None:
    (tmp_path / "some.py").write_text(SOURCE)
    assert list(functions(tmp_path)) == [FUNCTION]


def test_outcomes_are_kept_and_a_line_cut_short_is_left_out(tmp_path) -> None:
    path = tmp_path / "score.jsonl"
    first, second = Outcome("a", ("1",)), Outcome("a", ("2",), "test_two", is_late=True)
    add_outcome(first, path)
    add_outcome(second, path)
    path.write_bytes(path.read_bytes() + b'{"tests":["2"],"mutants":["b"')
    assert read_outcomes([path]) == {"a": second}
    assert read_first_outcomes([path]) == {"a": first}
    assert read_outcomes([tmp_path / "none"]) == {}


def test_when_nothing_is_left_to_run_all_that_is_known_is_kept_in_a_few_lines(tmp_path) -> None:
    """Also that a mutant survived before a test was written for it; nothing of mutants that are no more."""
    known = {
        "a": Outcome("a", ("1",), "test_one"),
        "b": Outcome("b", ("1",), "test_one"),
        "c": Outcome("c", ("2",), "test_two", is_late=True),
        "d": Outcome("d", ("1",)),
        "gone": Outcome("gone", ("1",), "test_one"),
    }
    path = tmp_path / "results.jsonl"
    path.write_bytes(encode_outcomes(settled("abcd", known, known | {"b": Outcome("b", ("2",))}, ["2", "1"])))
    assert len(path.read_text().splitlines()) == 4
    assert read_outcomes([path]) == {name: known[name] for name in "abc"} | {"d": Outcome("d", ("1", "2"))}
    first = read_first_outcomes([path])
    assert [name for name in "abcd" if not first[name].by] == ["b", "d"]


def test_what_is_kept_in_the_repository_can_be_read_to_the_last_line() -> None:
    """`make score` writes it."""
    for line in RESULTS.read_text("utf-8").splitlines():
        msgspec.json.decode(line, type=Line)


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (None, ["1", "2"]),
        (Outcome("a", ("2",), "test_two"), []),
        (Outcome("a", ("3",), "test_three_as_it_was"), ["1", "2"]),
        (Outcome("a", ("1",)), ["2"]),
        (Outcome("a", ("1", "2")), []),
    ],
    ids=["unknown", "killed", "killed by what is another test now", "survived what is fewer now", "survived"],
)
def test_only_tests_that_are_new_are_run_again(outcome, left) -> None:
    assert remaining_tests(outcome, ["1", "2"], {"1", "2", "4"}) == left


def test_the_score_of_a_part_says_how_sure_it_is() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    low, high = interval(90, 100)
    assert (round(low, 3), round(high, 3)) == (0.826, 0.945)  # as tables have it
    assert interval(100, 100)[1] == pytest.approx(1.0)


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor() -> None:
    killed, survived = Outcome(MUTANT.key, ("1",), "test"), Outcome(MUTANT.key, ("1",))
    reason = {"some.py": [Reason("Some.larger", "return one", ["return None"], "open", "Nobody asks.")]}
    assert check([MUTANT], {MUTANT.key: survived}, reason) == []
    assert check([MUTANT], {MUTANT.key: killed}, {}) == []
    assert check([MUTANT], {}, reason) == []
    (said,) = check([MUTANT], {MUTANT.key: survived}, {})
    assert said.startswith("some.py Some.larger: it survives, and has no reason")
    (said,) = check([MUTANT], {MUTANT.key: killed}, reason)
    assert said.startswith("some.py Some.larger: it is killed")
    (said,) = check([], {}, reason)
    assert said.startswith("some.py Some.larger: there is no such mutant")


def test_every_reason_is_about_lines_that_are_there() -> None:
    """When this fails, the source has changed: bring ``tests/score/survivors.toml`` up to date."""
    texts = {(function.file, function.name): function.text for function in functions(CORE)}

    def lines(text: str) -> str:
        return "\n".join(line.strip() for line in text.splitlines())

    reasons = read_reasons()
    assert [
        f"{file} {name}: {was}"
        for file, name, was, _ in by_place(reasons)
        if lines(was) not in lines(texts[file, name])
    ] == []
    places = [
        (file, reason.function, reason.was, now) for file in reasons for reason in reasons[file] for now in reason.now
    ]
    assert len(places) == len(set(places)), "each mutant has one reason"


def test_the_page_has_every_reason() -> None:
    """`make score` writes it."""
    page = " ".join((ROOT / "docs" / "reference" / "mutation-score.md").read_text("utf-8").split())
    assert [reason.why for found in read_reasons().values() for reason in found if reason.why not in page] == []


JUDGED = """
from tests.score import judge
from tests.score.sources import Mutant, functions

(found,) = [function for function in functions(judge.CORE) if function.name == "majority"]
last = found.text.splitlines()[-1]
lines = range(found.first, found.first + len(found.text.splitlines()))
changes = {"late": "    while True: pass", "killed": "    return voters", "survived": "    return 1 + voters // 2"}
names = {found.text.replace(last, text): name for name, text in changes.items()}
mutants = [Mutant(found, text, lines) for text in names]

def plan(tests):
    reaching = [name for name, test in tests.items() if set(lines) & set(test.lines.get("quorum.py", ()))]
    return [(mutant, reaching) for mutant in mutants]

def tell(mutant, outcome):
    print("told", names[mutant.text], bool(outcome.by), outcome.is_late)

judge.TESTS = ("tests/core/test_quorum.py",)
judge.REACH = judge.Path(r"{reach}")
judge.SECONDS_MIN = 0.2
judge.run(judge.Judge(plan, tell, 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a mutant is run in a fork")
def test_a_mutant_is_killed_by_the_tests_that_reach_it_or_survives_them(tmp_path) -> None:
    pytest.importorskip("coverage", reason="`make score` installs it")
    program = JUDGED.replace("{reach}", str(tmp_path / "reach.json"))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    told = sorted(line for line in done.stdout.splitlines() if line.startswith("told"))
    assert told == ["told killed True False", "told late True True", "told survived False False"], (
        done.stdout + done.stderr
    )
