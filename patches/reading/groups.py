"""Accumulation by hand: whether several losses are learned from at once, and whether each weighs what it should."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from .frames import Effect, Reading
from .steps import Kind, parts
from .turns import block_of
from .updates import Update
from .values import Value

_MEANS = ("cross_entropy", "nll_loss")
_LAYOUT = {"flatten", "reshape", "view", "contiguous", "cast", "swap", "permute", "mT", "clone", "detach", "unflatten"}
_PLAIN = ("weight", "size_average", "reduce")  # settings without which a loss is a plain mean
IGNORED = -100  # the target that torch ignores where it is not told another

_CUTS = {"int", "float", "bool", "item", "detach", "size", "len", "eq", "ne", "lt", "le", "gt", "ge"}  # to no gradient
_OPTIONS = {"parameter", "const", "attr", "setting", "self", "index", "dict"}  # what does not change in a run


def accumulates(reading: Reading, backward: Effect) -> bool:
    """Whether an optimizer steps less often than there are backwards: behind their loop, or by a condition."""
    steps = _steps(reading)
    return bool(steps) and all(_is_rarer(each, backward) for each in steps)


def _steps(reading: Reading) -> list[Effect]:
    return [part.effect for part in parts(reading) if part.kind is Kind.STEP]


def _is_rarer(step: Effect, backward: Effect) -> bool:
    loops, own = (
        [guard.at.node for guard in each.under if guard.kind in ("for", "while")] for each in (backward, step)
    )
    tests = [guard.at.node for guard in backward.under]
    more = [guard for guard in step.under if guard.kind in ("if", "else") and guard.at.node not in tests]
    return loops[: len(own)] == own and (len(own) < len(loops) or bool(more))


def problem(update: Update) -> str:
    """What is wrong with the weight of a loss in its group, if it shows."""
    factors, shares, reading = _factors(update), list(_shares(update)), update.reading
    if not factors and len(shares) == len(_steps(reading)) and all(_is_of_group(update, *each) for each in shares):
        return ""
    changes = [each.kind is Kind.GRADIENT for each in parts(reading)]
    if not factors and any([*changes, *(_grad(each.value) is not None for each in reading.writes)]):
        return "it is not seen that gradients are divided by all that their group scores"
    if not factors:
        return "its losses are added up, each whole: weigh each by its share of what is scored"
    if all(each.op in _OPTIONS for factor in factors for each in factor.walk()):
        return "each loss is divided by the same number, in a shorter group and for a smaller micro-batch too"
    return ""


def _shares(update: Update) -> Iterator[tuple[Effect, Value]]:
    """The steps before which, and before whose clip, all gradients are divided, and by what."""
    clips = [part.effect for part in parts(update.reading) if part.kind is Kind.CLIP]
    every = set[int]().union(*(_asked(each.value) for each in clips)) or {each.key for each in update.models}
    divides = [each for each in update.reading.writes if each.value.op == "div" and _grad(each.value)]
    writes = [each for each in divides if not _is_before(each, update.effect)]
    for step in _steps(update.reading):
        for write in (each for each in writes if _asked(each.value["input"]) >= every and _is_before(each, step)):
            if not any(_is_before(clip, step) and not _is_before(write, clip) for clip in clips):
                yield step, write.value["other"]
                break


def _asked(value: Value) -> set[int]:
    """What is asked for its parameters."""
    return {each["of"].key for each in value.walk() if each.op == "attr" and each.data == "parameters"}


def _grad(value: Value) -> Value | None:
    """What a gradient is of that is multiplied with something, or divided, in place."""
    grad = value.get("input") if value.op in ("mul", "div") else None
    return grad["of"] if grad is not None and grad.op == "attr" and grad.data == "grad" else None


def _is_before(one: Effect, other: Effect) -> bool:
    """Whether something is done whenever another thing is, ahead of it; a loop over gradients is gone through whole."""
    file, of = one.at.file, _grad(one.value)
    known = [*(each.at.node for each in other.under), of.data if of is not None and of.op == "item" else None]
    more = [each.value for each in one.under if each.at.node not in known]
    is_whole = all(each.op == "isnot" and each["input"].data == "grad" for each in more)
    is_one_call = one.is_own == other.is_own and (one.is_own or one.through is other.through)
    is_near = is_one_call and file.function(one.at.node) is file.function(other.at.node)
    return is_near and is_whole and one.at.line < other.at.line


def _is_of_group(update: Update, step: Effect, number: Value) -> bool:
    """Whether a number sums up how many targets losses are made of that are sums, from 0 on in each group."""
    file, loops = update.reading.file, [each.at.node for each in update.effect.under if each.kind in ("for", "while")]
    of = means(update.loss)
    targets = {unlaid(each["target"]).key for each in of if (each.get("reduction") or each).is_const("sum")}
    sums = list(_sums(number))
    for kept, count in sums:
        counted = [unlaid(each["input"]).key for each in count.walk() if each.op in ("ne", "numel")]
        is_own = kept.op == "carried" and kept.data[0] is loops[-1] and kept["start"].number == 0
        if len(of) != 1 or not is_own or targets.isdisjoint(counted) or step.through is None:
            return False
    if not sums or loops[-1] not in [each.at.node for each in step.under]:
        return bool(sums)
    statement = file.statement(step.through)  # type: ignore[arg-type]
    later = block_of(file, statement)
    anew = (each for each in later[later.index(statement) + 1 :] if isinstance(each, ast.Assign))
    names = {getattr(node, "id", "") for each in anew for target in each.targets for node in ast.walk(target)}
    return all(kept.data[1] in names for kept, _ in sums)


def _sums(value: Value) -> Iterator[tuple[Value, Value]]:
    """What a number adds up: what it was, and what comes to it; nothing of what is no such sum."""
    match value.op:
        case "after":
            yield from _sums(value["last"])
        case "phi":
            yield from (each for side in ("yes", "no") for each in _sums(value[side]))
        case "add":
            yield value["input"], value["other"]
        case "max" | "int" | "cast":
            yield from (each for part in value.items for each in _sums(part))


def is_weighed(update: Update) -> bool:
    """Whether a loss is multiplied with something on its way to the backward."""
    return bool(_factors(update))


def is_scaled_alone(update: Update) -> bool:
    """Whether a loss is divided by an option, though each is learned from by itself."""
    factors = _factors(update)
    return any(each.op in ("parameter", "attr", "index") for factor in factors for each in factor.walk())


def _factors(update: Update) -> list[Value]:
    """What a loss is multiplied with or divided by, on its way to the backward."""
    is_run, found, value = _learned_from({each.key for each in update.ran}), list[Value](), update.loss
    while True:
        sides = [each for name, each in value.args.items() if name != "func"]
        runs = [each for each in sides if is_run(each)]
        if value.op in ("mul", "div") and len(runs) == 1:
            found += [each for each in sides if each is not runs[0]]
        elif (
            value.op not in ("call", "phi") or len(runs) != 1 or not isinstance(getattr(value.at, "node", 0), ast.Call)
        ):
            return found
        value = runs[0]


def _learned_from(keys: set[int]) -> Callable[[Value], bool]:
    """What tells whether a gradient flows from a value to one of some."""
    known: dict[int, bool] = dict.fromkeys(keys, True)

    def flows(value: Value) -> bool:
        if value.key not in known:
            known[value.key] = value.op not in _CUTS and any(map(flows, value.items))
        return known[value.key]

    return flows


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
