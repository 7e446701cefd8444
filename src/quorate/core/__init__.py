"""The protocol: Raft without input or output, clock, dice, logging or asyncio. Read it from ``raft.py``."""

from quorate.core.configuration import Configuration, Member, decode_configuration, encode_configuration
from quorate.core.messages import Message
from quorate.core.raft import Raft
from quorate.core.ready import QUIET, Envelope, Event, EventKind, ReadReady, Ready

__all__ = [
    "QUIET",
    "Configuration",
    "Envelope",
    "Event",
    "EventKind",
    "Member",
    "Message",
    "Raft",
    "ReadReady",
    "Ready",
    "decode_configuration",
    "encode_configuration",
]
