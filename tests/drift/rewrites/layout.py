"""Files that stand elsewhere, and copies beside them."""

import re
import shutil
from pathlib import Path

from drift.rewriting import DoesNotFit, code_files, find, read, rewrite, write

ALL = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
PACKAGE = "bit_transformer"


def reimport(tree: Path, old: str, new: str) -> None:
    """Let every import of a module, absolute and within its package, name its new place."""
    old_name, new_name = old.rsplit(".", 1)[-1], new.rsplit(".", 1)[-1]
    for path in code_files(tree):
        text = read(path)
        changed = re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w)", new, text)
        if path.parent.name == old.split(".", maxsplit=1)[0] and "." in old:
            changed = re.sub(rf"(from \.){old_name}(?= import)", rf"\g<1>{new_name}", changed)
            changed = re.sub(rf'"\.{old_name}"', f'".{new_name}"', changed)
        if changed != text:
            write(path, changed)


def need(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise DoesNotFit(f"no {path.name}")


def renamed_module(tree: Path, old: str, new: str) -> None:
    path = tree / f"{old.replace('.', '/')}.py"
    need(path)
    reimport(tree, old, new)
    path.rename(tree / f"{new.replace('.', '/')}.py")


@rewrite("layout", *ALL, stage="layout", moves={"root": "src"})
def src_layout(tree: Path) -> None:
    """Everything but a README stands under src/."""
    need(tree / PACKAGE)
    if (tree / "src").exists():
        raise DoesNotFit("src/ is there already")
    entries = [entry for entry in tree.iterdir() if entry.name not in ("scripts", "tests", "old")]
    (tree / "src").mkdir()
    for entry in entries:
        entry.rename(tree / "src" / entry.name)
    (tree / "README.md").write_text("# A fork\n")


@rewrite("layout", *ALL, stage="layout", moves={"bit_transformer": "bitlm"})
def package_renamed(tree: Path) -> None:
    """The package is called bitlm."""
    need(tree / PACKAGE)
    for path in code_files(tree):
        text = read(path)
        changed = re.sub(r"(?<![\w/])bit_transformer(?=[. ])", "bitlm", text)
        if changed != text:
            write(path, changed)
    (tree / PACKAGE).rename(tree / "bitlm")


@rewrite("layout", 1, 3, 4, 6, 8, stage="layout", moves={"bit_transformer.training": "bit_transformer.trainer"})
def training_renamed(tree: Path) -> None:
    """training.py is called trainer.py."""
    renamed_module(tree, f"{PACKAGE}.training", f"{PACKAGE}.trainer")


@rewrite("layout", 9, 10, 11, 12, stage="layout", moves={"bit_transformer.model": "bit_transformer.transformer"})
def model_module_renamed(tree: Path) -> None:
    """model.py is called transformer.py."""
    renamed_module(tree, f"{PACKAGE}.model", f"{PACKAGE}.transformer")
    for path in code_files(tree):
        text = read(path)
        if "from . import model as" in text:
            write(path, text.replace("from . import model as", "from . import transformer as"))


@rewrite("layout", 7, stage="layout", moves={"bit_transformer.safety": "bit_transformer.guard"})
def safety_renamed(tree: Path) -> None:
    """safety.py is called guard.py."""
    renamed_module(tree, f"{PACKAGE}.safety", f"{PACKAGE}.guard")


@rewrite("layout", 2, stage="layout", moves={"dashboard.manager": "bit_transformer.dashboard_app"})
def manager_in_package(tree: Path) -> None:
    """The manager stands in bit_transformer/dashboard_app.py, as upstream's does."""
    path = tree / "dashboard/manager.py"
    need(path, tree / PACKAGE)
    for other in sorted((tree / "dashboard").glob("*.py")):
        text = read(other)
        write(other, re.sub(r"from \.manager import", f"from {PACKAGE}.dashboard_app import", text))
    reimport(tree, "dashboard.manager", f"{PACKAGE}.dashboard_app")
    path.rename(tree / PACKAGE / "dashboard_app.py")


@rewrite("layout", 5, stage="layout", moves={"data.wikitext_schedule": "wikitext_schedule"})
def schedule_at_root(tree: Path) -> None:
    """wikitext_schedule.py stands at the root, as upstream's does."""
    path = tree / "data/wikitext_schedule.py"
    need(path)
    reimport(tree, "data.wikitext_schedule", "wikitext_schedule")
    path.rename(tree / "wikitext_schedule.py")


@rewrite("layout", 1, 3, 4, 6, 8, stage="layout")
def training_package(tree: Path) -> None:
    """training.py is a package whose __init__ names what was in it, with the code in core.py."""
    path = tree / PACKAGE / "training.py"
    need(path)
    folder = tree / PACKAGE / "training"
    folder.mkdir()
    text = re.sub(r"from \.(?=\w)", "from ..", read(path))
    path.unlink()
    write(folder / "core.py", text)
    names = re.findall(r"^(?:def|class) (\w+)|^([A-Z_]+) =", text, re.MULTILINE)
    public = sorted({first or second for first, second in names})
    write(folder / "__init__.py", '"""Training."""\n\nfrom .core import ' + ", ".join(public) + "\n")
    write(folder / "__main__.py", "from .core import main\n\nmain()\n")


@rewrite("layout", 9, 10, 11, 12, stage="layout", moves={"bit_transformer.model": "bit_transformer.models.bits"})
def models_package(tree: Path) -> None:
    """model.py stands in a package of models; what imported it names the new place."""
    path = tree / PACKAGE / "model.py"
    need(path)
    if any("from . import model as" in read(other) for other in code_files(tree)):
        for other in code_files(tree):
            text = read(other)
            write(other, text.replace("from . import model as", "from .models import bits as"))
    folder = tree / PACKAGE / "models"
    folder.mkdir()
    write(folder / "__init__.py", "")
    text = read(path).replace("from . import", "from .. import")
    write(folder / "bits.py", re.sub(r"from \.(?=\w)", "from ..", text))
    path.unlink()
    for other in code_files(tree):
        text = read(other)
        changed = re.sub(r"(?<![\w.])bit_transformer\.model(?!\w)", "bit_transformer.models.bits", text)
        if other.parent == tree / PACKAGE:
            changed = re.sub(r"from \.model import", "from .models.bits import", changed)
        if changed != text:
            write(other, changed)


@rewrite("layout", *ALL, stage="layout")
def copy_under_scripts(tree: Path) -> None:
    """A second copy of the package stands under scripts/, as upstream's forks have it."""
    package = next(
        (folder for folder in (tree / PACKAGE, tree / "src" / PACKAGE, tree / "bitlm") if folder.exists()), None
    )
    if package is None or (tree / "scripts").exists():
        raise DoesNotFit("no package to copy")
    shutil.copytree(package, tree / "scripts" / package.name, ignore=shutil.ignore_patterns("__pycache__"))


@rewrite("layout", 9, 10, 11, 12, stage="layout")
def old_copy(tree: Path) -> None:
    """An old copy of the model stands in old/model.py."""
    path = find(tree, "model.py")
    (tree / "old").mkdir()
    (tree / "old" / "model.py").write_text(read(path).replace("BitTransformerLM", "BitTransformerV1"))


@rewrite("layout", 1, 3, 4, 6, stage="layout")
def tests_beside(tree: Path) -> None:
    """A tests/ folder has a train_loop and a SelfAttention of its own."""
    if (tree / "tests").exists():
        raise DoesNotFit("tests/ is there already")
    (tree / "tests").mkdir()
    (tree / "tests" / "test_small.py").write_text(
        """\
import torch
from torch import nn


class SelfAttention(nn.Module):
    def forward(self, x):
        future = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), diagonal=1)
        return torch.softmax((x @ x.mT).masked_fill(future, float("-inf")), dim=-1) @ x


def train_loop(model, data, epochs=1):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for batch in data.split(8):
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def test_it_runs():
    train_loop(nn.Linear(4, 4), torch.randn(16, 4))
"""
    )


@rewrite("layout", *ALL, stage="layout")
def project_around(tree: Path) -> None:
    """The tree is a project: pyproject.toml, a Makefile, a setup.py and a notebook beside it."""
    (tree / "pyproject.toml").write_text(
        '[project]\nname = "my-bits"\nversion = "0.0.1"\n\n[tool.black]\nline-length = 100\n'
    )
    (tree / "Makefile").write_text("train:\n\tpython -m bit_transformer.training\n")
    (tree / "setup.py").write_text("from setuptools import setup\n\nsetup()\n")
    (tree / "notes.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n')
