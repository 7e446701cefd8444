"""The steps of ``quorate demo --full``: a group grows from one to five, and each of its machines is replaced.

All the while a client writes. A machine that comes knows the address of one member and nothing else; one that goes is
killed, and forgotten by the group.
"""

from __future__ import annotations

import asyncio
from functools import partial

from quorate.cli.session import Session
from quorate.cli.steps import Step, stop_equally_far
from quorate.cli.walk import StepFailed, Walk, until

SIZE = 5
"""How many members the group grows to; as many machines come later, one in the place of each."""

SETTINGS = ("snapshot_entries=200", "trailing_entries=50")
"""Snapshots so often that some are seen in a minute, and so short a log that a newcomer cannot do without one."""

LANES = 4
"""How many writes are under way at once."""

WRITES = 50
"""How many writes must be acknowledged after each change."""

LOOK = 0.1
"""Seconds between two looks at how far a newcomer is."""

INSTALLS = " -> install it"
"""How the line ends that a peer logs when it is sent a snapshot beyond all that it has."""


async def start_alone(walk: Walk) -> str:
    """Start one node, which forms a group of its own."""
    first, *others = walk.sessions
    walk.down.extend(others)
    walk.show("$", f"quorate {' '.join(first.command)}", await first.start())
    await walk.expect(first, f'await peer.set_configuration("{first.address}")')
    leader = await walk.find_leader(first, "await peer.leader()")
    return f"{leader.name} leads: it is a majority of one."


async def begin_to_write(walk: Walk) -> str:
    """Let a client write all the while, several keys at once."""
    walk.show("client", ">>> async with connect(KV, *addresses) as kv:  # of all machines, those to come among them")
    walk.show("", f"...     for n in itertools.count(1):  # {LANES} at once")
    walk.show("", '...         await kv.write(KV.set, f"key{n}", f"value{n}")')
    walk.writer.start()
    await walk.writes_seen(WRITES)
    return f"{len(walk.writer.acknowledged)} writes are acknowledged so far, and it goes on."


async def take_snapshot(walk: Walk) -> str:
    """See that the leader takes a snapshot by itself, and have it take another one.

    Raises:
        StepFailed: its log is as long as before.
    """

    async def look() -> str | None:
        printed = await walk.leader.type("peer.status().snapshot_index")
        return None if printed != "0" else f"none, after {walk.writer.summary}"

    await until(look, "a snapshot")
    code = "await peer.take_snapshot()"
    taken = await walk.leader.type(code)
    walk.show(walk.leader.name, f">>> {code}", taken)
    first, latest = await show_log(walk, walk.leader)
    if not taken.isdigit() or latest < int(taken) or first == 1:
        raise StepFailed("a snapshot, and a log that begins behind it", f"snapshot {taken}, a log from {first} on")
    return (
        f"what the entries up to {latest} led to is in a snapshot, and the log begins at {first}: 1 is gone for good."
    )


async def join_second(walk: Walk) -> str:
    """Let a second node join."""
    return await join(walk, walk.sessions[1])


async def join_others(walk: Walk) -> str:
    """Let the group grow to its full size."""
    for newcomer in walk.sessions[2:SIZE]:
        await join(walk, newcomer)
    return f"{len(walk.running)} are members, and {walk.writer.summary}."


async def hand_over(walk: Walk) -> str:
    """Hand over leadership."""
    before = len(walk.writer.acknowledged)
    code = "await peer.transfer_leadership()"
    leader, printed = walk.leader, ""

    async def look() -> str | None:
        nonlocal leader, printed
        await walk.agree()
        leader = walk.leader
        printed = await leader.type(code)
        return None if printed in {repr(session.address) for session in walk.followers} else printed

    await until(look, f"the address of another leader from the leader >>> {code}")
    walk.show(leader.name, f">>> {code}", printed)
    await walk.writes_seen(WRITES)
    await walk.agree()
    return f"{walk.leader.name} leads now; {pause_since(walk, before)}."


async def replace(place: int, walk: Walk) -> str:
    """Kill a machine, and let another one, with an empty directory, take its place."""
    old, new = walk.sessions[place], walk.sessions[SIZE + place]
    before = len(walk.writer.acknowledged)
    await walk.agree()
    is_leader = old is walk.leader
    killed = f"(the process of {old.name}{', the leader' if is_leader else ''}; its directory is not used again)"
    walk.show("$", f"kill -KILL {old.pid}", killed)
    await old.kill()
    walk.down.append(old)
    if is_leader:
        await walk.find_leader(walk.running[0], f'await peer.leader(other_than="{old.address}")')
    await remove(walk, old)
    await join(walk, new)
    await walk.writes_seen(WRITES)
    return f"{new.name} is there in the place of {old.name}; {pause_since(walk, before)}."


async def read_back(walk: Walk) -> str:
    """Read each write back from each member's own machine.

    Raises:
        StepFailed: an acknowledged one is missing somewhere, or two members hold different things.
    """
    writer = walk.writer
    await writer.stop()
    await walk.equally_far()
    walk.show("client", ">>> for member in members:")
    walk.show("", "...     async with connect(KV, member, follow=False) as kv:")
    walk.show("", '...         own = kv.with_options(consistency="stale")  # what this member holds, whoever leads')
    walk.show(
        "", "...         assert all([await own.read(KV.get, key) == value for key, value in acknowledged.items()])"
    )
    held = {session.name: await writer.held_by(session.address) for session in walk.running}
    for name, entries in held.items():
        lost = [key for key, value in writer.acknowledged.items() if entries.get(key) != value]
        if lost:
            raise StepFailed(f"each acknowledged write on {name}", f"{len(lost)} were lost: {', '.join(lost[:10])}")
        walk.show("", f"# {name} holds all {len(writer.acknowledged)}")
    different = [name for name in held if held[name] != held[walk.leader.name]]
    if different:
        raise StepFailed("the same keys everywhere", f"others than on {walk.leader.name}: {', '.join(different)}")
    unknown = len(writer.begun) - len(writer.acknowledged)
    words = f"; of {unknown} more, whose outcome was not learned, all say the same" if unknown else ""
    return f"nothing: each of the {len(held)} members holds all {len(writer.acknowledged)} acknowledged writes{words}."


async def see_members(walk: Walk) -> str:
    """See that those who came are the members, and nobody else; stop them."""
    names = sorted(session.name for session in walk.running)
    for session in walk.running:
        await walk.expect(session, "[member.address.name for member in peer.status().members]", repr(names))
    committed = await stop_equally_far(walk)
    pause = walk.writer.longest_pause()
    return f"each had applied {committed} entries; in all that time the longest pause of the writes was {pause:.2f} s."


# What the steps are made of.


async def join(walk: Walk, newcomer: Session) -> str:
    """Start a node that knows the address of one member, and see that it becomes one, from a snapshot.

    Raises:
        StepFailed: it does not, or without one.
    """
    await walk.agree()
    seed = (walk.followers or [walk.leader])[-1]
    newcomer.command += ["--join", str(seed.address)]
    walk.show("$", f"quorate {' '.join(newcomer.command)}")
    news = News(walk, newcomer)
    watching = asyncio.create_task(news.show_all())
    try:
        printed = await newcomer.start()
    finally:
        watching.cancel()
    news.show()
    walk.show_printed(printed)
    walk.down.remove(newcomer)
    await walk.expect(newcomer, "len(peer.status().configuration)", str(len(walk.running)))
    await walk.agree()
    await walk.caught_up(newcomer)
    check_installed(newcomer)
    first, latest = await show_log(walk, newcomer)
    walk.show("", f"# {walk.writer.summary}")
    return f"{newcomer.name} is a voter, with a snapshot up to {latest}, and the log from {first} on."


async def remove(walk: Walk, gone: Session) -> None:
    """Have a member removed, by one that does not lead if there is one; see that the leader knows it no more."""
    code = f'await peer.remove_peer("{gone.name}")'
    asked = walk.leader

    async def look() -> str | None:
        nonlocal asked
        await walk.agree()
        asked = (walk.followers or [walk.leader])[0]
        printed = await asked.type(code)
        # It is none any longer if an earlier try ended without an answer, and went through all the same.
        return None if not printed or f"{gone.name} is no member" in printed else printed

    await until(look, f"nothing from {asked.name} >>> {code}")
    walk.show(asked.name, f">>> {code}")
    await walk.expect_of_leader("len(peer.status().members)", str(len(walk.running)))


class News:
    """What the leader and a newcomer log of how far that one is, shown once."""

    def __init__(self, walk: Walk, newcomer: Session) -> None:
        """Begin with what is logged from now on."""
        self._walk = walk
        self._newcomer = newcomer
        self._seen = {session.name: len(session.log()) for session in (*walk.running, newcomer)}

    async def show_all(self) -> None:
        """Show what comes, for ever."""
        while True:
            self.show()
            await asyncio.sleep(LOOK)

    def show(self) -> None:
        """Show what has come since the last look, in the order of time."""
        newcomer, leader = self._newcomer, self._walk.leader
        steps = (f"; catching up: {newcomer.name}", f"{newcomer.name} has caught up -> it may vote")
        news = [
            line for line in self._unseen(leader) if line.endswith(steps) or f" {newcomer.name} needs entry " in line
        ]
        news += [line for line in self._unseen(newcomer) if line.endswith(INSTALLS)]
        for line in sorted(news):  # Each begins with its time.
            self._walk.show("", f"# {line.partition(' quorate.raft: ')[2]}")

    def _unseen(self, session: Session) -> list[str]:
        """Give what a session has logged since the last look."""
        lines = session.log()
        seen, self._seen[session.name] = self._seen[session.name], len(lines)
        return lines[seen:]


def check_installed(newcomer: Session) -> None:
    """Check that a newcomer was sent a snapshot: its log says so.

    Raises:
        StepFailed: it was sent none.
    """
    if not any(line.endswith(INSTALLS) for line in newcomer.log()):
        raise StepFailed(f"a snapshot installed by {newcomer.name}", "no word of it in its log")


async def show_log(walk: Walk, session: Session) -> tuple[int, int]:
    """Show the first index of a peer's log, and the last one in its latest snapshot; give both."""
    code = "s = peer.status(); s.first_index, s.snapshot_index"
    printed = await session.type(code)
    walk.show(session.name, f">>> {code}", printed)
    first, latest = printed.strip("()").split(", ")
    return int(first), int(latest)


def pause_since(walk: Walk, before: int) -> str:
    """Say what became of the client's writes since it had so many."""
    writer = walk.writer
    count = len(writer.acknowledged) - before
    return f"{count} writes were acknowledged meanwhile, the longest pause was {writer.longest_pause(before):.2f} s"


STEPS: tuple[Step, ...] = (
    ("One node starts, and forms a group of one.", start_alone),
    ("From here on a client writes, and follows the leader wherever it is.", begin_to_write),
    (
        "The log does not grow for ever: every 200 entries, or when asked, a peer takes a snapshot.",
        take_snapshot,
    ),
    (
        "A second node joins. It knows one address, and becomes a learner; once it has what the first has, a voter.",
        join_second,
    ),
    ("Three more, one after the other. Any member will do as the one whose address they know.", join_others),
    ("The leader hands over leadership: nobody has to wait for an election timeout.", hand_over),
    *(
        (
            f"The machine of peer{place + 1} is lost. The group is told to forget it, and another one joins.",
            partial(replace, place),
        )
        for place in range(SIZE)
    ),
    (
        "What was lost? The client stops, and reads each acknowledged write back from each member's own machine.",
        read_back,
    ),
    ("Of the first five none is a member any longer. The five that came are equally far, and stop.", see_members),
)
"""What is shown, in this order."""
