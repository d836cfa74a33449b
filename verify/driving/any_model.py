"""A tree of any model, through four functions of its bitpatch_seams.py. In child processes only.

They are called in a copy of the tree, in which the process is, as a tree's code may read and write where it runs.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...patches.files.spellings import ASKED, DRIVER
from ..running.evidence import CHECKS, Evidence, Verdict, unproven
from .seams import AbsentPart, MissingSeam, OfAnother, own_driver
from .tracing import traced
from .tree import Tree, with_dropout

SEED = 7
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-3}  # of a relative difference between two ways to compute the same
GIVEN = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")  # to attention, by place
Gradients = dict[str, Tensor]


class AnyModel:
    """What a tree says of itself. Raises MissingSeam where a function is missing, AbsentPart where it is None."""

    def __init__(self, root: Path, roots: Sequence[str]) -> None:
        sys.path[:0] = [str(root / each) for each in reversed(roots)]
        self._root = root
        self._attend: Callable[..., Tensor] = nn.functional.scaled_dot_product_attention
        self._state: dict[str, Any] = {}  # of the model that steps are made with

    def watch_attention(self) -> None:
        """Stand before torch's attention, before the tree imports that by its name."""
        nn.functional.scaled_dot_product_attention = self._attention

    def _attention(self, *given: Any, **named: Any) -> Tensor:
        return self._attend(**dict(zip(GIVEN, given, strict=False)), **named)

    @contextmanager
    def attending(self, stand_in: Callable[..., Tensor]) -> Iterator[None]:
        """While another function computes torch's attention; it is given that, and the arguments by their names."""
        real = self._attend
        with patch.object(self, "_attend", lambda **given: stand_in(real, **given)):
            yield

    def function(self, name: str) -> Callable[..., Any]:
        """One of its functions."""
        driver = own_driver(self._root)
        found: Callable[..., Any] | None = getattr(driver, name, None)
        if found is None and hasattr(driver, name):
            raise AbsentPart(name)
        if found is None:
            raise MissingSeam(name, "is not said", f"a function {ASKED[name][0]} in {DRIVER} (bitpatch seams --write)")
        return found

    def says(self, name: str) -> bool:
        """Whether there is such a function."""
        return getattr(own_driver(self._root), name, None) is not None

    def model(self) -> nn.Module:
        """A model in training mode, as a seed sets it, without dropout."""
        torch.manual_seed(SEED)
        found = self.function("model")()
        if not isinstance(found, nn.Module):
            raise MissingSeam("model", f"gives {type(found).__name__}, and no module", "let it return the model")
        return with_dropout(found.train(), 0.0)

    def train(self) -> None:
        """Train, as the tree does; what it compiles is traced, and needs no compiler."""
        with traced():
            self.function("train")()

    def batch(self, seed: int = 0) -> Any:
        """A micro-batch."""
        torch.manual_seed(seed)
        return self.function("batch")(seed)

    def loss(self, model: nn.Module, batch: Any, seed: int = SEED) -> Tensor:
        """The loss of a micro-batch, from the same random numbers each time."""
        torch.manual_seed(seed)
        found = self.function("loss")(model, batch)
        if not isinstance(found, Tensor) or found.numel() != 1 or not (found.requires_grad and found.isfinite()):
            raise MissingSeam("loss", "is no finite scalar that gradients can go from", "let it return the mean loss")
        return found

    def step(self, model: nn.Module, batch: Any, called: Any = None) -> tuple[float, Gradients]:
        """The loss of a micro-batch and the gradients of a model, which may be `called` as something else."""
        model.zero_grad()
        model.load_state_dict(self._state)  # what a step counts or averages, it has not yet
        loss = self.loss(model if called is None else called, batch)
        torch.autograd.backward(loss)
        return float(loss.detach()), {n: each.grad for n, each in model.named_parameters() if each.grad is not None}

    def exact(self, seeds: Sequence[int] = (0, 1)) -> tuple[nn.Module, list[Any], torch.dtype]:
        """A model and micro-batches in float64, or as they are where that does not run."""
        model, batches, dtype = self.model(), [self.batch(each) for each in seeds], torch.float32
        wide = copy.deepcopy(model).double(), [tree_map(_widened, each) for each in batches]
        with suppress(Exception):  # of one that makes tensors of a type of its own
            self.loss(wide[0], wide[1][0])
            model, batches, dtype = *wide, torch.float64
        self._state = copy.deepcopy(model.state_dict())
        return model, batches, dtype

    def require_same(self, model: nn.Module, batch: Any, limit: float) -> tuple[float, Gradients]:
        """A step of a loss that is the same each time. Raises MissingSeam where it is not: nothing can be compared."""
        first = self.step(model, batch)
        first = first[0], {name: each.clone() for name, each in first[1].items()}
        if not difference(first, self.step(model, batch)) <= limit:
            what = "is another one when it is called again with the same model, batch and seed"
            raise MissingSeam("loss", what, "let it draw from torch's random numbers alone, and change nothing")
        return first


def aside(tree: Tree) -> dict[str, Any]:
    """Each check of BitTransformerLM trees, and whether it is none of a tree of another model: as far as what it asks.

    A check that asks for nothing of the kind is unproven here, and is to run by itself.
    """
    found = list[dict[str, Any]]()
    for each in (each for task in sorted(CHECKS) for each in CHECKS[task]):
        evidence = unproven("")
        with suppress(MissingSeam, Exception):
            try:
                each.function(tree)
            except OfAnother as lack:
                evidence = Evidence(Verdict.NOT_APPLICABLE, detail=str(lack))
        found.append({"name": each.name, **asdict(evidence)})
    return {"results": found, "updates": 0, "trouble": ""}


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def difference(one: tuple[float, Mapping[str, Tensor]], other: tuple[float, Mapping[str, Tensor]]) -> float:
    """The largest difference of losses and gradients, relative to the largest; infinite where one is missing."""
    if one[1].keys() != other[1].keys():
        return float("inf")
    gaps = [abs(one[0] - other[0]) / max(abs(one[0]), 1e-12)]
    largest = max((float(each.abs().max()) for each in one[1].values()), default=0.0) or 1.0
    gaps += [float((one[1][name] - other[1][name]).abs().max()) / largest for name in one[1]]
    return max((float("inf") if gap != gap else gap for gap in gaps), default=0.0)  # noqa: PLR0124 - no number
