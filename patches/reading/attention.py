"""Attention that is written out: a softmax of scaled products of queries and keys, whose result weighs values."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from .frames import Reading, where
from .masks import causal_mask
from .numbers import is_number
from .shapes import rank_of, size_of
from .values import Graph, Value

_MODES = re.compile("grad|inference_mode|autocast|precision")
_PLAIN = {"contiguous", "clone"}
_BETWEEN = _PLAIN | {
    "dropout",
    "mul",
    "div",
    "add",
    "sub",
    "cast",
    "masked_fill",
    "where",
    "phi",
    "index",
    "permute",
    "detach",
}
_MASKED = {"input", "other", "mask", "value", "condition"}
_MATRICES = {"mT", "swap", "permute", "unfold"}
_UNKNOWN = {"call", "opaque", "module", "linear"}
_PRODUCTS = {"matmul", "einsum", "baddbmm"}


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

    @cached_property
    def is_causal(self) -> bool:
        """Whether it hides the future, and nothing else."""
        found = causal_mask(self.mask)
        if found is None or found.left_out:
            return False
        return {"hides": found.hides_future, "keeps": found.keeps_past, "added": found.adds_to_future_alone}[self.kind]


@dataclass(slots=True)
class Attention:
    """The parts of an attention, as scaled_dot_product_attention takes them."""

    node: ast.expr  # of the weighted sum
    result: Value
    softmax: Value
    queries: Value
    keys: Value
    values: Value
    dropout: Value | None = None
    masks: list[Masking] = field(default_factory=list)
    factors: list[tuple[Value, bool]] = field(default_factory=list)  # of the scale, and whether they divide
    made: list[Value] = field(default_factory=list)  # all values from the scores to the weights, dropped out


def attentions(graph: Graph, reading: Reading) -> Iterator[Attention | Unread]:
    """The attentions whose weighted sum stands in a function's own text, and what looks like one but is not read."""
    for node, value in list(reading.values.items()):
        if not isinstance(node, ast.expr) or isinstance(node, (ast.Name, ast.Attribute, ast.NamedExpr)):
            continue
        product = value["input"] if value.op == "permute" and value["input"].at == value.at else value
        if (
            product.op not in _PRODUCTS
            or product.at is None
            or (product.at.node is not node and node not in reading.calls)
        ):
            continue
        weights = (
            product.items[0] if product.op == "matmul" else next((e for e in product.items if _softmax_in(e)), None)
        )
        softmax = _softmax_in(weights) if weights is not None else None
        if softmax is None or not any(each.op in _PRODUCTS | _UNKNOWN for each in softmax["input"].walk()):
            continue
        try:
            yield _read(graph, node, value, product, softmax)
        except Unread as unread:
            yield unread


def handed_a_causal_mask(readings: Iterable[Reading], found: Attention) -> str:
    """The name of a function that hands an attention a causal mask as one that is not known where it is computed."""
    if any(_is_triangle(each) for mask in found.masks for each in mask.mask.walk()):
        return ""
    for reading in readings:
        for call, function in reading.calls.items():
            if call not in reading.values or function is reading.node:
                continue
            for value in reading.values[call].walk():
                is_it = value.op == "matmul" and value.at is not None and value.at.node is found.node
                softmax = _softmax_in(value["input"]) if is_it else None
                if softmax is not None and any(_is_triangle(each) for each in softmax["input"].walk()):
                    return getattr(reading.node, "name", "its caller")
    return ""


def hides_more_at_times(mask: Value) -> bool:
    """Whether a mask is a causal one in one case, or with more that is hidden, and not cut out of one."""
    if _is_triangle(mask):
        return True
    return mask.op in ("phi", "or", "and", "xor", "cast", "invert") and any(hides_more_at_times(e) for e in mask.items)


def _is_triangle(value: Value) -> bool:
    found = causal_mask(value) if value.op not in ("const", "parameter", "size") else None
    return (
        found is not None
        and not found.left_out
        and (found.hides_future or found.keeps_past or found.adds_to_future_alone)
    )


def other_mode(reading: Reading, found: Attention) -> bool:
    """Whether weights are made without gradients, or in another precision, and the weighted sum is not."""
    modes = [_modes(each) for each in (*found.made, found.softmax)]
    is_set = any(effect.kind in ("set_grad_enabled", "set_default_dtype") for effect in reading.effects)
    own = _modes(found.result)
    return is_set or any(mode - own for mode in modes)


def _modes(value: Value) -> set[ast.AST]:
    """The contexts and decorators under which a value is made that say how gradients or numbers are."""
    found: set[ast.AST] = set()
    for each in value.at.file.ancestors(value.at.node) if value.at is not None else ():
        items = [item.context_expr for item in each.items] if isinstance(each, (ast.With, ast.AsyncWith)) else []
        said = " ".join(map(ast.unparse, [*items, *getattr(each, "decorator_list", ())]))
        if _MODES.search(said):
            found.add(each)
    return found


def _softmax_in(value: Value, depth: int = 12) -> Value | None:
    """The softmax that a value is made of, past what may be done to weights."""
    if value.op == "softmax":
        return value
    if value.op not in _BETWEEN | _UNKNOWN or not depth:
        return None
    return next((found for each in value.items if (found := _softmax_in(each, depth - 1)) is not None), None)


def _read(graph: Graph, node: ast.expr, result: Value, product: Value, softmax: Value) -> Attention:
    if product.op != "matmul":
        raise Unread(product, "what its weights weigh is no product of matrices: write weights @ values")
    weights, dropout = product["input"], None
    made = [weights]
    while weights.key != softmax.key:
        if weights.op == "dropout" and dropout is None:
            dropout = weights
        elif weights.op not in _PLAIN and not _is_cast_back(weights, softmax["input"]):
            raise Unread(weights, "something is done to its weights besides dropout")
        weights = weights["input"]
        made.append(weights)
    dim, rank = softmax.get("dim"), rank_of(graph, product)
    is_last = dim is not None and (dim.number == -1 or (rank is not None and dim.number == rank - 1))
    if not is_last:
        raise Unread(softmax, "its softmax is not over the last dimension, that of the keys")
    if (
        "dtype" in softmax.args
        and not softmax["dtype"].is_const(None)
        and not _is_dtype_of(softmax["dtype"], softmax["input"])
    ):
        raise Unread(softmax, "its softmax has a dtype of its own: convert queries, keys and values instead")
    found = Attention(node, result, softmax, product, product, product["other"], dropout, made=made)
    _read_scores(graph, found, softmax["input"])
    return found


def _is_dtype_of(dtype: Value, scores: Value) -> bool:
    """Whether a dtype is that of scores, or of something that they are made of."""
    return dtype.op == "attr" and dtype.data == "dtype" and any(each.key == dtype["of"].key for each in scores.walk())


def _is_cast_back(weights: Value, scores: Value) -> bool:
    """Whether weights are given the dtype of the scores, as torch gives its result that of the queries."""
    like, dtype = weights.get("like"), weights.get("dtype")
    is_like = like is not None and any(each.key == like.key for each in scores.walk())
    return weights.op == "cast" and (is_like or (dtype is not None and _is_dtype_of(dtype, scores)))


def _read_scores(graph: Graph, found: Attention, scores: Value) -> None:
    """Take masks and factors off the scores, down to the product of queries and keys."""
    while scores.op != "matmul":
        found.made += [scores, *(scores.items[1:] if scores.op == "phi" else ())]
        masking = _masking(scores)
        if masking is not None:
            scores, mask = masking
            _require_unscaled(found, mask)
            found.masks.append(mask)
        elif scores.op in ("mul", "div"):
            scores = _unscaled(found, scores)
        elif scores.op in _PLAIN:
            scores = scores["input"]
        else:
            raise Unread(
                scores, "its scores are no scaled product of queries and keys, with masks: " + _described(scores)
            )
    found.made.append(scores)
    found.queries, keys = scores["input"], scores["other"]
    found.queries = _without_factors(graph, found, found.queries)
    keys = _without_factors(graph, found, keys)
    found.keys = keys["input"] if keys.op == "mT" else graph.value("mT", {"input": keys}, at=keys.at)
    of_queries, of_keys = rank_of(graph, found.queries), rank_of(graph, keys)
    is_vector = of_queries == 1 or of_keys == 1 or (of_keys == 2 and of_queries is None)  # noqa: PLR2004 - a matrix
    if is_vector or (keys.op not in _MATRICES and of_keys is None and (of_queries or 0) < 3):  # noqa: PLR2004 - a batch
        raise Unread(keys, "how many dimensions its queries and keys have is not known: torch wants two and more")


def _masking(scores: Value) -> tuple[Value, Masking] | None:
    """The scores under a mask, and the mask."""
    if scores.op in ("add", "masked_fill", "where") and scores.args.keys() - {
        "input",
        "other",
        "mask",
        "value",
        "condition",
    }:
        raise Unread(scores, f"{scores.op} is told more than its operands")
    match scores.op:
        case "masked_fill":
            _require_infinite(scores["value"])
            return scores["input"], Masking(scores["mask"], "hides")
        case "where":
            for name, other, kind in (("input", "other", "keeps"), ("other", "input", "hides")):
                if _holds_product(scores[name]) and not _holds_product(scores[other]):
                    _require_infinite(scores[other])
                    return scores[name], Masking(scores["condition"], kind)
        case "add":
            for name, other in (("input", "other"), ("other", "input")):
                if _holds_product(scores[name]) and not _holds_product(scores[other]):
                    if not _is_nothing(scores[other]) and not _is_float_mask(scores[other]):
                        raise Unread(scores[other], "what is added to its scores may be no mask that torch takes")
                    return scores[name], Masking(scores[other], "added")
        case "phi":
            for side, other, is_asked_for in (("yes", "no", True), ("no", "yes", False)):
                inner = _masking(scores[side]) if scores[side].op != "phi" else None
                if inner is not None and inner[0].key == scores[other].key:
                    mask = where(inner[1].mask, scores["test"], is_asked_for)
                    return inner[0], Masking(mask, inner[1].kind, scores["test"], is_asked_for)
            return _choice_of_masks(scores)
    return None


def _choice_of_masks(scores: Value) -> tuple[Value, Masking] | None:
    """Scores to which one of two masks is added, one of them nothing: baddbmm with a bias or zeros."""
    sides = [_masking(scores[side]) for side in ("yes", "no")]
    if None in sides or len({inner[0].key for inner in sides if inner is not None}) != 1:
        return None
    (base, yes), (_, no) = sides  # type: ignore[misc]
    for mask, other, is_asked_for in ((yes, no, True), (no, yes, False)):
        if mask.kind == other.kind == "added" and _is_nothing(other.mask):
            return base, Masking(mask.mask, mask.kind, scores["test"], is_asked_for)
    return None


def _is_float_mask(value: Value) -> bool:
    """Whether a tensor has rows and columns, and floats in them, for certain."""
    while value.op in ("index", "contiguous", "clone", "detach", "expand", "unsqueeze", "triu", "tril", "masked_fill"):
        value = value["input"]
    if value.op == "phi":
        return all(_is_float_mask(value[side]) or _is_nothing(value[side]) for side in ("yes", "no"))
    size, dtype = value.get("size"), value.get("dtype")
    is_matrix = size is not None and size.op == "tuple" and len(size.args) > 1
    is_float = dtype is None or (dtype.op == "attr" and dtype.data == "dtype") or "float" in str(dtype.data)
    fill = value.get("fill_value")
    is_filled = value.op in ("zeros", "new_zeros") or (value.op in ("full", "new_full") and fill is not None)
    return is_matrix and is_float and is_filled and (fill is None or isinstance(fill.number, float))


def _is_nothing(value: Value) -> bool:
    return value.number == 0 or value.op in ("zeros", "new_zeros", "zeros_like")


def _holds_product(value: Value, depth: int = 12) -> bool:
    if value.op == "matmul":
        return True
    return value.op in _BETWEEN and depth > 0 and any(_holds_product(each, depth - 1) for each in value.items)


def _require_infinite(value: Value) -> None:
    if value.number != -math.inf:
        raise Unread(value, 'its mask does not fill with float("-inf"), and rows that are all masked would differ')


def _unscaled(found: Attention, scores: Value) -> Value:
    """The scores without a factor, which is a number for certain."""
    if scores.args.keys() != {"input", "other"}:
        raise Unread(scores, f"{scores.op} is told more than its operands")
    inner, factor = scores["input"], scores["other"]
    if scores.op == "mul" and is_number(inner):
        inner, factor = factor, inner
    if not is_number(factor):
        raise Unread(factor, "its scale may be a tensor, which torch takes none: multiply the queries by it")
    found.factors.append((factor, scores.op == "div"))
    return inner


def _without_factors(graph: Graph, found: Attention, tensor: Value) -> Value:
    if tensor.op in ("permute", "mT") and tensor["input"].op in ("mul", "div"):
        inner = _without_factors(graph, found, tensor["input"])
        made = graph.value(tensor.op, {"input": inner}, tensor.data, tensor.at)
        graph.ranks.setdefault(made.key, graph.ranks.get(tensor.key, 0) or 2)
        return made
    while tensor.op in ("mul", "div"):
        inner, factor = tensor["input"], tensor["other"]
        if tensor.op == "mul" and is_number(inner):
            inner, factor = factor, inner
        if not is_number(factor):
            break
        found.factors.append((factor, tensor.op == "div"))
        tensor = inner
    return tensor


def _require_unscaled(found: Attention, mask: Masking) -> None:
    """Raise Unread where a mask is scaled with the scores, and that makes a difference."""
    is_infinite = mask.kind != "added" or mask.is_causal
    for factor, _ in found.factors:
        if not is_infinite or not _is_positive(factor):
            raise Unread(factor, "its scores are scaled once they are masked")


def _is_positive(value: Value) -> bool:
    return (value.number or 0) > 0 or value.op in ("size", "pow")


def _described(value: Value) -> str:
    if value.op == "opaque":
        return str(value.data[1])
    if value.op == "call":
        return "a call is not followed"
    if value.op == "phi":
        return "a condition changes more than a mask"
    return f"{value.op} is done to them"


def is_default_scale(graph: Graph, reading: Reading, found: Attention) -> bool:
    """Whether the scale is the one that torch takes: one over the root of the width of queries and keys."""
    if len(found.factors) != 1:
        return False
    factor, divides = found.factors[0]
    settings = [each for each in factor.walk() if each.op == "parameter" and each.data[1] is not reading.node]
    if settings:  # of a constructor: an attribute may be set to something else
        return False
    power = 0.5 if divides else -0.5
    if factor.op != "pow" or factor["exponent"].number != power:
        return False
    return factor["input"].key in _widths(graph, found)


def _widths(graph: Graph, found: Attention) -> set[int]:
    """The keys of the values that are the width of queries and keys."""
    return {size_of(graph, each, graph.const(-1), None).key for each in (found.queries, found.keys)}
