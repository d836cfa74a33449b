"""How long the commands take that a person waits for: `python benchmarks/startup.py [ROUNDS]`.

Each command runs in a process of its own, with warm file caches, in turn with the others; printed are
median and worst over the rounds, beside a bare `import libcst`, the floor of every command that parses.
Byte code is cached first, as an installation does. A patched tree is thrown away after each round.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bitpatch

BASELINE = Path(bitpatch.__file__).parent / "baseline"
CLI = [sys.executable, "-m", "bitpatch.cli"]
LIMITS = {"bitpatch --help": 0.3, "bitpatch apply task-11": 1.2}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            tree = shutil.copytree(BASELINE, Path(folder) / "tree")
            commands = {
                "python -c 'import libcst'": [sys.executable, "-c", "import libcst"],
                "bitpatch --help": [*CLI, "--help"],
                "bitpatch list": [*CLI, "list"],
                "bitpatch status": [*CLI, "status", "--tree", str(tree)],
                "bitpatch apply task-11": [*CLI, "apply", "task-11", "--tree", str(tree)],
                "bitpatch apply --all": [*CLI, "apply", "--all", "--tree", str(tree)],
                "bitpatch apply --all, again": [*CLI, "apply", "--all", "--tree", str(tree)],
            }
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if number:  # the first round warms the caches
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
    print(f"{'command':30} {'median':>8} {'worst':>8} {'limit':>8}  over {rounds} rounds")
    for name, measured in seconds.items():
        limit = f"{LIMITS[name]:8.2f}" if name in LIMITS else f"{'':8}"
        print(f"{name:30} {statistics.median(measured):7.2f}s {max(measured):7.2f}s {limit}")


if __name__ == "__main__":
    main()
