"""A copy of the folder that a script is called in, to which it writes what it writes."""

import os
import shutil
from pathlib import Path

from ...patches.task import BitpatchError

SKIPPED = {".git", ".hg", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
LARGEST = 16 << 20  # bytes of a file that is copied; a larger one is linked to, where it cannot be written to
MOST, MOST_BYTES = 20_000, 800 << 20  # files, and bytes, of all copies


class TooLarge(BitpatchError):
    """A folder is too large to be copied."""

    exit_code = 5


def copied(folder: Path, to: Path) -> None:
    """Copy a folder's files into another; where nothing of it can be written to, large ones are links.

    Virtual environments, caches and what a version control keeps are left out. Raises TooLarge.
    """
    is_safe = not os.access(folder, os.W_OK)  # by a file system that is read-only, root included
    count = size = 0
    for top, names, files in os.walk(folder):
        names[:] = [each for each in names if each not in SKIPPED and not (Path(top, each) / "pyvenv.cfg").exists()]
        inner = to / Path(top).relative_to(folder)
        inner.mkdir(parents=True, exist_ok=True)
        links = [each for each in names if Path(top, each).is_symlink()]
        for name in links:
            names.remove(name)
        for name in (*files, *links):
            source, target = Path(top, name), inner / name
            if not (source.is_file() or source.is_dir()):
                continue  # a link to nothing, a socket
            own = 0 if source.is_dir() else source.stat().st_size
            count, linked = count + 1, source.is_dir() or (is_safe and own > LARGEST)
            size += 0 if linked else own
            if count > MOST or size > MOST_BYTES or (source.is_dir() and not is_safe):
                raise TooLarge(
                    f"{folder} is too large to be copied, or leads elsewhere by {name}: a script writes to a copy",
                    then="run it from the folder of the script alone",
                )
            if linked:
                target.symlink_to(source.resolve())
            else:
                shutil.copy(source, target)
