"""The documents hold: the programs of the README and the guide run, links lead somewhere, nothing is named in vain.

A ``python`` block is of one of three kinds. One that calls ``asyncio.run``, or imports ``quorate.blocking``, is a whole
program, and a ``text`` block right behind it is its output. One that cannot be compiled without a top-level ``await``
is a piece: the pieces of a page run one after another in ``FRAME``. Anything else is a definition, and stands before
the pieces.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from quorate import Address, Settings
from quorate.cli.arguments import make_parser
from quorate.transport.frames import FrameKind

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

OF_READING = {"cli", "testing", "store", "transport"}
"""The folders within which the map of the source is not in the order of imports."""

FRAME = """
import asyncio
import contextlib

from quorate import *
from quorate.machines import KV

{definitions}

async def page():
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node("127.0.0.1:0", store="memory")) for _ in range(3)]
        peers = [await node.start_peer(KV, name=f"peer{{n}}") for n, node in enumerate(nodes, 1)]
        members = [peer.address for peer in peers]
        await peers[0].set_configuration(*members)
        (leader,) = {{await other.leader() for other in peers}}  # and each has heard of it
        peer = next(peer for peer in peers if peer.address == leader)
        kv = await stack.enter_async_context(connect(KV, *members))

{pieces}

if __name__ == "__main__":
    asyncio.run(page())
"""


def is_piece(block: str) -> bool:
    """Tell whether a block awaits outside of any function."""
    try:
        compile(block, "block", "exec")
    except SyntaxError:
        compile(block, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return True
    return False


def is_program(block: str) -> bool:
    """Tell whether a block is a whole program."""
    return "asyncio.run(" in block or "from quorate.blocking import" in block


def programs(page: Path) -> list[tuple[str, str | None]]:
    """Give the whole programs of a page, each with its output if the page shows it."""
    fenced = FENCED.findall(page.read_text("utf-8"))
    following = itertools.zip_longest(fenced, fenced[1:], fillvalue=("", ""))
    return [
        (text, then if next_language == "text" else None)
        for (language, text), (next_language, then) in following
        if language == "python" and is_program(text)
    ]


def framed_pieces(page: Path) -> str | None:
    """Give the definitions and pieces of a page as one program; None when it has none."""
    texts = [text for language, text in FENCED.findall(page.read_text("utf-8")) if language == "python"]
    rest = [text for text in texts if not is_program(text)]
    pieces = [text for text in rest if is_piece(text)]
    definitions = [text for text in rest if not is_piece(text)]
    body = textwrap.indent("\n".join(pieces) or "pass\n", " " * 8)
    return FRAME.format(definitions="\n\n".join(definitions), pieces=body) if rest else None


PROGRAMS = [(page, number) for page in PAGES for number in range(len(programs(page)))]


@pytest.mark.parametrize(("page", "number"), PROGRAMS, ids=[f"{page.stem}-{number}" for page, number in PROGRAMS])
def test_programs_run_and_print_what_the_page_shows(page: Path, number: int, run: Callable[[str], str]) -> None:
    program, output = programs(page)[number]
    printed = run(program)
    assert output is None or printed == output


@pytest.mark.parametrize("page", [page for page in PAGES if framed_pieces(page)], ids=lambda page: page.stem)
def test_pieces_run_one_after_another(page: Path, run: Callable[[str], str]) -> None:
    program = framed_pieces(page)
    assert program is not None
    run(program)


def test_the_readme_prints_bar_from_both_leaders(run: Callable[[str], str]) -> None:
    ((program, _),) = programs(ROOT / "README.md")
    assert run(program) == "bar\nbar\n"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def anchors(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    prose = FENCED.sub("", document.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", document.read_text("utf-8"))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_pages_of_the_site_link_to_its_pages_alone(page: Path) -> None:
    """What lies outside of ``docs`` is no page there: `make docs` refuses such a link."""
    links = re.findall(r"\]\(([^):#]+\.md)[^)]*\)", FENCED.sub("", page.read_text("utf-8")))
    assert [link for link in links if not (page.parent / link).resolve().is_relative_to(ROOT / "docs")] == []


@pytest.mark.parametrize("name", ["protocol.md", "architecture.md"])
def test_functions_named_beside_a_file_are_defined_in_it(name: str) -> None:
    """Both documents name code as ``file.py:function``: each must be there, or the map leads astray."""
    source = ROOT / "src" / "quorate"
    text = (ROOT / "docs" / name).read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", text)
    assert len(named) > 20
    missing = []
    for file, dotted in named:
        path = source / file
        last = dotted.rpartition(".")[2]
        defined = path.exists() and re.search(rf"(def|class) {last}\b|^ *{last}\b.*[:=]", path.read_text("utf-8"), re.M)
        missing += [] if defined else [f"{file}:{dotted}"]
    assert missing == []


def test_the_frame_format_is_that_of_the_source() -> None:
    """The numbers of the wire that protocol.md gives are those of ``transport/frames.py``."""
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    kinds = ", ".join(f"{kind.value} `{kind.name}`" for kind in FrameKind)
    assert kinds in text


COMMAND = re.compile(r"(?:^ *\w?\$ |^ExecStart=\S*/)quorate((?:.*\\\n)*.*)$", re.MULTILINE)
COMMANDS = [
    (document, command.replace("\\\n", " "))
    for document in DOCUMENTS
    for _, block in FENCED.findall(document.read_text("utf-8"))
    for command in COMMAND.findall(block)
    if "…" not in command
]


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=lambda each: getattr(each, "stem", each))
def test_commands_are_such_as_quorate_takes(document: Path, command: str) -> None:
    assert make_parser().parse_args(shlex.split(command, comments=True)).command


def test_the_container_and_the_pods_of_the_guide_start_a_node() -> None:
    blocks = dict(FENCED.findall((ROOT / "docs" / "guide" / "deploying.md").read_text("utf-8")))
    (begin,) = re.findall(r"^ENTRYPOINT (.*)$", blocks["dockerfile"], re.MULTILINE)
    service, pods, _ = yaml.safe_load_all(blocks["yaml"])
    (container,) = pods["spec"]["template"]["spec"]["containers"]
    name = f"{pods['metadata']['name']}-0"
    taken = make_parser().parse_args(
        [*json.loads(begin)[1:], *(each.replace("$(NAME)", name) for each in container["args"])]
    )
    assert (taken.command, taken.peer) == ("start", Address(name, f"{name}.{service['metadata']['name']}", 7001))
    assert taken.data_dir.startswith(container["volumeMounts"][0]["mountPath"] + "/")
    assert make_parser().parse_args(container["readinessProbe"]["exec"]["command"][1:]).command == "status"


def test_every_knob_stands_in_the_table_of_settings() -> None:
    rows = re.findall(r"^\|.*\|.*\|$", (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", "\n".join(rows))) == sorted(Settings.__struct_fields__)


def test_the_map_has_each_module_above_those_that_it_imports() -> None:
    source = ROOT / "src" / "quorate"
    the_map, _, _ = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("**Reading order")
    rows = re.findall(r"^\| (`.*?) \| .* \|$", the_map, re.MULTILINE)
    paths = {path: row for row, cell in enumerate(rows) for path in re.findall(r"`([\w/]+\.py)`", cell)}
    above = []
    for path, row in paths.items():
        imported = re.findall(r"^from quorate\.([\w.]+) import", (source / path).read_text("utf-8"), re.MULTILINE)
        for other in (name.replace(".", "/") + ".py" for name in imported):
            is_of_the_folder = path.partition("/")[0] == other.partition("/")[0] in OF_READING
            above += [f"{path} imports {other}"] if paths.get(other, row) < row and not is_of_the_folder else []
    assert len(paths) > 100
    assert above == []
