"""Runs of a training loop in bfloat16: what layers gave, when autocast was on, and forms of micro-batches."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from .outputs import outputs
from .space import Point
from .spies import Ledger
from .training_runs import Run, train
from .tree import Tree

FORMS: dict[str, dict[str, Any]] = {  # the options with which all micro-batches enter in a form
    "raw": {},
    "compressed": {"compress_prob": 1.0, "warmup_steps": 0},
    "direct": {"direct_prob": 1.0},
}


@dataclass(slots=True)
class Seen:
    """What the models and the loop of a run did, next to the ledger."""

    linear: list[torch.dtype] = field(default_factory=list)  # of what each call of a linear layer gave
    logits: list[Tensor] = field(default_factory=list)  # of each micro-batch
    autocast: list[tuple[str, bool]] = field(default_factory=list)  # kind of each event, and whether it was on


def watch(tree: Tree, ledger: Ledger) -> Seen:
    """Note from now on what linear layers and models give, and whether autocast is on at each event."""
    seen, record = Seen(), ledger._record

    def note_output(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(module, nn.Linear):
            seen.linear.append(out.dtype)

    def note_event(kind: str, fields: Callable[[], dict[str, Any]]) -> None:
        seen.autocast.append((kind, torch.is_autocast_enabled("cpu")))
        record(kind, fields)

    register_module_forward_hook(note_output)
    after_forwards(tree.kind, lambda logits: seen.logits.append(logits.detach()))
    vars(ledger)["_record"] = note_event
    return seen


def after_forwards(kind: type[nn.Module], note: Callable[[Tensor], None]) -> Callable[[], None]:
    """Be told the logits of each micro-batch, until what this returns is called; hooks miss a self.forward(...)."""
    original = kind.forward

    @functools.wraps(original)
    def forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        out = original(model, *args, **kwargs)
        if model.training and torch.is_grad_enabled():
            note(outputs(out)[0])
        return out

    kind.forward = forward
    return lambda: setattr(kind, "forward", original)


def train_at(tree: Tree, ledger: Ledger, point: Point, *, rows: int = 9, **options: Any) -> Run:
    """Train a float32 model at a point, with amp="bf16", where there is amp, unless the point or the options differ."""
    of_form = options_of_form(tree, point.values.get("form", "raw"))
    bf16 = {"amp": "bf16"} if tree.loop_takes("amp") else {}
    given = {"dtype": torch.float32} | bf16 | of_form | point.options | options
    return train(tree, ledger, point.values.get("rows", rows), config=point.config, **given)


def options_of_form(tree: Tree, form: str) -> dict[str, Any]:
    """The options with which all micro-batches enter a tree's models in a form."""
    return {name: value for name, value in FORMS[form].items() if tree.loop_takes(name)}


def loss_error(run: Run, logits: list[Tensor], accum_steps: int) -> float | None:
    """How far the losses that were given to backward are from one multiple of the cross-entropy, relative to it.

    Whether they are means or sums is the tree's own, as gradients may be divided later, and so is what the losses of a
    group weigh, so that only those of groups of one are compared; nothing where it is not seen which bits are scored.
    """
    losses = [event.loss for event in run.events if event.kind == "backward" and event.loss is not None]
    multiples = []  # by what losses may be sums over: nothing, bits, rows
    for loss, found, rows in zip(losses, logits, run.micro_batches, strict=True):
        scored = run.scored(rows)
        if scored is None or not scored.any():
            return None
        surprises = -found.double()[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None].long())[..., 0][scored]
        multiple = loss.double() / surprises.mean()
        multiples.append(torch.stack([multiple, multiple / len(surprises), multiple / len(rows)]))
    of_each = torch.stack(multiples)
    spread = (of_each.amax(0) - of_each.amin(0)) / of_each.mean(0).abs()
    return float(spread.amin()) if accum_steps == 1 else 0.0


@contextmanager
def poisoned_gradient(tree: Tree, at: int) -> Iterator[None]:
    """Have the gradient of one micro-batch's logits, counted from 0, be no number."""
    count = 0

    def poison(logits: Tensor) -> None:
        nonlocal count
        if count == at:
            logits.register_hook(lambda grad: grad * math.nan)  # type: ignore[no-untyped-call]
        count += 1

    with ExitStack() as stack:
        stack.callback(after_forwards(tree.kind, poison))
        yield
