"""What runs a tree's code holds no secrets, and nothing of it outlives it."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from samples import CODE_ONLY, REFERENCE

from bitpatch.verify.running.clean_start import KEPT, clean_environment, scrubbed_environment
from bitpatch.verify.running.limits import children, descendants
from bitpatch.verify.running.runner import Zygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /proc to read a secret from")

TOKEN = "swordfish"
BUSY = """
import os
alive = os.open({fifo!r}, os.O_WRONLY)
for _ in range(2):
    os.fork()
os.write(alive, b"x")
while True: pass
"""
LOOK = """
import os
found, pid = {}, os.getpid()
while pid != START:
    try:
        with open(f"/proc/{pid}/environ") as file:
            found[pid] = file.read()
    except PermissionError as error:
        found[pid] = str(error)
    with open(f"/proc/{pid}/stat") as file:
        pid = int(file.read().rpartition(")")[2].split()[1])
with open(__file__ + ".found", "w") as file:
    print(len(found), *found.values(), file=file)
"""
VERIFY_FREE = """
import sys
from pathlib import Path
from bitpatch.verify.running.clean_start import restart_clean
from bitpatch.verify.running.runner import Zygote, verify
restart_clean()
with Zygote("fake_judges", confined=False) as zygote:
    print(verify(Path(sys.argv[1]), [1], zygote=zygote).verdict)
"""


def prefixed(tree: Path, source: str) -> Path:
    """A copy of the reference that runs some source first."""
    shutil.copytree(REFERENCE, tree, ignore=CODE_ONLY)
    model = tree / "bit_transformer/model.py"
    model.write_text(source + model.read_text())
    return tree


@contextmanager
def busy(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command `verify` at work on a tree that never ends, and the file that its processes hold open."""
    fifo = tmp_path / "tree" / "alive"
    tree = prefixed(tmp_path / "tree", BUSY.format(fifo=str(fifo)))
    os.mkfifo(fifo)
    alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [sys.executable, "-m", "bitpatch", "verify", "task-7", "--tree", str(tree)]
    secret = {"GITHUB_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": TOKEN, "PYTHONSTARTUP": TOKEN}
    process = subprocess.Popen(command, env=os.environ | secret, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ready, _, _ = select.select([alive, process.stdout], [], [])
        assert alive in ready, process.communicate()  # else it has ended
        assert os.read(alive, 1) == b"x"
        os.set_blocking(alive, True)
        yield process, alive
    finally:
        process.kill()
        process.communicate()
        os.close(alive)


def gone(alive: int) -> None:
    """Wait until nobody holds the file open any more."""
    while os.read(alive, 99):
        pass


def test_no_process_of_verify_holds_a_secret(tmp_path: Path) -> None:
    with busy(tmp_path) as (process, _):
        family = [process.pid, *descendants(process.pid)]
        assert len(family) >= 4  # this command, the zygote, a guard, a check
        for pid in family:
            try:
                environment = Path(f"/proc/{pid}/environ").read_text()
            except PermissionError:  # nor may a tree, then
                continue
            assert TOKEN not in environment
            assert f"PATH={os.environ['PATH']}" in environment or environment == ""


@pytest.mark.parametrize("victim", ["the command", "the zygote", "a guard"])
def test_nothing_outlives_a_kill_of(victim: str, tmp_path: Path) -> None:
    with busy(tmp_path) as (process, alive):
        (zygote,) = children(process.pid)
        guard = children(zygote)[0]
        os.kill({"the command": process.pid, "the zygote": zygote, "a guard": guard}[victim], signal.SIGKILL)
        if victim == "a guard":  # then the other checks go on
            process.send_signal(signal.SIGINT)
        gone(alive)
        if victim == "the zygote":
            assert process.wait() == 5


def test_a_free_tree_finds_no_secret_in_what_started_it(
    tmp_path: Path, make_tree: Callable[..., Path], free_zygote: Zygote
) -> None:
    tree = make_tree(LOOK.replace("START", str(os.getpid())))
    command = [sys.executable, "-c", VERIFY_FREE, str(tree)]
    done = subprocess.run(command, env=os.environ | {"GITHUB_TOKEN": TOKEN}, capture_output=True, text=True, check=True)
    assert done.stdout == "verified\n"
    count, found = (tree / "bit_transformer/model.py.found").read_text().split(" ", 1)
    assert int(count) == 4
    assert TOKEN not in found


def test_the_command_goes_on_as_it_was(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import json, os, signal, sys
        from bitpatch.verify.running.clean_start import restart_clean
        restart_clean(sys.argv[1:])
        traced = __import__("ctypes").CDLL(None).prctl(3, 0, 0, 0, 0)
        print(json.dumps([sys.argv, sys.stdin.read(), os.getcwd(), os.getpid(), sys.flags.safe_path, sys.warnoptions,
                          traced, dict(os.environ)]))
    """)
    command = [sys.executable, "-P", "-W", "ignore", "-c", code, "verify", "--tree", "a b", "-é"]
    kept = {"TERM": "dumb", "COLUMNS": "61", "LC_ALL": "C", "LANG": "C", "PATH": "/bin"}
    kept |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    process = subprocess.Popen(
        command, env=kept | {"SECRET": TOKEN}, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate("typed\n")
    arguments, typed, folder, pid, safe, warned, traced, environment = json.loads(out)
    assert (arguments, typed) == (["-c", "verify", "--tree", "a b", "-é"], "typed\n")
    assert (folder, pid, safe, warned, traced) == (str(tmp_path), process.pid, True, ["ignore"], 0)
    assert {name: value for name, value in environment.items() if name != "LC_CTYPE"} == kept


@pytest.mark.parametrize("words", [["train", "task-a", "verify"], ["list"], ["--version"], []], ids=" ".join)
def test_what_runs_no_foreign_tree_keeps_its_environment(words: list[str]) -> None:
    code = (
        "import os, sys; from bitpatch.verify.running.clean_start import restart_clean; restart_clean(sys.argv[1:]); "
        "print(os.environ.get('SECRET'))"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=os.environ | {"SECRET": TOKEN}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{TOKEN}\n"


def test_a_script_that_was_read_is_not_started_again() -> None:
    code = "import os; from bitpatch.verify.running.clean_start import restart_clean; restart_clean(); print(os.environ['SECRET'])"
    done = subprocess.run(
        [sys.executable, "-"],
        input=code,
        env=os.environ | {"SECRET": TOKEN},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{TOKEN}\n"


def test_only_what_is_listed_is_kept() -> None:
    kept = dict.fromkeys([*KEPT, "LC_ALL", "LC_MESSAGES"], "1")
    secret = dict.fromkeys(
        ["GITHUB_TOKEN", "HF_TOKEN", "AWS_SESSION_TOKEN", "PYTHONSTARTUP", "LD_PRELOAD", "HTTPS_PROXY"], "1"
    )
    assert clean_environment(kept | secret) == kept
    assert set(scrubbed_environment(Path("/home"))) - set(KEPT) <= {
        "LC_ALL", "TRANSFORMERS_OFFLINE", "WANDB_MODE",
    }  # fmt: skip
