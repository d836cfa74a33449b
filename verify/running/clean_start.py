"""A process whose environment holds nothing that a tree must not read: what runs a tree's code starts with it.

What a process was started with stays in /proc/PID/environ for as long as it lives, whatever it deletes from
os.environ, and may be read by every process of the same user. So bitpatch is started once more, without it.
"""

import os
import site
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from .prctl import DUMPABLE, prctl

KEPT = {
    "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "TMPDIR", "TZ", "TZDIR",
    "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    "LANG", "LANGUAGE", "TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR",
    "CLICOLOR", "CLICOLOR_FORCE",
    "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE",
    "PYTHONUNBUFFERED", "PYTHONWARNINGS", "PYTHONFAULTHANDLER", "PYTHONPLATLIBDIR",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "GITHUB_STEP_SUMMARY",  # the path of a file, which bitpatch writes to and no check is told
    "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE",
}  # fmt: skip
KEPT_BEGINNING = "LC_"
CHECKS_KEEP = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
CHECKS_GET = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
}
RUN_A_TREE = ("verify", "bench", "validate")  # `train` too, with the user's environment, as it is the user's own run
MARK = "BITPATCH_CLEAN_START"


def restart_clean(arguments: Sequence[str] | None = None, commands: Collection[str] = RUN_A_TREE) -> None:
    """Replace this process by the same one without the caller's secrets, if it is to run a tree's code.

    Without arguments it is. Returns in the new process, and where there is nothing to leave behind; also where
    Python was not started to run bitpatch: whoever calls it from a program of their own answers for its environment.
    """
    command = None if arguments is None else next((word for word in arguments if not word.startswith("-")), None)
    proves = command == "apply" and "--prove" in (arguments or ())
    if arguments is not None and command not in commands and not proves:
        return
    is_new = os.environ.pop(MARK, "") == str(os.getpid())  # a new program keeps the number
    clean = clean_environment(os.environ)
    if not is_new and clean != dict(os.environ) and may_restart():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**clean, MARK: str(os.getpid())})  # noqa: S606
    prctl(DUMPABLE, 0)  # only root reads what this process holds, and no debugger takes hold of it


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment may be known to a tree."""
    return {name: value for name, value in environment.items() if name in KEPT or name.startswith(KEPT_BEGINNING)}


def may_restart() -> bool:
    """Whether the command that started Python can be given once more: not if it was read from standard input, say."""
    given = sys.argv[1:]
    return (
        bool(sys.executable)
        and sys.argv[0] not in ("", "-")
        and sys.orig_argv[len(sys.orig_argv) - len(given) :] == given
    )


def scrubbed_environment(home: Path) -> dict[str, str]:
    """The environment of the zygote and its children: nothing that is not listed here gets through."""
    environment = {name: os.environ[name] for name in CHECKS_KEEP if name in os.environ}
    if "PYTHONPATH" in environment:  # relative to the zygote's working directory it would mean something else
        paths = [str(Path(path).resolve()) for path in environment["PYTHONPATH"].split(os.pathsep) if path]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment | CHECKS_GET | {"HOME": str(home), "PYTHONUSERBASE": site.getuserbase()}
