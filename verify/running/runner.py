"""Run checks on a tree in child processes, and gather what they answer.

This process imports neither torch nor the tree, and believes an answer only if it is JSON of the right
shape, carries the nonce of its request, and comes from a child that then ended well.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...patches.task import BitpatchError
from ..benching.turns import Turn, read_turn
from ..driving.short_fit import read_fit
from ..rendering.report import CheckResult, Report, SanityFit, TaskReport
from ..scripts.answered import Answered, read_script
from ..since.found import Since
from .answers import read_answer, read_evidence
from .clean_start import scrubbed_environment
from .evidence import Evidence, Verdict
from .limits import Limits

START_LIMIT = 1800.0  # seconds for a cold import of torch, on a machine that has much else to do
GRACE = 300.0  # seconds for the zygote to report the end of a child it was told to kill
OUTPUT_LENGTH = 1500  # characters of a crashed child's output that its result quotes
LIMITS = Limits()
SAMPLE = Path(__file__).parents[2] / "reference" / "data" / "sample.txt"
Result = CheckResult | SanityFit | Turn | Answered


class VerifyUnavailable(BitpatchError):
    """Checks cannot run here; the message says why, and what to do."""

    exit_code = 5

    def __init__(self, message: str) -> None:
        super().__init__(message, then="pip install 'bitpatch[verify]'")


@dataclass(frozen=True, slots=True)
class Job:
    """A check to run on a tree, by its place in the zygote's list; without a task, the sanity fit, or what is timed."""

    tree: Path
    task: int | None
    index: int
    name: str
    prop: str
    sample: Path = SAMPLE  # the sanity fit's text
    seconds: float = 0.0  # of processor time that it may fill with random points
    turn: str = "null"  # JSON: options of a training run that is timed
    driving: str = "null"  # JSON: where the seams of the tree are, which else is laid out as ours
    script: str = "null"  # JSON: the script that is run in place of a check


@dataclass(frozen=True, slots=True)
class Running:
    """A child at work, what it works on, and when it is killed."""

    job: Job
    nonce: str
    pipe: int
    folder: Path
    started: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A check has started, or has ended with a result; `done` of `total` have ended."""

    task: int | None
    name: str
    done: int
    total: int
    result: Result | None = None


def ignore_progress(progress: Progress) -> None:
    """Let progress pass unseen."""


class Zygote:
    """A process that has torch and the judges imported, and forks children on request.

    `checks` holds name and property of each task's checks, `of_any` those of trees of other models, `broken` the
    reasons of judges that did not import, `confined` whether checks have namespaces of their own. Raises
    VerifyUnavailable on entry where checks cannot run. One that is not needed is not started.
    """

    checks: dict[int, list[tuple[str, str]]]
    of_any: dict[int, list[tuple[str, str]]]
    broken: dict[int, str]
    spaces: set[str]  # names of checks whose property is tried over a space
    confined: bool

    def __init__(self, judges: str = "bitpatch.verify", *, confined: bool = True, needed: bool = True) -> None:
        self.judges, self.mode, self.needed = judges, "confined" if confined else "free", needed

    def __enter__(self) -> Self:
        if not self.needed:
            return self
        require_packages()
        self.folder = Path(tempfile.mkdtemp(prefix="bitpatch-")).resolve()
        self.control, theirs = socket.socketpair()
        self.buffer, self.numbers = b"", itertools.count()
        command = [sys.executable, "-P", "-m", "bitpatch.verify.running.zygote", str(theirs.fileno())]
        command += [self.judges, self.mode]
        with theirs, (self.folder / "zygote.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=scrubbed_environment(self.folder),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._meet()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _meet(self) -> None:
        try:
            message = self.receive(START_LIMIT)
        except ConnectionError:
            message = None
        if message is None:
            said = tail_of(self.folder / "zygote.log").splitlines()[-1:] or ["it said nothing"]
            raise VerifyUnavailable(f"the process that runs the checks did not start: {said[0]}")
        self.checks, self.of_any = (
            {int(task): [(name, prop) for name, prop in found] for task, found in message[known].items()}
            for known in ("checks", "of_any")
        )
        self.broken = {int(task): reason for task, reason in message["broken"].items()}
        self.confined = message["confined"]
        self.spaces = set(message["spaces"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.needed:
            return
        self.control.close()  # on which the zygote kills its children and ends
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def send(self, message: dict[str, Any], pipe: int | None = None) -> None:
        """Send a request, with the pipe that takes its answer."""
        line = json.dumps(message).encode() + b"\n"
        if pipe is None:
            self.control.sendall(line)
        else:
            sent = socket.send_fds(self.control, [line], [pipe])
            self.control.sendall(line[sent:])

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The zygote's next message, or None if there is none in time; ConnectionError if it is gone."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            self.control.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                received = self.control.recv(65536)
            except TimeoutError:
                return None
            finally:
                self.control.settimeout(None)
            if not received:
                raise ConnectionError
            self.buffer += received
        line, _, self.buffer = self.buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


def require_packages() -> None:
    """Raise VerifyUnavailable unless what children import is installed. Nothing is imported here."""
    missing = [
        name for name in ("torch", "hypothesis", "numpy", "allpairspy") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise VerifyUnavailable(f"verify needs {', '.join(missing)}: pip install 'bitpatch[verify]'")


def verify(
    tree: Path,
    tasks: Sequence[int],
    *,
    zygote: Zygote,
    sanity_fit: bool = False,
    jobs: int = 1,
    limits: Limits = LIMITS,
    sample: Path = SAMPLE,
    only: Collection[str] | None = None,
    driving: dict[str, Any] | None = None,
    seconds: float = 0.0,
    since: Since | None = None,
    on_event: Callable[[Progress], None] = ignore_progress,
) -> Report:
    """Run the checks of tasks (`only` those named) on a tree, `jobs` at a time, each within limits.

    `driving` says where its seams are (patches/reading/seams.py), if it is not laid out as ours; checks fill so many
    `seconds` with random points of their spaces. What was compared `since` a commit, the report says.
    """
    began = time.monotonic()
    tree = tree.resolve()
    planned = [Job(tree, None, 0, "sanity-fit", "", sample)] if sanity_fit else []  # first, as it takes longest
    checks = plan_checks(zygote, tree, tasks, only, of_any="any" in ((driving or {}).get("seams") or ()))
    told, share = json.dumps(driving), seconds * jobs / max(1, sum(job.name in zygote.spaces for job in checks))
    planned = [
        replace(job, driving=told, seconds=share if job.name in zygote.spaces else 0.0) for job in [*planned, *checks]
    ]
    limits = replace(limits, cpu=limits.cpu + 2 * share, wall=limits.wall + 20 * share)
    results, fit = dict[Job, CheckResult](), None
    with contextlib.closing(run_jobs(zygote, planned, jobs, limits)) as events:
        for job, result in events:
            if isinstance(result, SanityFit):
                fit = result
            elif isinstance(result, CheckResult):
                results[job] = result
            on_event(Progress(job.task, job.name, len(results) + (fit is not None), len(planned), result))
    reports = tuple(
        TaskReport(task, (*broken_judge(zygote, task), *(results[job] for job in planned if job.task == task)))
        for task in dict.fromkeys(tasks)
    )
    return Report(tree, reports, fit, time.monotonic() - began, since)


def plan_checks(
    zygote: Zygote, tree: Path, tasks: Sequence[int], only: Collection[str] | None = None, *, of_any: bool = False
) -> list[Job]:
    """A job for each check of the tasks on a tree, or for those that are named; ValueError where none is so called."""
    others = zygote.of_any if of_any else {}
    known = [
        Job(tree, task, index, name, prop)
        for task in dict.fromkeys(tasks)
        for index, (name, prop) in enumerate([*zygote.checks.get(task, ()), *others.get(task, ())])
    ]
    if unknown := set(only or ()) - {job.name for job in known}:
        raise ValueError(f"no check of tasks {', '.join(map(str, tasks))} is called {', '.join(sorted(unknown))}")
    return [job for job in known if only is None or job.name in only]


def broken_judge(zygote: Zygote, task: int) -> Iterator[CheckResult]:
    """The result of a task's judge that did not import."""
    if task in zygote.broken:
        evidence = Evidence(Verdict.ERROR, detail=zygote.broken[task])
        yield CheckResult(task, "judge", "the judge imports", evidence, 0.0)


def run_jobs(
    zygote: Zygote, planned: Sequence[Job], at_once: int, limits: Limits = LIMITS
) -> Generator[tuple[Job, Result | None]]:
    """Yield each job as it starts, with None, and as it ends, with its result; kill what is left on the way out."""
    waiting, running, overdue = deque(planned), dict[int, Running](), set[int]()
    try:
        while waiting or running:
            while waiting and len(running) < max(at_once, 1):
                yield waiting[0], None
                number = next(zygote.numbers)
                running[number] = start(zygote, number, waiting[0], limits)
                waiting.popleft()
            message = zygote.receive(min(child.deadline for child in running.values()) - time.monotonic())
            if message is None:
                kill_overdue(zygote, running, overdue)
            elif message["ended"] in running:
                child = running.pop(message["ended"])
                yield child.job, finish(child, message, limits, overdue=message["ended"] in overdue)
    except ConnectionError:
        lost = [child.job for child in running.values()] + list(waiting)
        for job in lost:
            yield job, error_result(job, "the process that runs the checks is gone; the tree may have killed it", 0.0)
    finally:
        stop(zygote, running)


def start(zygote: Zygote, number: int, job: Job, limits: Limits) -> Running:
    """Have the zygote fork a child for a job."""
    folder = Path(tempfile.mkdtemp(dir=zygote.folder))
    nonce = secrets.token_hex(16)
    reading, writing = os.pipe()
    request = {"id": number, "nonce": nonce, "task": job.task, "index": job.index, "limits": asdict(limits)}
    request |= {"tree": str(job.tree), "folder": str(folder), "sample": str(job.sample), "seconds": job.seconds}
    request |= {name: json.loads(getattr(job, name)) for name in ("driving", "turn", "script")}
    now = time.monotonic()
    child = Running(job, nonce, reading, folder, now, now + limits.wall)
    try:
        zygote.send(request, writing)
    except BaseException:
        discard(child)
        raise
    finally:
        os.close(writing)
    return child


def kill_overdue(zygote: Zygote, running: dict[int, Running], overdue: set[int]) -> None:
    """Have the children killed whose time is up; ConnectionError if one was to be killed GRACE seconds ago."""
    now = time.monotonic()
    for number, child in running.items():
        if now < child.deadline:
            continue
        if number in overdue:
            raise ConnectionError
        overdue.add(number)
        running[number] = replace(child, deadline=now + GRACE)
        zygote.send({"kill": number})


def stop(zygote: Zygote, running: dict[int, Running]) -> None:
    """Kill the children that still run, wait until they are gone, and remove what they left."""
    with contextlib.suppress(ConnectionError):
        for number in running:
            zygote.send({"kill": number})
        going, deadline = set(running), time.monotonic() + GRACE
        while going and (message := zygote.receive(deadline - time.monotonic())) is not None:
            going.discard(message["ended"])
    for child in running.values():
        discard(child)


def discard(child: Running) -> None:
    """Close a child's pipe and remove its folder."""
    os.close(child.pipe)
    shutil.rmtree(child.folder, ignore_errors=True)


def finish(child: Running, message: dict[str, Any], limits: Limits, *, overdue: bool) -> Result:
    """The result of a child that has ended: its answer if all is well, an error otherwise."""
    seconds = time.monotonic() - child.started
    answer, code = read_answer(child.pipe, child.nonce), os.waitstatus_to_exitcode(message["status"])
    trouble = None
    if overdue:
        trouble = f"did not end within {limits.wall:g} s, though it took less than {limits.cpu:g} s of CPU time"
    elif code == -signal.SIGXCPU:
        trouble = f"did not end within {limits.cpu:g} s of CPU time"
    elif message["exceeded"]:
        trouble = str(message["exceeded"])
    elif code < 0:
        trouble = f"killed by {signal.Signals(-code).name}"
    elif message["left"]:
        trouble = f"started {message['left']} process(es) that it did not wait for"
    elif answer is None or code:
        trouble = f"ended with exit status {code} and without a valid answer"
    output = tail_of(child.folder / "output")
    discard(child)
    if answer is None or trouble is not None:
        return error_result(child.job, f"{trouble}; its last output: {output}" if output else str(trouble), seconds)
    if child.job.turn != "null":
        return read_turn(answer)
    if child.job.script != "null":
        return read_script(answer, seconds)
    if child.job.task is None:
        return read_fit(answer, child.job.sample, seconds)
    return CheckResult(child.job.task, child.job.name, child.job.prop, read_evidence(answer), seconds)


def error_result(job: Job, detail: str, seconds: float) -> Result:
    """The result of a job that gave no answer."""
    if job.turn != "null":
        return Turn.failed(detail)
    if job.task is None:
        return SanityFit(Verdict.ERROR, detail, (), (), seconds)
    return CheckResult(job.task, job.name, job.prop, Evidence(Verdict.ERROR, detail=detail), seconds)


def tail_of(path: Path) -> str:
    """The end of a file that a child wrote, fit for a terminal; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 8 * OUTPUT_LENGTH, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    _, crash, after = text.rpartition("Fatal Python error")  # which faulthandler follows with much
    text = (crash + after)[:OUTPUT_LENGTH] if crash else text[-OUTPUT_LENGTH:]
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text).strip()
