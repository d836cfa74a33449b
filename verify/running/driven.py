"""What judges are told of a tree: where its seams are, how they are called, and which options it has already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...patches.applying.survey import survey
from ...patches.reading.seam import root_of
from ...patches.reading.seams import named, seams
from ...patches.reading.tree import SourceTree
from ...patches.task import Site, State, Task, TaskStatus

STANDARD = {  # where a tree has them that is laid out as ours; the layout of verify/driving/seams.py
    "model": "bit_transformer.model:BitTransformerLM",
    "update": "bit_transformer.training:train_loop",
    "gate": "bit_transformer.safety:SafetyGate",
}


def driving(tree: SourceTree, tasks: Sequence[Task]) -> dict[str, Any] | None:
    """What judges of tasks are told: where each seam is and how it is called; None of a tree that is laid out as ours.

    Of a task that brings the loop an option they are told its state, and where it is if not in the file of the loop.
    """
    if not tree.model_path:
        roots = sorted({root_of(tree, path) for path in tree.paths} | {""})
        return {"seams": {"any": {}}, "roots": roots, "states": {}}
    root = _root_of_ours(tree)
    if root is not None:
        return {"seams": None, "roots": [root], "states": {}} if root else None
    every = seams(tree)
    bringing = [task for task in tasks if task.option]
    found = {each.task.option: each for each in (survey(tree, bringing) if bringing else ())}
    loops = {each.site.path for each in every if each.name == "update" and each.site is not None}
    sites = {option: _places(status) for option, status in found.items()}
    return {
        "seams": {each.name: each.told() for each in every},
        "roots": sorted({root_of(tree, each.site.path) for each in every if each.site is not None} | {""}),
        "states": {option: str(each.state) for option, each in found.items()},
        "elsewhere": {
            option: f"{own[0].path}:{own[0].line}"
            for option, own in sites.items()
            if own and loops.isdisjoint(each.path for each in own)
        },
    }


def _places(status: TaskStatus) -> list[Site]:
    """Where a tree holds a task, or else where there is something like it."""
    of = {state: [each.site for each in status.findings if each.state is state and not each.aside] for state in State}
    return of[State.APPLIED] or of[State.UNRECOGNISED]


def _root_of_ours(tree: SourceTree) -> str | None:
    """The folder in which our model, loop and gate stand where we have them, called in our words; None of others."""
    found = {name: named(tree, name, where) for name, where in STANDARD.items() if name not in tree.settings.seams}
    if len(found) < len(STANDARD) or not all(each is not None and each.is_plain for each in found.values()):
        return None
    roots = {root_of(tree, each.site.path) for each in found.values() if each is not None and each.site is not None}
    return roots.pop() if len(roots) == 1 else None
