"""What each loss weighs: the gradient that reaches its result, whatever the script calls its divisor."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..driving.torch_spies import Spies
from .lines import Lines
from .seen import Loss

OF_CLASSES = ("cross_entropy", "nll_loss")
OF_ELEMENTS: tuple[str, ...] = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "kl_div")
OF_ELEMENTS += ("binary_cross_entropy_with_logits", "poisson_nll_loss", "gaussian_nll_loss", "soft_margin_loss")
DEEPEST = 16  # operations between a root and its means
REDUCTIONS = ("mean", "sum", "none", "batchmean")


class Losses:
    """Watches torch's loss functions.

    `note` is given each loss as it is made, `reached` each that gets a gradient, `compared` what one compares with.
    """

    def __init__(
        self,
        lines: Lines,
        spies: Spies,
        note: Callable[[Loss | None], None],
        reached: Callable[[Loss, float], None],
        compared: Callable[[Any], None],
    ) -> None:
        self._lines, self._note, self._reached, self._compared = lines, note, reached, compared
        for name in (*OF_CLASSES, *OF_ELEMENTS):
            signature = inspect.signature(getattr(nn.functional, name))
            spies.on(nn.functional, name, "loss", after=functools.partial(self._made, signature, name in OF_CLASSES))

    def _made(self, signature: inspect.Signature, of_classes: bool, out: Tensor, *args: Any, **kwargs: Any) -> None:
        """Note a loss, and what gradient reaches it."""
        if not out.requires_grad:
            self._note(None)
            return
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        self._compared(given.arguments["target"])
        scored = _scored(given.arguments, of_classes)
        rows = 0.0 if of_classes or not given.arguments["target"].dim() else float(len(given.arguments["target"]))
        made = Loss(self._lines.here(), scored, rows, is_finite=is_finite(out), dtype=type_of(out))
        self._note(made)
        weigh = functools.partial(self._weigh, made, _reduction(given.arguments))
        out.register_hook(weigh)  # type: ignore[no-untyped-call]

    def _weigh(self, made: Loss, how: str, gradient: Tensor) -> None:
        """Add to a loss what a backward call multiplies it by."""
        total = gradient.item() if gradient.numel() == 1 else float(gradient.detach().double().sum())
        self._reached(made, total * made.scored if how == "sum" else total)


def type_of(tensor: Tensor) -> str:
    """The name of its type."""
    return str(tensor.dtype).removeprefix("torch.")


def is_finite(tensor: Tensor) -> bool:
    """Whether all its numbers are."""
    if tensor.numel() == 1:
        return math.isfinite(tensor.item())
    return bool(torch.isfinite(tensor.detach()).all())


def written_out(root: Tensor, line: str) -> list[Loss]:
    """The losses that a script writes out itself: means and sums of means, or one sum, times numbers."""
    means = _means(root.grad_fn, 1.0)
    found = [Loss(line, scored, weight=abs(weight), is_written_out=True) for scored, weight in means or ()]
    found += [] if means else _sum(root.grad_fn, line)
    for each in found:
        each.is_finite = is_finite(root)
    return found


def _sum(node: Any, line: str) -> list[Loss]:
    """The loss that is one sum, of the elements that a mask leaves; nothing of anything else."""
    weight, depth = 1.0, 0
    while node is not None and node.name() != "SumBackward0" and depth < DEEPEST:
        factor = _factor(node)
        if factor is None:
            return []
        weight, depth, node = weight * factor, depth + 1, node.next_functions[0][0]
    if node is None or node.name() != "SumBackward0":
        return []
    sizes, inner = node._saved_self_sym_sizes, node.next_functions[0][0]
    scored, rows = float(math.prod(sizes)), float(sizes[0]) if len(sizes) > 1 else 0.0
    mask = inner._saved_other if inner is not None and inner.name() == "MulBackward0" else None
    if (
        mask is not None
        and not mask.requires_grad
        and mask.numel() == scored
        and bool(((mask == 0) | (mask == 1)).all())
    ):
        scored = float(mask.sum())
    return [Loss(line, scored, rows, abs(weight) * scored, is_written_out=True)]


def _factor(node: Any) -> float | None:
    """What an operation multiplies by; None where that is no number."""
    name = node.name()
    if name in ("NegBackward0", "ToCopyBackward0"):
        return 1.0
    other = node._saved_other if name in ("DivBackward0", "MulBackward0") and node._saved_self is None else None
    if other is None or other.numel() != 1 or other.requires_grad:
        return None
    return 1.0 / float(other) if name == "DivBackward0" else float(other)


def _means(node: Any, weight: float, depth: int = 0) -> list[tuple[float, float]] | None:
    """How many elements each mean is of, and what it is multiplied by; None where something else is in the way."""
    name = node.name() if node is not None and depth < DEEPEST else ""
    if name == "MeanBackward0":
        return [(float(node._saved_self_sym_numel), weight)]
    factor = 1.0 if name in ("AddBackward0", "SubBackward0") else _factor(node) if name else None
    if factor is None:
        return None
    weight *= factor
    found = [_means(each, weight, depth + 1) for each, _ in node.next_functions if each is not None]
    return None if None in found else [mean for each in found for mean in each or ()]


def _reduction(given: dict[str, Any]) -> str:
    how = given.get("reduction", "mean")
    return how if how in REDUCTIONS else "mean"


def _scored(given: dict[str, Any], of_classes: bool) -> float:
    """How many targets count."""
    target = given["target"]
    if "log_target" in given:  # a distribution a row, those of nothing left out
        rows = target.reshape(-1, target.shape[-1])
        return float(len(rows) if given["log_target"] else (rows != 0).any(-1).sum())
    if not of_classes:
        return float(target.shape[0] if given.get("reduction") == "batchmean" else target.numel())
    if target.is_floating_point():  # a distribution a row
        return float(target.numel() // max(1, target.shape[1 if target.dim() > 1 else 0]))
    counted = target != given.get("ignore_index", -100)
    weight = given.get("weight")
    return float(weight[target[counted]].sum()) if weight is not None else float(counted.sum())
