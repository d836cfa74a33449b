"""Keep the comments of what is rewritten: what an edit loses goes above the statement that it stood in.

If one comment inside of a statement is lost, all of them go up, in their order: so it is the same whichever of several
edits comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst

STATEMENTS = (cst.SimpleStatementLine, cst.BaseCompoundStatement)
_BLOCKS = {"body", "orelse", "handlers", "finalbody", "cases"}


class LostComment(Exception):
    """A comment that no statement is left to stand above."""

    def __init__(self, comment: Comment) -> None:
        super().__init__(comment.text)
        self.comment = comment


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, the statement that it belongs to, and whether it stands inside of that one's own expressions."""

    text: str
    statement: cst.CSTNode
    is_inside: bool


def comments_of(node: cst.CSTNode) -> list[Comment]:
    """All comments in a statement, in their order."""
    collector = _Collector()
    node.visit(collector)
    return collector.found


class _Collector(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Comment] = []
        self._statements: list[cst.CSTNode] = []
        self._attributes: list[tuple[cst.CSTNode, str]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, STATEMENTS):
            self._statements.append(node)
        elif isinstance(node, cst.Comment):
            own = self._statements[-1]
            part = next(name for each, name in self._attributes if each is own)
            outer = {"leading_lines", "lines_after_decorators", "trailing_whitespace"}
            outer |= _BLOCKS if isinstance(own, cst.BaseCompoundStatement) else set()
            self.found.append(Comment(node.value, own, part not in outer))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, STATEMENTS):
            self._statements.pop()

    def on_visit_attribute(self, node: cst.CSTNode, attribute: str) -> None:
        self._attributes.append((node, attribute))

    def on_leave_attribute(self, original_node: cst.CSTNode, attribute: str) -> None:
        self._attributes.pop()


def lost(before: Sequence[Comment], after: Iterable[cst.CSTNode]) -> list[Comment]:
    """The comments that are not in some statements any more, and what has to go up with them."""
    kept = Counter(comment.text for node in after for comment in comments_of(node))
    gone = set[int]()
    for place, comment in enumerate(before):
        kept[comment.text] -= 1
        if kept[comment.text] < 0:
            gone.add(place)
    torn = {id(before[place].statement) for place in gone if before[place].is_inside}
    return [
        comment
        for place, comment in enumerate(before)
        if place in gone or (comment.is_inside and id(comment.statement) in torn)
    ]


def put_above(
    statement: cst.CSTNode,
    results: Sequence[cst.CSTNode],
    comments: Sequence[Comment],
    became: Mapping[cst.CSTNode, cst.CSTNode | None],
) -> list[cst.CSTNode]:
    """Put comments above what has become of their statements, or of the nearest one that is left.

    `became` says what each changed statement is now; nothing for one that was taken out. Raises LostComment.
    """
    present = {id(node.body) for result in results for node in _statements(result)}  # type: ignore[attr-defined]
    plans: dict[int, list[Comment]] = {}
    for comment in comments:
        near = (became.get(each, each) for each in _nearest(statement, comment.statement))
        body = next((node.body for node in near if node is not None and id(node.body) in present), None)  # type: ignore[attr-defined]
        if body is None:
            raise LostComment(comment)
        plans.setdefault(id(body), []).append(comment)
    hoist = _Hoist(plans)
    return [result.visit(hoist) for result in results]  # type: ignore[misc]


def _statements(node: cst.CSTNode) -> list[cst.CSTNode]:
    found: list[cst.CSTNode] = []
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, STATEMENTS):
            found.append(node)
        if not isinstance(node, cst.SimpleStatementLine):
            pending += node.children
    return found


def _nearest(top: cst.CSTNode, statement: cst.CSTNode) -> list[cst.CSTNode]:
    """A statement, those behind it in its block, those before it, and then what is around it."""
    around = _path(top, statement)
    found = [statement]
    for block in (node for node in reversed(around) if hasattr(node, "body")):
        lines = list(block.body) if isinstance(block.body, (tuple, list)) else []
        places = [at for at, line in enumerate(lines) if line is statement or line in around]
        if places:
            found += [*lines[places[0] + 1 :], *reversed(lines[: places[0]])]
        if isinstance(block, STATEMENTS):
            found.append(block)
    return found


def _path(top: cst.CSTNode, node: cst.CSTNode) -> list[cst.CSTNode]:
    """What stands around a node, from the top down."""
    if top is node:
        return []
    for child in top.children:
        if child is node:
            return [top]
        if not isinstance(child, cst.SimpleStatementLine) and (rest := _path(child, node)):
            return [top, *rest]
    return []


class _Hoist(cst.CSTTransformer):
    def __init__(self, plans: Mapping[int, Sequence[Comment]]) -> None:
        super().__init__()
        self._plans = plans

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        comments = self._plans.get(id(getattr(original_node, "body", None)), ())
        if not comments or not isinstance(original_node, STATEMENTS):
            return updated_node
        inside = {comment.text for comment in comments if comment.is_inside}
        if isinstance(updated_node, cst.SimpleStatementLine):
            updated_node = updated_node.with_changes(body=[each.visit(_Without(inside)) for each in updated_node.body])
        lines = [cst.EmptyLine(comment=cst.Comment(comment.text)) for comment in comments]
        return updated_node.with_changes(leading_lines=[*updated_node.leading_lines, *lines])


class _Without(cst.CSTTransformer):
    """Take comments out of an expression, with the lines that they have for themselves."""

    def __init__(self, texts: Collection[str]) -> None:
        super().__init__()
        self._texts = texts

    def leave_TrailingWhitespace(
        self, original_node: cst.TrailingWhitespace, updated_node: cst.TrailingWhitespace
    ) -> cst.TrailingWhitespace:
        if updated_node.comment is None or updated_node.comment.value not in self._texts:
            return updated_node
        return updated_node.with_changes(comment=None, whitespace=cst.SimpleWhitespace(""))

    def leave_ParenthesizedWhitespace(
        self, original_node: cst.ParenthesizedWhitespace, updated_node: cst.ParenthesizedWhitespace
    ) -> cst.ParenthesizedWhitespace:
        lines = [
            line for line in updated_node.empty_lines if line.comment is None or line.comment.value not in self._texts
        ]
        return updated_node.with_changes(empty_lines=lines)
