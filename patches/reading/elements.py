"""What operations make of small tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

from .picks import places_of
from .tensors import (
    ELEMENTWISE,
    MOST_ELEMENTS,
    Evaluator,
    Number,
    Tensor,
    Unknown,
    broadcast,
    expanded,
    permuted,
    promoted,
    steps_of,
    taken,
    whole,
)
from .values import Value

Operation = Callable[[Evaluator, Value], Tensor]


def _pairwise(op: str) -> Operation:
    function = ELEMENTWISE[op]

    def made(small: Evaluator, value: Value) -> Tensor:
        first, second = (small.operand(each) for each in value.items[:2])
        if set(value.args) - {"input", "other", "exponent"}:
            raise Unknown(value)
        shape, (a, b) = broadcast(first, second)
        both = promoted([*a, *b])
        pairs = zip(both, both[len(a) :], strict=False)
        return Tensor(shape, promoted([function(x, y) for x, y in pairs]))

    return made


def _each(function: Callable[[Number], Number]) -> Operation:
    def made(small: Evaluator, value: Value) -> Tensor:
        tensor = small.tensor(value["input"])
        return Tensor(tensor.shape, tuple(map(function, tensor.data)))

    return made


def _converted(value: Value, number: Number) -> Number:
    """A number in the dtype that an operation asks for."""
    dtype = value.get("dtype")
    if dtype is None or dtype.is_const(None):
        return number
    name = str(dtype.data) if dtype.op in ("global", "builtin") else ""
    name = name.removeprefix("torch.")
    if name == "bool":
        return bool(number)
    if name.startswith(("float", "bfloat", "half", "double")):
        return float(number)
    if name.startswith(("int", "uint", "long", "short")):
        if isinstance(number, float) and not math.isfinite(number):
            raise Unknown(value)
        return int(number)
    if dtype.op in ("attr", "parameter"):  # of another tensor, which is of floats where these are
        if not isinstance(number, float):
            raise Unknown(value)
        return float(number)
    raise Unknown(value)


def _filled(fill: Number | None) -> Operation:
    def made(small: Evaluator, value: Value) -> Tensor:
        shape = small.tensor(value["input"]).shape if value.op.endswith("_like") else small.sizes(value.get("size"))
        number = small.number(value["fill_value"]) if fill is None else fill
        if value.op.endswith("_like") and "dtype" not in value.args:
            data = small.tensor(value["input"]).data
            number = type(data[0])(number) if data else number
        if any(size < 0 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
            raise Unknown(value)
        return Tensor(shape, (_converted(value, number),) * math.prod(shape))

    return made


def _arange(small: Evaluator, value: Value) -> Tensor:
    start, end = (small.number(value[name]) for name in ("start", "end"))
    step = small.number(value["step"]) if "step" in value.args else 1
    if not all(isinstance(each, int) for each in (start, end, step)) or step == 0 or abs(end - start) > MOST_ELEMENTS:
        raise Unknown(value)
    data = tuple(_converted(value, each) for each in range(start, end, step))  # type: ignore[arg-type]
    return Tensor((len(data),), data)


def _few(rows: int, columns: int) -> None:
    """Raise Unknown where there would be too many elements."""
    if not 0 <= rows * columns <= MOST_ELEMENTS:
        raise Unknown


def _identity(small: Evaluator, value: Value) -> Tensor:
    rows = int(small.number(value["n"]))
    columns = small.option(value, "m", rows)
    _few(rows, columns)
    data = (_converted(value, float(i == j)) for i in range(rows) for j in range(columns))
    return Tensor((rows, columns), tuple(data))


def _triangle(keeps: Callable[[int, int], bool]) -> Operation:
    def made(small: Evaluator, value: Value) -> Tensor:
        tensor, k = small.tensor(value["input"]), small.option(value, "diagonal", 0)
        if len(tensor.shape) < 2:
            raise Unknown(value)
        rows, columns = tensor.shape[-2:]
        zero: Number = False if tensor.is_bool else type(tensor.data[0])(0) if tensor.data else 0
        data = tuple(
            each if keeps(place % columns - place // columns % rows, k) else zero
            for place, each in enumerate(tensor.data)
        )
        return Tensor(tensor.shape, data)

    return made


def _cast(small: Evaluator, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    if "like" in value.args:
        raise Unknown(value)
    return Tensor(tensor.shape, tuple(_converted(value, each) for each in tensor.data))


def _same(small: Evaluator, value: Value) -> Tensor:
    return small.tensor(value["input"])


def _masked_fill(small: Evaluator, value: Value) -> Tensor:
    base, mask = small.operand(value["input"]), small.tensor(value["mask"])
    fill = small.number(value["value"])
    if not mask.is_bool:
        raise Unknown(value)
    shape, (a, m) = broadcast(base, mask)
    kind = type(base.data[0]) if base.data else float
    return Tensor(shape, tuple(kind(fill) if hides else x for x, hides in zip(a, m, strict=True)))


def _set(small: Evaluator, value: Value) -> Tensor:
    """A tensor once some of its elements are set."""
    tensor, new = small.tensor(value["input"]), small.operand(value["value"])
    indices = [each for name, each in value.args.items() if name.isdigit()]
    shape, places = places_of(small, tensor.shape, indices)
    data = list(tensor.data)
    for place, element in zip(places, broadcast(new, Tensor(shape, tuple(places)))[1][0], strict=True):
        is_plain = not isinstance(data[place], tuple) and not isinstance(element, tuple)
        data[place] = type(data[place])(element) if is_plain else element
    return Tensor(tensor.shape, tuple(data))


def _where(small: Evaluator, value: Value) -> Tensor:
    parts = [small.operand(value[name]) for name in ("condition", "input", "other")]
    shape, (c, a, b) = broadcast(*parts)
    both = promoted([*a, *b])
    return Tensor(shape, tuple(x if keeps else y for keeps, x, y in zip(c, both, both[len(a) :], strict=False)))


def _indexed(small: Evaluator, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    shape, places = places_of(small, tensor.shape, [each for name, each in value.args.items() if name != "input"])
    return Tensor(shape, tuple(tensor.data[place] for place in places))


def _indices(small: Evaluator, value: Value) -> Tensor:
    """The places of a triangle: a row of rows, and one of columns."""
    rows, columns = int(small.number(value["row"])), int(small.number(value["col"]))
    offset = small.option(value, "offset", 0)
    _few(rows, columns)
    is_above = value.op == "triu_indices"
    places = [(i, j) for i in range(rows) for j in range(columns) if (j - i >= offset if is_above else j - i <= offset)]
    return Tensor((2, len(places)), tuple(place[side] for side in (0, 1) for place in places))


def _unsqueezed(small: Evaluator, value: Value) -> Tensor:
    tensor, dim = small.tensor(value["input"]), int(small.number(value["dim"]))
    dim %= len(tensor.shape) + 1
    return Tensor((*tensor.shape[:dim], 1, *tensor.shape[dim:]), tensor.data)


def _squeezed(small: Evaluator, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    if "dim" not in value.args:
        return Tensor(tuple(size for size in tensor.shape if size != 1), tensor.data)
    dim = int(small.number(value["dim"])) % len(tensor.shape)
    return tensor if tensor.shape[dim] != 1 else Tensor((*tensor.shape[:dim], *tensor.shape[dim + 1 :]), tensor.data)


def _viewed(small: Evaluator, value: Value) -> Tensor:
    tensor, sizes = small.tensor(value["input"]), list(small.sizes(value.get("size")))
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        if not rest or len(tensor.data) % rest:
            raise Unknown(value)
        sizes[sizes.index(-1)] = len(tensor.data) // rest
    return Tensor(tuple(sizes), tensor.data)


def _expand(small: Evaluator, value: Value) -> Tensor:
    tensor, sizes = small.tensor(value["input"]), list(small.sizes(value.get("size")))
    extra = len(sizes) - len(tensor.shape)
    own = (1,) * extra + tensor.shape
    if extra < 0:
        raise Unknown(value)
    shape = tuple(o if s == -1 else s for s, o in zip(sizes, own, strict=True))
    if any(o not in (1, s) for s, o in zip(shape, own, strict=True)):
        raise Unknown(value)
    return Tensor(shape, tuple(expanded(tensor.data, own, shape)))


def _ordered(order: Callable[[Value, int], Sequence[int]]) -> Operation:
    def made(small: Evaluator, value: Value) -> Tensor:
        tensor = small.tensor(value["input"])
        rank = len(tensor.shape)
        axes = order(value, rank)
        if sorted(axes) != list(range(rank)):
            raise Unknown(value)
        return permuted(tensor, axes)

    return made


def _swap(value: Value, rank: int) -> Sequence[int]:
    a, b = (each % rank for each in value.data) if rank else (0, 0)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return order


def _flattened(small: Evaluator, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    rank = len(tensor.shape)
    start, end = (small.option(value, name, default) for name, default in (("start_dim", 0), ("end_dim", -1)))
    start, end = start % max(rank, 1), end % max(rank, 1)
    middle = math.prod(tensor.shape[start : end + 1])
    return Tensor((*tensor.shape[:start], middle, *tensor.shape[end + 1 :]), tensor.data)


def _unflattened(small: Evaluator, value: Value) -> Tensor:
    tensor, dim = small.tensor(value["input"]), int(small.number(value["dim"]))
    sizes, dim = list(small.sizes(value["sizes"])), dim % len(tensor.shape)
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = tensor.shape[dim] // rest if rest else 0
    return Tensor((*tensor.shape[:dim], *sizes, *tensor.shape[dim + 1 :]), tensor.data)


def _summed_up(small: Evaluator, value: Value) -> Tensor:
    tensor, dim = (
        small.tensor(value["input"]),
        int(small.number(value["dim"])) % max(1, len(small.tensor(value["input"]).shape)),
    )
    step, size = steps_of(tensor.shape)[dim], tensor.shape[dim]
    data = [_converted(value, whole(each)) for each in tensor.data]
    for place in range(len(data)):
        if place // step % size:
            data[place] = whole(data[place]) + whole(data[place - step])
    return Tensor(tensor.shape, tuple(data))


def comes_from_a_cache(value: Value) -> bool:
    """Whether a value comes out of a mapping, or from an attribute of the object itself."""
    while value.op == "part" or (value.op == "index" and all(each.number is not None for each in value.items[1:])):
        value = value.items[0]
    return value.op in ("kept", "unset") or (value.op == "attr" and value["of"].op in ("self", "instance"))


def _kept(small: Evaluator, value: Value) -> Tensor:
    if "put" not in value.args:
        raise Unknown(value)
    return small.tensor(value["put"])


def _choice(small: Evaluator, value: Value) -> Tensor:
    """What two branches agree on; what a cache kept is what was put there."""
    sides = [small.tensor(value[side]) for side in ("yes", "no") if not comes_from_a_cache(value[side])]
    sides = sides * 2 if len(sides) == 1 else sides
    if not sides:
        raise Unknown(value)
    if sides[0] != sides[1]:
        raise Unknown(value)
    return sides[0]


TENSORS: dict[str, Operation] = {
    **{name: _pairwise(name) for name in ELEMENTWISE},
    "abs": _each(lambda a: abs(whole(a))),
    "arange": _arange,
    "cast": _cast,
    "clone": _same,
    "contiguous": _same,
    "cumsum": _summed_up,
    "detach": _same,
    "expand": _expand,
    "flatten": _flattened,
    "full": _filled(None),
    "full_like": _filled(None),
    "index": _indexed,
    "kept": _kept,
    "invert": _each(lambda a: not a if isinstance(a, bool) else ~a),  # type: ignore[operator]
    "mT": _ordered(lambda _, rank: [*range(rank - 2), rank - 1, rank - 2] if rank > 1 else []),
    "masked_fill": _masked_fill,
    "neg": _each(lambda a: -whole(a)),
    "not": _each(operator.not_),
    "eye": _identity,
    "new_full": _filled(None),
    "new_ones": _filled(1.0),
    "new_zeros": _filled(0.0),
    "ones": _filled(1.0),
    "ones_like": _filled(1.0),
    "permute": _ordered(lambda value, _: value.data),
    "part": lambda small, value: taken(small.tensor(value["of"]), 0, [value.data], keep=False),
    "phi": _choice,
    "reshape": _viewed,
    "setitem": _set,
    "squeeze": _squeezed,
    "swap": _ordered(_swap),
    "tril_indices": _indices,
    "triu_indices": _indices,
    "tril": _triangle(lambda right, k: right <= k),
    "triu": _triangle(lambda right, k: right >= k),
    "unflatten": _unflattened,
    "unsqueeze": _unsqueezed,
    "view": _viewed,
    "where": _where,
    "zeros": _filled(0.0),
    "zeros_like": _filled(0.0),
}
