"""One run: a group is formed, clients call, faults come and go, all is healed, and what was seen is judged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quorate import QuorateError, connect
from quorate.machines import KV
from quorate.testing.chaos import checks, namespaces, slow_disk
from quorate.testing.chaos.cluster import ENTRY, Cluster, NodeGone, Recipe
from quorate.testing.chaos.faults import FAULTS, NEED_A_DISK, SLOW_DISKS, mend
from quorate.testing.chaos.isolation import Isolation
from quorate.testing.chaos.links import Links
from quorate.testing.chaos.load import Load
from quorate.testing.chaos.namespaces import Namespaces
from quorate.testing.chaos.proxies import Proxies
from quorate.testing.chaos.report import Availability, Report, availability, count_calls
from quorate.testing.chaos.schedule import Chronicle, disturb
from quorate.testing.chaos.world import NotNow, World
from quorate.testing.history.files import write_history

SETTINGS: dict[str, float] = {"snapshot_entries": 1000, "trailing_entries": 100, "change_timeout": 20.0}
"""Snapshots so often that a node that was away needs one; for the rest the defaults."""

ANSWER_SECONDS = 30.0
"""Seconds within which the group must answer once all is healed."""

LOOK = 0.05
"""Seconds between two looks at how late the loop is."""

HISTORY = "history.jsonl"
"""The name of the file in which the history is kept when something was violated."""


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    Attributes:
        seconds: how long clients and faults go on.
        seed: decides calls and faults; what they meet is the machine's doing.
        nodes: how many there are.
        clients: how many there are.
        rate: how many calls a second they make together at most.
        store: the name of the nodes' store.
        kinds: which faults may be drawn, by name.
        proxies: whether to use proxies though there could be namespaces.
        quiet_served_min: the least share of seconds without a fault in which a write must succeed.
        entry: what Python runs as a node.
        history: where the history is written; None for nowhere.
    """

    seconds: float
    seed: int
    nodes: int = 5
    clients: int = 10
    rate: float = 250.0
    store: str = "rocksdb"
    kinds: Sequence[str] = tuple(FAULTS)
    proxies: bool = False
    quiet_served_min: float = 0.9
    entry: Sequence[str] = ENTRY
    history: Path | None = None

    @property
    def names(self) -> list[str]:
        """The names of the nodes."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]


async def run_plan(plan: Plan) -> Report:
    """Do one run in a directory of its own, which stays only if something was violated, or the run itself failed.

    Raises:
        NodeGone: the group could not even be formed.
        Refused: it could not.
        CancelledError: the run was cancelled.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"quorate-chaos-{os.getpid()}-"))
    is_kept = True
    try:
        report = await run_in(directory, plan)
        is_kept = not report.is_good
    except asyncio.CancelledError:
        is_kept = False
        raise
    finally:
        if is_kept:
            print(f"logs, data and history are kept: {directory}", flush=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return report


async def run_in(directory: Path, plan: Plan) -> Report:
    """Do one run in a directory; leave there the history as well if something was violated."""
    chance = random.Random(plan.seed)
    links = Links()
    kinds, left_out = await possible(plan.kinds, plan.store)
    isolation = make_isolation(plan.names, links, random.Random(chance.random()), proxies=plan.proxies)
    async with running(Recipe(directory, plan.store, SETTINGS, plan.entry), isolation) as cluster:
        load = Load(cluster.addresses, random.Random(chance.random()), clients=plan.clients, rate=plan.rate)
        chronicle = Chronicle()
        setting = f"{plan.nodes} nodes, {isolation.text}; store {plan.store}"
        chronicle.say(f"seed {plan.seed}: {setting}")
        async with connect(KV, *cluster.addresses) as kv:
            world = World(cluster, links, kv, random.Random(chance.random()))
            async with calling(load), Lateness() as lateness:
                await disturb(world, chronicle, kinds, plan.seconds)
                seconds = chronicle.now
            chronicle.say("all is healed")
            violations = await judge_group(world, load)
        violations["processes"] = [*await stop(cluster), *cluster.accidents, *chronicle.accidents]
        violations["logs"] = checks.check_logs(node.log_path for node in cluster.nodes.values())
    chronicle.say("all have stopped; the history is judged")
    operations = load.recorder.operations()
    violations["linearizable"] = checks.check_linearizable(operations)
    served = availability([time - chronicle.begun for time in load.acknowledged], chronicle.incidents, seconds)
    violations["available"] = check_served(served, plan.quiet_served_min)
    if any(violations.values()):
        write_history(directory / HISTORY, operations)
    if plan.history is not None:
        write_history(plan.history, operations)
    calls, calls_by_name = count_calls(operations)
    return Report(
        seed=plan.seed,
        setting=setting,
        seconds=seconds,
        incidents=chronicle.incidents,
        left_out=left_out,
        calls=calls,
        calls_by_name=calls_by_name,
        repeats=load.repeats,
        availability=served,
        processes=sum(node.lives for node in cluster.nodes.values()),
        lateness=lateness.longest,
        violations=violations,
    )


def make_isolation(names: Sequence[str], links: Links, chance: random.Random, *, proxies: bool) -> Isolation:
    """Make what stands between the nodes: namespaces where there can be any, unless proxies are wanted."""
    why = "proxies are wanted" if proxies else namespaces.why_not()
    if why is None:
        try:
            return Namespaces(names, links, chance)
        except OSError as error:
            why = str(error)
    print(f"no network namespaces: {why}", flush=True)
    return Proxies(names, links, chance)


async def possible(kinds: Sequence[str], store: str) -> tuple[list[str], list[str]]:
    """Give which faults can be done here, and which cannot, and why."""
    reasons: dict[str, str] = {}
    if store == "memory":
        reasons |= dict.fromkeys((*NEED_A_DISK, *SLOW_DISKS), "a store in memory has no disk")
    elif not set(kinds).isdisjoint(SLOW_DISKS) and (why := await slow_disk.why_not()) is not None:
        reasons |= dict.fromkeys(SLOW_DISKS, why)
    left_out = [f"{kind}: {reasons[kind]}" for kind in kinds if kind in reasons]
    return [kind for kind in kinds if kind not in reasons], left_out


@contextlib.asynccontextmanager
async def running(recipe: Recipe, isolation: Isolation) -> AsyncIterator[Cluster]:
    """Run a group for as long as the context lasts; however it ends, no process outlives it.

    Raises:
        NodeGone: the group could not be formed.
        Refused: it could not.
    """
    cluster = Cluster(recipe, isolation)
    try:
        await isolation.start()
        await cluster.form()
        yield cluster
    finally:
        await cluster.kill()
        await isolation.close()


@contextlib.asynccontextmanager
async def calling(load: Load) -> AsyncIterator[None]:
    """Let the clients call for as long as the context lasts."""
    task = asyncio.create_task(load.run(), name="clients")
    try:
        yield
    finally:
        load.stop()
        await task


class Lateness:
    """How late the event loop is, for as long as the context lasts: clients and switch run on it.

    Attributes:
        longest: the most so far, seconds.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.longest: float = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Lateness:
        """Begin to look."""
        self._task = asyncio.create_task(self._look(), name="lateness")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        """Sleep, and see how much longer it was."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK
            await asyncio.sleep(LOOK)
            self.longest = max(self.longest, loop.time() - due)


async def judge_group(world: World, load: Load) -> dict[str, list[str]]:
    """Judge the group that is healed, while it runs: it answers, has lost nothing, and all members hold the same."""
    cluster, keys = world.cluster, load.keys
    violations: dict[str, list[str]] = {"answers": [], "nothing lost": [], "members equal": []}
    try:
        await world.kv.with_options(timeout=ANSWER_SECONDS).write(KV.set, "healed", "yes")
        await mend(world)
        found = await load.read_all()
    except NotNow:
        violations["answers"] = ["a node that was removed could not join again after all was healed"]
    except QuorateError as error:
        violations["answers"] = [f"after all was healed: {error}"]
    else:
        violations["nothing lost"] = checks.check_ledgers(load.recorder.operations(), found, keys.ledgers)
        violations["members equal"] = await checks.check_members(
            cluster.addresses, ["healed", *keys.registers, *keys.ledgers]
        )
    return violations


async def stop(cluster: Cluster) -> list[str]:
    """Stop all nodes; say which did not stop."""
    try:
        await cluster.stop()
    except NodeGone as error:
        return [str(error)]
    return []


def check_served(served: Availability, least: float) -> list[str]:
    """Check that writes succeeded in most seconds without a fault."""
    if served.quiet_served >= least * served.quiet:
        return []
    return [f"writes succeeded in {served.quiet_served} of {served.quiet} seconds without a fault"]
