"""What a name stands for: imports, assignment aliases and local values, resolved once a file."""

from __future__ import annotations

import builtins
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst

if TYPE_CHECKING:
    from .source import Source

_BINDERS = {
    cst.Import,
    cst.ImportFrom,
    cst.FunctionDef,
    cst.ClassDef,
    cst.Param,
    cst.Assign,
    cst.AnnAssign,
    cst.AugAssign,
    cst.NamedExpr,
    cst.For,
    cst.CompFor,
    cst.WithItem,
    cst.ExceptHandler,
}
_SCOPES = {cst.ClassDef, cst.FunctionDef, cst.Lambda}
_WHOLE_SCOPES = {cst.Module, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp}


@dataclass(frozen=True, slots=True)
class Binding:
    """One place that gives a name its value."""

    node: cst.CSTNode  # where it is bound
    imported: str = ""  # the dotted name, for an import
    value: cst.BaseExpression | None = None  # the right-hand side, for a plain assignment


class Names:
    """The bindings of one file, by scope and name."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bindings: dict[cst.CSTNode, dict[str, list[Binding]]] = defaultdict(lambda: defaultdict(list))
        for node in source.order:
            if type(node) in _BINDERS:  # isinstance of an abstract class would ask for each node
                self._bind(node)

    def bindings(self, name: str, at: cst.CSTNode) -> list[Binding]:
        """All bindings of a name in the nearest scope that has one, as seen from a node."""
        scope: cst.CSTNode | None = self._scope(at)
        innermost = True
        while scope is not None:
            if (innermost or not isinstance(scope, cst.ClassDef)) and name in self._bindings[scope]:
                return self._bindings[scope][name]
            innermost = False
            scope = self._scope(scope) if scope is not self._source.module else None
        return []

    def top_level(self, name: str) -> list[Binding]:
        """The bindings of a name at the top of the file."""
        return self._bindings[self._source.module].get(name, [])

    def spelled(self, qualified: str) -> str | None:
        """How a file writes a dotted name, by the longest part of it that it imports at its top."""
        parts = qualified.split(".")
        for length in range(len(parts), 0, -1):
            imported = ".".join(parts[:length])
            for name, bindings in self._bindings[self._source.module].items():
                if {self._meaning(binding, 8) for binding in bindings} - {"None"} == {imported}:
                    return ".".join([name, *parts[length:]])
        return None

    def is_bound(self, name: str, at: cst.CSTNode) -> bool:
        """Whether a name means anything yet where a node stands."""
        return bool(self.bindings(name, at)) or hasattr(builtins, name)

    def qualified(self, node: cst.CSTNode, depth: int = 8) -> str | None:
        """The dotted name that an expression stands for, through imports and assignment aliases."""
        if isinstance(node, cst.Attribute):
            base = self.qualified(node.value, depth)
            return f"{base}.{node.attr.value}" if base else None
        if not isinstance(node, cst.Name) or depth == 0:
            return None
        meanings = {self._meaning(binding, depth) for binding in self.bindings(node.value, node)}
        meanings.discard("None")  # `except ImportError: name = None`
        return meanings.pop() if len(meanings) == 1 else None

    def value(self, node: cst.CSTNode) -> cst.BaseExpression | None:
        """What a local name was last assigned on every way to a use of it; None where that is not certain."""
        if not isinstance(node, cst.Name):
            return None
        order, parents = self._source.order, self._source.parents
        bindings = self.bindings(node.value, node)
        earlier = [binding for binding in bindings if order[binding.node] < order[node]]
        if not earlier:
            return None
        last = earlier[-1]
        block = parents.get(self._source.statement(last.node))
        ancestor: cst.CSTNode | None = node
        while ancestor is not None and ancestor is not block:
            ancestor = parents.get(ancestor)
        return last.value if ancestor is not None else None

    def _meaning(self, binding: Binding, depth: int) -> str | None:
        if binding.imported:
            return binding.imported
        if isinstance(binding.value, cst.Name) and binding.value.value == "None":
            return "None"
        return self.qualified(binding.value, depth - 1) if binding.value is not None else None

    def _scope(self, node: cst.CSTNode) -> cst.CSTNode:
        """The scope that a node's names are looked up in; a decorator or a default is outside its function."""
        child, parent = node, self._source.parents.get(node)
        while parent is not None:
            kind = type(parent)
            if kind in _WHOLE_SCOPES:
                return parent
            if kind in _SCOPES and child in (parent.body, getattr(parent, "params", None)):  # type: ignore[attr-defined]
                return parent
            child, parent = parent, self._source.parents.get(parent)
        return self._source.module

    def _bind(self, node: cst.CSTNode) -> None:
        match node:
            case cst.Import() | cst.ImportFrom():
                self._bind_import(node)
            case cst.FunctionDef() | cst.ClassDef() | cst.Param():
                self._add(node.name, node)
            case cst.Assign():
                for target in node.targets:
                    self._bind_target(target.target, node, node.value)
            case cst.AnnAssign() | cst.NamedExpr():
                self._bind_target(node.target, node, node.value)
            case cst.AugAssign() | cst.For() | cst.CompFor():
                self._bind_target(node.target, node, None)
            case cst.WithItem(asname=cst.AsName(name=name)) | cst.ExceptHandler(name=cst.AsName(name=name)):
                self._bind_target(name, node, None)

    def _bind_target(self, target: cst.CSTNode, node: cst.CSTNode, value: cst.BaseExpression | None) -> None:
        if isinstance(target, cst.Name):
            self._add(target, node, value)
        elif isinstance(target, (cst.Tuple, cst.List)):
            values: list[cst.BaseExpression | None] = [None] * len(target.elements)
            if isinstance(value, (cst.Tuple, cst.List)) and len(value.elements) == len(values):
                values = [element.value for element in value.elements]
            for element, part in zip(target.elements, values, strict=True):
                self._bind_target(element.value, node, part)

    def _bind_import(self, node: cst.Import | cst.ImportFrom) -> None:
        if isinstance(node.names, cst.ImportStar):
            return
        prefix = ""
        if isinstance(node, cst.ImportFrom):
            module = dotted(node.module) if node.module is not None else ""
            prefix = "." * len(node.relative) + module + ("." if module else "")
        for alias in node.names:
            name = dotted(alias.name)
            if alias.asname is not None and isinstance(alias.asname.name, cst.Name):
                self._add(alias.asname.name, node, imported=prefix + name)
            elif isinstance(node, cst.Import):
                self._bindings[self._scope(node)][name.split(".")[0]].append(Binding(node, name.split(".")[0]))
            else:
                self._bindings[self._scope(node)][name].append(Binding(node, prefix + name))

    def _add(
        self, name: cst.Name, node: cst.CSTNode, value: cst.BaseExpression | None = None, imported: str = ""
    ) -> None:
        scope = self._scope(node)
        self._bindings[scope][name.value].append(Binding(node, imported, value))


def dotted(node: cst.CSTNode) -> str:
    """The text of a dotted name: `a.b.c`."""
    if isinstance(node, cst.Attribute):
        return f"{dotted(node.value)}.{node.attr.value}"
    assert isinstance(node, cst.Name)
    return node.value
