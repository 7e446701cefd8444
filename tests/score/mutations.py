"""Every small change of a source file that the score is about: mutmut's, and four kinds of our own.

mutmut (https://mutmut.readthedocs.io) says how a node of the source may be changed; what it lacks is added: a statement
dropped, a condition taken for granted, one side of ``and`` and ``or`` alone, and the other one of a pair of functions.
Knows source texts; does not know what is run.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

import libcst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

from .sources import Function, Mutant

UNTOUCHED_CALLS = {"len", "isinstance"}
"""What mutmut does not look into either: such calls fail at once with anything else."""
PAIRS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def mutants(function: Function) -> Iterator[Mutant]:
    """Give every change of a function that still compiles, each once."""
    indentation = function.text[: len(function.text) - len(function.text.lstrip())]
    wrapper = MetadataWrapper(libcst.parse_module(textwrap.dedent(function.text)), unsafe_skip_copy=True)
    seen = {function.text}
    for old, new, span in Changes.found(wrapper):
        text = textwrap.indent(wrapper.module.deep_replace(old, new).code, indentation)
        if text in seen or not is_code(text):
            continue
        seen.add(text)
        yield Mutant(function, text, range(function.first + span.start, function.first + span.stop))


def is_code(text: str) -> bool:
    """Tell whether a function's text compiles."""
    try:
        compile(textwrap.dedent(text), "mutant", "exec")
    except SyntaxError:
        return False
    return True


Found = tuple[libcst.CSTNode, libcst.CSTNode, range]
"""A node, what may stand in its place, and its lines from 0."""


class Changes(libcst.CSTVisitor):
    """Gathers the changes of a module that is one function.

    None of its signature, of annotations and docstrings, and of what an assertion says when it fails.
    """

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        """Begin with none."""
        self.changes: list[Found] = []
        self.said: libcst.CSTNode | None = None

    @classmethod
    def found(cls, wrapper: MetadataWrapper) -> list[Found]:
        """Give all changes of a module."""
        gathering = cls()
        wrapper.visit(gathering)
        return gathering.changes

    def on_visit(self, node: libcst.CSTNode) -> bool:
        """Gather the changes of a node; say whether to look into it."""
        if isinstance(node, libcst.Annotation | libcst.Decorator | libcst.Parameters) or is_docstring(node):
            return False
        if node is self.said:
            return False
        if isinstance(node, libcst.Assert):
            self.said = node.msg
        if m.matches(node, m.Call(func=m.Name())) and node.func.value in UNTOUCHED_CALLS:
            return False
        position = self.get_metadata(PositionProvider, node, None)
        if position is not None:
            span = range(position.start.line - 1, position.end.line)
            self.changes += [(node, new, span) for new in replacements(node)]
        return True


def is_docstring(node: libcst.CSTNode) -> bool:
    """Tell whether a statement is nothing but a string."""
    return m.matches(node, m.SimpleStatementLine(body=[m.Expr(value=m.SimpleString() | m.ConcatenatedString())]))


def replacements(node: libcst.CSTNode) -> Iterator[libcst.CSTNode]:
    """Give all that may stand in the place of a node: what mutmut says, and what we add."""
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            yield from operator(node)
    yield from (new for operator in (dropped, decided, one_side, other_one) for new in operator(node))


def dropped(node: libcst.CSTNode) -> Iterable[libcst.CSTNode]:
    """Drop a statement that does something."""
    does = m.Expr(value=m.Call()) | m.Return() | m.Raise() | m.Del() | m.AugAssign() | m.Continue() | m.Break()
    sets = m.Assign(targets=[m.AtLeastN(m.AssignTarget(target=m.Attribute() | m.Subscript()), n=1)])
    if m.matches(node, m.SimpleStatementLine(body=[does | sets])):
        yield node.with_changes(body=[libcst.Pass()])


def decided(node: libcst.CSTNode) -> Iterable[libcst.CSTNode]:
    """Take a condition for granted, or for never true."""
    if isinstance(node, libcst.If | libcst.CompIf):
        for word in ("True", "False"):
            space = libcst.SimpleWhitespace(" ")
            name = "whitespace_before_test"
            yield node.with_changes(test=libcst.Name(word), **{name: space})
    if isinstance(node, libcst.While):
        yield node.with_changes(test=libcst.Name("False"))


def one_side(node: libcst.CSTNode) -> Iterable[libcst.CSTNode]:
    """Leave one side of ``and`` or ``or`` alone."""
    if isinstance(node, libcst.BooleanOperation):
        for side in (node.left, node.right):
            # In brackets, as far as it had any: what it stood in may span lines.
            yield side.with_changes(lpar=[libcst.LeftParen()], rpar=[libcst.RightParen()])


def other_one(node: libcst.CSTNode) -> Iterable[libcst.CSTNode]:
    """Call the other one of a pair of functions."""
    if m.matches(node, m.Call(func=m.Name())) and node.func.value in PAIRS:
        yield node.with_changes(func=libcst.Name(PAIRS[node.func.value]))
