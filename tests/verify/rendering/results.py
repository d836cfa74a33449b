"""Results to render: of a tree with what is known of it, red and green, and of one that means harm."""

from pathlib import Path

from bitpatch.patches.known import task_named
from bitpatch.patches.task import Change, Site, State
from bitpatch.verify.rendering.report import CheckResult, Report, SanityFit, TaskReport
from bitpatch.verify.rendering.surroundings import InTree, Shown
from bitpatch.verify.running.evidence import Evidence, Picture, Verdict, at_most, failed, passed, unproven
from bitpatch.verify.since.found import OwnTests, Since

HOSTILE = "</pre><script>alert(1)</script>\n::error file=x::no\x00\x1b[31m ```` ~~~ | & ]]> %0A"
MAP = [[1.0, 0.0, None], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]
PICTURES = [
    Picture("curves", "rates", [0.1, 0.2, None, 0.4], [0.1, 0.2, 0.3, 0.2], "update", "learning rate"),
    Picture("maps", "the first head", MAP, [row[::-1] for row in MAP], "key", "query"),
    Picture("events", "what happened", ["backward", "step", "step"], ["backward", "clip", "step"]),
]


def result(task: int, name: str, evidence: Evidence) -> CheckResult:
    return CheckResult(task, name, f"what {name} promises", evidence, 0.5)


def report(*more: TaskReport, fit: SanityFit | None = None) -> Report:
    """A task that fails in four ways, one that passes."""
    error = Evidence(Verdict.ERROR, detail="killed by SIGSEGV")
    red = [
        Evidence(Verdict.FAIL, 0.5, 0.1, "update 3, layers.0.weight", "print(1)", picture=PICTURES[0]),
        failed(HOSTILE, "print('a\nb')", picture=PICTURES[1]),
        Evidence(Verdict.FAIL, detail="a list", picture=PICTURES[2]),
        unproven("the tree has no loop; settle it: bitpatch seams --write"),
        error,
        passed("fine"),
    ]
    tasks = (
        TaskReport(4, tuple(result(4, f"check-{place}", each) for place, each in enumerate(red))),
        TaskReport(11, (result(11, "stays-inside", at_most(1e-9, 1e-6)),)),
    )
    return Report(Path("/home/me/tree"), (*tasks, *more), fit, 12.3)


def fit(verdict: Verdict = Verdict.PASS) -> SanityFit:
    return SanityFit(verdict, "", tuple(1 - place / 500 for place in range(200)), tuple([1e-3] * 200), 9.0)


def since() -> Since:
    """What a pull request changed: one file, and two tests that no longer run."""
    lost = ("tests/test_m.py:3: test_one is gone", "tests/test_m.py:9: test_two is skipped now (skip)")
    return Since("main", ("pkg/model.py",), {"task-7": "nothing that its judge runs has changed"}, OwnTests(3, 1, lost))


def shown(made: Report | None = None, changes: tuple[Change, ...] = ()) -> Shown:
    """The same with its places: task-4 is missing at two of them, and apply would write a change."""
    sites = (Site.at("pkg/train loop.py", "the update", 7, 5), Site.at("pkg/model.py", "the model", 3, 1))
    changes = changes or (Change("pkg/train loop.py", b"a\nb\nc\n", b"a\nB1\nB2\nc\nd\n"),)
    excerpt = tuple((number, f"line {number} <b>") for number in range(4, 11))
    known = {
        4: InTree(task_named("4"), State.MISSING, sites, changes, excerpt=excerpt),
        11: InTree(task_named("11"), State.APPLIED, sites[1:]),
    }
    return Shown(made or report(), known, "trees/mine/", "trees/mine")
