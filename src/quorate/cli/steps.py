"""The steps of the demo: each types what a person would, and gives the sentence that tells what was seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quorate.cli.session import Session
from quorate.cli.status import COLUMNS, NUMBERS, survey, table_rows
from quorate.cli.walk import StepFailed, Walk
from quorate.store.directory import DataDirectory
from quorate.store.engines import open_store
from quorate.types import Index

READ_BYTES_MAX = 1 << 20

Entry = tuple[int, int, int, float, bytes]
"""Index, term, kind, time and content of an entry in a log."""


async def start_nodes(walk: Walk) -> str:
    """Start the three nodes, at the same time."""
    printed = await asyncio.gather(*(session.start() for session in walk.sessions))
    for session, text in zip(walk.sessions, printed, strict=True):
        walk.show("$", f"quorate {' '.join(session.command)}", text)
    for session in walk.sessions:
        await walk.expect(session, "peer.status().role, peer.status().leader", "('follower', None)")
    return "three followers of nobody."


async def set_configuration(walk: Walk) -> str:
    """Form the group."""
    await walk.expect(walk.sessions[0], f"await peer.set_configuration({walk.members})")
    for session in walk.sessions:
        await walk.expect(session, "len(peer.status().configuration)", "3")
    return "each of the three knows all three."


async def elect(walk: Walk) -> str:
    """See that a leader is elected."""
    leader = await walk.find_leader(walk.sessions[0], "await peer.leader()")
    return f"{leader.name} leads, and all three say so."


async def write_and_read(walk: Walk) -> str:
    """Write a value and read it."""
    await walk.expect_of_leader('await peer.write(KV.set, "foo", "bar")', "'bar'")
    await walk.expect_of_leader('await peer.read(KV.get, "foo")', "'bar'")
    return "what was written is read."


async def refuse_unknown_key(walk: Walk) -> str:
    """Read a key that nobody has set."""
    await walk.expect_of_leader('await peer.read(KV.get, "baz")', "quorate.errors.Rejected: key_not_found: 'baz'")
    return "Rejected, with the reason that the machine gave."


async def begin_to_write(walk: Walk) -> str:
    """Let a client write all the while."""
    walk.show("client", f">>> async with connect(KV, {walk.members}) as kv:")
    walk.show("", "...     for n in itertools.count(1):")
    walk.show("", '...         await kv.write(KV.set, f"key{n}", f"value{n}")')
    walk.writer.start()
    await walk.writes_seen(40)
    return f"{len(walk.writer.acknowledged)} writes are acknowledged so far, and it goes on."


async def stop_leader(walk: Walk) -> str:
    """Stop the leader, and see that another is elected."""
    await walk.agree()
    stopped, others = walk.leader, walk.followers
    await walk.expect(stopped, "await peer.stop()")
    await walk.expect(stopped, 'await peer.read(KV.get, "foo")', f"quorate.errors.Stopped: {stopped.name} was stopped")
    walk.former.append(stopped)
    walk.down.append(stopped)
    leader = await walk.find_leader(others[0], f'await peer.leader(other_than="{stopped.address}")')
    await walk.writes_seen(20)
    return f"{leader.name} leads now, and the client's writes go on there."


async def ask_wrong_peers(walk: Walk) -> str:
    """Ask a peer that does not lead, and the old leader once it is back."""
    await walk.agree()
    await walk.expect_redirect(walk.followers[0])
    old = walk.former[-1]
    await walk.expect(old, f'peer = await node.start_peer(KV, name="{old.name}")')
    walk.down.remove(old)
    await walk.expect_redirect(old)
    await walk.caught_up(old)
    return f"both name the leader, and {old.name} has caught up."


async def follow_redirect(walk: Walk) -> str:
    """Read the same value from the new leader."""
    asker = walk.former[-1]
    await walk.expect(asker, f'kv = connect(KV, "{walk.leader.address}")')
    await walk.expect(asker, 'await kv.read(KV.get, "foo")', "'bar'")
    await walk.expect(asker, "await kv.close()")
    return "the same value."


async def kill_leader(walk: Walk) -> str:
    """Kill the leader's process, and see that another is elected."""
    await walk.agree()
    killed, others = walk.leader, walk.followers
    walk.show("$", f"kill -KILL {killed.pid}", f"(the process of {killed.name})")
    await killed.kill()
    walk.former.append(killed)
    walk.down.append(killed)
    leader = await walk.find_leader(others[0], f'await peer.leader(other_than="{killed.address}")')
    await walk.writes_seen(20)
    return f"{leader.name} leads now, and the client's writes go on there."


async def restart_killed(walk: Walk) -> str:
    """Start the killed node again."""
    killed = walk.former[-1]
    walk.show("$", f"quorate {' '.join(killed.command)}", await killed.start())
    walk.down.remove(killed)
    await walk.expect_redirect(killed)
    await walk.caught_up(killed)
    return f"{killed.name} has caught up, and sends callers to {walk.leader.name}."


async def check_writes(walk: Walk) -> str:
    """Read back each write that was acknowledged.

    Raises:
        StepFailed: one was lost.
    """
    await walk.writer.stop()
    walk.show("client", f">>> async with connect(KV, {walk.members}) as kv:")
    walk.show("", "...     for key, value in acknowledged.items():")
    walk.show("", "...         assert await kv.read(KV.get, key) == value")
    lost = await walk.writer.lost()
    if lost:
        raise StepFailed("each acknowledged write", f"{len(lost)} were lost: {', '.join(lost[:10])}")
    unknown = walk.writer.unknown
    words = f"; {unknown} more had an outcome that could not be learned (OutcomeUnknown)" if unknown else ""
    return f"nothing: all {len(walk.writer.acknowledged)} acknowledged writes are there{words}."


async def compare_logs(walk: Walk) -> str:
    """See that the logs on disk are the same.

    Raises:
        StepFailed: they are not.
    """
    committed = await stop_equally_far(walk)
    logs = {session.name: await asyncio.to_thread(read_log, session, walk.store) for session in walk.sessions}
    shortest = min(map(len, logs.values()))
    different = [name for name, log in logs.items() if log[:shortest] != logs[walk.leader.name][:shortest]]
    if different or shortest < committed:
        lengths = {name: len(log) for name, log in logs.items()}
        raise StepFailed(f"{committed} entries, the same in all logs", f"{lengths}, different: {different or 'none'}")
    return f"all {shortest} entries are the same in the three logs on disk: index, term, kind, time and content."


async def compare_indexes(walk: Walk) -> str:
    """See that those that run are equally far: the memory store leaves nothing else to compare."""
    committed = await stop_equally_far(walk)
    return f"each had applied {committed} entries."


async def stop_equally_far(walk: Walk) -> int:
    """Wait until all that run are equally far, show the group, and stop all nodes; give the commit index.

    Raises:
        StepFailed: they do not get there.
    """
    await walk.equally_far()
    await walk.agree()
    groups, _ = await survey([walk.leader.address])
    if not groups:
        raise StepFailed("a table of the group", "nobody was reached")
    walk.show("$", f"quorate status {walk.leader.address.node}")
    walk.output.table(COLUMNS, table_rows(groups[0]), right=NUMBERS, indent=11)
    # The followers first: with the leader still there, or alone, nobody is elected anew, and no log grows.
    for session in [*walk.followers, walk.leader]:
        await session.close()
    return groups[0].latest.commit_index


def read_log(session: Session, kind: str) -> list[Entry]:
    """Open the log of a node that has stopped, in the store of that name, and read it whole."""
    directory = DataDirectory.open(session.data_dir, session.address.node)
    try:
        store = open_store(kind, directory)
        try:
            entries: list[Entry] = []
            last = store.load(session.name).last
            while len(entries) < last:
                for run in store.read(session.name, Index(len(entries) + 1), last, READ_BYTES_MAX):
                    entries.extend(
                        (index, run.term, run.kind, run.time, payload)
                        for index, payload in enumerate(run.payloads, run.first)
                    )
            return entries
        finally:
            store.close()
    finally:
        directory.close()


Step = tuple[str, Callable[[Walk], Awaitable[str]]]
"""The title of a step, and the function that runs it and gives what was seen."""

FIRST_STEPS: tuple[Step, ...] = (
    ("Three nodes start, each a process with a log of its own. They know nothing of one another yet.", start_nodes),
    (
        "One of them is told who the members are. The same configuration is then written on all three.",
        set_configuration,
    ),
    ("The members elect a leader.", elect),
    (
        "The leader takes a write: it is answered once a majority has it in its log. A read gives it back.",
        write_and_read,
    ),
    ("A key that nobody has set is refused by the state machine: an answer, not a failure.", refuse_unknown_key),
    (
        "From here on a client writes one key after the other. It knows the members, and follows the leader.",
        begin_to_write,
    ),
    ("The leader is stopped. The other two are a majority, and elect one of them.", stop_leader),
    ("A peer that does not lead says who does; the old leader too, once it is started again.", ask_wrong_peers),
    ("The redirect is followed: the new leader has the same value.", follow_redirect),
    ("Now the new leader is killed with no chance to say goodbye, in the midst of the client's writes.", kill_leader),
)
RESTART: Step = ("The killed node is started again, on the directory that it had.", restart_killed)
CHECK: Step = (
    "What was lost? The client stops writing, and reads back each write that was acknowledged.",
    check_writes,
)
LOGS: Step = ("All nodes stop. Their logs are opened and compared, entry by entry.", compare_logs)
INDEXES: Step = ("The nodes that are left are equally far. They stop.", compare_indexes)


def steps_for(store: str) -> tuple[Step, ...]:
    """Give the steps, in their order.

    A node whose store is memory forgets with its process what it promised, and may not come back under its name.
    """
    return (*FIRST_STEPS, CHECK, INDEXES) if store == "memory" else (*FIRST_STEPS, RESTART, CHECK, LOGS)
