"""The local socket: a node's door for clients of its own machine, at a path. How it is named, bound and taken away.

Whoever may open the file may call; so it is its owner's alone before anybody can. Knows files and sockets; what is said
over them is in ``tcp.py`` and ``connection.py``, as for TCP.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator

import msgspec

from quorate.transport.frames import HELLO_BYTES_MAX, FrameDecoder, FrameError, Hello
from quorate.types import Address, is_name

PREFIX = "unix:"
"""What the address of a local socket begins with."""

PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
"""The longest path of a local socket: the operating system has no room for more."""

BACKLOG = 1024
"""How many connections may wait to be accepted."""

LOCK_SECONDS = 3.0
"""How long another program may hold the directory of the socket: nodes do for a moment, while they bind."""

PROBE_SECONDS = 1.0
"""How long somebody who listens at the path already has to say who it is."""


class LocalAddress(msgspec.Struct, frozen=True):
    """Where a client reaches a node of its own machine: ``unix:PATH``, or ``name@unix:PATH`` for one of its peers.

    Never in a configuration: it means nothing on another machine.

    Attributes:
        name: the peer's name; empty for the only one of the node.
        path: of the local socket.
    """

    name: str
    path: str

    @classmethod
    def parse(cls, text: str) -> LocalAddress:
        """Read ``unix:PATH`` or ``name@unix:PATH``.

        Raises:
            ValueError: the text is not of that form, or the path cannot be one.
        """
        name, at, node = text.partition("@") if not text.startswith(PREFIX) else ("", "", text)
        path = local_path(node)
        if path is None or (at and not is_name(name)):
            raise ValueError(f"{text!r} is no local address; write it as unix:/run/kv.sock or peer1@unix:/run/kv.sock")
        return cls(name, check_path(path))

    @property
    def node(self) -> str:
        """The address of the node, without the peer's name."""
        return PREFIX + self.path

    def __str__(self) -> str:
        """Give the form that ``parse`` reads."""
        return f"{self.name}@{self.node}" if self.name else self.node


Target = Address | LocalAddress
"""Where a client sends its calls."""


def parse_target(text: str | Address) -> Target:
    """Read what ``Address.parse`` reads, and what ``LocalAddress.parse`` does.

    Raises:
        ValueError: the text is of neither form; the message shows one that is.
    """
    # With the slash: a host may be called "unix".
    is_local = isinstance(text, str) and (text.startswith(PREFIX) or f"@{PREFIX}/" in text)
    return LocalAddress.parse(str(text)) if is_local else Address.parse(text)


def local_path(node: str) -> str | None:
    """Give the path that a node's address names; None for an address of the network."""
    return node.removeprefix(PREFIX) if node.startswith(PREFIX) else None


def check_path(path: str) -> str:
    """Check that a local socket can have this path, and give it.

    Raises:
        ValueError: it is relative or too long, or holds a zero.
    """
    length = len(os.fsencode(path))
    if not path.startswith("/") or length > PATH_BYTES_MAX or "\0" in path:
        raise ValueError(
            f"{path!r} ({length} bytes) cannot be the path of a local socket: it begins with a slash, and has"
            f" {PATH_BYTES_MAX} bytes at most, none of them zero; choose one such as /run/app/quorate.sock"
        )
    return path


class LocalSocket:
    """A local socket, as a node has it from its start to its end.

    Attributes:
        socket: listens already.
    """

    def __init__(self, path: str) -> None:
        """Bind it and listen. What a process that was killed has left at the path is replaced.

        Raises:
            OSError: it cannot be bound, or something that is not ours to take away is there; the message says what.
        """
        self._path = path
        self.socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        try:
            with alone_in(os.path.dirname(path)):
                clear(path)
                self.socket.bind(path)
                os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)  # Before it listens: at no moment can others connect.
                self.socket.listen(BACKLOG)
            self._number = os.stat(path).st_ino
        except OSError as error:
            self.socket.close()
            raise OSError(error.errno, f"cannot listen at {path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Listen no longer, and take the file away; idempotent."""
        self.remove()
        self.socket.close()

    def remove(self) -> None:
        """Take the file away, unless it is another's by now."""
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._number:
                os.unlink(self._path)


@contextlib.contextmanager
def alone_in(directory: str) -> Iterator[None]:
    """Keep other nodes that are about to bind in the same directory waiting.

    Two that find what a third has left would else each take it away, and the second one what the first has made of it.

    Raises:
        OSError: the directory cannot be opened, or another program has held it for ``LOCK_SECONDS``.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise OSError(error.errno, "another program holds the directory (flock)") from error
                time.sleep(0.01)
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # Closed alone, it would stay held where a process was forked just now.
    finally:
        os.close(descriptor)


def clear(path: str) -> None:
    """Take away a socket at which nobody listens any longer.

    Raises:
        FileExistsError: somebody listens, or it is no socket.
        OSError: it cannot be looked at or taken away.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "something that is no socket is there, and is left alone; take it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (BlockingIOError, TimeoutError):
            who = "another program, too busy to say who it is,"
        else:
            who = said_by(probe)
    raise FileExistsError(errno.EEXIST, f"{who} listens there; stop it, or choose another path")


def said_by(probe: socket.socket) -> str:
    """Hear who is at the other end: a node says so at once."""
    try:
        frames = FrameDecoder(HELLO_BYTES_MAX).feed(probe.recv(2 * HELLO_BYTES_MAX))
    except (FrameError, OSError):
        frames = []
    hellos = [values[0] for _, values in frames if isinstance(values[0], Hello)]
    return f"the node {hellos[0].node}" if hellos else "another program"
