"""The public names: what ``quorate`` exports, what the reference documents and what this file expects are the same."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quorate
import quorate.errors

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"

EXPECTED = (
    "Address",
    "ChangeInProgress",
    "Client",
    "Command",
    "ConfigurationError",
    "Context",
    "Corrupted",
    "DiskFull",
    "InvalidConfiguration",
    "MachineError",
    "MemberStatus",
    "Node",
    "NotCommitted",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "Peer",
    "Query",
    "QuorateError",
    "Rejected",
    "SessionExpired",
    "Settings",
    "StaleRead",
    "StateMachine",
    "Status",
    "Stopped",
    "StoreError",
    "StoreLocked",
    "TLS",
    "Unavailable",
    "connect",
    "read",
    "write",
)


def test_exported_names_are_the_expected_ones() -> None:
    assert tuple(sorted(quorate.__all__)) == EXPECTED
    assert [name for name in quorate.__all__ if not hasattr(quorate, name)] == []


def test_nothing_else_looks_public() -> None:
    modules = {module.name for module in pkgutil.iter_modules(quorate.__path__)}
    visible = {name for name in vars(quorate) if name[0] not in "_@"}  # pytest adds names that begin with @
    assert visible - modules - set(EXPECTED) - {"annotations"} == set()


def test_every_error_is_exported() -> None:
    classes = {name: thing for name, thing in vars(quorate.errors).items() if isinstance(thing, type)}
    assert {name for name, thing in classes.items() if issubclass(thing, Exception)} - set(EXPECTED) == set()


def test_every_public_name_is_documented_once_and_no_other() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in sorted(REFERENCE.glob("*.md")))
    modules = {module.name for module in pkgutil.iter_modules(quorate.__path__)}
    documented = [name for name in re.findall(r"^::: quorate\.(\w+)$", pages, re.MULTILINE) if name not in modules]
    assert tuple(sorted(documented)) == EXPECTED


@pytest.mark.parametrize("extra", ["rich", "uvloop", "rocksdict", "lmdb", "pytest", "hypothesis"])
def test_importing_quorate_imports_no_extra(extra: str) -> None:
    program = f"import sys, quorate; sys.exit({extra!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
