"""The list of names, the tests that claim them, and the page that shows both."""

from __future__ import annotations

from .page import PAGE, Name, Suite, claims, faults, read_suites, render


def test_the_page_says_what_the_tests_cover() -> None:
    """`make suites` writes it."""
    suites, tests = read_suites(), claims()
    assert faults(suites, tests) == []
    assert PAGE.read_text("utf-8") == render(suites, tests)


def test_the_list_of_names_is_complete() -> None:
    suites = read_suites()
    assert list(suites["pitfall"].names) == [str(number) for number in range(1, 83)]
    counts = {prefix: len(suite.names) for prefix, suite in suites.items() if prefix != "pitfall"}
    assert counts == {"MIT 6.824": 24, "etcd-io/raft": 28, "hashicorp/raft": 9, "toniqsystems/raft": 8 + 2}


def test_each_fault_of_the_list_is_found() -> None:
    names: dict[str, Name | str] = {
        "covered": "yes",
        "forgotten": "no",
        "late": Name("written by now", needs="time"),
        "waits": Name("not written", needs="time"),
        "never": Name("makes no sense", never="there is none"),
    }
    tests = {"suite covered": ["a"], "suite late": ["b"], "suite misspelt": ["c"]}
    suites = {"suite": Suite("Suite", "One.", names)}
    assert faults(suites, tests) == [
        "suite misspelt: a test claims it, and tests/suites.toml does not know it",
        "suite forgotten: no test covers it, and tests/suites.toml does not say why",
        "suite late: a test covers it, and tests/suites.toml says that none can",
    ]
    page = render(suites, {"suite covered": ["tests/a.py::test_a", "tests/b.py::test_b"]})
    assert "| Suite | 5 | 1 | 3 | 1 |" in page
    assert "| suite covered | yes | `tests/a.py::test_a`<br>`tests/b.py::test_b` |" in page
    assert "| suite waits | not written | **not yet**: needs time |" in page
    assert "| suite never | makes no sense | **not applicable**: there is none |" in page
