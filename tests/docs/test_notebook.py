"""examples/notebook.ipynb runs in a real kernel, whose event loop runs too; and what stands last in a cell is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from jupyter_client.manager import KernelManager

from quorate import Status, connect
from quorate.machines import KV
from quorate.notebook import table
from quorate.types import Address, Index, MemberStatus, PeerId, Statuses, Term

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
SECONDS = 40.0  # a cell that hangs ends the test; none comes near


class Kernel:
    """A kernel in a process of its own, and what it shows."""

    def __init__(self, starter: KernelManager) -> None:
        self.client = starter.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def run(self, code: str) -> dict[str, Any]:
        """Run a cell; give what it shows, by the kinds of its forms, and what it prints as ``print``."""
        shown: dict[str, Any] = {"print": ""}

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown["print"] += content["text"]
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.update(content["data"])

        reply = self.client.execute_interactive(code, timeout=SECONDS, output_hook=take)
        assert reply["content"]["status"] == "ok", "\n".join(reply["content"]["traceback"])
        return shown


@pytest.fixture
def kernel(tmp_path: Path, checkout: dict[str, str]) -> Iterator[Kernel]:
    own = {"IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    starter = KernelManager(kernel_name="python3")
    starter.start_kernel(env=checkout | own)
    try:
        kernel = Kernel(starter)
        yield kernel
        kernel.client.stop_channels()
    finally:
        starter.shutdown_kernel(now=True)
        starter.cleanup_resources()


def cells() -> list[str]:
    """Give the code of the notebook, cell by cell."""
    found = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_what_the_guide_shows_stands_in_the_notebook() -> None:
    page = (ROOT / "docs" / "guide" / "notebooks.md").read_text("utf-8")
    shown = re.findall(r"^```py\n(.*?)\n^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 3
    assert set(shown) <= set(cells())


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_has(kernel: Kernel) -> None:
    leader, value, peer, status, client, node, awaited, end = map(kernel.run, cells())
    assert leader["text/plain"].startswith("Address('peer1@127.0.0.1:")
    assert value["text/plain"] == "'bar'"
    assert peer["text/plain"].startswith("<Peer peer1 leader")
    assert "<b>peer1 leads in term 2, with 4 of 4 entries applied</b><table><thead>" in peer["text/html"]
    assert "<td>peer1</td><td>leader</td><td>2</td><td>peer1</td><td>4</td><td>4</td>" in status["text/html"]
    assert status["text/plain"] == "(<Status: peer1 leads in term 2, with 4 of 4 entries applied>,)"
    assert "Client of KV" in client["text/html"]
    assert "led last" in client["text/html"]
    assert re.search(r"<b>Node at 127\.0\.0\.1:\d+</b>", node["text/html"])
    assert awaited["print"] == "bar\n"
    assert end == {"print": ""}


STATUS = Status(
    name="peer2",
    id=PeerId("2"),
    group="g",
    role="follower",
    term=Term(3),
    leader=Address("peer1", "10.0.0.1", 7001),
    configuration=(),
    commit_index=Index(5),
    last_applied=Index(4),
    last_index=Index(6),
    why=None,
    members=(
        MemberStatus(address=Address("peer1", "10.0.0.1", 7001), id=PeerId("1"), kind="voter", becomes="voter"),
        MemberStatus(address=Address("peer2", "<i>", 7001), id=PeerId("2"), kind="learner", becomes="voter"),
    ),
)


def test_a_status_is_a_sentence() -> None:
    assert str(STATUS) == "peer2 follows peer1 in term 3, with 4 of 6 entries applied"
    assert repr(STATUS) == f"<Status: {STATUS}>"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"role": "leader"}, "peer2 leads in term 3, with 4 of 6 entries applied"),
        (
            {"role": "candidate", "leader": None, "why": "votes are missing"},
            "peer2 is a candidate in term 3, with 4 of 6 entries applied; votes are missing",
        ),
        ({"name": "", "leader": None}, "a peer is a follower in term 3, with 4 of 6 entries applied"),
    ],
)
def test_a_status_says_what_matters(fields: dict[str, Any], sentence: str) -> None:
    values = {name: getattr(STATUS, name) for name in STATUS.__struct_fields__}
    assert str(Status(**values | fields)) == sentence


def test_what_others_have_named_is_escaped() -> None:
    why = Status(**{name: getattr(STATUS, name) for name in STATUS.__struct_fields__} | {"why": "<script>"})
    for shown in (STATUS, why, Statuses((why,))):
        text = shown._repr_html_()
        assert "<i>" not in text
        assert "<script>" not in text
    assert "&lt;i&gt;" in STATUS._repr_html_()
    assert table("<a>", ("<b>",), [["<c>"]], "<d>").count("&lt;") == 4


def test_ipython_takes_the_tables() -> None:
    formatter = DisplayFormatter()
    kv = connect(KV, "peer1@127.0.0.1:7001", "unix:/run/app/quorate.sock")
    for shown in (STATUS, Statuses((STATUS,)), kv):
        forms, _ = formatter.format(shown)
        assert forms["text/html"] == shown._repr_html_()
        assert forms["text/plain"]
    assert "<td></td><td>unix:/run/app/quorate.sock</td>" in kv._repr_html_()
