"""What a peer attaches to what its core has handed over: only what it still owes, and no commands to a witness."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from quorate.addresses import Addresses
from quorate.apply import Apply
from quorate.core import Envelope, Raft
from quorate.core.messages import AppendEntries
from quorate.core.state import Leader, become_follower
from quorate.sending import Sender
from quorate.settings import Settings
from quorate.snapshots import Snapshots
from quorate.store.cache import Cache
from quorate.testing.drive import lead, start
from quorate.transport import Packet
from quorate.types import Address, Index, Kind, PeerId, Run, Term

THREE = PeerId("3")
COMMAND = Run(Term(2), Index(2), Kind.COMMAND, 0.0, (b"a",))


class Way:
    """A seat that notes what leaves, and keeps back what is read."""

    apply = cast("Apply", None)

    def __init__(self) -> None:
        self.posted: list[Packet] = []
        self.reading: list[Callable[[tuple[Run, ...]], None]] = []

    def wake(self) -> None:
        pass

    def post(self, node: str, packet: Packet) -> None:
        assert node == "127.0.0.1:7003"
        self.posted.append(packet)

    def read_durable(self, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        assert (first, last) == (2, 2)
        self.reading.append(done)


def sent_to_three(meanwhile: Callable[[Raft], None], *, is_read: bool) -> tuple[list[tuple[Run, ...]], Raft]:
    """Let 1, which leads term 2, send entry 2 to 3 when something has happened since; give what leaves, and its core.

    Args:
        meanwhile: what has happened since the core handed the message over.
        is_read: whether the entry has to be read from the disk, and not only the message waits for that.
    """
    raft, way, cache = start(peers=3), Way(), Cache(1000)
    lead(raft)
    if not is_read:
        cache.append(COMMAND)
    addresses = Addresses(Address.parse("1@127.0.0.1:7001"), {})
    sender = Sender(cache, cast("Snapshots", None), addresses, Settings(), way)
    message = AppendEntries(Term(2), PeerId("1"), Index(1), Term(1), Index(0))
    if not is_read:
        meanwhile(raft)
    sender.send(raft, Envelope(THREE, message, Index(2), Index(2)))
    if is_read:
        meanwhile(raft)
        way.reading.pop()((COMMAND,))
    assert way.reading == []
    return [cast("AppendEntries", packet.message).entries for packet in way.posted], raft


def leading(raft: Raft) -> Leader:
    assert isinstance(raft.state.role, Leader)
    return raft.state.role


def step_down(raft: Raft) -> None:
    become_follower(raft.state, raft.state.term, None, "our disk has confirmed nothing for long")


def lead_again(raft: Raft) -> None:
    step_down(raft)
    lead(raft)
    assert (raft.state.term, leading(raft).progress[THREE].in_flight) == (3, [3])


def follow_no_longer(raft: Raft) -> None:
    del leading(raft).progress[THREE]


def take_for_a_witness(raft: Raft) -> None:
    leading(raft).progress[THREE].is_witness = True


@pytest.mark.parametrize("is_read", [False, True], ids=["held", "read"])
@pytest.mark.parametrize("meanwhile", [step_down, lead_again, follow_no_longer])
def test_entries_leave_only_while_their_leader_leads_the_term_of_the_message_and_follows_who_is_to_have_them(
    meanwhile: Callable[[Raft], None], is_read: bool
) -> None:
    """Else they may be others by now; and whether the commands may go with them is known no longer."""
    sent, raft = sent_to_three(meanwhile, is_read=is_read)
    assert sent == []
    if meanwhile is lead_again:
        assert leading(raft).progress[THREE].in_flight == [3], "what it sends now is none of this"


@pytest.mark.parametrize("is_read", [False, True], ids=["held", "read"])
def test_a_witness_is_sent_no_commands_and_others_are(is_read: bool) -> None:
    assert sent_to_three(lambda _: None, is_read=is_read)[0] == [(COMMAND,)]
    assert sent_to_three(take_for_a_witness, is_read=is_read)[0] == [(COMMAND.without_commands(),)]
