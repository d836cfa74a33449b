"""Attention that is written out: a softmax of scaled products of queries and keys, whose result weighs values."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .frames import Reading
from .masked import BETWEEN, PLAIN, Masking, Unread, holds_product, masked
from .masks import leaves_a_key
from .numbers import is_number
from .operations import applied
from .shapes import rank_of, size_of
from .values import Graph, Value

_MATRICES = {"mT", "swap", "permute", "unfold"}
_UNKNOWN = {"call", "opaque", "module", "linear"}
_PRODUCTS = {"matmul", "einsum", "baddbmm"}


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
    scaled: dict[str, tuple[Value, list[tuple[Value, bool]]]] = field(default_factory=dict)  # operands, their factors
    made: list[Value] = field(default_factory=list)  # all values from the scores to the weights, dropped out
    is_longer: bool = False  # whether there may be more keys than queries
    calls: list[Call] = field(default_factory=list)  # those of its function
    asked: list[Call] = field(default_factory=list)  # those that hand in a causal mask


@dataclass(frozen=True, slots=True)
class Call:
    """A call that leads to an attention, and what that is there, if it can be read."""

    reading: Reading
    node: ast.Call
    found: Attention | None

    @property
    def masks(self) -> list[Masking]:
        return self.found.masks if self.found is not None else []

    @property
    def is_causal(self) -> bool:
        """Whether all that it hides is the future."""
        return bool(self.masks) and all(mask.is_causal for mask in self.masks)


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


def in_a_call(graph: Graph, reading: Reading, call: ast.Call, found: Attention) -> Iterator[Call]:
    """An attention as a call makes it, which leads to it; every time, where it does so more than once."""
    for product in reading.values[call].walk():
        is_it = product.op == "matmul" and product.at is not None and product.at.node is found.node
        softmax = _softmax_in(product["input"]) if is_it else None
        try:
            made = _read(graph, call, product, product, softmax) if softmax is not None else None
        except Unread:
            made = None
        if is_it:
            yield Call(reading, call, made)


def _softmax_in(value: Value, depth: int = 12) -> Value | None:
    """The softmax that a value is made of, past what may be done to weights."""
    if value.op == "softmax":
        return value
    if value.op not in BETWEEN | _UNKNOWN or not depth:
        return None
    return next((found for each in value.items if (found := _softmax_in(each, depth - 1)) is not None), None)


def _read(graph: Graph, node: ast.expr, result: Value, product: Value, softmax: Value) -> Attention:
    if product.op != "matmul":
        raise Unread(product, "what its weights weigh is no product of matrices: write weights @ values")
    weights, dropout = product["input"], None
    made = [weights]
    while weights.key != softmax.key:
        if weights.op == "phi" and (either := _softmax_of_either(graph, weights)) is not None:
            softmax = weights = either
            break
        is_handed = weights.op == "call" and weights["func"].op == "parameter" and weights.args.keys() == {"func", "0"}
        if (weights.op == "dropout" or is_handed) and dropout is None:
            dropout = weights
        elif weights.op not in PLAIN and not _is_cast_back(weights, softmax["input"]):
            raise Unread(weights, "something is done to its weights besides dropout")
        weights = weights["0" if weights.op == "call" else "input"]
        made.append(weights)
    dim, rank = softmax.get("dim"), _rank(graph, product["other"], softmax["input"])
    if dim is not None and (dim.number or 0) > 0 and not rank:
        raise Unread(softmax, "how many dimensions its softmax has is not known: count from the last one, dim=-1")
    if dim is None or dim.number not in (-1, rank - 1):
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


def _softmax_of_either(graph: Graph, weights: Value) -> Value | None:
    """The softmax of scores that are one or the other, for one of the softmax of either."""
    yes, no = weights["yes"], weights["no"]
    own, other = ([(name, each.key) for name, each in side.args.items() if name != "input"] for side in (yes, no))
    if yes.op != "softmax" or no.op != "softmax" or own != other:
        return None
    scores = graph.value("phi", {"test": weights["test"], "yes": yes["input"], "no": no["input"]}, at=yes.at)
    return graph.value("softmax", {**yes.args, "input": scores}, at=yes.at)


def _rank(graph: Graph, values: Value, scores: Value) -> int:
    """How many dimensions scores have, as far as what they are made of and what they weigh tells; 0 if that is not."""
    scores = _product_of(scores)
    return max(rank_of(graph, each) or 0 for each in (values, scores, *scores.items))


def _product_of(scores: Value) -> Value:
    """The product that scores are made of, past what may be done to them; what is in its way where there is none."""
    while scores.op != "matmul" and holds_product(scores):
        scores = next(each for each in scores.items if holds_product(each))
    return scores


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
    rank, heads, above = _rank(graph, found.values, scores), list[Value](), 0
    while scores.op != "matmul":
        found.made += [scores, *(_in_branches(scores) if scores.op == "phi" else ())]
        masking = masked(scores, rank)
        if masking is not None:
            scores, mask = masking
            _require_unscaled(found, mask)
            found.masks.append(mask)
        elif scores.op in ("mul", "div"):
            scores = _unscaled(graph, found, scores)
        elif scores.op in PLAIN:
            scores = scores["input"]
        elif not heads and (heads := _heads_apart(graph, scores)):
            scores, above = scores["input"], len(found.masks)
        else:
            raise Unread(
                scores, "its scores are no scaled product of queries and keys, with masks: " + _described(scores)
            )
    found.made.append(scores)
    low = next((each for each in found.masks if each.is_low), None)
    if low is not None and not leaves_a_key([(each.mask, each.kind) for each in found.masks]):
        why = 'its mask does not fill with float("-inf"), and rows that are all masked would differ'
        raise Unread(low.mask, f"{why}: that none is cannot be told")
    if heads and not all(mask.is_causal for mask in found.masks[above:]):
        raise Unread(scores, "its scores are masked before their heads are apart: mask them behind that")
    sides = []
    for name, side in (("queries", scores["input"]), ("keys", scores["other"])):
        known = len(found.factors)
        sides.append(_without_factors(graph, found, side))
        side = side if name == "queries" else applied(graph, "mT", {"input": side}, side.at)
        found.scaled[name] = (_with_heads(graph, side, heads), found.factors[known:])
    found.queries, keys = _with_heads(graph, sides[0], heads), sides[1]
    found.keys = _with_heads(graph, applied(graph, "mT", {"input": keys}, keys.at), heads)
    of_queries, of_keys = rank_of(graph, found.queries), rank_of(graph, keys)
    is_vector = of_queries == 1 or of_keys == 1 or (of_keys == 2 and of_queries is None)  # noqa: PLR2004 - a matrix
    if is_vector or (keys.op not in _MATRICES and of_keys is None and (of_queries or 0) < 3):  # noqa: PLR2004 - a batch
        raise Unread(keys, "how many dimensions its queries and keys have is not known: torch wants two and more")


def _heads_apart(graph: Graph, scores: Value) -> list[Value]:
    """The sizes that the first of three dimensions of scores is taken apart to, where that is all that is done."""
    product = _product_of(scores["input"] if "input" in scores.args else scores)
    sizes = scores.get("sizes" if scores.op == "unflatten" else "size")
    if scores.op not in ("view", "reshape", "unflatten") or product.op != "matmul" or rank_of(graph, product) != 3:  # noqa: PLR2004
        return []
    if sizes is None or sizes.op not in ("tuple", "list"):
        return []
    if scores.op == "unflatten":
        return list(sizes.items) if scores["dim"].number in (0, -3) else []
    own = [size_of(graph, product, graph.const(place), None).key for place in (-2, -1)]
    *heads, rows, columns = sizes.items if len(sizes.items) > len(own) else [product] * 3
    is_same = rows.key == own[0] and (columns.key == own[1] or columns.number == -1)
    return heads if is_same and all(each.number != -1 for each in heads) else []


def _with_heads(graph: Graph, tensor: Value, heads: Sequence[Value]) -> Value:
    """A tensor with its first dimension taken apart."""
    made = {"input": tensor, "dim": graph.const(0), "sizes": graph.group("tuple", heads)}
    return graph.value("unflatten", made, at=tensor.at) if heads else tensor


def _in_branches(scores: Value) -> Iterator[Value]:
    """What scores are in each branch of a condition, and the plain copies that they are made of there."""
    for side in scores.items[1:]:
        yield side
        while (side := side.get("input") or side).op in PLAIN:
            yield side


def _unscaled(graph: Graph, found: Attention, scores: Value) -> Value:
    """The scores without a factor, which is a number for certain."""
    if scores.args.keys() != {"input", "other"}:
        raise Unread(scores, f"{scores.op} is told more than its operands")
    inner, factor = scores["input"], scores["other"]
    if scores.op == "mul" and is_number(inner):
        inner, factor = factor, inner
    if not is_number(factor) and not _is_of_width(graph, scores, factor):
        raise Unread(factor, "its scale may be a tensor, which torch takes none: multiply the queries by it")
    if _is_negative(factor):
        raise Unread(factor, "its scale is negative, and torch takes its root: negate the queries")
    found.factors.append((factor, scores.op == "div"))
    return inner


def _is_of_width(graph: Graph, scores: Value, factor: Value) -> bool:
    """Whether a factor is a power of how wide the queries or the keys of scores are, however that was computed."""
    sides = zip(_product_of(scores).items, (-1, -2), strict=False)
    widths = {size_of(graph, each, graph.const(place), None).key for each, place in sides}
    return factor.op == "pow" and is_number(factor["exponent"]) and factor["input"].key in widths


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
        if not is_number(factor) or _is_negative(factor):
            break
        found.factors.append((factor, tensor.op == "div"))
        tensor = inner
    return tensor


def _require_unscaled(found: Attention, mask: Masking) -> None:
    """Raise Unread where a mask is scaled with the scores, and that makes a difference."""
    is_infinite = (mask.kind != "added" or mask.is_causal) and not mask.is_low
    for factor, _ in found.factors:
        if not is_infinite or not ((factor.number or 0) > 0 or factor.op in ("size", "pow")):
            raise Unread(factor, "its scores are scaled once they are masked")


def _is_negative(value: Value) -> bool:
    return (value.number or 0) < 0 or value.op == "neg"


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
    is_measured = factor.op == "pow" and factor["input"].op == "size"
    if settings and not is_measured:  # of a constructor: an attribute may be set to something else
        return False
    return any(sized_as(graph, factor, each, 0.5 if divides else -0.5) for each in (found.queries, found.keys))


def sized_as(graph: Graph, factor: Value, tensor: Value, power: float) -> bool:
    """Whether a factor is a power of the width of a tensor's last dimension."""
    width, own = size_of(graph, tensor, graph.const(-1), None), factor.get("input") or factor
    own = size_of(graph, own["input"], own["dim"], None) if own.op == "size" else own  # as ranks are known by now
    return factor.op == "pow" and factor["exponent"].number == power and own.key == width.key
