"""A sample of `make drift`: tasks that read by value, on rewrites and forks that their authors had not seen."""

import pytest
from drift.cells import Cell, cells, make, page

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

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


@pytest.mark.parametrize(
    ("name", "task", "texts"),
    [
        ("draw_coin", 6, ["end=compress_prob", "draw_form(ramped_prob, direct_prob, draws.random)"]),
        ("predict_match", 6, ["draw_form(ramped_prob, direct_prob, draws.random)"]),
        ("star_imports", 6, ["draw_form(ramped_prob, direct_prob, draws.random)"]),
        ("star_imports", 5, ["-> BitRows"]),
        ("total_by_sum", 4, ["planned_updates(epochs, max(1, len(data) // 8), accum_steps=accum_steps)"]),
        ("predict_match", 3, ["next_bit_loss(at_least_float32(logits), targets)"]),
        ("loop_called_by_names", 3, ['parser.add_argument("--amp"', "amp=args.amp, **chosen"]),
        ("loop_options_popped", 8, ['parser.add_argument("--compile"', "compile=args.compile"]),
        ("parser_from_fields", 3, ['parser.add_argument("--amp", choices=AMP', "amp=args.amp"]),
        ("parser_partial", 8, ['parser.add_argument("--compile"', "compile=args.compile"]),
        ("parser_partial", 12, ['switch("--full_attn_logging", default=None)']),
        ("attention_partial", 12, ["default=None)", "chunk_size is None if full_attn_logging is None"]),
        ("attributes_by_setattr", 12, ["default=None)", "chunk_size is None if full_attn_logging is None"]),
        ("attend_by_table", 12, ["default=None)", "chunk_size is None if full_attn_logging is None"]),
        ("manager_attributes_by_setattr", 2, ["total_steps=plan.updates"]),
    ],
)
def test_what_a_task_brings_is_where_it_acts(tmp_path, name, task, texts):
    make("alone", name, tmp_path / "tree")
    planned = plan(open_tree(tmp_path / "tree"), [task_named(str(task))])
    assert [each.outcome for each in planned.outcomes] == [Outcome.APPLIED]
    brought = "".join(change.after.decode() for change in planned.changes)
    assert [text for text in texts if text not in brought] == []


def test_what_makes_attention_unseen_is_no_obstacle_that_is_passed_over():
    (cell,) = cells(("alone attention_from_registry", (12,)))
    assert cell.outcome == "refused"
    assert "who tells it that is not seen where it is handed on" in cell.reason


def test_a_package_of_small_files_is_read_through():
    found = {cell.task: cell.outcome for cell in cells(("fork conf_engine", (3, 4, 6, 8, 10, 12)))}
    asked = dict.fromkeys((3, 4), "refused") | dict.fromkeys((6, 8), "applied")
    assert found == asked | dict.fromkeys((10, 12), "already-applied")


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
