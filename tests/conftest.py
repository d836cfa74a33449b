"""Trees to patch, and the ways to look at them."""

from __future__ import annotations

import gc
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from samples import BASELINE, CODE_ONLY

from bitpatch.cli import main
from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import SourceTree, open_tree
from bitpatch.patches.task import State

# A plan makes millions of nodes that last for a test: to go through them again and again costs a quarter of the time.
# What is left of them goes when a module's tests end.
gc.set_threshold(100_000, 50, 50)

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# What is started in the background ignores these, and so would each command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Of what is tried on many trees, `--sample` tries one in so many; `make laws` and `make fuzz` try all of theirs.
SAMPLED = {
    "drift/test_forks.py": 8,
    "drift/test_rewrites.py": 4,
    "fuzz/test_growth.py": 3,
    "laws/test_bytes.py": 5,
    "laws/test_diagonal.py": 5,
    "laws/test_order.py": 6,
    "laws/test_order_of_drift.py": 4,
    "laws/test_revert.py": 4,
    "laws/test_revert_of_drift.py": 6,
    "patches/applying/test_survey.py": 3,
    "verify/scripts/test_shapes.py": 4,
    "verify/test_any_model.py": 2,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", action="store_true", help="of laws that are tried on many trees, a part")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--sample"):
        return
    config.hook.pytest_deselected(items=[item for item in items if is_left_out(item.nodeid)])
    items[:] = [item for item in items if not is_left_out(item.nodeid)]


def is_left_out(name: str) -> bool:
    """Whether a test that is one of many, with other parameters, is left out; the same ones each time."""
    path, _, rest = name.partition("::")
    share = SAMPLED.get(path.removeprefix("tests/"), 1)
    return "[" in rest and zlib.crc32(rest.encode()) % share != 0


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """Nothing of a module's tests is left behind them: a process of gigabytes takes long to fork."""
    gc.freeze()  # what is there already, which would be gone through again
    yield
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, so that no test writes to the user's; a cache folder stands beside it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return home / "state"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A fresh copy of the baseline."""
    return Path(shutil.copytree(BASELINE, tmp_path / "tree", ignore=CODE_ONLY))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def patched() -> Callable[..., Path]:
    """Apply tasks to a tree without the command line, and return it."""

    def patch(tree: Path, *names: str) -> Path:
        planned = plan(open_tree(tree), [task_named(name) for name in names])
        assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
        for change in planned.changes:
            (tree / change.path).write_bytes(change.after)
        return tree

    return patch


@pytest.fixture
def model_of(tmp_path: Path) -> Callable[[str], Path]:
    """A tree that is only a model file."""

    def make(text: str) -> Path:
        package = tmp_path / "small" / "bit_transformer"
        package.mkdir(parents=True, exist_ok=True)
        (package / "model.py").write_text(text + "\n\nclass BitTransformerLM:\n    pass\n")
        return package.parent

    return make


@pytest.fixture
def loop_of(model_of: Callable[[str], Path]) -> Callable[[str], SourceTree]:
    """A tree that is a model file and this training file."""

    def make(text: str) -> SourceTree:
        root = model_of("")
        (root / "bit_transformer/training.py").write_text(text)
        return open_tree(root)

    return make


@pytest.fixture
def after() -> Callable[..., str]:
    """The one file that a task changes, as the task leaves it."""

    def text(tree: SourceTree, name: str) -> str:
        planned = plan(tree, [task_named(name)])
        assert not planned.refused, planned.outcomes[0].reason
        (change,) = planned.changes
        return change.after.decode()

    return text


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Why a task is refused."""

    def reason(tree: SourceTree, name: str) -> str:
        planned = plan(tree, [task_named(name)])
        assert (planned.refused, planned.changes) == (True, ()), planned.outcomes[0].outcome
        return planned.outcomes[0].reason

    return reason


@pytest.fixture
def state_of() -> Callable[..., State]:
    """How far a tree holds a task."""

    def look(tree: SourceTree, name: str) -> State:
        (found,) = status(tree, [task_named(name)])
        return found.state

    return look
