"""The peers that quorate is compared with: etcd, and PySyncObj."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.processes import ROOT, Program, Programs, free_ports
from benchmarks.systems import Case, Measure, Measurement, measure_with, missing_modules, offers

BUILT = ROOT / ".cache" / "benchmarks"
"""Where compiled programs are kept, each under a name that its source decides."""

CONNECTIONS = 4
"""Connections of etcd's client, shared by all callers: one or sixteen were not clearly faster."""


def program_of(source: Path, files: Sequence[Path]) -> Path:
    """Give where the program is kept that is made of these files."""
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
    BUILT.mkdir(parents=True, exist_ok=True)
    return BUILT / f"{source.stem}-{digest}"


async def built(program: Path, cwd: Path, *command: str) -> str | None:
    """Compile, unless it was compiled before: ``command`` is given ``-o`` and the program's path.

    Returns:
        Why there is no program; None if there is.
    """
    if program.exists():  # noqa: ASYNC240 - nothing else runs meanwhile
        return None
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed, which compiles it"
    async with Programs() as programs:
        compiler = await programs.start(command[0], *command, "-o", str(program), obeys=False, cwd=cwd)
        if await compiler.process.wait() != 0:
            return f"{command[0]} could not compile it; see above"
    return None


class Etcd:
    """Three members of etcd with its defaults, which are durable; its client asks the leader."""

    name = "etcd"
    title = "etcd"
    offers = offers(["writes", "reads"], ["remote"])

    def __init__(self) -> None:
        sources = ROOT / "benchmarks" / "etcd_load"
        self.sources = sources
        self.load = program_of(sources, sorted(sources.glob("*")))

    async def prepare(self) -> str | None:
        if shutil.which("etcd") is None:
            return "etcd is not installed (Debian, Ubuntu: apt-get install etcd-server)"
        return await built(self.load, self.sources, "go", "build")

    @contextlib.asynccontextmanager
    async def cluster(self, directory: Path) -> AsyncIterator[Measure]:
        async with Programs() as programs:
            clients, members = await start_members(programs, directory)
            load = await programs.start("etcd's client", self.load)
            leader = members[clients.index(await load.ask("open", CONNECTIONS, clients))]

            async def measure(case: Case, seconds: float, warm_up: float) -> Measurement:
                return await measure_with(load, members, leader, case, seconds, warm_up)

            yield measure


async def start_members(programs: Programs, directory: Path, *options: str) -> tuple[list[str], list[Program]]:
    """Start three members of etcd; give where clients reach them, and their processes."""
    ports = free_ports(6)
    clients = [f"http://127.0.0.1:{port}" for port in ports[:3]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
    cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
    words = [
        "--logger",
        "zap",
        "--log-level",
        "error",
        "--initial-cluster-state",
        "new",
        "--initial-cluster",
        cluster,
        *options,
    ]
    members = []
    for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
        own = ["--name", f"m{number}", "--data-dir", str(directory / f"m{number}")]
        reached = ["--listen-client-urls", client, "--advertise-client-urls", client]
        heard = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        members.append(
            await programs.start(f"etcd m{number}", "etcd", *own, *reached, *heard, *words, obeys=False, is_quiet=True)
        )
    return clients, members


class PySyncObj:
    """Three nodes of PySyncObj, in memory: nothing of it is durable."""

    name = "pysyncobj"
    title = "PySyncObj (not durable)"
    offers = offers(["writes"], ["in-process"])

    async def prepare(self) -> str | None:
        return missing_modules("pysyncobj")

    @contextlib.asynccontextmanager
    async def cluster(self, directory: Path) -> AsyncIterator[Measure]:
        del directory  # It keeps everything in memory.
        nodes = [f"127.0.0.1:{port}" for port in free_ports(3)]
        async with Programs() as programs:
            members = [
                await programs.start_python(own, "pysyncobj_node", own, *sorted({*nodes} - {own}), is_quiet=True)
                for own in nodes
            ]
            async with asyncio.timeout(30):
                leader = members[nodes.index(await members[0].ask("leader"))]

            async def measure(case: Case, seconds: float, warm_up: float) -> Measurement:
                return await measure_with(leader, members, leader, case, seconds, warm_up)

            yield measure
