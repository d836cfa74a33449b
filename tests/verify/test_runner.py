import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitpatch.verify import runner
from bitpatch.verify.evidence import Verdict
from bitpatch.verify.report import CheckResult, Outcome, Report, SanityFit
from bitpatch.verify.runner import Progress, VerifyUnavailable, Zygote, plan_checks, run_jobs, verify

MakeTree = Callable[..., Path]
IMPORTS, VERDICTS, BROKEN, MEETING = 1, 2, 3, 5

TEXTS = {"verdict", "detail", "reproduce"}

HARMLESS = {
    "does nothing": "",
    "writes into its working directory": "open('litter', 'w').write('x')",
    "prints a verdict": """print('{"verdict": "fail", "detail": "", "reproduce": ""}')""",
    "deletes its HOME": "import os, shutil; shutil.rmtree(os.environ['HOME'])",
    "ran a command": "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)",
    "ran a spawned worker, whose resource tracker runs on": """
        import os
        from multiprocessing import get_context
        worker = get_context("spawn").Process(target=os.getpid)
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    """,
    "holds a data loader's workers": """
        from torch.utils.data import DataLoader
        loader = DataLoader([1, 2, 3], num_workers=1, persistent_workers=True)
        next(iter(loader))
    """,
}

NASTY = {
    "cannot be imported": (
        "import no_such_module",
        "ModuleNotFoundError: No module named 'no_such_module' at bit_transformer/model.py:1",
    ),
    "exits": ("import sys; sys.exit()", "SystemExit"),
    "exits at once": ("import os; os._exit(0)", "exit status 0 and without a valid answer"),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "raises what cannot be printed": (
        """
        class Mute(BaseException):
            def __str__(self):
                raise RuntimeError
        raise Mute
        """,
        "without a valid answer",
    ),
    "prints a pass and exits": (
        """
        import os
        print('{"verdict": "pass", "measured": null, "limit": null, "detail": "", "reproduce": ""}', flush=True)
        os._exit(0)
        """,
        "without a valid answer; its last output: {",
    ),
    "writes a pass wherever it can and exits": (
        """
        import os
        for fd in range(3, 1100):
            try:
                os.write(fd, b'{"verdict": "pass", "measured": null, "limit": null, "detail": "", "reproduce": ""}\\n')
            except OSError:
                pass
        os._exit(0)
        """,
        "without a valid answer",
    ),
    "closes every file": ("import os; os.closerange(0, 4096)", "without a valid answer"),
    "kills itself": ("import os; os.kill(os.getpid(), 15)", "killed by SIGTERM"),
    "has a segmentation fault": (
        "import ctypes; ctypes.string_at(0)",
        "killed by SIGSEGV; its last output: Fatal Python error",
    ),
    "fills the memory": ("hog = bytearray(8 << 30)", "MemoryError"),
    "fills the memory through torch": ("import torch; hog = torch.ones(1 << 31)", "RuntimeError"),
    "fills the disk": ("file = open('big', 'wb'); file.truncate(1 << 40)", "OSError: [Errno 27] File too large"),
    "opens too many files": ("files = [open('/dev/null') for _ in range(2000)]", "Too many open files"),
    "does not wait for a process that has ended": (
        "import subprocess; child = subprocess.Popen(['true'], stdout=-1); child.stdout.read()",
        "started 1 process(es) that it did not wait for",
    ),
    "forks and carries on twice": ("import os; os.fork()", "started 1 process(es) that it did not wait for"),
    "leaves a process": (
        "import os, signal; os.fork() or signal.pause()",
        "started 1 process(es) that it did not wait for",
    ),
    "imports another tree": (
        "import sys; sys.modules['bit_transformer.scale'] = sys.modules['json']",
        "which is not in",
    ),
}


@pytest.mark.parametrize("source", HARMLESS.values(), ids=HARMLESS)
def test_passes_a_tree_that(source: str, make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree(source)
    report = verify(tree, [IMPORTS], zygote=zygote)
    assert (report.verdict, details(report)) == (Outcome.VERIFIED, [""])


@pytest.mark.parametrize(("source", "detail"), NASTY.values(), ids=NASTY)
def test_ends_in_error_on_a_tree_that(source: str, detail: str, make_tree: MakeTree, zygote: Zygote) -> None:
    report = verify(make_tree(source), [IMPORTS], zygote=zygote)
    assert report.tasks[0].checks[0].evidence.verdict is Verdict.ERROR
    assert detail in details(report)[0]


def test_a_tree_is_as_it_was(make_tree: MakeTree, zygote: Zygote) -> None:
    source = """
        import subprocess, sys
        from . import scale
        subprocess.run([sys.executable, "-c", "import bit_transformer.telemetry"], cwd=sys.path[0], check=True)
    """
    tree = make_tree(source, scale="", telemetry="")
    before = contents(tree)
    report = verify(tree, [IMPORTS], zygote=zygote)
    assert (report.verdict, details(report)) == (Outcome.VERIFIED, [""])
    assert contents(tree) == before


def test_a_folder_without_the_package_is_an_error(tmp_path: Path, zygote: Zygote) -> None:
    report = verify(tmp_path, [IMPORTS], zygote=zygote)
    assert (report.verdict, details(report)) == (Outcome.ERROR, [f"no package bit_transformer in {tmp_path}"])


def test_a_relative_path_names_the_tree(make_tree: MakeTree, zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_tree().parent)
    assert verify(Path("tree"), [IMPORTS], zygote=zygote).verdict is Outcome.VERIFIED


def test_secrets_stay_outside(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree("import os; raise RuntimeError(os.environ.get('SECRET_TOKEN'), open('/proc/self/environ').read())")
    detail = details(verify(tree, [IMPORTS], zygote=zygote))[0]
    assert os.environ["SECRET_TOKEN"] == "swordfish"
    assert detail.startswith("RuntimeError: (None, ")
    assert "swordfish" not in detail


def test_a_check_that_hangs_is_killed(make_tree: MakeTree, zygote: Zygote, tmp_path: Path) -> None:
    tree = make_tree(f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile True: pass")
    report = verify(tree, [IMPORTS], zygote=zygote, time_limit=1)
    assert details(report) == ["did not end within 1 s"]
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_check_that_stops_itself_is_killed(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    assert details(verify(tree, [IMPORTS], zygote=zygote, time_limit=0.5)) == ["did not end within 0.5 s"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody adopts a daemon")
def test_a_daemon_is_found_and_killed(make_tree: MakeTree, zygote: Zygote, tmp_path: Path) -> None:
    tree = make_tree(
        f"""
        import os, signal
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writing, str(os.getpid()).encode())
                signal.pause()
            os._exit(0)
        os.wait()
        open({str(tmp_path / "pid")!r}, "wb").write(os.read(reading, 99))
        """
    )
    assert details(verify(tree, [IMPORTS], zygote=zygote)) == ["started 1 process(es) that it did not wait for"]
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_an_interrupt_leaves_nothing_behind(make_tree: MakeTree, zygote: Zygote, tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    os.mkfifo(ready)
    tree = make_tree(f"import os; open({str(ready)!r}, 'w').write(str(os.getpid()))\nwhile True: pass")
    pids = []

    def interrupt(progress: Progress) -> None:
        if progress.task == VERDICTS:  # the check before it runs already
            pids.append(int(ready.read_text()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(tree, [IMPORTS, VERDICTS], zygote=zygote, jobs=2, on_event=interrupt)
    assert is_gone(pids[0])
    assert [path.name for path in zygote.folder.iterdir()] == ["zygote.log"]
    assert verify(tree, [MEETING], zygote=zygote, jobs=2).verdict is Outcome.VERIFIED


def test_a_tree_that_kills_the_zygote_proves_nothing(make_tree: MakeTree, fake_judges: str) -> None:
    tree = make_tree("import os; os.kill(os.getppid(), 9)")
    with Zygote(fake_judges) as zygote:
        for _ in range(2):
            report = verify(tree, [IMPORTS, MEETING], zygote=zygote)
            assert [task.verdict for task in report.tasks] == [Outcome.ERROR, Outcome.ERROR]
            assert all("the process that runs the checks is gone" in detail for detail in details(report))
    assert not zygote.folder.exists()


def test_a_tree_that_stops_the_zygote_proves_nothing(
    make_tree: MakeTree, fake_judges: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree("import os, signal; os.kill(os.getppid(), signal.SIGSTOP)")
    with Zygote(fake_judges) as zygote:
        monkeypatch.setattr(runner, "GRACE", 0.2)
        report = verify(tree, [IMPORTS], zygote=zygote, time_limit=0.5)
        assert "the process that runs the checks is gone" in details(report)[0]
    assert zygote.process.returncode == -9
    assert not zygote.folder.exists()


@pytest.mark.parametrize(
    "answer",
    [
        {"verdict": "verified"},
        {"verdict": ["pass"]},
        {"verdict": None},
        {"measured": "0"},
        {"measured": True},
        {"limit": []},
        {"detail": None},
        {"reproduce": 1},
    ],
    ids=str,
)
def test_an_answer_of_another_shape_is_an_error(answer: dict[str, Any]) -> None:
    good = {"verdict": "pass", "measured": 0.0, "limit": None, "detail": "", "reproduce": ""}
    assert runner.read_evidence(good).verdict is Verdict.PASS
    assert runner.read_evidence(good | answer).verdict is Verdict.ERROR
    del good[next(iter(answer))]
    assert runner.read_evidence(good).verdict is (Verdict.ERROR if answer.keys() & TEXTS else Verdict.PASS)


def test_every_verdict_arrives(make_tree: MakeTree, zygote: Zygote) -> None:
    checks = verify(make_tree(), [VERDICTS], zygote=zygote, jobs=2).tasks[0].checks
    assert {check.name: str(check.evidence.verdict) for check in checks} == {
        "passes": "pass",
        "fails": "fail",
        "is-unproven": "unproven",
        "is-not-a-number": "fail",
        "raises": "error",
        "returns-no-evidence": "error",
        "has-much-to-say": "fail",
    }
    by_name = {check.name: check for check in checks}
    assert [check.name for check in checks] == list(by_name)
    fails = by_name["fails"].evidence
    assert (fails.measured, fails.limit, fails.detail, fails.margin) == (1.0, 1e-12, "too much", -12.0)
    assert fails.reproduce == "python -c 'see it'"
    assert by_name["raises"].evidence.detail.startswith(
        "ValueError: the judge is at fault at task_02_every_verdict.py:"
    )
    assert by_name["returns-no-evidence"].evidence.detail == "the check returned bool, not Evidence"
    assert set(by_name["has-much-to-say"].evidence.detail) == {"x"}


def test_a_judge_that_does_not_import_is_an_error(make_tree: MakeTree, zygote: Zygote) -> None:
    report = verify(make_tree(), [BROKEN], zygote=zygote)
    assert report.verdict is Outcome.ERROR
    assert "No module named 'no_such_module'" in details(report)[0]


def test_a_task_without_checks_is_unproven(make_tree: MakeTree, zygote: Zygote) -> None:
    assert verify(make_tree(), [12], zygote=zygote).verdict is Outcome.UNPROVEN


def test_tasks_are_reported_once_and_in_the_order_asked(make_tree: MakeTree, zygote: Zygote) -> None:
    report = verify(make_tree(), [12, IMPORTS, 12], zygote=zygote)
    assert [task.id for task in report.tasks] == ["task-12", "task-1"]


def test_only_the_checks_that_are_named_run(make_tree: MakeTree, zygote: Zygote) -> None:
    report = verify(make_tree(), [VERDICTS, IMPORTS], zygote=zygote, only={"is-unproven", "passes"})
    assert [[check.name for check in task.checks] for task in report.tasks] == [["passes", "is-unproven"], []]


def test_naming_no_check_runs_none(make_tree: MakeTree, zygote: Zygote) -> None:
    assert verify(make_tree(), [VERDICTS], zygote=zygote, only=()).verdict is Outcome.UNPROVEN


def test_a_name_that_no_check_has_is_an_error(make_tree: MakeTree, zygote: Zygote) -> None:
    with pytest.raises(ValueError, match=r"^no check of tasks 2, 5 is called no-such-check$"):
        verify(make_tree(), [VERDICTS, MEETING], zygote=zygote, only=["passes", "no-such-check", "here"])


def test_checks_of_two_trees_run_at_the_same_time(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree().resolve()
    (here, there), other = plan_checks(zygote, tree, [MEETING]), tree.with_name("other")
    shutil.copytree(tree, other)
    ended = [
        (job, result) for job, result in run_jobs(zygote, [here, replace(there, tree=other)], 2) if result is not None
    ]
    assert {job.tree for job, _ in ended} == {tree, other}
    assert all(isinstance(result, CheckResult) and result.evidence.verdict is Verdict.PASS for _, result in ended)


def test_two_jobs_run_at_the_same_time(make_tree: MakeTree, zygote: Zygote) -> None:
    assert verify(make_tree(), [MEETING], zygote=zygote, jobs=2).verdict is Outcome.VERIFIED


def test_one_job_runs_alone(make_tree: MakeTree, zygote: Zygote) -> None:
    assert details(verify(make_tree(), [MEETING], zygote=zygote, time_limit=0.3)) == ["did not end within 0.3 s", ""]


def test_progress_is_told_as_it_is_made(make_tree: MakeTree, zygote: Zygote) -> None:
    told: list[Progress] = []
    report = verify(make_tree(), [IMPORTS, BROKEN], zygote=zygote, on_event=told.append)
    assert told == [
        Progress(IMPORTS, "the-tree-imports", done=0, total=1),
        Progress(IMPORTS, "the-tree-imports", done=1, total=1, result=report.tasks[0].checks[0]),
    ]


def test_a_sanity_fit_that_crashes_is_an_error(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree("import os; os._exit(3)")
    fit = verify(tree, [], zygote=zygote, sanity_fit=True, sample=enough_text(tree)).sanity_fit
    assert isinstance(fit, SanityFit)
    assert (fit.verdict, fit.detail) == (Verdict.ERROR, "ended with exit status 3 and without a valid answer")


def test_a_sanity_fit_on_a_tree_without_train_loop_is_an_error(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree()
    fit = verify(tree, [], zygote=zygote, sanity_fit=True, sample=enough_text(tree)).sanity_fit
    assert fit is not None
    assert fit.detail.startswith("AttributeError: module 'bit_transformer.model' has no attribute 'BitTransformerLM'")


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(VerifyUnavailable, match=r"verify needs torch: pip install 'bitpatch\[verify\]'"), Zygote():
        pass


def test_a_zygote_that_does_not_start_says_why() -> None:
    zygote = Zygote("no_such_judges")
    with pytest.raises(VerifyUnavailable, match="No module named 'no_such_judges'"), zygote:
        pass
    assert not zygote.folder.exists()


def test_the_parent_imports_neither_torch_nor_what_comes_with_it() -> None:
    heavy = {"torch", "numpy", "hypothesis", "matplotlib", "rich"}
    code = f"import json, sys, bitpatch.verify.runner; print(json.dumps(sorted({heavy!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == []


def details(report: Report) -> list[str]:
    return [check.evidence.detail for task in report.tasks for check in task.checks]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def enough_text(tree: Path) -> Path:
    path = tree / "sample.txt"
    path.write_bytes(b"text " * 10_000)
    return path
