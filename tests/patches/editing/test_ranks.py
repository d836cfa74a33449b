"""Statements that several patches put before one: in one order, and never above what they need."""

import itertools

import pytest

from bitpatch.patches.editing.edits import apply_edits, insert_before
from bitpatch.patches.reading.source import Source

LOOP = "for row in rows:\n    pass\n"
BROUGHT = ("if fast:\n    compile_where_supported(model)", "draws = random.Random(3)", "global_step = 0")
MOVED = "optimizer.zero_grad()"


def put(text, inserted):
    source = Source("a.py", text.encode())
    return apply_edits(source, [insert_before(source, source.module.body[-1], inserted)]).raw.decode()


def test_all_orders_make_the_same():
    made = set()
    for order in itertools.permutations([*BROUGHT, MOVED]):
        text = LOOP
        for each in order:
            text = put(text, each)
        made.add(text)
    assert made == {"\n".join([MOVED, *BROUGHT, LOOP])}


@pytest.mark.parametrize("own", ["draws = rows", "draws, model = make()", "print(1)", "for batch in rows:\n    pass"])
def test_what_is_needed_or_not_brought_stays_above(own):
    text = "if fast:\n    compile_where_supported(draws, model)"
    assert put(f"{own}\n{LOOP}", text) == f"{own}\n{text}\n{LOOP}"
