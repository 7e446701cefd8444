"""Groups whose connections are forgotten on the way, and swallow what is sent by them: no error ever comes."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from quorate import Address, Node, NotLeader, OutcomeUnknown, Unavailable
from quorate.machines import KV
from quorate.transport import neighbours
from tests.transport.swallowing import WAYS, SwallowingProxy

from .cluster import SETTINGS, Cluster, free_ports


@pytest.mark.parametrize("ways", [("there",), ("back",), WAYS], ids="-".join)
async def test_a_group_whose_connections_are_all_swallowed_goes_on(
    ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "SILENT_SECONDS", 1.2)
    nodes: Cluster[KV] = Cluster(KV, 3, None)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(nodes.close)
        proxies = [await stack.enter_async_context(SwallowingProxy()) for _ in range(3)]
        nodes.addresses = [Address.parse(f"peer{n}@{proxy.address}") for n, proxy in enumerate(proxies, 1)]
        for address, proxy, port in zip(nodes.addresses, proxies, free_ports(3), strict=True):
            proxy.target = f"127.0.0.1:{port}"
            node = Node(proxy.target, advertise=address.node, store="memory", settings=SETTINGS)
            nodes.nodes[address.name] = await stack.enter_async_context(node)
            nodes.peers[address.name] = await node.start_peer(KV, name=address.name)
        await nodes.peers["peer1"].set_configuration(*nodes.addresses)
        leader = await nodes.leader()
        await leader.write(KV.set, "before", "yes")
        await nodes.converge()
        for proxy in proxies:
            proxy.swallow(*ways)
        async with asyncio.timeout(10):
            while True:
                leader = await nodes.leader()
                try:
                    await leader.with_options(timeout=1.0).write(KV.set, "after", "yes")
                    break
                except (NotLeader, OutcomeUnknown, Unavailable):
                    await asyncio.sleep(0.05)
        await nodes.converge()
        assert {nodes.machine_of(name).entries["after"] for name in nodes.peers} == {"yes"}
