"""A queue of jobs that outlives its leader: commands as structs, leases by the clock of the log, safe repetition.

A worker takes a job for some seconds; when it does not finish in time, another worker gets the job. Every command of
this machine may be repeated: that is what makes ``OutcomeUnknown`` harmless. Run it with: python examples/job_queue.py
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar, assert_never

from quorate import Client, Command, Node, OutcomeUnknown, Query, Rejected, StateMachine, connect

R = TypeVar("R")


class Add(Command[bool], tag="add"):
    """Add a job under a name of the caller's choice; tell whether it is new."""

    job: str


class Take(Command[str | None], tag="take"):
    """Take a job for some seconds: the one this worker holds already, or the oldest free one; None if none is free."""

    worker: str
    seconds: float


class Finish(Command[None], tag="finish"):
    """Finish the job that this worker holds, or has finished before."""

    worker: str
    job: str


class Finished(Query[dict[str, str]], tag="finished"):
    """Give the worker that finished each finished job."""


class JobQueue(StateMachine):
    """Jobs that wait or are being worked on, the oldest first, and those that are finished.

    Attributes:
        holders: the worker that holds each job, and until when; no worker and 0.0 for one that waits.
        finished: the worker that finished each job.
    """

    holders: dict[str, tuple[str, float]]
    finished: dict[str, str]

    def __init__(self) -> None:
        self.holders = {}
        self.finished = {}

    def handle_write(self, command: Add | Take | Finish) -> object:
        """Run a command. Time is that of the log: alike on every peer, whatever its own clock says."""
        now = self.context.now
        match command:
            case Add(job=job):
                is_new = job not in self.holders and job not in self.finished
                if is_new:
                    self.holders[job] = ("", 0.0)
                return is_new
            case Take(worker=worker, seconds=seconds):
                held = [job for job, (holder, until) in self.holders.items() if holder == worker and until > now]
                free = [job for job, (_, until) in self.holders.items() if until <= now]
                taken = next(iter(held + free), None)
                if taken is not None:
                    self.holders[taken] = (worker, now + seconds)
                return taken
            case Finish(worker=worker, job=job):
                if self.finished.get(job) == worker:
                    return None
                if self.holders.get(job, ("", 0.0))[0] != worker:
                    raise Rejected("not_yours", job)
                del self.holders[job]
                self.finished[job] = worker
                return None
            case _:
                assert_never(command)

    def handle_read(self, query: Finished) -> object:
        """Answer a query."""
        return self.finished


async def write(queue: Client[JobQueue], command: Command[R]) -> R:
    """Write until the outcome is known. Right for this machine only because each command may be repeated."""
    while True:
        try:
            return await queue.write(command)
        except OutcomeUnknown:
            continue


async def work(queue: Client[JobQueue], worker: str) -> None:
    """Take jobs and finish them until none is free."""
    while (job := await write(queue, Take(worker, 30.0))) is not None:
        await asyncio.sleep(0.01)  # the work
        await write(queue, Finish(worker, job))


async def run(directory: Path, stack: AsyncExitStack) -> None:
    """Let three workers do thirty jobs while the leader is stopped."""
    nodes: dict[str, Node] = {}
    peers = []
    for name in ("peer1", "peer2", "peer3"):
        nodes[name] = await stack.enter_async_context(Node("127.0.0.1:0", data_dir=directory / name))
        peers.append(await nodes[name].start_peer(JobQueue, name=name))
    members = [peer.address for peer in peers]
    await peers[0].set_configuration(*members)

    queue = await stack.enter_async_context(connect(JobQueue, *members))
    jobs = [f"job {number}" for number in range(1, 31)]
    added = await asyncio.gather(*(write(queue, Add(job)) for job in jobs))
    print(f"{sum(added)} jobs are added")
    print(f"job 1 is {'new' if await write(queue, Add('job 1')) else 'known already'}")

    workers = [asyncio.create_task(work(queue, worker)) for worker in ("ann", "bob", "cat")]
    leader = await queue.leader()
    await asyncio.sleep(0.05)
    await nodes[leader.name].stop()
    print(f"{leader.name}, the leader, is stopped")
    await asyncio.gather(*workers)
    print(f"{(await queue.leader()).name} leads now")

    finished = await queue.read(Finished())
    print(f"{len(finished)} jobs are finished, each once, by {', '.join(sorted(set(finished.values())))}")


async def main() -> None:
    """Run the jobs in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            await run(Path(directory), stack)


if __name__ == "__main__":
    # Nodes warn when a neighbour does not answer. Here that is the plot.
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
