"""Work in a forked process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitpatch.patches.applying.beside import beside


def test_answers_from_another_process() -> None:
    with beside(lambda: [os.getpid(), "é"]) as answer:
        pid, text = answer()
    assert (pid != os.getpid(), text) == (True, "é")


@pytest.mark.parametrize("end", [lambda: 1 / 0, lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: {1, 2}])
def test_work_that_fails_answers_nothing(end: object, capfd: pytest.CaptureFixture[str]) -> None:
    with beside(end) as answer:  # type: ignore[arg-type]
        assert answer() is None
    assert capfd.readouterr().err == ""


def test_without_a_second_core_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it forked"))
    with beside(lambda: 1) as answer:
        assert answer() is None


def test_without_another_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with beside(lambda: 1) as answer:
        assert answer() is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_leaves_no_process_where_the_caller_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[int] = []
    fork = os.fork

    def noted() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", noted)
    with pytest.raises(KeyboardInterrupt), beside(signal.pause):  # type: ignore[func-returns-value]
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_does_not_outlive_a_caller_that_is_killed(tmp_path: Path) -> None:
    """The caller has no time to clean up: SIGKILL."""
    script = "import signal\nfrom bitpatch.patches.applying.beside import beside\nwith beside(lambda: wait()):\n    signal.pause()\n"
    wait = f"import os, time\ndef wait():\n    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    caller = subprocess.Popen([sys.executable, "-c", wait + script])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert caller.poll() is None
    caller.kill()
    caller.wait()
    child = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    while (
        child.exists() and child.read_text().rpartition(")")[2].split()[0] not in "ZX"
    ):  # nobody may be there to reap it
        pass
