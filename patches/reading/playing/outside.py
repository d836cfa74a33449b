"""What calls of libraries, and of what they give, come to while a run is played."""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from ..nodes import walk
from ..tensors import Unknown
from ..values import Place
from .batches import Loader, Many, Method, Optimizer, Partial, Rows, Schedule, Stream, marks
from .kinds import Function, Library, Opaque, Thing

if TYPE_CHECKING:
    from .player import Player

_TOTALS = ("total_steps", "T_max", "num_training_steps", "total_iters")
_SCHEDULED: dict[str, tuple[str, ...]] = {
    "OneCycleLR": ("optimizer", "max_lr", "total_steps", "epochs", "steps_per_epoch"),
    "CosineAnnealingLR": ("optimizer", "T_max"),
    "LambdaLR": ("optimizer", "lr_lambda"),
}
_SAME = {"to", "cuda", "cpu", "long", "int", "float", "contiguous", "clone", "detach", "pin_memory", "type"}
_SAME |= {"share_memory_"}
_SIZES = ("split_size_or_sections", "split_size", "chunks", "indices_or_sections")
_OTHERS = ("torch.", "random.", "numpy.", "math.", "os.", "json.", "statistics.")


MOST = 100_000  # items that are gathered


class Asked(NamedTuple):
    """A call of something that is known, as it is made."""

    player: Player
    placed: list[Any]
    named: dict[str, Any]
    at: Place


def every(player: Player, value: Any, at: Place, besides: int = 0) -> list[Any]:
    """Every item of what is gone through. Raises Unknown where they are too many to be tried."""
    items = list(itertools.islice(player.items(value, at), MOST + 1))
    if len(items) + besides > MOST:
        raise Unknown(at)
    return items


def called(player: Player, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
    """What a call gives of what is no function of the tree."""
    if isinstance(callee, Partial):
        return player.walk.call(callee.function, [*callee.placed, *placed], {**dict(callee.named), **named}, at)
    if isinstance(callee, Method):
        return method_of(player, callee, placed, named, at)
    if isinstance(callee, Library) and callee.dotted.startswith("torch.optim.lr_scheduler."):
        order = _SCHEDULED.get(callee.dotted.rpartition(".")[2], ())
        return scheduled(player, dict(zip(order, placed, strict=False)) | named, at)
    if isinstance(callee, Library) and callee.dotted.startswith("torch.optim."):
        return Optimizer(f"call:{getattr(at.node, 'lineno', 0)}")
    return (
        Opaque("", marks([*placed, *named.values()]))
        if isinstance(callee, Thing)
        else unknown(player, callee, placed, named, at)
    )


def unknown(player: Player, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
    """What is not seen gives: a schedule if it is told a total, what it goes through if that is all it may do."""
    name = callee.dotted if isinstance(callee, Library) else callee.name if isinstance(callee, Method) else ""
    if any(each in named for each in _TOTALS):
        return scheduled(player, named, at, is_pair=True)
    is_own = isinstance(callee, Library) and (name.startswith(_OTHERS) or "." not in name)
    if not is_own and placed and isinstance(placed[0], (Many, Stream, Loader)) and not isinstance(callee, Method):
        return Stream(player.items(placed[0], at))  # a bar
    if name == "torch.autograd.backward":
        player.done.append(("backward", marks(placed), at.node))
    of = callee.of if isinstance(callee, Method) else None
    found = marks([of, *placed, *named.values()])
    path = f"call:{getattr(at.node, 'lineno', 0)}:{getattr(at.node, 'col_offset', 0)}:{name}"
    return player.leaf(path, is_given=False) if not found else Opaque("", found)


def scheduled(player: Player, named: dict[str, Any], at: Place, *, is_pair: bool = False) -> Schedule:
    """A schedule, by what it is told."""
    total = next((named[each] for each in _TOTALS if named.get(each) is not None), None)
    if isinstance(curve := named.get("lr_lambda"), Function) and curve.around is not None:
        read = {each.id for each in walk(curve.node) if isinstance(each, ast.Name)} & curve.around.names.keys()
        told = [curve.around.names[each] for each in read if not isinstance(curve.around.names[each], Function)]
        total = told[0] if len(told) == 1 else None
    if total is None and {"epochs", "steps_per_epoch"} <= named.keys():
        total = player.operated(ast.Mult(), named["epochs"], named["steps_per_epoch"], at)
    player.want(total, "int")
    made = Schedule(total if isinstance(total, (int, float)) else None, at.node, is_pair)
    player.schedules.append(made)
    return made


def method_of(player: Player, callee: Method, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
    """What a method gives of what is nothing of the tree's."""
    of, name = callee.of, callee.name
    if name == "backward":
        player.done.append(("backward", marks(of) | marks([*placed, *named.values()]), at.node))
        return None
    if name in ("step", "zero_grad"):
        stepped = next((each for each in placed if isinstance(each, (Optimizer, Schedule))), of)
        if placed and isinstance(placed[0], Function):
            player.walk.call(placed[0], [], {}, at)
        is_schedule = isinstance(stepped, Schedule) and name == "step"
        player.done.append(("schedule" if is_schedule else name, stepped, at.node))
        if isinstance(stepped, Schedule) and is_schedule:
            stepped.last_epoch += 1
        return Opaque()
    if isinstance(of, Rows):
        return _of_rows(player, of, name, placed, named)
    if isinstance(of, dict):
        return _of_dict(of, name, placed)
    if isinstance(of, list):
        return _of_list(player, of, name, placed, at)
    is_cut = name in ("split", "tensor_split", "chunk") and (placed or named)
    if is_cut or (name == "size" and placed == [0]):
        player.want(of, "rows")
    return unknown(player, callee, placed, named, at)


def _of_rows(player: Player, of: Rows, name: str, placed: list[Any], named: dict[str, Any]) -> Any:
    if name in _SAME:
        return of
    if name in ("size", "__len__") and placed in ([0], []):
        return len(of.at) if placed or name != "size" else Many([len(of.at), Opaque("", of.marks)])
    if named.get("dim", placed[1] if len(placed) > 1 else 0) != 0:
        return Opaque("", of.marks)
    size = next(iter([*placed[:1], *(named[each] for each in _SIZES if each in named)]), None)
    player.want(size, "int")
    if name == "split" and isinstance(size, int):
        return of.split(size)
    if name == "chunk" and isinstance(size, int) and size > 0:
        return of.split(-(-len(of.at) // size))
    if name == "tensor_split" and isinstance(size, list):
        ends = [0, *size, len(of.at)]
        return Many(Rows(of.name, of.at[a:b]) for a, b in itertools.pairwise(ends))
    return Opaque("", of.marks)


def _of_dict(of: dict[Any, Any], name: str, placed: list[Any]) -> Any:
    match name:
        case "get" | "pop" if placed and isinstance(placed[0], (str, int)):
            return of.get(placed[0], placed[1] if len(placed) > 1 else None)
        case "items":
            return Many(Many(pair) for pair in of.items())
        case "values" | "keys":
            return Many(getattr(of, name)())
        case "update" if placed and isinstance(placed[0], dict):
            of |= placed[0]
            return None
        case "copy":
            return dict(of)
    return Opaque("", marks(of))


def _of_list(player: Player, of: list[Any], name: str, placed: list[Any], at: Place) -> Any:
    if isinstance(of, Many):
        of.asked.append("change")
    if name == "copy":
        return Many(of)
    if name not in ("append", "extend", "insert", "pop", "clear", "reverse"):
        return Opaque("", marks(of))
    given = [every(player, placed[0], at, len(of))] if name == "extend" else placed
    try:
        return getattr(of, name)(*given)
    except (IndexError, TypeError):
        raise Unknown(at) from None


def length(player: Player, value: Any, at: Place) -> Any:
    """How long something is."""
    if isinstance(value, (Many, Loader)):
        value.asked.append("len")
    if isinstance(value, Loader):
        return len(value.batches)
    if isinstance(value, Rows):
        return len(value.at)
    if isinstance(value, (list, tuple, dict, str, range)):
        return len(value)
    if isinstance(value, Thing):
        own = player.method(value, "__len__")
        return player.walk.call(own, [], {}, at) if own is not None else Opaque("")
    player.want(value, "rows")
    return Opaque("")
