"""What names at a file's top stand for: what they import, define, or are set to."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst

from ..files.nesting import parsed
from .names import scopes_of

if TYPE_CHECKING:
    from .parts import Part
    from .source import Source


@dataclass(frozen=True, slots=True)
class Binding:
    """One place that gives a name its value, in a statement at a file's top."""

    part: Part
    imported: str = ""  # the dotted name, for an import
    value: ast.expr | None = None  # the right-hand side, for a plain assignment
    is_for_types: bool = False  # whether type checkers alone see it


class Names:
    """The bindings at the top of one file, by name."""

    def __init__(self, source: Source) -> None:
        self._found: dict[str, list[Binding]] = {}
        for part in source.parts:
            for name, bindings in (part if part.name else source.opened(part)).bound.items():
                self._found.setdefault(name, []).extend(bindings)

    def top_level(self, name: str) -> list[Binding]:
        """The bindings of a name at the top of the file."""
        return self._found.get(name, [])

    def spelled(self, qualified: str) -> str | None:
        """How a file writes a dotted name, by the longest part of it that it imports at its top."""
        parts = qualified.split(".")
        for length in range(len(parts), 0, -1):
            imported = ".".join(parts[:length])
            for name, bindings in self._found.items():
                if {self._meaning(each, 8) for each in bindings} - {"None"} == {imported}:
                    return ".".join([name, *parts[length:]])
        return None

    def _meaning(self, binding: Binding, depth: int) -> str | None:
        match binding.value:
            case None:
                return binding.imported or None
            case ast.Constant(value=None):
                return "None"  # `except ImportError: name = None`
        return self._qualified(binding.value, depth - 1)

    def _qualified(self, node: ast.expr, depth: int) -> str | None:
        """The dotted name that an expression stands for, through imports and assignment aliases."""
        if isinstance(node, ast.Attribute):
            base = self._qualified(node.value, depth)
            return f"{base}.{node.attr}" if base else None
        if not isinstance(node, ast.Name) or depth == 0:
            return None
        meanings = {self._meaning(each, depth) for each in self.top_level(node.id)} - {"None"}
        return meanings.pop() if len(meanings) == 1 else None


def bound_by(part: Part) -> Mapping[str, list[Binding]]:
    """The names that a statement at a file's top gives a value."""
    if part.name:
        return {part.name: [Binding(part)]}
    module = parsed(part.text)
    imported, values = dict[ast.AST, str](), dict[ast.AST, ast.expr]()
    for node in ast.walk(module):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imported |= _imported(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                values |= _values(target, node.value)
    first = module.body[0]
    is_for_types = isinstance(first, ast.If) and ast.unparse(first.test).endswith("TYPE_CHECKING")
    return {
        name: [Binding(part, imported.get(node, ""), values.get(node), is_for_types) for node in nodes]
        for name, nodes in scopes_of(module)[module].bound.items()
    }


def _imported(node: ast.Import | ast.ImportFrom) -> dict[ast.AST, str]:
    if isinstance(node, ast.Import):
        return {each: each.name if each.asname else each.name.split(".")[0] for each in node.names}
    prefix = "." * node.level + (f"{node.module}." if node.module else "")
    return {each: prefix + each.name for each in node.names}


def _values(target: ast.expr, value: ast.expr) -> dict[ast.AST, ast.expr]:
    """What each name of a target is set to, as far as a display says so."""
    if isinstance(target, ast.Name):
        return {target: value}
    pairs = (getattr(target, "elts", ()), getattr(value, "elts", ()))
    if len(pairs[0]) != len(pairs[1]) or any(isinstance(each, ast.Starred) for some in pairs for each in some):
        return {}
    return {name: known for pair in zip(*pairs, strict=True) for name, known in _values(*pair).items()}


def globals_of(text: str) -> set[str]:
    """The names that statements look up outside of themselves."""
    return set(_looked_up(symtable.symtable(text, "", "exec")))


def _looked_up(table: symtable.SymbolTable) -> Iterator[str]:
    is_top = table.get_type() == "module"
    yield from (
        each.get_name() for each in table.get_symbols() if each.is_global() or (is_top and each.is_referenced())
    )
    for inner in table.get_children():
        yield from _looked_up(inner)


def dotted(node: cst.CSTNode) -> str:
    """The text of a dotted name: `a.b.c`."""
    if isinstance(node, cst.Attribute):
        return f"{dotted(node.value)}.{node.attr.value}"
    assert isinstance(node, cst.Name)
    return node.value
