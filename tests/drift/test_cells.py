"""A sample of `make drift`: tasks that read by value, on rewrites and forks that their authors had not seen."""

import pytest
from drift.cells import Cell, cells, page

BY_VALUE = (9, 10)
SAMPLE = [
    *("alone product_einsum", "alone mask_arange_rows", "alone scores_method", "alone mask_window_added"),
    *("seed 2", "seed 3", "fork trainer", "fork byhand", "fork functional", "fork upstream_like"),
]


@pytest.mark.parametrize("tree", SAMPLE)
def test_nothing_is_done_wrong_without_a_word(tree):
    found = cells((tree, BY_VALUE))
    assert len(found) == len(BY_VALUE)
    for cell in found:
        assert not cell.is_silently_wrong
        assert cell.outcome != "crash", cell.reason
        assert cell.outcome != "refused" or ".py:" in cell.reason


@pytest.mark.parametrize("tree", ["fork trainer", "alone scores_method", "seed 2"])
def test_what_strangers_wrote_is_patched(tree):
    assert {(cell.task, cell.outcome) for cell in cells((tree, BY_VALUE))} == {(9, "applied"), (10, "applied")}


def test_the_page_counts_what_is_wrong():
    right = Cell("alone a", 9, "applied", "applied", "")
    refused = Cell("alone b", 9, "applied", "refused", "task-9 looked\nnear miss at file.py:1:1: so")
    wrong = Cell("fork c", 10, "refused", "applied", "")
    judged = Cell("fork c", 11, "applied", "applied", "", verdict="violated")
    assert [cell.is_silently_wrong for cell in (right, refused, wrong, judged)] == [False, False, True, True]
    text = "\n".join(page([right, refused, wrong, judged]))
    assert "| task-9 | 2 | 1 (50%) | 1 | 0 | 0 |" in text
    assert "| all | 4 | 1 (25%) | 1 | 2 | 0 |" in text
    assert "- alone b, task-9: refused, wanted applied. near miss at file.py:1:1: so" in text
