"""Other ways to name what is imported."""

import ast
import re
from pathlib import Path

from drift.naming import add_import, before, in_every_file, rename_in
from drift.patterns import edited, first_line, line_end, offset, restate, substitute
from drift.rewriting import DoesNotFit, find, read, retext, rewrite, write

MODEL, TRAINING = "bit_transformer/model.py", "bit_transformer/training.py"
MODELS = (9, 10, 11, 12)
READ = ("mcp_server.py", "model.py", "manager.py")  # whose annotations the servers look at


def replaced_line(path: Path, old: str, new: str) -> None:
    text = read(path)
    if f"{old}\n" not in text:
        raise DoesNotFit(f"no line {old} in {path.name}")
    write(path, text.replace(f"{old}\n", f"{new}\n" if new else "", 1))


@rewrite("imports", 1, 3, *MODELS)
def torch_as_th(tree: Path) -> None:
    """torch is imported as th in model.py and training.py."""
    for file in (MODEL, TRAINING):
        path = find(tree, file)
        replaced_line(path, "import torch", "import torch as th")
        # `import torch.nn.functional as F` and `from torch import nn` do not bind torch.
        text = read(path)
        write(
            path,
            re.sub(
                r"(?<![\w.\"'])torch\.(?=\w)(?!nn\.functional as|utils\.checkpoint import|utils\.data import)",
                "th.",
                text,
            ),
        )


@rewrite("imports", 9)
def functional_as_fn(tree: Path) -> None:
    """torch.nn.functional comes from torch.nn, under another name."""
    for file in (MODEL, TRAINING):
        path = find(tree, file)
        replaced_line(path, "import torch.nn.functional as F", "from torch.nn import functional as fn")
        substitute(tree, "F.$name", "fn.$name", file)


@rewrite("imports", 9)
def functional_in_full(tree: Path) -> None:
    """torch.nn.functional is written out."""
    for file in (MODEL, TRAINING):
        path = find(tree, file)
        replaced_line(path, "import torch.nn.functional as F", "import torch.nn.functional")
        substitute(tree, "F.$name", "torch.nn.functional.$name", file)


@rewrite("imports", *MODELS)
def layers_by_name(tree: Path) -> None:
    """Linear, Dropout and the rest are imported by their names."""
    path = find(tree, MODEL)
    names = sorted({"Module", *re.findall(r"\bnn\.(\w+)", read(path))})
    substitute(tree, "nn.$name", "$name", MODEL)
    replaced_line(
        path, "from torch import Tensor, nn", f"from torch import Tensor\nfrom torch.nn import {', '.join(names)}"
    )
    if re.search(r"\bnn\.\w", re.sub(r"torch\.nn", "", read(path))):
        raise DoesNotFit("nn is used in another way too")


@rewrite("imports", 9, 10)
def torch_functions_by_name(tree: Path) -> None:
    """softmax, triu and ones are imported from torch by their names."""
    substitute(tree, "torch.softmax($x, dim=$d)", "softmax($x, dim=$d)", MODEL)
    substitute(tree, "torch.triu($x, diagonal=1)", "triu($x, diagonal=1)", MODEL)
    add_import(find(tree, MODEL), "from torch import softmax, triu")


@rewrite("imports", 9, 10)
def torch_functions_assigned(tree: Path) -> None:
    """Functions of torch, and minus infinity, have names that are assigned at the top."""
    substitute(tree, "torch.triu($x, diagonal=1)", "_upper($x, diagonal=1)", MODEL)
    substitute(tree, 'float("-inf")', "NEG_INF", MODEL)
    substitute(tree, "torch.softmax", "_softmax", MODEL)
    before(find(tree, MODEL), "SelfAttention", '_softmax, _upper = torch.softmax, torch.triu\nNEG_INF = float("-inf")')


@rewrite("imports", 10)
def dtype_assigned(tree: Path) -> None:
    """The masks' options are a dict at the top that is spread."""
    substitute(
        tree, "torch.ones($n, $n, dtype=torch.bool, device=$d)", "torch.ones($n, $n, device=$d, **AS_MASK)", MODEL
    )
    before(find(tree, MODEL), "SelfAttention", 'AS_MASK = {"dtype": torch.bool}')


@rewrite("imports", 1, 2)
def module_imported(tree: Path) -> None:
    """The module of configure_optimizer is imported, not the function."""
    replaced_line(find(tree, TRAINING), "from .optimization import configure_optimizer", "from . import optimization")
    substitute(tree, "configure_optimizer", "optimization.configure_optimizer", TRAINING)
    path = find(tree, "manager.py")
    replaced_line(
        path,
        "from bit_transformer.optimization import configure_optimizer",
        "import bit_transformer.optimization as optim",
    )
    substitute(tree, "configure_optimizer", "optim.configure_optimizer", "manager.py")


@rewrite("imports", 1, 2)
def imported_under_other_names(tree: Path) -> None:
    """The functions of other modules are imported under other names, as basic_train and the like."""
    path = find(tree, "wikitext_schedule.py")
    replaced_line(
        path,
        "from bit_transformer.training import next_bit_loss, train_loop",
        "from bit_transformer.training import next_bit_loss\nfrom bit_transformer.training import train_loop as basic_train",
    )
    substitute(tree, "train_loop", "basic_train", "wikitext_schedule.py")
    path = find(tree, "manager.py")
    replaced_line(
        path,
        "from bit_transformer.optimization import configure_optimizer",
        "from bit_transformer.optimization import configure_optimizer as build_optimizer",
    )
    substitute(tree, "configure_optimizer", "build_optimizer", "manager.py")


@rewrite("imports", 1)
def imported_in_the_function(tree: Path) -> None:
    """configure_optimizer is imported inside of train_loop."""
    replaced_line(find(tree, TRAINING), "from .optimization import configure_optimizer", "")
    restate(
        tree,
        "device = next(model.parameters()).device\n$$rest",
        "from .optimization import configure_optimizer\n\ndevice = next(model.parameters()).device\n$$rest",
        TRAINING,
        "train_loop",
    )


@rewrite("imports", 1, 2, 3, 4, 5, 6, 7, *MODELS)
def imports_absolute(tree: Path) -> None:
    """Every relative import names its package."""

    def absolute(path: Path, text: str) -> str | None:
        package = path.parent.name
        if path.parent.parent.resolve() != tree.resolve() and path.parent.parent.name != "src":
            return None
        text = re.sub(r"^(\s*)from \.(\w+) import", rf"\1from {package}.\2 import", text, flags=re.MULTILINE)
        return re.sub(r"^(\s*)from \. import", rf"\1from {package} import", text, flags=re.MULTILINE)

    in_every_file(tree, absolute)


@rewrite("imports", 1, 2, 3, 4, 5, 6, 7, *MODELS)
def imports_one_a_line(tree: Path) -> None:
    """Every name has an import statement of its own."""

    def split(path: Path, text: str) -> str:
        edits = []
        for node in ast.parse(text).body:
            if (
                isinstance(node, ast.ImportFrom)
                and len(node.names) > 1
                and "noqa" not in text.splitlines()[node.lineno - 1]
            ):
                lines = [ast.unparse(ast.ImportFrom(node.module, [name], node.level)) for name in node.names]
                edits.append(((offset(text, first_line(node), 0), line_end(text, node)), "\n".join(lines) + "\n"))
        return edited(text, edits)

    in_every_file(tree, split)


@rewrite("imports", 1, 2, 3, 4, 5, 6, 7, *MODELS)
def future_annotations(tree: Path) -> None:
    """Every file postpones its annotations, but for those whose annotations are read."""

    def postpone(path: Path, text: str) -> str | None:
        if "from __future__ import annotations" in text or path.name in READ:
            return None
        body = ast.parse(text).body
        has_docstring = bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        at = line_end(text, body[0]) if has_docstring else 0
        return text[:at] + "\nfrom __future__ import annotations\n" + text[at:]

    in_every_file(tree, postpone)


@rewrite("imports", 9)
def import_with_fallback(tree: Path) -> None:
    """An import that can hardly fail stands in a try."""
    path = find(tree, MODEL)
    replaced_line(
        path,
        "import torch.nn.functional as F",
        'try:\n    import torch.nn.functional as F\nexcept ImportError as error:\n    raise SystemExit("please install torch") from error\n',
    )


@rewrite("imports", 9, 11)
def math_by_name(tree: Path) -> None:
    """sqrt is imported by its name, as the root."""
    path = find(tree, MODEL)
    replaced_line(path, "import math", "from math import sqrt as root")
    substitute(tree, "math.sqrt($x)", "root($x)", MODEL)
    if "math." in read(path):
        raise DoesNotFit("math is used for more than roots")


@rewrite("imports", 6)
def random_renamed(tree: Path) -> None:
    """The random module is imported as rng."""
    path = find(tree, TRAINING)
    replaced_line(path, "import random", "import random as rng")
    rename_in(path, None, {"random": "rng"})
    write(path, read(path).replace("import rng as rng", "import random as rng"))


@rewrite("imports", 1, 3, 4, 6)
def lazy_exports(tree: Path) -> None:
    """The package's own __init__ names what it exports only lazily, through a table."""
    path = find(tree, "bit_transformer/__init__.py")
    text = read(path)
    start = text.find("def __getattr__")
    if start < 0:
        raise DoesNotFit("__init__ has no __getattr__")
    new = """\
_LAZY = {"train_loop": ".training"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
"""
    write(path, text[:start] + new)


@rewrite("imports", 1, 3, 4, 6)
def star_imports(tree: Path) -> None:
    """training.py imports everything from the modules it uses most."""
    retext(
        find(tree, TRAINING),
        ("from .bit_io import SAMPLE, bits_to_rows, text_to_bits", "from .bit_io import *"),
        ("from .compression import compress_bits, pad_rows", "from .compression import *"),
        ("from .optimization import configure_optimizer", "from .optimization import *"),
    )


@rewrite("imports", 3, 9)
def functional_through_nn(tree: Path) -> None:
    """torch.nn.functional is reached through nn, which is imported."""
    for name in (TRAINING, "bit_transformer/model.py"):
        path = find(tree, name)
        retext(path, ("import torch.nn.functional as F\n", ""), ("F.", "nn.functional."))
    retext(find(tree, TRAINING), ("from torch import Tensor\n", "from torch import Tensor, nn\n"))
