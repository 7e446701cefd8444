"""The blocking twin of ``quorate.node``: the same node, for threads that wait.

Its methods say what theirs say, word for word, and a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import quorate.node
from quorate.blocking.background import Background
from quorate.blocking.peer import Peer
from quorate.errors import QuorateError, Stopped
from quorate.machine import StateMachine
from quorate.settings import Settings
from quorate.store import LogStore
from quorate.surroundings import NOT_RUNNING, Surroundings
from quorate.transport.security import TLS
from quorate.types import Address, MemberKind

M = TypeVar("M", bound=StateMachine)


class Node:
    """One process with one address; home of many peers. Its loop has a thread of its own, begun by ``start``.

    ::

        with Node("127.0.0.1:7001", data_dir="data/a") as node:
            peer = node.start_peer(KV, name="peer1")

    Start it in the process that is to run it: one that is forked from there has a node that cannot be used.

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
        self._node = quorate.node.Node(
            bind,
            data_dir=data_dir,
            advertise=advertise,
            store=store,
            settings=settings,
            tls=tls,
            addresses=addresses,
            local=local,
            surroundings=surroundings,
        )
        self.settings: Settings = self._node.settings
        self._background = self._make_background()

    @property
    def address(self) -> str:
        """Where others reach this node, ``host:port``; known once it has started.

        Raises:
            Stopped: the node is not running.
        """
        self._background.check_process()
        return self._background.look(lambda: self._node.address)

    @property
    def peers(self) -> tuple[Peer[Any], ...]:
        """The peers that run on this node, in the order in which they were started."""
        background = self._background
        return tuple(Peer(peer, background) for peer in background.look(lambda: self._node.peers))

    def start(self) -> None:
        """Listen, lock the data directory, open the store. Idempotent.

        Raises:
            OSError: the address, or the path of the local socket, cannot be bound; the message says why.
            StoreLocked: the data directory is in use.
            Corrupted: what is on the disk is not what was written.
            StoreError: the disk failed.
            RuntimeError: Python runs without assertions (``-O``); or not from this event loop.
            Stopped: the node was stopped while it started.
        """
        if self._background.has_ended:
            self._background = self._make_background()
        self._background.call(self._node.start)

    def stop(self) -> None:
        """Stop every peer, then let go of disk and network. Idempotent.

        Raises:
            RuntimeError: not from this event loop; the message says why.
        """
        self._background.stop()

    def __enter__(self) -> Self:
        """Start the node."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the node."""
        self.stop()

    def __repr__(self) -> str:
        """Tell address and peers."""
        return self._background.look(self._node.__repr__)

    def _repr_html_(self) -> str:
        """Give a table of its peers, for notebooks."""
        return self._background.look(self._node._repr_html_)

    def start_peer(
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
        peer = self._background.call(self._node.start_peer, machine, name=name, join=join, kind=kind)
        return Peer(peer, self._background)

    def _make_background(self) -> Background:
        """Make the loop of the node's next life."""
        return Background(self._node.stop, not_running, forked)


def not_running() -> QuorateError:
    """Make the error of a call to a node that was stopped."""
    return Stopped(NOT_RUNNING)


def forked() -> None:
    """Refuse: the node's threads, disk and connections stayed in the process that this one was forked from.

    Raises:
        Stopped: always.
    """
    raise Stopped(
        "this node runs in the process that this one was forked from; reach it from here by connect(), or start a node"
        " of this process's own after the fork"
    )
