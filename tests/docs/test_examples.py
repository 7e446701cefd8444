"""Each example runs, ends in peace, leaves nothing behind, and shows what it is meant to show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

SHOWN = {
    "kv": r"""(?P<leader>peer\d) leads peer1, peer2, peer3
write foo: bar
read foo: bar
read baz: key_not_found: 'baz'
write foo: (?!(?P=leader))peer\d does not lead; it names (?P=leader)
read foo: bar
(?P=leader) is stopped
read foo: bar
write foo: again
(?!(?P=leader))peer\d leads now
(?P=leader) is back, as follower
read foo: again
""",
    "batteries": r"""counter: 52, 53
list: \['fig', 'pear', 'plum'\], pop: plum
set: \[True, True, False\], pop: ann
queue: \['one', 'two', 'three', None\]
priority queue: \['fire', 'sweep', 'mop'\]
lock: ann has token 1
lock: bob is refused, held: 'ann'
lock: bob has token 2
""",
    "job_queue": r"""30 jobs are added
job 1 is known already
(?P<leader>peer\d), the leader, is stopped
(?!(?P=leader))peer\d leads now
30 jobs are finished, each once, by ann, bob, cat
""",
    # Who waits and who tells print as it comes; each in its own order.
    "locks": r"""(?s)(?=.*door is taken by ann, token 1\n.*door is lost by ann\n.*door is taken by bob, token 2
.*door is given back by bob\n.*door is taken by cat, token 3\n.*door is given back by cat\n)(?=.*bob waits: ann holds it
.*ann is late: not_yours: 'door'\n.*cat waits: bob holds it\n)(?-s:.*\n){9}""",
    "waiting_list": r"""Theatre\.take\(4, 'f'\) raised Rejected\('taken', 4\) after it had changed Theatre\.waiting: .*
  to set\('f'\)
command 71, Second\.leave\(0\), left another Second\.taken: {.*}
  and {.*}
  in another process, where another machine had run before: the machine is not deterministic
  Second\.leave walks a set at program\.py:41: its order is none; sorted\(\) gives one
Third: 100 calls come to the same in 3 processes
Third: 3 groups on bad networks end as they must
""",
}


IN_FRAMES = {"script", "web_django", "web_fastapi"}  # tested in test_frames.py, beside a node


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SHOWN.keys() | IN_FRAMES


@pytest.mark.parametrize("name", SHOWN)
def test_example(name: str, run: Callable[[str], str], tmp_path: Path) -> None:
    printed = run((EXAMPLES / f"{name}.py").read_text("utf-8"))
    assert re.fullmatch(SHOWN[name], printed), printed
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
