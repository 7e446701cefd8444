"""quorate for threads that wait: the same names, the same types, without ``await``.

::

    from quorate.blocking import connect

    with connect(KV, "peer1@127.0.0.1:7001", "peer2@127.0.0.1:7002") as kv:
        kv.write(KV.set, "foo", "bar")

Each client, and each node, has one event loop in a thread of its own, which begins with the first call and ends with
``close`` or ``stop``. Everything may be called from any thread, also from one in which another event loop runs, such as
Jupyter's, which then stands still for so long; from the thread of such a loop itself it raises ``RuntimeError``.
"""

from quorate.blocking.client import Client, connect
from quorate.blocking.node import Node
from quorate.blocking.peer import Peer
from quorate.blocking.watch import StatusWatch, Watch

__all__ = ["Client", "Node", "Peer", "StatusWatch", "Watch", "connect"]
