"""One peer's snapshots: when one is due, writing it aside, sending it to another peer, and taking one in.

What blocks runs on a thread of its own, beside the disk's: a large snapshot must not hold up a vote or an
acknowledgement. Knows files and connections. Does not know roles and terms: the core says what a snapshot stands for,
and what becomes of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from quorate.apply import Apply
from quorate.core.messages import InstallSnapshot
from quorate.errors import Corrupted, MachineError, QuorateError, Stopped, StoreError, Unavailable
from quorate.settings import Settings
from quorate.store.disk import Executor, blocking, store_error_from
from quorate.store.snapshots import SnapshotStore, stateless
from quorate.tables import Replicated
from quorate.transport import Channel
from quorate.transport.calls import Failure, Request, SnapshotAt, SnapshotCall, encodable, error_from_failure
from quorate.types import Index, PeerId, Snapshot
from quorate.waiters import Waiter

logger: logging.Logger = logging.getLogger("quorate.snapshots")

T = TypeVar("T")


class Shipment(msgspec.Struct, frozen=True):
    """A snapshot on its way to another peer.

    Attributes:
        to: whom it is for.
        name: that peer's name.
        node: where it is reached, ``host:port``.
        group: the id of the group.
        message: what the snapshot stands for, and who sends it.
        is_wanted: whether the sender still leads.
        wake: gives the sender a turn.
    """

    to: PeerId
    name: str
    node: str
    group: str
    message: InstallSnapshot
    is_wanted: Callable[[], bool]
    wake: Callable[[], None]


class Snapshots:
    """The snapshots of one peer.

    Attributes:
        sent: how many snapshots were sent whole, since the start.
        why: a sentence: that the latest one could not be taken, and why; None when it could.
    """

    def __init__(
        self,
        name: str,
        store: SnapshotStore,
        executor: Executor,
        connect: Callable[[str], Awaitable[Channel]],
        settings: Settings,
    ) -> None:
        """Take over where a peer's snapshots are kept.

        Args:
            name: the peer's name.
            store: its files.
            executor: runs what blocks.
            connect: opens a connection to a node.
            settings: the knobs.
        """
        self.sent: int = 0
        self.why: str | None = None
        self._name = name
        self._store = store
        self._executor = executor
        self._connect = connect
        self._settings = settings
        self._is_taking = False
        self._is_stopped = False
        self._tried_at = Index(0)
        self._shipping: dict[PeerId, tuple[Snapshot, asyncio.Task[None]]] = {}
        self._pointers: list[tuple[int, Snapshot]] = []
        self._kept: Snapshot | None = None
        self._damaged: Snapshot | None = None
        self._waiters: list[Waiter] = []
        self._told: list[Waiter] = []

    # Taking one.

    def want(self, waiter: Waiter) -> None:
        """Have a snapshot taken soon; the waiter is given its index once it is durable."""
        self._waiters.append(waiter)

    def is_due(self, apply: Apply, latest: Index) -> bool:
        """Tell whether to take a snapshot now: it is wanted, or enough was applied since the latest one."""
        if self._is_taking or self._is_stopped:
            return False
        if self._damaged is not None and self._damaged.index >= latest:
            return True  # Also of the same index: what is written anew takes the place of the damaged file.
        if self._waiters and apply.last_applied <= latest:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.succeed(latest)
        if self._waiters:
            return True
        entries = apply.last_applied - max(latest, self._tried_at)
        is_large = apply.bytes_since >= self._settings.snapshot_bytes
        return entries >= self._settings.snapshot_entries or (is_large and entries > 0)

    def take(
        self,
        snapshot: Snapshot,
        freeze: Callable[[], Iterable[bytes]],
        done: Callable[[Snapshot], None],
    ) -> None:
        """Freeze the machine and write the snapshot aside; ``done`` is told once its file is durable.

        A snapshot that fails takes nothing away: the log is still whole. The next one is tried as much later as one is
        taken as a rule.
        """
        self._is_taking = True
        self._tried_at = snapshot.index
        self._damaged = None
        # Who asks from now on wants more than this one will hold.
        self._told, self._waiters = self._waiters, []

        def finished(_: None, error: BaseException | None) -> None:
            if self._is_stopped:
                return
            self._is_taking = False
            told, self._told = self._told, []
            if error is None:
                self.why = None
                done(snapshot)
                for waiter in told:
                    waiter.succeed(snapshot.index)
                return
            failure = error if isinstance(error, QuorateError) else store_error_from(error)
            self.why = f"its snapshots fail, so that its log grows: {encodable(failure)}"
            # What says all in its message needs no trace; of what a machine raised it matters where.
            trace = error if failure is not error or (isinstance(error, MachineError) and error.__cause__) else None
            logger.error("%s: snapshot %d failed: %s", self._name, snapshot.index, failure, exc_info=trace)
            for waiter in told:
                waiter.fail(failure)

        try:
            chunks = freeze()
        except MachineError as error:
            finished(None, error)
        else:
            self._executor.submit(lambda: self._store.write(snapshot, self._until_stopped(chunks)), finished)

    def point_at(self, snapshot: Snapshot, number: int) -> None:
        """Learn that the log will point at a snapshot once the ``Ready`` of that number is durable."""
        self._pointers.append((number, snapshot))

    def persisted(self, number: int) -> None:
        """Learn that all up to that ``Ready`` is durable: what is older than the snapshot it points at may go."""
        while self._pointers and self._pointers[0][0] <= number:
            self.keep(self._pointers.pop(0)[1])

    def keep(self, snapshot: Snapshot) -> None:
        """Drop all files older than a snapshot that the store durably points at, but for those being sent."""
        self._kept = snapshot
        sent = {sent.index for sent, _ in self._shipping.values() if sent.index < snapshot.index}
        self._executor.submit(lambda: self._store.drop_before(snapshot.index, sent), self._dropped)

    def restore(
        self,
        snapshot: Snapshot,
        restored: Callable[[Iterable[bytes]], Replicated],
        done: Callable[[object], None],
    ) -> None:
        """Make a state from a snapshot's file; ``done`` is given what ``restored`` gives, or what it raises."""

        def finished(state: Replicated | None, error: BaseException | None) -> None:
            if not self._is_stopped:
                done(state if error is None else error)

        self._executor.submit(lambda: restored(self._until_stopped(self._store.chunks(snapshot))), finished)

    def stop(self, why: str) -> None:
        """Give up whatever is under way; ``why`` tells those who wait."""
        self._is_stopped = True
        for waiter in (*self._told, *self._waiters):
            waiter.fail(Stopped(why))
        self._told, self._waiters = [], []
        for _, task in list(self._shipping.values()):
            task.cancel()

    # Sending one.

    def ship(self, shipment: Shipment, done: Callable[[bool], None]) -> None:
        """Send a snapshot on a connection of its own; ``done`` is told whether the other peer has all of it.

        A second one for the same peer waits for nobody: it takes the place of the first.
        """
        before = self._shipping.pop(shipment.to, None)
        if before is not None:
            before[1].cancel()
        task = asyncio.get_running_loop().create_task(self._ship(shipment, done))
        self._shipping[shipment.to] = (shipment.message.snapshot, task)
        task.add_done_callback(lambda ended: self._shipped(shipment, ended))

    async def _ship(self, shipment: Shipment, done: Callable[[bool], None]) -> None:
        """Send it, and when that fails say so only after a pause: the core will want to send one at once."""
        snapshot = shipment.message.snapshot
        try:
            await self._send(shipment)
        except Exception as error:  # Whatever it was: nothing else would be sent to that peer if nobody said so.
            trace = None if isinstance(error, (QuorateError, OSError, ValueError)) else error
            text = "%s: sending snapshot %d to %s: %s"
            logger.warning(text, self._name, snapshot.index, shipment.name, error, exc_info=trace)
            if isinstance(error, StoreError) and not snapshot.is_bare:
                await self._check(shipment)
            await asyncio.sleep(self._settings.reconnect_delay_max)
            done(False)
        else:
            self.sent += 1
            done(True)

    async def _check(self, shipment: Shipment) -> None:
        """Read the file whole here; if it cannot be read, have a snapshot taken to take its place.

        A file is not read between the start and the next one. Without this look at it, one that has been damaged since
        would be sent, and thrown away at the other end, for ever.
        """
        snapshot = shipment.message.snapshot

        def read() -> None:
            for _ in self._until_stopped(self._store.chunks(snapshot)):
                pass

        try:
            await blocking(self._executor, read)
        except StoreError as error:
            logger.critical("%s: %s. Another snapshot is taken in its place", self._name, error)
            self._damaged = snapshot
            shipment.wake()

    async def _send(self, shipment: Shipment) -> None:
        """Send the file piece by piece: each is answered before the next one goes, which is flow control enough.

        Raises:
            Unavailable: the other peer does not answer, refuses, or takes no more.
            Stopped: this peer leads no longer.
            StoreError: the file cannot be read here, or was damaged when it had arrived.
            OSError: the connection broke.
        """
        snapshot = shipment.message.snapshot
        content = stateless(snapshot) if snapshot.is_bare else None
        size = (
            len(content) if content is not None else await blocking(self._executor, lambda: self._store.size(snapshot))
        )
        channel = await self._in_time(self._connect(shipment.node))
        try:
            offset, piece = 0, b""  # The first call asks how much is there already: a broken transfer goes on there.
            while True:
                call = SnapshotCall(shipment.group, shipment.message, size, offset, piece)
                there = await self._ask(channel, shipment.name, call)
                if there >= size:
                    return
                if piece and there <= offset:
                    raise Unavailable("it takes no more of the snapshot")
                if not shipment.is_wanted():
                    raise Stopped("this peer leads no longer")
                offset = there
                piece = await self._piece(snapshot, content, offset)
        finally:
            await channel.close()

    async def _ask(self, channel: Channel, name: str, call: SnapshotCall) -> int:
        """Send one piece; give how much of the file is there then.

        Raises:
            Unavailable: there was no answer, or a refusal, or an answer that makes no sense.
            Corrupted: the whole file is there, and is damaged.
        """
        reply = await self._in_time(channel.call(Request(0, name, call)))
        match reply.answer:
            case SnapshotAt(offset=offset) if offset >= 0:
                return offset
            case Failure() as failure:
                refusal: QuorateError = error_from_failure(failure)
                # Its disk is no fault of ours.
                raise refusal if isinstance(refusal, Corrupted) else Unavailable(f"it refuses: {refusal}")
            case other:
                raise Unavailable(f"it answers with {other}")

    async def _in_time(self, answer: Awaitable[T]) -> T:
        """Wait for something from the other node.

        Raises:
            Unavailable: it does not come in time.
        """
        try:
            async with asyncio.timeout(self._settings.call_timeout):
                return await answer
        except TimeoutError:
            raise Unavailable(f"no answer within {self._settings.call_timeout:g} s") from None

    async def _piece(self, snapshot: Snapshot, content: bytes | None, offset: int) -> bytes:
        """Read a piece of the file.

        Raises:
            Corrupted: it ends too early.
        """
        length = min(self._settings.snapshot_chunk_bytes, self._settings.append_bytes_max)
        if content is not None:
            return content[offset : offset + length]
        piece = await blocking(self._executor, lambda: self._store.read_bytes(snapshot, offset, length))
        if not piece:
            raise Corrupted(f"the file of snapshot {snapshot.index} ends early")
        return piece

    def _shipped(self, shipment: Shipment, task: asyncio.Task[None]) -> None:
        """Forget a shipment that ended, and drop what was only kept for it."""
        held = self._shipping.get(shipment.to)
        if held is not None and held[1] is task:
            del self._shipping[shipment.to]
        if self._kept is not None and not self._is_stopped:
            self.keep(self._kept)

    # Taking one in.

    def receive(self, call: SnapshotCall, waiter: Waiter, deliver: Callable[[InstallSnapshot], None]) -> None:
        """Take a piece of a snapshot that a leader sends; ``deliver`` is called when it is whole and durable.

        Nothing of it counts before: it lies aside, in a file of its own, until all its checksums have been compared.
        """
        snapshot = call.message.snapshot
        if not 0 <= call.offset <= call.offset + len(call.piece) <= call.size or not call.size:
            waiter.fail(Unavailable(f"bytes {call.offset} and {len(call.piece)} more are no piece of {call.size}"))
            return

        def store() -> int:
            there = self._store.receive(snapshot, call.offset, call.piece)
            if there >= call.size:
                self._store.received(snapshot, call.size)
            return there

        def finished(there: int | None, error: BaseException | None) -> None:
            if self._is_stopped:
                waiter.fail(Stopped(f"{self._name} has stopped"))
            elif there is None:
                failure = store_error_from(error) if error is not None else Corrupted("nothing was stored")
                logger.error("%s: snapshot %d cannot be taken in: %s", self._name, snapshot.index, failure)
                waiter.fail(failure)
            else:
                if there >= call.size:
                    deliver(call.message)
                waiter.succeed(there)

        self._executor.submit(store, finished)

    # What blocks.

    def _until_stopped(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Give the chunks for as long as the peer runs: its node waits for this thread when it stops.

        Raises:
            Stopped: it runs no longer.
        """
        for chunk in chunks:
            if self._is_stopped:
                raise Stopped(f"{self._name} was stopped")
            yield chunk

    def _dropped(self, _: None, error: BaseException | None) -> None:
        """Say that old files are still there; they take room, and do no other harm."""
        if error is not None and not self._is_stopped:
            logger.warning("%s: old snapshots cannot be removed: %s", self._name, error)
