"""Change classes and displays: statements beside others, parameters, methods, entries and arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

import libcst as cst

from ..reading.source import Source
from ..task import Edit, Finding, mend, mended, near_miss
from .edits import expression, insert_after, insert_before, insert_item, parse_statement
from .imports import TakenError, import_edits


def methods(own: cst.ClassDef) -> Iterator[cst.FunctionDef]:
    """The methods that a class defines."""
    yield from (statement for statement in own.body.body if isinstance(statement, cst.FunctionDef))


def class_of(given: Source, name: str) -> cst.ClassDef:
    """A class of reference/."""
    return next(own for own in given.walk(cst.ClassDef, having=(f"class {name}",)) if own.name.value == name)


def node_of(source: Source, statement: ast.stmt) -> cst.CSTNode:
    """The node of a statement, by itself where it shares its line with others, or with the head of a block."""
    expressions = [each for each in ast.iter_child_nodes(statement) if isinstance(each, ast.expr)]
    is_small = isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return))
    if not is_small or not expressions:
        return source.at(statement)
    small: cst.CSTNode = source.enclosing(source.at(expressions[0]), cst.BaseSmallStatement)
    return small


def put_behind(source: Source, small: cst.CSTNode, *texts: str) -> Edit:
    """Put statements behind a simple one, or before its line where that ends in a jump."""
    return _put(source, small, texts, behind=True)


def put_before(source: Source, small: cst.CSTNode, *texts: str) -> Edit:
    """Put statements before a statement."""
    return _put(source, small, texts, behind=False)


def _put(source: Source, small: cst.CSTNode, texts: Sequence[str], *, behind: bool) -> Edit:
    line = source.parents[small]
    if not isinstance(line, cst.SimpleStatementSuite):
        statement = source.statement(small)
        jumps = isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[-1], (cst.Return, cst.Raise))
        return (insert_after if behind and not jumps else insert_before)(source, statement, *texts)
    place = next(index for index, node in enumerate(line.body) if node is small) + behind

    def change(updated: cst.CSTNode) -> cst.CSTNode:  # a suite on the line of its head becomes a block
        assert isinstance(updated, cst.SimpleStatementSuite)
        lines = [
            cst.SimpleStatementLine([each.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)]) for each in updated.body
        ]
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated.trailing_whitespace)
        new = [parse_statement(source, text) for text in texts]
        return cst.IndentedBlock([*lines[:place], *new, *lines[place:]])

    return Edit(source, line, change)


def more_parameters(source: Source, function: cst.FunctionDef, new: Sequence[cst.Param]) -> Edit:
    """Add parameters at the end, where no call by position changes its meaning."""
    every = function.params
    section = "kwonly_params" if every.kwonly_params or isinstance(every.star_arg, cst.Param) else "params"

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.FunctionDef)
        items = list(getattr(updated.params, section))
        for each in new:
            items = insert_item(items, len(items), each, enclosed=updated.whitespace_before_params)
        return updated.with_changes(params=updated.params.with_changes(**{section: items}))

    return Edit(source, function, change)


def more_entries(source: Source, display: cst.Dict | cst.Call, new: Mapping[str, str]) -> Edit:
    """Add entries to a dictionary, `{"a": self.a}` or `dict(a=self.a)`: the text of each value by its name."""
    if isinstance(display, cst.Call):
        return more_arguments(source, display, new)
    quote = '"' if '"' in source.code(display) else "'"
    added = expression(source, "{" + ", ".join(f"{quote}{name}{quote}: {text}" for name, text in new.items()) + "}")

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Dict)
        entries = list(updated.elements)
        for entry in added.elements:  # type: ignore[attr-defined]
            entries = insert_item(entries, len(entries), entry, enclosed=updated.lbrace.whitespace_after)
        return updated.with_changes(elements=entries)

    return Edit(source, display, change)


def more_arguments(source: Source, call: cst.Call, new: Mapping[str, str]) -> Edit:
    """Add arguments by name to a call."""
    added = expression(source, f"f({', '.join(f'{name}={text}' for name, text in new.items())})")

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        args = list(updated.args)
        for arg in added.args:  # type: ignore[attr-defined]
            args = insert_item(args, len(args), arg, enclosed=updated.whitespace_before_args)
        return updated.with_changes(args=args)

    return Edit(source, call, change)


def more_method(source: Source, anchor: cst.CSTNode, text: str) -> Edit:
    """Put a method behind another statement of a class."""
    new = parse_statement(source, text).with_changes(leading_lines=[cst.EmptyLine(indent=False)])
    return Edit(source, anchor, lambda updated: cst.FlattenSentinel([updated, new]))


def member(target: Source, own: cst.ClassDef, given: Source, theirs: cst.ClassDef, name: str) -> Finding:
    """Bring a method or property of a class of reference/ with the imports that it needs.

    It comes behind the nearest method before it in reference order that the class has, else at the
    class's end. A near miss where the name already means something else in the class.
    """
    ours = next(method for method in methods(theirs) if method.name.value == name)
    new = parse_statement(target, given.code(ours).strip())
    site = target.site(own.name, f"{name} of {own.name.value}")
    taken = _named(own, name)
    if taken is not None:
        same = isinstance(taken, cst.FunctionDef) and taken.with_changes(leading_lines=()).deep_equals(new)
        note = f"another {name} of {own.name.value}: rename it, or make it that of the reference"
        return mended(site) if same else near_miss(target.site(taken, note))
    if not isinstance(own.body, cst.IndentedBlock):
        return near_miss(target.site(own.name, f"class {own.name.value}, but all of it is on one line"))
    try:
        imports = list(import_edits(target, given, [ours]))
    except TakenError as error:
        return near_miss(error.site)
    earlier = [method.name.value for method in methods(theirs)]
    before = [method for method in methods(own) if method.name.value in earlier[: earlier.index(name)]]
    anchor = before[-1] if before else own.body.body[-1]
    new = new.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
    return mend(site, [*imports, Edit(target, anchor, lambda updated: cst.FlattenSentinel([updated, new]))])


def _named(own: cst.ClassDef, name: str) -> cst.CSTNode | None:
    """What gives a class an attribute of a name: a method, or an assignment in its body."""
    for statement in own.body.body:
        if isinstance(statement, (cst.FunctionDef, cst.ClassDef)) and statement.name.value == name:
            return statement
        for small in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
            targets = [each.target for each in small.targets] if isinstance(small, cst.Assign) else []
            targets += [small.target] if isinstance(small, cst.AnnAssign) else []
            if any(isinstance(target, cst.Name) and target.value == name for target in targets):
                return small
    return None
