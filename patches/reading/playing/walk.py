"""Code of a tree gone through as Python would, in a world that says what is no code of the tree, or not known.

No code of a tree runs: its syntax is walked, with a bound on steps and on calls in calls.
"""

from __future__ import annotations

import ast
from typing import Any

from ..code import Code
from ..values import Place
from . import calls, names, statements
from .expressions import evaluated
from .kinds import Opaque, Scope, Stuck, World


class Walk:
    """One walk: modules keep what is put into them; `before` are the names where a statement first begins."""

    block, bind = statements.block, statements.bind
    member, attribute = names.member, names.attribute
    call, entered = calls.call, calls.entered

    def __init__(self, code: Code, world: World) -> None:
        self.code, self.world = code, world
        self.modules: dict[str, Scope] = {}
        self.held: dict[ast.expr, Any] = {}  # by classes, for all of their objects
        self.before: dict[ast.stmt, tuple[Scope, dict[str, Any]]] = {}
        self.steps, self.most, self.depth = 0, world.most, 0
        self.calls: list[ast.AST] = []  # that are under way
        self.is_over = False  # whether the scope that is asked about need not go on

    def module(self, path: str) -> Scope:
        """The names of a module, as far as they have been looked for, or set."""
        if path not in self.modules:
            file = self.code.files.file(path)
            if file is None:
                raise Stuck(f"{path} does not parse")
            self.modules[path] = Scope(file, file.module)
        return self.modules[path]

    def spend(self, scope: Scope, node: ast.AST) -> None:
        self.steps += 1
        if self.steps > self.most:
            raise Stuck("code that runs too long to be tried", Place(scope.file, node))

    def strange(self, why: str, at: Place) -> Any:
        """What is not understood."""
        if not self.world.is_lenient:
            raise Stuck(why, at)
        return Opaque()

    def value(self, scope: Scope, node: ast.expr) -> Any:
        """What an expression comes to."""
        self.steps += 1
        if self.steps > self.most:
            self.spend(scope, node)
        return self.world.came_to(scope, node, evaluated(self, scope, node))

    def name(self, scope: Scope, name: str) -> Any:
        """What a name stands for."""
        here: Scope | None = scope
        while here is not None:
            if name in here.names:
                return here.names[name]
            here = here.outer
        return self.member(scope.file.path, name)
