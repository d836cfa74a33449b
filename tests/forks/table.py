"""What judges say of forks once all that can be applied is: a table for docs/forks.md.

    python tests/forks/table.py [FORK ...]

Each fork is a folder here, or any tree.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "bitpatch"]
REFUSED, JUDGED = 3, (0, 4, 5)  # exit codes


def verdicts(fork: Path) -> dict[str, str]:
    """The verdict on each task of a fork with its patches; a copy is patched."""
    with tempfile.TemporaryDirectory() as folder:
        tree = shutil.copytree(fork, Path(folder) / "tree", ignore=shutil.ignore_patterns(".git"))
        for words, codes in ((["apply", "--keep-going"], (0, REFUSED)), (["verify", "--json"], JUDGED)):
            run = subprocess.run([*COMMAND, *words, "--all", "--tree", str(tree)], capture_output=True, text=True)
            if run.returncode not in codes:
                raise SystemExit(f"{fork}: bitpatch {words[0]} ends with {run.returncode}: {run.stderr}")
    return {each["id"]: each["verdict"] for each in json.loads(run.stdout)["tasks"]}


def table(names: list[str]) -> Iterator[str]:
    """A line for each fork, as soon as it is known."""
    yield f"| fork | {' | '.join(map(str, range(1, 13)))} |"
    yield f"| --- |{12 * ' --- |'}"
    for name in names:
        found = verdicts(HERE / name / "tree" if (HERE / name).is_dir() else Path(name))
        yield f"| {Path(name).name} | {' | '.join(found.values())} |"


if __name__ == "__main__":
    for line in table(sys.argv[1:] or sorted(each.parent.name for each in HERE.glob("*/tree"))):
        print(line, flush=True)
