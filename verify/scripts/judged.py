"""What a script's run says to each property that is asked of it."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ..running.evidence import Evidence, passed, unproven
from . import shares, timing
from .asking import PROPERTIES, asked, not_applicable, violated
from .seen import Seen, Update

NARROW = ("bfloat16", "float16")
NAMED, FEW = 4, 2  # parameters that are named; times after which something is no accident
FIRST = (shares, timing)  # whose properties were asked already


def properties() -> list[tuple[str, str]]:
    """What is asked: names, and what is to hold."""
    return [(name, prop) for name, prop, _ in PROPERTIES]


def judge(seen: Seen) -> Iterator[tuple[str, str, Evidence]]:
    """Each property, and what a run says to it."""
    for name, prop, function in PROPERTIES:
        yield name, prop, function(seen)


@asked("the optimizer holds the parameters that learn, all of them, and no others", 2)
def the_optimizer_holds_what_learns(seen: Seen) -> Evidence:
    """The parameters of optimizers against those that gradients reach."""
    if not seen.updates:
        return unproven("no update was seen")
    if not seen.optimizers:
        return not_applicable("no optimizer of torch steps")
    line = seen.updates[0].line
    if seen.foreign:
        words = (
            f"{seen.foreign} of its {seen.held} parameters belong to no model that is trained, and never get a gradient"
        )
        return violated(words, line)
    if seen.not_held:
        return violated(f"gradients go to {_names(seen.not_held)}, which no optimizer holds", line)
    if seen.never_given:
        return violated(f"{_names(seen.never_given)} never got a gradient", line)
    return passed(f"{seen.held} parameters")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@asked("a pass over the rows gives each of them once, in an order of its own", 1)
def each_row_is_seen_once_a_pass(seen: Seen) -> Evidence:
    """Rows of the passes in which gradients were made."""
    passes = [each for each in seen.passes if each.trained and each.expected and each.rows]
    for each in passes:
        most, often = Counter(each.rows).most_common(1)[0]
        if often > 1 and (each.is_complete or each.is_known) and not each.is_found:
            return violated(f"row {most} is given {often} times in one pass", each.line)
        missing = (each.expected or 0) - len(set(each.rows))
        if each.is_complete and missing > 0 and not (each.drops_last and missing < each.batch):
            return violated(f"{missing} of {each.expected} rows are not given", each.line)
    whole = [each for each in seen.passes if each.trained and each.is_complete and each.rows]
    shuffled = [each for each in whole if each.is_shuffled]
    for sooner, later in pairwise(each for each in shuffled if not each.is_found):
        if (sooner.line, sooner.run) == (later.line, later.run) and sooner.rows == later.rows and len(later.rows) > FEW:
            return violated("two passes are shuffled alike: each pass must draw an order of its own", later.line)
    passes = [each for each in whole if each.expected]
    if not passes:
        why = f"rows are drawn as they come, and no pass is made over them ({seen.chance})" if seen.chance else ""
        return not_applicable(why or "no pass over rows was seen to its end while gradients were made")
    count = sum(each.is_shuffled for each in passes)
    how = f"{count} of them shuffled" if count else "in the order of the data"
    left_out = max(each.left_out for each in passes)
    less = f"; {left_out} rows have no turn, fewer than a batch" if left_out else ""
    return passed(f"{len(passes)} passes, {how}{less}")


@asked("evaluation runs without dropout and without gradients, and training goes on as training", 1)
def evaluation_is_evaluation(seen: Seen) -> Evidence:
    """Dropout under no gradient, graphs that are never used, modes that are not set back."""
    if seen.dropout_at_work:
        line, often = seen.dropout_at_work.most_common(1)[0]
        return violated(f"dropout is at work where no gradient is kept, {often} times", line)
    idle = [loss for loss in seen.unused if loss.was_training is False]
    if idle:
        return violated(
            f"{len(idle)} losses of evaluation keep a graph that is never used: call them under no_grad", idle[0].line
        )
    for number in seen.optimizers or [0]:
        known = [each for each in seen.updates if each.optimizer == number and each.was_training is not None]
        if known and seen.has_dropout and seen.quiet_before and not any(each.was_training for each in known):
            return violated(
                "all updates are made in evaluation mode, in which an evaluation left the model", known[0].line
            )
        stays = next((each for each in known if each.was_training is False), None)
        if stays is not None and known[0].was_training and seen.mode_matters:
            return violated(f"from update {stays.number} on the model trains in evaluation mode", stays.line)
    if not seen.quiet_forwards:
        return not_applicable("nothing was evaluated")
    return passed(f"{seen.quiet_forwards} losses or dropouts without gradient")


@asked("autocast is around forward, not around backward, and of one dtype", 3)
def autocast_is_around_forward(seen: Seen) -> Evidence:
    """Where autocast is on, and as what."""
    losses = [loss for each in seen.updates for loss in each.losses]
    dtypes = Counter(loss.autocast for loss in losses)
    narrow = next((loss for loss in losses if loss.dtype in NARROW), None)
    if narrow is not None and "float32" in seen.types:
        return violated(f"the loss is computed in {narrow.dtype}: give it logits.float()", narrow.line)
    if not losses or (set(dtypes) <= {""} and not seen.autocast_backward):
        return not_applicable("no autocast")
    if seen.autocast_backward:
        return violated("backward is called under autocast", seen.autocast_backward)
    if len(dtypes) > 1:
        rare = min(dtypes, key=lambda each: dtypes[each])
        odd = next(loss for loss in losses if loss.autocast == rare)
        said = ", ".join(f"{count} under {dtype or 'none'}" for dtype, count in dtypes.items())
        return violated(f"losses are made under different autocasts: {said}", odd.line)
    (dtype,) = dtypes
    if types := [f"{count} of {seen.held} are {each}" for each, count in seen.types.items() if each in NARROW]:
        return violated(f"under autocast parameters stay float32: {', '.join(types)}", losses[0].line)
    if dtype == "float16" and not seen.uses_scaler:
        return violated("float16 without a GradScaler: small gradients become 0", losses[0].line)
    return passed(f"{len(losses)} losses under {dtype}")


@asked("no update is made from a loss that is not finite", 1)
def losses_are_finite(seen: Seen) -> Evidence:
    """Losses that are not finite, and the updates that they made."""
    if not seen.updates:
        return unproven("no update was seen")
    for update in seen.updates:
        if not update.is_finite or not all(loss.is_finite for loss in update.losses):
            return violated(f"update {update.number} is made from a loss that is not finite", update.line)
    return passed(f"{sum(len(each.losses) or 1 for each in seen.updates)} losses")


@asked("random numbers do not begin again while the script trains", 1)
def random_numbers_do_not_repeat(seen: Seen) -> Evidence:
    """Where torch's random stream is at each update."""
    places: dict[tuple[int, int], Update] = {}  # by the run of several that they are of
    if len(seen.updates) < FEW:
        return not_applicable("a run of one update repeats nothing")
    for update in seen.updates:
        before = places.get((update.run, update.stream))
        since = seen.updates[before.number - 1 : update.number - 1] if before is not None else []
        if before is not None and (update.is_seeded or any(each.stream != update.stream for each in since)):
            when = f"at update {update.number} torch's random numbers begin again"
            return violated(f"{when} where they were at update {before.number}", update.line)
        places[update.run, update.stream] = update
    if len({stream for _, stream in places}) == 1:
        return not_applicable("no update draws from torch's random numbers")
    return passed(f"{len(places)} places in {len(seen.updates)} updates")


@asked("torch's defaults stay as they are while the script trains", 1)
def defaults_stay_as_they_are(seen: Seen) -> Evidence:
    """Types and precision that torch takes by default, at each update."""
    for sooner, later in pairwise(seen.updates):
        if sooner.run == later.run and sooner.defaults != later.defaults:
            was, now = next(both for both in zip(sooner.defaults, later.defaults, strict=True) if both[0] != both[1])
            return violated(f"from update {later.number} on: {now}; it was: {was}", later.line)
    return passed(f"{len(seen.updates)} updates") if seen.updates else unproven("no update was seen")


@asked("a causal mask is built once, and not where is_causal would do", 10)
def masks_are_not_built_again(seen: Seen) -> Evidence:
    """Triangles that are built update after update, and dense ones that attention is given."""
    for (line, size), updates in seen.masks.items():
        if len(updates) > FEW:
            return violated(f"a triangle of {size} x {size} is built again in {len(updates)} updates", line)
    if seen.dense_masks:
        line = next(iter(seen.dense_masks))
        return violated("attention is given a causal mask: is_causal=True does the same without one", line)
    if not seen.masks and not seen.attends:
        return not_applicable("no mask of torch's triangles, no attention of torch")
    return passed(f"{len(seen.masks)} triangle(s)")


@asked("what torch.compile makes is what runs, and it is made once", 8)
def compiled_code_is_what_runs(seen: Seen) -> Evidence:
    """Where torch.compile is called, and whether anything of what it gives is."""
    for line, updates in seen.compiled.items():
        if len(updates) > FEW:
            return violated(f"torch.compile is called again in {len(updates)} updates", line)
    if not seen.compiled:
        return not_applicable("torch.compile is not called")
    if not seen.updates:
        return unproven("no update was seen")
    if not seen.is_traced:
        return violated("what torch.compile gives is never called", next(iter(seen.compiled)))
    return passed(f"{len(seen.compiled)} call(s) of torch.compile")


@asked("attention keeps no map of all pairs of positions for backward", 9)
def attention_keeps_no_map(seen: Seen) -> Evidence:
    """Softmax over square maps that gradients need."""
    if seen.maps_kept:
        line, often = seen.maps_kept.most_common(1)[0]
        return violated(f"{often} square maps are kept: scaled_dot_product_attention keeps none", line)
    return passed("attention is torch's own") if seen.attends else not_applicable("no attention")
