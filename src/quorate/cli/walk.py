"""The demo's state, and what its steps are made of: type a line, see what it prints, wait until something is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from quorate.cli.output import Output
from quorate.cli.session import Session
from quorate.cli.writer import Writer

TRIES = 40
"""How often something that needs a moment is looked at, such as an election that is under way."""
PAUSE = 0.25
"""Seconds between two looks."""


class StepFailed(Exception):
    """What a step must show was not seen."""

    def __init__(self, expected: str, seen: object) -> None:
        """Say what should have been seen, and what was."""
        super().__init__(f"expected {expected}; seen: {seen}")


async def until(look: Callable[[], Awaitable[object]], expected: str) -> None:
    """Look until something is seen.

    Again and again, because on a machine that is busy an election may be under way at any time.

    Args:
        look: gives None when it is seen, else what is there instead.
        expected: what should be seen, in words.

    Raises:
        StepFailed: it never was.
    """
    seen: object = None
    for _ in range(TRIES):
        seen = await look()
        if seen is None:
            return
        await asyncio.sleep(PAUSE)
    raise StepFailed(expected, seen)


class Walk:
    """Who is who by now.

    Attributes:
        output: where the demo prints.
        sessions: the nodes, those to come among them.
        store: the name of their store.
        writer: the client that writes all the while.
        leader: who leads, as far as was seen.
        former: the leaders that were stopped or killed, the latest last.
        down: the nodes whose peers do not run now.
    """

    def __init__(self, output: Output, sessions: Sequence[Session], store: str, lanes: int = 1) -> None:
        """Begin with sessions that are not started yet.

        Args:
            output: where to print.
            sessions: the nodes.
            store: the name of their store.
            lanes: how many writes of the client are under way at once.
        """
        self.output = output
        self.sessions: tuple[Session, ...] = tuple(sessions)
        self.store = store
        self.writer: Writer = Writer([session.address for session in sessions], lanes)
        self.leader: Session = self.sessions[0]
        self.former: list[Session] = []
        self.down: list[Session] = []

    async def aclose(self) -> None:
        """Stop the client."""
        await self.writer.close()

    @property
    def running(self) -> list[Session]:
        """The sessions whose peers run."""
        return [session for session in self.sessions if session not in self.down]

    @property
    def followers(self) -> list[Session]:
        """The sessions whose peers run, without the leader."""
        return [session for session in self.running if session is not self.leader]

    @property
    def members(self) -> str:
        """All addresses, as the arguments of a call."""
        return ", ".join(f'"{session.address}"' for session in self.sessions)

    def show(self, who: str, code: str, printed: str = "") -> None:
        """Print a line that was typed, and what it printed."""
        self.output.line(f"    {who:>6} {code}", "cyan")
        self.show_printed(printed)

    def show_printed(self, printed: str) -> None:
        """Print what was printed."""
        for text in printed.splitlines():
            self.output.line(f"           {text}")

    async def expect(self, session: Session, code: str, text: str = "") -> None:
        """Type a line into a session until it prints just this text; show that.

        Raises:
            StepFailed: it never does.
        """

        async def look() -> str | None:
            printed = await session.type(code)
            return None if printed == text else printed

        await until(look, f"{text or 'nothing'} from {session.name} >>> {code}")
        self.show(session.name, f">>> {code}", text)

    async def expect_of_leader(self, code: str, text: str) -> None:
        """Type a line into the leader's session, whoever leads by now, until it prints just this text; show that.

        Raises:
            StepFailed: it never does.
        """

        async def look() -> str | None:
            await self.agree()
            printed = await self.leader.type(code)
            return None if printed == text else printed

        await until(look, f"{text} from the leader >>> {code}")
        self.show(self.leader.name, f">>> {code}", text)

    async def expect_redirect(self, session: Session) -> None:
        """See that a write to a peer that does not lead is answered with who does.

        Raises:
            StepFailed: it is not.
        """
        code, printed = 'await peer.write(KV.set, "foo", "bar")', ""

        async def look() -> str | None:
            nonlocal printed
            await self.agree()
            printed = await session.type(code)
            redirect = f"quorate.errors.NotLeader: {session.name} does not lead; try {self.leader.address}"
            return None if printed == redirect else printed

        await until(look, f"a redirect to the leader from {session.name}")
        self.show(session.name, f">>> {code}", printed)

    async def find_leader(self, asked: Session, code: str) -> Session:
        """Ask one peer who leads, and see that all others say the same; show that.

        Raises:
            StepFailed: they do not.
        """

        async def look() -> str | None:
            await self.agree()
            printed = await asked.type(code)
            return None if printed == repr(self.leader.address) else printed

        await until(look, f"the leader's address from {asked.name} >>> {code}")
        self.show(asked.name, f">>> {code}", repr(self.leader.address))
        return self.leader

    async def agree(self) -> None:
        """See who leads by now: the one whom all peers that run name.

        Raises:
            StepFailed: they do not agree.
        """

        async def look() -> dict[str, str] | None:
            answers = {session.name: await session.type("await peer.leader()") for session in self.running}
            for session in self.running:
                if set(answers.values()) == {repr(session.address)}:
                    self.leader = session
                    return None
            return answers

        await until(look, "the same leader from all peers")

    async def writes_seen(self, more: int) -> None:
        """Wait until that many more of the client's writes are acknowledged.

        Raises:
            StepFailed: they are not.
        """
        goal = len(self.writer.acknowledged) + more

        async def look() -> str | None:
            count = len(self.writer.acknowledged)
            return None if count >= goal else f"{count}, the last error: {self.writer.failure}"

        await until(look, f"{goal} acknowledged writes")

    async def caught_up(self, session: Session) -> None:
        """Wait until a peer has applied all that the leader had committed when this was asked; show that.

        Raises:
            StepFailed: it does not get there.
        """
        code = "peer.status().last_applied"
        goal, applied = int(await self.leader.type("peer.status().commit_index")), 0

        async def look() -> int | None:
            nonlocal applied
            applied = int(await session.type(code))
            return None if applied >= goal else applied

        await until(look, f"{goal} entries applied by {session.name}")
        self.show(session.name, f">>> {code}", str(applied))

    async def equally_far(self) -> None:
        """Wait until all peers that run have one and the same last index, commit index and last applied.

        Raises:
            StepFailed: they do not.
        """
        code = "s = peer.status(); s.last_index, s.commit_index, s.last_applied"

        async def look() -> list[str] | None:
            answers = [await session.type(code) for session in self.running]
            indexes = {index for answer in answers for index in answer.strip("()").split(", ")}
            return None if len(indexes) == 1 else answers

        await until(look, "one and the same index everywhere")
