"""What is explored: where a group begins, what may happen to it, and how much of it.

A profile is a finite world: within its bounds every order of events is tried. Explores nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quorate.core import Member
from quorate.settings import Settings
from quorate.testing.contents import Contents
from quorate.testing.drive import make_log
from quorate.testing.group import Group
from quorate.testing.lines import member
from quorate.testing.record import Peer
from quorate.types import HardState, PeerId, Term

SETTINGS = Settings(
    heartbeat_interval=0.001,
    election_timeout_min=1.0,
    election_timeout_max=1000.0,
    catch_up_timeout=1e6,
    in_flight_max=2,
    snapshot_entries=1,
    trailing_entries=0,
)
"""So far apart that small spans, as often as they occur on one path, never come up to the next larger one."""

HEARTBEAT_WAIT = 2 * SETTINGS.heartbeat_interval
"""After this a heartbeat is due, whenever the one before was."""
PATIENCE_WAIT = 1.5 * SETTINGS.election_timeout_min
"""After this no leader counts as heard, and no round of catching up as short."""
TIMEOUT_WAIT = SETTINGS.election_timeout_max
"""After this any election timeout has passed, and a leader that nobody answered meanwhile steps down."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a group, and the bounds of what may happen to it.

    Attributes:
        name: what it is called on the command line.
        voters: how many peers, ``1``, ``2`` and so on, are the first members.
        logs: the log that each of them begins with, as the terms of its entries; the first is the configuration.
        newcomers: the names of new peers that are members of nothing yet.
        term: the term in which all members begin.
        terms_max: no peer goes beyond this term.
        flight_max: how many different messages may be on their way. Where more are sent, some are lost: any of them.
        commands_max: how many commands are proposed in all.
        crashes_max: how many crashes there are in all, each with a restart.
        snapshots_max: how many snapshots are taken in all.
        change: the members that the group is to change to, once, as a scenario words them; empty for no change.
        writes_max: how many writes may wait for the disk of one peer; 0 for disks that never wait.
        pre_votes_fly: whether pre-votes are messages like any others; else they are asked for and granted in one step.
    """

    name: str
    voters: int = 3
    logs: tuple[tuple[int, ...], ...] = ((1,), (1,), (1,))
    newcomers: tuple[str, ...] = ()
    term: int = 1
    terms_max: int
    flight_max: int
    commands_max: int = 0
    crashes_max: int = 0
    snapshots_max: int = 0
    change: tuple[str, ...] = ()
    writes_max: int = 0
    pre_votes_fly: bool = False

    @property
    def wanted(self) -> tuple[Member, ...]:
        """The members that the group is to change to."""
        return tuple(member(word) for word in self.change)

    def bounds(self) -> str:
        """Say in a line how far the world reaches."""
        parts = [
            f"{self.voters} voters" + f" and {len(self.newcomers)} new" * bool(self.newcomers),
            f"terms {self.term} to {self.terms_max}",
            f"messages in flight {self.flight_max}",
            f"commands {self.commands_max}",
            f"crashes {self.crashes_max}",
            f"snapshots {self.snapshots_max}",
            f"changes {int(bool(self.change))}",
            f"writes that wait {self.writes_max}",
            f"pre-votes {'in flight' if self.pre_votes_fly else 'at once'}",
        ]
        return ", ".join(parts)


def first_peers(profile: Profile) -> Mapping[PeerId, Peer]:
    """Make the peers with which a profile begins, each with its first ``Ready`` taken."""
    group = Group(profile.voters, SETTINGS, lambda name, what: None)
    for name, terms in zip(list(group.peers), profile.logs, strict=True):
        group.place(name, HardState(Term(profile.term)), Contents(make_log(group.configuration, terms)))
    for word in profile.newcomers:
        group.place(PeerId(word), HardState(), Contents())
    for peer in group.peers.values():
        peer.raft.ready()
        peer.disk_waits = profile.writes_max > 0
    return group.peers


PROFILES = {
    profile.name: profile
    for profile in (
        # Elections and the entry with which a term begins; losses and repetitions.
        Profile(name="plain", terms_max=2, flight_max=2),
        # A command behind it, one message at a time.
        Profile(name="command", terms_max=2, flight_max=1, commands_max=1),
        # The logs of Figure 8 (Raft §5.4.2), and a leader that finds them.
        Profile(name="figure-8", logs=((1, 2), (1, 2), (1, 3)), term=3, terms_max=4, flight_max=2),
        # Pre-votes that are late, lost and repeated like any other message.
        Profile(name="pre-vote", terms_max=2, flight_max=1, pre_votes_fly=True),
        # A peer loses what its disk had not finished, and starts anew.
        Profile(name="crash", terms_max=2, flight_max=1, crashes_max=1, writes_max=1),
        # A snapshot takes the place of what a follower lacks, or holds otherwise.
        Profile(
            name="snapshot",
            logs=((1, 2, 2), (1, 2, 2), (1, 1, 1, 1, 1)),
            term=2,
            terms_max=3,
            flight_max=2,
            snapshots_max=1,
        ),
        # A voter makes room for another: it catches up, and two majorities decide meanwhile.
        Profile(
            name="joint", voters=2, logs=((1,), (1,)), newcomers=("3",), terms_max=2, flight_max=2, change=("1", "3")
        ),
        # A voter leaves; it may lead, or be the one that a majority needs.
        Profile(name="leave", terms_max=2, flight_max=1, change=("1", "2")),
    )
}
"""All profiles by name."""
