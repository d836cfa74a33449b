"""A stand-in for torch.compile, and the versions that a tree sees. Nothing is compiled. In child processes only."""

import logging
import platform
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn
from torch._inductor.exc import InductorError, InvalidCxxCompiler
from torch.nn.modules.module import register_module_forward_hook
from torch.torch_version import TorchVersion

from .operations import fresh_modules
from .spies import Ledger
from .tree import Tree


class PythonVersion(NamedTuple):
    """What sys.version_info is."""

    major: int
    minor: int
    micro: int
    releaselevel: str = "final"
    serial: int = 0


class Compiler:
    """Stands in for torch.compile: what it returns runs eagerly, and counts, or finds no C++ compiler."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.compiled = 0
        self.calls = 0
        self.said: list[str] = []  # the warnings of the session
        self.depths: list[int] = []  # of each micro-batch, how many compiled callables ran one in the other
        self.frames: list[int] = []  # of each micro-batch, how many calls deep its first linear layer runs
        self._running = 0

    def __call__(self, model: Any = None, **options: Any) -> Any:
        """What torch.compile does, but for the compiling."""
        if model is None:
            return lambda function: self(function, **options)
        self.compiled += 1
        run = self._counting(model)
        return Wrapper(model, run) if isinstance(model, nn.Module) else run

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if not self.works:
                raise InductorError(InvalidCxxCompiler(), None)
            self._running += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._running -= 1

        return run

    def watch_model(self, kind: type[nn.Module]) -> None:
        """Record for each micro-batch how deep in compiled callables its linear layers run."""
        original = kind.forward

        def forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if model.training and torch.is_grad_enabled():
                self.depths.append(0)
            return original(model, *args, **kwargs)

        kind.forward = forward

    def note_depth(self, module: nn.Module, *_: Any) -> None:
        """Note at a linear layer how many compiled callables are running."""
        if isinstance(module, nn.Linear) and self.depths:
            if len(self.frames) < len(self.depths):
                self.frames.append(sum(1 for _ in traceback.walk_stack(None)))
            self.depths[-1] = max(self.depths[-1], self._running)


class Wrapper(nn.Module):
    """What torch.compile makes of a module: parameters get other names, and methods are the module's own."""

    def __init__(self, module: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self._orig_mod = module
        self.forward = run

    def __getattr__(self, name: str) -> Any:
        """What the wrapper has not, the module has."""
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)


@contextmanager
def session(
    tree: Tree, ledger: Ledger, torch_version: str, python_version: str, *, works: bool = True
) -> Iterator[Compiler]:
    """Import a tree anew, as under these versions, with a stand-in for torch.compile and the ledger on its model."""
    compiler = Compiler(works=works)
    with ExitStack() as stack:
        stack.enter_context(seeing(torch_version, python_version))
        stack.enter_context(patch.object(torch, "compile", compiler))
        stack.enter_context(fresh_modules(tree))
        stack.callback(register_module_forward_hook(compiler.note_depth).remove)
        tree.module("training")
        compiler.watch_model(tree.kind)
        ledger.watch_tree(tree)
        stack.enter_context(hearing(compiler.said))
        yield compiler


@contextmanager
def seeing(torch_version: str, python_version: str) -> Iterator[None]:
    """Make torch and Python say that they are of these versions."""
    major, minor, micro = map(int, re.findall(r"\d+", python_version)[:3])
    level = "candidate" if "rc" in python_version else "final"
    real = metadata.version
    values: list[tuple[Any, str, Any]] = [
        (torch, "__version__", TorchVersion(torch_version)),
        (torch.torch_version, "__version__", TorchVersion(torch_version)),
        (torch.version, "__version__", torch_version),
        (metadata, "version", lambda name: torch_version if name == "torch" else real(name)),
        (sys, "version_info", PythonVersion(major, minor, micro, level)),
        (sys, "version", f"{python_version} (main, Jan  1 2024, 00:00:00) [GCC 13.2.0]"),
        (sys, "hexversion", major << 24 | minor << 16 | micro << 8 | 0xF0),
        (platform, "python_version", lambda: python_version),
        (platform, "python_version_tuple", lambda: (str(major), str(minor), str(micro))),
    ]
    with ExitStack() as stack:
        for owner, name, value in values:
            stack.enter_context(patch.object(owner, name, value))
        yield


class Ear(logging.Handler):
    """Puts what is logged as a warning, or graver, in a list."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.said.append(record.getMessage())


@contextmanager
def hearing(said: list[str]) -> Iterator[None]:
    """Put each warning, raised or logged, in a list and show none."""
    ear = Ear(said)
    logging.getLogger().addHandler(ear)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # Record as they come: catch_warnings(record=True) hands them over in a list of its own.
            warnings.showwarning = lambda message, *_, **__: said.append(str(message))
            yield
    finally:
        logging.getLogger().removeHandler(ear)
