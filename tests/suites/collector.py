"""A pytest plugin that prints which collected tests claim which names: ``covers``, name and test, between tabs.

A function all of whose variants claim a name stands there without its parameters.
"""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print the claims."""
    functions = Counter(plain(item) for item in session.items)
    claims: dict[str, list[pytest.Item]] = {}
    for item in session.items:
        for name in dict.fromkeys(name for mark in item.iter_markers("covers") for name in mark.args):
            claims.setdefault(name, []).append(item)
    for name, items in claims.items():
        claiming = Counter(map(plain, items))
        ids = (plain(item) if claiming[plain(item)] == functions[plain(item)] else item.nodeid for item in items)
        for test in dict.fromkeys(ids):
            print(f"covers\t{name}\t{test}")


def plain(item: pytest.Item) -> str:
    """Give a test's id without its parameters."""
    return item.nodeid.partition("[")[0]
