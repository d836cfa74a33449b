"""What a tree holds, quickly: the same as asked slowly, and asked again only where something has changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import REFERENCE

from bitpatch.patches.applying import engine, survey
from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import all_tasks, task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Plan, Task, TaskStatus


def seen(found: list[TaskStatus]) -> list[dict[str, object]]:
    return [one.to_json() | {"states": [finding.state for finding in one.findings]} for one in found]


def content(planned: Plan) -> object:
    return planned.to_json(), planned.changes


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that are looked for, one process doing it all."""
    found: list[str] = []
    real = survey._rows
    monkeypatch.setattr(survey, "_rows", lambda tree, task: found.append(task.id) or real(tree, task))
    monkeypatch.setattr("bitpatch.patches.applying.beside._has_cores", lambda: False)
    return found


@pytest.mark.parametrize("cores", [True, False])
def test_survey_is_status(tree: Path, monkeypatch: pytest.MonkeyPatch, cores: bool) -> None:
    monkeypatch.setattr("bitpatch.patches.applying.beside._has_cores", lambda: cores)
    for root in (tree, REFERENCE):
        expected = seen(status(open_tree(root), all_tasks()))
        assert seen(survey.survey(open_tree(root), all_tasks())) == expected
        assert seen(survey.survey(open_tree(root), all_tasks())) == expected  # as it was remembered


def test_what_is_known_is_not_asked_again(tree: Path, asked: list[str]) -> None:
    tasks = all_tasks()
    survey.survey(open_tree(tree), tasks[3:5])
    survey.survey(open_tree(tree), tasks[:6])
    survey.survey(open_tree(tree), tasks[:6])
    assert sorted(asked) == sorted(task.id for task in tasks[:6])


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


CHANGES: dict[str, Callable[[Path, Path, pytest.MonkeyPatch], object]] = {
    "a file of the package": lambda tree, *_: _append(tree / "bit_transformer/model.py"),
    "a file beside it": lambda tree, *_: _append(tree / "mcp_server.py"),
    "a new file": lambda tree, *_: (tree / "bit_transformer/more.py").write_text("def triu():\n    pass\n"),
    "bitpatch itself": lambda tree, cache, patch: patch.setattr(survey, "_own_hash", lambda: "another"),
    "what was remembered, by half": lambda tree, cache, _: cache.write_bytes(cache.read_bytes()[:-40]),
    "what was remembered, by other words": lambda tree, cache, _: cache.write_text('["content"]'),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(
    tree: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, change: Callable[..., object]
) -> None:
    survey.survey(open_tree(tree), all_tasks()[:1])
    change(tree, survey._file(tree), monkeypatch)
    assert seen(survey.survey(open_tree(tree), all_tasks()[:1])) == seen(status(open_tree(tree), all_tasks()[:1]))
    assert asked == ["task-1", "task-1"]


def test_nowhere_to_remember(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert seen(survey.survey(open_tree(tree), all_tasks())) == seen(status(open_tree(tree), all_tasks()))


def some_tasks(seed: int) -> list[Task]:
    return random.Random(seed).sample(all_tasks(), 2 + seed)


@pytest.mark.parametrize("tasks", [list(all_tasks()), *map(some_tasks, range(6))], ids=len)
def test_a_quick_plan_is_the_same_plan(tree: Path, tasks: list[Task]) -> None:
    planned = plan(open_tree(tree), tasks)
    assert content(plan(open_tree(tree), tasks, quick=True)) == content(planned)
    for change in planned.changes:
        (tree / change.path).write_bytes(change.after)
    nothing = plan(open_tree(tree), tasks)
    assert not nothing.changes
    assert content(plan(open_tree(tree), tasks, quick=True)) == content(nothing)


def test_a_quick_plan_where_both_processes_change_one_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BESIDE", {"update"})  # and the schedule here: both change the training loop
    assert engine._applied_beside(open_tree(tree), all_tasks()) is None
    assert content(plan(open_tree(tree), all_tasks(), quick=True)) == content(plan(open_tree(tree), all_tasks()))


def test_a_quick_plan_that_is_refused(tree: Path) -> None:
    model = tree / "bit_transformer/model.py"
    model.write_text(model.read_text().replace("diagonal=1", "diagonal=2"))
    planned = plan(open_tree(tree), all_tasks())
    assert planned.refused
    assert content(plan(open_tree(tree), all_tasks(), quick=True)) == content(planned)


def test_a_change_in_a_file_that_mentions_nothing_of_a_tree_is_seen(tree: Path) -> None:
    """Reading follows imports to where they lead: a number may stand in a file of settings."""
    model, settings = tree / "bit_transformer/model.py", tree / "settings.py"
    text = model.read_text().replace("import math\n", "import math\n\nfrom settings import OFF\n", 1)
    model.write_text(text.replace("diagonal=1)", "diagonal=OFF)"))
    for number in (1, 2):
        settings.write_text(f"OFF = {number}\n")
        task = task_named("task-10")
        (found,) = survey.survey(open_tree(tree), [task])
        assert found.state is engine.status(open_tree(tree), [task])[0].state
