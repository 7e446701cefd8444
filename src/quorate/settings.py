"""Every knob: its default, unit, bound and reason. Spans are float seconds, sizes int bytes.

The defaults suit machines in one data centre. Change them alike on all peers of a group.
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of a node and its peers: spans are seconds, sizes bytes. One out of its bounds is a ``ValueError``.

    Attributes:
        heartbeat_interval: a leader speaks to each peer at least this often. 0.001 or more, and at most half of
            ``election_timeout_min``, so that one lost heartbeat does not start an election.
        election_timeout_min: a follower that heard no leader for a span drawn between this and
            ``election_timeout_max`` asks for pre-votes; drawn anew each round (Raft §5.2).
        election_timeout_max: above ``election_timeout_min``; a leader that heard no quorum for this long steps down
            (thesis 6.2).
        command_bytes_max: largest encoded command or query. 1 or more, at most ``append_bytes_max``.
        append_bytes_max: entries sent in one AppendEntries; one larger entry is still sent, alone.
        in_flight_max: AppendEntries sent to one peer ahead of its acknowledgements. 1 or more.
        uncommitted_bytes_max: proposals waiting for a quorum; beyond it writes fail with ``Overloaded``. At least
            ``command_bytes_max``.
        cache_bytes_max: recent entries of one peer kept in memory for sending and applying. 0 or more.
        events_bytes_max: recent events of one peer kept in memory for whoever watches and was away; 0 or more, though
            those of the latest entries are sent to whoever waits all the same, as far as one answer has room for them.
        apply_entries_max: entries applied before heartbeats and messages are looked at again, and before those who
            were answered may write again, so that their writes are under way while the rest is applied. 1 or more.
        frame_bytes_max: largest frame accepted from the network, checked before anything is allocated. At least twice
            ``append_bytes_max`` and 64 KiB more.
        snapshot_entries: a snapshot is taken when that many entries were applied since the last one. 1 or more.
        snapshot_bytes: or when the entries applied since then hold that many bytes. 1 or more.
        trailing_entries: entries that stay in the log behind a snapshot, for peers that are a little slow: sending them
            is cheaper than sending the snapshot. 0 or more.
        snapshot_chunk_bytes: how much of a snapshot is sent at a time, though never more than
            ``append_bytes_max``. 1 or more.
        catch_up_timeout: a newcomer that was not heard for this long, or took nothing for this long, while it catches
            up is given up. Above ``election_timeout_max``.
        clock_drift_max: how much faster or slower than real time the clocks of the group run at most, as a share:
            0.1 is six seconds in a minute. Only reads by lease rely on it. From 0 to below 1.
        call_timeout: the deadline of a call that names none. Above 0.
        session_timeout: a client's session in which nothing was written for so long, by the time in the log, may end;
            above 0, and best far above any deadline of a write.
        change_timeout: the deadline of a change of the members, and of joining a group: above 0, and best above
            ``catch_up_timeout`` and long enough for a newcomer to be sent a whole snapshot.
        reconnect_delay_min: the first pause before a broken connection is tried again; doubles each time. Above 0.
        reconnect_delay_max: the longest such pause. At least ``reconnect_delay_min``.
    """

    heartbeat_interval: float = 0.05
    election_timeout_min: float = 0.3
    election_timeout_max: float = 0.6
    command_bytes_max: int = 1 * MIB
    append_bytes_max: int = 1 * MIB
    in_flight_max: int = 32
    uncommitted_bytes_max: int = 64 * MIB
    cache_bytes_max: int = 4 * MIB
    events_bytes_max: int = 4 * MIB
    apply_entries_max: int = 512
    frame_bytes_max: int = 8 * MIB
    snapshot_entries: int = 100_000
    snapshot_bytes: int = 64 * MIB
    trailing_entries: int = 10_000
    snapshot_chunk_bytes: int = 1 * MIB
    catch_up_timeout: float = 10.0
    clock_drift_max: float = 0.1
    call_timeout: float = 5.0
    session_timeout: float = 600.0
    change_timeout: float = 60.0
    reconnect_delay_min: float = 0.02
    reconnect_delay_max: float = 1.0

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: a knob is out of its bounds; the message names it.
            TypeError: it is no number, or must be a whole one.
        """
        for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True):
            value, is_span = getattr(self, name), isinstance(default, float)
            if isinstance(value, bool) or not isinstance(value, (int, float) if is_span else int):
                raise TypeError(f"{name} must be {'a number' if is_span else 'a whole number'}, not {value!r}")
        rules = (
            (self.heartbeat_interval >= 0.001, "heartbeat_interval must be at least 0.001 s"),
            (
                2 * self.heartbeat_interval <= self.election_timeout_min,
                "heartbeat_interval must be at most half of election_timeout_min",
            ),
            (
                self.election_timeout_max > self.election_timeout_min,
                "election_timeout_max must be above election_timeout_min",
            ),
            (
                1 <= self.command_bytes_max <= self.append_bytes_max,
                "command_bytes_max must be from 1 to append_bytes_max",
            ),
            (self.in_flight_max >= 1, "in_flight_max must be at least 1"),
            (
                self.uncommitted_bytes_max >= self.command_bytes_max,
                "uncommitted_bytes_max must be at least command_bytes_max",
            ),
            (self.cache_bytes_max >= 0, "cache_bytes_max must be 0 or more"),
            (self.events_bytes_max >= 0, "events_bytes_max must be 0 or more"),
            (self.apply_entries_max >= 1, "apply_entries_max must be at least 1"),
            (
                self.frame_bytes_max >= 2 * self.append_bytes_max + 64 * KIB,
                "frame_bytes_max must be at least twice append_bytes_max and 64 KiB more",
            ),
            (
                self.snapshot_entries >= 1 and self.snapshot_bytes >= 1,
                "snapshot_entries and snapshot_bytes must be at least 1",
            ),
            (self.trailing_entries >= 0, "trailing_entries must be 0 or more"),
            (self.snapshot_chunk_bytes >= 1, "snapshot_chunk_bytes must be at least 1"),
            (
                self.catch_up_timeout > self.election_timeout_max,
                "catch_up_timeout must be above election_timeout_max",
            ),
            (0 <= self.clock_drift_max < 1, "clock_drift_max must be from 0 to below 1"),
            (self.call_timeout > 0, "call_timeout must be above 0 s"),
            (self.session_timeout > 0, "session_timeout must be above 0 s"),
            (self.change_timeout > 0, "change_timeout must be above 0 s"),
            (
                0 < self.reconnect_delay_min <= self.reconnect_delay_max,
                "reconnect_delay_min must be above 0 s and at most reconnect_delay_max",
            ),
        )
        for holds, sentence in rules:
            if not holds:
                raise ValueError(sentence)
