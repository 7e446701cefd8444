"""What no linter checks: sizes, words, the core's imports, and that code and documents name the same things.

Each test collects offenders as ``path:line: what`` and wants none. The rules are explained in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "quorate"
CORE = PACKAGE / "core"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CODE = [*SOURCES, *TESTS, *sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

SOURCE_LINES_MAX = 500
TEST_LINES_MAX = 800
FUNCTION_LINES_MAX = 60  # from `def` to the end, without the docstring
LINE_LENGTH_MAX = 120

# Words that say nothing, or that would be second names for what already has one.
BANNED_WORDS = {"manager", "handler", "handlers", "util", "utils", "helper", "helpers", "common", "misc", "base"}
BANNED_WORDS |= {"impl", "info", "maybe", "epoch", "journal", "replica", "shard", "arbiter", "checkpoint", "backend"}
BANNED_WORDS |= {"adapter", "fsm", "config"}
BANNED_ALONE = {"data", "do"}
# Functions whose names and arguments others fixed: pytest hooks, asyncio protocols.
FOREIGN_FUNCTION = re.compile(r"pytest_\w+|data_received|datagram_received")

CORE_IMPORTS = {"__future__", "dataclasses", "enum", "typing", "collections", "collections.abc", "bisect", "msgspec"}
CORE_IMPORTS |= {"functools", "quorate.types", "quorate.errors", "quorate.settings"}
UNSAFE_IMPORTS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
ASYNCIO_USERS = re.compile(
    r"(blocking|transport|cli|testing)/.*|store/disk\.py|"
    r"(apply|asking|belonging|bootstrap|changing|client|ending|following|forwarding|joining|links|loop|node|peer|seat|snapshots|tickets|"
    r"waiters|watching)"
    r"\.py"
)

# Raft, Figure 2, in its own words. Each stands once in the source, as a comment above the lines that obey it.
FIGURE_2 = (
    "RequestVote RPC 1. Reply false if term < currentTerm (§5.1)",
    "RequestVote RPC 2. If votedFor is null or candidateId, and candidate's log is at least as up-to-date as "
    "receiver's log, grant vote (§5.2, §5.4)",
    "AppendEntries RPC 1. Reply false if term < currentTerm (§5.1)",
    "AppendEntries RPC 2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm "
    "(§5.3)",
    "AppendEntries RPC 3. If an existing entry conflicts with a new one (same index but different terms), delete the "
    "existing entry and all that follow it (§5.3)",
    "AppendEntries RPC 4. Append any new entries not already in the log",
    "AppendEntries RPC 5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)",
    "All Servers 1. If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state machine "
    "(§5.3)",
    "All Servers 2. If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower "
    "(§5.1)",
    "Followers 1. Respond to RPCs from candidates and leaders",
    "Followers 2. If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote "
    "to candidate: convert to candidate",
    "Candidates 1. On conversion to candidate, start election: increment currentTerm; vote for self; reset election "
    "timer; send RequestVote RPCs to all other servers",
    "Candidates 2. If votes received from majority of servers: become leader",
    "Candidates 3. If AppendEntries RPC received from new leader: convert to follower",
    "Candidates 4. If election timeout elapses: start new election",
    "Leaders 1. Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during idle "
    "periods to prevent election timeouts (§5.2)",
    "Leaders 2. If command received from client: append entry to local log, respond after entry applied to state "
    "machine (§5.3)",
    "Leaders 3. If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at "
    "nextIndex",
    "Leaders 3a. If successful: update nextIndex and matchIndex for follower (§5.3)",
    "Leaders 3b. If AppendEntries fails because of log inconsistency: decrement nextIndex and retry (§5.3)",
    "Leaders 4. If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term == "
    "currentTerm: set commitIndex = N (§5.3, §5.4)",
)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def comments(path: Path) -> tuple[tuple[int, str], ...]:
    """Give ``(line, text)`` of each comment, those on consecutive lines of their own joined into one."""
    joined: list[tuple[int, str]] = []
    end = 0
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, text, alone = token.start[0], token.string.lstrip("# ").rstrip(), token.line.lstrip().startswith("#")
        if alone and row == end + 1:
            joined[-1] = (joined[-1][0], f"{joined[-1][1]} {text}")
        else:
            joined.append((row, text))
        end = row if alone else 0
    return tuple(joined)


def plain(text: str) -> str:
    """Reduce text to what is compared: one space between words, no case, no Markdown, one kind of sign."""
    return re.sub(r"\s+", " ", re.sub(r"[`*]", "", text.replace("≥", ">=").replace("’", "'"))).casefold()


def at(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(parse(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Give ``(line, module)`` for each import, wherever it stands."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # "from quorate.core import election" and "from quorate import errors" import modules.
            deeper = node.module in ("quorate", "quorate.core")
            names = [f"{node.module}.{alias.name}" for alias in node.names] if deeper else [node.module or "."]
            yield from ((node.lineno, name) for name in names)


def defined_names(path: Path) -> Iterator[tuple[int, str]]:
    """Give ``(line, name)`` of what the file defines: itself, classes, functions, arguments, variables, attributes."""
    yield 1, path.stem
    foreign = {a for f in functions(path) if FOREIGN_FUNCTION.fullmatch(f.name) for a in ast.walk(f.args)}
    for node in ast.walk(parse(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if not name.startswith("test_"):  # those are sentences
                    yield node.lineno, name
            case ast.arg(arg=name) if node not in foreign:
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name


def test_files_are_short() -> None:
    limits = dict.fromkeys(SOURCES, SOURCE_LINES_MAX) | dict.fromkeys(TESTS, TEST_LINES_MAX)
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in limits}
    assert [at(path, sizes[path], "the file ends here") for path in limits if sizes[path] > limits[path]] == []


def test_functions_are_short() -> None:
    def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        first = function.body[0]
        documented = isinstance(first, ast.Expr) and ast.get_docstring(function) is not None
        docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
        return (function.end_lineno or 0) - function.lineno + 1 - docstring

    sizes = [(path, f, lines(f)) for path in CODE for f in functions(path)]
    assert [at(path, f.lineno, f"{f.name}: {size}") for path, f, size in sizes if size > FUNCTION_LINES_MAX] == []


def test_names_say_what_they_name() -> None:
    def is_banned(name: str) -> bool:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")
        return not BANNED_WORDS.isdisjoint(words) or (len(words) == 1 and words[0] in BANNED_ALONE)

    assert [at(path, line, name) for path in CODE for line, name in defined_names(path) if is_banned(name)] == []


def test_core_imports_only_what_is_allowed() -> None:
    def is_allowed(module: str) -> bool:
        return module in CORE_IMPORTS or module == "quorate.core" or module.startswith("quorate.core.")

    imported = [(path, line, name) for path in SOURCES if CORE in path.parents for line, name in imports(path)]
    assert [at(path, line, name) for path, line, name in imported if not is_allowed(name)] == []


def test_asyncio_stays_in_the_shell_and_wait_nowhere() -> None:
    others = [path for path in SOURCES if not ASYNCIO_USERS.fullmatch(path.relative_to(PACKAGE).as_posix())]
    imported = [(path, line, name) for path in others for line, name in imports(path)]
    assert [at(path, line, name) for path, line, name in imported if name.partition(".")[0] == "asyncio"] == []
    # asyncio.wait returns sets of tasks, whose order is that of their addresses: no simulation could be repeated.
    nodes = [(path, node) for path in SOURCES for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)]
    assert [at(path, node.lineno, "asyncio.wait") for path, node in nodes if ast.unparse(node) == "asyncio.wait"] == []


def test_nothing_runs_what_it_reads() -> None:
    unsafe = [at(path, line, name) for path in CODE for line, name in imports(path) if name in UNSAFE_IMPORTS]
    calls = [(path, node) for path in CODE for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    unsafe += [at(p, n.lineno, ast.unparse(n.func)) for p, n in calls if ast.unparse(n.func) in ("eval", "exec")]
    assert unsafe == []


def test_silenced_warnings_are_named() -> None:
    bare = re.compile(r"(type|pyright): ignore(?!\[\w)|noqa(?!: ?[A-Z]+\d)")
    assert [at(path, line, text) for path in CODE for line, text in comments(path) if bare.match(text)] == []


def test_each_rule_of_figure_2_is_quoted_once() -> None:
    sources = [path for path in SOURCES if CORE in path.parents or path.name == "apply.py"]
    quoted = " ".join(plain(text) for path in sources for _, text in comments(path))
    assert {rule: quoted.count(plain(rule)) for rule in FIGURE_2} == dict.fromkeys(FIGURE_2, 1)


def test_each_deviation_is_listed_in_protocol_md() -> None:
    listed = plain((ROOT / "docs" / "protocol.md").read_text("utf-8"))
    deviations = [(p, line, d) for p in SOURCES for line, text in comments(p) for d in text.split("Deviation: ")[1:]]
    sentences = [(path, line, re.split(r"\.(?=\s|$)", deviation)[0]) for path, line, deviation in deviations]
    assert sentences, "no deviation found: is the marker still '# Deviation: '?"
    assert [at(path, line, sentence) for path, line, sentence in sentences if plain(sentence) not in listed] == []


def test_each_module_is_named_in_architecture_md() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    names = [path.relative_to(PACKAGE).as_posix().replace("__init__.py", "") or "__init__.py" for path in SOURCES]
    assert [name for name in names if not re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", text)] == []


def test_documents_have_one_title_and_short_lines() -> None:
    wrong = []
    for path in DOCUMENTS:
        lines = path.read_text("utf-8").splitlines()
        wrong += [at(path, n, "long line") for n, x in enumerate(lines, 1) if len(x) > LINE_LENGTH_MAX and x[0] != "|"]
        prose = re.sub(r"^```.*?^```", "", "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
        titles = re.findall(r"^# ", prose, flags=re.MULTILINE)
        wrong += [at(path, 1, f"{len(titles)} titles")] if len(titles) != 1 else []
    assert wrong == []
