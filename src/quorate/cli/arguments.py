"""What the commands take: one parser for all of them, and the help that a newcomer reads first."""

from __future__ import annotations

import argparse
import importlib.metadata
import ipaddress
import platform
from collections.abc import Sequence
from typing import Any, get_args

from quorate import Address, Settings
from quorate.transport.local import PREFIX, Target, check_path, parse_target
from quorate.types import MemberKind, parse_node

STORES = ("rocksdb", "lmdb", "memory")
"""The stores that have a name, the default first."""

DESCRIPTION = "Replicated state machines on Raft: write an ordinary class, run it on three or five machines."

EXAMPLES = """\
examples:
  quorate demo
      Three nodes agree, lose their leader twice, and lose nothing: the best place to start.

  quorate demo --full
      One node grows to five, each of which is then killed and replaced, while clients write; and nothing is lost.

  quorate bench --directory /var/lib
      What this machine and the disk below that directory can do.

  quorate shell quorate.machines:KV --peer peer1@127.0.0.1:7001 --data-dir data/a
  quorate shell quorate.machines:KV --peer peer2@127.0.0.1:7002 --data-dir data/b
  quorate shell quorate.machines:KV --peer peer3@127.0.0.1:7003 --data-dir data/c
      The same by hand, in three terminals. In the first one:
      >>> await peer.set_configuration("peer1@127.0.0.1:7001", "peer2@127.0.0.1:7002", "peer3@127.0.0.1:7003")
      >>> await peer.leader()

  quorate start mymachines:Bank --peer peer1@10.0.0.1:7001 --data-dir /var/lib/bank \\
      --tls-cert node.pem --tls-key node.key --tls-ca ca.pem
      A node in the foreground, as a service runs it. With --join peer1@10.0.0.1:7001 another becomes a member.

  quorate form peer1@10.0.0.1:7001 peer2@10.0.0.2:7001 peer3@10.0.0.3:7001
      Once, when three such nodes run: makes a group of them.

  quorate status 127.0.0.1:7001
      Who leads, and how far everyone is. One address of the group is enough.

  quorate recover /mnt/backup --to /var/lib/bank --node 10.0.0.1:7001
      A new group from a backup, or from the one disk that a disaster has left.

`quorate COMMAND --help` tells what a command takes.
"""


class Version(argparse.Action):
    """Prints the version of quorate and of Python; looks it up only then."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        options: argparse.Namespace,
        values: str | Sequence[Any] | None,
        flag: str | None = None,
    ) -> None:
        """Print it and end the program."""
        try:
            version = importlib.metadata.version("quorate")
        except importlib.metadata.PackageNotFoundError:
            version = "(run from its sources, not installed)"
        print(f"quorate {version}, Python {platform.python_version()}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="quorate", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    add_demo(commands.add_parser("demo", help="three nodes agree, lose their leader twice, and lose nothing"))
    add_bench(commands.add_parser("bench", help="what this machine and its disk can do, and what the limit is"))
    add_start(commands.add_parser("start", help="run one node in the foreground"))
    add_form(commands.add_parser("form", help="make a group of nodes that run, once"))
    add_shell(commands.add_parser("shell", help="run one node with a Python prompt where `await` works"))
    add_status(commands.add_parser("status", help="who leads a group, and how far its members are"))
    add_recover(commands.add_parser("recover", help="make a new group of a backup, or of what a disaster has left"))
    return parser


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate demo`` takes."""
    parser.description = (
        "Starts three nodes on this machine, each a process with its own log in a temporary directory, and shows step "
        "by step, with the code beside it, how they elect a leader, take writes, and survive the loss of two leaders. "
        "Exits with 0 only if each step was seen. Leaves nothing behind."
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="instead: one node grows to five by --join, from snapshots; leadership is handed over; each machine is "
        "killed and replaced while clients write; about a minute",
    )
    parser.add_argument(
        "--store", choices=STORES, default=STORES[0], help=f"where the logs are kept (default: {STORES[0]})"
    )
    parser.add_argument("--plain", action="store_true", help="no colours, even where rich is installed")


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate bench`` takes."""
    parser.description = (
        "Starts three nodes on this machine, each a process with its own log, and tells what the disk does at best, "
        "how many writes a second 1, 16 and 256 writers get, and what the limit is. Leaves nothing behind."
    )
    parser.add_argument(
        "--store", choices=STORES, default=STORES[0], help=f"where the logs are kept (default: {STORES[0]})"
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        help="on the disk to be measured; the nodes' data goes into a directory of its own there, and is removed "
        "(default: where temporary files go, which may be no disk)",
    )
    parser.add_argument(
        "--seconds", type=seconds, default=3.0, help="how long each number of writers is measured (default: 3)"
    )
    parser.add_argument(
        "--group",
        action="append",
        type=member_address,
        metavar="NAME@HOST:PORT",
        help="instead: a member of a running group of quorate.machines:KV, whose key quorate-bench is written; may be "
        "given more than once",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plain", action="store_true", help="no colours, even where rich is installed")


def add_start(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate start`` takes."""
    parser.description = (
        "Runs one node with one peer in the foreground. SIGTERM or Ctrl-C stops it cleanly, a second one at once. "
        "The group is formed once, by `quorate form`, or by set_configuration on one of its peers, in `quorate shell` "
        "or in a program. Others become members with --join."
    )
    add_node(parser, log_level="info")


def add_form(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate form`` takes."""
    parser.description = (
        "Makes a group of peers that run and belong to none yet, once all of them answer, and waits until one leads. "
        "Name every member, each by the address at which the others reach it. Does no harm to a group that has exactly "
        "these members: so a script may run it at every start. Members that are added later use --join."
    )
    parser.add_argument("addresses", nargs="+", type=peer_address, metavar="NAME@HOST:PORT", help="a member")
    parser.add_argument(
        "--timeout", type=seconds, default=30.0, metavar="SECONDS", help="how long to wait for them (default: 30)"
    )
    add_tls(parser)


def add_shell(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate shell`` takes."""
    parser.description = (
        "Runs one node with one peer, and a Python prompt where `await` works. `peer`, `node`, the machine, and the "
        "public names of quorate are there. Ctrl-D stops the node. What is piped into it and raises ends with status 1."
    )
    add_node(parser, log_level="warning")


def add_status(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate status`` takes."""
    parser.description = (
        "Asks peers, and the other members of their groups, for their status. Exits with 0 when every group found has "
        "a leader that answered, else with 1."
    )
    parser.add_argument(
        "addresses",
        nargs="+",
        type=node_or_peer,
        metavar="ADDRESS",
        help="name@host:port; host:port for all peers there; or unix:PATH for a node's local socket",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_tls(parser)


def add_recover(parser: argparse.ArgumentParser) -> None:
    """Say what ``quorate recover`` takes."""
    parser.description = (
        "Shows what a saved data directory holds; with --to, makes a new data directory in which each peer of it is a "
        "group of its own, with all entries of its log. For a backup, and for the day when a majority of disks is lost "
        "for good: writes that did not reach this disk are lost, and members of before never belong to the new group. "
        "Of several disks take the one with the highest last term; among equals, the highest last index."
    )
    parser.add_argument("source", metavar="DIR", help="the data directory, or a copy of one; no node may run on it")
    parser.add_argument("--to", metavar="DIR", help="the directory to make; must not exist, or be empty")
    parser.add_argument(
        "--node", type=dialled_node, metavar="HOST:PORT", help="where the node that will run on it is reached"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="only this peer of the directory; may be given more than once (default: all)",
    )


def add_node(parser: argparse.ArgumentParser, log_level: str) -> None:
    """Say what a command that runs a node takes."""
    parser.add_argument(
        "machine",
        metavar="MODULE:CLASS",
        help="the state machine, such as quorate.machines:KV; found as Python finds modules",
    )
    parser.add_argument(
        "--peer",
        required=True,
        type=peer_address,
        metavar="NAME@HOST:PORT",
        help="the peer's name, and where others reach it",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="the node's own directory, made when it does not exist; not needed with --store memory",
    )
    parser.add_argument(
        "--store",
        choices=STORES,
        default=STORES[0],
        help=f"where the log is kept (default: {STORES[0]}); memory forgets everything when the node stops",
    )
    parser.add_argument(
        "--bind",
        type=node_address,
        metavar="HOST:PORT",
        help="where to listen, if that is not where others reach the node",
    )
    parser.add_argument(
        "--local",
        type=local_path,
        metavar="PATH",
        help="also serve clients of this machine at a local socket, such as /run/app/quorate.sock: "
        'connect(KV, "unix:/run/app/quorate.sock")',
    )
    add_joining(parser)
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        type=setting,
        metavar="NAME=VALUE",
        help="a knob of quorate.Settings, such as snapshot_entries=10000; may be given more than once",
    )
    add_tls(parser)
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, which must be installed")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=log_level,
        help=f"what is logged to standard error (default: {log_level})",
    )


def add_joining(parser: argparse.ArgumentParser) -> None:
    """Say how a node finds a group, and what its peer is to be there."""
    parser.add_argument(
        "--join",
        action="append",
        type=member_address,
        metavar="NAME@HOST:PORT",
        help="become a member of the group that this peer belongs to, unless it is one already; may be given more than "
        "once, since any member will do",
    )
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        type=member_address,
        metavar="NAME@HOST:PORT",
        help="where another peer is reached now, whatever its group has for it; may be given more than once",
    )
    parser.add_argument(
        "--kind",
        choices=get_args(MemberKind),
        default="voter",
        help="what it joins as: voter, learner (receives everything, has no vote) or witness (votes, keeps no data); "
        "default: voter",
    )


def add_tls(parser: argparse.ArgumentParser) -> None:
    """Say how certificates are given."""
    group = parser.add_argument_group("TLS", "all three or none; PEM files")
    group.add_argument("--tls-cert", metavar="FILE", help="this side's certificate, with its chain if it has one")
    group.add_argument("--tls-key", metavar="FILE", help="its private key")
    group.add_argument("--tls-ca", metavar="FILE", help="the certificate of the authority that signs all others")


def peer_address(text: str) -> Address:
    """Read ``name@host:port``, where others reach a peer.

    Raises:
        ArgumentTypeError: it is not of that form, or nobody can dial it.
    """
    address = member_address(text)
    if is_wildcard(address.host):
        raise argparse.ArgumentTypeError(
            f"others cannot reach {text}: name the address where they do, and add --bind {address.node}"
        )
    return address


def member_address(text: str) -> Address:
    """Read ``name@host:port``.

    Raises:
        ArgumentTypeError: it is not of that form.
    """
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def node_address(text: str) -> str:
    """Check that the text is ``host:port``.

    Raises:
        ArgumentTypeError: it is not.
    """
    try:
        parse_node(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def dialled_node(text: str) -> str:
    """Check that the text is ``host:port``, and such as others can reach.

    Raises:
        ArgumentTypeError: it is not.
    """
    if is_wildcard(parse_node(node_address(text))[0]):
        raise argparse.ArgumentTypeError(f"others cannot reach {text}: name the address where they do")
    return text


def seconds(text: str) -> float:
    """Read a time that is above 0 and at most an hour.

    Raises:
        ArgumentTypeError: it is not.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is no time above 0 and up to 3600 seconds")
    return value


def local_path(text: str) -> str:
    """Check that the text can be the path of a local socket.

    Raises:
        ArgumentTypeError: it cannot.
    """
    try:
        return check_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def node_or_peer(text: str) -> Target:
    """Read ``name@host:port``, ``unix:PATH``, or ``host:port`` as an address whose name is empty.

    Raises:
        ArgumentTypeError: it is none of them.
    """
    try:
        return parse_target(text) if "@" in text or text.startswith(PREFIX) else Address("", *parse_node(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def setting(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``, the name being that of a knob.

    Raises:
        ArgumentTypeError: it is not of that form, or there is no such knob.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} sets nothing; write it as NAME=VALUE")
    if name not in Settings.__struct_fields__:
        raise argparse.ArgumentTypeError(f"there is no {name}; there are {', '.join(Settings.__struct_fields__)}")
    return name, value


def is_wildcard(host: str) -> bool:
    """Tell whether a host stands for all addresses of a machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
