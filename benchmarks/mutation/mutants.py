"""Small changes of a Python file, each of which a test ought to see."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_NOT_RUN = {"annotation", "returns", "decorator_list"}
"""Fields whose content decides nothing."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change."""

    line: int
    before: str
    after: str
    source: str
    """Of the whole file."""

    def __str__(self) -> str:
        return f"{self.line}: {self.before}  ->  {self.after}"


def mutants(source: str) -> list[Mutant]:
    """All of them, in the order of the file.

    Comparisons, sums, products and conjunctions turn into their neighbours, signs and
    negations go, numbers grow, truth values flip. Texts and annotations stay.
    """
    tree = ast.parse(source)
    found = []
    for place, put, new in list(_places(tree)):
        before = ast.unparse(place)
        put(new)
        found.append(
            Mutant(place.lineno, before, ast.unparse(new), ast.unparse(tree))  # type: ignore[attr-defined]
        )
        put(place)
    return sorted(found, key=lambda mutant: mutant.line)


def _places(
    parent: ast.AST,
) -> Iterator[tuple[ast.AST, Callable[[ast.AST], None], ast.AST]]:
    """Each node that may change, how to put one in its place, and the other."""
    for name, value in ast.iter_fields(parent):
        if name in _NOT_RUN:
            continue
        for at, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or _is_said(node):
                continue
            for new in _changed(node):
                yield node, _setter(parent, name, at, value), new
            yield from _places(node)


def _is_said(node: ast.AST) -> bool:
    """Texts, and that lengths of columns which are equal are checked."""
    strict = isinstance(node, ast.keyword) and node.arg == "strict"
    return strict or isinstance(node, ast.JoinedStr)


def _setter(
    parent: ast.AST, name: str, at: int, value: object
) -> Callable[[ast.AST], None]:
    if isinstance(value, list):
        return lambda node: value.__setitem__(at, node)
    return lambda node: setattr(parent, name, node)


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            ops = [*node.ops[:at], _SWAPPED[type(op)](), *node.ops[at + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)  # type: ignore[arg-type]
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _other_constant(node.value)
    elif (
        isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign)
        and type(node.op) in _SWAPPED
    ):
        swapped = _SWAPPED[type(node.op)]
        yield type(node)(**{**dict(ast.iter_fields(node)), "op": swapped()})


def _other_constant(value: object) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(2 * value or 1.0)
