"""Run commands on a tree in a process of its own, and say what was wrong: a crash, a hang, a change without success."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from functools import cache
from pathlib import Path

from samples import BASELINE

CPU_LIMIT = 5.0  # seconds of CPU time that a command may take on any tree, where the baseline parses in PARSED
PARSED = 0.11  # seconds
COMMANDS = (
    ("status",),
    ("diff", "--all", "--json"),
    ("diff", "task-10", "--format", "patch"),
    ("apply", "--all", "--json"),
    ("apply", "task-10"),
    ("apply", "task-11"),
    ("status", "--json"),
    ("revert",),  # what has been applied
)
CRASHES = ("Traceback", "itself failed", "please report")


def fates(tree: Path, home: Path) -> list[str]:
    """What went wrong on a tree; a process that ends by a signal went wrong too."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            most = int(6 * CPU_LIMIT * len(COMMANDS))
            resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
            os.environ.update(XDG_STATE_HOME=f"{home}/state", XDG_CACHE_HOME=f"{home}/cache")
            with open(writing, "w") as pipe:
                json.dump(_run_all(tree), pipe)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return [f"ended by {signal.Signals(-code).name}"]
    return json.loads(answer) if code == 0 else ["ended without an answer"]


def _run_all(tree: Path) -> list[str]:
    wrong, before = [], _contents(tree)
    applied = set[str]()
    for words in COMMANDS:
        held = _contents(tree)
        if words[0] == "revert":
            words = (*words, *sorted(applied)) if applied else (*words, "--all")
        used = _cpu()
        code, said = _run([*words, "--tree", str(tree)])
        used = _cpu() - used
        name = " ".join(words)
        now = _contents(tree)
        if any(crash in said for crash in CRASHES) or code not in (0, 3, 6):
            wrong.append(f"{name}: exit {code}: {said[-600:]}")
        is_of_one = any(word.startswith("task-") for word in words[:2])
        most = CPU_LIMIT * (1 if is_of_one else 4)  # twelve tasks read and play a tree, some anew after one another
        if used > most and used > most * slowness():
            wrong.append(f"{name}: {used:.1f} s of CPU time")
        if now != held and (code != 0 or words[0] in ("status", "diff")):
            wrong.append(f"{name}: exit {code}, and the tree has changed")
        if words[0] == "apply" and now != held:
            applied |= _tasks_in(said) if "--json" in words else {words[1]}
        if words[0] == "revert" and applied and (code, now) != (0, before):
            wrong.append(f"{name}: exit {code}, and not the tree of before: {said[-600:]}")
    return wrong


def _tasks_in(said: str) -> set[str]:
    """The tasks that an apply says it has applied."""
    try:
        told = json.loads(said[said.index("{") : said.rindex("}") + 1])
    except ValueError:
        return set()
    return {each["id"] for each in told.get("tasks", ()) if each["outcome"] == "applied"}


@cache
def slowness() -> float:
    """How many seconds of CPU time do here what one is meant to: on a crowded machine each does less."""
    texts = [path.read_text() for path in sorted(BASELINE.rglob("*.py"))]
    took = []
    for _ in range(3):
        began = time.process_time()
        for text in texts:
            ast.parse(text)
        took.append(time.process_time() - began)
    return max(1.0, min(took) / PARSED)


def _cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _run(words: list[str]) -> tuple[int, str]:
    from bitpatch.cli import main

    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc(file=err)
    out.flush()
    err.flush()
    return code, (out.buffer.getvalue() + err.buffer.getvalue()).decode("utf-8", "replace")


def _contents(tree: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for folder, folders, names in os.walk(tree):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[path] = f"link to {os.readlink(path)}"
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path] = file.read()
            else:
                found[path] = "folder" if os.path.isdir(path) else "neither"
    return found


if __name__ == "__main__":
    import tempfile

    import odd_trees

    for seed in range(*map(int, sys.argv[1:3])):
        with tempfile.TemporaryDirectory() as folder:
            made = odd_trees.make(seed, Path(folder) / "tree")
            for line in fates(Path(folder) / "tree", Path(folder)):
                print(f"{seed} ({made}): {line}", flush=True)
