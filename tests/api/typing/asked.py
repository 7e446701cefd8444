"""What is asked: ``quorate.Peer``; the test puts ``Client`` and the blocking twins in its place."""

from __future__ import annotations

from quorate import Client, Node, Peer, connect

Asked = Peer

__all__ = ["Asked", "Client", "Node", "Peer", "connect"]
