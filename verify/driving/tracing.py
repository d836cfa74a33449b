"""The real torch.compile, but for the C++ that Inductor would write. In child processes only.

Dynamo traces and AOTAutograd makes the gradients, which are torch's own; what then reaches Inductor runs as it is, for
its C++ takes g++ a minute. So no compiler is needed here, and options, graph breaks and gradients are the real ones.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch._inductor.exc import InductorError, InvalidCxxCompiler

PRODUCTS = ("linear", "addmm", "matmul", "mm", "bmm", "baddbmm")


class Traced:
    """What the graphs hold that reached Inductor."""

    def __init__(self) -> None:
        self.graphs = 0
        self.products = 0  # of matrices, each linear layer one

    def note(self, graph: fx.GraphModule) -> None:
        """Note one graph."""
        self.graphs += 1
        names = [str(getattr(node.target, "__name__", node.target)) for node in graph.graph.nodes]
        self.products += sum(name.strip("_") in PRODUCTS for name in names)


@contextmanager
def traced(*, works: bool = True) -> Iterator[Traced]:
    """Have torch.compile trace, and run each graph as AOTAutograd leaves it, or find no C++ compiler."""
    found, aot = Traced(), importlib.import_module("torch._dynamo.backends.debugging").aot_eager

    def compile_graph(_: Any, graph: fx.GraphModule, inputs: Any, **__: Any) -> Any:
        found.note(graph)
        if not works:
            raise InductorError(InvalidCxxCompiler(), None)
        return aot(graph, inputs)

    torch._dynamo.reset()
    with patch.object(torch._TorchCompileInductorWrapper, "__call__", compile_graph):
        yield found


def why_untraceable() -> str:
    """Why torch.compile traces nothing on this Python and torch; empty if it does."""
    try:
        with traced():
            torch.compile(torch.neg)(torch.ones(1))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def compiler_settings() -> dict[str, Any]:
    """How Dynamo and Inductor are configured, for the whole process."""
    modules = [importlib.import_module(name) for name in ("torch._dynamo.config", "torch._inductor.config")]
    return {f"{module.__name__}.{name}": value for module in modules for name, value in copied(module).items()}


def copied(module: Any) -> dict[str, Any]:
    """The values of a module of settings."""
    values: dict[str, Any] = module.shallow_copy_dict() if hasattr(module, "shallow_copy_dict") else {}
    return values
