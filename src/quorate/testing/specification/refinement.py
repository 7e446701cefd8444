"""Each step of a real core, explained by actions of the abstract Raft (``actions.py``): a refinement check.

A ``SpecifiedRaft`` is the real core, with every
input shown to a ``Refinement``: from what was true before and after it, and from the messages that came and were made,
that works out which actions it must have been, takes them on the abstract state, and compares. Fails at the first step
which no action explains. Knows no time, and not who drives the peers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeGuard

import msgspec

from quorate.core import Configuration, Member, Message, Raft, Ready
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    RequestPreVote,
    RequestVote,
    RequestVoteReply,
)
from quorate.testing.specification import actions
from quorate.testing.specification.abstract import Disk, Log, Server, Unexplained, World, entries_of, in_force
from quorate.testing.specification.step import Abstract, Step, Wishes, abstract, first_rewritten, stretches_of, wishes
from quorate.types import Index, PeerId, ReadId, Run, Snapshot

UNCHANGING = frozenset({"Receive", "Send"})
"""Actions that change no server: a step of only these is a stutter."""


class Refinement:
    """The abstract state beside a group of real peers, and what has been explained.

    Attributes:
        world: the abstract state.
        steps: inputs explained.
        stutters: those of them that changed nothing which the specification knows of.
        actions: how often each action was taken.
        trace: a line's parts for each step: the step, and the actions that explained it.
    """

    def __init__(self) -> None:
        """Begin without any server."""
        self.world: World = World()
        self.steps: int = 0
        self.stutters: int = 0
        self.actions: Counter[str] = Counter()
        self.trace: list[tuple[Step, tuple[str, ...]]] = []

    def lines(self) -> list[str]:
        """Give the trace, for people to read."""
        return [f"{step} -> {', '.join(taken) or 'nothing'}" for step, taken in self.trace]

    def started(self, raft: Raft, runs: Sequence[Run]) -> None:
        """Explain the start of a peer: as the first one, from these entries; else by what its disk holds.

        Raises:
            Unexplained: it starts with something else.
        """
        i = raft.state.peer
        if i in self.world.servers:
            actions.restart(self.world, i)
        else:
            hard_state = raft.state.hard_state
            actions.begin(self.world, i, Disk(hard_state.term, hard_state.voted_for, entries_of(runs)))
        seen, nothing = abstract(raft), Wishes((), (), (), None)
        step = Step(i, "start", seen, seen, nothing, nothing)
        compare(self.world.servers[i], seen, self.world.taken)
        self._note(step)

    def stepped(self, step: Step, ready: Ready | None = None) -> None:
        """Explain one input, or a ``Ready`` that was taken.

        Raises:
            Unexplained: no action explains it.
        """
        world, i, server = self.world, step.peer, self.world.servers[step.peer]
        try:
            if step.message is not None and step.sender is not None:
                self._receive(step, step.sender, step.message)
            elif step.what == "form" and step.after.last > len(server.log):
                actions.form(world, i, entries_of(step.has.entries)[-1])
            self._campaign(step)
            self._lead(step, server)
            self._make_messages(step)
            if step.after.role == "follower" and server.role != "follower":
                actions.step_down(world, i)
            if step.after.snapshot > server.snapshot and step.snapshot is not None:
                actions.take_snapshot(world, i, step.snapshot)
            compare(server, step.after, world.taken)
            if ready is not None:
                self._hand_over(step.peer, ready)
        finally:
            self._note(step)

    def _note(self, step: Step) -> None:
        """Note by which actions a step was explained, as far as it was."""
        taken, self.world.taken = tuple(self.world.taken), []
        self.actions.update(taken)
        self.trace.append((step, taken))
        if step.what != "ready":
            self.steps += 1
            self.stutters += UNCHANGING.issuperset(taken)

    # What a message leads to.

    def _receive(self, step: Step, j: PeerId, m: Message) -> None:
        """Take the actions that a message leads to at once."""
        world, i, server = self.world, step.peer, self.world.servers[step.peer]
        header = msgspec.structs.replace(m, entries=()) if isinstance(m, AppendEntries) else m
        prefix = actions.deliver(world, i, j, m, header)
        if isinstance(m, RequestPreVote):
            return
        if step.after.current_term >= m.term > server.current_term:
            actions.update_term(world, i, m.term)
        if isinstance(m, AppendEntries | InstallSnapshot):
            self._follow(step, server, m, prefix)
        elif isinstance(m, RequestVote):
            grants = any(is_vote(envelope.message) for envelope in (*step.sent, *step.promised))
            if grants or (step.after.voted_for == j != server.voted_for):
                actions.grant_vote(world, i, j, m)
        elif m.term == server.current_term:
            # Those that the real peer does not count may be counted here: it must count no others.
            if is_vote(m) and server.role == "candidate":
                actions.count_vote(world, i, j, m)
            elif is_acknowledgement(m) and server.role == "leader":
                actions.count_acknowledgement(world, i, j, m)

    def _follow(self, step: Step, server: Server, m: AppendEntries | InstallSnapshot, prefix: Log) -> None:
        """Take the actions that a leader's message leads to."""
        world, i = self.world, step.peer
        if m.term == server.current_term and server.role == "candidate" and step.after.role == "follower":
            actions.step_down(world, i)
        if not step.accepts:
            return
        if isinstance(m, AppendEntries):
            self._append(step, server, m)
        elif step.installs:
            actions.install_snapshot(world, i, m, prefix)
        else:
            actions.keep_log(world, i, m, prefix)

    def _append(self, step: Step, server: Server, m: AppendEntries) -> None:
        """Take the actions that new entries lead to."""
        rewritten = first_rewritten(step)
        if rewritten is not None:
            actions.remove_conflict(self.world, step.peer, m, rewritten)
        actions.append_new_entries(self.world, step.peer, m)
        if step.after.commit_index > server.commit_index:
            actions.learn_commit_index(self.world, step.peer, m, step.after.commit_index)

    # What follows.

    def _campaign(self, step: Step) -> None:
        """Take the action of one that campaigns, and make its requests while it is no more than a candidate."""
        server = self.world.servers[step.peer]
        campaigns = step.after.role != "follower" and server.role == "follower"
        if campaigns or step.after.current_term > server.current_term:
            actions.timeout(self.world, step.peer)
            self._make(step, lambda message: isinstance(message, RequestVote))

    def _lead(self, step: Step, server: Server) -> None:
        """Take the actions of one that wins or leads: what it appends, and what it commits.

        It commits before it appends the next configuration, but for one that it was just asked for.
        """
        wins = step.after.role == "leader" and server.role != "leader"
        if wins:
            actions.become_leader(self.world, step.peer)
        if server.role != "leader":
            return
        if wins or step.what in ("propose", "change"):
            self._append_own(step, server)
        if step.after.commit_index > server.commit_index:
            actions.advance_commit_index(self.world, step.peer, step.after.commit_index)
        self._append_own(step, server)

    def _append_own(self, step: Step, server: Server) -> None:
        """Append to a leader's log what the real one has appended."""
        last = Index(len(server.log))
        for run in step.has.entries:
            if last < run.last:
                for entry in entries_of([run.part(Index(last + 1), run.last)]):
                    actions.client_request(self.world, step.peer, entry)

    def _make_messages(self, step: Step) -> None:
        """Make all other messages."""
        self._make(step, lambda message: not isinstance(message, RequestVote))

    def _make(self, step: Step, chosen: Callable[[Message], bool]) -> None:
        """Make some of the messages that an input led to."""
        for act, envelopes in ((actions.send, step.sent), (actions.promise, step.promised)):
            for envelope in envelopes:
                if chosen(envelope.message):
                    act(self.world, step.peer, envelope.to, envelope.message, envelope.last)

    # The disk.

    def _hand_over(self, i: PeerId, ready: Ready) -> None:
        """Explain what a ``Ready`` hands to the disk: it must be all that changed."""
        server = self.world.servers[i]
        term, vote, log, snapshot = server.handed
        if ready.hard_state is not None:
            term, vote = ready.hard_state.term, ready.hard_state.voted_for
        if ready.compaction is not None:
            snapshot = ready.compaction.snapshot.index
            log = server.log[:snapshot] if ready.compaction.replaces_log else log
        for run in ready.entries:
            log = log[: run.first - 1] + entries_of([run])
        actions.hand_over(self.world, i, ready.number, Disk(term, vote, log, snapshot), writes=ready.writes)

    def persists(self, i: PeerId, number: int) -> None:
        """Explain that everything up to that ``Ready`` is durable."""
        writes = self.world.servers[i].writes
        while writes and writes[0].number <= number:
            actions.persist(self.world, i)


def is_vote(message: Message) -> TypeGuard[RequestVoteReply]:
    """Tell whether a message grants a vote."""
    return isinstance(message, RequestVoteReply) and message.vote_granted


def is_acknowledgement(message: Message) -> TypeGuard[AppendEntriesReply]:
    """Tell whether a message acknowledges entries."""
    return isinstance(message, AppendEntriesReply) and message.success


def compare(server: Server, seen: Abstract, taken: Sequence[str]) -> None:
    """Compare a server of the abstract state, after the actions of a step, with the real peer.

    Raises:
        Unexplained: they differ.
    """
    action = " + ".join(taken) or "Stutter"

    def demand(what: str, holds: bool, ours: object, theirs: object) -> None:
        if not holds:
            raise Unexplained(action, what, f"the specification has {ours}, the peer {theirs}")

    for what, ours, theirs in (
        ("currentTerm", server.current_term, seen.current_term),
        ("votedFor", server.voted_for, seen.voted_for),
        ("role", server.role, seen.role),
        ("commitIndex", server.commit_index, seen.commit_index),
        ("snapshot", server.snapshot, seen.snapshot),
        ("log", len(server.log), seen.last),
    ):
        demand(what, ours == theirs, ours, theirs)
    held = stretches_of(server.log, seen.start)
    demand("log", held == seen.stretches, held, seen.stretches)
    # A server always uses the latest configuration in its log, committed or not (thesis 4.1).
    latest = in_force(server.log)
    demand("ConfigFromLog", latest == seen.configuration, latest, seen.configuration)
    votes = seen.votes_granted <= server.votes_granted
    demand("votesGranted", votes, sorted(server.votes_granted), sorted(seen.votes_granted))
    known = all(index <= server.match_index.get(peer, 0) for peer, index in seen.match_index.items())
    demand("matchIndex", known, server.match_index, seen.match_index)


class SpecifiedRaft(Raft):
    """A core whose every input is explained."""

    def __init__(self, raft: Raft, runs: Sequence[Run], refinement: Refinement) -> None:
        """Take the place of ``raft``, which was just started; ``runs`` are the entries that it started from."""
        self.__dict__.update(raft.__dict__)
        self._refinement = refinement
        refinement.started(self, runs)

    def _explain(
        self, what: str, act: Callable[[], object], sender: PeerId | None = None, message: Message | None = None
    ) -> None:
        """Give an input, and explain what it led to."""
        before, had = abstract(self), wishes(self)
        try:
            act()
        finally:
            # One that is refused, such as a proposal to a follower, must have changed nothing.
            after, has = abstract(self), wishes(self)
            step = Step(self.state.peer, what, before, after, had, has, sender, message, self.state.snapshot)
            self._refinement.stepped(step)

    def receive(self, sender: PeerId, message: Message, now: float) -> None:
        """See ``Raft.receive``."""
        receive = super().receive
        self._explain("receive", lambda: receive(sender, message, now), sender, message)

    def tick(self, now: float) -> None:
        """See ``Raft.tick``."""
        tick = super().tick
        self._explain("tick", lambda: tick(now))

    def propose(self, commands: Sequence[bytes], now: float) -> range:
        """See ``Raft.propose``."""
        propose, taken = super().propose, list[range]()
        self._explain("propose", lambda: taken.append(propose(commands, now)))
        return taken[0]

    def read(self, now: float, *, by_lease: bool = False) -> ReadId:
        """See ``Raft.read``."""
        read, taken = super().read, list[ReadId]()
        self._explain("read", lambda: taken.append(read(now, by_lease=by_lease)))
        return taken[0]

    def transfer(self, to: PeerId | None, now: float) -> None:
        """See ``Raft.transfer``."""
        transfer = super().transfer
        self._explain("transfer", lambda: transfer(to, now))

    def unreachable(self, peer: PeerId, now: float) -> None:
        """See ``Raft.unreachable``."""
        unreachable = super().unreachable
        self._explain("unreachable", lambda: unreachable(peer, now))

    def form(self, configuration: Configuration, now: float) -> None:
        """See ``Raft.form``."""
        form = super().form
        self._explain("form", lambda: form(configuration, now))

    def change(self, members: Sequence[Member], now: float) -> None:
        """See ``Raft.change``."""
        change = super().change
        self._explain("change", lambda: change(members, now))

    def compacted(self, taken: Snapshot) -> None:
        """See ``Raft.compacted``."""
        compacted = super().compacted
        self._explain("compacted", lambda: compacted(taken))

    def shipped(self, peer: PeerId, index: Index, *, is_complete: bool) -> None:
        """See ``Raft.shipped``."""
        shipped = super().shipped
        self._explain("shipped", lambda: shipped(peer, index, is_complete=is_complete))

    def persisted(self, number: int) -> None:
        """See ``Raft.persisted``."""
        persisted = super().persisted
        self._refinement.persists(self.state.peer, number)
        self._explain("persisted", lambda: persisted(number))

    def ready(self, *, more_follows: bool = False) -> Ready:
        """See ``Raft.ready``."""
        before, had = abstract(self), wishes(self)
        ready = super().ready(more_follows=more_follows)
        has = Wishes(ready.messages, ready.messages_after_persist, had.entries, had.compaction)
        self._refinement.stepped(Step(self.state.peer, "ready", before, abstract(self), had, has), ready)
        return ready
