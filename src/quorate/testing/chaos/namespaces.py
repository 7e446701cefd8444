"""Each node in a network namespace of its own, its only wire a TUN device; a switch here carries every packet.

Needs Linux, the right to make namespaces (root), and /dev/net/tun. A packet is dropped, lost by chance or held back
one way or the other, as ``Links`` has it; what TCP makes of that is the kernel's own doing.

**Nothing is left behind.** Namespaces and devices have no names on the machine: open descriptors alone keep them, and
the kernel removes them with this process, however it ends. The process itself moves to a namespace of its own, so
that no address or route of the machine is touched, and two runs cannot meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence

from quorate import Address
from quorate.testing.chaos.isolation import Wrapping
from quorate.testing.chaos.links import Links

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000
"""Packets as they are, without a header of the driver."""

PORT = 7000
OUTSIDE = "10.0.0.100"
"""Where the clients are: this process."""

PACKETS_MAX = 64
"""How many packets of one wire are carried before the others have their turn."""


class Namespaces:
    """The namespaces of a group, and the switch between them; see ``Isolation``."""

    def __init__(self, names: Sequence[str], links: Links, chance: random.Random) -> None:
        """Make them all, and move this process to one of its own.

        Raises:
            OSError: that is not allowed here.
        """
        self.text = "each node in a network namespace of its own"
        self.addresses: Mapping[str, Address] = {
            name: Address(name, f"10.0.0.{number}", PORT) for number, name in enumerate(names, 1)
        }
        self._links = links
        self._chance = chance
        self._spaces: dict[str, int] = {}
        self._wires: dict[bytes, tuple[str, int]] = {}
        with contextlib.ExitStack() as stack:
            former = current_namespace()
            stack.callback(os.close, former)
            with contextlib.ExitStack() as undoing:
                undoing.callback(self._close)
                undoing.callback(enter_namespace, former)
                enter_new_namespace()
                own = current_namespace()
                stack.callback(os.close, own)
                self._wires[socket.inet_aton(OUTSIDE)] = "", make_wire(OUTSIDE)
                for name, address in self.addresses.items():
                    enter_new_namespace()
                    self._spaces[name] = current_namespace()
                    self._wires[socket.inet_aton(address.host)] = name, make_wire(address.host)
                undoing.pop_all()
            enter_namespace(own)

    def wrapping(self, name: str) -> Wrapping:
        """Give how a process enters its namespace."""
        space = self._spaces[name]
        return Wrapping(("nsenter", f"--net=/proc/self/fd/{space}"), (space,))

    async def start(self) -> None:
        """Begin to carry packets."""
        for name, wire in self._wires.values():
            asyncio.get_running_loop().add_reader(wire, self._carry, name, wire)

    async def close(self) -> None:
        """Carry nothing more."""
        for _, wire in self._wires.values():
            asyncio.get_running_loop().remove_reader(wire)
        self._close()

    def _close(self) -> None:
        """Let go of the descriptors that keep wires and namespaces."""
        for descriptor in [*self._spaces.values(), *(wire for _, wire in self._wires.values())]:
            os.close(descriptor)
        self._spaces.clear()
        self._wires.clear()

    def _carry(self, source: str, wire: int) -> None:
        """Carry the packets that one node sends."""
        for _ in range(PACKETS_MAX):
            try:
                packet = os.read(wire, 65536)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:  # IPv6 looks for neighbours and routers, and there are none.
                continue
            target, out = self._wires.get(packet[16:20], ("", -1))
            if out < 0:
                continue
            link = self._links.find(source, target)
            if link.cut or (link.loss and self._chance.random() < link.loss):
                continue
            if link.delay:
                asyncio.get_running_loop().call_later(link.delay, self._deliver, source, target, out, packet)
            else:
                self._deliver(source, target, out, packet)

    def _deliver(self, source: str, target: str, out: int, packet: bytes) -> None:
        """Put a packet on the wire of its receiver, unless the link was cut meanwhile."""
        if self._wires and not self._links.find(source, target).cut:
            with contextlib.suppress(BlockingIOError):  # Its queue is full: packets are lost then, as on any wire.
                os.write(out, packet)


def enter_new_namespace() -> None:
    """Move this thread to a new network namespace.

    Raises:
        OSError: that is not allowed, or not known here.
    """
    call_c("unshare", CLONE_NEWNET)


def enter_namespace(space: int) -> None:
    """Move this thread to a network namespace that a descriptor names.

    Raises:
        OSError: that is not allowed.
    """
    call_c("setns", space, CLONE_NEWNET)


def current_namespace() -> int:
    """Give a descriptor of this thread's network namespace, which keeps it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def call_c(name: str, *arguments: int) -> None:
    """Call a function of the C library that gives 0 when all is well; os has these from Python 3.12 on.

    Raises:
        OSError: it gave something else.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def make_wire(host: str) -> int:
    """Make a TUN device in this thread's namespace, with an address; give its descriptor.

    Raises:
        OSError: that is not allowed here.
    """
    import fcntl  # noqa: PLC0415 - not on Windows

    wire = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(wire, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN_NO_PI))
        lines = ("link set dev lo up", f"address add {host}/24 dev wire", "link set dev wire up")
        ran = subprocess.run(("ip", "-batch", "-"), input="\n".join(lines), capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise OSError(ran.stderr.strip())
    except BaseException:
        os.close(wire)
        raise
    return wire


def why_not() -> str | None:
    """Say in a few words why there can be no namespaces here; None when they can be tried."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are of Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    return None
