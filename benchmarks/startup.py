"""How long the commands take that a person waits for: `python benchmarks/startup.py [ROUNDS]`.

Each command runs in a process of its own, with warm file caches, in turn with the others; printed are
median and worst over the rounds, beside a bare `import libcst`, the floor of every command that parses.
Byte code is cached first, as an installation does; what bitpatch remembers of a tree is not: each round has new
trees and an empty cache, and only what is called "again" finds something there. The crowded tree stands in a
repository with 5,000 other Python files. MB is the peak resident memory.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bitpatch

BASELINE = Path(bitpatch.__file__).parent / "baseline"
REFERENCE = BASELINE.parent / "reference"
CLI = [sys.executable, "-m", "bitpatch"]
LIMITS = {
    "bitpatch --help": 0.3,
    "bitpatch status": 1.0,
    "bitpatch status, again": 1.0,
    "bitpatch apply task-11": 1.2,
    "bitpatch apply --all": 2.0,
    "bitpatch apply --all, again": 0.8,
    "bitpatch apply --all, nothing to do": 0.8,
    "bitpatch status, crowded": 2.5,  # status and 1.5
}
OTHERS = 5000
OTHER = "".join(f'def f{n}(x):\n    """Say {n}."""\n    return [y * {n} for y in range(x)]\n\n\n' for n in range(60))


def crowd(folder: Path) -> Path:
    """The baseline in a repository with many other Python files."""
    for number in range(OTHERS):
        place = folder / f"package_{number % 50}" / f"module_{number}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(OTHER)
    shutil.copytree(BASELINE, folder, dirs_exist_ok=True)
    return folder


def run(command: list[str], cache: Path) -> tuple[float, float]:
    """Seconds and peak resident megabytes of a command."""
    start = time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        crowded = crowd(Path(folder) / "crowded")
        for number in range(rounds + 1):
            tree, fresh, patched, cache = (Path(folder) / name for name in ("tree", "fresh", "patched", "cache"))
            for source, copy in ((BASELINE, tree), (BASELINE, fresh), (REFERENCE, patched)):
                shutil.copytree(source, copy)
            commands = {
                "python -c 'import libcst'": [sys.executable, "-c", "import libcst"],
                "bitpatch --help": [*CLI, "--help"],
                "bitpatch list": [*CLI, "list"],
                "bitpatch status": [*CLI, "status", "--tree", str(fresh)],
                "bitpatch status, again": [*CLI, "status", "--tree", str(fresh)],
                "bitpatch apply task-11": [*CLI, "apply", "task-11", "--tree", str(tree)],
                "bitpatch apply --all": [*CLI, "apply", "--all", "--tree", str(fresh)],
                "bitpatch apply --all, again": [*CLI, "apply", "--all", "--tree", str(fresh)],
                "bitpatch apply --all, nothing to do": [*CLI, "apply", "--all", "--tree", str(patched)],
                "bitpatch status, crowded": [*CLI, "status", "--tree", str(crowded)],
            }
            for name, command in commands.items():
                taken, peak = run(command, cache)
                peaks[name] = max(peak, peaks.get(name, 0.0))
                if number:  # the first round warms the caches
                    seconds.setdefault(name, []).append(taken)
            for gone in (tree, fresh, patched, cache):
                shutil.rmtree(gone)
    print(f"{'command':36} {'median':>8} {'worst':>8} {'limit':>8} {'MB':>6}  over {rounds} rounds")
    for name, measured in seconds.items():
        limit = f"{LIMITS[name]:7.2f}s" if name in LIMITS else f"{'':8}"
        print(f"{name:36} {statistics.median(measured):7.2f}s {max(measured):7.2f}s {limit} {peaks[name]:6.0f}")


if __name__ == "__main__":
    main()
