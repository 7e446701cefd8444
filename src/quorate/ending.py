"""Ending: what was opened comes to its end, though whoever waits for that is cancelled.

Knows tasks; does not know what ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class Ending:
    """The end of something that was opened, such as a node.

    Attributes:
        task: goes on with it once whoever was at it has been cancelled; None until then.
    """

    def __init__(self) -> None:
        """Have nothing to go on with."""
        self.task: asyncio.Task[None] | None = None

    async def reach(self, end: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Carry out what ends it: what may be begun anew, and be under way twice at once.

        Whoever is cancelled meanwhile leaves at once, and may never call again: so it is begun anew in a task of its
        own.

        Raises:
            CancelledError: whoever waits for this was cancelled.
        """
        try:
            await end(*args, **kwargs)
        except asyncio.CancelledError:
            self.task = asyncio.create_task(end(*args, **kwargs), name="let go of what was left")
            raise
