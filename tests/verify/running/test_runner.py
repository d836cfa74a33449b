import contextlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitpatch.verify.rendering.report import CheckResult, Outcome, Report, SanityFit
from bitpatch.verify.running import answers, runner
from bitpatch.verify.running.evidence import Picture, Verdict
from bitpatch.verify.running.limits import Limits
from bitpatch.verify.running.runner import Progress, VerifyUnavailable, Zygote, plan_checks, run_jobs, verify

MakeTree = Callable[..., Path]
IMPORTS, VERDICTS, BROKEN, MEETING = 1, 2, 3, 5
ALIVE = """
import os
alive = os.open(os.path.dirname(os.path.dirname(__file__)) + "/alive", os.O_WRONLY)
os.write(alive, b"x")
"""
KILL = """
import os
guard = os.getppid()
fields = open(f"/proc/{{guard}}/stat").read().rpartition(")")[2].split()
os.kill(int(fields[1]), {signal})  # the zygote
"""

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
    "holds a data loader's workers, of which torch hears that they were killed before it is waited for them": """
        import time
        from multiprocessing.process import BaseProcess
        from torch.utils.data import DataLoader
        loader, join = DataLoader([1, 2, 3], num_workers=2, persistent_workers=True), BaseProcess.join
        BaseProcess.join = lambda process: (time.sleep(0.2), join(process))
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
def test_passes_a_tree_that(source: str, make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree(source)
    report = verify(tree, [IMPORTS], zygote=each_zygote)
    assert (report.verdict, details(report)) == (Outcome.VERIFIED, [""])


@pytest.mark.parametrize(("source", "detail"), NASTY.values(), ids=NASTY)
def test_ends_in_error_on_a_tree_that(source: str, detail: str, make_tree: MakeTree, each_zygote: Zygote) -> None:
    report = verify(make_tree(source), [IMPORTS], zygote=each_zygote)
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


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        """
        import os, time
        while True:
            if os.fork() == 0:
                while time.process_time() < 0.02: pass
                os._exit(0)
            os.wait()
        """,
        """
        import os, signal
        if os.fork() == 0:
            if os.fork():
                os._exit(0)
            while True: pass
        os.wait()
        signal.pause()
        """,
        """
        import os, time
        while True:
            reading, writing = os.pipe()
            if os.fork() == 0:
                if os.fork():
                    os._exit(0)
                while time.process_time() < 0.02: pass
                os._exit(0)
            os.wait()
            os.close(writing)
            os.read(reading, 1)  # until the one that was left has ended
            os.close(reading)
        """,
        """
        import threading
        def work():
            while True: pass
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
    ],
    ids=["in itself", "in short processes", "in one that it leaves", "in short ones that it leaves", "in threads"],
)
def test_a_check_that_takes_too_much_cpu_time_is_killed(source: str, make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree(ALIVE + textwrap.dedent(source))
    with witness(tree) as alive:
        report = verify(tree, [IMPORTS], zygote=each_zygote, limits=Limits(cpu=0.5))
        assert all_are_gone(alive)
    assert details(report) == ["did not end within 0.5 s of CPU time"]
    assert report.verdict is Outcome.ERROR


def test_waiting_is_no_cpu_time(make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree("import time; time.sleep(1.5)")
    assert verify(tree, [IMPORTS], zygote=each_zygote, limits=Limits(cpu=1)).verdict is Outcome.VERIFIED


@pytest.mark.parametrize("source", ["import signal; signal.pause()", "import os; os.kill(os.getpid(), 19)"])
def test_a_check_that_waits_for_ever_is_killed(source: str, make_tree: MakeTree, each_zygote: Zygote) -> None:
    report = verify(make_tree(source), [IMPORTS], zygote=each_zygote, limits=Limits(wall=0.5))
    assert details(report) == ["did not end within 0.5 s, though it took less than 120 s of CPU time"]
    assert report.verdict is Outcome.ERROR


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody adopts a daemon")
def test_a_daemon_is_found_and_killed(make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree(
        ALIVE
        + textwrap.dedent("""
        import os, signal
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.pause()
            os._exit(0)
        os.wait()
        """)
    )
    with witness(tree) as alive:
        report = verify(tree, [IMPORTS], zygote=each_zygote)
        assert all_are_gone(alive)
    assert details(report) == ["started 1 process(es) that it did not wait for"]


def test_an_interrupt_leaves_nothing_behind(make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree(ALIVE + "while True: pass")

    def interrupt(progress: Progress) -> None:
        if progress.task == VERDICTS:  # the check before it runs already
            assert read_first(alive) == b"x"
            raise KeyboardInterrupt

    with witness(tree) as alive:
        with pytest.raises(KeyboardInterrupt):
            verify(tree, [IMPORTS, VERDICTS], zygote=each_zygote, jobs=2, on_event=interrupt)
        assert os.read(alive, 1) == b""
    assert [path.name for path in each_zygote.folder.iterdir()] == ["zygote.log"]
    assert verify(tree, [MEETING], zygote=each_zygote, jobs=2).verdict is Outcome.VERIFIED


MORE = {
    "files in memory that are only open": (
        """
        import os
        files = [os.memfd_create("x") for _ in range(12)]
        for file in files: os.write(file, bytes(32 << 20))
        """,
        "held more than 320 MiB of memory",
    ),
    "memory that processes share": (
        """
        import mmap
        maps = [mmap.mmap(-1, 32 << 20) for _ in range(12)]
        for each in maps: each.write(bytes(32 << 20))
        """,
        "held more than 320 MiB of memory",
    ),
    "memory in several processes": (
        """
        import os
        for _ in range(4):
            if os.fork() == 0:
                hog = b"x" * (80 << 20)
                signal.pause()
        """,
        "held more than 320 MiB of memory",
    ),
    "many processes": ("for _ in range(6): os.fork()", "started more than 40 processes at once"),
}
WRITTEN = {
    "/dev/shm": "shared memory has grown by more than 64 MiB since checks began",
    "/tmp": None,
    "/var/tmp": None,
    "its folder": "wrote more than 64 MiB of files",
}
SMALL = Limits(held=320 << 20, files=64 << 20, processes=40)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody counts")
@pytest.mark.parametrize(("source", "detail"), MORE.values(), ids=MORE)
def test_what_is_held_together_is_limited(source: str, detail: str, make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree(f"{ALIVE}\nimport os, signal\n{textwrap.dedent(source)}\nsignal.pause()")
    with witness(tree) as alive:
        report = verify(tree, [IMPORTS], zygote=each_zygote, limits=SMALL)
        assert all_are_gone(alive)
    assert details(report)[0].startswith(detail)
    assert report.verdict is Outcome.ERROR


def test_what_processes_share_counts_once(make_tree: MakeTree, each_zygote: Zygote) -> None:
    tree = make_tree(
        """
        import mmap, os
        shared = mmap.mmap(-1, 120 << 20)
        shared.write(bytes(120 << 20))
        reading, writing = os.pipe()
        for _ in range(3):
            if os.fork() == 0:
                for place in range(0, len(shared), 4096): shared[place]
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
        import time
        time.sleep(0.5)  # for a look or two
        os.close(writing)
        for _ in range(3): os.wait()
        """
    )
    report = verify(tree, [IMPORTS], zygote=each_zygote, limits=SMALL)
    assert (report.verdict, details(report)) == (Outcome.VERIFIED, [""])


@pytest.mark.parametrize(("place", "detail"), WRITTEN.items(), ids=WRITTEN)
def test_what_is_written_is_limited_and_gone(
    place: str, detail: str | None, make_tree: MakeTree, each_zygote: Zygote
) -> None:
    if not each_zygote.confined and detail is None:
        pytest.skip("on a disk, and not in a check's own folder: docs/security.md")
    name = f"bitpatch-test-{os.getpid()}"
    folder = "." if place == "its folder" else place
    tree = make_tree(
        f"""
        import signal
        with open("{folder}/{name}", "wb") as file:
            for _ in range(65): file.write(bytes(1 << 20))
        signal.pause()
        """
    )
    try:
        report = verify(tree, [IMPORTS], zygote=each_zygote, limits=SMALL)
    finally:
        left = [path for path in (Path(folder, name),) if path.exists()]
        for path in left:
            path.unlink()
    if each_zygote.confined:
        detail = "OSError: [Errno 28] No space left on device at bit_transformer/model.py:4"
        assert left == []
    assert details(report) == [detail]
    assert report.verdict is Outcome.ERROR


CONFINED = {
    "sees no process but its own": "assert sorted(p for p in os.listdir('/proc') if p.isdigit()) == ['1', str(os.getpid())]",
    "cannot end its guard": "os.kill(1, 9); assert os.path.exists('/proc/1')",
    "has no network but its own": "assert os.listdir('/sys/class/net') or True; import socket; assert [n for _, n in socket.if_nameindex()] == ['lo']",
    "reaches its own network": "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())",
    "writes nowhere else": "raises(PermissionError if os.getuid() else OSError, lambda: open(os.path.expanduser('~root/x'), 'w'))",
    "does not write to itself": "raises(OSError, lambda: open(__file__, 'a'))",
    "cannot undo that": "raises(OSError, lambda: os.unlink(__file__)); import subprocess; assert subprocess.run(['umount', '/tmp']).returncode",
    "is not root to others": "import ctypes; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == -1",
    "writes to a /tmp of its own": "open('/tmp/x', 'x').write('x'); os.remove('/tmp/x')",
    "shares memory by name": "from multiprocessing.shared_memory import SharedMemory as S; s = S(create=True, size=9); S(s.name).close(); s.close(); s.unlink()",
}
RAISES = """
import os
def raises(kind, work):
    try:
        work()
    except kind:
        return
    raise AssertionError("nothing was raised")
"""


@pytest.mark.parametrize("source", CONFINED.values(), ids=CONFINED)
def test_a_confined_check(source: str, make_tree: MakeTree, zygote: Zygote) -> None:
    if not zygote.confined:
        pytest.skip("this system grants no namespaces")
    assert details(verify(make_tree(RAISES + source), [IMPORTS], zygote=zygote)) == [""]


def test_a_guard_that_breaks_says_what_of(make_tree: MakeTree, zygote: Zygote) -> None:
    limits = replace(Limits(), held="much")  # type: ignore[arg-type] - so that it breaks
    (task,) = verify(make_tree("import time; time.sleep(60)"), [IMPORTS], zygote=zygote, limits=limits).tasks
    (result,) = task.checks
    assert result.evidence.verdict is Verdict.ERROR
    assert "exit status 70" in result.evidence.detail
    assert "TypeError" in result.evidence.detail.splitlines()[-1]


def test_a_tree_that_kills_the_zygote_proves_nothing(make_tree: MakeTree, fake_judges: str) -> None:
    tree = make_tree(KILL.format(signal=9))
    with Zygote(fake_judges, confined=False) as zygote:  # others have no number for it
        for _ in range(2):
            report = verify(tree, [IMPORTS, MEETING], zygote=zygote)
            assert [task.verdict for task in report.tasks] == [Outcome.ERROR, Outcome.ERROR]
            assert all("the process that runs the checks is gone" in detail for detail in details(report))
    assert not zygote.folder.exists()


def test_a_tree_that_stops_the_zygote_proves_nothing(
    make_tree: MakeTree, fake_judges: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(KILL.format(signal=19))
    with Zygote(fake_judges, confined=False) as zygote:
        monkeypatch.setattr(runner, "GRACE", 0.2)
        report = verify(tree, [IMPORTS, MEETING], zygote=zygote, limits=Limits(wall=0.5))
        assert all("the process that runs the checks is gone" in detail for detail in details(report)[1:])
        assert report.verdict is Outcome.ERROR
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
    assert answers.read_evidence(good).verdict is Verdict.PASS
    assert answers.read_evidence(good | answer).verdict is Verdict.ERROR
    del good[next(iter(answer))]
    assert answers.read_evidence(good).verdict is (Verdict.ERROR if answer.keys() & TEXTS else Verdict.PASS)


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
    assert fails.picture == Picture("events", "done", ["step"], ["clip"])
    assert by_name["raises"].evidence.detail.startswith(
        "ValueError: the judge is at fault at task_02_every_verdict.py:"
    )
    assert by_name["returns-no-evidence"].evidence.detail == "the check returned bool, not Evidence"
    assert set(by_name["has-much-to-say"].evidence.detail) == {"x"}
    assert by_name["has-much-to-say"].evidence.picture is None  # it does not fit into a pipe


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
    shutil.copytree(tree, other, ignore=shutil.ignore_patterns("alive", "meeting"))
    os.link(tree / "meeting", other / "meeting")
    ended = [
        (job, result) for job, result in run_jobs(zygote, [here, replace(there, tree=other)], 2) if result is not None
    ]
    assert {job.tree for job, _ in ended} == {tree, other}
    assert all(isinstance(result, CheckResult) and result.evidence.verdict is Verdict.PASS for _, result in ended)


def test_two_jobs_run_at_the_same_time(make_tree: MakeTree, zygote: Zygote) -> None:
    assert verify(make_tree(), [MEETING], zygote=zygote, jobs=2).verdict is Outcome.VERIFIED


def test_one_job_runs_alone(make_tree: MakeTree, zygote: Zygote) -> None:
    alone = "did not end within 0.3 s, though it took less than 120 s of CPU time"
    assert details(verify(make_tree(), [MEETING], zygote=zygote, limits=Limits(wall=0.3))) == [alone, alone]


def test_progress_is_told_as_it_is_made(make_tree: MakeTree, zygote: Zygote) -> None:
    told: list[Progress] = []
    report = verify(make_tree(), [IMPORTS, BROKEN], zygote=zygote, on_event=told.append)
    assert told == [
        Progress(IMPORTS, "the-tree-imports", done=0, total=1),
        Progress(IMPORTS, "the-tree-imports", done=1, total=1, result=report.tasks[0].checks[0]),
    ]


def test_what_a_tree_of_another_layout_raises_is_unproven_with_what_settles_it(
    make_tree: MakeTree, zygote: Zygote
) -> None:
    tree = make_tree("raise LookupError('which way?')")
    driving = {"roots": [""], "states": {}, "seams": {}}
    reports = [verify(tree, [IMPORTS], zygote=zygote, driving=each) for each in (None, driving)]
    assert [report.verdict for report in reports] == [Outcome.ERROR, Outcome.UNPROVEN]
    assert details(reports[1])[0].startswith("cannot be driven so far: LookupError: which way? at bit_transformer/")
    assert "settle it: bitpatch seams --write" in details(reports[1])[0]


def test_a_sanity_fit_that_crashes_is_an_error(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree("import os; os._exit(3)")
    fit = verify(tree, [], zygote=zygote, sanity_fit=True, sample=enough_text(tree)).sanity_fit
    assert isinstance(fit, SanityFit)
    assert (fit.verdict, fit.detail) == (Verdict.ERROR, "ended with exit status 3 and without a valid answer")


def test_a_sanity_fit_on_a_tree_without_a_model_is_unproven(make_tree: MakeTree, zygote: Zygote) -> None:
    tree = make_tree()
    fit = verify(tree, [], zygote=zygote, sanity_fit=True, sample=enough_text(tree)).sanity_fit
    assert fit is not None
    assert fit.verdict is Verdict.UNPROVEN
    assert fit.detail == (
        "seam bit_transformer.model:BitTransformerLM: bit_transformer.model has no BitTransformerLM; "
        "settle it: name what there is in pyproject.toml"
    )


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
    code = f"import json, sys, bitpatch.verify.running.runner; print(json.dumps(sorted({heavy!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == []


def details(report: Report) -> list[str]:
    return [check.evidence.detail for task in report.tasks for check in task.checks]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@contextlib.contextmanager
def witness(tree: Path) -> Iterator[int]:
    """A file in which ALIVE of a tree writes, and that is at its end when no process holds it open any more."""
    file = os.open(tree / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield file
    finally:
        os.close(file)


def read_first(alive: int) -> bytes:
    """What the first process writes, once it does."""
    select.select([alive], [], [])
    return os.read(alive, 1)


def all_are_gone(alive: int) -> bool:
    """Whether there were processes, and all have ended."""
    return os.read(alive, 1) == b"x" and os.read(alive, 1) == b""


def enough_text(tree: Path) -> Path:
    path = tree / "sample.txt"
    path.write_bytes(b"text " * 10_000)
    return path
