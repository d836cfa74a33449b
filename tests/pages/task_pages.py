"""docs/tasks/: a page a task, made of its patch, its judge, the wrong patches that are known, and the forks.

    python tests/pages/task_pages.py

What goes wrong without a task is told here, by hand; all else is read where it is kept.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from samples import BASELINE, ROOT

from bitpatch.patches.applying.engine import diff_of, plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import SourceTree, open_tree
from bitpatch.patches.task import Contract, Task

FOLDER = ROOT / "docs" / "tasks"
MOST_MUTANTS = 3  # that are named at a check
SYMPTOMS = {
    1: "Micro-batches are always the same eight rows, in the order of the text. Where the rows do not divide by eight, or there "
    "are extra steps, the learning rate is at its floor before the end, and the last updates learn next to nothing.",
    2: "A short run of the dashboard stops while its learning rate is still high, and one of more than a hundred updates "
    "raises, as the schedule has no more steps.",
    3: "Nothing is wrong: training computes in float32 alone, also where the machine multiplies bfloat16 faster.",
    4: "Nothing is wrong: a batch larger than memory holds cannot be trained on.",
    5: "Each start encodes the whole text anew, and holds 8 bytes for each of its bits: a text of 100 MB does not fit.",
    6: "A model that has learned nothing is shown half of its rows run-length encoded, and whether it is shifts every other "
    "random number of the run.",
    7: "One spike of the validation loss stops a healthy run, and so do the high losses of its first updates.",
    8: "Nothing is wrong: models are never compiled.",
    9: "Scores, softmax and dropout each keep a tensor of [T, T] for the backward, in every layer.",
    10: "Each layer makes a triangle of T x T in each forward, and throws it away.",
    11: "The map of the first windows shows weights at the right edge, at bits that are yet to come, and positions that do "
    "not exist take part in their softmax.",
    12: "A run in chunks, which should need memory linear in T, puts a map of T x T together in each layer: long rows do not "
    "fit.",
}
WHY = {
    Contract.EQUIVALENT: "Nobody should see another number because of it, so the judge compares what comes out, "
    "and its gradients, with what is right by itself, and counts apart what is saved.",
    Contract.FIXES: "What the tree does now is wrong, so the judge needs a witness: it is red on a tree without the task, "
    "and green with it.",
    Contract.EXTENDS: "Who does not ask for it must not notice it, so the judge compares runs without the option bit by bit, "
    "and asks the option for a property of its own.",
}


def page(tree: SourceTree, task: Task) -> str:
    """The page of a task; `tree` is the baseline."""
    return "\n".join(_lines(tree, task)) + "\n"


def _lines(tree: SourceTree, task: Task) -> Iterator[str]:
    headline, *reasons, contract = task.why.strip().split("\n\n")
    name = f"`{task.slug}`"
    yield from (f"# {task.id} {name}: {task.title}", "", f"{headline} (`make pages` writes this page.)", "")
    yield from ("## What goes wrong", "", SYMPTOMS[task.number], "")
    yield from ("## What the patch does", "", "\n\n".join(reasons), "")
    yield f"It looks for {task.sought}. `bitpatch explain {task.id} --tree DIR` says what of that a tree has."
    said = contract.removeprefix("Contract: ")
    yield from ("", "## Contract", "", f"{said[0].upper()}{said[1:]}", "", WHY[task.contract], "")
    yield from ("## What is judged", "")
    yield "Each check is a property; beside it wrong patches that it is known to kill ([all of them](../mutants.md))."
    yield from ("", "| check | property | wrong patches |", "| --- | --- | --- |")
    killed = json.loads((ROOT / "verify/rendering/mutants.json").read_text(encoding="utf-8"))
    for check, prop in checks(task):
        yield f"| {check} | {cell(prop)} | {cell(named(killed.get(f'{task.id}/{check}', [])))} |"
    yield from ("", "## On forks", "")
    yield "What `apply` is to do on trees that were written apart from this one; [drift](../drift.md) tells of more."
    yield from ("", "| fork | as it comes | apply | why |", "| --- | --- | --- | --- |")
    for fork, found in forks(task):
        so_far = missed(task).get(fork)
        does = f"{found['apply']}, but so far {so_far}" if so_far else found["apply"]
        yield f"| {fork} | {found['state']} | {does} | {cell(found['why'])} |"
    yield from ("", "## What apply writes", "", f"`bitpatch diff {task.id}` on the baseline:", "", "```diff")
    yield from diff(tree, task)
    yield "```"


def checks(task: Task) -> list[tuple[str, str]]:
    """The checks of a task's judge and their properties, as its source has them."""
    (file,) = (ROOT / "verify").glob(f"task_{task.number:02}_*.py")
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check":
                given = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
                found.append((node.name.replace("_", "-"), given["prop"]))
    return found


def named(mutants: Sequence[str]) -> str:
    """Some wrong patches by what they do, and how many more there are."""
    more = len(mutants) - MOST_MUTANTS
    return "; ".join(mutants[:MOST_MUTANTS]) + (f"; and {more} more" if more > 0 else "")


def cell(text: str) -> str:
    """A text in a cell of a table."""
    return text.strip().replace("|", "\\|").replace("\n", " ")


def forks(task: Task) -> Iterator[tuple[str, dict[str, str]]]:
    """Each fork, with what is expected of a task there."""
    for file in sorted((ROOT / "tests/forks").glob("*/expected.toml")):
        yield file.parent.name, tomllib.loads(file.read_text(encoding="utf-8"))[task.id]


def missed(task: Task) -> dict[str, str]:
    """What docs/drift.md says of forks on which a task does not do what is expected."""
    text = (ROOT / "docs/drift.md").read_text(encoding="utf-8")
    return dict(re.findall(rf"^- fork (\w+), {task.id}: (.+?), wanted ", text, re.MULTILINE))


def diff(tree: SourceTree, task: Task) -> Iterator[str]:
    """What applying the task alone changes."""
    yield from diff_of(plan(tree, [task]).changes).decode().splitlines()


def pages() -> Iterator[tuple[Path, str]]:
    """The file of each page, and its text."""
    tree = open_tree(BASELINE)
    for task in all_tasks():
        yield FOLDER / f"{task.id}.md", page(tree, task)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages():
        file.write_text(text, encoding="utf-8")
