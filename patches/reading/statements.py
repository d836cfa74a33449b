"""Read a scope statement by statement: what its names stand for, what it does, what it returns."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from .attributes import imported
from .calls import call, decorated
from .expressions import augmented, indices, matched, set_by_name, value_of
from .files import File, Function
from .frames import MAPPINGS, PUT, Class, Effect, Env, Frame, Guard, Known, Loop, Run, all_of, choice, item_of, joined
from .names import Scope, defaults_of, parameters
from .nodes import walk
from .shapes import size_of
from .signatures import VIEWS
from .values import Place, Value

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class _Ended(NamedTuple):
    """How a block ended that does not go on: by return, with a value, or by raise, break or continue."""

    value: Value | None


_Block = Callable[[], _Ended | None]


class Reader:
    """One scope while it is read; a Frame."""

    def __init__(
        self, code: Known, file: File, scope: Scope, outer: Frame | None, run: Run, guards: tuple[Guard, ...] = ()
    ) -> None:
        self.code, self.file, self.scope, self.outer, self.run, self.guards = code, file, scope, outer, run, guards
        self.graph, self.depth = code.graph, 0
        self.env: Env = {}
        self.yielded: list[Value] = []
        self.returned: list[Value] = []  # from inside of loops and handlers
        self.early: list[tuple[Value, Value]] = []  # conditions under which it has returned, and what
        self._within = len(guards)  # of its guards, those that are not its own
        self.owner: Value | None = None
        self.cls: Class | None = None

    def inside(self, node: ast.AST, *, called: Frame | None = None, file: File | None = None) -> Reader:
        """A scope in this one, or, with what is around it, one that is called from here."""
        file = file or self.file
        inner = Reader(self.code, file, file.scopes[node], called or self, self.run, self.guards)
        inner.depth = self.depth + (called is not None)
        if called is None:
            inner.owner, inner.cls = self.owner, self.cls
        return inner

    def symbolic(self, function: Function, owner: ast.ClassDef | None, self_: Value | None = None) -> None:
        """Let a function's parameters stand for themselves."""
        arguments, file = function.args, self.file
        for each in [*parameters(arguments), *filter(None, (arguments.vararg, arguments.kwarg))]:
            known = file.path, function, each.arg
            self.env[each.arg] = self.graph.value("parameter", data=known, at=Place(file, each))
        first = parameters(arguments)[:1]
        kinds = [each.id for each in function.decorator_list if isinstance(each, ast.Name)]
        if owner is not None and first and "staticmethod" not in kinds:
            self.cls = (file.path, owner)
            kind = "class" if "classmethod" in kinds else "self"
            self.owner = self.env[first[0].arg] = self_ or self.graph.value(kind, data=self.cls)

    def bind_arguments(
        self, function: Function | ast.Lambda, placed: Sequence[Value], named: Mapping[str, Value]
    ) -> None:
        """Bind a call's arguments to a function's parameters."""
        arguments, rest = function.args, dict(named)
        order = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        defaults = defaults_of(arguments)
        self.env.update(zip(order, placed, strict=False))
        if arguments.vararg is not None:
            self.env[arguments.vararg.arg] = self.graph.group("tuple", placed[len(order) :])
        for each in parameters(arguments):
            if each.arg in rest:
                self.env[each.arg] = rest.pop(each.arg)
            elif each.arg not in self.env:
                known = each in defaults and self.outer is not None
                missing = self.graph.opaque(f"{each.arg} is not given", Place(self.file, each))
                self.env[each.arg] = self.outer.expr(defaults[each]) if known else missing  # type: ignore[union-attr]
        if arguments.kwarg is not None:
            self.env[arguments.kwarg.arg] = self.graph.value("dict", rest)

    def body(self, statements: Sequence[ast.stmt]) -> Value:
        """What a function's body returns."""
        self.run.frames.append(self)
        ended = self.block(statements, is_body=True)
        self.run.frames.pop()
        if ended is not None and ended.value is None and not self.yielded:
            return self.graph.opaque("it raises")
        if self.yielded:
            return self.graph.group("yields", self.yielded)
        value = ended.value if ended is not None and ended.value is not None else self.graph.const(None)
        for test, early in reversed(self.early):
            value = choice(self.graph, test, early, value, early.at)
        if self.returned:
            every = {str(place): each for place, each in enumerate([*self.returned, value])}
            return self.graph.opaque("what a loop or a handler may return", None, every)
        return value

    def block(self, statements: Sequence[ast.stmt], *, is_body: bool = False) -> _Ended | None:
        """Read statements; says how the block ended if it does not go on behind them."""
        for place, statement in enumerate(statements):
            if self.depth == 0:
                self.run.reading.before[statement] = dict(self.env)
            rest = statements[place + 1 :]
            if isinstance(statement, ast.If):
                blocks = [partial(self.block, each) for each in (statement.body, statement.orelse)]
                ended, is_through = self._either_of(statement, self.expr(statement.test), blocks, rest, is_body)
            elif isinstance(statement, ast.Match):
                subject = self.expr(statement.subject)
                ended, is_through = self._match(statement, subject, statement.cases, rest, is_body)
            else:
                ended, is_through = self._statement(statement), False
            if ended is not None or is_through:
                return ended
        return None

    def _either_of(
        self, node: ast.stmt, test: Value, blocks: Sequence[_Block], rest: Sequence[ast.stmt], is_body: bool
    ) -> tuple[_Ended | None, bool]:
        """How a condition ends its block, and whether the rest of the block has been read with it."""
        at, guards, start, attributes = Place(self.file, node), self.guards, dict(self.env), dict(self.run.attributes)
        outcomes = []
        for kind, block in zip(("if", "else"), blocks, strict=True):
            self.env, self.run.attributes = dict(start), dict(attributes)
            self.guards = (*guards, Guard(kind, test, at))
            outcomes.append((block(), self.env, self.run.attributes))
        self.guards = guards
        (yes, yes_env, yes_attributes), (no, no_env, no_attributes) = outcomes
        if yes is None and no is None:
            self.env = joined(self.graph, test, yes_env, no_env)
            self.run.attributes = joined(self.graph, test, yes_attributes, no_attributes)
            return None, False
        if yes is not None and no is not None:
            return _Ended(self._either(test, yes.value, no.value, at)), True
        ended = yes if yes is not None else no
        assert ended is not None
        self.env, self.run.attributes = (no_env, no_attributes) if yes is not None else (yes_env, yes_attributes)
        if ended.value is not None:
            self.guards = (*guards, Guard("else" if yes is not None else "if", test, at))
        later = self.block(rest, is_body=is_body)
        self.guards = guards
        if ended.value is None:  # raise, break, continue: what goes on is what counts
            return later, True
        if self.scope.parent is None or self.yielded:
            return later, True
        if later is None and not is_body:  # what comes behind the block goes on
            own = (*guards[self._within :], Guard("if" if yes is not None else "else", test, at))
            if any(guard.kind in ("for", "while", "except") for guard in own):
                self.returned.append(ended.value)
            else:
                self.early.append((all_of(self.graph, own), ended.value))
            return None, True
        other = later.value if later is not None else self.graph.const(None)
        pair = (ended.value, other) if yes is not None else (other, ended.value)
        return _Ended(self._either(test, pair[0], pair[1], at)), True

    def _either(self, test: Value, yes: Value | None, no: Value | None, at: Place) -> Value | None:
        return choice(self.graph, test, yes, no, at) if yes is not None and no is not None else yes or no

    def _statement(self, node: ast.stmt) -> _Ended | None:
        match node:
            case ast.Assign():
                value = self.expr(node.value)
                for target in node.targets:
                    self.bind(target, value)
            case ast.AnnAssign() if node.value is not None:
                self.bind(node.target, self.expr(node.value))
            case ast.AugAssign():
                augmented(self, node)
            case ast.Expr(value=alone) | ast.Assert(test=alone):
                self.expr(alone)
            case ast.Return():
                return _Ended(self.expr(node.value) if node.value is not None else self.graph.const(None))
            case ast.Raise() | ast.Break() | ast.Continue():
                return _Ended(None)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.env[node.name] = decorated(self, node)
            case ast.ClassDef():
                self.env[node.name] = self.graph.value("class", data=(self.file.path, node), at=Place(self.file, node))
            case ast.Import() | ast.ImportFrom():
                self.env.update(imported(self, node))
            case ast.For() | ast.AsyncFor() | ast.While():
                start, every = dict(self.env), set_by_name(self, node)
                for each in every:
                    self.bind(node.target, each)  # type: ignore[union-attr]
                    self.block(node.body)
                    self.env = dict(start)
                if not every:
                    self._loop(node)
            case ast.With() | ast.AsyncWith():
                return self._with(node)
            case ast.Try() | ast.TryStar():
                return self._try(node)
            case ast.Delete():
                self.env |= {each.id: self.graph.value("unset") for each in node.targets if isinstance(each, ast.Name)}
        return None

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        at, graph, start = Place(self.file, node), self.graph, dict(self.env)
        source = None if isinstance(node, ast.While) else self.expr(node.iter)
        nodes = (each for statement in node.body for each in walk(statement) if isinstance(each, ast.Name))
        names, attributes = {n.id for n in nodes if not isinstance(n.ctx, ast.Load)}, dict(self.run.attributes)
        effects, writes, guards = len(self.run.reading.effects), len(self.run.reading.writes), self.guards
        more, keys = self.run.loops.get(node, (set(), set()))  # what an earlier look at this loop saw to change
        names |= more & start.keys()
        self.run.attributes |= {key: graph.opaque("set in a loop", at) for key in keys}
        for turn in range(2):
            carried = names & start.keys()
            self.env = start | {n: graph.value("carried", {"start": start[n]}, (node, n), at) for n in carried}
            if source is not None and not isinstance(node, ast.While):
                self.bind(node.target, item_of(graph, source, node, at))
            test = self.expr(node.test) if isinstance(node, ast.While) else source
            assert test is not None
            self.guards = (*guards, Guard("while" if source is None else "for", test, at))
            ended = self.block(node.body)
            self.guards = guards
            changed = {n for n in start.keys() - names if self.env.get(n) is not start[n]}
            written = {key for key, value in self.run.attributes.items() if attributes.get(key) is not value} - keys
            if turn or not (changed or written):
                break
            self.run.loops[node] = more | changed, keys | written
            names |= changed  # in place: what they are in the first turn is not what they are in the next
            del self.run.reading.effects[effects:]
            del self.run.reading.writes[writes:]
            self.run.attributes = attributes | {key: graph.opaque("set in a loop", at) for key in written}
        self._keep(ended)
        breaks = any(isinstance(each, (ast.Break, ast.Continue)) for each in walk(node))
        if not breaks:
            self.run.reading.loops[node] = Loop(source, test, dict(self.env))
        for name in names & self.env.keys():
            last = {"start": start[name]} if name in start else {}
            after = graph.value("after", {**last, "last": self.env[name]}, (node, name), at)
            self.env[name] = graph.opaque("what a loop leaves that breaks", at) if breaks else after
        self._keep(self.block(node.orelse))

    def _keep(self, ended: _Ended | None) -> None:
        """Remember what is returned on a way that may not be taken."""
        if ended is not None and ended.value is not None:
            self.returned.append(ended.value)

    def _with(self, node: ast.With | ast.AsyncWith) -> _Ended | None:
        guards, start, swallows = self.guards, dict(self.env), None
        for item in node.items:
            value = self.expr(item.context_expr)
            if value.op == "call" and value["func"].data == "contextlib.suppress":
                swallows = value
            self.guards = (*self.guards, Guard("with", value, Place(self.file, node)))
            if item.optional_vars is not None:
                self.bind(item.optional_vars, self.graph.value("enter", {"of": value}))
        ended = self.block(node.body)
        self.guards = guards
        self.env = self.env if swallows is None else joined(self.graph, swallows, self.env, start)
        return ended

    def _try(self, node: ast.Try | ast.TryStar) -> _Ended | None:
        start = dict(self.env)
        ended = self.block([*node.body, *node.orelse])
        after = self.env
        is_import = all(isinstance(each, (ast.Import, ast.ImportFrom)) for each in node.body)
        for handler in node.handlers:
            failed = self.graph.unique("raised", at=Place(self.file, handler))
            self.env = {**start, handler.name: failed} if handler.name else dict(start)
            guards, self.guards = self.guards, (*self.guards, Guard("except", failed, Place(self.file, handler)))
            handled = self.block(handler.body)
            self.guards = guards
            self._keep(handled)
            if handled is None and not is_import:
                after = joined(self.graph, failed, self.env, after)
        self.env = after
        return self.block(node.finalbody) or ended

    def _match(
        self, node: ast.Match, subject: Value, cases: Sequence[ast.match_case], rest: Sequence[ast.stmt], is_body: bool
    ) -> tuple[_Ended | None, bool]:
        """Cases as conditions: the first, or else those behind it."""
        if not cases:
            return None, False
        case, test = cases[0], matched(self, subject, cases[0])
        if test.is_const(True):
            return self.block(case.body), False
        blocks = [lambda: self.block(case.body), lambda: self._match(node, subject, cases[1:], (), is_body=False)[0]]
        return self._either_of(node, test, blocks, rest, is_body)

    def bind(self, target: ast.expr, value: Value) -> None:
        """Let a target stand for a value."""
        match target:
            case ast.Name():
                self._bind_name(target, value)
            case ast.Tuple() | ast.List():
                self._unpack(target.elts, value)
            case ast.Starred():
                self.bind(target.value, value)
            case ast.Attribute():
                owner = self.expr(target.value)
                self.run.attributes[owner.key, target.attr] = value
                made = self.graph.value("setattr", {"of": owner, "value": value}, target.attr)
                self.effect("setattr", made, target)
            case ast.Subscript():
                base = self.expr(target.value)
                args = {"input": base, **indices(self, target.slice), "value": value}
                made = self.graph.value("setitem", args, at=Place(self.file, target))
                self.effect("setitem", made, target)
                if base.op in MAPPINGS:
                    self.run.attributes[base.key, PUT] = value
                self.changed(base, made)

    def _bind_name(self, target: ast.Name, value: Value) -> None:
        frame: Frame = self
        if target.id in self.scope.elsewhere or target.id not in self.scope.bound:
            owner = self.scope.owner(target.id)
            while frame.scope is not owner and frame.outer is not None:
                frame = frame.outer
        if frame is not self and not isinstance(self.scope.node, _COMPREHENSIONS):
            self.effect("setglobal", value, target)
        frame.env[target.id] = value
        self._note(target, value)

    def _unpack(self, targets: Sequence[ast.expr], value: Value) -> None:
        value = self.code.resolved(value)
        if any(isinstance(each, ast.Starred) for each in targets):
            parts = [self.graph.opaque("a part of what is unpacked", Place(self.file, each)) for each in targets]
        elif value.op == "shape":
            self.graph.ranks[value["input"].key] = len(targets)
            parts = [
                size_of(self.graph, value["input"], self.graph.const(place), Place(self.file, each))
                for place, each in enumerate(targets)
            ]
        else:
            parts = [self._part(value, place, len(targets), each) for place, each in enumerate(targets)]
        for each, part in zip(targets, parts, strict=True):
            self.bind(each, part)

    def _part(self, value: Value, place: int, count: int, target: ast.expr) -> Value:
        if value.op in ("tuple", "list", "yields") and len(value.args) == count:
            return value.items[place]
        if value.op == "phi":
            yes, no = (self._part(value[side], place, count, target) for side in ("yes", "no"))
            return choice(self.graph, value["test"], yes, no, value.at)
        return self.graph.value("part", {"of": value}, place, Place(self.file, target))

    def changed(self, old: Value, new: Value) -> None:
        """Let what stood for an object that was changed in place stand for what it is now.

        Views of it are not known any more, nor what it is itself a view of.
        """
        self.run.changes += 1
        self.run.reading.changed.append(old)
        if new.at is not None:
            self.run.reading.writes.append(Effect("write", new, new.at, self.guards, self.depth == 0, self.run.through))
        bases = old.bases(VIEWS)
        frames = {id(frame): frame for active in [*self.run.frames, self] for frame in active.with_outer()}
        for names in (*(frame.env for frame in frames.values()), self.run.attributes):
            for name, value in names.items():  # type: ignore[attr-defined]
                if value is old:
                    names[name] = new  # type: ignore[index]
                elif any(value is base or value.shows(base, VIEWS) for base in bases) or value.shows(old, VIEWS):
                    names[name] = self.graph.opaque("what was changed in place by way of a view", new.at)  # type: ignore[index]

    def with_outer(self) -> list[Frame]:
        """The scope and those around it, modules left out."""
        is_nested = self.outer is not None and self.outer.scope.parent is not None
        return [self, *(self.outer.with_outer() if is_nested and self.outer is not None else [])]

    def effect(self, kind: str, value: Value, node: ast.AST) -> None:
        """Note that something is done."""
        through = node if self.depth == 0 and isinstance(node, ast.Call) else self.run.through
        done = Effect(kind, value, Place(self.file, node), self.guards, self.depth == 0, through)
        self.run.reading.effects.append(done)

    def expr(self, node: ast.expr) -> Value:
        """The value of an expression."""
        return self._note(node, value_of(self, node))

    def call(self, callee: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
        """What a call returns."""
        return call(self, callee, placed, named, at)

    def _note(self, node: ast.AST, value: Value) -> Value:
        if self.depth == 0 and self.run.reading.file is self.file:
            self.run.reading.values[node] = value
        return value
