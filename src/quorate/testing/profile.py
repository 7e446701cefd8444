"""What one seed draws before its run begins: how many peers, which knobs, how bad the network and the disks are.

A uniform world hides faults: so sizes, batches, windows, delays and timeouts differ by orders of magnitude from run to
run, and so does what a run costs. There are three kinds of worlds:

- **usual**: some ten seconds in which everything goes on beside everything else: members join and leave, snapshots are
  taken and sent, leadership is handed over, while processes and links fail. Most of what was ever found needed several
  of these in a row. Three runs in a hundred are such, and they take an eighth of the time.
- **short**: the same for half a second, or for up to a second and a half, in which things go wrong several times as
  often. Eighty-seven in a hundred: what a fault needs that comes early is hit by number.
- **slow**: ten in a hundred. The group's timeouts are ten to three hundred times as long, as are the faults and the
  pauses between them, and those of clients and operators, who are as impatient as ever when they ask. Messages and
  disks are hardly slower. Hours pass with few events in them, and everything is quick beside an election: what rests
  on the order of timers, and not on that of messages, shows.

In a fifth of each the machine emits events, which two watch, and sets timers: see ``telling.py``.
"""

from __future__ import annotations

from random import Random

import msgspec

from quorate.settings import KIB, MIB, Settings
from quorate.testing.network import Rates
from quorate.types import MemberKind

SIZES = (1, *(2,) * 2, *(3,) * 6, *(4,) * 2, *(5,) * 9)
PROCESSES_MAX = 7
"""The most processes of a run: those that form the group, and those that may join it."""


WORLDS = (3, 87, 10)
"""How many usual, short and slow worlds there are among a hundred."""


TELLING_SHARE = 0.2
"""In how many of them the machine emits events and sets timers."""


EVENTS_BYTES_MAX = (100, 2 * KIB, 4 * MIB, 4 * MIB)
"""How many bytes of events a peer holds: some three of them, or all that are ever emitted."""


FIRST_ADDED: dict[MemberKind | None, int] = {None: 4, "learner": 1, "witness": 1}
"""What is added to a new group before anything goes wrong, and how often: most runs are over before they come to it."""


class DiskRates(msgspec.Struct, frozen=True, kw_only=True):
    """How slow a disk is.

    Attributes:
        latency: the longest ordinary sync, seconds.
        stall: the share of syncs that take up to ``stall_max``.
        stall_max: seconds; may be beyond an election timeout.
    """

    latency: float
    stall: float
    stall_max: float

    def draw(self, random: Random) -> float:
        """Draw how long the next job takes, seconds."""
        longest = self.stall_max if self.stall and random.random() < self.stall else self.latency
        return longest * (0.1 + 0.9 * random.random())


CALM_DISK = DiskRates(latency=0.001, stall=0.0, stall_max=0.0)
"""A good disk."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The world of one run.

    Attributes:
        size: how many peers form the group.
        spares: how many processes more may join it.
        settings: the knobs of all of them.
        network: how bad the network is between beginning and healing.
        disk: how slow the disks are meanwhile.
        aside: how slow they are with snapshots.
        pace: how many times as long as usual the group's timeouts are, and the pauses between what is done to it.
        drift: each clock runs at most this much too fast or too slow, a share.
        span: how long clients and faults go on, virtual seconds.
        clients: how many clients there are.
        pause: the longest time a client thinks between two bursts, seconds.
        burst: the most calls of one client at once.
        value_bytes: the longest value that clients write, bytes.
        fault_pause: the mean time between two faults, seconds; infinity for none.
        change_pause: the mean time between two things that somebody asks of the group: other members, another leader,
            a snapshot; seconds; infinity for none.
        lease_share: the share of reads that trust the clocks.
        stale_share: the share of reads that may be stale.
        direct_share: the share of calls made from within a peer's process; the others go by ``connect``.
        cancel_share: the share of calls that are cancelled before they are answered.
        patience: the deadlines, in seconds, that clients draw from beside ``call_timeout``.
        tells: whether the machine emits events, which somebody watches, and sets timers.
        added: what the first of the spares becomes before anything goes wrong, if it may; None to leave it to chance.
    """

    size: int
    settings: Settings
    network: Rates
    disk: DiskRates
    drift: float
    span: float
    clients: int
    pause: float
    burst: int
    value_bytes: int
    fault_pause: float
    lease_share: float = 0.0
    stale_share: float = 0.0
    direct_share: float = 0.35
    cancel_share: float = 0.03
    patience: tuple[float, ...] = (0.3, 1.0)
    spares: int = 0
    change_pause: float = float("inf")
    aside: DiskRates = CALM_DISK
    pace: float = 1.0
    tells: bool = False
    added: MemberKind | None = None

    @property
    def first_added(self) -> MemberKind | None:
        """What the first of the spares becomes before anything goes wrong: witnesses stay fewer than half."""
        is_possible = self.spares > 0 and (self.size > 1 or self.added != "witness")
        return self.added if is_possible else None

    @classmethod
    def draw(cls, random: Random) -> Profile:
        """Draw a world of some kind."""
        usual = cls.draw_usual(random)
        world = random.choices((usual, shortened(usual, random), slowed(usual, random)), WORLDS)[0]
        added = random.choices(list(FIRST_ADDED), list(FIRST_ADDED.values()))[0]
        world = msgspec.structs.replace(world, tells=random.random() < TELLING_SHARE, added=added)
        # Last of all: what else a seed draws stays as it was.
        settings = msgspec.structs.replace(world.settings, events_bytes_max=random.choice(EVENTS_BYTES_MAX))
        return msgspec.structs.replace(world, settings=settings)

    @classmethod
    def draw_usual(cls, random: Random) -> Profile:
        """Draw a usual world."""
        settings = draw_settings(random)
        size = random.choice(SIZES)
        return cls(
            size=size,
            settings=settings,
            network=draw_rates(random),
            disk=DiskRates(
                latency=random.choice((0.0005, 0.003, 0.01, 0.05)),
                stall=random.choice((0.0, 0.0, 0.003, 0.02)),
                stall_max=random.choice((0.2, 1.0)),
            ),
            drift=random.choice((0.0, 0.0, 0.001, 0.01)),
            span=random.uniform(4.0, 12.0),
            clients=random.randint(1, 4),
            pause=random.choice((0.05, 0.2, 0.5)),
            burst=random.choice((1, 4, 12)),
            value_bytes=min(random.choice((0, 16, 200, 3000)), settings.command_bytes_max // 2),
            fault_pause=random.choice((0.15, 0.4, 0.8, 0.8)),
            lease_share=random.choice((0.0, 0.3)),
            stale_share=random.choice((0.0, 0.15)),
            spares=min(random.choice((0, 1, 2, 3)), PROCESSES_MAX - size),
            change_pause=random.choice((float("inf"), 0.2, 0.6, 1.5)),
            aside=DiskRates(
                latency=random.choice((0.001, 0.02, 0.2)),
                stall=random.choice((0.0, 0.0, 0.1)),
                stall_max=random.choice((0.5, 2.0)),
            ),
        )


def shortened(usual: Profile, random: Random) -> Profile:
    """Give a world like that one, in which more goes wrong in less time."""
    return msgspec.structs.replace(
        usual,
        span=0.15 + 1.35 * random.random() ** 3,  # Some are long enough for an election or two.
        clients=min(usual.clients, random.choice((1, 2, 4))),
        burst=min(usual.burst, 4),
        fault_pause=random.choice((0.04, 0.08, 0.16)),
        change_pause=min(usual.change_pause, random.choice((float("inf"), 0.1, 0.3))),
    )


def slowed(usual: Profile, random: Random) -> Profile:
    """Give a world like that one, with far longer timeouts; a message is as quick, or not much slower."""
    pace = random.choice((10.0, 30.0, 100.0, 300.0, 300.0))
    settings, rates, slower = usual.settings, usual.network, random.choice((1.0, 3.0))
    return msgspec.structs.replace(
        usual,
        pace=pace,
        settings=msgspec.structs.replace(
            settings,
            heartbeat_interval=pace * random.choice((0.05, 0.1, 0.15)),
            election_timeout_min=pace * settings.election_timeout_min,
            election_timeout_max=pace * settings.election_timeout_max,
            catch_up_timeout=pace * settings.catch_up_timeout,
            session_timeout=pace * settings.session_timeout,
            reconnect_delay_min=pace * settings.reconnect_delay_min,
            reconnect_delay_max=pace * settings.reconnect_delay_max,
        ),
        network=msgspec.structs.replace(rates, delay_max=slower * rates.delay_max),
        span=pace * random.uniform(0.5, 2.5),
        pause=pace * max(usual.pause, 0.2),
        burst=min(usual.burst, 4),
        fault_pause=pace * usual.fault_pause,
        change_pause=pace * usual.change_pause,
    )


def draw_settings(random: Random) -> Settings:
    """Draw the knobs: from one entry a message and one message under way to everything at once.

    Snapshots come with every few entries, or hardly ever, and what stays in the log behind them differs as much.
    """
    append_bytes_max = random.choice((256, 1 * KIB, 8 * KIB, 1 * MIB))
    command_bytes_max = min(append_bytes_max, 4 * KIB)
    election_timeout_max = random.choice((0.35, 0.6, 0.6, 1.2))
    return Settings(
        election_timeout_max=election_timeout_max,
        append_bytes_max=append_bytes_max,
        command_bytes_max=command_bytes_max,
        in_flight_max=random.choice((1, 2, 4, 32)),
        uncommitted_bytes_max=random.choice((command_bytes_max, 16 * KIB, 64 * MIB)),
        cache_bytes_max=random.choice((0, 512, 16 * KIB, 16 * MIB)),
        apply_entries_max=random.choice((1, 3, 1000)),
        call_timeout=random.choice((1.0, 2.0, 5.0)),
        session_timeout=random.choice((0.3, 3.0, 600.0)),
        snapshot_entries=random.choice((5, 15, 50, 100_000)),
        snapshot_bytes=random.choice((1 * KIB, 64 * MIB)),
        trailing_entries=random.choice((0, 0, 3, 20)),
        snapshot_chunk_bytes=random.choice((200, 2 * KIB, 1 * MIB)),
        catch_up_timeout=random.choice((2, 5)) * election_timeout_max,
        change_timeout=random.choice((2.0, 4.0, 8.0)),
        reconnect_delay_max=random.choice((0.1, 1.0)),
    )


def draw_rates(random: Random) -> Rates:
    """Draw how bad the network is: a twentieth of all runs have a good one."""
    if random.random() < 0.05:
        return Rates()
    delay_max = random.choice((0.001, 0.005, 0.02, 0.1))
    return Rates(
        delay_min=min(0.0002, delay_max),
        delay_max=delay_max,
        loss=random.choice((0.0, 0.02, 0.1, 0.25)),
        repeat=random.choice((0.0, 0.05, 0.3)),
        straggle=random.choice((0.0, 0.01, 0.1)),
        park=random.choice((0.0, 0.0, 0.01, 0.05)),
        fifo=random.random() < 0.5,
        hang_up=random.choice((0.0, 0.0, 0.01, 0.05)),
    )
