"""Who runs the group of a simulation: changes its members, moves its leadership, asks for snapshots, replaces disks.

All by way of the public API, at drawn times, from within a drawn process; what it is told may be that nobody knows. The
one rule kept is that of the documentation: a disk is emptied only when its peer is no member any longer. Knows the
processes; judges the errors, and what is said of changes by what is committed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, get_args

from quorate.core import Configuration, Member
from quorate.core.configuration import configuration_text, decode_configuration
from quorate.errors import (
    ChangeInProgress,
    DiskFull,
    InvalidConfiguration,
    NotLeader,
    OutcomeUnknown,
    Stopped,
    Unavailable,
)
from quorate.peer import Peer
from quorate.testing.clock import VirtualLoop
from quorate.testing.invariants import History
from quorate.testing.process import Life, Process
from quorate.testing.profile import Profile
from quorate.testing.trace import CLIENT_SYMBOL, Trace
from quorate.types import MemberKind

NAME = "operator"
KNOWN = (ChangeInProgress, DiskFull, InvalidConfiguration, NotLeader, OutcomeUnknown, Stopped, Unavailable)
"""The errors that what is asked here may end with."""
CERTAINLY_NOT = (ChangeInProgress, InvalidConfiguration, NotLeader, Stopped, Unavailable)
"""Those that say that the members are not changed."""

START_TIME = 0.1
"""How long somebody waits for a process to start before its peer is named, seconds."""

Ask = Callable[[Peer[Any]], Coroutine[Any, Any, object]]
Wanted = Callable[[Configuration], bool]
"""Tells whether the members are as somebody wanted them."""


@dataclass(slots=True)
class Change:
    """A change of the members that somebody asked for.

    Attributes:
        what: in words.
        is_made_in: tells whether a configuration has the members so.
        error: why it certainly was not made; empty as long as it may be.
    """

    what: str
    is_made_in: Wanted
    error: str = ""


class Operator:
    """Asks things of the group.

    Attributes:
        outcomes: how often what was asked ended how.
    """

    def __init__(
        self,
        profile: Profile,
        processes: Sequence[Process],
        loop: VirtualLoop,
        history: History,
        trace: Trace,
        random: Random,
    ) -> None:
        """Ask nothing yet."""
        self.outcomes: Counter[str] = Counter()
        self._profile = profile
        self._processes = processes
        self._loop = loop
        self._history = history
        self._trace = trace
        self._random = random
        self._asked: dict[asyncio.Task[object], str] = {}
        self._changes: list[Change] = []
        for process in processes:
            process.joined = lambda name, word: self._ended(f"{name} joins", "join", word)

    async def add_first(self, peer: Peer[Any], process: Process, kind: MemberKind) -> None:
        """Add a process that runs to a group that has just been formed, before anything goes wrong."""
        name = process.name
        change = Change(f"add {name} ({kind})", lambda known: stands(known, name, kind, 0))
        self._changes.append(change)
        await peer.add_peer(process.address, kind=kind)
        self._told(change, None)

    async def work(self, until: float) -> None:
        """Ask something now and then until that instant; what is not answered by then is given up."""
        acts = {
            self._add: 5,
            self._remove: 3,
            self._replace: 3,
            self._turn: 3,
            self._set_all: 1,
            self._prefer: 2,
            self._transfer: 5,
            self._snapshot: 3,
        }
        while True:
            pause = self._random.expovariate(1.0) * self._profile.change_pause
            await asyncio.sleep(max(min(pause, until - self._loop.time()), 0.0))
            if self._loop.time() >= until:
                break
            configuration = self._history.configuration
            if configuration is not None:
                self._random.choices(list(acts), list(acts.values()))[0](configuration)
        for task in list(self._asked):
            task.cancel()

    def judge(self) -> None:
        """Check that each change of the members was asked for, by somebody who was not told that it is not made.

        Raises:
            Violation: one was not.
        """
        if not self._changes:
            return  # This operator asked for none: whoever tells the simulation what to do may have.
        known = [decode_configuration(payload) for _, payload in self._history.configurations]
        settled = [configuration for configuration in known if configuration.is_settled]
        for before, after in itertools.pairwise(settled):
            asked = [change for change in self._changes if change.is_made_in(after) and not change.is_made_in(before)]
            if before.members != after.members and all(change.error for change in asked):
                told = "; ".join(f"{change.what} -> {change.error}" for change in asked) or "nobody asked for it"
                text = f"{configuration_text(before)} became {configuration_text(after)}: {told}"
                raise self._history.fail("RefusedIsFinal", text)

    # What is asked.

    def _add(self, configuration: Configuration) -> None:
        """Let a process that is no member become one: by itself, or because a member is told so."""
        process = self._newcomer(configuration)
        if process is None:
            return
        kind = self._apt_kind(process)
        seeds = tuple(member.address for member in configuration.members)
        if process.life is None and self._random.random() < 0.5:
            process.join = seeds
            self._changes.append(Change(f"{process.name} joins", lambda known: known.named(process.name) is not None))
            self._trace.add(CLIENT_SYMBOL, NAME, f"{process.name} starts to join as {kind}")
            _ = process.start()
            return
        self._start(process)
        address, priority = process.address, self._random.choice((0, 0, 1))

        async def add(peer: Peer[Any]) -> None:
            await asyncio.sleep(START_TIME)
            await peer.add_peer(address, kind=kind, priority=priority)

        self._change(
            f"add {process.name} ({kind})", "add", add, lambda known: stands(known, address.name, kind, priority)
        )

    def _remove(self, configuration: Configuration) -> None:
        """Remove a member."""
        name = self._member(configuration).address.name
        if len(configuration.members) > 1:
            self._change(
                f"remove {name}",
                "remove",
                lambda peer: peer.remove_peer(name),
                lambda known: known.named(name) is None,
            )

    def _replace(self, configuration: Configuration) -> None:
        """Put a newcomer in the place of a member."""
        process, old = self._newcomer(configuration), self._member(configuration)
        if process is not None and (process.kind or old.kind) == old.kind:
            process.kind = old.kind
            self._start(process)
            name, address = old.address.name, process.address

            async def replace(peer: Peer[Any]) -> None:
                await asyncio.sleep(START_TIME)
                await peer.replace_peer(name, address)

            def is_replaced(known: Configuration) -> bool:
                return known.named(name) is None and known.named(address.name) is not None

            self._change(f"replace {name} by {process.name}", "replace", replace, is_replaced)

    def _turn(self, configuration: Configuration) -> None:
        """Make a voter of a learner, or a learner of a voter."""
        member, kind = self._member(configuration), self._kind()
        if "witness" not in (member.kind, kind):
            address = member.address
            self._change(
                f"turn {address.name} into a {kind}",
                "turn",
                lambda peer: peer.add_peer(address, kind=kind),
                lambda known: stands(known, address.name, kind, 0),
            )

    def _set_all(self, configuration: Configuration) -> None:
        """Name all members anew."""
        running = [process for process in self._processes if process.role and process.kind in (None, "voter")]
        chosen = self._random.sample(running, self._random.randint(1, len(running))) if running else []
        addresses = [process.address for process in chosen]
        for process in chosen:
            process.kind = "voter"
        if addresses:
            names = [address.name for address in addresses]
            self._change(
                f"set {', '.join(names)}",
                "set",
                lambda peer: peer.set_configuration(*addresses),
                lambda known: {member.address.name for member in known.members} == set(names),
            )

    def _prefer(self, configuration: Configuration) -> None:
        """Give a member another priority."""
        name, priority = self._member(configuration).address.name, self._random.randint(-1, 2)
        self._change(
            f"prefer {name} by {priority}",
            "prefer",
            lambda peer: peer.set_priority(name, priority),
            lambda known: (member := known.named(name)) is not None and member.priority == priority,
        )

    def _transfer(self, configuration: Configuration) -> None:
        """Hand over leadership, to whoever is best or to a drawn member."""
        to = self._member(configuration).address if self._random.random() < 0.7 else None
        leaders = [process for process in self._processes if process.role == "leader"]
        if leaders:
            life = self._random.choice(leaders).life
            self._ask(f"transfer to {to or 'anybody'}", "transfer", lambda peer: peer.transfer_leadership(to), life)

    def _snapshot(self, configuration: Configuration) -> None:
        """Ask a peer for a snapshot."""
        self._ask("take a snapshot", "snapshot", lambda peer: peer.take_snapshot())

    # How it is asked.

    def _newcomer(self, configuration: Configuration) -> Process | None:
        """Draw a process that is no member; with an empty disk, if it may be emptied, as it must be after all."""
        strangers = [process for process in self._processes if configuration.member(process.id) is None]
        if not strangers:
            return None
        process = self._random.choice(strangers)
        possible = self._history.possible_configurations()
        is_free = all(known.member(process.id) is None for known in possible) and not self._is_named(process)
        if not process.is_new and is_free and self._random.random() < 0.7:
            self._trace.add(CLIENT_SYMBOL, NAME, f"{process.name} is given an empty disk")
            self.outcomes["empty disk"] += 1
            process.wipe()
        return process if process.changing is None else None

    def _apt_kind(self, process: Process) -> MemberKind:
        """Draw what a process is to be: with the disk of a witness, which holds no data, only that again."""
        kind = self._kind()
        if process.kind is not None and "witness" in (kind, process.kind) and kind != process.kind:
            kind = process.kind
        process.kind = kind
        return kind

    def _is_named(self, process: Process) -> bool:
        """Tell whether something is being asked that names a process, or that it asks."""
        is_joining = process.life is not None and bool(process.join)
        return is_joining or any(process.name in what or what.startswith("set ") for what in self._asked.values())

    def _start(self, process: Process) -> None:
        """See to it that a process runs."""
        if process.life is None:
            process.join = ()
            _ = process.start()

    def _member(self, configuration: Configuration) -> Member:
        """Draw a member."""
        return self._random.choice(configuration.members)

    def _kind(self) -> MemberKind:
        """Draw what a newcomer is to be."""
        kinds: tuple[MemberKind, ...] = get_args(MemberKind)
        return self._random.choices(kinds, (2, 1, 1))[0]

    def _change(self, what: str, verb: str, ask: Ask, is_made_in: Wanted) -> None:
        """Ask for other members."""
        change = Change(what, is_made_in)
        self._changes.append(change)
        self._ask(what, verb, ask, told=lambda error: self._told(change, error))

    def _told(self, change: Change, error: BaseException | None) -> None:
        """Hold what somebody is told of a change against what is committed, now and in the end."""
        if isinstance(error, CERTAINLY_NOT):
            change.error = type(error).__name__
        known = (decode_configuration(payload) for _, payload in self._history.configurations)
        if error is None and not any(one.is_settled and change.is_made_in(one) for one in known):
            self._history.fail("ChangeIsCommitted", f"{change.what} is told to be done, and that is not committed")

    def _ask(
        self,
        what: str,
        verb: str,
        ask: Ask,
        life: Life | None = None,
        told: Callable[[BaseException | None], None] = lambda _error: None,
    ) -> None:
        """Ask something from within a process of the group, and wait for the answer beside all else.

        Not from within one that belongs to none yet: there, naming the members forms a group. ``told`` is given the
        error, or None, unless nobody waits any longer.
        """
        running = [process.life for process in self._processes if process.life]
        lives = [life for life in running if life.peer and life.peer._seat.raft.state.configuration]
        chosen = life or (self._random.choice(lives) if lives else None)
        if chosen is None or chosen.peer is None:
            return
        patience = self._random.choice((0.5, 2.0, self._profile.settings.change_timeout))
        self._trace.add(CLIENT_SYMBOL, NAME, f"{what}, asks {chosen.peer.name}")
        task: asyncio.Task[object] = self._loop.create_task(ask(chosen.peer.with_options(timeout=patience)))
        chosen.tasks[task] = None
        self._asked[task] = what

        def answered(_: asyncio.Task[object]) -> None:
            chosen.tasks.pop(task, None)
            del self._asked[task]
            error = None if task.cancelled() else task.exception()
            self._ended(what, verb, "cancelled" if task.cancelled() else type(error).__name__ if error else "ok")
            if not task.cancelled():
                told(error)
            if error is not None and not isinstance(error, KNOWN):
                self._history.fail("ErrorsAreKnown", f"{what}: {type(error).__name__}: {error}")

        task.add_done_callback(answered)

    def _ended(self, what: str, verb: str, word: str) -> None:
        """Count and trace how something ended."""
        self.outcomes[f"{verb} {word}"] += 1
        self._trace.add(CLIENT_SYMBOL, NAME, f"{what} -> {word}")


def stands(configuration: Configuration, name: str, kind: MemberKind, priority: int) -> bool:
    """Tell whether a peer is a member of that kind and priority."""
    member = configuration.named(name)
    return member is not None and (member.kind, member.priority) == (kind, priority)
