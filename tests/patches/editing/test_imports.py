"""How a file spells what it imports, and what it need not import any more."""

import pytest
from samples import source

from bitpatch.patches.editing.edits import apply_edits
from bitpatch.patches.editing.imports import seen_from, without_imports
from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import open_tree

GIVEN = """\
from bit_transformer.model import Model
from bit_transformer.training import count
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from m import a, b\n", "from m import b\n"),
        ("from m import b, a\n", "from m import b\n"),
        ("from m import (\n    b,\n    a,\n)\n", "from m import (\n    b,\n)\n"),
        ("import n\nfrom m import a\n", "import n\n"),
        ("from m import x as a, b as c\n", "from m import b as c\n"),
        ("from m import a; b = 1\n", "b = 1\n"),
        ("from m import b\n", "from m import b\n"),
    ],
)
def test_imports_that_bring_nothing_go(text, expected):
    target = source(text)
    assert apply_edits(target, without_imports(target, {"a"})).raw.decode() == expected


@pytest.mark.parametrize(
    ("path", "text", "file", "spelled"),
    [
        ("dashboard/manager.py", "", "bit_transformer/training.py", "bit_transformer.training"),
        ("bit_transformer/app.py", "from .model import x\n", "bit_transformer/training.py", ".training"),
        ("bit_transformer/sub/app.py", "from ..training import x\n", "bit_transformer/training.py", "..training"),
        (
            "app.py",
            "from bit_transformer.training import x\n",
            "bit_transformer/training.py",
            "bit_transformer.training",
        ),
        ("dashboard/manager.py", "", "train.py", "train"),
        ("tools/app.py", "from train import x\n", "tools/train.py", "train"),
    ],
)
def test_imports_are_spelled_as_the_target_spells_them(model_of, path, text, file, spelled):
    tree = open_tree(model_of(""))
    seen = seen_from(tree, Source(path, text.encode()), source(GIVEN), "training", file).raw.decode()
    assert f"from {spelled} import count\n" in seen
    assert (f"from {'.' * (len(spelled) - len(spelled.lstrip('.')))}model import" in seen) == spelled.startswith(".")
