"""Idle groups say next to nothing: heartbeats share frames, and nobody has a turn without a reason. Virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from quorate import Settings
from quorate.loop import Loop
from quorate.machines import KV
from quorate.seat import Seat

from .virtual import World, address_of, run_world

SETTINGS = Settings()
BEATS = 100
SPAN = BEATS * SETTINGS.heartbeat_interval
GROUPS = 20


class Turns:
    """Counts turns of seats and of loops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seats: Counter[str] = Counter()
        self.timers = self.loops = 0
        take_inputs, wake_due, turn = Seat.take_inputs, Loop._wake_due, Loop._turn

        def count_inputs(seat: Seat, now: float) -> None:
            self.seats[seat.name] += 1
            take_inputs(seat, now)

        def count_timer(loop: Loop) -> None:
            self.timers += 1
            wake_due(loop)

        def count_turn(loop: Loop) -> None:
            self.loops += 1
            turn(loop)

        monkeypatch.setattr(Seat, "take_inputs", count_inputs)
        monkeypatch.setattr(Loop, "_wake_due", count_timer)
        monkeypatch.setattr(Loop, "_turn", count_turn)

    def forget(self) -> None:
        self.seats.clear()
        self.timers = self.loops = 0


async def idle(world: World, turns: Turns) -> None:
    """Let everything settle, also the deadlines of earlier calls; then count for so many heartbeats."""
    await asyncio.sleep(SETTINGS.call_timeout + 1.0)
    world.network.forget()
    turns.forget()
    await asyncio.sleep(SPAN)


@pytest.mark.parametrize("spread", [False, True], ids=["one leader node", "leaders everywhere"])
def test_heartbeats_of_all_groups_between_two_nodes_share_one_frame(
    monkeypatch: pytest.MonkeyPatch, spread: bool
) -> None:
    turns = Turns(monkeypatch)

    async def tell(world: World) -> None:
        for n in range(GROUPS):
            names = [f"{letter}{n}" for letter in "abc"]
            leader = (await world.form(KV, *names))[0]
            wanted = names[n % 3 if spread else 0]
            if leader.address.name != wanted:
                await leader.transfer_leadership(wanted)
        await idle(world, turns)
        peers = [peer for node in world.nodes for peer in node.peers]
        leaders = [peer for peer in peers if peer.status().role == "leader"]
        assert len(leaders) == GROUPS
        if not spread:
            assert len({address_of(peer) for peer in leaders}) == 1
        # A heartbeat and its reply for each follower of each group, and nothing else.
        said = 2 * GROUPS * BEATS
        assert set(world.network.packets) == {"append", "appended"}
        for count in world.network.packets.values():
            assert said - 2 * GROUPS <= count <= said + 2 * GROUPS
        # Each way one frame an interval, of heartbeats or of replies; of each if both nodes lead.
        a = address_of(leaders[0])
        for (source, target), count in world.network.frames.items():
            assert count <= (2 if spread else 1) * BEATS + 2, (source, target)
        if not spread:
            assert all(a in link for link in world.network.frames)
        led = {peer.address.name for peer in leaders}
        for name, count in turns.seats.items():
            # A leader: to speak, and to hear each of two nodes. A follower: to hear.
            assert count <= (3 if name in led else 1) * BEATS + 3, name
        # Turns of whole nodes: to speak, to hear, and here and there to look after the deadline of an earlier call.
        assert turns.loops <= (3 * (1 + 2 + 2) if spread else 5) * BEATS + GROUPS
        assert turns.timers <= 3 * BEATS + 2 * GROUPS

    run_world(3, SETTINGS, tell)


def test_a_lone_voter_that_is_idle_has_no_turn_at_all_and_its_reads_are_as_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch)

    async def tell(world: World) -> None:
        (peer,) = await world.form(KV, "a", nodes=1)
        await peer.write(KV.set, "key", "value")
        await asyncio.sleep(30.0)
        turns.forget()
        await asyncio.sleep(600.0)
        assert (turns.loops, turns.timers, dict(turns.seats)) == (0, 0, {})
        stale = await peer.read_stale(KV.get, "key")
        assert stale.value == "value"
        assert stale.age == 0.0, "nobody else can have led"
        assert await peer.with_options(consistency="lease").read(KV.get, "key") == "value"
        assert await peer.read(KV.get, "key") == "value"
        # It beats again as soon as there is somebody to hear it.
        other = await world.nodes[1].start_peer(KV, name="b", join=str(peer.address))
        await world.until(lambda: other.status().last_applied == peer.status().last_index)
        await idle(world, turns)
        assert BEATS - 2 <= world.network.packets["append"] <= BEATS + 2
        age = (await peer.read_stale(KV.get, "key")).age
        assert 0.0 <= age <= 2 * SETTINGS.heartbeat_interval

    run_world(2, SETTINGS, tell)
