"""Replicated state machines for Python: write an ordinary class, run it on three or five machines.

One agreed order of writes, a durable log, linearizable reads, a new leader when one dies. Start with ``StateMachine``,
``Node`` and ``connect``; every error is in ``quorate.errors``.
"""

import logging as _logging

from quorate.client import Client, connect
from quorate.context import Context
from quorate.errors import (
    ChangeInProgress,
    Compacted,
    ConfigurationError,
    Corrupted,
    DiskFull,
    InvalidConfiguration,
    MachineError,
    NotCommitted,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    Rejected,
    SessionExpired,
    Stopped,
    StoreError,
    StoreLocked,
    Unavailable,
)
from quorate.events import Change, Event
from quorate.machine import Command, Query, StateMachine, read, write
from quorate.node import Node
from quorate.peer import Peer
from quorate.settings import Settings
from quorate.transport.security import TLS
from quorate.types import Address, MemberStatus, StaleRead, Status
from quorate.watching import StatusWatch, Watch

__all__ = [
    "TLS",
    "Address",
    "Change",
    "ChangeInProgress",
    "Client",
    "Command",
    "Compacted",
    "ConfigurationError",
    "Context",
    "Corrupted",
    "DiskFull",
    "Event",
    "InvalidConfiguration",
    "MachineError",
    "MemberStatus",
    "Node",
    "NotCommitted",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "Peer",
    "Query",
    "QuorateError",
    "Rejected",
    "SessionExpired",
    "Settings",
    "StaleRead",
    "StateMachine",
    "Status",
    "StatusWatch",
    "Stopped",
    "StoreError",
    "StoreLocked",
    "Unavailable",
    "Watch",
    "connect",
    "read",
    "write",
]

# What to do with log records is the program's decision; without one they go nowhere.
_logging.getLogger("quorate").addHandler(_logging.NullHandler())
