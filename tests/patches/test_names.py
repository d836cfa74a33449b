"""What a name stands for, however it came by it."""

import libcst as cst
import pytest
from samples import source


def qualified(text):
    """The dotted name of what is called in the last call of a text."""
    file = source(text)
    return file.names.qualified(list(file.walk(cst.Call))[-1].func)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("f(x)\n", None, id="unknown name"),
        pytest.param("x.triu(1)\n", None, id="method of an unknown"),
        pytest.param("import torch\ntorch.triu(x)\n", "torch.triu", id="import"),
        pytest.param("import torch as t\nt.triu(x)\n", "torch.triu", id="import as"),
        pytest.param(
            "import torch.nn.functional as F\nF.pad(x)\n", "torch.nn.functional.pad", id="import of a submodule as"
        ),
        pytest.param("from torch import triu as t\nt(x)\n", "torch.triu", id="from import as"),
        pytest.param("import torch\ntri = torch.triu\ntri(x)\n", "torch.triu", id="alias of an attribute"),
        pytest.param(
            "import torch.nn.functional as F\nG = F\nG.pad(x)\n", "torch.nn.functional.pad", id="alias of a module"
        ),
        pytest.param("def f():\n    import torch\n    torch.triu(x)\n", "torch.triu", id="import in a function"),
        pytest.param("import torch\ndef f(torch):\n    torch.triu(x)\n", None, id="parameter hides an import"),
        pytest.param(
            "try:\n    import torch\nexcept ImportError:\n    torch = None\ntorch.triu(x)\n",
            "torch.triu",
            id="import in a try",
        ),
        pytest.param("import torch\nimport numpy as torch\ntorch.triu(x)\n", None, id="two meanings"),
        pytest.param("a = b\nb = a\na(x)\n", None, id="a circle"),
        pytest.param(
            "import torch\nclass C:\n    torch = 1\n    def f(self):\n        torch.triu(x)\n",
            "torch.triu",
            id="class scope is not seen from a method",
        ),
        pytest.param("from . import ops\nops.triu(x)\n", ".ops.triu", id="relative import"),
    ],
)
def test_qualified(text, name):
    assert qualified(text) == name


def value(text):
    """The code of what the argument of `use` was assigned."""
    file = source(text)
    (call,) = [call for call in file.walk(cst.Call) if file.code(call.func) == "use"]
    found = file.names.value(call.args[0].value)
    return None if found is None else file.code(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("use(x)\n", None, id="never assigned"),
        pytest.param("x = 1\nuse(x)\n", "1", id="assigned"),
        pytest.param("x = 1\nx = 2\nuse(x)\n", "2", id="the last one counts"),
        pytest.param("x, y = 1, 2\nuse(x)\n", "1", id="from a pair"),
        pytest.param("x, y = pair\nuse(x)\n", None, id="from an unknown pair"),
        pytest.param("x = 1\nif c:\n    x = 2\nuse(x)\n", None, id="perhaps reassigned"),
        pytest.param("x = 1\nif c:\n    use(x)\n", "1", id="used in a branch"),
        pytest.param("x = 1\nx += 1\nuse(x)\n", None, id="augmented"),
        pytest.param("for x in y:\n    use(x)\n", None, id="loop variable"),
        pytest.param("use(x)\nx = 1\n", None, id="assigned later"),
        pytest.param("def f(x):\n    use(x)\n", None, id="parameter"),
    ],
)
def test_value(text, expected):
    assert value(text) == expected
