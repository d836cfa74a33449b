"""Annotations and the step's summary: on the lines that matter, no more than are shown, and no command of the tree's."""

import re
from dataclasses import replace

from results import HOSTILE, fit, report, result, shown

from bitpatch.patches.task import Site
from bitpatch.verify.rendering.forms import FORMS
from bitpatch.verify.rendering.github import MOST, annotations, summary
from bitpatch.verify.rendering.report import TaskReport
from bitpatch.verify.rendering.surroundings import Shown
from bitpatch.verify.running.evidence import Verdict, failed, passed


def outside(text: str) -> list[str]:
    """The lines that Actions read as commands, but for those that end and begin that."""
    word = re.match(r"::stop-commands::(\w+)\n", text)[1]
    _, _, rest = text.partition(f"\n::{word}::\n")
    return rest.splitlines()


def test_an_annotation_names_file_line_and_check():
    first, second, *_ = outside(FORMS["github"](shown()))
    assert first.startswith(
        "::error file=trees/mine/pkg/train loop.py,line=7,col=5,title=task-4 check-0%3A fail::what check-0 promises%0A"
    )
    assert "%2525" not in first
    assert "%250A" in second  # the tree's own, and no end of a line
    assert "\x00" in second


def test_nothing_that_a_tree_prints_is_a_command():
    lines = outside(FORMS["github"](shown()))
    assert [line.partition(" ")[0] for line in lines] == ["::error"] * 3 + ["::warning"] * 2
    assert all(HOSTILE.splitlines()[1] not in line.partition("::")[0] for line in lines)


def test_no_more_than_are_shown_and_the_last_says_how_many_are_left():
    many = TaskReport(11, tuple(result(11, f"check-{place}", failed("no")) for place in range(30)))
    found = annotations(shown(report(many)))
    errors = [each for each in found if each.kind == "error"]
    assert len(errors) == MOST
    assert errors[-1].message == "24 more are red: the step's summary names them"


def test_the_summary_counts_what_it_shows():
    text = summary(shown(report(fit=fit(Verdict.UNPROVEN))))
    assert text.startswith("## ❌ bitpatch: violated (exit code 4)")
    assert "| ❌ violated | 6 | 1 | 3 | 1 | 1 | <code>trees/mine/pkg/train loop.py:7</code> |" in text
    assert text.count("\n- ") == 5
    assert "Sanity fit: ❔ unproven" in text


def test_the_summary_is_no_larger_than_github_takes():
    loud = failed("\U0001f600" * 4000, "y" * 4000)
    tasks = [TaskReport(task, tuple(result(task, f"check-{n}", loud) for n in range(14))) for task in range(1, 13)]
    text = summary(shown(report(*tasks)))
    assert len(text.encode()) < 1 << 20
    assert text.count("**check-13**") == 12


def test_a_path_is_no_markup():
    made = shown()
    sites = (Site.at("a`b|<i>.py", "here", 7, 5),)
    text = summary(Shown(made.report, {4: replace(made.tasks[4], sites=sites)}, "", "x`<b>"))
    assert "<code>a&#96;b&#124;&#60;i&#62;.py:7</code> |\n" in text
    assert "`<b>" not in text


def test_what_a_tree_says_is_no_markup():
    text = summary(shown())
    assert "\n  ~~~~text\n  </pre><script>" in text
    fences = [line.strip() for line in text.splitlines() if line.strip().startswith("~~~")]
    assert fences == ["~~~text", "~~~"] * 2 + ["~~~~text", "~~~~"] + ["~~~text", "~~~"] * 4


def test_all_is_well():
    made = report()
    made = type(made)(made.tree, made.tasks[1:], fit(), 1.0)
    assert outside(FORMS["github"](shown(made))) == []
    assert summary(shown(made)).startswith("## ✅ bitpatch: verified (exit code 0)")
    assert passed("").verdict is Verdict.PASS
