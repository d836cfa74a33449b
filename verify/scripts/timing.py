"""When things happen: schedulers, clips and rates against the updates of a run."""

from collections import Counter
from itertools import pairwise

from ..running.evidence import Evidence, Picture, passed, unproven
from .asking import asked, not_applicable, short, violated
from .seen import Event, Schedule, Seen, Update

CHAINS = ("SequentialLR", "ChainedScheduler")  # schedulers of schedulers
NOTHING = 1e-3  # of the highest rate: at less an update changes next to nothing


@asked("a scheduler steps after its optimizer, at most once an update, and on an even beat", 1, 2)
def schedulers_step_with_the_updates(seen: Seen) -> Evidence:
    """Scheduler steps between the updates of their optimizer."""
    if not seen.schedules or not any(each.steps for each in seen.schedules):
        return not_applicable("no scheduler of torch steps")
    for number, schedule in enumerate(seen.schedules, 1):
        if schedule.optimizer < 0 and schedule.steps:
            return violated(f"{schedule.kind} moves the rate of an optimizer that never steps", schedule.line)
        own = [each for each in seen.updates if each.optimizer == schedule.optimizer]
        if schedule.later > 1 and (newer := _in_place_of(seen, own)):
            words = f"{schedule.kind} moves the rate of an optimizer that steps no more after update {own[-1].number}"
            return violated(f"{words}: a new {newer} took its place", schedule.line)
        wrong = _off_beat(own, number, schedule, alone=len(seen.optimizers) == 1)
        if wrong is not None:
            return wrong
    stepping = Counter(each.optimizer for each in seen.schedules if each.steps)
    most, others = max(stepping, key=lambda each: stepping[each]), seen.optimizers.keys() - stepping.keys()
    if stepping[most] > 1 and others and not any(each.kind in CHAINS for each in seen.schedules):
        twice = [each for each in seen.schedules if each.optimizer == most][-1]
        words = f"two schedulers move the rate of one {seen.optimizers[most]}, and none that of another optimizer"
        return violated(words, twice.line)
    return passed(", ".join(f"{each.kind}: {each.steps} steps" for each in seen.schedules))


def _in_place_of(seen: Seen, own: list[Update]) -> str:
    """The kind of an optimizer that steps first after another has stepped last; "" where there is none."""
    first: dict[int, int] = {}
    for each in seen.updates:
        first.setdefault(each.optimizer, each.number)
    return next((seen.optimizers[each] for each, number in first.items() if own and number > own[-1].number), "")


def _off_beat(updates: list[Update], number: int, schedule: Schedule, *, alone: bool) -> Evidence | None:
    beats = []
    for place, update in enumerate(updates):
        events = _relevant(update, number) if alone else [e for e in update.events if e.kind != "zero-grad"]
        steps = [index for index, event in enumerate(events) if (event.kind, event.of) == ("scheduler", number)]
        early = [index for index in steps if _is_early(events, index, alone=alone)]
        if early and alone and any(each.kind == "backward" for each in events[early[0] :]):
            words = f"update {update.number}: {schedule.kind} steps once a micro-batch, {len(steps)} times"
            return violated(words, events[early[0]].line, _order(events))
        if early:
            words = f"update {update.number}: {schedule.kind} steps between backward and the optimizer's step"
            return violated(words, events[early[0]].line, _order(events))
        if place == 0 and steps and alone:
            return violated(f"{schedule.kind} steps before the first update", events[steps[0]].line, _order(events))
        if len(steps) > 1 and place:
            words = f"after update {update.number - 1}, {schedule.kind} steps {len(steps)} times"
            return violated(words, events[steps[0]].line, _order(events))
        beats.append(bool(steps))
    found = [place for place, each in enumerate(beats) if each]
    gaps = Counter(later - sooner for sooner, later in pairwise(found))
    odd = [gap for gap in gaps if gap > 1]
    if gaps[1] > sum(gaps[gap] for gap in odd) and odd:
        update = updates[next(sooner for sooner, later in pairwise(found) if later - sooner > 1)]
        return violated(f"no step of {schedule.kind} after update {update.number}", update.line)
    return None


def _relevant(update: Update, number: int) -> list[Event]:
    """What of an update's events is about the order of a schedule's steps."""
    kinds = ("backward", "clip", "unscale", "step")
    return [each for each in update.events if each.kind in kinds or (each.kind, each.of) == ("scheduler", number)]


def _is_early(events: list[Event], index: int, *, alone: bool) -> bool:
    if alone:
        return any(each.kind == "backward" for each in events[:index])
    before = [each.kind for each in events[:index] if each.kind != "scheduler"]
    after = [each.kind for each in events[index + 1 :] if each.kind != "scheduler"]
    return before[-1:] in (["backward"], ["clip"]) and after[:1] == ["step"]


def _order(events: list[Event]) -> Picture:
    found = short([f"{each.kind} {each.line}" for each in events[:100]])
    order = ["backward", "unscale", "clip", "step", "scheduler"]
    own = [each for each in events if each.kind in order]
    steps = [each for each in own if each.kind == "scheduler"][:1]
    wanted = [each for each in own if each.kind != "scheduler"] + steps
    return Picture(
        "events", "the events of an update", found, short([f"{each.kind} {each.line}" for each in wanted[:100]])
    )


@asked("a schedule that states its steps takes as many, and ends where it says", 1, 2)
def the_stated_total_is_that_of_the_run(seen: Seen) -> Evidence:
    """The total that a schedule was made for, against the steps that it took."""
    stated = [each for each in seen.schedules if each.planned and each.steps]
    if not stated:
        return not_applicable("no schedule of torch states how many steps it is for")
    for each in stated:
        is_more = each.kind != "CosineAnnealingLR" and each.steps > each.planned + (each.ends_at is not None)
        if each.is_over or is_more:
            return violated(
                f"{each.kind} is planned for {each.planned} steps, and is asked for {each.steps}", each.line
            )
    if seen.stopped or seen.ended:
        totals = ", ".join(f"{each.kind} for {each.planned}" for each in stated)
        return unproven(
            f"planned: {totals}; the run was not seen to its end: give --updates and --seconds for all of it"
        )
    for each in stated:
        if each.steps != each.planned and not (each.ends_at is not None and each.steps == each.planned - 1):
            if each.kind in ("LinearLR", "ConstantLR") and each.steps > each.planned:
                continue  # a warm-up, whose rate then stays
            words = f"{each.kind} is planned for {each.planned} steps, and {each.steps} are taken: its end is elsewhere"
            return violated(words, each.line, _rates(seen))
        own = [update for update in seen.updates if update.optimizer == each.optimizer]
        if (
            len(own) > each.planned
            and not each.later
            and (beyond := _beyond(own, each, seen.schedules.index(each) + 1))
        ):
            words = f"{each.kind} is planned for {each.planned} steps, and {len(own)} updates are made: {beyond} beyond"
            return violated(f"{words} its end", each.line, _rates(seen))
    return passed(", ".join(f"{each.kind}: {each.steps} of {each.planned}" for each in stated))


def _beyond(own: list[Update], schedule: Schedule, number: int) -> int:
    """How many updates follow the last step of a schedule, but for those at a rate that it may be meant to end at."""
    steps = [place for place, each in enumerate(own) if ("scheduler", number) in ((e.kind, e.of) for e in each.events)]
    rates = [max(each.rates, default=0.0) for each in own]
    after = rates[max(steps, default=len(own)) :]
    return sum(schedule.kind == "OneCycleLR" or rate < NOTHING * max(rates) for rate in after)


def _rates(seen: Seen) -> Picture:
    rates = [each.rates[0] for each in seen.updates if each.rates][:4000]
    return Picture("curves", "the rate of each update", rates, [], "update", "rate")


@asked("gradients are clipped once an update, after the last backward, before the step, and unscaled", 4)
def gradients_are_clipped_once_and_whole(seen: Seen) -> Evidence:
    """Where clips stand among the events of their update."""
    if not any(event.kind == "clip" for each in seen.updates for event in each.events):
        return not_applicable("no gradient is clipped by torch's functions")
    for update in seen.updates:
        events = [each for each in update.events if each.kind in ("backward", "clip", "unscale", "step")]
        kinds = [each.kind for each in events]
        clips = [index for index, kind in enumerate(kinds) if kind == "clip"]
        if not clips:
            continue
        backwards = [index for index, kind in enumerate(kinds) if kind == "backward"]
        if not backwards or clips[0] < backwards[0]:
            return violated(
                f"update {update.number}: gradients are clipped after the step before",
                events[clips[0]].line,
                _order(events),
            )
        if clips[0] < backwards[-1]:
            words = f"update {update.number}: gradients are clipped before the last of {len(backwards)} backward calls"
            return violated(words, events[clips[0]].line, _order(events))
        if update.scale != 1.0 and "unscale" not in kinds[: clips[0]]:
            when = f"update {update.number}: gradients are clipped while they are scaled by {update.scale:g}"
            return violated(f"{when}: call unscale_ first", events[clips[0]].line, _order(events))
    clipped = {each.number for each in seen.updates if any(event.kind == "clip" for event in each.events)}
    by = {each.optimizer for each in seen.updates if each.number in clipped}
    for each in seen.updates:
        if each.number not in clipped and each.optimizer in by:
            return violated(f"update {each.number} is made from gradients that are not clipped", each.line)
    return passed(f"{len(clipped)} updates")


@asked("a rate that the script computes is the optimizer's", 2)
def computed_rates_reach_the_optimizer(seen: Seen) -> Evidence:
    """Numbers that were the rate, and left it behind."""
    if seen.stale_rates:
        name, _, at = seen.stale_rates[0].rpartition(" at ")
        return violated(
            f"{name} was the optimizer's rate and then changes, and the optimizer's never does", at, _rates(seen)
        )
    if seen.group_left_alone:
        words = f"the rate of group {seen.group_left_alone} of the optimizer's parameters stays, where others are moved"
        return violated(words, seen.updates[0].line)
    if not seen.rate_candidates or not seen.optimizers:
        return not_applicable("no number of the script was seen to be the optimizer's rate")
    return passed(f"{seen.rate_candidates} number(s) of the script, {len(seen.updates)} updates")
