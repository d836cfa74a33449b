"""Statements that do nothing but feed an expression which is replaced, loops and contexts among them."""

from __future__ import annotations

import ast
import io
from collections.abc import Collection, Iterator

import libcst as cst

from ..reading.files import File, Function
from ..reading.playing.disk import mutables
from ..reading.playing.texts import Machine
from ..reading.source import Source
from ..reading.updates import is_within
from ..task import Edit

_STAYS = (ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom)
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Feeding:
    """What a scope does for an expression alone: `gone` may go with it, `names` are those that it sets."""

    def __init__(self, file: File, function: Function, node: ast.expr, machine: Machine, kept: Collection[str]) -> None:
        self.file, self.function, self.node, self.machine = file, function, node, machine
        loads = (each for each in ast.walk(function) if isinstance(each, ast.Name))
        self._uses = [each for each in loads if not is_within(file, each, node)]
        self._units = [each for each in self._beside() if self._may_go(each)]
        inner = [each for each in ast.walk(function) if isinstance(each, ast.FunctionDef) and each is not function]
        self._inner = {each.name: _names(each) for each in inner}
        self._kept, self.counts = set(kept), list[ast.Call]()

    def settle(self, is_count: Collection[ast.AST]) -> list[ast.stmt]:
        """The statements that go; what only counts their result, as told, does not keep them."""
        units = self._units
        while True:
            used = self._outside(units, is_count) | self._kept
            left = [unit for unit in units if not self._made(unit) & used]
            if len(left) == len(units):
                break
            units = left
        wanted, before = _names(self.node), set[str]()
        while wanted != before:
            before = set(wanted)
            for unit in units:
                wanted |= _names(unit) if self._made(unit) & wanted else set()
        feeding = [unit for unit in units if self._made(unit) & wanted]
        made = {name for unit in feeding for name in self._made(unit)}
        gone = feeding + [unit for unit in units if not self._made(unit) and _names(unit) & made]
        outside = [each for each in self._uses if each.id in made and not self._is_in(each, gone)]
        self.counts = [
            call for each in outside if isinstance(call := self.file.parents[each], ast.Call) and call in is_count
        ]
        return sorted(gone, key=lambda unit: unit.lineno)

    def kept_by(self, made_in: Collection[ast.AST], gone: Collection[ast.stmt]) -> ast.AST | None:
        """What keeps a statement with one of some expressions from going."""
        for node in made_in:
            if is_within(self.file, node, self.node) or self._is_in(node, gone) or self._is_head(node):
                continue
            names = _names(self.file.statement(node)) & _names(self.node) or _names(self.file.statement(node))
            later = (each for each in self._uses if each.id in names and each.lineno > self.file.statement(node).lineno)
            others = [each for each in later if isinstance(each.ctx, ast.Load) and not self._is_in(each, gone)]
            return others[0] if others else node
        return None

    def without(self, source: Source, gone: Collection[ast.stmt]) -> Iterator[Edit]:
        """Take out statements that go, and contexts that would open what is used no more."""
        for each in gone:
            yield Edit(source, source.at(each), lambda _: cst.RemoveFromParent())
        for block in self.idle(gone):
            yield Edit(source, source.at(block), _body_of)

    def idle(self, gone: Collection[ast.stmt]) -> list[ast.With]:
        """The contexts of the expression which open nothing but what is used no more."""
        around = (each for each in self.file.ancestors(self.node) if isinstance(each, ast.With))
        return [each for each in around if self._is_idle(each, gone)]

    def _is_idle(self, block: ast.With, gone: Collection[ast.stmt]) -> bool:
        item = block.items[0]
        opened = self.machine.own.get(item.context_expr, (None, ()))[0]
        names = _names(item.optional_vars) if item.optional_vars is not None else set[str]()
        uses = [each for each in self._uses if each.id in names and is_within(self.file, each, block)]
        left = [each for each in uses if not self._is_in(each, gone) and not is_within(self.file, each, item)]
        return len(block.items) == 1 and isinstance(opened, (io.TextIOWrapper, io.BytesIO)) and not left

    def _is_head(self, node: ast.AST) -> bool:
        """Whether a node is the context of a with that the expression stands in."""
        around = [each for each in self.file.ancestors(self.node) if isinstance(each, ast.With)]
        return any(is_within(self.file, node, item) for each in around for item in each.items)

    def _beside(self) -> Iterator[ast.stmt]:
        """The statements of the blocks that the expression stands in, those that hold it left out."""
        around = [self.node, *self.file.ancestors(self.node)]
        around = around[: around.index(self.function) + 1]
        for each in around:
            for name in ("body", "orelse", "finalbody"):
                block = getattr(each, name, None)
                if isinstance(block, list) and any(held in block for held in around):
                    yield from (unit for unit in block if unit not in around)

    def _may_go(self, unit: ast.stmt) -> bool:
        """Whether a statement does nothing that shows elsewhere, or only raises an error."""
        raised = {id(each) for node in ast.walk(unit) if isinstance(node, ast.Raise) for each in ast.walk(node)}
        if isinstance(unit, ast.FunctionDef) and not unit.decorator_list:
            return True
        for each in ast.walk(unit):
            if isinstance(each, (*_STAYS, *_DEFINES)):
                return False
            if isinstance(each, ast.Attribute) and not isinstance(each.ctx, ast.Load):
                return False
            is_known = each in self.machine.own and each not in self.machine.doing
            if isinstance(each, ast.Call) and not is_known and id(each) not in raised:
                return False
        is_text = isinstance(unit, ast.Expr) and isinstance(unit.value, ast.Constant)
        return not is_text and not isinstance(unit, (ast.Raise, ast.Pass, ast.Break, ast.Continue))

    def _made(self, unit: ast.stmt) -> set[str]:
        """The names that a statement sets, or whose lists it may change."""
        made = set[str]()
        for each in ast.walk(unit):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                made.add(each.id)
            if isinstance(each, ast.Subscript) and not isinstance(each.ctx, ast.Load):
                made |= _names(each.value)
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call):
                names = {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
                names |= {name for called in names for name in self._inner.get(called, ())}
                scope = self.machine.own[self.node][1]
                made |= {name for name in names if any(mutables(known.get(name) for known in scope.chain))}
        return made | ({unit.name} if isinstance(unit, ast.FunctionDef) else set())

    def _outside(self, units: Collection[ast.stmt], is_count: Collection[ast.AST]) -> set[str]:
        found = set[str]()
        for each in self._uses:
            is_read = isinstance(each.ctx, ast.Load) and self.file.parents[each] not in is_count
            if is_read and not self._is_in(each, units):
                found.add(each.id)
        return found

    def _is_in(self, node: ast.AST, units: Collection[ast.stmt]) -> bool:
        return any(is_within(self.file, node, unit) for unit in units)


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _body_of(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
    assert isinstance(updated, cst.With)
    first, *others = updated.body.body
    return cst.FlattenSentinel([first.with_changes(leading_lines=updated.leading_lines), *others])
