"""The process that imports torch once, and forks a child for each check of a tree.

Started by `runner.Zygote`, which speaks to it in lines of JSON over a unix socket. A request names a
check; the write end of the pipe that takes the answer travels beside it. A child lives in its own
session with a scrubbed environment, a temporary HOME and working directory, and limits on memory, time,
file size and open files. Its answer carries the nonce of its request and is written last, so a process
that ends early, however it ends, has given no answer.

What this guards against is accident: trees that exit, hang, print, fork or fill the memory. A tree that
sets out to deceive its judge runs in the same process as the judge, and is out of reach.
"""

import contextlib
import faulthandler
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections import deque
from dataclasses import asdict, dataclass, field
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NoReturn

from .evidence import CHECKS, Evidence

MEMORY = 2 << 30  # bytes that a child may allocate
FILE_SIZE = 256 << 20
OPEN_FILES = 1024
DETAIL_LENGTH = 4000  # an answer must fit into a pipe that nobody reads until the child has ended
HELPER = b"from multiprocessing."  # of a process that multiprocessing starts for itself, and that ends by itself
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(slots=True)
class Server:
    """The zygote's end of the control socket, and the children that are running."""

    control: socket.socket
    bell: int  # readable after a SIGCHLD
    children: dict[int, int] = field(default_factory=dict)  # pid -> id of its request


def main() -> None:
    """Import torch and the judges of the package argv[2], then serve the socket whose fd is argv[1]."""
    control, judges = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    importlib.import_module(judges)
    preload()
    broken = import_judges(judges)
    checks = {task: [[check.name, check.prop] for check in CHECKS[task]] for task in sorted(CHECKS)}
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page it marks
    send(control, {"checks": checks, "broken": broken})
    become_subreaper()
    bell, ring = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    server = Server(control, bell)
    try:
        serve(server)
    finally:
        server.children.clear()
        kill_orphans(server)
        shutil.rmtree(Path.cwd(), ignore_errors=True)  # the parent is gone, perhaps without tidying up


def preload() -> None:
    """Import what children would import one by one. Nothing is computed: a fork must find one thread."""
    import torch  # noqa: PLC0415 - a missing torch is reported by the parent, before this process starts

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    importlib.import_module("torch._dynamo")  # 1.8 s, which the first optimizer or checkpoint would pay
    importlib.import_module("torch.utils.data")
    from hypothesis import HealthCheck, settings  # noqa: PLC0415

    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile("bitpatch", derandomize=True, database=None, deadline=None, suppress_health_check=slow)
    settings.load_profile("bitpatch")


def import_judges(package: str) -> dict[int, str]:
    """Import the modules task_NN_* of a package; return the reasons of those that did not import."""
    broken = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        number = re.match(r"task_(\d\d)_", module.name)
        if number is None:
            continue
        try:
            importlib.import_module(f"{package}.{module.name}")
        except Exception:
            broken[int(number[1])] = traceback.format_exc(limit=-1)
    return broken


def become_subreaper() -> None:
    """Have processes that a tree leaves behind become our children (Linux)."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def serve(server: Server) -> None:
    """Fork and kill as the parent asks, and tell it of each end, until it closes the socket."""
    buffer, pipes = b"", deque[int]()
    while True:
        control = server.control.fileno()
        ready, _, _ = select.select([control, server.bell], [], [])
        if server.bell in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(server.bell, 4096)
            report_ends(server)
        if control in ready:
            received, fds, _, _ = socket.recv_fds(server.control, 65536, 16)
            if not received:
                return
            pipes.extend(fds)
            *lines, buffer = (buffer + received).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "kill" in request:
                    for pid in [pid for pid, number in server.children.items() if number == request["kill"]]:
                        kill_session(pid)
                else:
                    fork_child(server, request, pipes.popleft())


def send(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def report_ends(server: Server) -> None:
    """Reap the children that have ended, and kill whatever each has left behind."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        pid = ended.si_pid
        if pid not in server.children:
            os.waitpid(pid, 0)
            continue
        left = kill_orphans(server)
        kill_session(pid)  # before it is reaped: until then no other process can have its number
        _, status = os.waitpid(pid, 0)
        send(server.control, {"ended": server.children.pop(pid), "status": status, "left": left})


def kill_session(pid: int) -> None:
    """Kill a child and its process group; the child may not have had the time to make one."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def kill_orphans(server: Server) -> int:
    """Kill and reap the processes whose parent, a check, has ended; return how many were alive."""
    left = 0
    while orphans := [pid for pid in children_of_this() if pid not in server.children]:
        left += sum(line != b"" and HELPER not in line for line in map(command_line, orphans))
        for pid in orphans:
            kill_session(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return left


def children_of_this() -> list[int]:
    """The children of this process that are not reaped; none where the system does not tell (not Linux)."""
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]


def command_line(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def fork_child(server: Server, request: dict[str, Any], pipe: int) -> None:
    """Fork the child that will answer a request on a pipe."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(pipe)
        server.children[pid] = request["id"]
        return
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            server.control.close()
            os.close(server.bell)
            answer(request, pipe)
    finally:
        os._exit(70)


def answer(request: dict[str, Any], pipe: int) -> NoReturn:
    """Run what a request asks for, and write what came of it to the pipe as the last act."""
    pid, nonce = os.getpid(), request.pop("nonce")
    hidden = fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, random.SystemRandom().randrange(300, OPEN_FILES - 10))
    os.close(pipe)
    tree_path = Path(request["tree"])
    try:
        isolate(Path(request["folder"]), request["seconds"])
        content = run(request, tree_path)
        foreign = foreign_module(tree_path)
        if foreign is not None:
            content = error(f"imported {foreign}, which is not in {tree_path}")
    except BaseException as exception:
        content = error(describe(exception, tree_path))
    for process in active_children():  # a data loader's workers, if the check still holds one
        process.kill()
        process.join()
    strays = sum(HELPER not in command_line(child) for child in children_of_this())
    if strays:
        content = error(f"started {strays} process(es) that it did not wait for")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if os.getpid() != pid:  # the tree forked, and this is the copy
        os._exit(70)
    os.write(hidden, json.dumps({"nonce": nonce} | content).encode() + b"\n")
    os._exit(0)


def isolate(folder: Path, seconds: float) -> None:
    """Cut this process off: environment, HOME, working directory, output, limits, random seeds."""
    for name in ("home", "cwd", "scratch"):
        (folder / name).mkdir()
    os.environ.update(HOME=f"{folder}/home", TMPDIR=f"{folder}/scratch", PYTHONDONTWRITEBYTECODE="1")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir = f"{folder}/scratch"  # the zygote has settled on others
    os.chdir(folder / "cwd")
    sys.dont_write_bytecode = True
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable()
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_CPU, int(seconds) + 1)
    limit(resource.RLIMIT_FSIZE, FILE_SIZE)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    limit(resource.RLIMIT_DATA, allocated() + MEMORY)
    import numpy  # noqa: PLC0415
    import torch  # noqa: PLC0415

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def allocated() -> int:
    """Bytes of private memory that this process had before its tree was imported."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[5]) * resource.getpagesize() if statm.exists() else 0


def run(request: dict[str, Any], path: Path) -> dict[str, Any]:
    """Run a check, or the sanity fit, on the tree at a path."""
    from .tree import Tree  # noqa: PLC0415

    if not (path / "bit_transformer").is_dir():
        return error(f"no package bit_transformer in {path}")
    tree = Tree(path)
    if request["task"] is None:
        from .sanity_fit import fit  # noqa: PLC0415

        return asdict(fit(tree, Path(request["sample"]).read_bytes()))
    evidence = CHECKS[request["task"]][request["index"]].function(tree)
    if not isinstance(evidence, Evidence):
        return error(f"the check returned {type(evidence).__name__}, not Evidence")
    return {
        "verdict": evidence.verdict,
        "measured": None if evidence.measured is None else float(evidence.measured),
        "limit": None if evidence.limit is None else float(evidence.limit),
        "detail": str(evidence.detail)[:DETAIL_LENGTH],
        "reproduce": str(evidence.reproduce)[:DETAIL_LENGTH],
    }


def error(detail: str) -> dict[str, Any]:
    return {"verdict": "error", "measured": None, "limit": None, "detail": detail[:DETAIL_LENGTH], "reproduce": ""}


def describe(exception: BaseException, tree: Path) -> str:
    """One line: what was raised, and where, preferably in the tree."""
    frames = traceback.extract_tb(exception.__traceback__)
    in_tree = [frame for frame in frames if Path(frame.filename).is_relative_to(tree)]
    where = ""
    if in_tree:
        where = f" at {Path(in_tree[-1].filename).relative_to(tree)}:{in_tree[-1].lineno}"
    elif frames:
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
    traceback.print_exception(exception)
    return f"{type(exception).__name__}: {exception}{where}"


def foreign_module(tree: Path) -> str | None:
    """A module bit_transformer that came from elsewhere, an installed one say: then the judged tree was not this."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] == "bit_transformer" and file and not Path(file).resolve().is_relative_to(tree):
            return str(file)
    return None


if __name__ == "__main__":
    main()
