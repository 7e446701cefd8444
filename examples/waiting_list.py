"""A machine with two bugs, and how its tests find them: seats of a theatre, and who waits for one.

Neither bug shows on a single machine. Run it with: python examples/waiting_list.py
"""

from __future__ import annotations

from quorate import Rejected, StateMachine, read, write
from quorate.testing import BrokenContract, check_determinism, simulate


class Theatre(StateMachine):
    """The first version.

    Attributes:
        taken: the guest on each seat that is taken.
        waiting: who waits for one.
    """

    taken: dict[int, str]
    waiting: set[str]

    def __init__(self) -> None:
        self.taken = {}
        self.waiting = set()

    @write
    def take(self, seat: int, guest: str) -> None:
        """Take a seat, or wait for one."""
        if seat in self.taken:
            self.waiting.add(guest)
            raise Rejected("taken", seat)
        self.taken[seat] = guest

    @write
    def leave(self, seat: int) -> str | None:
        """Give up a seat to one of those who wait, and tell to whom."""
        self.taken.pop(seat, None)
        if not self.waiting:
            return None
        self.taken[seat] = self.waiting.pop()
        return self.taken[seat]

    @read
    def guest(self, seat: int) -> str | None:
        """Give the guest on a seat."""
        return self.taken.get(seat)


class Second(Theatre):
    """Who waits is told so by a reply: a refusal leaves everything as it was."""

    @write
    def take(self, seat: int, guest: str) -> bool:
        """Take a seat, or wait for one; tell whether it was taken."""
        if seat in self.taken:
            self.waiting.add(guest)
            return False
        self.taken[seat] = guest
        return True


class Third(Second):
    """Who waits is chosen in an order that is the same everywhere."""

    @write
    def leave(self, seat: int) -> str | None:
        """Give up a seat to the first by name of those who wait, and tell to whom."""
        self.taken.pop(seat, None)
        if not self.waiting:
            return None
        self.taken[seat] = min(self.waiting)
        self.waiting.remove(self.taken[seat])
        return self.taken[seat]


def main() -> None:
    """Check each version."""
    for machine in (Theatre, Second, Third):
        try:
            checked = check_determinism(machine)
        except BrokenContract as broken:
            print(broken)
        else:
            print(f"{machine.__name__}: {checked.calls} calls come to the same in {checked.processes} processes")
    reports = simulate(Third, seeds=range(3))
    print(f"Third: {len(reports)} groups on bad networks end as they must")


if __name__ == "__main__":
    main()
