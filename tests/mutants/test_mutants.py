"""The catalogue fits the source, and who runs it neither overlooks a fault nor sees one where none is.

What catches the faults, `make mutants` tells; it takes longer than these tests may.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from . import engines, hunt
from .catalogue import CHAPTERS, ROOT, Edit, Mutant, digest, faults, mutated, planted, read_catalogue
from .engines import (
    Outcome,
    Run,
    check_import,
    check_searches,
    look,
    named_tests,
    read_search,
    read_tests,
    run_command,
    searches,
)
from .page import PAGE, render, verdict
from .trees import PACKAGE, copy, tree_with

SOURCE = ROOT / PACKAGE
FAULT = Mutant("1 is 2", "review", 1, (Edit("core/one.py", "1", "2"),))


@pytest.fixture
def source(tmp_path):
    """Give a package of one file."""
    folder = tmp_path / "quorate"
    (folder / "core").mkdir(parents=True)
    (folder / "core" / "one.py").write_text("one = 1\n")
    return folder


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_fault_can_be_planted_in_the_source_as_it_is(chapter: str) -> None:
    """When this fails, the source has changed: bring ``tests/mutants/CHAPTER.toml`` up to date."""
    wrong = {name: faults(mutant, SOURCE) for name, mutant in read_catalogue()[chapter].items()}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_every_fault_has_a_name_of_its_own_and_tests_that_are_there() -> None:
    catalogue = read_catalogue()
    names = [name for mutants in catalogue.values() for name in mutants]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z_]+", name) for name in names)
    for _, name, mutant in planted(catalogue):
        assert all((ROOT / path).exists() for path in named_tests(mutant)), name
        assert not (mutant.unseen and mutant.gap), f"{name}: either no search can see it, or one lacks something"


def test_the_page_names_every_fault() -> None:
    """`make mutants` writes it."""
    text = PAGE.read_text("utf-8")
    shown = re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)
    assert shown == [name for mutants in read_catalogue().values() for name in mutants]


@pytest.mark.parametrize(
    ("mutant", "said"),
    [
        (Mutant("none", "review"), "it changes nothing"),
        (
            Mutant("missing", "review", 1, (Edit("core/one.py", "2", "3"),)),
            "core/one.py holds 0 times, and not once:\n2",
        ),
        (Mutant("twice", "review", 1, (Edit("core/one.py", " ", ""),)), "core/one.py holds 2 times, and not once:\n "),
        (Mutant("no file", "review", 1, (Edit("core/two.py", "1", "2"),)), "No such file"),
        (Mutant("no code", "review", 1, (Edit("core/one.py", "= 1", "= ="),)), "core/one.py does not compile any more"),
        (Mutant("the same", "review", 1, (Edit("core/one.py", "= 1", "=  1"),)), "core/one.py means what it meant"),
        (Mutant("too early", "review", 1, FAULT.edits, needs="time"), "it needs what is not there yet"),
    ],
    ids=lambda value: value.says if isinstance(value, Mutant) else "",
)
def test_an_entry_that_is_out_of_date_is_found(mutant: Mutant, said: str, source) -> None:
    found = faults(mutant, source)
    assert len(found) == 1
    assert said in found[0]


def test_a_fault_is_planted_by_one_edit_after_the_other(source) -> None:
    edits = (*FAULT.edits, Edit("core/one.py", "2", "3"))
    assert mutated(Mutant("one is three", "review", 1, edits), source) == {"core/one.py": "one = 3\n"}
    assert (source / "core" / "one.py").read_text() == "one = 1\n"


def test_an_outcome_is_kept_under_the_fault_and_what_stands_outside_of_functions_if_it_changes_that(source) -> None:
    before = digest(FAULT, source)
    assert digest(Mutant("told otherwise", "field", 3, FAULT.edits), source) == before
    assert digest(Mutant("1 is 2", "review", 1, (Edit("core/one.py", "1", "3"),)), source) != before
    (source / "core" / "one.py").write_text('"""Counts."""\none = 1  # one\n\n\ndef two(): ...\n')
    assert digest(FAULT, source) == before
    (source / "core" / "one.py").write_text("one = 1\ntwo = 2\n")
    assert digest(FAULT, source) != before


def test_an_outcome_is_kept_under_the_functions_that_its_fault_changes(source) -> None:
    class_ = "class Numbers:\n    def one(self):\n        return 1\n\n    def two(self):\n        return 2\n"
    (source / "core" / "one.py").write_text(class_)
    one, both = (Edit("core/one.py", "return 1", "return 3"),), (Edit("core/one.py", "return 2", "return 3"),)
    of_one, of_both = Mutant("1 is 3", "review", 1, one), Mutant("both are 3", "review", 1, one + both)
    before, before_both = digest(of_one, source), digest(of_both, source)
    (source / "core" / "one.py").write_text(class_.replace("return 2", '"""Gives 2."""\n        return 2  # 2'))
    assert (digest(of_one, source), digest(of_both, source)) == (before, before_both)
    (source / "core" / "one.py").write_text(class_.replace("two(self)", "two(self, of=2)"))
    assert digest(of_one, source) == before
    assert digest(of_both, source) != before_both
    (source / "core" / "one.py").write_text(class_.replace("    def one", "    @cached\n    def one"))
    assert digest(of_one, source) != before


def test_what_is_not_seen_by_a_search_is_looked_for_by_none() -> None:
    assert searches(FAULT) == ("walk", "sim", "explore")
    assert searches(Mutant("shell", "review", 1, (*FAULT.edits, Edit("seat.py", "1", "2")))) == ("sim",)
    assert searches(Mutant("socket", "review", 1, FAULT.edits, unseen="there is none")) == ()


class Engines:
    """Stands in for what runs: gives what each engine is to find, and counts how often it was asked."""

    def __init__(self, **found: str) -> None:
        self.found = found
        self.asked: list[tuple[str, float]] = []
        self.begun: list[int] = []

    def look(self, engine, mutant, tree, sound, seconds_max, first):
        assert (tree / PACKAGE / "core" / "one.py").read_text() == "one = 2\n"
        assert (sound / PACKAGE / "core" / "one.py").read_text() == "one = 1\n"
        self.asked.append((engine, seconds_max))
        self.begun.append(first)
        following = 0 if engine in ("explore", "tests") else first + 5
        return engines.Found(self.found.get(engine, ""), 1.0, following)


@pytest.fixture
def original(source, tmp_path):
    """Give a tree with that package in it."""
    (tmp_path / "original" / "src").mkdir(parents=True)
    source.rename(tmp_path / "original" / PACKAGE)
    return tmp_path / "original"


def outcomes(
    original,
    monkeypatch,
    stand_in: Engines,
    mutant: Mutant = FAULT,
    seconds: float = 600.0,
    *,
    always_test: bool = True,
) -> list[str]:
    """Hunt for a fault; give which engine found what."""
    monkeypatch.setattr(hunt, "look", stand_in.look)
    results = original.parent / "results.jsonl"
    known = hunt.read_results(results)
    found = hunt.Hunt(original, results, known, seconds, always_test=always_test).outcomes("fault", mutant)
    return [f"{outcome.engine} {outcome.found}".strip() for outcome in found]


def test_searches_end_with_the_first_that_finds_the_fault_and_tests_are_asked_if_none_does(
    original, monkeypatch
) -> None:
    found = outcomes(original, monkeypatch, Engines(walk="seed 1", tests="test_a"), always_test=False)
    assert found == ["walk seed 1"]
    found = outcomes(original, monkeypatch, Engines(walk="seed 1", tests="test_a"))
    assert found == ["walk seed 1", "tests test_a"]
    known = Mutant("1 is 2", "review", 3, FAULT.edits, gap="a look at one")
    (original.parent / "results.jsonl").unlink()
    stand_in = Engines()
    found = outcomes(original, monkeypatch, stand_in, known, always_test=False)
    assert found == ["walk", "sim", "explore", "tests"]
    assert stand_in.asked == [("walk", 10.0), ("sim", 10.0), ("explore", 10.0), ("tests", engines.TESTS_SECONDS)]


def test_searches_take_turns_and_each_goes_on_where_it_was(original, monkeypatch) -> None:
    stand_in = Engines()
    outcomes(original, monkeypatch, stand_in, Mutant("1 is 2", "review", 2, FAULT.edits))
    searched = [("walk", 10.0), ("sim", 10.0), ("explore", 10.0), ("walk", 50.0), ("sim", 50.0), ("explore", 60.0)]
    assert stand_in.asked == [*searched, ("tests", engines.TESTS_SECONDS)]
    assert stand_in.begun == [0, 0, 0, 5, 5, 0, 0]


def test_what_was_found_is_not_looked_for_again_and_what_was_not_only_for_longer(original, monkeypatch) -> None:
    first = Engines(tests="test_a")
    outcomes(original, monkeypatch, first, seconds=5.0)
    assert first.asked == [("walk", 5.0), ("sim", 5.0), ("explore", 5.0), ("tests", engines.TESTS_SECONDS)]
    second = Engines()
    outcomes(original, monkeypatch, second, seconds=5.0)
    assert second.asked == []
    third = Engines(sim="seed 2")
    assert outcomes(original, monkeypatch, third) == ["walk", "sim seed 2", "tests test_a"]
    assert third.asked == [("walk", 5.0), ("sim", 5.0)]


def test_a_fault_is_settled_when_it_was_caught_or_all_had_their_time() -> None:
    searched = [Outcome("", engine, "", 10.0, 10.0, "") for engine in searches(FAULT)]
    no_test = Outcome("", "tests", "", 9.0, 9.0, "")
    assert hunt.is_settled(FAULT, [*searched, no_test])
    assert hunt.is_settled(FAULT, [Outcome("", "sim", "", 1.0, 1.0, "seed 1")])
    assert not hunt.is_settled(FAULT, searched)
    assert not hunt.is_settled(FAULT, [*searched[:-1], no_test])
    assert not hunt.is_settled(Mutant("1 is 2", "review", 2, FAULT.edits), [*searched, no_test])
    assert not hunt.is_settled(FAULT, [])


def test_tests_that_found_nothing_are_run_again_for_there_may_be_more_of_them(original, monkeypatch) -> None:
    outcomes(original, monkeypatch, Engines(walk="seed 1"))
    again = Engines(tests="test_a")
    assert outcomes(original, monkeypatch, again) == ["walk seed 1", "tests test_a"]
    assert [engine for engine, _ in again.asked] == ["tests"]


def test_another_source_is_looked_through_anew_and_a_line_cut_short_is_left_out(original, monkeypatch) -> None:
    outcomes(original, monkeypatch, Engines(walk="seed 1", tests="test_a"))
    results = original.parent / "results.jsonl"
    results.write_text(results.read_text() + '{"mutant": "fau')
    assert len(hunt.read_results(results)) == 2
    again = Engines(walk="seed 1", tests="test_a")
    another = Mutant("1 is 2", "review", 1, (*FAULT.edits, Edit("core/one.py", "one", "one")))
    outcomes(original, monkeypatch, again, another)
    assert [engine for engine, _ in again.asked] == ["walk", "tests"]


def test_what_fails_without_the_fault_or_not_again_is_no_catch(monkeypatch, tmp_path) -> None:
    tree, sound = tmp_path / "tree", tmp_path / "sound"
    broken = {"1", "tests/test_a.py::test_a"}
    order = ["tests/test_a.py::test_a", "tests/test_a.py::test_shaky", "tests/test_a.py::test_b"]
    asked: list[str] = []

    def run(command, where, _seconds):
        asked.append(where.name)
        words = " ".join(command)
        if "pytest" in words:
            alone = next((name for name in order if words.endswith(name) and "--deselect" not in words), "")
            if where == sound:
                failed = alone if alone in broken else ""
            elif alone:
                failed = "" if "shaky" in alone else alone
            else:
                failed = order[words.count("--deselect")]
            return Run(int(bool(failed)), f"FAILED {failed} - it does\n" if failed else "", 1.0)
        number = re.search(r"--(?:first|seed) (\d+)", words)
        seed = number[1] if number else "1"
        found = "" if where == sound and seed not in broken else f"seed {seed}: it fails"
        return Run(0, f'{{"found": "{found}", "seconds": 1.0, "next": {int(seed) + 1}}}\n', 1.0)

    monkeypatch.setattr(engines, "run_command", run)
    assert look("walk", FAULT, tree, sound, 10.0) == ("seed 2: it fails", 2.0, 3)
    assert asked == ["tree", "sound"] * 2
    asked.clear()
    assert look("tests", FAULT, tree, sound, 10.0) == ("tests/test_a.py::test_b", 3.0, 0)
    assert asked == ["tree", "tree", "sound"] * 3


def test_what_engines_print_is_read() -> None:
    assert read_search(Run(0, 'noise\n{"found": "", "seconds": 2.5, "next": 7}\n', 9.0)) == ("", 2.5, 7)
    assert read_search(Run(0, '{"found": "a world", "seconds": 2.5}\n', 9.0)) == ("a world", 2.5, 0)
    assert read_search(Run(None, "", 9.0)) == ("it does not come to an end", 9.0, 0)
    assert read_search(Run(-signal.SIGXCPU, "", 9.0)) == ("it does not come to an end", 9.0, 0)
    said = read_search(Run(1, "Traceback\nImportError: no\n", 9.0)).text
    assert said == "nothing runs any more: ImportError: no"
    assert read_tests(Run(0, "5 passed", 9.0)) == ""
    assert read_tests(Run(-9, "", 9.0)) == ""
    assert (
        read_tests(Run(1, "FAILED tests/a.py::test_a[x y] - AssertionError\n1 failed", 9.0))
        == "tests/a.py::test_a[x y]"
    )
    assert read_tests(Run(1, "ERROR tests/a.py", 9.0)) == "tests/a.py"
    assert read_tests(Run(2, "!!! KeyboardInterrupt", 9.0)) == "pytest ends with status 2"
    assert read_tests(Run(None, "", 9.0)) == "the tests do not come to an end"
    with pytest.raises(RuntimeError, match="no test ran"):
        read_tests(Run(5, "no tests ran in 0.01s", 9.0))


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path) -> None:
    child = "import time; time.sleep(60)"
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid); p.wait()"
    run = run_command([sys.executable, "-uc", code], tmp_path, 2.0)
    assert run.status is None
    for _ in range(100):
        listed = subprocess.run(["ps", "-o", "stat=", "-p", run.output.strip()], capture_output=True, text=True)
        if listed.stdout.strip() in ("", "Z"):
            return
        time.sleep(0.05)
    raise AssertionError("the child still runs")


def test_a_run_that_is_ended_takes_nothing_for_a_catch(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engines, "_is_over", threading.Event())
    timer = threading.Timer(0.5, engines.end_all)
    timer.start()
    with pytest.raises(RuntimeError, match="the run was ended"):
        run_command([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 60.0)
    timer.join()


def test_a_fault_that_nothing_finds_is_shown_as_such() -> None:
    known = Mutant("known", "field", 2, FAULT.edits, pitfall=7, gap="something")
    unseen = Mutant("unseen", "history", 1, FAULT.edits, unseen="elsewhere")
    late = Mutant("late", "field", needs="time")
    catalogue = {
        "log": {"caught": FAULT, "survivor": FAULT, "known": known, "unseen": unseen, "late": late, "new": FAULT}
    }
    results = {
        "caught": [
            Outcome("caught", "walk", "", 10.0, 99.0, "seed 1: a | b\nmore"),
            Outcome("caught", "tests", "", 9, 9, ""),
        ],
        "survivor": [Outcome("survivor", "walk", "", 10.0, 10.0, ""), Outcome("survivor", "tests", "", 9, 9, "")],
        "known": [Outcome("known", "sim", "", 10.0, 10.0, ""), Outcome("known", "tests", "", 9, 9, "a::b")],
        "unseen": [Outcome("unseen", "tests", "", 9, 9, "a::b")],
    }
    page = render(catalogue, results)
    assert "| log | 5 | 1 | 2 | 1 | 1 |\n| all | 5 | 1 | 2 | 1 | 1 |" in page
    assert "| `caught` | 1 is 2 | might pass a review | 1 | walk seed 1: a \\| b (99 s) **late** | no test |" in page
    assert "| `known` | known | others made it (pitfall 7) | 2 | not found (sim 10 s): something | `a::b` |" in page
    assert "| `unseen` | unseen | ours, mended since | 1 | none can: elsewhere | `a::b` |" in page
    assert "| `late` | late | others made it | 2 | not yet: needs time | |" in page
    assert "| `new` | 1 is 2 | might pass a review | 1 | not yet run | |" in page
    assert verdict(FAULT, results["survivor"]) == "SURVIVES; not found (walk 10 s); no test"


@pytest.mark.slow
def test_a_search_finds_what_is_planted_in_a_copy_and_nothing_in_the_original(tmp_path) -> None:
    copy(ROOT, tmp_path)
    check_import(tmp_path)
    command = engines.search_command("walk", 60.0, "--seed", "1")
    assert read_search(run_command(command, tmp_path, 60.0)).text == ""
    with tree_with(read_catalogue()["elections"]["vote_without_log_check"], tmp_path) as tree:
        check_import(tree)
        assert read_search(run_command(command, tree, 60.0)).text.startswith("seed 1: leader completeness")
        with pytest.raises(RuntimeError, match="another package is imported"):
            check_import(tree / "src")
        (tree / PACKAGE / "core" / "log.py").write_text("")
        with pytest.raises(RuntimeError, match="walk does not run without any fault"):
            check_searches(tree)
