import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from bitpatch.verify.driving.forks import in_fork
from bitpatch.verify.running.limits import bytes_written, cpu_seconds, descendants, end_children, own_number

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # xdist's worker has a thread
]
WORK = 0.2  # seconds of CPU time


def work() -> None:
    while time.process_time() < WORK:
        pass


def forked(act: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    return pid


def taken_by_children() -> float:
    return cpu_seconds(own_number(), descendants(own_number()))


def test_cpu_time_of_children_that_have_ended_counts() -> None:
    def act() -> list[float]:
        pid = forked(work)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        waiting = taken_by_children()
        os.waitpid(pid, 0)
        return [waiting, taken_by_children()]

    waiting, reaped = in_fork(act)
    assert reaped == waiting >= 0.9 * WORK


def test_cpu_time_of_grandchildren_that_wait_counts() -> None:
    def act() -> float:
        (reading, writing), (never, _) = os.pipe(), os.pipe()

        def work_and_wait() -> None:
            work()
            os.write(writing, b"x")
            os.read(never, 1)

        forked(lambda: os.waitpid(forked(work_and_wait), 0))
        os.read(reading, 1)
        taken = taken_by_children()
        assert len(list(descendants(own_number()))) == 2
        end_children()
        assert list(descendants(own_number())) == []
        return taken

    assert in_fork(act) >= 0.9 * WORK


def test_processes_may_end_while_they_are_looked_at() -> None:
    def come_and_go() -> None:
        while True:
            for _ in range(5):
                forked(lambda: None)
            for _ in range(5):
                os.wait()

    def act() -> str:
        busy = forked(come_and_go)
        try:
            for _ in range(2000):  # one in some fifty met a process that was gone, in folders that were listed before
                list(descendants(own_number()))
        finally:
            os.kill(busy, signal.SIGKILL)
        return "looked"

    assert in_fork(act) == "looked"


def test_files_count_by_what_they_take(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/full").write_bytes(bytes(1 << 20))
    with (tmp_path / "hollow").open("wb") as file:
        file.truncate(1 << 30)
    assert 1 << 20 <= bytes_written(tmp_path) < 2 << 20
