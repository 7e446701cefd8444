"""The links between nodes: which are cut in which direction, how late and how lossy they are now.

Knows names alone; who carries the bytes asks here what becomes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Pair = tuple[str, str]
"""Who sends, and to whom, by name: the other direction is a link of its own."""


@dataclass(frozen=True, slots=True)
class Link:
    """What becomes of what is sent one way from one node to another.

    Attributes:
        cut: whether nothing arrives.
        delay: how late it arrives, seconds.
        loss: which share of it is lost, from 0 to 1; TCP then sends it again.
    """

    cut: bool = False
    delay: float = 0.0
    loss: float = 0.0


CLEAR = Link()


class Links:
    """What is wrong with each link; several troubles may overlap, and each ends for itself."""

    def __init__(self) -> None:
        """Begin with nothing wrong."""
        self._troubles: list[tuple[frozenset[Pair], Link]] = []
        self._links: dict[Pair, Link] = {}
        self._changed = asyncio.Event()

    def find(self, source: str, target: str) -> Link:
        """Give what becomes of what ``source`` sends to ``target`` now."""
        return self._links.get((source, target), CLEAR)

    @contextlib.contextmanager
    def troubled(self, pairs: Iterable[Pair], trouble: Link) -> Iterator[None]:
        """Make some links worse for as long as the context lasts."""
        entry = frozenset(pairs), trouble
        self._troubles.append(entry)
        self._sum_up()
        try:
            yield
        finally:
            self._troubles.remove(entry)
            self._sum_up()

    async def until_open(self, source: str, target: str) -> None:
        """Wait until a link is not cut."""
        while self.find(source, target).cut:
            await self._changed.wait()

    def _sum_up(self) -> None:
        """Work out each link anew: cut if one trouble cuts it, as late as all together, as lossy as the worst."""
        self._links = {}
        for pairs, trouble in self._troubles:
            for pair in pairs:
                link = self._links.get(pair, CLEAR)
                self._links[pair] = Link(
                    link.cut or trouble.cut, link.delay + trouble.delay, max(link.loss, trouble.loss)
                )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def between(some: Iterable[str], others: Iterable[str]) -> set[Pair]:
    """Give the links between two sets of nodes, both ways."""
    others = list(others)
    return {pair for one in some for other in others for pair in ((one, other), (other, one))}
