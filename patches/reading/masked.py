"""Scores under masks: what hides keys, of which kind, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from .frames import plain_test, where
from .masks import causal_mask
from .numbers import ranging
from .spots import LOWEST
from .values import Value, once_each

PLAIN = {"contiguous", "clone"}
BETWEEN = PLAIN | {
    *("dropout", "mul", "div", "add", "sub", "cast", "masked_fill", "setitem"),
    *("where", "phi", "index", "permute", "detach"),
}
_OF_ONE = {
    *("index", "contiguous", "clone", "detach", "expand", "unsqueeze", "triu", "tril"),
    *("masked_fill", "setitem"),
}
LOW = -1e8  # what no score comes near, so that its exponential is zero
_OPERANDS = {"input", "other", "mask", "value", "condition"}


class Unread(Exception):
    """What looks like attention is written in a way that is not understood, at a value."""

    def __init__(self, value: Value, reason: str) -> None:
        super().__init__(reason)
        self.value = value


@dataclass(frozen=True)
class Masking:
    """One mask of the scores: True hides a key, or keeps it, or a number is added."""

    mask: Value
    kind: str  # "hides", "keeps", "added"
    condition: Value | None = None
    is_asked_for: bool = True  # whether it masks where the condition holds, or where it does not
    is_known: bool = False  # to be causal, as all callers make it
    is_low: bool = False  # whether it fills with a number that is just low enough

    @cached_property
    def is_causal(self) -> bool:
        """Whether it hides the future, and nothing else."""
        if self.is_known:
            return True
        found = causal_mask(self.mask)
        if found is None or found.is_cut:
            return False
        return {"hides": found.hides_future, "keeps": found.keeps_past, "added": found.adds_to_future_alone}[self.kind]


def masked(scores: Value, rank: int) -> tuple[Value, Masking] | None:
    """The scores of a rank, which may be 0 where it is not known, under a mask; and the mask."""
    if scores.op in ("add", "masked_fill", "where") and scores.args.keys() - _OPERANDS:
        raise Unread(scores, f"{scores.op} is told more than its operands")
    match scores.op:
        case "masked_fill":
            return scores["input"], _hiding(Masking(scores["mask"], "hides"), scores["value"])
        case "setitem" if _is_of_last(scores, rank):
            return scores["input"], _hiding(Masking(scores.items[-2], "hides"), scores["value"])
        case "where":
            for name, other, kind in (("input", "other", "keeps"), ("other", "input", "hides")):
                if holds_product(scores[name]) and not holds_product(scores[other]):
                    return scores[name], _hiding(Masking(scores["condition"], kind), scores[other])
        case "add":
            for name, other in (("input", "other"), ("other", "input")):
                if holds_product(scores[name]) and not holds_product(scores[other]):
                    return scores[name], _added(scores[other])
        case "phi":
            for side, other, is_asked_for in (("yes", "no", True), ("no", "yes", False)):
                inner = masked(scores[side], rank) if scores[side].op != "phi" else None
                if (
                    inner is not None
                    and inner[1].condition is None
                    and inner[0].beneath(PLAIN).key == scores[other].beneath(PLAIN).key
                ):
                    return scores[other], _at_times(inner[1], scores["test"], is_asked_for)
            return _choice_of_masks(scores, rank)
    return None


def _is_of_last(scores: Value, rank: int) -> bool:
    """Whether a causal mask says which scores are written to, in their last two dimensions."""
    *places, mask = scores.items[1:-1]
    is_whole = [each.op == "slice" and all(bound.is_const(None) for bound in each.items) for each in places]
    found = causal_mask(mask) if not mask.is_const() and mask.op != "slice" else None
    if found is None or not (found.hides_future or found.keeps_past):
        return False
    own = 2 + found.leading
    return [each.is_const("...") for each in places] == [True] or (all(is_whole) and len(places) + own == rank)


def _choice_of_masks(scores: Value, rank: int) -> tuple[Value, Masking] | None:
    """Scores to which one of two masks is added, one of them nothing: baddbmm with a bias or zeros."""
    sides = [masked(scores[side], rank) for side in ("yes", "no")]
    if None in sides or len({inner[0].key for inner in sides if inner is not None}) != 1:
        return None
    (base, yes), (_, no) = sides  # type: ignore[misc]
    for mask, other, is_asked_for in ((yes, no, True), (no, yes, False)):
        if mask.kind == other.kind == "added" and is_nothing(other.mask):
            return base, _at_times(mask, scores["test"], is_asked_for)
    return None


def _added(mask: Value) -> Masking:
    """What is added to scores, and when, where it is nothing at other times."""
    for side, other, is_asked_for in (("yes", "no", True), ("no", "yes", False)) if mask.op == "phi" else ():
        added = Masking(mask[side], "added")
        if (
            is_nothing(mask[other])
            and not is_nothing(mask[side])
            and (added.is_causal or not is_float_mask(mask[other]))
        ):
            return _at_times(added, mask["test"], is_asked_for)
    return Masking(mask, "added")


def _at_times(masking: Masking, test: Value, is_asked_for: bool) -> Masking:
    """A mask that is asked for by a condition; by that by which there is one, where there is a triangle or None."""
    test, is_asked_for = plain_test(test, is_asked_for)
    mask = where(masking.mask, test, is_asked_for)
    is_set = mask.op == "phi" and test.op in ("is", "isnot") and test["input"].key == mask.key
    for side, other in (("yes", "no"), ("no", "yes")) if is_set and is_asked_for is (test.op == "isnot") else ():
        if mask[other].is_const(None) and causal_mask(mask[side]) is not None:
            test, is_asked_for = plain_test(mask["test"], side == "yes")
            return replace(masking, mask=mask[side], condition=test, is_asked_for=is_asked_for)
    return replace(masking, mask=mask, condition=test, is_asked_for=is_asked_for)


@once_each
def is_float_mask(value: Value) -> bool:
    """Whether a tensor has rows and columns, and floats in them, for certain."""
    value = value.beneath(_OF_ONE)
    if value.op == "phi":
        sides = [each for each in value.items[1:] if each.op != "unset" and not each.is_const(None)]  # to be added
        return all(is_float_mask(each) or is_nothing(each) for each in sides)
    size, dtype = value.get("size"), value.get("dtype")
    is_matrix = size is not None and size.op == "tuple" and len(size.args) > 1
    is_float = dtype is None or (dtype.op == "attr" and dtype.data == "dtype") or "float" in str(dtype.data)
    fill = value.get("fill_value")
    is_filled = value.op in ("zeros", "new_zeros") or (value.op in ("full", "new_full") and fill is not None)
    return is_matrix and is_float and is_filled and (fill is None or isinstance(fill.number, float))


def is_nothing(value: Value) -> bool:
    """Whether it changes nothing where it is added."""
    return value.number == 0 or value.op in ("zeros", "new_zeros", "zeros_like")


def is_multihead(value: Value) -> bool:
    """Whether a call of torch's own module computes it, which is not followed."""
    of = value.get("of")
    return value.op == "module" and of is not None and of.op == "new" and of.data[1] == "torch.nn.MultiheadAttention"


def holds_product(value: Value, depth: int = 12) -> bool:
    """Whether it is a product of matrices, past what may be done to scores."""
    if value.op == "matmul":
        return True
    return value.op in BETWEEN and depth > 0 and any(holds_product(each, depth - 1) for each in value.items)


def _hiding(mask: Masking, fill: Value) -> Masking:
    """A mask that fills with what hides: the least number, or one that is low enough where a key is left."""
    fill = fill["data"] if fill.op == "tensor" else fill.get("fill_value", fill)  # type: ignore[assignment]
    if fill.number == -math.inf:
        return mask
    least = ranging(fill)
    if not (least <= LOWEST if least is not None else fill.number is not None and fill.number <= LOW):
        raise Unread(fill, 'its mask does not fill with float("-inf"), nor with a number that no score comes near')
    return replace(mask, is_low=True)
