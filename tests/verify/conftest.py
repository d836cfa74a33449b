import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitpatch.verify.running.runner import Zygote

JUDGES = {
    "task_01_imports": """
        @check(task=1, prop="the tree imports")
        def the_tree_imports(tree):
            tree.module("model")
            return passed("")
    """,
    "task_02_every_verdict": """
        @check(task=2, prop="passes")
        def passes(tree):
            return at_most(1e-15, 1e-12)

        @check(task=2, prop="fails")
        def fails(tree):
            return at_most(1.0, 1e-12, "too much", "python -c 'see it'", Picture("events", "done", ["step"], ["clip"]))

        @check(task=2, prop="is unproven")
        def is_unproven(tree):
            return unproven("nothing to look at")

        @check(task=2, prop="is not a number")
        def is_not_a_number(tree):
            return at_most(float("nan"), 1e-12)

        @check(task=2, prop="raises")
        def raises(tree):
            raise ValueError("the judge is at fault")

        @check(task=2, prop="returns no evidence")
        def returns_no_evidence(tree):
            return True

        @check(task=2, prop="has much to say")
        def has_much_to_say(tree):
            return failed("x" * 10**6, picture=Picture("curves", "losses", 4000 * [1 / 3], 4000 * [2 / 3]))
    """,
    "task_03_broken": "import no_such_module",
    "task_04_surroundings": """
        import ctypes
        def may_be_traced():
            return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1 if os.uname().sysname == "Linux" else None

        ZYGOTE_MAY_BE_TRACED = may_be_traced()

        @check(task=4, prop="what a check finds around itself")
        def surroundings(tree):
            import hypothesis, json, os, random, resource, sys, tempfile, threading
            import numpy, torch
            return passed(json.dumps({
                "environment": dict(os.environ),
                "at_start": open("/proc/self/environ").read(),
                "cwd": os.getcwd(),
                "scratch": tempfile.gettempdir(),
                "stdin": sys.stdin.read(),
                "threads": [torch.get_num_threads(), threading.active_count()],
                "drawn": [random.random(), numpy.random.rand(), torch.rand(1).item(), hash("bitpatch")],
                "session": os.getsid(0) == os.getpid(),
                "core": resource.getrlimit(resource.RLIMIT_CORE),
                "derandomized": hypothesis.settings().derandomize,
                "preloaded": "torch._dynamo" in sys.modules,
                "traced": [ZYGOTE_MAY_BE_TRACED, may_be_traced()],
            }))
    """,
    "task_05_meeting": """
        def meet(tree, mode):
            open(tree.path / "meeting", mode).close()  # a FIFO, which opens when the other end does
            return passed("")

        @check(task=5, prop="the other runs at the same time")
        def here(tree):
            return meet(tree, "r")

        @check(task=5, prop="the other runs at the same time")
        def there(tree):
            return meet(tree, "w")
    """,
}
HEAD = "import os\nfrom bitpatch.verify.running.evidence import Picture, at_most, check, failed, passed, unproven\n"


@pytest.fixture(scope="session")
def fake_judges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a package of judges that a zygote can import."""
    folder = tmp_path_factory.mktemp("judges")
    package = folder / "fake_judges"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, source in JUDGES.items():
        (package / f"{name}.py").write_text(HEAD + textwrap.dedent(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        patch.setenv("SECRET_TOKEN", "swordfish")
        yield package.name


@pytest.fixture(scope="session")
def zygote(fake_judges: str) -> Iterator[Zygote]:
    with Zygote(fake_judges) as zygote:
        yield zygote


@pytest.fixture(scope="session")
def free_zygote(fake_judges: str) -> Iterator[Zygote]:
    """As where the system grants no namespaces."""
    with Zygote(fake_judges, confined=False) as zygote:
        yield zygote


@pytest.fixture(params=["zygote", "free_zygote"], ids=["confined", "free"])
def each_zygote(request: pytest.FixtureRequest) -> Zygote:
    """A zygote whose checks have namespaces of their own, where that can be had, and one whose checks have none."""
    zygote: Zygote = request.getfixturevalue(request.param)
    return zygote


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Write a tree whose module `model` (or another) has the given source.

    It has FIFOs: what a tree writes elsewhere nobody else sees.
    """

    def make(source: str = "", **modules: str) -> Path:
        package = tmp_path / "tree" / "bit_transformer"
        package.mkdir(parents=True)
        for name, text in {"__init__": "", "model": source, **modules}.items():
            (package / f"{name}.py").write_text(textwrap.dedent(text))
        for name in ("alive", "meeting"):
            os.mkfifo(package.parent / name)
        return package.parent

    return make
