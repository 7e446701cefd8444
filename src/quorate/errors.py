"""Everything that can go wrong, and for each whether the write may have happened.

::

    QuorateError
    ├── NotLeader(redirect)           no: nothing entered the log; ask `redirect`, or wait when it is None
    ├── Overloaded                    no: too much is in flight; wait and retry
    ├── Stopped                       no: the peer had stopped before the call entered the log
    ├── NotCommitted                  no: another entry was committed at its index
    ├── Unavailable(reason)           no: nobody was reached, or a read ran out of time
    ├── Compacted(first)              no: the events to go on from are held no longer; those from `first` on are
    ├── OutcomeUnknown                perhaps: it entered a log and its fate was not learned in time
    │   └── SessionExpired            the session in which it was sent ended before that was learned
    ├── Rejected(reason, *details)    it ran, and the machine's handler refused: this is its answer
    ├── MachineError                  it ran, and the handler raised: a bug in the machine, the same on every peer
    ├── ConfigurationError            no
    │   ├── InvalidConfiguration      the members named cannot form the group, or it has others
    │   └── ChangeInProgress          another change is under way; wait for it
    └── StoreError                    the peer stops; its disk needs attention
        ├── Corrupted                 what was read is not what was written
        ├── DiskFull                  no room; nothing acknowledged was lost
        └── StoreLocked               another process, or another node, owns the data directory
"""

from __future__ import annotations

import traceback

from quorate.types import Address


class QuorateError(Exception):
    """Base of every error that quorate raises; never raised itself.

    Attributes:
        retry_safe: True when the same call can be made again without risk that it takes effect twice.
    """

    retry_safe: bool = True


class NotLeader(QuorateError):
    """The peer asked does not lead. Nothing entered the log.

    Attributes:
        redirect: the leader's address, to be asked instead; None while an election is in progress.
        peer: the name of the peer asked.
    """

    def __init__(
        self, redirect: Address | None = None, peer: str = "this peer", why: str = "an election is in progress"
    ) -> None:
        """Say who was asked, and who leads as far as it knows; if that is nobody, why."""
        self.redirect = redirect
        self.peer = peer
        super().__init__(redirect, peer, why)  # What makes it, so that it can be pickled: it may cross processes.

    def __str__(self) -> str:
        """Give the sentence."""
        redirect, peer, why = self.args
        where = f"try {redirect}" if redirect else f"no leader is known yet: {why}"
        return f"{peer} does not lead; {where}"


class Overloaded(QuorateError):
    """Too many bytes wait for a quorum, or too many calls for this peer. Nothing entered the log; wait and retry."""


class Stopped(QuorateError):
    """The peer or node had stopped before the call entered the log."""


class NotCommitted(QuorateError):
    """Another leader's entry was committed at the index of this write: it certainly did not happen."""


class Unavailable(QuorateError):
    """Nobody was reached, a read ran out of time, or a newcomer did not catch up; nothing was changed.

    Attributes:
        reason: who was tried and what each said.
    """

    def __init__(self, reason: str) -> None:
        """Keep the reason, which is the message too."""
        self.reason = reason
        super().__init__(reason)


class Compacted(QuorateError):
    """The events from where a watch was to go on are held no longer: some were missed.

    What they told stands in the state of the machine: read that, and go on from ``first``.

    Attributes:
        first: the first index from which on all events are there.
    """

    def __init__(self, first: int) -> None:
        """Say from where on there are events."""
        self.first = first
        super().__init__(first)

    def __str__(self) -> str:
        """Give the sentence."""
        return (
            f"the events before index {self.first} are held no longer: read what they led to, and go on with "
            f"watch(..., after={self.first - 1})"
        )


class OutcomeUnknown(QuorateError):
    """The write entered a log, and whether it was committed was not learned in time. It may have happened."""

    retry_safe = False


class SessionExpired(OutcomeUnknown):
    """The client's session ended before the answer of a write was learned: the write may have happened, or not.

    It had not been used for ``Settings.session_timeout``, or too many others were opened since.
    """


class Rejected(QuorateError):
    """The machine's handler refused the command or query: a value for the caller, raised before any change.

    Attributes:
        reason: a short stable word, such as ``"key_not_found"``; of a member of an enum that is a text, that text.
        details: what belongs to it; values that MessagePack can carry.

    A machine may raise a subclass whose ``__init__`` calls this one's; callers get a ``Rejected`` of its reason and
    details.
    """

    retry_safe = False

    def __init__(self, reason: str, *details: object) -> None:
        """Keep the reason and its details; ``str()`` joins them.

        Raises:
            TypeError: the reason is no text.
        """
        if not isinstance(reason, str):
            raise TypeError(f"the reason of a Rejected is a short text, such as 'key_not_found', and not {reason!r}")
        reason = str.__str__(reason)
        self.reason = reason
        self.details = details
        super().__init__(reason, *details)

    def __str__(self) -> str:
        """Give the reason, then the details as Python shows them."""
        return f"{self.reason}: {', '.join(map(repr, self.details))}" if self.details else self.reason


class MachineError(QuorateError):
    """The machine's handler raised something other than ``Rejected``: a bug in the machine, alike on every peer.

    So is a reply that cannot be sent: it holds what MessagePack does not carry, such as an int of more than 64 bits, or
    is too long for a frame. To a caller in the peer's own process nothing is sent: it is given a reply of any length,
    and every number, text and bytes as they are.
    """

    retry_safe = False


class ConfigurationError(QuorateError):
    """The group's members cannot be set as asked; nothing was changed."""


class InvalidConfiguration(ConfigurationError):
    """The members named cannot form this group; the message says which and why."""


class ChangeInProgress(ConfigurationError):
    """Another change of the configuration is under way."""


class StoreError(QuorateError):
    """The disk failed, and the peers on it have stopped; the message says what to do."""

    retry_safe = False


class Corrupted(StoreError):
    """What was read from the disk is not what was written."""


class DiskFull(StoreError):
    """The disk has no room. Nothing that was acknowledged is lost; free some room and start again."""


class StoreLocked(StoreError):
    """The data directory is in use, or belongs to another node or group."""


def described(error: Exception) -> str:
    """Name an exception and its message, even one whose own ``__str__`` fails."""
    return "".join(traceback.format_exception_only(error)).strip()
