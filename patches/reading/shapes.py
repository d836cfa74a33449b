"""How many dimensions a tensor has, and how long they are, where the code tells."""

from __future__ import annotations

from .numbers import is_number
from .values import Graph, Place, Value

_ALIKE = {  # what leaves the number of dimensions as it is
    *("softmax", "dropout", "masked_fill", "mT", "permute", "swap", "cast", "contiguous", "clone", "detach", "pad"),
    *("linear", "neg", "triu", "tril", "invert"),
}


def rank_of(graph: Graph, value: Value) -> int | None:
    """How many dimensions a tensor has, where the code tells."""
    known = graph.ranks.get(value.key)
    if known is not None:
        return known
    told = value.key, len(graph.ranks)  # what was found while less was known is looked for anew
    if told not in graph.found:
        graph.found[told] = _rank(graph, value)
    return graph.found[told]


def _rank(graph: Graph, value: Value) -> int | None:
    match value.op:
        case (
            "view" | "reshape" | "expand" | "ones" | "zeros" | "full" | "new_zeros" | "new_ones" | "new_full" | "empty"
        ):
            size = value.get("size")
            return len(size.args) if size is not None and size.op in ("tuple", "list") else None
        case "unflatten":
            inner, sizes = rank_of(graph, value["input"]), value.get("sizes")
            return (
                inner - 1 + len(sizes.args)
                if inner is not None and sizes is not None and sizes.op in ("tuple", "list")
                else None
            )
        case "flatten":
            inner = rank_of(graph, value["input"])
            start, end = (value.get("start_dim"), value.get("end_dim"))
            low = start.number if start is not None else 0
            high = end.number if end is not None else -1
            if inner is None or low is None or high is None:
                return None
            return inner - (int(high) % inner - int(low) % inner)
        case "unsqueeze" | "unfold" | "stack":
            inner = rank_of(graph, value["input"]) if "input" in value.args else None
            return inner + 1 if inner is not None else None
        case "part":  # of what is unpacked: q, k, v = qkv.chunk(3, -1)
            whole, is_cut = value["of"], value["of"].op in ("chunk", "split")
            inner = rank_of(graph, whole["input"] if is_cut or whole.op == "unbind" else whole)
            return inner if inner is None or is_cut else inner - 1
        case "index":
            inner = rank_of(graph, value["input"])
            picks = [each for each in value.items[1:] if each.op == "slice" or isinstance(each.number, int)]
            is_plain = inner is not None and len(picks) == len(value.items) - 1
            return inner - sum(each.op != "slice" for each in picks) if is_plain else None  # type: ignore[operator]
        case "repeat_interleave":
            return rank_of(graph, value["input"]) if "dim" in value.args else 1
        case "arange":
            return 1
        case "phi":
            return rank_of(graph, value["yes"]) or rank_of(graph, value["no"])
        case "matmul":
            ranks = [rank_of(graph, each) for each in value.items]
            return None if None in ranks else max(ranks)  # type: ignore[type-var]
        case "add" | "sub" | "mul" | "div":
            known_ranks = [rank for each in value.items if (rank := rank_of(graph, each)) is not None]
            return max(known_ranks, default=None)
        case op if op in _ALIKE:
            return rank_of(graph, value["input"]) if "input" in value.args else None
    return None


def size_of(graph: Graph, tensor: Value, dim: Value, at: Place | None) -> Value:
    """How long a tensor is in one dimension."""
    while (
        tensor.op in ("contiguous", "clone", "detach", "cast", "softmax", "dropout", "masked_fill")
        and "input" in tensor.args
    ) or (tensor.op in ("mul", "div") and is_number(tensor["other"])):
        tensor = tensor["input"]
    place, rank = dim.number, rank_of(graph, tensor)
    if isinstance(place, int) and rank is not None and -rank <= place < rank:
        place %= rank
        if tensor.op in ("view", "reshape") and (given := tensor["size"].items[place]).number != -1:
            return given
        if tensor.op == "index" and all(
            each.op == "const" and isinstance(each.number, int) for each in tensor.items[1:]
        ):
            return size_of(graph, tensor["input"], graph.const(place + len(tensor.items) - 1), at)
        if tensor.op == "mT" and place >= rank - 2:
            return size_of(graph, tensor["input"], graph.const(2 * rank - 3 - place), at)
        if tensor.op == "permute":
            return size_of(graph, tensor["input"], graph.const(tensor.data[place]), at)
        if tensor.op == "linear" and place < rank - 1 and "input" in tensor.args:
            return size_of(graph, tensor["input"], graph.const(place), at)
        if tensor.op == "part" and (own := _before_cut(tensor["of"], place, rank)) is not None:
            return size_of(graph, tensor["of"]["input"], graph.const(own), at)
        if place == rank - 1 and _keeps_last(graph, tensor):
            return size_of(graph, tensor["input"], graph.const(-1), at)
        dim = graph.const(place)
    if isinstance(place, int) and tensor.op == "matmul" and (place == -1 or place == (rank or 0) - 1):
        return size_of(graph, tensor["other"], graph.const(-1), at)
    if isinstance(place, int) and tensor.op == "matmul" and (place == -2 or place == (rank or 0) - 2):
        return size_of(graph, tensor["input"], graph.const(-2), at)
    return graph.value("size", {"input": tensor, "dim": dim}, at=at)


def _before_cut(cut: Value, place: int, rank: int) -> int | None:
    """Which dimension of what is cut to parts is as long as one of theirs: any but that along which it is cut."""
    dim, is_taken = cut.get("dim"), cut.op == "unbind"
    along = dim.number if dim is not None else 0
    if cut.op not in ("chunk", "split", "unbind") or not isinstance(along, int):
        return None
    along %= rank + is_taken
    return place + (place >= along) if is_taken else place if place != along else None


def _keeps_last(graph: Graph, tensor: Value) -> bool:
    """Whether an operation leaves the length of the last dimension as it is."""
    inner = rank_of(graph, tensor["input"]) if "input" in tensor.args else None
    if inner is None:
        return False
    if tensor.op == "pad":
        amounts = tensor["pad"].items[:2] if tensor["pad"].op in ("tuple", "list") else ()
        return len(amounts) == 2 and all(each.number == 0 for each in amounts)
    if tensor.op == "unflatten":
        return isinstance(tensor["dim"].number, int) and tensor["dim"].number % inner != inner - 1
    if tensor.op == "flatten":
        end = tensor.get("end_dim")
        return end is not None and isinstance(end.number, int) and end.number % inner != inner - 1
    return False
