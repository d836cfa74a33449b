"""The tree under test, as a check sees it. Imported in child processes only."""

import contextlib
import dataclasses
import functools
import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..running.evidence import Evidence, failed
from .outputs import outputs
from .seams import MissingSeam, OfAnother, Seams, accepts, function_of, loaded

BROUGHT_WITH = {"global_step": "warmup_steps", "compile_policy": "compile", "num_workers": "batch_size"}
SEAMS = {"training": "update", "model": "model", "safety": "gate"}  # by our module, what it holds of a tree's seams


def with_dropout(model: nn.Module, rate: float) -> nn.Module:
    """The model, with another rate of dropout, wherever it holds one: in modules, numbers of them, records or dicts."""
    for module in model.modules():
        is_dropout = "drop" in type(module).__name__.lower()
        for held in (vars(module), *map(_fields, vars(module).values())):
            for name, value in [*held.items()]:
                if (isinstance(name, str) and isinstance(value, float) and "drop" in name) or (
                    is_dropout and name == "p"
                ):
                    held[name] = rate
    return model


def _fields(value: object) -> dict[str, Any]:
    """What a record of options holds, to be changed even where it is frozen."""
    if isinstance(value, dict):
        return value
    is_record = dataclasses.is_dataclass(value) or isinstance(value, (SimpleNamespace, Namespace))
    return vars(value) if is_record and hasattr(value, "__dict__") else {}


class Tree:
    """A BitTransformerLM tree that this process has on its path."""

    def __init__(self, path: Path, seconds: float = 0.0, driving: dict[str, Any] | None = None) -> None:
        given = driving or {"roots": [""], "seams": None}
        self.path = path if given["seams"] else path / given["roots"][0]  # ours may stand in a folder, src/ say
        self.roots: list[str] = given["roots"]
        self.caches: dict[str, str] = given.get("caches", {})  # where data sets lie that were fetched before
        self.seconds = seconds  # of processor time that a check may fill with random points
        sys.path[:0] = [str(path / root) for root in reversed(given["roots"])]
        self.states: dict[str, str] = given.get("states", {})  # of the tasks that bring an option, by the option
        self.elsewhere: dict[str, str] = given.get("elsewhere", {})  # where that is, if not where the loop is
        self.asked: tuple[str, ...] = ()  # what the check is about that runs
        self.seams = Seams(path, given["seams"])
        self.has_run = False  # whether its command line has run to its end

    def module(self, name: str) -> ModuleType:
        """Import one of the tree's modules: `model`, `training`, ... Raises MissingSeam where it has none so called."""
        module: ModuleType = loaded(f"{self._dotted(name)}:")
        return module

    def part(self, module: str, name: str) -> Any:
        """What one of the tree's modules, or its bitpatch_seams.py, defines under a name. Raises MissingSeam."""
        own = self.seams.own(name)
        return own if own is not None else loaded(f"{self._dotted(module)}:{name}", function_of(name))

    def _dotted(self, name: str) -> str:
        """A module of the model's package, or else where the seam is that ours has in the module of this name."""
        if self.seams.of_any:
            raise OfAnother(SEAMS.get(name, name))
        places = {
            seam: str(each.get("where") or "").partition(":")[0] for seam, each in (self.seams.found or {}).items()
        }
        package, dot, _ = (places.get("model") or "bit_transformer.model").partition(".")
        dotted = f"{package}{dot}{name}" if dot else name
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(dotted) is not None:
                return dotted
        return places.get(SEAMS.get(name, "")) or dotted

    @property
    def model_module(self) -> ModuleType:
        """The module that defines its models."""
        return sys.modules[self.kind.__module__]

    @property
    def kind(self) -> type[nn.Module]:
        """The class of its models."""
        kind: type[nn.Module] = self.seams.part("model").load()
        return kind

    def train(self, model: nn.Module, data: Any, **options: Any) -> Any:
        """Train a model on rows of bits [N, L], or a data set of them; what the tree's own loop returns."""
        return self.seams.train(model, data, options)

    def model(self, seed: int = 0, dtype: torch.dtype = torch.float64, **config: Any) -> nn.Module:
        """A small BitTransformerLM in training mode, without dropout, its weights set by the seed."""
        defaults = {
            "d_model": 8,
            "nhead": 2,
            "num_layers": 1,
            "dim_feedforward": 16,
            "max_seq_len": 64,
            "use_checkpoint": False,
        }
        torch.manual_seed(seed)
        return with_dropout(self.seams.model(defaults | config), 0.0).to(dtype)

    def model_takes(self, name: str) -> bool:
        """Whether the model has such an argument."""
        return self.seams.takes("model", "model", name)

    @functools.cached_property
    def looks_ahead(self) -> tuple[bool, bool]:
        """Whether causal=False is for its models, without windows and with: some do without."""

        def logits(**config: Any) -> Tensor | None:
            with contextlib.suppress(NotImplementedError, TypeError), torch.no_grad():
                found: Tensor = outputs(self.model(**config).eval()(self.bits(1, 9), causal=False))[0]
                return found
            return None

        if not self.seams.is_told:
            return True, True
        plain, windows = logits(), logits(chunk_size=4) if self.model_takes("chunk_size") else None
        return plain is not None, plain is not None and windows is not None and not torch.equal(plain, windows)

    def loop_takes(self, name: str) -> bool:
        """Whether the training loop has such an option."""
        return self.seams.takes("update", "train", name)

    def require_option(self, name: str) -> Evidence | None:
        """What is to be said of a training loop that has no such option; None of one that has.

        Raises MissingSeam where the tree may have it under a name that is not known.
        """
        if self.loop_takes(name):
            return None
        where = self.seams.part("update").where.partition(":")[2]
        with_it = BROUGHT_WITH.get(name, name)
        if self.states.get(with_it, "missing") in ("missing", "partial"):
            return failed(f"{where} takes no {name}")
        place = self.elsewhere.get(with_it)  # a word for it in the loop that is driven would settle nothing
        line = function_of("update") if place else f'pyproject.toml: [tool.bitpatch.options.update] {name} = "..."'
        lack = f"{where} takes no {name}, though something like it is {f'at {place}' if place else 'there'}"
        raise MissingSeam("update", lack, line)

    @staticmethod
    def forward(model: nn.Module, bits: Tensor, *, causal: bool = True) -> tuple[Tensor, Any]:
        """The logits of a forward, and what comes with them; a model that always hides what is to come is not told to.

        Raises MissingSeam where no logits are found.
        """
        is_told = not causal or accepts(model.forward, "causal")
        return outputs(model(bits, causal=causal) if is_told else model(bits))

    outputs = staticmethod(outputs)

    @staticmethod
    def bits(rows: int, length: int, seed: int = 0) -> Tensor:
        """Random bits [rows, length] that the seed fixes."""
        return torch.randint(0, 2, (rows, length), generator=torch.Generator().manual_seed(seed))
