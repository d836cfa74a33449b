"""Read a tree's files: bytes to LibCST and back, who encloses whom, and what a name stands for."""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

import libcst as cst

from ..files.encodings import decoded
from ..files.nesting import TooDeep, parsed, require_shallow
from ..files.positions import in_origin, lines_of
from ..task import Site, Unparsable
from .bindings import Names
from .parts import File, Part, Statement, cut, whole

Node = TypeVar("Node", bound=cst.CSTNode)


class Source:
    """One file of a tree, parsed as far as it is looked at; `path` is relative to the tree, with forward slashes."""

    def __init__(self, path: str, raw: bytes, file: File | None = None, origin: bytes | None = None) -> None:
        self.path = path
        self.raw = raw
        self.origin = raw if origin is None else origin  # as the user has it: places are told in these bytes
        self._file = file or cut(raw) or whole(_parse(path, raw))
        self.parts = self._file.parts
        self.module = self._file.module.with_changes(body=_Body(self))
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}  # each node's parent, of the parts that were opened
        self.order = _Order(self)
        self.places = {part: place for place, part in enumerate(self.parts)}
        self._opened: dict[cst.CSTNode, Part] = {}  # by their statements
        self._closed = set(self.parts)
        self._printed: dict[cst.CSTNode, Part] = {}  # of statements that are to be in its place

    def opened(self, part: Part) -> Part:
        """A part of this file, its nodes ready to be looked at."""
        if part in self._closed:
            try:
                self.parents.update(part.index.parents)
            except TooDeep as deep:
                raise self._too_deep(part, deep) from None
            except cst.ParserSyntaxError:
                _parse(self.path, self.raw)  # to say where it is
                raise
            self.parents[part.statement] = self.module
            self._opened[part.statement] = part
            self._closed.remove(part)
        return part

    def _too_deep(self, part: Part, deep: TooDeep) -> Unparsable:
        above = lines_of(self._file.header + "".join(each.text for each in self.parts[: self.places[part]]))
        return _unparsable(self.path, *self._in_origin(len(above) + deep.line - 1, deep.column), str(deep))

    def part(self, node: cst.CSTNode) -> Part:
        """The part that a node stands in."""
        while (parent := self.parents[node]) is not self.module:
            node = parent
        return self._opened[node]

    def require_faithful(self, touched: Iterable[Part] | None = None) -> None:
        """Raise Unparsable unless LibCST reproduces byte for byte what of the file is to be changed: all, or parts.

        What LibCST has printed is not asked again.
        """
        asked = self.parts if touched is None else touched
        again = {self.opened(part): part.printed.text for part in asked if not part.is_printed}
        printed = self._file.bytes(again.get(part, part.text) for part in self.parts)
        if printed != self.raw:
            raise _unfaithful(self.path, self.raw, printed)

    def printed(self, statement: Part | Statement) -> Part:
        """The part that a statement prints."""
        if isinstance(statement, Part):
            return statement
        if statement not in self._printed:
            self._printed[statement] = self._file.part(statement)
        return self._printed[statement]

    def reprinted(self, body: Iterable[Part | Statement]) -> Source:
        """The file with other statements among its parts, each parsed again from what it prints."""
        parts = [self.printed(each) for each in body]
        file = File(self._file.module, parts)
        raw = file.bytes(part.text for part in parts)
        is_inside = parts[:1] + parts[-1:] == self.parts[:1] + self.parts[-1:]
        file_or_none = file if is_inside else None  # else comments above or below it may move
        return Source(self.path, raw, file_or_none, self.origin)

    def settled(self) -> Source:
        """The same file as one that the user has so: places are told in its own text."""
        own = copy(self)
        own.origin = self.raw
        return own

    @cached_property
    def names(self) -> Names:
        return Names(self)

    def walk(
        self, kind: type[Node], inside: cst.CSTNode | None = None, having: tuple[str, ...] | re.Pattern[str] = ()
    ) -> Iterator[Node]:
        """All nodes of a kind, in source order, in the file or inside one node.

        With `having`, statements are left out that cannot mean any of these words, or in which the pattern is not
        found, so that they need not be parsed.
        """
        if inside is not None and inside is not self.module:
            yield from self.part(inside).walk(kind, inside)  # type: ignore[misc]
            return
        for part in self._having(having) if having else self.parts:
            yield from self.opened(part).walk(kind, part.statement)  # type: ignore[misc]

    def _having(self, words: tuple[str, ...] | re.Pattern[str]) -> Sequence[Part]:
        """The parts whose text has a pattern, or one of some words or another name that the file's top gives one."""
        if isinstance(words, re.Pattern):
            return [part for part in self.parts if words.search(part.text)]
        known, own = {*words}, [part for part in self.parts if any(word in part.text for word in words)]
        while True:
            aliases = {name for part in own if not part.name for name in self.opened(part).bound} - known
            if not aliases:
                return own
            known |= aliases
            word = re.compile(rf"\b(?:{'|'.join(aliases)})\b")
            own = [part for part in self.parts if part in own or word.search(part.text)]

    def loose_statements(self) -> Iterator[Statement]:
        """The statements at the file's top that are no definitions: imports, constants, conditions."""
        yield from (self.opened(part).statement for part in self.parts if not part.name)

    def uses(self, inside: cst.CSTNode | None = None) -> Iterator[cst.Name]:
        """The names that are looked up, in the file or inside one node: no attributes, no keywords of calls."""
        for name in self.walk(cst.Name, inside):
            parent = self.parents.get(name)
            is_label = (isinstance(parent, cst.Attribute) and name is parent.attr) or (
                isinstance(parent, cst.Arg) and name is parent.keyword
            )
            if not is_label:
                yield name

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Whatever encloses a node, from the inside out."""
        parent = self.parents.get(node)
        while parent is not None:
            yield parent
            parent = self.parents.get(parent)

    def enclosing(self, node: cst.CSTNode, *kinds: Any) -> Any:
        """The nearest ancestor of one of the kinds."""
        return next((each for each in self.ancestors(node) if isinstance(each, kinds)), None)

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement that holds a node: a line, or a compound statement."""
        if isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            return node
        found: cst.CSTNode = self.enclosing(node, cst.SimpleStatementLine, cst.BaseCompoundStatement)
        return found

    def code(self, node: cst.CSTNode) -> str:
        """The source text of a node, of this file or made for it."""
        if node not in self.parents:
            return self.module.code_for_node(node)
        texts = self.part(node).texts
        if node not in texts:
            texts[node] = self.module.code_for_node(node)
        return texts[node]

    def at(self, node: ast.expr | ast.stmt) -> cst.CSTNode:
        """The node of an expression or a statement that Python's parser read in this file."""
        lines = self._lines
        decorators = getattr(node, "decorator_list", ())
        first_line = min([node.lineno, *(each.lineno for each in decorators)])
        part = self.opened(self.parts[bisect_right(self._firsts, first_line) - 1])
        first = self._firsts[self.places[part]] - 1

        def offset(line: int, column: int) -> int:
            return sum(map(len, lines[first : line - 1])) + _characters(lines[line - 1], column)

        start, end = offset(node.lineno, node.col_offset), offset(node.end_lineno or 1, node.end_col_offset or 0)
        found = part.spans.nodes(start, end) if isinstance(node, ast.expr) else part.spans.starting(start)
        kind = (
            cst.BaseExpression if isinstance(node, ast.expr) else (cst.SimpleStatementLine, cst.BaseCompoundStatement)
        )
        for each in reversed(found):
            if isinstance(each, kind):
                return each
            if isinstance(node, ast.stmt) and isinstance(each, cst.BaseSmallStatement):  # one of several in a line
                return self.statement(each)
        raise LookupError(f"{self.path}:{node.lineno}: no node of its own")

    @cached_property
    def _lines(self) -> list[str]:
        """The lines of the file with their ends, as Python counts them."""
        text = self.raw.decode(self.module.encoding)
        return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", text)

    @cached_property
    def _firsts(self) -> list[int]:
        """The line, counted from 1, at which each part's text starts."""
        texts = (self._file.header, *(part.text for part in self.parts[:-1]))
        return list(accumulate((len(lines_of(text)) - 1 for text in texts), initial=1))[1:] if self.parts else []

    def site(self, node: cst.CSTNode | ast.expr | ast.stmt, note: str) -> Site:
        """Where a node starts, in the file as the user has it."""
        if isinstance(node, ast.AST):
            return Site(self.path, note, lambda: self._in_origin(node.lineno, self._column(node)))
        return Site(self.path, note, lambda: self._in_origin(*self._position(node)))

    def _column(self, node: ast.expr | ast.stmt) -> int:
        return _characters(self._lines[node.lineno - 1], node.col_offset) + 1

    def _in_origin(self, line: int, column: int) -> tuple[int, int]:
        if self.origin == self.raw:
            return line, column
        origin, text = (raw.decode(self.module.encoding, "replace") for raw in (self.origin, self.raw))
        return in_origin(origin, text, line, column)

    def _position(self, node: cst.CSTNode) -> tuple[int, int]:
        """Line and column of a node, 1-based."""
        if node is self.module:
            return 1, 1
        part = self.part(node)
        above = "".join(each.text for each in self.parts[: self.places[part]])
        before = lines_of(self._file.header + above + part.printed.before(node))
        return len(before), len(before[-1]) + 1


def _characters(line: str, offset: int) -> int:
    """How many characters the first bytes of a line make, as Python's parser counts them in UTF-8."""
    return len(line.encode()[:offset].decode())


class _Body(Sequence[Statement]):
    """The statements of a file, parsed one by one as they are asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source.parts)

    def __getitem__(self, place: Any) -> Any:
        parts = self._source.parts[place]
        return (
            [self._source.opened(part).statement for part in parts]
            if isinstance(place, slice)
            else self._source.opened(parts).statement
        )


class _Order(dict[cst.CSTNode, int]):
    """Each node's rank in a depth-first walk of a file, told when it is asked for."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, node: cst.CSTNode) -> int:
        part = self._source.part(node)
        rank = self[node] = (self._source.places[part] << 32) + part.index.rank(node)
        return rank


def _parse(path: str, raw: bytes) -> cst.Module:
    text, encoding = _decoded(path, raw)
    try:
        require_shallow(text)
        return cst.parse_module(text, cst.PartialParserConfig(encoding=encoding))
    except TooDeep as deep:
        raise _unparsable(path, deep.line, deep.column, str(deep)) from None
    except cst.ParserSyntaxError as error:
        where = _syntax_error(raw) or (error.raw_line, error.raw_column + 1, "it does not parse")
        raise _unparsable(path, *where) from None


def _decoded(path: str, raw: bytes) -> tuple[str, str]:
    """A file's text and the name of its encoding, as Python finds it; Unparsable where it does not survive that."""
    try:
        text, encoding = decoded(raw)
        if text.encode(encoding) == raw:
            return text, encoding
        line, reason = 1, f"its bytes are not what its encoding, {encoding}, makes of its text"
    except UnicodeDecodeError as error:
        line, reason = len(lines_of(raw[: error.start].decode("latin-1"))), str(error)
    except (UnicodeError, LookupError, ValueError) as error:
        line, reason = 1, str(error)
    raise Unparsable(
        f"{path}:{line}:1: expected UTF-8 or an encoding cookie (PEP 263), found bytes that are neither ({reason}); "
        "convert the file to UTF-8 or declare its encoding, then run the command again"
    )


def _unparsable(path: str, line: int, column: int, reason: str) -> Unparsable:
    return Unparsable(f"{path}:{line}:{column}: {reason}; mend the file, then run the command again")


def _unfaithful(path: str, raw: bytes, printed: bytes) -> Unparsable:
    pairs = enumerate(zip(raw.split(b"\n"), printed.split(b"\n"), strict=False), 1)
    line = next((number for number, (a, b) in pairs if a != b), 1)
    return Unparsable(
        f"{path}:{line}:1: LibCST does not reproduce this file byte for byte (a form feed, perhaps); "
        "bitpatch does not touch such a file: remove what is unusual on that line"
    )


def _syntax_error(raw: bytes) -> tuple[int, int, str] | None:
    try:
        parsed(raw)
    except SyntaxError as error:
        return error.lineno or 1, max(error.offset or 1, 1), f"syntax error: {error.msg}"
    except ValueError as error:  # a null byte
        return 1, 1, str(error)
    return None
