import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import CODE_ONLY, REFERENCE

from bitpatch.verify.driving.forks import ENDLESS, Interrupted, counted, in_fork, is_asleep, start, wait_until_asleep
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.limits import Limits
from bitpatch.verify.running.runner import Zygote, verify

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # xdist's worker has a thread
SPIN = """

import os
MINE, READ = os.getpid(), BitRows.__getitem__


def spin(rows, index):
    while os.getpid() != MINE:  # in a forked process
        pass
    return READ(rows, index)


BitRows.__getitem__ = spin
"""


@pytest.fixture(scope="module")
def judges() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


def test_work_is_returned() -> None:
    assert in_fork(lambda: [1, "two"]) == [1, "two"]


def test_a_process_that_was_killed_says_nothing() -> None:
    with pytest.raises(Interrupted, match="SIGKILL"):
        in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_nor_does_one_whose_time_is_up() -> None:
    with pytest.raises(Interrupted, match="SIGXCPU"):
        in_fork(lambda: os.kill(os.getpid(), signal.SIGXCPU))


def test_nor_does_one_that_waited_for_it() -> None:
    with pytest.raises(Interrupted):
        in_fork(lambda: in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_a_process_that_crashes_has_ended() -> None:
    assert in_fork(lambda: os.kill(os.getpid(), signal.SIGTERM)) == ("ended", "the process was ended by signal 15")


def test_work_that_goes_round_for_ever_is_found_by_what_it_asks_for() -> None:
    def look_for_ever() -> None:
        while True:
            os.listdir("/")

    said = f"it goes round for ever: {ENDLESS:,} times it asks the system for something, os.listdir last"
    assert in_fork(lambda: counted(look_for_ever)) == ["ended", said]


def test_a_process_that_waits_is_asleep_and_one_that_works_is_waited_for() -> None:
    asked, ask = os.pipe()

    def work_then_wait() -> str:
        os.close(ask)
        for _ in range(3_000_000):  # longer than it takes to fall asleep
            pass
        return os.read(asked, 1).decode()

    pid, pipe = start(work_then_wait)
    wait_until_asleep(pid, pipe)
    assert is_asleep(pid)
    os.write(ask, b"x")
    with pipe:
        assert pipe.read() == b'"x"'
    os.waitpid(pid, 0)
    os.close(ask)
    os.close(asked)


def test_a_load_that_does_not_end_is_an_error_and_no_violation(tmp_path: Path, judges: Zygote) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(REFERENCE, tree, ignore=CODE_ONLY)
    with (tree / "data/wikitext_schedule.py").open("a") as file:
        file.write(SPIN)
    report = verify(tree, [5], zygote=judges, only=["workers-give-the-same-rows"], limits=Limits(cpu=3))
    (result,) = report.tasks[0].checks
    assert result.evidence.verdict is Verdict.ERROR
    assert result.evidence.detail.startswith("did not end within 3 s of CPU time")  # whatever its workers say of that
