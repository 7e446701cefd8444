"""The lines of a machine's methods that walk a set: the first place to look where two processes differ.

Reads source text, and runs nothing. It points where a person looks first, and proves nothing.
"""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
import typing
from collections.abc import Callable, Iterator

SETS = ("set", "frozenset")
WALKING = ("list", "tuple", "iter", "enumerate", "sum", "zip", "map", "filter", "dict", "deque")
"""Calls that take the items of their argument in its order, and give something that depends on it."""
ORDERLESS = ("sorted", "min", "max", "any", "all", "len", "set", "frozenset")
"""Calls to which the order of their argument makes no difference."""
COMBINING = ("union", "intersection", "difference", "symmetric_difference", "copy")


def walked_sets(function: Callable[..., object], machine: type) -> list[str]:
    """Give the places, ``file:line``, where a function takes the items of a set in the order in which it holds them."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return []
    sets = Sets(set_attributes(machine))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and sets.holds(node.value):
            sets.names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    spared = [node.args for node in ast.walk(tree) if isinstance(node, ast.Call) and is_orderless(node)]
    nodes = [node for node in ast.walk(tree) if not any(node in arguments for arguments in spared)]
    found = {walked.lineno for node in nodes for walked in walks(node) if sets.holds(walked)}
    file = os.path.basename(inspect.getsourcefile(function) or "")
    return [f"{file}:{first + line - 1}" for line in sorted(found)]


def place_of(function: Callable[..., object]) -> str:
    """Give the file and line where a function begins."""
    return f"{os.path.basename(function.__code__.co_filename)}:{function.__code__.co_firstlineno}"


def set_attributes(machine: type) -> set[str]:
    """Give the attributes that a class annotates as sets, or as containers of sets."""
    return {name for name, hint in typing.get_type_hints(machine).items() if holds_set(hint)}


def holds_set(hint: object) -> bool:
    """Tell whether an annotation names a set, or has one within it."""
    within = (typing.get_origin(hint), *typing.get_args(hint)) if typing.get_args(hint) else ()
    return hint in (set, frozenset) or any(map(holds_set, within))


def is_orderless(call: ast.Call) -> bool:
    """Tell whether a call gives the same for its argument's items in any order."""
    return isinstance(call.func, ast.Name) and call.func.id in ORDERLESS


class Sets:
    """Tells which expressions of a function are sets.

    Attributes:
        attributes: the machine's attributes that are.
        names: the local names that are.
    """

    def __init__(self, attributes: set[str]) -> None:
        """Know the attributes."""
        self.attributes: set[str] = attributes
        self.names: set[str] = set()

    def holds(self, node: ast.expr) -> bool:
        """Tell whether an expression is a set, as far as its text says."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self.names
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return name in self.attributes
            case ast.Subscript(value=value):
                return self.holds(value)
            case ast.BinOp(left=left, right=right):
                return self.holds(left) or self.holds(right)
            case ast.Call(func=ast.Name(id=name)):
                return name in SETS
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                return name in (*COMBINING, "get", "setdefault") and self.holds(value)
            case _:
                return False


def walks(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that a piece of a program walks, or takes one item of."""
    match node:
        case ast.For(iter=walked) | ast.Starred(value=walked):
            yield walked
        case ast.ListComp(generators=generators) | ast.GeneratorExp(generators=generators):
            yield from (generator.iter for generator in generators)
        case ast.DictComp(generators=generators):
            yield from (generator.iter for generator in generators)
        case ast.Call(func=ast.Name(id=name), args=args) if name in WALKING:
            yield from args
        case ast.Call(func=ast.Attribute(attr="join"), args=args):
            yield from args
        case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
            yield value
        case _:
            pass
