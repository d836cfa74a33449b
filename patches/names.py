"""What a name stands for: imports, assignment aliases and local values, resolved once a file."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst

if TYPE_CHECKING:
    from .parts import Part
    from .source import Source

_BINDERS = (
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
    cst.MatchAs,
    cst.MatchStar,
    cst.MatchMapping,
)
_SET_AT_ITS_END = (cst.Assign, cst.AnnAssign, cst.AugAssign, cst.NamedExpr)  # what stands in it sees the value before
_SCOPES = {cst.ClassDef, cst.FunctionDef, cst.Lambda}
_COMPREHENSIONS = {cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp}


@dataclass(frozen=True, slots=True)
class Binding:
    """One place that gives a name its value."""

    node: cst.CSTNode  # where it is bound
    imported: str = ""  # the dotted name, for an import
    value: cst.BaseExpression | None = None  # the right-hand side, for a plain assignment


Scopes = Mapping[cst.CSTNode | None, Mapping[str, list[Binding]]]  # the file's own scope is None


class Names:
    """The bindings of one file, by scope and name."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: dict[str, list[Binding]] = {}
        self._binders: dict[str, list[Part]] = {}  # what binds each name at the file's top
        for part in source.parts:
            for name in (part.name,) if part.name else source.opened(part).scopes[None]:
                self._binders.setdefault(name, []).append(part)

    def bindings(self, name: str, at: cst.CSTNode) -> list[Binding]:
        """All bindings of a name in the nearest scope that has one, as seen from a node."""
        parents = self._source.parents
        scope = scope_of(at, parents)
        scopes = self._source.part(scope).scopes if scope is not None else {}
        innermost = True
        while scope is not None:
            if (innermost or not isinstance(scope, cst.ClassDef)) and name in scopes.get(scope, ()):
                return scopes[scope][name]
            innermost = False
            scope = scope_of(scope, parents)
        return self.top_level(name)

    def top_level(self, name: str) -> list[Binding]:
        """The bindings of a name at the top of the file."""
        if name not in self._binders:
            return []
        if name not in self._found:
            binders = [self._source.opened(part) for part in self._binders[name]]
            self._found[name] = [binding for part in binders for binding in part.scopes[None].get(name, ())]
        return self._found[name]

    def spelled(self, qualified: str) -> str | None:
        """How a file writes a dotted name, by the longest part of it that it imports at its top."""
        parts = qualified.split(".")
        for length in range(len(parts), 0, -1):
            imported = ".".join(parts[:length])
            for name, (binder, *_) in self._binders.items():
                meanings = {self._meaning(binding, 8) for binding in self.top_level(name)} if not binder.name else set()
                if meanings - {"None"} == {imported}:
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
        parents = self._source.parents
        bindings = self.bindings(node.value, node)
        earlier = [binding for binding in bindings if self._is_set_before(binding, node)]
        if not earlier:
            return None
        last = earlier[-1]
        loops = [each for each in self._source.ancestors(node) if isinstance(each, (cst.For, cst.While))]
        later = [binding.node for binding in bindings if binding not in earlier]
        around = set(self._source.ancestors(last.node))
        for loop in loops:  # what is set below may be what is seen above, a turn later
            if loop not in around and any(loop in self._source.ancestors(each) for each in later):
                return None
        block = parents.get(self._source.statement(last.node))
        ancestor: cst.CSTNode | None = node
        while ancestor is not None and ancestor is not block:
            ancestor = parents.get(ancestor)
        return last.value if ancestor is not None else None

    def _is_set_before(self, binding: Binding, node: cst.CSTNode) -> bool:
        """Whether a binding comes before a node in the text, and is no statement that the node is in."""
        rank = self._source.order[node]
        if isinstance(binding.node, _SET_AT_ITS_END):
            return self._source.end(binding.node) < rank
        return self._source.order[binding.node] < rank

    def _meaning(self, binding: Binding, depth: int) -> str | None:
        if binding.imported:
            return binding.imported
        if isinstance(binding.value, cst.Name) and binding.value.value == "None":
            return "None"
        return self.qualified(binding.value, depth - 1) if binding.value is not None else None


def scope_of(node: cst.CSTNode, parents: Mapping[cst.CSTNode, cst.CSTNode]) -> cst.CSTNode | None:
    """The scope that a node's names are looked up in; a decorator or a default is outside its function."""
    child, parent = node, parents.get(node)
    while parent is not None:
        kind = type(parent)
        if kind in _COMPREHENSIONS:
            return parent
        if kind in _SCOPES and (child is parent.body or child is getattr(parent, "params", None)):  # type: ignore[attr-defined]
            return parent
        child, parent = parent, parents.get(parent)
    return None


def scopes_of(part: Part) -> Scopes:
    """The bindings that a top-level statement makes."""
    scopes: dict[cst.CSTNode | None, dict[str, list[Binding]]] = {None: {}}
    parents = part.index.parents
    ranks = sorted(rank for kind in _BINDERS for rank in part.index.ranks(kind))
    for node in (part.index.nodes[rank] for rank in ranks):
        scope = scope_of(node, parents)
        while isinstance(node, cst.NamedExpr) and type(scope) in _COMPREHENSIONS:  # PEP 572: it binds around them
            assert scope is not None
            scope = scope_of(scope, parents)
        for name, binding in _bound(node):
            scopes.setdefault(scope, {}).setdefault(name, []).append(binding)
    return scopes


def _bound(node: cst.CSTNode) -> Iterator[tuple[str, Binding]]:
    match node:
        case cst.Import() | cst.ImportFrom():
            yield from _imported(node)
        case cst.FunctionDef() | cst.ClassDef() | cst.Param():
            yield node.name.value, Binding(node)
        case cst.Assign():
            for target in node.targets:
                yield from _assigned(target.target, node, node.value)
        case cst.AnnAssign() | cst.NamedExpr():
            yield from _assigned(node.target, node, node.value)
        case cst.AugAssign() | cst.For() | cst.CompFor():
            yield from _assigned(node.target, node, None)
        case cst.MatchAs(name=cst.Name() as name) | cst.MatchStar(name=cst.Name() as name):
            yield name.value, Binding(node)
        case cst.MatchMapping(rest=cst.Name() as name):
            yield name.value, Binding(node)
        case cst.WithItem(asname=cst.AsName(name=name)) | cst.ExceptHandler(name=cst.AsName(name=name)):
            yield from _assigned(name, node, None)


def _assigned(
    target: cst.CSTNode, node: cst.CSTNode, value: cst.BaseExpression | None
) -> Iterator[tuple[str, Binding]]:
    if isinstance(target, cst.Name):
        yield target.value, Binding(node, "", value)
    elif isinstance(target, (cst.Tuple, cst.List)):
        values: list[cst.BaseExpression | None] = [None] * len(target.elements)
        both = (*target.elements, *value.elements) if isinstance(value, (cst.Tuple, cst.List)) else target.elements
        is_plain = not any(isinstance(element, cst.StarredElement) for element in both)
        if isinstance(value, (cst.Tuple, cst.List)) and len(value.elements) == len(values) and is_plain:
            values = [element.value for element in value.elements]
        for element, part in zip(target.elements, values, strict=True):
            yield from _assigned(element.value, node, part)


def _imported(node: cst.Import | cst.ImportFrom) -> Iterator[tuple[str, Binding]]:
    if isinstance(node.names, cst.ImportStar):
        return
    prefix = ""
    if isinstance(node, cst.ImportFrom):
        module = dotted(node.module) if node.module is not None else ""
        prefix = "." * len(node.relative) + module + ("." if module else "")
    for alias in node.names:
        name = dotted(alias.name)
        if alias.asname is not None and isinstance(alias.asname.name, cst.Name):
            yield alias.asname.name.value, Binding(node, prefix + name)
        elif isinstance(node, cst.Import):
            yield name.split(".")[0], Binding(node, name.split(".")[0])
        else:
            yield name, Binding(node, prefix + name)


def dotted(node: cst.CSTNode) -> str:
    """The text of a dotted name: `a.b.c`."""
    if isinstance(node, cst.Attribute):
        return f"{dotted(node.value)}.{node.attr.value}"
    assert isinstance(node, cst.Name)
    return node.value
