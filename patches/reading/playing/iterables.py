"""What Python's own functions, and those of libraries that go through something, give while a run is played."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from ..tensors import Unknown
from .batches import Counted, Loader, Many, Method, Partial, Rows, Space, Stream, Tuples, marks
from .kinds import Opaque, Thing
from .outside import MOST, Asked, every, length, method_of

_LOADED = ("dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "num_workers")


def _loader(call: Asked) -> Any:
    given = dict(zip(_LOADED, call.placed, strict=False)) | call.named
    rows = given.pop("dataset")
    if isinstance(rows, Thing):
        count = length(call.player, rows, call.at)
        rows = Rows(f"set:{rows.name}", tuple(range(count))) if isinstance(count, int) else rows
    if isinstance(rows, Opaque):
        call.player.want(rows, "rows")
    call.player.want(given.get("batch_size"), "int")
    if not isinstance(rows, (Rows, Tuples)):
        return Opaque("", marks(rows))
    return Loader(rows, given, call.at.node)


def _enumerate(call: Asked) -> Stream:
    start = call.named.get("start", call.placed[1] if len(call.placed) > 1 else 0)
    return Stream(
        Many([Counted(at), each]) for at, each in enumerate(call.player.items(call.placed[0], call.at), start)
    )


def _next(call: Asked) -> Any:
    if not isinstance(call.placed[0], Stream):
        return Opaque("", marks(call.placed[0]))
    return next(call.placed[0], *call.placed[1:2])


def _number(of: Callable[..., Any], *, gathers: bool = False) -> Callable[..., Any]:
    """What is counted of numbers: several, or, if it gathers, the items of one."""

    def made(call: Asked) -> Any:
        is_one = gathers and (len(call.placed) == 1 or of is sum)
        items = every(call.player, call.placed[0], call.at) if is_one else call.placed
        is_number = [isinstance(each, (int, float)) or not (gathers or isinstance(each, Opaque)) for each in items]
        if items and all(is_number):
            known = of(items) if gathers else of(*items)
            return Many(known) if isinstance(known, tuple) else known
        for each in items if not gathers or any(isinstance(each, int) for each in items) else ():
            call.player.want(each, "int")
        return Opaque("", marks(items))

    return made


def _truth(call: Asked) -> Any:
    known = call.player.truth(call.placed[0], call.at.node)
    return Opaque() if known is None else known


def _listed(call: Asked) -> Many:
    return Many(itertools.islice(call.player.items(call.placed[0], call.at), 5000)) if call.placed else Many()


def _in_order(word: str) -> Callable[..., Any]:
    """Sorted and reversed, which want their items in an order."""

    def made(call: Asked) -> Any:
        if isinstance(call.placed[0], (Many, Loader)):
            call.placed[0].asked.append(word)
        items = every(call.player, call.placed[0], call.at)
        return Stream(reversed(items)) if word == "reversed" else Many(items)

    return made


def _zip(call: Asked) -> Stream:
    for each in call.placed if len(call.placed) > 1 else ():
        if isinstance(each, (Many, Loader)):
            each.asked.append("zip")
    return Stream(Many(each) for each in zip(*(call.player.items(each, call.at) for each in call.placed), strict=False))


def _range(call: Asked) -> range:
    for each in call.placed:
        call.player.want(each, "int")
    return range(*call.placed)


def _islice(call: Asked) -> Stream:
    for each in call.placed[1:]:
        call.player.want(each, "int")
    return Stream(itertools.islice(call.player.items(call.placed[0], call.at), *call.placed[1:]))


def _repeat(call: Asked) -> Stream:
    times = call.named.get("times", call.placed[1] if len(call.placed) > 1 else None)
    call.player.want(times, "int")
    if not isinstance(times, int) or times > MOST:
        raise Unknown(call.at)
    return Stream(iter([call.placed[0]] * times))


def _from_iterable(call: Asked) -> Stream:
    player, at = call.player, call.at
    return Stream(item for each in player.items(call.placed[0], at) for item in player.items(each, at))


def _map(call: Asked) -> Stream:
    player, (function, source, *_) = call.player, call.placed
    return Stream(player.walk.call(function, [each], {}, call.at) for each in player.items(source, call.at))


def _getattr(call: Asked) -> Any:
    owner, name, *rest = call.placed
    if not isinstance(name, str):
        return Opaque("", marks(owner))
    if rest and isinstance(owner, Opaque) and owner.path and type(rest[0]) is int:
        return call.player.number(f"{owner.path}.{name}", rest[0])
    if rest and isinstance(owner, Thing) and name not in owner.own and call.player.method(owner, name) is None:
        return rest[0]
    return call.player.walk.attribute(owner, name, call.at)


def _replaced(call: Asked) -> Any:
    old = call.placed[0]
    if not isinstance(old, Thing):
        return Opaque("", marks(old))
    return Thing(old.cls, {**old.own, **call.named}, old.name, old.is_data)


def _rows_method(name: str) -> Callable[..., Any]:
    def made(call: Asked) -> Any:
        given = dict(call.named)
        of = call.placed[0] if call.placed else given.pop("tensor", given.pop("input", None))
        return method_of(call.player, Method(of, name), call.placed[1:], given, call.at)

    return made


def _numbers(call: Asked) -> Any:
    for each in call.placed:
        call.player.want(each, "int")
    bounds = [each for each in call.placed if isinstance(each, int)]
    if bounds and len(range(*bounds)) > MOST:
        raise Unknown(call.at)
    return Rows("numbers", tuple(range(*bounds))) if len(bounds) == len(call.placed) and bounds else Opaque("")


def _set(call: Asked) -> None:
    if isinstance(call.placed[0], Thing) and isinstance(call.placed[1], str):
        call.placed[0].own[call.placed[1]] = call.placed[2]


def _tuples(call: Asked) -> Any:
    call.player.want(call.placed[0], "rows")
    is_rows = len(call.placed) == 1 and isinstance(call.placed[0], Rows)
    return Tuples(call.placed[0]) if is_rows else Opaque("", marks(call.placed))


def _iterated(call: Asked) -> Iterator[Any]:
    return call.placed[0] if isinstance(call.placed[0], Stream) else Stream(call.player.items(call.placed[0], call.at))


KNOWN: dict[str, Callable[..., Any]] = {
    "len": lambda call: length(call.player, call.placed[0], call.at),
    "range": _range,
    "list": _listed,
    "tuple": _listed,
    "iter": _iterated,
    "next": _next,
    "enumerate": _enumerate,
    "zip": _zip,
    "map": _map,
    "sorted": _in_order("sorted"),
    "reversed": _in_order("reversed"),
    **{each.__name__: _number(each, gathers=True) for each in (min, max, sum)},
    **{each.__name__: _number(each) for each in (abs, int, float, round, divmod)},
    **{f"math.{each.__name__}": _number(each) for each in (math.ceil, math.floor)},
    "bool": _truth,
    "getattr": _getattr,
    "setattr": _set,
    "dict": lambda call: {**(call.placed[0] if call.placed else {}), **call.named},
    "print": lambda _: None,
    "itertools.chain": lambda call: Stream(item for each in call.placed for item in call.player.items(each, call.at)),
    "itertools.chain.from_iterable": _from_iterable,
    "itertools.repeat": _repeat,
    "itertools.islice": _islice,
    "functools.partial": lambda call: Partial(call.placed[0], tuple(call.placed[1:]), tuple(call.named.items())),
    "dataclasses.replace": _replaced,
    **dict.fromkeys(("types.SimpleNamespace", "argparse.Namespace"), lambda call: Space(dict(call.named))),
    **{f"torch.{name}": _rows_method(name) for name in ("split", "chunk", "tensor_split")},
    **dict.fromkeys(("torch.arange", "torch.randperm"), _numbers),  # in order, as a loader's rows
    "torch.utils.data.DataLoader": _loader,
    "torch.utils.data.TensorDataset": _tuples,
}
