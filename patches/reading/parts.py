"""A file's top-level statements: each is parsed, walked and printed once, and only if something asks for it."""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property, lru_cache
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple

import libcst as cst
from libcst._nodes.internal import CodegenState

from ..files.nesting import parsed, require_shallow
from .bindings import Binding, bound_by

Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement

_LAYOUT = re.compile("whitespace|lines|par$|bracket$|brace$|comma|colon|^equal$|^dot$|^header$|^footer$")
_UNUSUAL = re.compile("[\0\ufeff\v\f\x1c-\x1e\x85\u2028\u2029]|\r(?!\n)|\\A(?:.*\n)?[^\n]*coding[:=]")
_LOOSE = re.compile(r"[ \t]|.*\\$")  # it belongs to a block, or goes on
_NOTHING = nullcontext()


class Style(NamedTuple):
    """How a file is laid out where a node does not say."""

    indent: str
    newline: str


class Part:
    """A top-level statement with the comments above it: its text, and its nodes once something asks for them.

    It does not know its file, so files that have a statement in common may share it.
    """

    def __init__(self, text: str, style: Style, name: str = "", statement: Statement | None = None) -> None:
        self.text = text
        self.name = name if ":=" not in text else ""  # of a definition that binds nothing else at the file's top
        self.texts: dict[cst.CSTNode, str] = {}  # of nodes in it
        self.is_printed = False  # whether the text is one that LibCST printed
        self._style = style
        if statement is not None:
            self.statement = statement

    @cached_property
    def statement(self) -> Statement:
        require_shallow(self.text)
        module = cst.parse_module(self.text)
        if (module.default_indent, module.default_newline) != self._style:
            indent, newline = self._style
            first_lines = f"if 0:{newline}{indent}0{newline}0{newline}"  # they say the file's style
            return cst.parse_module(first_lines + self.text).body[2]
        statement = module.body[0]
        return statement.with_changes(leading_lines=module.header) if module.header else statement

    @cached_property
    def index(self) -> Index:
        return Index(self.statement)

    @cached_property
    def bound(self) -> Mapping[str, list[Binding]]:
        return bound_by(self)

    @cached_property
    def printed(self) -> Printed:
        return Printed(self.statement, self._style)

    @cached_property
    def spans(self) -> Spans:
        return Spans(self.statement, self._style)

    def walk(self, kind: type[cst.CSTNode], inside: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """All nodes of a kind inside one node, in source order."""
        ranks, (first, end) = self.index.ranks(kind), self.index.span(inside)
        for place in range(bisect_left(ranks, first), bisect_left(ranks, end)):
            yield self.index.nodes[ranks[place]]


@lru_cache(maxsize=2048)
def part_of(text: str, style: Style, name: str) -> Part:
    """The part of a text: the same one in every file that has it."""
    return Part(text, style, name)


class Index:
    """The nodes of a statement in a depth-first walk: who comes when, and who encloses whom."""

    def __init__(self, statement: cst.CSTNode) -> None:
        self.nodes: list[cst.CSTNode] = []
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}
        self._order: dict[int, int] = {}  # by identity: a node's own hash is slow
        self._ends: list[int] = []  # by rank
        self._ranks: dict[type[cst.CSTNode], list[int]] = {}
        self._add(statement)
        self._kinds = dict(self._ranks)

    def _add(self, node: cst.CSTNode) -> None:
        rank = self._order[id(node)] = len(self.nodes)
        self.nodes.append(node)
        self._ends.append(rank + 1)
        self._ranks.setdefault(type(node), []).append(rank)
        for child in children_of(node):
            self.parents[child] = node
            self._add(child)
        self._ends[rank] = len(self.nodes)

    def rank(self, node: cst.CSTNode) -> int:
        """When a node comes in the walk."""
        return self._order[id(node)]

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """The ranks of a node and all that is in it: from the first to before the second."""
        rank = self.rank(node)
        return rank, self._ends[rank]

    def ranks(self, kind: type[cst.CSTNode]) -> list[int]:
        """The ranks of all nodes of a kind."""
        if kind not in self._kinds:
            own = [ranks for found, ranks in self._ranks.items() if _is_kind(found, kind)]
            self._kinds[kind] = sorted(rank for ranks in own for rank in ranks)
        return self._kinds[kind]


class Printed(CodegenState):
    """A statement's text, and where each node starts in it."""

    def __init__(self, statement: cst.CSTNode, style: Style) -> None:
        super().__init__(style.indent, style.newline)
        self._starts: dict[int, int] = {}  # by identity: where a node's own text starts, among the tokens
        statement._codegen(self)
        self.text = "".join(self.tokens)

    def before_codegen(self, node: cst.CSTNode) -> None:
        self._starts[id(node)] = len(self.tokens)

    def record_syntactic_position(self, node: cst.CSTNode, **_: Any) -> AbstractContextManager[None]:  # type: ignore[override]
        self._starts[id(node)] = len(self.tokens)  # behind the comments and the indent that belong to the node
        return _NOTHING

    def before(self, node: cst.CSTNode) -> str:
        """The text in front of a node."""
        return "".join(self.tokens[: self._starts[id(node)]])


class Spans(CodegenState):
    """Where in a statement's text each node starts and ends, as Python's own parser counts it."""

    def __init__(self, statement: cst.CSTNode, style: Style) -> None:
        super().__init__(style.indent, style.newline)
        self._tokens: dict[tuple[int, int], list[cst.CSTNode]] = {}
        self._opened: list[int] = []  # where the nodes that are being written began
        statement._codegen(self)
        offsets = [0, *accumulate(map(len, self.tokens))]
        self._nodes: dict[tuple[int, int], list[cst.CSTNode]] = {}
        for (start, end), nodes in self._tokens.items():
            self._nodes.setdefault((offsets[start], offsets[end]), []).extend(nodes)
        self._starts = {start: nodes for (start, _), nodes in sorted(self._nodes.items())}  # the outermost stay

    @contextmanager
    def record_syntactic_position(self, node: cst.CSTNode, **_: Any) -> Iterator[None]:
        start = len(self.tokens)
        yield
        self._tokens.setdefault((start, len(self.tokens)), []).append(node)

    def before_codegen(self, *_: Any) -> None:
        self._opened.append(len(self.tokens))

    def after_codegen(self, node: cst.CSTNode) -> None:
        start = self._opened.pop()
        if isinstance(node, cst.Tuple) and len(node.lpar) == 1:  # whose brackets are its own
            self._tokens.setdefault((start, len(self.tokens)), []).append(node)

    def nodes(self, start: int, end: int) -> list[cst.CSTNode]:
        """The nodes of this span, the innermost first, behind those that it has brackets around."""
        return [*self._nodes.get((start + 1, end - 1), []), *self._nodes.get((start, end), [])]

    def starting(self, start: int) -> list[cst.CSTNode]:
        """The nodes of the longest span that starts here."""
        return self._starts.get(start, [])


def walked(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A node and all that is in it, in source order."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children_of(node)))


def children_of(node: cst.CSTNode) -> list[cst.CSTNode]:
    """A node's children in source order, without layout: whitespace, comments, brackets, commas."""
    children: list[cst.CSTNode] = []
    for value in _values(type(node))(node):
        kind = type(value)
        if _is_node(kind):  # type: ignore[arg-type]
            children.append(value)
        elif value and (kind is tuple or kind is list):
            children += [item for item in value if _is_node(type(item))]  # type: ignore[arg-type]
    return children


@cache
def _is_node(kind: type) -> bool:
    return issubclass(kind, cst.CSTNode)  # an abstract class: to ask each value would take longer than all else


@cache
def _is_kind(found: type[cst.CSTNode], kind: type[cst.CSTNode]) -> bool:
    return issubclass(found, kind)


@cache
def _values(kind: type[cst.CSTNode]) -> Any:
    """What takes a node's fields from it, but for those of its layout."""
    fields = kind.__dataclass_fields__.values()
    names = [field.name for field in fields if field.type not in (str, "str") and not _LAYOUT.search(field.name)]
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda node: (getattr(node, names[0]),)) if names else (lambda _: ())


class File:
    """A file's parts, and a module without them: what stands around them."""

    def __init__(self, module: cst.Module, parts: Sequence[Part]) -> None:
        self.module = module.with_changes(body=())
        self.style = Style(module.default_indent, module.default_newline)
        self.header, self.footer = (
            "".join(map(module.code_for_node, lines)) for lines in (module.header, module.footer)
        )
        twice = {part for part, count in Counter(parts).items() if count > 1}
        self.parts = [Part(part.text, self.style, part.name) if part in twice else part for part in parts]

    def part(self, statement: cst.CSTNode) -> Part:
        """The part that a statement prints."""
        part = part_of(Printed(statement, self.style).text, self.style, name_of(statement))
        part.is_printed = True
        return part

    def bytes(self, texts: Iterable[str]) -> bytes:
        """The file, with a text for each part."""
        text = "".join((self.header, *texts, self.footer))
        text = text if self.module.has_trailing_newline else text.removesuffix(self.style.newline)
        return text.encode(self.module.encoding)


def whole(module: cst.Module) -> File:
    """The parts of a parsed file."""
    style = Style(module.default_indent, module.default_newline)
    parts = [Part(Printed(each, style).text, style, name_of(each), each) for each in module.body]
    return File(module, parts)


def cut(raw: bytes) -> File | None:
    """The parts of a file, cut by Python's own parser; None where LibCST may see it in another way."""
    try:
        text = raw.decode()
        statements = [] if _UNUSUAL.search(text) else parsed(text).body
    except (SyntaxError, ValueError):
        return None
    first_newline = re.search("\r?\n", text)
    newline, is_ended = first_newline[0] if first_newline else "\n", text.endswith("\n")
    lines = (text if is_ended else text + newline).splitlines(keepends=True)
    indent = _first_indent(statements, lines)
    if not statements or indent is None or not (is_ended or lines[-1].strip()):
        return None
    style = Style(indent, newline)
    parts: list[Part] = []
    header_end = end = _start(statements[0])
    loose: list[str] = []  # what stands between the statements
    for line in _lines_of(statements):
        loose += lines[end : line.start]
        chunk = "".join(lines[end if parts else line.start : line.end])
        parts.append(part_of(chunk, style, line.name))
        end = line.end
    header, footer = lines[:header_end], lines[end:]
    if any(_LOOSE.match(line) for line in (*header, *loose, *footer)):
        return None
    shell = cst.parse_module("".join([*header, f"0{newline}", *footer]))
    around = {"default_indent": indent, "default_newline": newline, "has_trailing_newline": is_ended}
    return File(shell.with_changes(**around), parts)


class _Lines(NamedTuple):
    """The lines start..end of a top-level statement, counted from 0, and its name if it is a definition."""

    start: int
    end: int
    name: str


def _lines_of(statements: Sequence[ast.stmt]) -> list[_Lines]:
    found: list[_Lines] = []
    for statement in statements:
        start, end = _start(statement), statement.end_lineno or 0
        if found and start < found[-1].end:  # `a; b`
            found[-1] = _Lines(found[-1].start, end, "")
        else:
            is_definition = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            found.append(_Lines(start, end, getattr(statement, "name", "") if is_definition else ""))
    return found


def _start(statement: ast.stmt) -> int:
    every: list[ast.stmt | ast.expr] = [statement, *getattr(statement, "decorator_list", ())]
    return min(node.lineno for node in every) - 1


def _first_indent(statements: Sequence[ast.stmt], lines: Sequence[str]) -> str | None:
    """What LibCST takes for a file's indent; None where that is not plain to see."""
    for statement in statements:
        if isinstance(statement, ast.Match):
            return None
        for inner in getattr(statement, "body", ())[:1]:
            before = lines[inner.lineno - 1][: inner.col_offset]
            return None if before.strip() else before
    return " " * 4


def name_of(statement: cst.CSTNode) -> str:
    """The name of a function or class; nothing for other statements."""
    return statement.name.value if isinstance(statement, (cst.FunctionDef, cst.ClassDef)) else ""
