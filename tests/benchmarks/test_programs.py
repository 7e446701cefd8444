"""The programs of the harness fit the library as it is: each can be started, which is all that is shown here."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks.programs


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.programs.__path__)])
def test_a_program_can_be_imported(name: str) -> None:
    if name == "pysyncobj_node":
        pytest.importorskip("pysyncobj")
    importlib.import_module(f"benchmarks.programs.{name}")
