"""What a training loss is a mean over: the targets of its cross-entropy, but for those that it ignores."""

from __future__ import annotations

from collections.abc import Iterator

from .values import Value

_MEANS = ("cross_entropy", "nll_loss")
_LAYOUT = {"flatten", "reshape", "view", "contiguous", "cast", "swap", "permute", "mT", "clone", "detach", "unflatten"}
_PLAIN = ("weight", "size_average", "reduce")  # settings without which a loss is a plain mean
IGNORED = -100  # the target that torch ignores where it is not told another


def means(loss: Value) -> list[Value]:
    """The cross-entropies that a loss is made of."""
    return [each for each in loss.walk() if each.op in _MEANS and "target" in each.args]


def is_plain(mean: Value) -> bool:
    """Whether a cross-entropy is the plain mean over its targets."""
    reduction = mean.get("reduction")
    is_mean = reduction is None or reduction.is_const("mean")
    return is_mean and all(mean[name].is_const(None) for name in _PLAIN if name in mean.args)


def unlaid(value: Value) -> Value:
    """A tensor before it was laid out anew, or moved to another device or dtype."""
    return value.beneath(_LAYOUT)


def ignored(mean: Value) -> int | None:
    """The target that a cross-entropy ignores; None where that is no number that is known."""
    value = mean.get("ignore_index")
    number = IGNORED if value is None else value.number
    return number if isinstance(number, int) else None


def pads(loss: Value) -> Iterator[Value]:
    """What a loss is made of that fills rows up."""
    return (each for each in loss.walk() if each.op in ("masked_fill", "pad", "where"))
