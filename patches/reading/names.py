"""Scopes, and what binds a name in each: every form of binding that Python has."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # where statements hold others
_DYNAMIC = {"exec", "globals"}  # what they bind is not to be seen
_OWN_NAMES = {"locals", "vars"}  # at a module's top, called without arguments, so are these


@dataclass(eq=False, slots=True)
class Scope:
    """One namespace: a module's, a function's, a class's or a comprehension's."""

    node: ast.AST
    parent: Scope | None = None
    bound: dict[str, list[ast.AST]] = field(default_factory=dict)  # what binds each name, in source order
    elsewhere: dict[str, str] = field(default_factory=dict)  # names that are declared "global" or "nonlocal"
    is_open: bool = False  # whether names may be bound here without our seeing it: a star import, exec, globals()
    is_dynamic: bool = False  # whether it is so for something else than star imports, which tell their modules

    def owner(self, name: str) -> Scope | None:
        """The scope that a name is looked up in, as seen from here; None for a builtin or an unknown name."""
        here: Scope | None = self
        is_first = True
        while here is not None:
            declared = here.elsewhere.get(name) if is_first else None
            if declared == "global":
                return here.module()
            is_class = isinstance(here.node, ast.ClassDef)
            if declared is None and name in here.bound and (is_first or not is_class):
                return here
            # a comprehension in a class sees the class's names in its first iterable only, which is not read in it
            is_first, here = False, here.parent
        return None

    def is_taken(self, name: str) -> bool:
        """Whether a name may mean something here: what may be bound without our seeing it is taken."""
        here: Scope | None = self
        while here is not None:
            if name in here.bound or name in here.elsewhere or here.is_open:
                return True
            here = here.parent
        return False

    def module(self) -> Scope:
        """The scope of the module."""
        return self if self.parent is None else self.parent.module()


def scopes_of(module: ast.Module) -> dict[ast.AST, Scope]:
    """Every scope of a module, by the node that opens it."""
    binder = _Binder(module)
    for statement in module.body:
        binder.visit(statement)
    return binder.scopes


class _Binder(ast.NodeVisitor):
    def __init__(self, module: ast.Module) -> None:
        self.scope = Scope(module)
        self.scopes: dict[ast.AST, Scope] = {module: self.scope}

    def _bind(self, name: str, node: ast.AST) -> None:
        declared = self.scope.elsewhere.get(name)
        scope: Scope | None = self.scope
        if declared == "global":
            scope = self.scope.module()
        elif declared == "nonlocal":
            scope = self.scope.parent
            while scope is not None and not (name in scope.bound and isinstance(scope.node, _FUNCTIONS)):
                scope = scope.parent
        if scope is not None:
            scope.bound.setdefault(name, []).append(node)

    def _within(self, node: ast.AST) -> Scope:
        scope = self.scopes[node] = Scope(node, self.scope)
        return scope

    def _body(self, body: Sequence[ast.stmt] | Sequence[ast.expr]) -> None:
        """What a scope holds; global and nonlocal are true in all of it, wherever they stand."""
        for each in _own_statements(body):
            if isinstance(each, (ast.Global, ast.Nonlocal)):
                kind = "global" if isinstance(each, ast.Global) else "nonlocal"
                self.scope.elsewhere.update(dict.fromkeys(each.names, kind))
        for each in body:
            self.visit(each)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = node.args
        for outside in [
            *getattr(node, "decorator_list", ()),
            *arguments.defaults,
            *filter(None, arguments.kw_defaults),
        ]:
            self.visit(outside)
        every = [*parameters(arguments), *filter(None, (arguments.vararg, arguments.kwarg))]
        for annotation in [*(each.annotation for each in every), getattr(node, "returns", None)]:
            if annotation is not None:
                self.visit(annotation)
        outer, self.scope = self.scope, self._within(node)
        for kind in getattr(node, "type_params", ()):  # Python 3.12
            self._bind(kind.name, kind)
        for parameter in every:
            self._bind(parameter.arg, parameter)
        self._body(node.body if isinstance(node.body, list) else [node.body])
        self.scope = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._bind(node.name, node)
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._bind(node.name, node)
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, node)
        for outside in [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]:
            self.visit(outside)
        outer, self.scope = self.scope, self._within(node)
        for kind in getattr(node, "type_params", ()):
            self._bind(kind.name, kind)
        self._body(node.body)
        self.scope = outer

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)  # which is evaluated outside
        outer, self.scope = self.scope, self._within(node)
        for place, each in enumerate(node.generators):
            self.visit(each.target)
            if place:
                self.visit(each.iter)
            for condition in each.ifs:
                self.visit(condition)
        results = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for result in results:
            self.visit(result)
        self.scope = outer

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        inner = self.scope
        while isinstance(self.scope.node, _COMPREHENSIONS) and self.scope.parent is not None:  # PEP 572
            self.scope = self.scope.parent
        self._bind(node.target.id, node)
        self.scope = inner
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._bind(node.id, node)
        elif node.id in _DYNAMIC:
            self._open()

    def visit_Call(self, node: ast.Call) -> None:
        is_top = self.scope.parent is None and not node.args
        if is_top and isinstance(node.func, ast.Name) and node.func.id in _OWN_NAMES:
            self._open()
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr == "modules" and isinstance(node.value, ast.Name) and node.value.id == "sys":
            self._open()
        self.generic_visit(node)

    def _open(self) -> None:
        for scope in (self.scope, self.scope.module()):
            scope.is_open = scope.is_dynamic = True

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.split(".")[0], alias)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.scope.is_open = True
            else:
                self._bind(alias.asname or alias.name, alias)

    def visit_ExceptHandler(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self._bind(name, node)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = visit_ExceptHandler


def parameters(arguments: ast.arguments) -> list[ast.arg]:
    """A function's parameters in order, those that gather the rest left out."""
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def defaults_of(arguments: ast.arguments) -> dict[ast.arg, ast.expr]:
    """The default of each parameter that has one."""
    placed = [*arguments.posonlyargs, *arguments.args]
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = dict(zip(reversed(placed), reversed(arguments.defaults), strict=False))
    return found | {each: default for each, default in named if default is not None}


def _own_statements(body: Sequence[ast.stmt] | Sequence[ast.expr]) -> Iterator[ast.AST]:
    """The statements of a scope, without those of scopes in it."""
    pending = [each for each in body if isinstance(each, ast.stmt)]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            for name in _BLOCKS:
                for each in getattr(node, name, ()):
                    pending += [each] if isinstance(each, ast.stmt) else each.body
