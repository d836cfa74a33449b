"""Edits made from text: layout kept, meaning proved."""

import libcst as cst
import pytest
from samples import source

from bitpatch.patches.editing.edits import apply_edits, insert_after, insert_before, insert_item, operand, rewrite
from bitpatch.patches.task import BitpatchError, Edit


def test_no_edit_is_no_change():
    file = source("x = 1  # one\r\n")
    assert apply_edits(file, []).raw == file.raw


def test_rewrite_keeps_what_is_around():
    file = source("y = f( a )  # keep\n")
    call = next(file.walk(cst.Call))
    assert (
        apply_edits(file, [rewrite(file, call, lambda code: f"max({code}, 0)")]).raw == b"y = max(f( a ), 0)  # keep\n"
    )


def test_nested_edits_see_each_other():
    file = source("y = f(a)\n")
    call, inner = next(file.walk(cst.Call)), next(file.walk(cst.Arg)).value
    edits = [rewrite(file, call, lambda code: f"g({code})"), rewrite(file, inner, lambda code: f"{code} + 1")]
    assert apply_edits(file, edits).raw == b"y = g(f(a + 1))\n"


def test_a_change_of_meaning_by_missing_parentheses_is_refused():
    file = source("y = a * b\n")
    product = next(file.walk(cst.BinaryOperation))
    with pytest.raises(BitpatchError, match="would not mean what was meant"):
        apply_edits(file, [rewrite(file, product.left, lambda code: f"{code} + 1")])


def test_an_operand_gets_parentheses_where_it_needs_them():
    file = source("a + b\n(c + d)\nf(x)\n")
    texts = [operand(file, statement.body[0].value) for statement in file.module.body]
    assert texts == ["(a + b)", "(c + d)", "f(x)"]


def test_insertion_in_front_takes_the_blank_lines_and_leaves_the_comment():
    file = source("a = 1\n\n\n# about b\nb = 2\n")
    edited = apply_edits(file, [insert_before(file, file.module.body[1], "x = 0")])
    assert edited.raw == b"a = 1\n\n\nx = 0\n# about b\nb = 2\n"


def test_insertion_behind_takes_on_newline_and_indent():
    file = source("if a:\r\n\tb = 1\r\n\tc = 2\r\n")
    first = next(file.walk(cst.SimpleStatementLine))
    edited = apply_edits(file, [insert_after(file, first, "if b:\n    pass")])
    assert edited.raw == b"if a:\r\n\tb = 1\r\n\tif b:\r\n\t\tpass\r\n\tc = 2\r\n"


def test_removal_of_one_statement_leaves_the_others():
    file = source("a = 1\nb = 2\nc = 3\n")
    edited = apply_edits(file, [Edit(file, file.module.body[1], lambda _: cst.RemoveFromParent())])
    assert edited.raw == b"a = 1\nc = 3\n"


@pytest.mark.parametrize(
    ("before", "index", "after"),
    [
        pytest.param("f()\n", 0, "f(new)\n", id="empty"),
        pytest.param("f(a)\n", 1, "f(a, new)\n", id="behind one"),
        pytest.param("f(a)\n", 0, "f(new, a)\n", id="before one"),
        pytest.param("f(a, b)\n", 1, "f(a, new, b)\n", id="between two"),
        pytest.param("f(a,b)\n", 2, "f(a,b,new)\n", id="without spaces"),
        pytest.param("f(a, b,)\n", 2, "f(a, b, new,)\n", id="last comma in line"),
        pytest.param(
            "f(\n    a,\n    b,\n)\n", 2, "f(\n    a,\n    b,\n    new,\n)\n", id="one a line with last comma"
        ),
        pytest.param(
            "f(\n    a,\n    b\n)\n", 2, "f(\n    a,\n    b,\n    new\n)\n", id="one a line without last comma"
        ),
        pytest.param("f(\n    a,\n)\n", 1, "f(\n    a,\n    new,\n)\n", id="single one with last comma"),
        pytest.param("f(\n    a,\n    b,\n)\n", 0, "f(\n    new,\n    a,\n    b,\n)\n", id="first of some lines"),
        pytest.param(
            "f(\n    a,  # first\n    b,  # second\n)\n",
            2,
            "f(\n    a,  # first\n    b,  # second\n    new,\n)\n",
            id="comments stay with their own",
        ),
        pytest.param(
            "f(\n    a,  # first\n    b,\n)\n",
            1,
            "f(\n    a,  # first\n    new,\n    b,\n)\n",
            id="comment before the new one",
        ),
    ],
)
def test_insert_item_keeps_the_layout(before, index, after):
    file = source(before)

    def change(call):
        new = cst.Arg(cst.Name("new"))
        return call.with_changes(args=insert_item(call.args, index, new, enclosed=call.whitespace_before_args))

    assert apply_edits(file, [Edit(file, next(file.walk(cst.Call)), change)]).raw.decode() == after
