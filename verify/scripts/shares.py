"""What losses weigh in the updates that they make: the shares of what each scored, and each of them once."""

import math
from collections import Counter
from dataclasses import replace

from ..running.evidence import Evidence, Picture, passed, unproven
from .asking import asked, backward_of, not_applicable, short, size_of, violated
from .seen import Loss, Seen, Update

TOLERANCE = 1e-3  # of a share, relative
SCALE_FREE = {"Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop", "Muon", "Lion"}
MOST_SHOWN = 60  # updates of a picture


@asked("each update's gradient is that of the mean over what its group of micro-batches scored", 4)
def each_update_is_the_mean_over_its_group(seen: Seen) -> Evidence:
    """The weights of an update's losses add up to 1, and are the shares of the targets that they scored."""
    updates = [each for each in seen.updates if each.is_finite]
    weighed = [each for each in updates if each.losses]
    if not updates:
        return unproven("no update was seen")
    if not weighed:
        return unproven("no loss function of torch was seen to make these gradients: what they weigh cannot be told")
    sums = 0
    for number in sorted({each.optimizer for each in weighed}):
        own = [each for each in weighed if each.optimizer == number]
        wrong = _wrong_weights(seen, own)
        if wrong is not None and _are_sums(own):
            sums += len(own)
        elif wrong is not None and (_wrong_weights(seen, by_rows := _by_rows(own)) or by_rows == own):
            return wrong
    if sums == len(updates):
        return not_applicable("each update is the sum over what one backward call scores, as the script has it")
    if len(weighed) < len(updates):
        return unproven(f"of {len(updates) - len(weighed)} of {len(updates)} updates, no loss was seen")
    most = max(map(size_of, weighed))
    return passed(f"{len(weighed)} updates of up to {most} micro-batches: their weights add up to 1")


def _wrong_weights(seen: Seen, updates: list[Update]) -> Evidence | None:
    """What is wrong with the weights of an optimizer's updates."""
    usual = _most_common([_total(each) for each in updates])
    sizes = Counter(size_of(each) for each in updates)
    lines = {loss.line for each in updates for loss in each.losses}
    simple = len(lines) == 1 and all(len(each.losses) == size_of(each) for each in updates)
    accumulates = max(sizes) > 1
    own_factor = usual < 1.0 and all(loss.is_written_out for each in updates for loss in each.losses)
    for place, each in enumerate(updates):
        total, size = _total(each), size_of(each)
        expected = 1.0 if (simple and not own_factor) or _is_close(usual, 1.0) else usual
        if not simple and accumulates and not _is_close(usual, 1.0) and _is_close(_heaviest(each) / size, 1.0):
            words = f"update {each.number}: {size} micro-batches, none of them divided"
            return violated(words, backward_of(each), _ledger(each))
        if not _is_close(total, expected):
            at = backward_of(each) if _is_close(total, usual) else each.line
            return violated(_weights_said(seen, updates, place, usual), at, _weights(updates))
        wrong = _uneven(each) if simple else ""
        if wrong:
            return violated(f"update {each.number}: {wrong}", backward_of(each), _ledger(each))
    return None


def _are_sums(updates: list[Update]) -> bool:
    """Whether each update is of one backward call, in which each target counts 1, or each mean: a sum was asked for."""
    losses = [(_weight(each, loss), loss.scored) for each in updates for loss in each.losses]
    is_one = all(size_of(each) == 1 for each in updates)
    is_of_targets = all(scored and _is_close(weight / scored, 1.0) for weight, scored in losses)
    is_of_means = len(losses) > len(updates) and all(_is_close(weight, 1.0) for weight, _ in losses)
    return is_one and (is_of_targets or is_of_means)


def _by_rows(updates: list[Update]) -> list[Update]:
    """The same updates, with rows as what is scored, where a loss is over their elements."""
    return [replace(each, losses=[_of_rows(loss) for loss in each.losses]) for each in updates]


def _of_rows(loss: Loss) -> Loss:
    return replace(loss, weight=loss.weight / loss.scored * loss.rows, scored=loss.rows) if loss.rows else loss


def _weights_said(seen: Seen, updates: list[Update], place: int, usual: float) -> str:
    """An update whose weights are wrong, in words: what, where in the run, and whether that matters."""
    update = updates[place]
    total, size = _total(update), size_of(update)
    which = f"update {update.number} of {len(seen.updates)}"
    weigh = f"its {size} micro-batch(es) weigh {total:.3g}" + ("" if _is_close(total, 1.0) else ", not 1")
    if _is_close(total, usual) and len(updates) > 1:
        clips = any(event.kind == "clip" for event in update.events)
        how = "each" if all(_is_close(_total(each), total) for each in updates) else "most"
        matters = f"the rate is in effect {total:.3g} times what it says"
        if (kind := seen.optimizers.get(update.optimizer)) in SCALE_FREE:
            matters = f"{kind} forgives a constant factor" + (", the clip before it does not" if clips else "")
        return f"{which}, as {how}: {weigh}; {matters}"
    if place == 0:
        which = f"the first of {len(seen.updates)} updates"
    elif place == len(updates) - 1 and not seen.stopped:
        which = f"the last of {len(seen.updates)} updates"
    return f"{which}: {weigh}; as those of others weigh {usual:.3g}, no optimizer forgives it"


def _uneven(update: Update) -> str:
    """Whether micro-batches weigh otherwise than by what they scored."""
    scored = sum(loss.scored for loss in update.losses)
    total = _total(update)
    if not scored or not total:
        return ""
    wanted = [loss.scored / scored for loss in update.losses]
    found = [_weight(update, loss) / total for loss in update.losses]
    if all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in zip(wanted, found, strict=True)):
        return ""
    targets = ", ".join(f"{loss.scored:g}" for loss in update.losses[:8])
    weights = ", ".join(f"{each:.3g}" for each in found[:8])
    return f"micro-batches that scored {targets} targets weigh {weights}: not as their targets do"


def _weight(update: Update, loss: Loss) -> float:
    """What a loss weighs in the gradient that is stepped with."""
    return loss.weight * (update.factor if update.factor != 1.0 else 1.0 / update.scale)


def _total(update: Update) -> float:
    return sum(_weight(update, loss) for loss in update.losses)


def _heaviest(update: Update) -> float:
    """The largest sum of the weights of one line's losses."""
    lines = Counter[str]()
    for loss in update.losses:
        lines[loss.line] += _weight(update, loss)  # type: ignore[assignment]
    return max(lines.values())


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE)


def _most_common(values: list[float]) -> float:
    rounded = Counter(round(each, 3) for each in values)
    most = max(rounded, key=lambda each: (rounded[each], each == 1.0))
    return next(each for each in values if round(each, 3) == most)


def _weights(updates: list[Update]) -> Picture:
    totals = [_total(each) for each in updates[:MOST_SHOWN]]
    return Picture("curves", "what the losses of each update weigh", totals, [1.0] * len(totals), "update", "weight")


def _ledger(update: Update) -> Picture:
    """An update as it was, beside one of the same losses as it should be."""
    scored = sum(loss.scored for loss in update.losses) or 1.0
    found = [f"{loss.line} weighs {_weight(update, loss):.3g}" for loss in update.losses[:100]]
    wanted = [f"{loss.line} weighs {loss.scored / scored:.3g}" for loss in update.losses[:100]]
    return Picture("events", "the losses of an update", short(found), short(wanted))


@asked("every gradient is in one update: none is wiped, left over, or carried into the next", 4)
def each_gradient_is_used_once(seen: Seen) -> Evidence:
    """No gradient is lost before a step, none is left after the last, none is still there when the next is made."""
    if not seen.updates:
        return unproven("no update was seen")
    if seen.carried:
        line, after = seen.carried[0]
        return violated(
            f"after update {after}, the gradients of before are still there: {len(seen.carried)} times", line
        )
    if seen.lost:
        line, after, count = seen.lost[0]
        when = f"after update {after}" if after else "before the first update"
        return violated(f"{when}, the gradients of {count} micro-batch(es) are wiped before a step takes them", line)
    empty = next((each for each in seen.updates if not each.has_gradient), None)
    if empty is not None:
        return violated(f"update {empty.number} is made without any gradient", empty.line)
    if seen.left:
        count = len({loss.backward for loss in seen.left})
        return violated(f"{count} micro-batch(es) after the last update are never used", seen.left[-1].line)
    if seen.ended:
        return unproven("the script did not come to its end")
    return passed(f"{sum(size_of(each) for each in seen.updates)} gradients, {len(seen.updates)} updates")
