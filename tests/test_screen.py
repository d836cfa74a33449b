"""What is printed: tables on terminals of any width, colours where they are wanted, and the command that comes next."""

import io
import re
import sys
from pathlib import Path

import pytest
from samples import BASELINE, REFERENCE

from bitpatch import screen
from bitpatch.patches.known import all_tasks
from bitpatch.verify.phase2 import phases, validation
from bitpatch.verify.rendering import terminal
from bitpatch.verify.rendering.report import CheckResult, Report, SanityFit, TaskReport
from bitpatch.verify.running.evidence import Evidence, Verdict, at_most, passed, unproven

ESCAPE = re.compile(r"\x1b\[[\d;]*m")
SETTINGS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def stdout(monkeypatch):
    """Standard output as a terminal or a pipe, in an environment of which nothing but the settings is known."""

    def make(*, terminal=True, **settings):
        for name in SETTINGS:
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm-256color"} | settings).items():
            monkeypatch.setenv(name, value)
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return make


def a_report():
    checks = [
        at_most(1e-4, 1e-12, "by [much]", "python -c 1"),
        passed(""),
        unproven("not exercised"),
        Evidence(Verdict.ERROR),
    ]
    results = tuple(
        CheckResult(11, f"serves-training-after-inference-{place}", "rows", one, 0.25)
        for place, one in enumerate(checks)
    )
    fit = SanityFit(Verdict.PASS, "", (1.0,) * 20, (1e-3,) * 20, 7.0)
    return Report(Path("/tree"), (TaskReport(11, results), TaskReport(12, ())), fit, 1.5)


def the_list():
    rows = [(task.id, task.slug, str(task.contract), task.summary) for task in all_tasks()]
    screen.show_table(("task", "slug", "contract", "summary"), rows, typed=("task", "slug"))
    return [word for row in rows for word in (*row[:3], *row[3].split())]


def the_plan():
    steps = phases.order({task.id: "missing" for task in all_tasks()}, Path("a/folder"), Path("/a/tree with spaces"))
    rows = [step.cells() for step in steps]
    screen.show_table(phases.COLUMNS, rows, typed=("step", "command"))
    return [word for row in rows for word in (row[0], row[-1], *row[2].split(), *row[3].split()) if word]


def the_validation():
    threshold = ("text-is-no-worse", "fail", "3.1", "2.9", "bits per byte on rows that were held out", "xz makes 3.339")
    rows = [threshold, ("is-finished", "pass", "0", "0", "the run made all its updates", "update 24 of 24")]
    screen.show_table(validation.COLUMNS, rows, typed=("threshold",))
    return [word for row in rows for cell in row for word in cell.split()]


def the_verdict():
    terminal.show(a_report())
    return ["serves-training-after-inference-3", "0.0001", "1e-12", "by [much]", "reproduce: python -c 1", "/tree: "]


@pytest.mark.parametrize("columns", [40, 60, 80, 160])
@pytest.mark.parametrize("show", [the_list, the_plan, the_validation, the_verdict])
def test_no_word_is_cut_on_a_terminal_of_any_width(stdout, show, columns):
    stream = stdout(COLUMNS=str(columns))
    words = show()
    text = ESCAPE.sub("", stream.getvalue())
    assert [word for word in words if word not in text] == []
    assert "…" not in text


@pytest.mark.parametrize(("columns", "is_table"), [(60, False), (80, True), (160, True)])
def test_a_table_is_as_wide_as_the_terminal_or_a_paragraph_a_row(stdout, columns, is_table):
    stream = stdout(COLUMNS=str(columns))
    the_list()
    lines = ESCAPE.sub("", stream.getvalue()).splitlines()
    assert (lines[0].split() == ["task", "slug", "contract", "summary"]) is is_table
    assert (max(map(len, lines)) <= columns) is is_table


COLOURS = [
    pytest.param(True, {}, True, id="a terminal"),
    pytest.param(False, {}, False, id="a pipe"),
    pytest.param(True, {"TERM": "dumb"}, False, id="a dumb terminal"),
    pytest.param(True, {"NO_COLOR": "1"}, False, id="NO_COLOR"),
    pytest.param(True, {"NO_COLOR": ""}, True, id="an empty NO_COLOR"),
    pytest.param(False, {"FORCE_COLOR": "1"}, True, id="FORCE_COLOR in a pipe"),
    pytest.param(False, {"FORCE_COLOR": ""}, False, id="an empty FORCE_COLOR"),
    pytest.param(False, {"FORCE_COLOR": "1", "TERM": "dumb"}, True, id="FORCE_COLOR on a dumb terminal"),
    pytest.param(True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, id="NO_COLOR and FORCE_COLOR"),
]


@pytest.mark.parametrize(("terminal", "settings", "colours"), COLOURS)
@pytest.mark.parametrize("show", [the_validation, the_verdict, lambda: screen.say("x", fg="green")])
def test_colours_are_where_they_are_wanted(stdout, show, terminal, settings, colours):
    stream = stdout(terminal=terminal, COLUMNS="160", **settings)
    show()
    assert bool(ESCAPE.search(stream.getvalue())) is colours


@pytest.mark.parametrize(("terminal", "settings", "colours"), COLOURS)
def test_messages_are_coloured_by_the_same_rule(stdout, monkeypatch, terminal, settings, colours):
    stdout(terminal=not terminal, **settings)
    monkeypatch.setattr(sys, "stderr", Stream(terminal))
    screen.warn("x", fg="red")
    assert bool(ESCAPE.search(sys.stderr.getvalue())) is colours


def test_what_is_forced_in_a_pipe_is_a_table_and_else_it_is_for_programs(stdout):
    stream = stdout(terminal=False, FORCE_COLOR="1", COLUMNS="160")
    the_list()
    assert ESCAPE.sub("", stream.getvalue()).startswith("task  ")
    stream = stdout(terminal=False)
    the_list()
    assert stream.getvalue().startswith("task-1\tbatch-size\tfixes\t")


ORDERS = "\x1b]0;title\x07\x9b2J\r.py"


@pytest.mark.parametrize(
    "show",
    [
        lambda: screen.say(ORDERS, fg="red"),
        lambda: screen.show_table(("task", "where"), [("task-1", ORDERS)], typed=("where",)),
        lambda: screen.show_block("task-1", "applied", [ORDERS]),
        lambda: screen.show_diff(f"--- a/{ORDERS}\n+{ORDERS}\n".encode()),
    ],
    ids=["line", "table", "block", "diff"],
)
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
def test_what_a_file_is_called_gives_a_terminal_no_orders(stdout, show, is_terminal):
    stream = stdout(terminal=is_terminal, COLUMNS="80")
    show()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ESCAPE.sub("", stream.getvalue()))
    assert r"\x1b]0;title\x07\x9b2J\x0d.py" in stream.getvalue()


def test_verdicts_have_their_colours(stdout):
    stream = stdout(COLUMNS="160")
    the_verdict()
    for code in ("\x1b[1;31mfail", "\x1b[32mpass", "\x1b[33munproven", "\x1b[33merror"):
        assert code in stream.getvalue()


NEXT = {
    "list": (["list"], "bitpatch explain TASK"),
    "explain": (["explain", "11"], "bitpatch diff task-11, or bitpatch verify task-11"),
    "new": (["new", "NEW"], "bitpatch status --tree NEW"),
    "status": (["status", "--tree", "TREE"], "bitpatch apply --all --tree TREE"),
    "status of a task": (["status", "11", "--tree", "TREE"], "bitpatch apply task-11 --tree TREE"),
    "status of what is done": (["status", "--tree", "DONE"], "bitpatch verify --all --tree DONE"),
    "diff": (["diff", "11", "4", "--tree", "TREE"], "bitpatch apply task-11 task-4 --tree TREE"),
    "diff of nothing": (["diff", "11", "--tree", "DONE"], "bitpatch verify task-11 --tree DONE"),
    "diff for git": (["diff", "11", "--tree", "TREE", "--format", "patch"], "bitpatch apply task-11 --tree TREE"),
    "apply": (["apply", "11", "--tree", "TREE"], "bitpatch verify task-11 --tree TREE"),
    "apply all": (["apply", "--all", "--tree", "TREE"], "bitpatch verify --all --tree TREE"),
    "a dry run": (["apply", "11", "--dry-run", "--tree", "TREE"], "bitpatch apply task-11 --tree TREE"),
    "revert": (["revert", "11", "--tree", "TREE"], "bitpatch status task-11 --tree TREE"),
    "plan": (["train", "--plan", "--tree", "TREE"], "bitpatch apply --all --tree TREE"),
}


@pytest.mark.parametrize(("words", "command"), NEXT.values(), ids=NEXT)
def test_a_command_that_ends_well_names_the_next_one(run, tree, tmp_path, words, command):
    places = {"TREE": str(tree), "NEW": str(tmp_path / "a new one"), "DONE": str(REFERENCE)}
    for name, place in places.items():
        words, command = [place if word == name else word for word in words], command.replace(name, place)
    code, _, err = run(*words)
    assert (code, err.replace("'", "")) == (0, f"next: {command}\n")


@pytest.mark.parametrize("words", [words for words, _ in NEXT.values()], ids=NEXT)
def test_quiet_is_quiet(run, tree, tmp_path, words):
    places = {"TREE": tree, "NEW": tmp_path / "new", "DONE": REFERENCE}
    assert run(*(places.get(word, word) for word in words), "--quiet") == (0, "", "")


def test_verify_names_the_next_command_where_it_ends_well(run):
    assert run("verify", "12", "--tree", REFERENCE)[2] == f"next: bitpatch verify --all --tree {REFERENCE}\n"
    assert run("verify", "12", "--tree", REFERENCE, "--quiet") == (0, "", "")
    assert "next:" not in run("verify", "12", "--tree", BASELINE)[2]
