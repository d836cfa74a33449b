"""Change a class: its attributes and methods, and how a file spells what it imports from other files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import libcst as cst

from .edits import expression, insert_after, insert_before, insert_item, parse_statement
from .imports import TakenError, import_edits
from .matchers import elements
from .names import dotted
from .source import Source
from .task import Edit, Finding, mend, mended, near_miss
from .tree import SourceTree


def shipped(tree: SourceTree, having: bytes) -> Iterator[Source]:
    """The parsed files of a tree in which a pattern is found, without those of its tests."""
    for source in tree.files(having):
        *folders, name = source.path.split("/")
        if not {"test", "tests"} & set(folders) and not name.startswith(("test_", "conftest")):
            yield source


def methods(own: cst.ClassDef) -> Iterator[cst.FunctionDef]:
    """The methods that a class defines."""
    yield from (statement for statement in own.body.body if isinstance(statement, cst.FunctionDef))


def method_of(source: Source, node: cst.CSTNode) -> cst.FunctionDef | None:
    """The method that a node stands in, at any depth."""
    functions = [each for each in source.ancestors(node) if isinstance(each, cst.FunctionDef)]
    return next((each for each in functions if isinstance(_around(source, each), cst.ClassDef)), None)


def _around(source: Source, statement: cst.CSTNode) -> cst.CSTNode | None:
    """The compound statement in whose block a statement stands."""
    block = source.parents[statement]
    return source.parents.get(block)


def parameters(function: cst.FunctionDef) -> list[cst.Param]:
    """The named parameters of a function, in their order."""
    every = function.params
    return [*every.posonly_params, *every.params, *every.kwonly_params]


def attribute(source: Source, node: cst.CSTNode | None) -> str:
    """X of `self.x` in a method, whatever its self is called; nothing for other expressions."""
    if not isinstance(node, cst.Attribute) or not isinstance(node.value, cst.Name):
        return ""
    method = method_of(source, node)
    first = parameters(method)[:1] if method is not None else []
    return node.attr.value if first and first[0].name.value == node.value.value else ""


def assignments(
    source: Source, inside: cst.CSTNode
) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression | None, cst.CSTNode]]:
    """Target, value and statement of each assignment; the parts of a tuple by themselves, their value where known."""
    for node in source.walk(cst.CSTNode, inside):  # type: ignore[type-abstract]
        if isinstance(node, cst.Assign):
            for each in node.targets:
                yield from ((*pair, node) for pair in _pairs(each.target, node.value))
        elif isinstance(node, (cst.AnnAssign, cst.AugAssign)):
            yield node.target, node.value, node


def _pairs(
    target: cst.BaseExpression, value: cst.BaseExpression | None
) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression | None]]:
    parts, values = elements(target), elements(value)
    if not parts:
        yield target, value
    for index, part in enumerate(parts):
        yield from _pairs(part, values[index] if len(values) == len(parts) else None)


def set_from_parameters(source: Source, own: cst.ClassDef) -> dict[str, cst.CSTNode]:
    """The attributes that __init__ sets from its parameters, and where."""
    found: dict[str, cst.CSTNode] = {}
    for start in (method for method in methods(own) if method.name.value == "__init__"):
        given = {param.name.value for param in parameters(start)}
        for target, value, node in assignments(source, start):
            used = {use.value for use in source.uses(value)} if value is not None else set()
            if attribute(source, target) and used & given:
                found.setdefault(attribute(source, target), node)
    return found


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


def more_entries(source: Source, display: cst.Dict | cst.Call, names: Sequence[str]) -> Edit:
    """Add attributes of self to a dictionary of them: `{"a": self.a}` or `dict(a=self.a)`."""
    method = method_of(source, display)
    assert method is not None
    own, quote = parameters(method)[0].name.value, '"' if '"' in source.code(display) else "'"
    keyed = [f"{quote}{name}{quote}: {own}.{name}" for name in names]
    named = [f"{name}={own}.{name}" for name in names]

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        if isinstance(updated, cst.Call):
            args, new = list(updated.args), expression(source, f"dict({', '.join(named)})")
            for arg in new.args:  # type: ignore[attr-defined]
                args = insert_item(args, len(args), arg, enclosed=updated.whitespace_before_args)
            return updated.with_changes(args=args)
        assert isinstance(updated, cst.Dict)
        entries, new = list(updated.elements), expression(source, f"{{{', '.join(keyed)}}}")
        for entry in new.elements:  # type: ignore[attr-defined]
            entries = insert_item(entries, len(entries), entry, enclosed=updated.lbrace.whitespace_after)
        return updated.with_changes(elements=entries)

    return Edit(source, display, change)


def class_of(given: Source, name: str) -> cst.ClassDef:
    """A class of reference/."""
    return next(own for own in given.walk(cst.ClassDef, having=(f"class {name}",)) if own.name.value == name)


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


def seen_from(tree: SourceTree, target: Source, given: Source, module: str, path: str) -> Source:
    """A file of reference/ that imports a module of the package from a file of the tree, as the target spells it."""
    spelled = _spelling(tree, target, path)
    text = given.raw.decode().replace(f"from bit_transformer.{module} import", f"from {spelled} import")
    if spelled.startswith("."):
        text = re.sub(r"(?<=^from )bit_transformer\.", spelled[: -len(spelled.lstrip("."))], text, flags=re.MULTILINE)
    return given if text.encode() == given.raw else _respelled(given.path, text)


@cache
def _respelled(path: str, text: str) -> Source:
    return Source(path, text.encode())


def _spelling(tree: SourceTree, target: Source, path: str) -> str:
    """The module of a file, as a target imports from it, or would."""
    folder, stem = os.path.dirname(target.path), os.path.basename(path).removesuffix(".py")
    for node in target.walk(cst.ImportFrom, having=("import",)):
        module = "." * len(node.relative) + (dotted(node.module) if node.module is not None else "")
        if path in _files(folder, module):
            return module
    is_package = f"{folder}/__init__.py" in tree.paths
    inside = folder and folder == os.path.dirname(path)
    if inside and (is_package or any(node.relative for node in target.walk(cst.ImportFrom, having=("import",)))):
        return f".{stem}"
    return path.removesuffix(".py").replace("/", ".")


def _files(folder: str, module: str) -> list[str]:
    """The files that a module, imported from in a folder, may be."""
    name = module.lstrip(".")
    level = len(module) - len(name)
    parts = folder.split("/") if folder else []
    relative = parts[: len(parts) - level + 1] if level else []
    bases = [relative] if level else [[], parts]
    return ["/".join([*base, *name.split(".")]) + ".py" for base in bases]


def without_imports(source: Source, names: set[str]) -> Iterator[Edit]:
    """Drop names from the import statements that bring them, and statements that bring nothing any more."""
    for line in source.walk(cst.SimpleStatementLine, having=("import",)):
        imported = [n for node in line.body if isinstance(node, cst.ImportFrom) for n in _aliases(node)]
        if names & set(imported):
            yield Edit(source, line, _without(names))


def _aliases(node: cst.ImportFrom) -> list[str]:
    names = node.names if not isinstance(node.names, cst.ImportStar) else ()
    return [alias.evaluated_alias or alias.evaluated_name for alias in names]


def _without(names: set[str]) -> Callable[[cst.CSTNode], cst.CSTNode | cst.RemovalSentinel]:
    def change(updated: cst.CSTNode) -> cst.CSTNode | cst.RemovalSentinel:
        assert isinstance(updated, cst.SimpleStatementLine)
        body = []
        for node in updated.body:
            if not isinstance(node, cst.ImportFrom) or not names & set(_aliases(node)):
                body.append(node)
                continue
            aliases = list(node.names)  # type: ignore[arg-type]
            kept = [alias for alias in aliases if (alias.evaluated_alias or alias.evaluated_name) not in names]
            if kept:
                last = aliases[-1]
                comma = kept[-1].comma if kept[-1] is last else last.comma
                body.append(node.with_changes(names=[*kept[:-1], kept[-1].with_changes(comma=comma)]))
        return updated.with_changes(body=body) if body else cst.RemoveFromParent()

    return change
