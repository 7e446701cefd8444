"""One input to one peer, and what comes of it: the peer as it is then, and the messages that it sent.

Peers share nothing, so this is all there is to a step of a group but for the network. Obeys each ``Ready`` as ``Group``
does, and checks what one peer alone can show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from quorate.core import Envelope, Message, Raft
from quorate.core.invariants import check, check_step, facts
from quorate.core.messages import AppendEntries, RequestPreVote, RequestVote
from quorate.core.state import Leader
from quorate.testing.contents import join
from quorate.testing.exploration.copies import copy_peer, without_round
from quorate.testing.exploration.profiles import HEARTBEAT_WAIT, PATIENCE_WAIT, SETTINGS, TIMEOUT_WAIT, Profile
from quorate.testing.record import Peer
from quorate.types import PeerId

Verb = Literal[
    "deliver",
    "timeout",
    "campaign",
    "heartbeat",
    "propose",
    "persist",
    "crash",
    "snapshot",
    "shipped",
    "not-shipped",
    "change",
]


class Input(msgspec.Struct, frozen=True):
    """What happens to one peer.

    Attributes:
        verb: what it is.
        peer: to whom it happens.
        other: the sender of a message; to whom a snapshot was shipped.
        message: what is delivered.
        command: what is proposed.
    """

    verb: Verb
    peer: PeerId
    other: PeerId = PeerId("")
    message: Message | None = None
    command: str = ""

    @property
    def wait(self) -> float:
        """How far the clock of the peer goes on before it, in seconds."""
        if self.verb in {"timeout", "campaign"}:
            return TIMEOUT_WAIT
        if self.verb == "heartbeat":
            return HEARTBEAT_WAIT
        return PATIENCE_WAIT if isinstance(self.message, RequestVote | RequestPreVote) else 0.0


@dataclass(slots=True)
class Outcome:
    """What came of an input.

    Attributes:
        peer: the peer after it.
        sent: the messages sent, each as the input that its arrival will be, in the order of sending.
        passed: how many turns of the disk came after it that had nothing to write.
    """

    peer: Peer
    sent: list[Input] = field(default_factory=list)
    passed: int = 0


def give(before: Peer, given: Input, profile: Profile) -> Outcome:
    """Give an input to a copy of a peer, and obey what it wants done.

    Raises:
        AssertionError: an invariant of the peer is broken.
        NotLeader: the peer does not lead.
        ConfigurationError: it takes no change now.
    """
    outcome = Outcome(restarted(before) if given.verb == "crash" else copy_peer(before))
    if given.verb == "persist":
        persist(outcome)
    else:
        act(outcome.peer.raft, given, profile)
        inspect(outcome.peer)
        obey(outcome)
    # What waits for no write is not held up: nothing is to be seen in between.
    while outcome.peer.writes and not outcome.peer.writes[0].writes:
        outcome.passed += 1
        persist(outcome)
    return outcome


def restarted(peer: Peer) -> Peer:
    """Start a peer anew from its disk: what that had not finished is lost."""
    before = peer.raft.state
    stored = peer.durable_log.stored(peer.hard_state)
    raft = Raft(before.peer, SETTINGS, stored, before.random, before.now)
    log = peer.durable_log
    return Peer(raft, log.copy(), peer.hard_state, log.copy(), facts(raft.state), disk_waits=peer.disk_waits)


def act(raft: Raft, given: Input, profile: Profile) -> None:
    """Let the clock of a peer go on, and give it the input itself."""
    now = raft.state.now + given.wait
    match given.verb:
        case "deliver":
            assert given.message is not None, "what is delivered is a message"
            raft.receive(given.other, given.message, now)
        case "timeout" | "campaign" | "heartbeat":
            raft.tick(now)
        case "propose":
            raft.propose([given.command.encode()], now)
        case "snapshot":
            raft.compacted(raft.snapshot_at(raft.state.commit_index, 0.0))
        case "shipped" | "not-shipped":
            role = raft.state.role
            assert isinstance(role, Leader), "only a leader ships"
            raft.shipped(given.other, role.progress[given.other].installing, is_complete=given.verb == "shipped")
        case "change":
            raft.change(profile.wanted, now)
        case "persist" | "crash":
            pass  # There is nothing to tell it.


def inspect(peer: Peer) -> None:
    """Check what is true of a peer, and of its last step.

    Raises:
        AssertionError: it is not; the message says what.
    """
    check(peer.raft.state)
    after = facts(peer.raft.state)
    check_step(peer.facts, after)
    peer.facts = after


def obey(outcome: Outcome) -> None:
    """Take ``ready()`` and obey it, until there is nothing more to do."""
    peer = outcome.peer
    while True:
        ready = peer.raft.ready()
        peer.log.write(ready.compaction, ready.entries)
        inspect(peer)
        for envelope in ready.messages:
            send(outcome, envelope)
        if ready.writes or ready.messages_after_persist:
            peer.writes.append(ready)
        while peer.writes and not peer.disk_waits:
            persist(outcome)
        if not ready.messages:
            return


def persist(outcome: Outcome) -> None:
    """Make the oldest write durable, and send what waited for it."""
    peer = outcome.peer
    ready = peer.writes.popleft()
    peer.hard_state = ready.hard_state or peer.hard_state
    peer.durable_log.write(ready.compaction, ready.entries)
    for envelope in ready.messages_after_persist:
        send(outcome, envelope)
    peer.raft.persisted(ready.number)
    inspect(peer)
    obey(outcome)


def send(outcome: Outcome, envelope: Envelope) -> None:
    """Let a message go, with the entries attached that it offers."""
    peer, message = outcome.peer, envelope.message
    if isinstance(message, AppendEntries) and envelope.first:
        if message.term != peer.raft.state.term:
            return
        message = msgspec.structs.replace(message, entries=join(peer.log.part(envelope.first, envelope.last)))
    outcome.sent.append(Input("deliver", envelope.to, peer.raft.state.peer, without_round(message)))
