"""Strictness for every test: no task, thread or unseen error outlives it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Generator
from typing import Any

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

pytest_plugins = ["pytester"]

GRACE = 10.0  # seconds for a thread that was told to end; never waited for when all is well
THREADS = pytest.StashKey[set[threading.Thread]]()

# The same examples on every run, and no judgement by the clock.
hypothesis.settings.register_profile("quorate", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("quorate")
set_hypothesis_home_dir(".venv/cache/hypothesis")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put ``strict_loop`` before the fixtures of each asynchronous test, so that it is torn down after them."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "strict_loop")


@pytest.fixture
async def strict_loop() -> AsyncIterator[None]:
    """Run the loop in debug mode, and fail a test that leaves a task behind or an exception that nobody saw."""
    loop = asyncio.get_running_loop()
    unseen: list[str] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        unseen.append(f"{context['message']}: {context.get('exception')!r}")

    loop.set_debug(True)
    loop.set_exception_handler(note)
    before = asyncio.all_tasks()
    yield
    for _ in range(10):  # let what was cancelled, and connections just closed, come to their end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {sorted(map(repr, left))}"
    assert not unseen, f"errors that nobody saw: {unseen}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Note the threads that run before the test."""
    item.stash[THREADS] = set(threading.enumerate())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that leaves a thread running, a daemon thread too."""
    result = yield
    before = item.stash[THREADS]
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(GRACE)
    alive = sorted(thread.name for thread in left if thread.is_alive())
    assert not alive, f"threads left running: {alive}"
    return result
