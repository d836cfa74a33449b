"""Change a file: edits made from text, all of a file in one visit, and proof that what was printed was meant."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import libcst as cst

from ..files.positions import lines_of
from ..reading.parts import Part, Statement, walked
from ..reading.source import Source
from ..task import BitpatchError, Edit
from .comments import STATEMENTS, Comment, LostComment, comments_of, lost, put_above
from .ranks import place_of

Changed = cst.CSTNode | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNode]
Item = TypeVar("Item", cst.Arg, cst.Param, cst.ImportAlias)

BARE_EQUAL = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
_COMMENT = re.compile("#.*")  # or a text with that in it
_ATOMS = (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.BaseNumber, cst.BaseString)


def rewrite(source: Source, node: cst.BaseExpression, template: Callable[[str], str]) -> Edit:
    """Replace an expression by the text that the template makes of its own text."""

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        return expression(source, template(source.code(updated)))

    return Edit(source, node, change)


def insert_before(source: Source, statement: cst.CSTNode, *texts: str) -> Edit:
    """Put statements in front of one, among what other patches put there; blank lines above stay above them all."""
    statement = place_of(source, statement, texts[0])

    def change(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
        return cst.FlattenSentinel([*(parse_statement(source, text) for text in texts), updated])

    return Edit(source, statement, change)


def insert_after(source: Source, statement: cst.CSTNode, *texts: str) -> Edit:
    """Put statements right behind one."""

    def change(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
        return cst.FlattenSentinel([updated, *(parse_statement(source, text) for text in texts)])

    return Edit(source, statement, change)


def move_under(
    source: Source,
    heads: Sequence[str],
    statements: Sequence[cst.CSTNode],
    tail: Sequence[cst.CSTNode] = (),
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    behind: Sequence[str] = (),
) -> Iterator[Edit]:
    """Put neighbouring statements under compound statements, `if x:` say, and some from elsewhere at their end.

    Of several heads each stands under the one before; new statements may come `before` or `after` all others, or
    `behind` the block that it all stands in. Comments
    above the first statement stay above the heads; those of the tail do not move with it. Edits inside are made too.
    """
    first = statements[0]
    moved: list[cst.CSTNode] = [parse_statement(source, text) for text in before]
    ends: list[cst.CSTNode] = []
    opened = parse_statement(source, f"{heads[0]}\n    pass")

    def open_(updated: cst.CSTNode) -> cst.CSTNode:
        moved.append(updated.with_changes(leading_lines=()))
        return opened.with_changes(leading_lines=getattr(updated, "leading_lines", ()))

    def take(place: list[cst.CSTNode], updated: cst.CSTNode) -> cst.RemovalSentinel:
        place.append(updated)
        return cst.RemoveFromParent()

    def fill(block: cst.CSTNode) -> cst.CSTNode:
        body = [*moved, *(end.with_changes(leading_lines=()) for end in ends)]
        body += [parse_statement(source, text) for text in after]
        for head in reversed(heads[1:]):
            inner = parse_statement(source, f"{head}\n    pass")
            body = [inner.with_changes(body=inner.body.with_changes(body=body))]  # type: ignore[union-attr]
        filled = opened.body.with_changes(body=body)  # type: ignore[union-attr]
        lines = [s.with_changes(body=filled) if getattr(s, "body", 0) is opened.body else s for s in block.body]  # type: ignore
        return block.with_changes(body=[*lines, *(parse_statement(source, text) for text in behind)])

    yield Edit(source, first, open_)
    for statement in statements[1:]:
        yield Edit(source, statement, partial(take, moved))
    for statement in tail:
        yield Edit(source, statement, partial(take, ends))
    yield Edit(source, source.parents[first], fill)


def neighbours(
    target: Source, nodes: list[cst.CSTNode], behind: bool
) -> Callable[[cst.CSTNode], cst.FlattenSentinel[cst.CSTNode]]:
    """Put nodes of the reference in front of a node, or behind it, in the style of the target."""

    def change(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
        styled = [in_style_of(target, node) for node in nodes]
        return cst.FlattenSentinel([updated, *styled] if behind else [*styled, updated])

    return change


def in_style_of(target: Source, node: cst.CSTNode) -> cst.CSTNode:
    """Docstrings and continuation lines carry their newline and indent in their own text: take on the target's."""
    return node.visit(_Restyle(target.module.default_indent, target.module.default_newline))  # type: ignore[return-value]


class _Restyle(cst.CSTTransformer):
    def __init__(self, indent: str, newline: str) -> None:
        super().__init__()
        self._indent, self._newline = indent, newline

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        value = re.sub(r"(?<=\n)(?:    )+", lambda run: self._indented(run[0]), updated_node.value)
        return updated_node.with_changes(value=value.replace("\n", self._newline))

    def leave_ParenthesizedWhitespace(
        self, original_node: cst.ParenthesizedWhitespace, updated_node: cst.ParenthesizedWhitespace
    ) -> cst.ParenthesizedWhitespace:
        return updated_node.with_changes(last_line=cst.SimpleWhitespace(self._indented(updated_node.last_line.value)))

    def _indented(self, spaces: str) -> str:
        return self._indent * (len(spaces) // 4) + " " * (len(spaces) % 4)


def unwrap(source: Source, compound: cst.If) -> Edit:
    """Put the body of an `if` in its place; comments above it stay above."""

    def change(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
        assert isinstance(updated, cst.If)
        if isinstance(updated.body, cst.SimpleStatementSuite):
            lines = [cst.SimpleStatementLine(updated.body.body, trailing_whitespace=updated.body.trailing_whitespace)]
        else:
            lines = list(updated.body.body)  # type: ignore[arg-type]
        above = [*updated.leading_lines, *lines[0].leading_lines]
        return cst.FlattenSentinel([lines[0].with_changes(leading_lines=above), *lines[1:]])

    return Edit(source, compound, change)


def expression(source: Source, text: str) -> cst.BaseExpression:
    """Parse an expression, its further lines written with four spaces an indent, in the style of a file."""
    return cst.parse_expression(_in_style(source, text), config=source.module.config_for_parsing)


def parse_statement(source: Source, text: str) -> cst.SimpleStatementLine | cst.BaseCompoundStatement:
    """Parse a statement, written with four spaces an indent, in the style of a file."""
    return cst.parse_statement(_in_style(source, text), config=source.module.config_for_parsing)


def _in_style(source: Source, text: str) -> str:
    indent, newline = source.module.default_indent, source.module.default_newline
    text = re.sub(r"^(?:    )+", lambda run: indent * (len(run[0]) // 4), text, flags=re.MULTILINE)
    return text.replace("\n", newline)


def operand(source: Source, node: cst.CSTNode) -> str:
    """The text of an expression, in parentheses where it would not bind as one operand without."""
    text = source.code(node)
    return text if isinstance(node, _ATOMS) or getattr(node, "lpar", None) else f"({text})"


def insert_item(items: Sequence[Item], index: int, new: Item, *, enclosed: cst.CSTNode) -> list[Item]:
    """Insert into a comma-separated list in its own layout: in line, or one a line with or without a last comma.

    `enclosed` is the whitespace between the opening bracket and the first item.
    """
    items, new = list(items), new.with_changes(comma=cst.MaybeSentinel.DEFAULT)
    separator = _separator(items, enclosed)
    if index < len(items):
        items.insert(index, new.with_changes(comma=separator))
    elif not items:
        items = [new]
    elif isinstance(comma := items[-1].comma, cst.Comma):  # a last comma stays a last comma
        items[-1] = items[-1].with_changes(comma=_with_comment_of(separator, comma))
        items.append(new.with_changes(comma=_without_comment(comma)))
    else:
        spaces = [name for name in ("whitespace_after_arg", "whitespace_after_param") if hasattr(items[-1], name)]
        items.append(new.with_changes(**{name: getattr(items[-1], name) for name in spaces}))
        items[-2] = items[-2].with_changes(comma=separator, **{name: cst.SimpleWhitespace("") for name in spaces})
    return items


def _separator(items: Sequence[Any], enclosed: cst.CSTNode) -> cst.Comma:
    for item in items[:-1]:
        comma = item.comma
        if isinstance(comma, cst.Comma):
            return _without_comment(comma)
    if isinstance(enclosed, cst.ParenthesizedWhitespace):
        return cst.Comma(whitespace_after=enclosed.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[]))
    return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))


def _without_comment(comma: cst.Comma) -> cst.Comma:
    space = comma.whitespace_after
    if isinstance(space, cst.ParenthesizedWhitespace):
        space = space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
    return comma.with_changes(whitespace_after=space)


def _with_comment_of(comma: cst.Comma, other: cst.Comma) -> cst.Comma:
    space, mine = other.whitespace_after, comma.whitespace_after
    if isinstance(space, cst.ParenthesizedWhitespace) and isinstance(mine, cst.ParenthesizedWhitespace):
        mine = mine.with_changes(first_line=space.first_line, empty_lines=space.empty_lines)
    return comma.with_changes(whitespace_after=mine)


def apply_edits(source: Source, edits: Iterable[Edit]) -> Source:
    """Make all edits of one file in one visit, and return the file that is printed.

    Raises Unparsable if LibCST does not reproduce the file, and BitpatchError if the printed text does
    not parse back to the nodes that were meant.
    """
    editor = _Editor(source, edits)
    source.require_faithful(editor.parts)
    meant = list(_meant(source, editor))
    printed = source.reprinted(meant)
    if len(meant) != len(printed.parts) or any(map(_differs, meant, printed.parts)):
        raise BitpatchError(
            f"{source.path}:1: the edited file would not mean what was meant; nothing was written. Please report this"
        )
    return printed


def _meant(source: Source, editor: _Editor) -> Iterator[Part | Statement]:
    """The statements of the edited file, with all comments of the old one."""
    homeless: list[Comment] = []  # of a statement at the file's top that is gone
    for part in source.parts:
        results = editor.edited(part) if part in editor.parts else [part]
        gone = [replace(comment, statement=part.statement) for comment in homeless]
        if part in editor.parts and "#" in part.text:
            kept = "".join(source.printed(each).text for each in results)
            if Counter(_COMMENT.findall(part.text)) - Counter(_COMMENT.findall(kept)):
                gone += lost(comments_of(part.statement), map(_node, results))
        try:
            yield from put_above(part.statement, [*map(_node, results)], gone, editor.became) if gone else results  # type: ignore[misc]
            homeless = []
        except LostComment:
            homeless = gone
    if homeless:
        lines = lines_of(source.raw.decode(source.module.encoding))
        line = next(number for number, text in enumerate(lines, 1) if homeless[0].text in text)
        raise BitpatchError(
            f"{source.path}:{line}:1: the comment {homeless[0].text} would have no place any more: move it away from "
            "what is to be rewritten, then run the command again"
        )


def _node(statement: Part | Statement) -> Statement:
    return statement.statement if isinstance(statement, Part) else statement


class _Editor(cst.CSTTransformer):
    def __init__(self, source: Source, edits: Iterable[Edit]) -> None:
        super().__init__()
        self._edits: dict[cst.CSTNode, list[Edit]] = defaultdict(list)
        self._touched: set[cst.CSTNode] = {source.module}
        self.parts: set[Part] = set()
        self.became: dict[cst.CSTNode, cst.CSTNode | None] = {}  # what each statement with an edit in it is now
        for edit in edits:
            self._edits[edit.node].append(edit)
            self.parts.add(source.part(edit.node))
            node: cst.CSTNode | None = edit.node
            while node is not None and node not in self._touched:
                self._touched.add(node)
                node = source.parents.get(node)

    def edited(self, part: Part) -> list[Part | Statement]:
        """What becomes of a statement at the file's top: itself, nothing, or itself among others."""
        result = part.statement.visit(self)
        if isinstance(result, cst.RemovalSentinel):
            return []
        nodes = list(result) if isinstance(result, cst.FlattenSentinel) else [result]
        return [part if node is part.statement else node for node in nodes]  # type: ignore[misc]

    def on_visit(self, node: cst.CSTNode) -> bool:
        return node in self._touched

    def on_leave(self, original: cst.CSTNode, updated: cst.CSTNode) -> Changed:  # type: ignore[override]
        result = self._changed(original, updated)
        if original in self._touched and isinstance(original, STATEMENTS):
            nodes = [] if isinstance(result, cst.RemovalSentinel) else [result]
            nodes = list(result) if isinstance(result, cst.FlattenSentinel) else nodes
            block = "cases" if isinstance(updated, cst.Match) else "body"
            kinds = [each for each in nodes if isinstance(each, type(updated))]
            kinds = [each for each in kinds if getattr(each, block) is getattr(updated, block)]
            self.became[original] = next(iter([*kinds, *nodes]), None)  # type: ignore[assignment]
        return result

    def _changed(self, original: cst.CSTNode, updated: cst.CSTNode) -> Changed:
        if original not in self._edits:
            return updated
        before: list[cst.CSTNode] = []
        after: list[cst.CSTNode] = []
        for edit in self._edits[original]:
            result = edit.change(updated)
            if isinstance(result, cst.RemovalSentinel):
                return result if not before and not after else cst.FlattenSentinel([*before, *after])
            if isinstance(result, cst.FlattenSentinel):
                nodes = list(result)
                place = next((index for index, node in enumerate(nodes) if node is updated), None)
                if place is None:
                    return result
                before, after = [*before, *nodes[:place]], [*after, *nodes[place + 1 :]]
            else:
                updated = result
        return cst.FlattenSentinel(_blank_lines_first([*before, updated]) + after) if before or after else updated


def _blank_lines_first(nodes: list[cst.CSTNode]) -> list[cst.CSTNode]:
    """Give the blank lines above the last of some statements to the first, and leave its comments where they are."""
    first, last = nodes[0], nodes[-1]
    lines = list(getattr(last, "leading_lines", ()))
    blank = next((index for index, line in enumerate(lines) if line.comment is not None), len(lines))
    own = list(getattr(first, "leading_lines", ()))
    if first is last or not blank or any(line.comment is None for line in own):
        return nodes
    return [
        first.with_changes(leading_lines=[*lines[:blank], *own]),
        *nodes[1:-1],
        last.with_changes(leading_lines=lines[blank:]),
    ]


def _differs(meant: Part | Statement, printed: Part) -> bool:
    """Whether a statement that was parsed again is another program than the one that was meant."""
    if meant is printed:
        return False
    nodes = meant.index.nodes if isinstance(meant, Part) else walked(meant)
    return _skeleton(nodes) != _skeleton(printed.index.nodes)


def _skeleton(nodes: Iterable[cst.CSTNode]) -> list[tuple[type[cst.CSTNode], str]]:
    """Every node's kind and text, without layout: equal skeletons mean the same program."""
    values = ((type(node), getattr(node, "value", "")) for node in nodes)
    return [(kind, value if isinstance(value, str) else "") for kind, value in values]
