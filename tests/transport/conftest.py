"""The benches on which transports are tested."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.transport.bench import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Transports over TCP on loopback."""
    made = Bench("tcp")
    yield made
    await made.stop()


@pytest.fixture(params=["tcp", "memory"])
async def any_bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Transports of each kind in turn."""
    made = Bench(request.param)
    yield made
    await made.stop()
