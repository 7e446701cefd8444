"""Attempts: how one try of a client's call failed, whether it may be tried again, and all of it in words for people.

Knows errors and answers; does not know connections, nor what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quorate.errors import (
    NotCommitted,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    SessionExpired,
    Stopped,
    Unavailable,
)
from quorate.transport.calls import Failure, Reply, error_from_failure
from quorate.transport.local import Target
from quorate.types import Address

SHARE_MIN = 0.25
"""The shortest time that one of several peers has for its answer, seconds, if the deadline is not nearer."""

SHARE_MAX = 5.0
"""The longest, seconds, however much time is left: the others elect a new leader in a fraction of that. Twice as long
after each that was not enough."""


LEADERLESS = "knows of no leader"
"""What is said of a peer that does not lead, and said no more."""


class Attempt(Exception):
    """One try failed, and the call may be tried again: that try had no effect, or another cannot have one too.

    Attributes:
        error: what went wrong.
        redirect: whom to ask instead.
        answered: whether the peer answered at all.
    """

    def __init__(self, error: QuorateError, redirect: Address | None = None, *, answered: bool = False) -> None:
        """Keep all of it."""
        self.error = error
        self.redirect = redirect
        self.answered = answered
        super().__init__(str(error))


class Expired(Exception):
    """The session had ended before a write in it could have any effect: another session will do."""


def answer_of(reply: Reply, is_once: bool, *, in_session: bool) -> object:
    """Give the answer of a reply, or raise what it says.

    Raises:
        Attempt: the call may be tried again: it certainly had no effect, or it has one only once.
    """
    if not isinstance(reply.answer, Failure):
        return reply.answer
    error = error_from_failure(reply.answer)
    if isinstance(error, SessionExpired) and not in_session:
        error = OutcomeUnknown(str(error))  # No node says so of a call without a session.
    match error:
        case NotLeader(redirect=redirect):
            raise Attempt(error, redirect, answered=True)
        case Overloaded() | Stopped() | Unavailable() | NotCommitted():
            raise Attempt(error, answered=True)
        case SessionExpired():
            raise error
        case OutcomeUnknown() if is_once:
            raise Attempt(error, answered=True)
        case _:
            raise error


Said = tuple[bool, str]
"""Whether a peer answered, and what is to be said of it."""


def reason(who: str, seconds: float, tried: Mapping[Target, Said], known: Sequence[Target]) -> str:
    """Say why there was no answer: how many could be reached, and what became of the last try of each.

    Args:
        who: who did not answer.
        seconds: for how long they were asked.
        tried: those that were asked.
        known: all that might have been.
    """
    names = dict.fromkeys(called(address) for address in (*tried, *known))
    asked = {called(address) for address in tried}
    reached = {called(address) for address, (answered, _) in tried.items() if answered}
    texts = [text for _, text in tried.values()]
    texts += [f"{name} was not asked in time" for name in names if name not in asked]
    return (
        f"{who} within {round(max(0.0, seconds), 2):g} s: {len(reached)} of {len(names)} reachable; {'; '.join(texts)}"
    )


def note(tried: dict[Target, Said], address: Target, attempt: Attempt, seconds: float) -> None:
    """Note what became of a try, unless it was cut short by the deadline and an earlier one tells more."""
    answered, text = tried.get(address, (False, ""))
    if not text or seconds >= SHARE_MIN:
        is_news = True
    elif isinstance(attempt.error, NotLeader):
        is_news = attempt.redirect is not None
    elif isinstance(attempt.error, Unavailable):
        is_news = attempt.answered and (not answered or text.endswith(LEADERLESS))
    else:
        is_news = attempt.answered
    if is_news:
        tried[address] = said_of(address, attempt)


def said_of(address: Target, attempt: Attempt) -> Said:
    """Say what one peer answered, or why it did not, as in "peer2 (10.0.0.2:7001) refuses the connection"."""
    match attempt.error:
        case NotLeader(redirect=None) if attempt.answered:
            text = f"{called(address)} {LEADERLESS}"
        case NotLeader(redirect=leader) if attempt.answered:
            text = f"{called(address)} says that {leader} leads"
        case error if attempt.answered:
            text = str(error) if str(error).startswith(f"{called(address)} ") else f"{called(address)} says: {error}"
        case error:
            why = str(error).removeprefix(f"{address} ").removeprefix(f"{address.node} ")
            text = f"{address.name} ({address.node}) {why}" if address.name else f"{address.node} {why}"
    return attempt.answered, text


def called(address: Target) -> str:
    """Give the name of a peer, or where it is reached if no name was given."""
    return address.name or address.node


def in_vain(unknown: OutcomeUnknown | None, why: str) -> OutcomeUnknown | Unavailable:
    """Make the error of a call that nobody answered; ``unknown`` is of a try that may have had an effect."""
    return Unavailable(why) if unknown is None else OutcomeUnknown(f"{unknown}; {why}")
