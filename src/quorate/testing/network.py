"""A network that loses, delays, repeats and reorders, with links that are cut one way or both, on virtual time.

Packets between peers suffer all of it. The connections of clients behave as TCP does: what they carry arrives in order
and once, late, or not at all. Knows frames only by their kind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from random import Random
from typing import Protocol

import msgspec

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.testing.clock import VirtualLoop
from quorate.transport import Packet
from quorate.transport.frames import FrameKind, decode_frame
from quorate.transport.memory import MemoryNetwork, MemoryTransport

KIND_BYTE = 3
"""Where a frame's header says its kind."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How bad a network is. Shares are from 0.0 to 1.0, delays in seconds.

    Attributes:
        delay_min: the shortest delay of a frame; above 0.
        delay_max: the longest ordinary delay.
        loss: the share of packets' frames that are lost.
        repeat: the share that arrive twice.
        straggle: the share that take up to 20 times ``delay_max``.
        park: the share that are set aside, for several terms perhaps, until ``SimulatedNetwork.release``.
        fifo: whether frames from one node to another keep their order (those set aside do not).
        hang_up: the share of calls' frames on whose way the connection breaks.
        reply_loss: the share of frames of replies that never arrive; every second time their connection stands, and
            who waits for them learns nothing.
    """

    delay_min: float = 0.0002
    delay_max: float = 0.002
    loss: float = 0.0
    repeat: float = 0.0
    straggle: float = 0.0
    park: float = 0.0
    fifo: bool = True
    hang_up: float = 0.0
    reply_loss: float = 0.0


CALM = Rates()
"""A good network."""


class SimulatedNetwork(MemoryNetwork):
    """What lies between the nodes and clients of a simulation.

    Attributes:
        rates: how bad it is now.
        rates_of: how bad it is from one node to another, where that differs.
        counts: what it did to frames, by kind; where ``Rates.reply_loss`` is above 0, single replies too.
        befell: told of each of these: the kind, the frame's source, its target.
    """

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        """Begin calm and whole."""
        super().__init__()
        self.rates = CALM
        self.rates_of: dict[tuple[str, str], Rates] = {}
        self.counts: Counter[str] = Counter()
        self.befell: Callable[[str, str, str], None] = lambda _kind, _source, _target: None
        self._loop = loop
        self._random = random
        self._cut: dict[tuple[str, str], None] = {}
        self._paused: dict[str, list[Callable[[], None]]] = {}
        self._parked: list[tuple[str, str, Callable[[], None]]] = []
        self._stuck: list[tuple[str, str, Callable[[], None]]] = []
        self._last: dict[tuple[str, str, bool], float] = {}
        self._healed: list[asyncio.Future[None]] = []

    # What becomes of a frame: see ``MemoryNetwork``.

    def deliver(self, source: str, target: str, frame: bytes, arrive: Callable[[], None]) -> None:
        """Carry a frame, or not."""
        if frame[KIND_BYTE] != FrameKind.PACKETS:
            if not self._loses_replies(source, target, frame):
                self._deliver_call(source, target, arrive)
            return
        rates, chance = self.rates_of.get((source, target), self.rates), self._random.random
        if (source, target) in self._cut:
            self._note("cut", source, target)
            return
        if rates.loss and chance() < rates.loss:
            self._note("loss", source, target)
            return
        if rates.park and chance() < rates.park:
            self._note("park", source, target)
            self._parked.append((source, target, arrive))
            if chance() < 0.5:
                return  # Otherwise it arrives now, and once more much later.
        self._send_off(source, target, arrive, in_order=rates.fifo)
        if rates.repeat and chance() < rates.repeat:
            self._note("repeat", source, target)
            self._send_off(source, target, arrive, in_order=False)

    async def reach(self, source: str, target: str) -> None:
        """Let an attempt to connect through, after a delay; across a cut link it waits, or is told so.

        Raises:
            Unavailable: there is no way from source to target, and somebody said so.
        """
        while self._is_cut(source, target):
            if self._random.random() < 0.5:
                raise Unavailable(f"{target}: no route from {source}")
            healed = self._loop.create_future()
            self._healed.append(healed)
            await healed
        await asyncio.sleep(self._delay(source, target))

    def _loses_replies(self, source: str, target: str, frame: bytes) -> bool:
        """Tell whether a frame of replies is lost: the node has answered, and its caller never learns of it."""
        rates = self.rates_of.get((source, target), self.rates)
        if not rates.reply_loss or frame[KIND_BYTE] != FrameKind.REPLIES:
            return False
        is_lost = self._random.random() < rates.reply_loss
        self.counts["reply lost" if is_lost else "reply carried"] += len(decode_frame(frame, len(frame))[1])
        if is_lost and self._random.random() < 0.5:
            self._hang_up(source, target)
        return is_lost

    def _deliver_call(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        """Carry a frame of a connection: in order, and while the link is cut not at all."""
        rates = self.rates_of.get((source, target), self.rates)
        if rates.hang_up and self._random.random() < rates.hang_up:
            self._note("hang up", source, target)
            self._hang_up(source, target)
        elif self._is_cut(source, target):
            self._stuck.append((source, target, arrive))
        else:
            self._send_off(source, target, arrive, in_order=True, is_call=True)

    def _hang_up(self, source: str, target: str) -> None:
        """Break the connections between two."""
        for link in list(self.links):
            if {link.source.address, link.target.address} == {source, target}:
                link.cut("connection reset")

    def _send_off(
        self, source: str, target: str, arrive: Callable[[], None], *, in_order: bool, is_call: bool = False
    ) -> None:
        """Let a frame arrive after a delay."""
        when = self._loop.time() + self._delay(source, target)
        way = (source, target, is_call)
        last = self._last.get(way, 0.0)
        if when >= last:
            self._last[way] = when
        elif in_order:
            when = last
        else:
            self._note("reorder", source, target)
        self._loop.call_at(when, self._arrive, target, arrive)

    def _note(self, kind: str, source: str, target: str) -> None:
        """Count what befell a frame."""
        self.counts[kind] += 1
        self.befell(kind, source, target)

    def _delay(self, source: str, target: str) -> float:
        """Draw a delay."""
        rates, random = self.rates_of.get((source, target), self.rates), self._random
        delay = rates.delay_min + (rates.delay_max - rates.delay_min) * random.random()
        if rates.straggle and random.random() < rates.straggle:
            self._note("straggle", source, target)
            delay *= 20 * random.random()
        return delay

    def _arrive(self, target: str, arrive: Callable[[], None]) -> None:
        """Let a frame arrive, or wait for a paused process to read it."""
        held = self._paused.get(target)
        if held is not None:
            held.append(arrive)
        else:
            arrive()

    def _is_cut(self, source: str, target: str) -> bool:
        """Tell whether a connection between two cannot carry anything: both ways are needed."""
        return (source, target) in self._cut or (target, source) in self._cut

    # Faults.

    def cut(self, ways: Iterable[tuple[str, str]]) -> None:
        """Cut these ways, each from a source to a target, beside those that are cut already."""
        self._cut.update(dict.fromkeys(ways))

    def heal(self, but: Container[tuple[str, str]] = ()) -> None:
        """Mend all links but for these ways; what TCP held back arrives."""
        self._cut = {way: None for way in self._cut if way in but}
        healed, self._healed = self._healed, []
        for future in healed:
            if not future.done():
                future.set_result(None)
        stuck, self._stuck = self._stuck, []
        for source, target, arrive in stuck:
            self._deliver_call(source, target, arrive)

    def release(self, share: float = 1.0) -> None:
        """Let this share of what was set aside arrive, in any order."""
        kept: list[tuple[str, str, Callable[[], None]]] = []
        parked, self._parked = self._parked, kept
        for one in parked:
            if self._random.random() < share:
                self._send_off(*one, in_order=False)
            else:
                kept.append(one)

    def reset(self, address: str) -> None:
        """Break all connections from and to a node, which goes on; some of both sides take the other for gone."""
        for link in list(self.links):
            if address in (link.source.address, link.target.address):
                link.cut("connection reset")
        for other in list(self.nodes):
            self._lose(other, address)
            self._lose(address, other)

    def reset_all(self) -> None:
        """Break all connections; what they carried is lost."""
        self._stuck.clear()
        for link in list(self.links):
            link.cut("connection reset")

    def pause(self, address: str) -> None:
        """Keep what arrives at a paused process."""
        self._paused.setdefault(address, [])

    def resume(self, address: str) -> None:
        """Hand over what arrived meanwhile."""
        for arrive in self._paused.pop(address, ()):
            self._loop.call_soon(arrive)

    def disconnect(self, address: str) -> None:
        """Cut off a process that died; what waited for it to read is lost with it."""
        self._paused.pop(address, None)
        super().disconnect(address)
        for other in list(self.nodes):
            self._lose(other, address)

    def _lose(self, source: str, target: str) -> None:
        """Tell a node, more often than not, that another cannot be reached: it may be wrong or late by then."""
        transport = self.nodes.get(source)
        if transport is None or source == target or self._is_cut(source, target) or self._random.random() < 0.3:
            return

        def tell() -> None:
            if transport.receiver is not None and not transport.stopped:
                self._note("lost", source, target)
                transport.receiver.lose_node(target)

        self._loop.call_at(self._loop.time() + self._delay(source, target), self._arrive, source, tell)


class WatchedTransport(MemoryTransport):
    """A transport whose packets are shown to somebody before they leave."""

    def __init__(
        self,
        network: SimulatedNetwork,
        address: str,
        settings: Settings,
        sent: Callable[[Sequence[Packet]], None],
    ) -> None:
        """Prepare a node at an address; ``sent`` sees what it sends."""
        super().__init__(network, address, settings)
        self._sent = sent

    def send(self, node: str, packets: Sequence[Packet]) -> None:
        """Show packets, and send them."""
        if not self.stopped:
            self._sent(packets)
        super().send(node, packets)


class Shape(Protocol):
    """A way to divide a group: gives the ways that are cut."""

    def __call__(self, nodes: Sequence[str], random: Random) -> list[tuple[str, str]]:
        """Draw the ways to cut."""
        ...


def between(some: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Give both ways of all links between two sets of nodes."""
    rest = list(others)
    return [way for a in some for b in rest if a != b for way in ((a, b), (b, a))]


def halves(nodes: Sequence[str], random: Random) -> list[tuple[str, str]]:
    """Cut the group in two."""
    shuffled = random.sample(nodes, len(nodes))
    place = max(len(nodes) // 2, 1)
    return between(shuffled[:place], shuffled[place:])


def lone(nodes: Sequence[str], random: Random) -> list[tuple[str, str]]:
    """Cut the first one off."""
    return between(nodes[:1], nodes[1:])


def bridge(nodes: Sequence[str], random: Random) -> list[tuple[str, str]]:
    """Cut the group in two halves that only one node, the bridge, still reaches."""
    shuffled = random.sample(nodes, len(nodes))
    place = (len(nodes) - 1) // 2
    return between(shuffled[:place], shuffled[place : len(nodes) - 1])


def ring(nodes: Sequence[str], random: Random) -> list[tuple[str, str]]:
    """Leave each node only its two neighbours in a ring (of three nodes: a chain)."""
    shuffled = random.sample(nodes, len(nodes))
    count = len(nodes)
    near = {(a, (a + step) % count) for a in range(count) for step in (1, count - 1)}
    if count == 3:
        near -= {(0, 2), (2, 0)}
    return [(shuffled[a], shuffled[b]) for a in range(count) for b in range(count) if a != b and (a, b) not in near]


def one_way(nodes: Sequence[str], random: Random) -> list[tuple[str, str]]:
    """Let the first one only send, or only hear."""
    one, *others = nodes
    return [(one, other) for other in others] if random.random() < 0.5 else [(other, one) for other in others]


SHAPES: dict[str, Shape] = {"halves": halves, "lone": lone, "bridge": bridge, "ring": ring, "one way": one_way}
"""The ways to divide a group, by name."""
