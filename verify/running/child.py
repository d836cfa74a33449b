"""A check in its own process: cut off, limited, and asked for one answer."""

import contextlib
import faulthandler
import fcntl
import json
import os
import random
import signal
import sys
import tempfile
import traceback
from dataclasses import asdict
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NoReturn

from .evidence import CHECKS, OF_ANY, Evidence, Verdict, unproven
from .limits import Limits, children, end_children, limit_process, own_number

DETAIL_LENGTH, PIPE = 4000, 1 << 16  # an answer must fit into a pipe that nobody reads until the child has ended
NUMBERS = ("measured", "limit")
SETTLE = "settle it: bitpatch seams --write, and say in bitpatch_seams.py how its model and its loop are called"
HELPER = b"from multiprocessing."  # of a process that multiprocessing starts for itself, and that ends by itself


def answer(request: dict[str, Any], pipe: int) -> NoReturn:
    """Run what a request asks for, and write what came of it to the pipe as the last act."""
    pid, nonce, limits = os.getpid(), request.pop("nonce"), Limits(**request["limits"])
    hidden = fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, random.SystemRandom().randrange(300, limits.open_files - 10))
    os.close(pipe)
    tree_path = Path(request["tree"])
    try:
        isolate(Path(request["folder"]), limits)
        content = run(request, tree_path)
        foreign = foreign_module(tree_path) if request["script"] is None else None
        if foreign is not None:
            content = error(f"imported {foreign}, which is not in {tree_path}")
    except BaseException as exception:
        content = error(describe(exception, tree_path))
        if request["driving"] is not None and isinstance(exception, Exception):  # a tree of another layout
            content |= {"verdict": "unproven", "detail": f"cannot be driven so far: {content['detail']}; {SETTLE}"}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or torch raises, wherever we are, for each worker that is killed
    for process in active_children():  # a data loader's workers, if the check still holds one
        process.kill()
        process.join()
    if request["script"] is not None:  # which may have been stopped on its way
        end_children()
    if strays := sum(HELPER not in command_line(child) for child in children(own_number())):
        content = error(f"started {strays} process(es) that it did not wait for")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if os.getpid() != pid:  # the tree forked, and this is the copy
        os._exit(70)
    line = json.dumps({"nonce": nonce} | content)
    if len(line) >= PIPE:
        for each in (content, *content.get("results", ())):
            each["picture"] = None
        line = json.dumps({"nonce": nonce} | content)
    os.write(hidden, line.encode() + b"\n")
    os._exit(0)


def command_line(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def isolate(folder: Path, limits: Limits) -> None:
    """Cut this process off: environment, HOME, working directory, input, limits, random seeds."""
    for name in ("home", "cwd", "scratch"):
        (folder / name).mkdir()
    os.environ.update(HOME=f"{folder}/home", TMPDIR=f"{folder}/scratch", PYTHONDONTWRITEBYTECODE="1")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir = f"{folder}/scratch"  # the zygote has settled on others
    os.chdir(folder / "cwd")
    sys.dont_write_bytecode = True
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable()
    limit_process(limits)
    import numpy  # noqa: PLC0415
    import torch  # noqa: PLC0415

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def run(request: dict[str, Any], path: Path) -> dict[str, Any]:
    """Run a check, the sanity fit, what is timed, or a script, on the tree at a path."""
    if request["script"] is not None and request["driving"] is None:
        from ..scripts.session import watched  # noqa: PLC0415

        return watched(request["script"])
    from ..driving.seams import AbsentPart, MissingSeam  # noqa: PLC0415
    from ..driving.tree import Tree  # noqa: PLC0415

    if request["driving"] is None and not (path / "bit_transformer").is_dir():
        return error(f"no package bit_transformer in {path}")
    tree = Tree(path, request["seconds"], request["driving"])
    try:
        if request["script"] is not None:
            from ..driving.any_model import aside  # noqa: PLC0415

            return aside(tree)
        if request["turn"] is not None:
            from ..driving.timed_runs import play  # noqa: PLC0415

            return play(tree, request["turn"], Path(request["sample"]).read_bytes())
        if request["task"] is None:
            from ..driving.short_fit import fit  # noqa: PLC0415

            return asdict(fit(tree, Path(request["sample"]).read_bytes()))
        checks = [*CHECKS.get(request["task"], ()), *OF_ANY.get(request["task"], ())]
        evidence = checks[request["index"]].function(tree)
    except AbsentPart as absent:
        evidence = Evidence(Verdict.NOT_APPLICABLE, detail=str(absent))
    except MissingSeam as lack:
        evidence = unproven(str(lack))
    if not isinstance(evidence, Evidence):
        return error(f"the check returned {type(evidence).__name__}, not Evidence")
    numbers = {
        name: None if value is None else float(value) for name in NUMBERS for value in (getattr(evidence, name),)
    }
    words = {name: str(getattr(evidence, name))[:DETAIL_LENGTH] for name in ("detail", "reproduce")}
    return asdict(evidence) | numbers | words


def error(detail: str) -> dict[str, Any]:
    return asdict(Evidence(Verdict.ERROR, detail=detail[:DETAIL_LENGTH]))


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
