"""A task whose own code fails says where it was, and does not end the run."""

from dataclasses import replace

import libcst as cst

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.applying.settling import findings
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import State


def failing(tree):
    source = tree.source(tree.model_path)
    for node in source.walk(cst.FunctionDef):
        if node.name.value == "forward":
            yield {}["nothing"]


def test_an_error_of_our_own_is_a_place_that_is_not_read(tree):
    task = replace(task_named("10"), find=failing)
    (found,) = findings(open_tree(tree), task)
    line = next(
        n for n, text in enumerate((tree / found.site.path).read_text().splitlines(), 1) if "def forward" in text
    )
    assert (found.state, found.site.line) == (State.UNRECOGNISED, line)
    assert "fails to understand what is here (KeyError at test_findings.py:" in found.site.note
    refused, applied = plan(open_tree(tree), [task_named("11"), task]).outcomes
    assert {refused.outcome, applied.outcome} == {"refused", "applied"}
