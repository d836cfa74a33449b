"""What modules import, however they say it, and what does not say it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bitpatch.verify.since.history import history
from bitpatch.verify.since.reach import Reach

from .conftest import write

Make = Callable[..., Path]
IMPORTS = {
    "a module beside it": "from . import blocks",
    "a name of a module": "from .blocks import WIDTH",
    "everything": "from .blocks import *",
    "from the top": "import bit_transformer.blocks",
    "under another name": "import bit_transformer.blocks as b",
    "in a function": "def f():\n    from . import blocks",
    "for types alone": "if TYPE_CHECKING:\n    from .blocks import WIDTH",
    "by a text": 'import importlib\nimportlib.import_module("bit_transformer.blocks")',
    "by a relative text": "from importlib import import_module\nimport_module('.blocks', __name__)",
    "by __import__": '__import__("bit_transformer.blocks")',
    "by a text that something else imports": 'TARGET = "bit_transformer.blocks:WIDTH"',
    "as a script": 'run(["python", "bit_transformer/blocks.py"])',
    "from a folder that sys.path is said to have": 'sys.path.append("bit_transformer")\nimport blocks',
}
UNTOLD = {
    "import_module(name)": "from importlib import import_module\nimport_module(name)",
    "an f-string": 'importlib.import_module(f"bit_transformer.{name}")',
    "under another name": "from importlib import import_module as get\nget('x')",
    "passed on": "list(map(importlib.import_module, names))",
    "by getattr": 'getattr(importlib, "import_module")(name)',
    "__import__(name)": "__import__(name)",
    "exec": "exec(text)",
    "eval": "eval(text)",
    "runpy": "import runpy",
    "a file": "importlib.util.spec_from_file_location('x', path)",
    "another process": "import subprocess",
    "a shell": "os.system(text)",
    "a module that does not parse": "def",
}


def reach(root: Path, text: str, path: str = "bit_transformer/model.py") -> tuple[set[str], bool]:
    write(root, {path: text})
    return Reach(history(root, "main"), [""]).closure([path])


@pytest.mark.parametrize("text", IMPORTS.values(), ids=IMPORTS)
def test_a_module_is_reached(repository: Make, text: str) -> None:
    found, is_told = reach(repository(), text)
    assert ("bit_transformer/blocks.py" in found, is_told) == (True, True)


@pytest.mark.parametrize("text", UNTOLD.values(), ids=UNTOLD)
def test_what_is_imported_is_not_told(repository: Make, text: str) -> None:
    assert not reach(repository(), text)[1]


@pytest.mark.parametrize("text", ["model.eval()", "re.compile(x)", "def f(compile):\n    compile", "import importlib"])
def test_what_only_looks_so_is_told(repository: Make, text: str) -> None:
    assert reach(repository(), text) == ({"bit_transformer/model.py", "bit_transformer/__init__.py"}, True)


def test_what_is_imported_imports_in_turn_and_in_circles(repository: Make) -> None:
    root = repository(
        {"bit_transformer/blocks.py": "from . import safety", "bit_transformer/safety.py": "from . import model"}
    )
    found, _ = reach(root, "from . import blocks")
    assert found == {f"bit_transformer/{name}.py" for name in ("__init__", "model", "blocks", "safety")}


def test_packages_around_a_module_run_with_it(repository: Make) -> None:
    found, _ = reach(repository({"a/__init__.py": "import scripts.plot", "a/b/c.py": ""}), "import a.b.c")
    assert {"a/__init__.py", "a/b/c.py", "scripts/plot.py"} <= found


def test_a_module_above_is_reached(repository: Make) -> None:
    found, _ = reach(repository(), "from ..safety import SafetyGate", "bit_transformer/parts/heads.py")
    assert "bit_transformer/safety.py" in found


def test_a_module_that_is_gone_is_reached_where_it_was(repository: Make) -> None:
    root = repository()
    (root / "bit_transformer/blocks.py").unlink()
    assert "bit_transformer/blocks.py" in reach(root, "from . import blocks")[0]


def test_a_module_that_is_ignored_is_reached_where_it_lies(repository: Make) -> None:
    root = repository({".gitignore": "made.py\n"})
    write(root, {"bit_transformer/made.py": "from . import blocks"})
    assert {"bit_transformer/made.py", "bit_transformer/blocks.py"} <= reach(root, "from .made import x")[0]


def test_a_module_behind_a_link_is_reached_where_it_is(repository: Make) -> None:
    root = repository({"parts/heads.py": ""})
    (root / "bit_transformer/parts").symlink_to("../parts")
    assert "parts/heads.py" in reach(root, "from .parts import heads")[0]
