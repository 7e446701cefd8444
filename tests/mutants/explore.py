"""``python -m tests.mutants.explore``: all orders of events in small worlds, breadth first, until one is wrong.

Each world is explored up to some number of states, then each up to more of them. Prints what was found as ``search``
does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import time
from types import FrameType

from quorate.testing.exploration.command import explore
from quorate.testing.exploration.profiles import PROFILES

STATES = (3_000, 30_000, 300_000, 3_000_000)
"""How many states of each world are looked at before those of another."""


class Over(BaseException):
    """The seconds are over."""


def end(_signal: int, _frame: FrameType | None) -> None:
    """Tell that the seconds are over.

    Raises:
        Over: always.
    """
    raise Over


def find(seconds: float) -> str:
    """Explore; give the first world that goes wrong and how, or nothing when all is seen or the seconds are over."""
    complete: set[str] = set()
    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # seconds of the core, not of the clock on the wall
    try:
        for states_max, profile in itertools.product(STATES, PROFILES.values()):
            if profile.name in complete:
                continue
            try:
                report = explore(profile, states_max)
            except Exception as error:
                return f"world {profile.name}: {type(error).__name__}: {error}"
            if report.failure is not None:
                return f"world {profile.name}: {report.failure}"
            if report.is_complete:
                complete.add(profile.name)
    except Over:
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def main() -> None:
    """Explore, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.explore", description="Explore small worlds.")
    parser.add_argument("--seconds", type=float, default=10.0)
    found = find(parser.parse_args().seconds)
    print(json.dumps({"found": found, "seconds": time.process_time()}))


if __name__ == "__main__":
    main()
