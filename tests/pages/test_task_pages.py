"""docs/tasks/ says what patches and judges say today, and the README leads there."""

import re

import pytest
from pages.task_pages import FOLDER, SYMPTOMS, checks, page
from samples import BASELINE, ROOT

from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import SourceTree, open_tree

README = (ROOT / "README.md").read_text()
each_task = pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.id)


@pytest.fixture(scope="module")
def baseline() -> SourceTree:
    return open_tree(BASELINE)


@each_task
def test_a_page_is_what_its_sources_make_today(baseline, task):
    assert (FOLDER / f"{task.id}.md").read_text() == page(baseline, task), "make pages writes it anew"


def test_there_is_a_page_for_each_task_and_no_other():
    assert {file.stem for file in FOLDER.iterdir()} == {task.id for task in all_tasks()}
    assert set(SYMPTOMS) == {task.number for task in all_tasks()}


@each_task
def test_the_readme_leads_to_each_page(task):
    assert f"| [{task.id}](docs/tasks/{task.id}.md) `{task.slug}` | {task.contract} | " in README


@each_task
def test_every_check_that_is_known_to_kill_is_on_the_page(task):
    from bitpatch.verify.rendering.html import known_mutants

    named = {name for name, _ in checks(task)}
    assert {key.partition("/")[2] for key in known_mutants() if key.startswith(f"{task.id}/")} <= named


@each_task
def test_no_cell_breaks_its_table(task):
    rows = re.findall(r"^\|.*", (FOLDER / f"{task.id}.md").read_text().partition("```diff")[0], re.MULTILINE)
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} <= {5, 6}
