"""SARIF: valid by the official schema, a category a task, places and fixes that are those of the tree."""

import json
import re
from itertools import permutations

import jsonschema
import pytest
from published import schema
from results import fit, report, shown

from bitpatch.patches.task import Change
from bitpatch.verify.rendering.forms import FORMS
from bitpatch.verify.rendering.report import TaskReport
from bitpatch.verify.rendering.sarif import SCHEMA
from bitpatch.verify.running.evidence import Verdict

TEXTS = [
    "a\r\nb\x0c\u2028\x85\x1cc\n",
    "a\r\nb\x0c\n",
    "a\nb\nc\n",
    "",
    "x",
    "x\n",
    "b\na\n",
    "a\nb\nc\nd\ne",
    "\n\n",
    "c\nb\na\n",
]


def rendered(made=None) -> dict:
    return json.loads(FORMS["sarif"](made or shown()))


@pytest.mark.parametrize("verdict", [None, Verdict.PASS, Verdict.FAIL])
def test_it_is_valid(verdict):
    made = shown(report(TaskReport(7, ()), fit=None if verdict is None else fit(verdict)))
    jsonschema.validate(rendered(made), schema(SCHEMA))


def test_the_schema_refuses_what_is_no_sarif():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**rendered(), "version": "3"}, schema(SCHEMA))


def test_each_task_has_a_category_of_its_own():
    """A partial run is uploaded as the whole state of its categories: it must not close what it did not look at."""
    runs = rendered(shown(report(fit=fit())))["runs"]
    assert [run["automationDetails"]["id"] for run in runs] == [
        f"bitpatch/{each}/" for each in ("task-4", "task-11", "sanity-fit")
    ]
    assert [len(run["results"]) for run in runs] == [5, 0, 0]


def test_what_does_not_pass_is_a_result_with_its_place():
    (run, *_) = rendered()["runs"]
    assert [each["level"] for each in run["results"]] == ["error"] * 3 + ["warning"] * 2
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "trees/mine/pkg/train%20loop.py"
    assert place["region"] == {"startLine": 7, "startColumn": 5}
    assert {each["ruleId"] for each in run["results"]} < {each["id"] for each in run["tool"]["driver"]["rules"]}
    assert run["invocations"][0]["exitCode"] == 4
    assert run["invocations"][0]["executionSuccessful"] is False


@pytest.mark.parametrize(("before", "after"), list(permutations(TEXTS, 2)))
def test_a_fix_gives_what_apply_would_write(before, after):
    (run, *_) = rendered(shown(changes=(Change("m.py", before.encode(), after.encode()),)))["runs"]
    (change,) = run["results"][0]["fixes"][0]["artifactChanges"]
    lines = re.findall(r"[^\n]*\n|[^\n]+$", before)  # what SARIF calls lines
    for each in reversed(change["replacements"]):
        region = each["deletedRegion"]
        lines[region["startLine"] - 1 : region["endLine"] - 1] = [each["insertedContent"]["text"]]
    assert "".join(lines) == after


def test_a_byte_order_mark_is_no_part_of_the_first_line():
    (run, *_) = rendered(shown(changes=(Change("m.py", b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"),)))["runs"]
    (replaced,) = run["results"][0]["fixes"][0]["artifactChanges"][0]["replacements"]
    assert replaced["insertedContent"]["text"] == "b\n"


def test_a_file_that_is_not_utf_8_has_no_fix():
    (run, *_) = rendered(shown(changes=(Change("m.py", b"# \xe9\n", b"# \xe9\n1\n"),)))["runs"]
    assert "fixes" not in run["results"][0]
