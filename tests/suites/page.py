"""Which test covers which name: reads tests/suites.toml, collects every test, and writes docs/reference/suites.md.

``python -m tests.suites.page`` writes the page (``make suites``). A name that no test covers must say what it needs, or
why it makes no sense here; a name that a test covers must not.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
NAMES = ROOT / "tests" / "suites.toml"
PAGE = ROOT / "docs" / "reference" / "suites.md"

HEAD = """\
# Suites

Who builds on a consensus library wants to know against what it was held: the public test suites of the field, and the
mistakes that others made. Each name stands here with the tests that cover it. The page is written by `make suites` from
`tests/suites.toml` and from what the tests claim (`@pytest.mark.covers`), and a test fails when it is out of date. Any
test can be run by itself: `make test ARGS='tests/…'`.
"""


class Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One test of a suite, or one pitfall.

    Attributes:
        means: what it says, in a line.
        needs: what the library lacks before there can be a test.
        never: why there will be none.
    """

    means: str
    needs: str = ""
    never: str = ""


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The names of one source.

    Attributes:
        title: what the page calls it.
        about: a sentence or two.
        names: each with what it means.
    """

    title: str
    about: str
    names: dict[str, Name | str]

    def all(self) -> dict[str, Name]:
        """Give every name in the same form."""
        return {key: Name(name) if isinstance(name, str) else name for key, name in self.names.items()}


def read_suites() -> dict[str, Suite]:
    """Read the list of names, by suite."""
    return msgspec.toml.decode(NAMES.read_bytes(), type=dict[str, Suite])


def claims() -> dict[str, list[str]]:
    """Collect every test, and give those that claim each name, in the order of the files."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "tests.suites.collector", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("covers\t")]
    if done.returncode != 0:
        raise SystemExit(f"the tests cannot be collected:\n{done.stdout}{done.stderr}")
    tests: dict[str, list[str]] = {}
    for line in lines:
        _, name, test = line.split("\t")
        tests.setdefault(name, []).append(test)
    return tests


def faults(suites: Mapping[str, Suite], tests: Mapping[str, object]) -> list[str]:
    """Say what is wrong with the list of names and the tests that claim them."""
    known = {f"{prefix} {key}": name for prefix, suite in suites.items() for key, name in suite.all().items()}
    found = [f"{name}: a test claims it, and tests/suites.toml does not know it" for name in tests if name not in known]
    for full, name in known.items():
        if full in tests and (name.needs or name.never):
            found.append(f"{full}: a test covers it, and tests/suites.toml says that none can")
        elif full not in tests and bool(name.needs) == bool(name.never):
            found.append(f"{full}: no test covers it, and tests/suites.toml does not say why")
    return found


def render(suites: Mapping[str, Suite], tests: Mapping[str, Iterable[str]]) -> str:
    """Write the page."""
    parts = [HEAD, "| suite | names | covered | not yet | not applicable |\n| --- | --- | --- | --- | --- |"]
    for prefix, suite in suites.items():
        names = suite.all()
        covered = sum(f"{prefix} {key}" in tests for key in names)
        never = sum(bool(name.never) for name in names.values())
        parts.append(f"| {suite.title} | {len(names)} | {covered} | {len(names) - covered - never} | {never} |")
    for prefix, suite in suites.items():
        parts.append(f"\n## {suite.title}\n\n{wrap(suite.about)}\n\n| name | says | tests |\n| --- | --- | --- |")
        for key, name in suite.all().items():
            full = f"{prefix} {key}"
            parts.append(f"| {full} | {name.means} | {state_of(name, tests.get(full, ()))} |")
    return "\n".join(parts) + "\n"


def state_of(name: Name, tests: Iterable[str]) -> str:
    """Say which tests cover a name, or why none does."""
    covered = "<br>".join(f"`{test}`" for test in tests)
    return covered or (f"**not yet**: needs {name.needs}" if name.needs else f"**not applicable**: {name.never}")


def wrap(text: str) -> str:
    """Break a paragraph into lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > 120:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return "\n".join(lines)


def main() -> None:
    """Write the page, unless a name is at fault."""
    suites, tests = read_suites(), claims()
    wrong = faults(suites, tests)
    if wrong:
        raise SystemExit("\n".join(wrong))
    PAGE.write_text(render(suites, tests), encoding="utf-8")


if __name__ == "__main__":
    main()
