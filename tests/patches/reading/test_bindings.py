"""How a file writes a dotted name, however it came by it."""

import pytest
from samples import source


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        pytest.param("x = 1\n", None, id="not imported"),
        pytest.param("import torch\n", "torch.triu", id="import"),
        pytest.param("import torch as t\n", "t.triu", id="import as"),
        pytest.param("from torch import triu as upper\n", "upper", id="from import as"),
        pytest.param("import torch\nupper = torch.triu\n", "upper", id="alias of an attribute"),
        pytest.param("import torch as t\nu = t\nt = 1\n", None, id="alias of a name with two meanings"),
        pytest.param("def f():\n    import torch\n", None, id="import in a function"),
        pytest.param("try:\n    import torch\nexcept ImportError:\n    torch = None\n", "torch.triu", id="in a try"),
        pytest.param("import torch\nimport numpy as torch\n", None, id="two meanings"),
        pytest.param("a = b\nb = a\n", None, id="a circle"),
        pytest.param("from . import torch\n", None, id="relative import"),
    ],
)
def test_a_name_is_spelled_by_its_import(text, spelled):
    assert source(text).names.spelled("torch.triu") == spelled
