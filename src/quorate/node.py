"""Node: one process with one address, home of many peers. Their network, their disk and their loop.

Puts the parts together; decides nothing of the protocol.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from quorate.addresses import Addresses, check_told
from quorate.asking import make_ask
from quorate.calling import MachineType, describe
from quorate.changing import Membership, checked_kind
from quorate.ending import Ending
from quorate.errors import Stopped, StoreError
from quorate.following import Following
from quorate.forwarding import Forwarding
from quorate.joining import join_group, keep_address, own_member, parse_seeds
from quorate.loop import Loop
from quorate.machine import StateMachine
from quorate.notebook import table
from quorate.peer import Peer
from quorate.reopening import Reopened, reopen
from quorate.seat import Seat
from quorate.serving import Place, answer_for_all, carry_out_all
from quorate.settings import Settings
from quorate.store import LogStore
from quorate.store.directory import DataDirectory, Directory, MemoryDirectory, check_holds_no_node
from quorate.store.disk import Disk, ThreadExecutor, blocking
from quorate.store.engines import open_store
from quorate.surroundings import NOT_RUNNING, Surroundings
from quorate.transport import Answer, Packet, Transport
from quorate.transport.calls import Failure, Reply, Request, singly
from quorate.transport.local import PREFIX, check_path
from quorate.transport.security import TLS
from quorate.transport.tcp import TCPTransport
from quorate.types import Address, MemberKind, PeerId, is_name, parse_node
from quorate.waiters import check_home

logger: logging.Logger = logging.getLogger("quorate.node")

M = TypeVar("M", bound=StateMachine)


class Node:
    """One process with one address; home of many peers.

    ::

        async with Node("127.0.0.1:7001", data_dir="data/a") as node:
            peer = await node.start_peer(KV, name="peer1")

    Attributes:
        settings: the knobs.
    """

    def __init__(  # noqa: PLR0913 - all that a node may be told stands here
        self,
        bind: str,
        *,
        data_dir: str | Path | None = None,
        advertise: str | None = None,
        store: Literal["rocksdb", "lmdb", "memory"] | LogStore = "rocksdb",
        settings: Settings | None = None,
        tls: TLS | None = None,
        addresses: Mapping[str, str] | None = None,
        local: str | None = None,
        surroundings: Callable[[], Surroundings] | None = None,
    ) -> None:
        """Describe a node; nothing is opened before ``start``.

        Args:
            bind: where to listen, ``host:port``; port 0 takes a free one. Beyond loopback give ``tls`` as well.
            data_dir: the node's own directory, made when it does not exist. Needed for every store but ``"memory"``.
            advertise: where others reach this node, ``host:port``, if that is not ``bind``: behind NAT, in containers.
            store: ``"rocksdb"``; ``"lmdb"``, which is an extra; ``"memory"``, which forgets everything when the node
                stops; or an object that keeps the ``LogStore`` contract.
            settings: the knobs; the defaults suit one data centre.
            tls: certificate, key and authority; every connection then needs a certificate of that authority.
            addresses: where peers with these names are reached, ``{"peer1": "10.0.0.1:7001"}``, whatever their groups
                have for them: for when all of them have moved, and nobody knows where anybody is.
            local: the path of a local socket, such as ``"/run/app/quorate.sock"``, at which the node serves clients of
                this machine too: ``connect(KV, "unix:/run/app/quorate.sock")``. Only the user that runs the node may
                open it.
            surroundings: everything the node lives in, for simulations.

        Raises:
            TypeError: an address is no text.
            ValueError: an address cannot be read, ``local`` is no path for a socket, or ``data_dir`` is missing.
        """
        parse_node(bind)
        if advertise is not None:
            parse_node(advertise)
        if not data_dir and store != "memory" and surroundings is None:
            raise ValueError('a durable store needs a data_dir of its own; use store="memory" for one that forgets')
        self.settings: Settings = settings or Settings()
        self._bind = bind
        self._advertise = advertise
        self._data_dir = Path(data_dir).absolute() if data_dir else None  # Wherever the program goes from here.
        self._store_choice: str | LogStore = store
        self._tls = tls
        self._told = check_told(addresses or {})
        self._local_path = None if local is None else check_path(local)
        self._local: tuple[TCPTransport, Forwarding] | None = None
        self._make_surroundings = surroundings or self._real_surroundings
        self._surroundings: Surroundings | None = None
        self._directory: Directory | None = None
        self._store: LogStore | None = None
        self._disk: Disk | None = None
        self._loop: Loop | None = None
        self._places: dict[str, Place] = {}
        self._by_id: dict[PeerId, Seat] = {}
        self._starting: set[str] = set()
        self._address_keepers: dict[str, asyncio.Task[None]] = {}
        self._opening: asyncio.Event | None = None
        self._stops = 0
        self._leaving: Surroundings | None = None
        self._ending = Ending()
        self._home: asyncio.AbstractEventLoop | None = None
        self._ask = make_ask(lambda: self._running().transport, self.receive_requests, self._told)

    @property
    def address(self) -> str:
        """Where others reach this node, ``host:port``; known once it has started.

        Raises:
            Stopped: the node is not running.
        """
        return self._running().transport.address

    @property
    def peers(self) -> tuple[Peer[Any], ...]:
        """The peers that run on this node, in the order in which they were started."""
        return tuple(place.peer for place in self._places.values())

    async def start(self) -> None:
        """Listen, lock the data directory, open the store. Idempotent.

        Raises:
            OSError: the address, or the path of the local socket, cannot be bound; the message says why.
            StoreLocked: the data directory is in use.
            Corrupted: what is on the disk is not what was written.
            StoreError: the disk failed.
            RuntimeError: Python runs without assertions (``-O``); or not from this event loop.
            Stopped: the node was stopped while it started.
        """
        check_home(self._home)
        stops = self._stops
        while self._opening is not None:  # by another caller
            await self._opening.wait()
        if self._surroundings is not None:
            return
        if sys.flags.optimize:
            raise RuntimeError("quorate checks its invariants with assert; run Python without -O")
        self._opening = over = asyncio.Event()
        try:
            if self._stops == stops:  # Else it was stopped while this caller waited for the other.
                await self._open()
            if self._stops > stops:
                raise Stopped("the node was stopped while it started")
        except BaseException:
            await self._let_go()
            raise
        finally:
            self._opening = None
            over.set()

    async def _open(self) -> None:
        """Open network and disk, and make the loop. Whoever calls lets go of them if this raises."""
        await self._let_go()
        surroundings = self._surroundings = self._make_surroundings()
        self._home = asyncio.get_running_loop()

        # What is opened is kept at once: were the start cancelled just then, nobody else could let go of it.
        def open_directory() -> Directory:
            self._directory = surroundings.directory(surroundings.transport.address)
            return self._directory

        def open_logs(directory: Directory) -> LogStore:
            self._store = surroundings.store(directory)
            return self._store

        await surroundings.transport.listen(self)
        directory = await blocking(surroundings.executor, open_directory)
        store = await blocking(surroundings.executor, lambda: open_logs(directory))
        self._disk = Disk(store, surroundings.executor, self._disk_failed)
        self._loop = Loop(
            surroundings.clock, surroundings.wall, surroundings.transport, self._disk, self.settings, self._joined
        )
        if self._local_path is not None:
            await self._listen_at(self._local_path, surroundings)

    async def _listen_at(self, path: str, surroundings: Surroundings) -> None:
        """Serve clients of this machine at a path: what their peer here cannot answer is asked of the leader."""
        chance = surroundings.random.random

        def network() -> Transport:
            return TCPTransport(None, settings=self.settings, tls=self._tls, random=chance)

        def follow(addresses: tuple[Address, ...], group: str) -> Following:
            return Following(addresses, follow=True, reached=self._told, transport=network, random=chance, group=group)

        forwarding = Forwarding(self._places, self.receive_requests, follow, self.settings.uncommitted_bytes_max)
        address = surroundings.transport.address
        transport = TCPTransport(PREFIX + path, advertise=address, settings=self.settings, random=chance)
        self._local = transport, forwarding
        await transport.listen(forwarding)

    async def stop(self) -> None:
        """Stop every peer, then let go of disk and network. Idempotent.

        Raises:
            RuntimeError: not from this event loop; the message says why.
        """
        check_home(self._home)
        self._stops += 1
        try:
            await asyncio.gather(*map(self._stop_peer, list(self._places)))
            if self._opening is not None:  # Whoever starts it sees that it was stopped, and lets go of it.
                await self._opening.wait()
        finally:
            # Also when the caller is cancelled, as in `_stop_peer`: the first that is done is to stop the loop.
            if self._opening is None:
                await self._let_go()

    async def __aenter__(self) -> Self:
        """Start the node."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the node."""
        await self.stop()

    def __repr__(self) -> str:
        """Tell address and peers."""
        where = self._surroundings.transport.address if self._surroundings else f"{self._bind} stopped"
        return f"<Node {where} peers={','.join(self._places) or 'none'}>"

    def _repr_html_(self) -> str:
        """Give a table of its peers, for notebooks."""
        rows = [(place.peer.name, place.machine.name, place.peer.status()) for place in self._places.values()]
        where = f"at {self._surroundings.transport.address}" if self._surroundings else "that is stopped"
        return table(f"Node {where}", ("peer", "machine", ""), rows)

    async def start_peer(
        self,
        machine: type[M],
        *,
        name: str,
        join: str | Address | Sequence[str | Address] | None = None,
        kind: MemberKind = "voter",
    ) -> Peer[M]:
        """Start a peer: a new and empty one, or one that has been on this node before, with all its data.

        A new one follows nobody until it is named in ``Peer.set_configuration``, its own or another's; or, with
        ``join``, asks a group to take it, and is returned when it is a member. So it may be started with ``join``
        every time: one that is a member already asks nobody.

        Args:
            machine: the class of the state machine; an instance of it is made and its commands replayed.
            name: the peer's name: unique in its group and on this node; letters, digits, ``.``, ``_``, ``-``.
            join: the address of any member of a group, or of some, ``name@host:port``.
            kind: what it joins as: ``"voter"``; ``"learner"``, which receives everything and has no vote; or
                ``"witness"``, which votes and keeps no data. Without ``join`` whoever adds it says that.

        Raises:
            TypeError: the class is no state machine, or snapshots could not keep its state.
            RuntimeError: this is not the event loop that the node was started in.
            ValueError: the name, an address or the kind cannot be used, or the name runs on this node already.
            Stopped: the node is not running, or was stopped meanwhile.
            StoreLocked: the data directory belongs to another node or group.
            Corrupted: what is on the disk is not what was written.
            StoreError: the disk failed.
            MachineError: the log holds commands that the machine does not have.
            InvalidConfiguration: with ``join``: the group cannot take it; the message says why. It is stopped again, as
                after the next two.
            Unavailable: with ``join``: no leader was found, or it did not catch up, within
                ``Settings.change_timeout``.
            OutcomeUnknown: with ``join``: the time was over before the leader answered; it may have become a member.
        """
        surroundings = self._running()
        check_home(self._home)
        seeds = None if join is None else parse_seeds(name, join)
        checked_kind(kind)
        if not is_name(name):
            raise ValueError(f"{name!r} cannot name a peer; use up to 128 letters, digits, '.', '_' and '-'")
        if name in self._places and self._places[name].seat.failure is not None:
            await self._stop_peer(name)
        if name in self._places or name in self._starting:
            raise ValueError(f"a peer named {name} runs on this node already")
        assert self._loop is not None, "a running node has its loop"
        loop = self._loop
        machine_type = describe(machine)
        opened = await self._reopen(name, machine_type, surroundings)
        address = Address(name, *parse_node(surroundings.transport.address))
        reach = Addresses(address, self._told)
        seat = Seat(name, opened.raft, opened.apply, opened.snapshots, reach, self.settings, loop, opened.time)

        async def close() -> None:
            if name in self._places and self._places[name].seat is seat:  # Else another life of it runs by now.
                await self._stop_peer(name)

        random_ = surroundings.random.random
        membership = Membership(
            address, seat, machine_type.name, self.settings, ask=self._ask, random=random_, new_group=self._new_id
        )
        peer: Peer[M] = Peer(address, machine_type, seat, self.settings, membership=membership, close=close)
        self._places[name] = Place(peer, seat, opened.id, machine_type, self.settings)
        self._by_id[opened.id] = seat
        loop.add(seat)
        await self._take_up_membership(membership, seeds, kind)
        return peer

    async def _reopen(self, name: str, machine: MachineType, surroundings: Surroundings) -> Reopened:
        """Make a peer of what the disk holds under its name.

        Raises:
            Stopped: the node was stopped meanwhile.
            StoreError: the disk failed.
        """
        assert self._directory is not None, "a running node has its directory"
        assert self._disk is not None, "a running node has its disk"
        self._starting.add(name)
        try:
            opened = await reopen(name, machine, self._directory, self._disk, self.settings, surroundings)
            if self._surroundings is surroundings:
                return opened
        except StoreError:
            if self._surroundings is surroundings:
                raise  # Else its disk refuses because it stops.
        finally:
            self._starting.discard(name)
        raise Stopped(f"{name} was not started: the node was stopped meanwhile")

    async def _take_up_membership(
        self, membership: Membership, seeds: Sequence[Address] | None, kind: MemberKind
    ) -> None:
        """Join a group if that is wanted, else stop the peer; and see to it that its group knows its address."""
        name = membership.own.name
        if seeds is not None:
            try:
                await join_group(membership, seeds, kind)
            except BaseException:
                await self._stop_peer(name)
                raise
        if (own := own_member(membership)) is not None and own.address != membership.own:
            self._address_keepers[name] = asyncio.create_task(keep_address(membership), name=f"address of {name}")

    # What the transport delivers: see ``quorate.transport.Receiver``.

    def receive_packets(self, source: str, packets: Sequence[Packet]) -> None:
        """Hand packets to the peers they are for; those for nobody here are dropped."""
        for packet in packets:
            seat = self._by_id.get(packet.to)
            if seat is not None:
                seat.receive(source, packet)

    def lose_node(self, node: str) -> None:
        """Tell the peers that a node cannot be reached."""
        if self._loop is not None:
            self._loop.lose_node(node)

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        """Carry out requests from the network, and answer them."""
        if self._surroundings is None:  # Connections close a moment later.
            for request in chain.from_iterable(map(singly, requests)):
                answer(Reply(request.id, Failure("Stopped", "the node was stopped")))
            return
        now = self._surroundings.clock.time()
        for_nobody: list[Request] = []
        for name, asked in groupby(requests, attrgetter("peer")):
            if (place := self._places.get(name)) is not None:
                carry_out_all(place, asked, answer, now)
            else:
                for_nobody += asked
        if for_nobody:
            answer_for_all(self._places, for_nobody, answer)

    # Beginning and end.

    def _running(self) -> Surroundings:
        """Give the surroundings of a running node.

        Raises:
            Stopped: it is not running.
        """
        if self._surroundings is None or self._opening is not None:
            raise Stopped(NOT_RUNNING)
        return self._surroundings

    def _real_surroundings(self) -> Surroundings:
        """Give the real world."""
        loop = asyncio.get_running_loop()
        chance = random.Random(secrets.randbits(128))
        path, choice = self._data_dir, self._store_choice

        def open_directory(address: str) -> Directory:
            # An id must not outlive its log: beside a store that forgets, identities are forgotten too.
            if path is None or choice == "memory":
                check_holds_no_node(path)
                return MemoryDirectory()
            return DataDirectory.open(path, address)

        def open_logs(directory: Directory) -> LogStore:
            return open_store(choice, directory if isinstance(directory, DataDirectory) else None)

        return Surroundings(
            transport=TCPTransport(
                self._bind, advertise=self._advertise, settings=self.settings, tls=self._tls, random=chance.random
            ),
            executor=ThreadExecutor(loop),
            aside=ThreadExecutor(loop, "quorate-snapshots"),
            clock=loop,
            wall=time.time,
            random=chance,
            directory=open_directory,
            store=open_logs,
        )

    def _new_id(self) -> str:
        """Make a random id."""
        return f"{self._running().random.getrandbits(64):016x}"

    async def _stop_peer(self, name: str) -> None:
        """Stop one peer: what is under way is answered first, if that takes no longer than an election."""
        check_home(self._home)
        place = self._places.get(name)
        if place is None:
            return
        seat = place.seat
        try:
            if (keeper := self._address_keepers.pop(name, None)) is not None:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
            await seat.close(self.settings.election_timeout_max)
        finally:
            # Also when the caller is cancelled: a peer that takes no calls must not lead on.
            if self._places.get(name) is place:  # Else it was stopped twice at once, and may have been started again.
                del self._places[name], self._by_id[place.id]
                if self._loop is not None:
                    self._loop.remove(seat, Stopped(f"{name} was stopped"))

    async def _let_go(self) -> None:
        """Let go of network and disk; where another is at it yet, see to it that it ends."""
        self._leaving, self._surroundings = self._surroundings or self._leaving, None
        if self._leaving is not None:
            await self._ending.reach(self._end, self._leaving)

    async def _end(self, surroundings: Surroundings) -> None:
        """Let go of network and disk, in this order: nothing may be promised that is not written. May be begun anew."""
        loop, local, disk = self._loop, self._local, self._disk  # After an await they may be those of the next start.
        if loop is not None:
            loop.stop(Stopped("the node was stopped"))
        for part in (*(local or ()), surroundings.transport):
            await part.stop()
        if disk is not None:
            await disk.stop()
        for executor in (surroundings.executor, surroundings.aside):
            await executor.drain()
        if self._leaving is not surroundings:
            return  # Another caller has come to the end.
        surroundings.executor.stop()
        if disk is None and self._store is not None:
            self._store.close()
        surroundings.aside.stop()
        if self._directory is not None:
            self._directory.close()
        self._places.clear()
        self._by_id.clear()
        self._disk = self._loop = self._directory = self._store = self._local = self._leaving = self._home = None

    def _joined(self, name: str, group: str) -> None:
        """Keep in the peer's identity which group it belongs to."""
        if (directory := self._directory) is not None:
            self._running().executor.submit(lambda: directory.set_group(name, group), self._joined_done)

    def _joined_done(self, _: None, error: BaseException | None) -> None:
        """Stop like for any failure of the disk if the identity could not be written."""
        if error is not None:
            self._disk_failed(error if isinstance(error, StoreError) else StoreError(str(error)))

    def _disk_failed(self, error: StoreError) -> None:
        """Stop every peer: none of them can promise anything any longer."""
        logger.critical("the disk of %r failed, its peers stop: %s", self, error)
        if self._loop is not None:
            self._loop.stop(error)
