"""Each judge passes reference/ and the good trees, and fails baseline/ and every mutant: law 8."""

import functools
import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mutant import Mutant

from bitpatch.verify.evidence import Evidence, Verdict
from bitpatch.verify.runner import Zygote, verify

ROOT = Path(__file__).parents[2]
TASKS = {
    int(path.stem[-2:]): importlib.import_module(path.stem) for path in sorted(Path(__file__).parent.glob("task_??.py"))
}

Judge = Callable[[int, str], dict[str, Evidence]]


def cases(kind: str) -> list[object]:
    """A parameter (task, name) for each mutant or good tree, and its id."""
    return [
        pytest.param(task, each.name, id=f"task-{task}-{each.name}")
        for task, module in TASKS.items()
        for each in getattr(module, kind)
    ]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture(scope="module")
def judge(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """What each check of a task says of a tree: that of a mutant or good tree, or `reference` or `baseline`."""

    @functools.cache
    def evidence(task: int, name: str) -> dict[str, Evidence]:
        tree = tmp_path_factory.mktemp(name) / "tree"
        shutil.copytree(ROOT / ("baseline" if name == "baseline" else "reference"), tree)
        for each in (*TASKS[task].MUTANTS, *TASKS[task].GOOD):
            if each.name == name:
                each.apply(tree)
        (report,) = verify(tree, [task], zygote=zygote, jobs=2).tasks
        return {result.name: result.evidence for result in report.checks}

    return evidence


def with_verdict(evidence: dict[str, Evidence], verdict: Verdict) -> list[str]:
    return [name for name, each in evidence.items() if each.verdict is verdict]


def not_passed(evidence: dict[str, Evidence]) -> dict[str, str]:
    return {
        name: f"{each.verdict}: {each.detail}" for name, each in evidence.items() if each.verdict is not Verdict.PASS
    }


@pytest.mark.parametrize("task", TASKS)
def test_reference_passes_every_check(judge: Judge, task: int) -> None:
    evidence = judge(task, "reference")
    assert evidence
    assert not_passed(evidence) == {}


@pytest.mark.parametrize("task", TASKS)
def test_baseline_fails_and_ends_in_no_error(judge: Judge, task: int) -> None:
    evidence = judge(task, "baseline")
    assert with_verdict(evidence, Verdict.FAIL)
    assert with_verdict(evidence, Verdict.ERROR) == []


@pytest.mark.parametrize(("task", "name"), cases("GOOD"))
def test_good_tree_in_another_idiom_passes(judge: Judge, task: int, name: str) -> None:
    assert not_passed(judge(task, name)) == {}


@pytest.mark.parametrize(("task", "name"), cases("MUTANTS"))
def test_mutant_is_killed(judge: Judge, task: int, name: str) -> None:
    evidence = judge(task, name)
    killers = with_verdict(evidence, Verdict.FAIL)
    print(f"task-{task} {name}: killed by {', '.join(killers) or 'nothing'}; {not_passed(evidence)}")
    assert killers


@pytest.mark.timeout(1200)  # alone, or first in a random order, it judges every mutant of a task
@pytest.mark.parametrize("task", TASKS)
def test_every_check_kills_a_mutant(judge: Judge, task: int) -> None:
    checks = set(judge(task, "reference"))
    idle = set(checks)
    for mutant in TASKS[task].MUTANTS:
        killers = set(with_verdict(judge(task, mutant.name), Verdict.FAIL))
        if len(killers) < len(checks) - 1:  # what nearly all checks see says little of each
            idle -= killers
    assert idle == set()


@pytest.mark.parametrize("task", TASKS)
def test_names_of_trees_are_unique(task: int) -> None:
    names = [each.name for each in (*TASKS[task].MUTANTS, *TASKS[task].GOOD)]
    assert len({*names, "reference", "baseline"}) == len(names) + 2


def test_edit_that_finds_its_text_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n")
    with pytest.raises(AssertionError, match="2 times"):
        Mutant("twice", "nothing", [("file.py", "a = 1", "a = 2")]).apply(tmp_path)
