"""A pull request that takes tests out of force is red in every form, at the lines of these tests."""

import json
from dataclasses import replace

import jsonschema
import pytest
from junitparser import JUnitXml
from published import schema
from results import report, shown, since
from test_html import Reader

from bitpatch.verify.rendering.forms import FORMS, page
from bitpatch.verify.rendering.github import summary
from bitpatch.verify.rendering.report import exit_code
from bitpatch.verify.rendering.sarif import SCHEMA
from bitpatch.verify.since.found import OwnTests


@pytest.fixture
def made():
    green = report()
    return shown(replace(green, tasks=green.tasks[1:], since=since()))


def test_it_is_violated(made):
    assert exit_code(made.report) == 4


def test_annotations_are_on_the_lines_of_the_tests(made):
    lines = FORMS["github"](made).splitlines()
    assert [line for line in lines if line.startswith("::error")] == [
        "::error file=trees/mine/tests/test_m.py,line=3,col=1,title=the tree's own tests shrank::test_one is gone",
        "::error file=trees/mine/tests/test_m.py,line=9,col=1,title=the tree's own tests shrank"
        "::test_two is skipped now (skip)",
    ]
    assert "task-7 is left out" in summary(made)


def test_a_file_may_have_any_name():
    lost = OwnTests(1, 0, ("tests/a:b\n/test_m.py:3: test_one is gone: it was",))
    assert list(lost.lost()) == [("tests/a:b\n/test_m.py", 3, "test_one is gone: it was")]


def test_a_category_of_its_own(made):
    log = json.loads(FORMS["sarif"](made))
    jsonschema.validate(log, schema(SCHEMA))
    run = log["runs"][-1]
    assert run["automationDetails"]["id"] == "bitpatch/own-tests/"
    assert [each["locations"][0]["physicalLocation"]["region"]["startLine"] for each in run["results"]] == [3, 9]


def test_a_suite_of_its_own(made):
    found = JUnitXml.fromstring(FORMS["junit"](made).encode())
    assert (found.tests, found.failures) == (2, 1)
    assert "test_one is gone" in found.tostring().decode()


def test_the_page_says_so(made):
    text = Reader(page(made)).text
    assert "What changed since main" in text
    assert "Again: bitpatch verify task-11 --tree trees/mine --since main" in text
    assert "3 ran then, 1 do now" in text
    assert "task-7: nothing that its judge runs has changed" in text


def test_a_page_of_nothing_says_that_nothing_was_judged(made):
    left = replace(since(), tests=OwnTests(3, 3, ()))
    text = Reader(page(shown(replace(made.report, tasks=(), since=left)))).text
    assert text.startswith("verified: bitpatch verify")
    assert "Nothing that was asked about can have changed since main: none of it was judged" in text
    assert "To what was judged" in text
