"""Judge of task-7: the safety gate stops training by an exponential moving average, after a burn-in.

The average is never read: what a gate allows tells it.
"""

import math
import random
from collections.abc import Iterator
from functools import partial

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .driving.gates import (
    DECAY,
    NEAR,
    ONES,
    THRESHOLD,
    Gates,
    Run,
    averages,
    averages_shown,
    either,
    gated,
    goes_on,
    recover,
    running,
    too_near,
)
from .driving.kept_runs import INTERRUPTED, STOPPED, Runs, judged, kept_runs
from .driving.manager_sessions import (
    CONFIG,
    NO_LIMIT,
    Cases,
    MissingPart,
    Session,
    dashboard,
    managing,
    mcp_server,
    worst_of,
)
from .driving.space import Points, over
from .driving.telemetry import holds_nan, is_absent, is_same
from .driving.training_runs import watching
from .driving.tree import Tree
from .running.evidence import Evidence, at_most, check, failed, passed

LONG = 200  # steps after which it no longer matters how the average started: 0.9**200 is 7e-10
BURN_INS = (0, 1, 2, 10, 37)
RISING = (*4 * (0.7,), *20 * (3.0,))
RANDOM = tuple(random.Random(7).uniform(0, 4) for _ in range(40))  # noqa: S311 - no secret
ZEROS = torch.zeros(7, CONFIG["max_seq_len"], dtype=torch.long)
MIXED = torch.cat([Tree.bits(8, CONFIG["max_seq_len"], seed=5), ZEROS[:3]])  # a short last part, unlike the others
SEQUENCES: tuple[tuple[float, ...], ...] = (
    40 * (0.7,),
    (50.0, *39 * (0.7,)),
    (*19 * (0.7,), 30.0, *20 * (0.7,)),
    tuple(step / 10 for step in range(40)),
    20 * (0.0, 5.0),
    RANDOM,
)
NAN, INF = math.nan, math.inf


@check(task=7, prop="the average has its closed form, with the decay 0.9 and any other")
@gated
def average_is_the_closed_form(gates: Gates) -> Cases:
    def cases(corrected: bool) -> Cases:
        for decay in (None, 0.0, 0.5, 0.99) if gates.decay else (None,):
            for losses in SEQUENCES:
                for count in (1, 2, 3, 7, 20, 40):
                    found = recover(gates, losses[:count], decay)
                    form = averages(losses[:count], DECAY if decay is None else decay, corrected)
                    wanted = form[-1]
                    detail = f"the average of {count} losses, the last {list(losses[:count])[-3:]}, is {found:.6g}, "
                    detail += f"not {wanted:.6g}, with decay {decay or 'left out'}"
                    gap = abs(found - wanted) / max(losses)
                    shown = None if gap <= NEAR else averages_shown(gates, losses[:count], decay, form)
                    yield at_most(gap, NEAR, detail, "", shown)

    yield from either(cases)


@check(task=7, prop="what is allowed follows the average, which follows the losses of the burn-in too")
@gated
def decisions_follow_the_average(gates: Gates) -> Cases:
    drawn: list[tuple[list[float], int]] = [(list(losses), burn_in) for losses in SEQUENCES for burn_in in BURN_INS]
    losses_of = st.lists(st.one_of(st.floats(0, 4), st.floats(0, 30)), min_size=1, max_size=25)

    # Without shrinking: the shortest draw that shows a fault is short enough.
    @settings(max_examples=60, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(losses_of, st.integers(0, 12))
    def draw(losses: list[float], burn_in: int) -> None:
        drawn.append((losses, burn_in))

    draw()
    drawn.sort(key=lambda case: len(case[0]))

    def cases(corrected: bool) -> Cases:
        for losses, burn_in in drawn:
            if not too_near(losses, corrected):
                gate = gates.make(burn_in)
                found = [gate.allows(loss) for loss in losses]
                yield gates.same(losses, found, gates.decide(losses, burn_in, corrected), burn_in)

    yield from either(cases)


@check(task=7, prop="nothing trips while step < burn_in_steps, and a fault does at once afterwards")
@gated
def burn_in_trips_nothing(gates: Gates) -> Cases:
    for burn_in in BURN_INS:
        for fault in (50.0, 1e300):
            yield gates.compare([fault] * (burn_in + 3), [True] * burn_in + [False] * 3, burn_in)
        for fault in (NAN, INF):
            yield gates.compare([fault] * burn_in, [True] * burn_in, burn_in)


@check(
    task=7, prop="an average at a ceiling is allowed, one at a floor is not, and one beside it is judged by its side"
)
@gated
def threshold_itself_is_allowed(gates: Gates) -> Cases:
    below, above = (THRESHOLD * (1 + 4 * NEAR * sign) for sign in (-1, 1))
    at = below if gates.has_floors else THRESHOLD
    yield gates.compare([THRESHOLD], [not gates.has_floors], 0)
    yield gates.compare([at], [True], 0)
    yield gates.compare([above], [False], 0)
    for decay in (0.0, 0.5) if gates.decay else ():
        yield gates.compare([at] * 20, [True] * 20, 3, decay)
        yield gates.compare([at] * 20 + [THRESHOLD * 2], [True] * 20 + [False], 3, decay)


@check(task=7, prop="one spike trips only if a tenth of it lifts the average over the threshold")
@gated
def a_spike_counts_a_tenth(gates: Gates) -> Cases:
    for level in (0.0, 0.7, 1.5):
        lifting = (THRESHOLD - DECAY * level) / (1 - DECAY)
        for burn_in in (10, LONG):
            for spike, trips in ((lifting * (1 - 4 * NEAR), False), (lifting * (1 + 4 * NEAR), True)):
                losses = [*LONG * [level], spike, *20 * [level]]
                yield gates.compare(losses, [True] * LONG + [not trips] * 21, burn_in)


@check(task=7, prop="a lasting fault trips after just the computed number of steps")
@gated
def a_lasting_fault_trips_in_time(gates: Gates) -> Cases:
    for level in (0.0, 0.7, 1.9):
        for fault in (2.05, 2.5, 5.5, 50.0):
            steps = math.ceil(math.log((fault - THRESHOLD) / (fault - level)) / math.log(DECAY))
            for burn_in in (10, LONG):
                wanted = [True] * (LONG + steps - 1) + [False] * 5
                yield gates.compare([*LONG * [level], *(steps + 4) * [fault]], wanted, burn_in)


@check(task=7, prop="a loss that is NaN or infinite trips after the burn-in, and hides no later fault")
@gated
def what_is_not_finite_trips(gates: Gates) -> Cases:
    for loss in (NAN, INF):
        for burn_in in BURN_INS:
            for quiet in (burn_in, burn_in + 1, burn_in + 30):
                losses = [*quiet * [0.7], loss, *30 * [0.7]]
                yield gates.compare(losses, [True] * quiet + [False] * 31, burn_in)
        for at in range(5):
            losses = [*at * [0.7], loss, *(4 - at) * [0.7], *3 * [50.0]]
            yield gates.compare(losses, [True] * 5 + [False] * 3, 5)


@check(task=7, prop="a gate stays tripped until it is reset, says so, and then lets training go on, and judges again")
@gated
def stays_tripped_until_reset(gates: Gates) -> Cases:
    if not gates.latches:
        yield passed("a gate of floors says what its averages are now, and is not reset")
        return
    for burn_in in (0, 3):
        gate = gates.make(burn_in)
        quiet = [gate.allows(0.7) and not gate.tripped for _ in range(burn_in + 1)]
        yield gates.same([0.7] * len(quiet), quiet, [True] * len(quiet), burn_in)
        losses = [*3 * [50.0], *300 * [0.0]]
        yield gates.same(losses, [gate.allows(loss) for loss in losses], [False] * 303, burn_in)
        if gate.tripped is False:
            yield failed("a gate that has tripped has tripped=False")
        gate.reset()
        if gate.tripped:
            yield failed("a gate that was reset has tripped=True")
        yield gates.same([0.7] * 30, [gate.allows(0.7) for _ in range(30)], [True] * 30, burn_in)
        if all(gate.allows(50.0) for _ in range(burn_in + 2)):
            yield failed("a gate that was reset trips no more")


@check(task=7, prop="a gate that is saved anywhere, in the burn-in too, goes on as it was")
@gated
def state_saves_and_loads(gates: Gates) -> Cases:
    def cases(corrected: bool) -> Cases:
        for losses, burn_in in ((RISING, 4), (SEQUENCES[1], 10), (SEQUENCES[2], 2), (RANDOM, 13), (50 * (3.0,), 20)):
            wanted = gates.decide(losses, burn_in, corrected)
            for saved_after in range(len(losses)):
                for restored in goes_on(gates, losses, burn_in, saved_after):
                    yield gates.same(losses, restored, wanted, burn_in)

    yield from either(cases)


@check(task=7, prop="the state of a gate from before, which holds only `tripped`, loads")
@gated
def older_state_loads(gates: Gates) -> Cases:
    line = "from bit_transformer import SafetyGate; SafetyGate(2.0).load_state_dict({'tripped': True})"
    if gates.limit != "threshold":
        yield passed("a gate of another interface has no such state")
        return
    for tripped in (True, False):
        gate = gates.make(3)
        try:
            gate.gate.load_state_dict({"tripped": tripped})
        except Exception as error:
            raised = f"load_state_dict({{'tripped': {tripped}}}) raises {type(error).__name__}: {error}"
            yield passed("a gate of another state") if gates.is_told else failed(raised, line)
            return
        yield gates.same([0.7] * 9, [gate.allows(0.7) for _ in range(9)], [not tripped] * 9, 3)
        yield gates.same([50.0] * 9, [gate.allows(50.0) for _ in range(9)], [*3 * [None], *6 * [False]], 3)


@check(task=7, prop="a manager's gate hears its validation loss, in evaluation mode, before each update, and is obeyed")
@over(
    "reversible",
    "use_act",
    validation=("mixed", "none", "zeros"),
    windows=((None, 0), (4, 2)),
    full_attn_logging=(None, False),
    micro_batch=(4, 8),
    whole=(False, True),
    nearest=("lower", "higher"),  # of two averages, to the threshold
)
@running
def gates_hear_the_validation_loss(run: Run, burn_in: int, points: Points) -> Cases:
    updates = burn_in + 6
    for point in points:
        validation = {"none": None, "zeros": ZEROS, "mixed": MIXED}[point["validation"]]
        slow = 0.02 if validation is None else 0.008  # so that one average is near the next
        plans, threshold = [run.plan(updates, point["micro_batch"], slow * each) for each in (1, 8, 64)], NO_LIMIT
        while plans:  # to see losses that rise, and then with a threshold that one of their averages just reaches
            run.begin(threshold, plans[0], validation, **point.config)
            if point["whole"] and run.validation is not None:  # after single updates, and all in one run
                for _ in range(3):
                    run.step(ONES[:4])
                run.ask(partial(run.session.ask, "train"))
            while len(run.made) < updates:
                run.step(ZEROS[:4] if run.validation is None and len(run.made) > burn_in else ONES[:4])
            yield run.judged(burn_in, threshold, point)
            if threshold != NO_LIMIT:
                break
            try:
                threshold = run.threshold(burn_in, point["nearest"])
            except MissingPart:
                if plans.pop(0) and not plans:
                    raise


@check(task=7, prop="a run that grows, or is saved and taken up, keeps its gate; a new run has one that knows nothing")
@over(
    path=("width", "length", "download", "download by another", "refused", "init", "init at once in fault"),
    after=(3, 12, 16),  # updates: in a burn-in of 10, after it, after the gate has tripped
    validation=(False, True),
)
@running
def a_run_keeps_its_gate(run: Run, burn_in: int, points: Points) -> Cases:
    for point in points:
        path, after = str(point["path"]), point["after"] + max(0, burn_in - 10) * (point["after"] > 10)  # noqa: PLR2004
        threshold = 0.3 if "fault" in path else 1.0
        validation = ZEROS if point["validation"] and "download" not in path else None
        plan = run.plan(2 * burn_in + 9, 4)
        run.begin(threshold, plan, validation)
        for at in range(burn_in + 9):
            if at == after and "init" in path:
                break
            if at == after:
                run.go_on(path)
            run.step(ZEROS[:4] if run.validation is None and at > burn_in else ONES[:4])
        yield run.judged(burn_in, threshold, point)
        if "init" in path:
            run.begin(threshold, plan, validation, new=False)
            for _ in range(burn_in + 3):
                run.step(ONES[:4])
            yield run.judged(burn_in, threshold, point)


@check(
    task=7,
    prop="a run that is kept stops by its threshold, after the burn-in, and not without one; resumed, it goes on",
)
@watching()
@kept_runs
def kept_runs_keep_their_gate(runs: Runs) -> Iterator[Evidence]:
    fault = runs.go(name="fault", loss_threshold=0.0, most=60, epochs=20)
    yield judged(fault, "" if fault.status == STOPPED else f"exit status {fault.status} after {fault.steps} updates")
    again = runs.go("--resume", name="fault", most=5, epochs=20)
    ended = f"exit status {again.status} after {again.steps} updates, of a run that had stopped"
    yield judged(again, "" if again.status == STOPPED and not again.steps else ended)
    begun = runs.go(name="begun", loss_threshold=0.0, most=fault.steps // 2, epochs=20)
    rest = runs.go("--resume", name="begun", most=60, epochs=20)
    made = begun.steps + rest.steps
    yield judged(rest, "" if made == fault.steps else f"stops after {made} updates, uninterrupted after {fault.steps}")
    sound = runs.go(loss_threshold=2.0, most=fault.steps + 5, epochs=20)
    yield judged(sound, "" if sound.status == INTERRUPTED else f"exit status {sound.status} without a fault")


@check(task=7, prop="a loss that is not a number stops a manager, after the burn-in")
@running
def managers_stop_at_nan(run: Run, burn_in: int) -> Cases:
    for validation in (None, ZEROS):
        for quiet in (burn_in, burn_in + 2):
            run.begin(NO_LIMIT, run.plan(burn_in + 4, 4), validation)
            for _ in range(quiet):
                run.step(ONES[:4])
            for weight in run.session.model.parameters():
                weight.data.fill_(NAN)
            run.step(ONES[:4])
            yield run.judged(burn_in, NO_LIMIT, "with weights that are NaN")


@check(task=7, prop="the dashboard and the MCP server go through the manager's gate, with its threshold and its state")
@over(server=(dashboard, mcp_server))
@running
def servers_go_through_the_gate(run: Run, burn_in: int, points: Points) -> Cases:
    for point in points:
        run.begin(0.05, run.plan(burn_in + 9, 4))
        send = point["server"](run.session)
        send("init", text="~" * 40, config=CONFIG, plan=run.plan(burn_in + 9, 4))
        for at in range(burn_in + 9):
            if at == 4:  # noqa: PLR2004 - in the burn-in
                send("save", name="kept")
                send("download", name="kept", text="~" * 40)
            if at == burn_in:
                send("scale_up", dimension="layers")
            run.ask(partial(send, "train_step", text="~@" * 4))
        run.ask(partial(send, "train"))
        yield run.judged(burn_in, 0.05, point["server"].__name__)


@check(task=7, prop="telemetry that is absent without attention maps is None or left out, and nothing is NaN")
@over(
    "windows",
    "reversible",
    "use_act",
    "num_layers",
    "use_checkpoint",
    full_attn_logging=(False, None),
    rows=(2, 1),
    length=(12, 2, 5),
)
def absent_telemetry_is_explicit(tree: Tree, points: Points) -> Evidence:
    return worst_of(telemetry_cases(tree, points))


def telemetry_cases(tree: Tree, points: Points) -> Cases:
    """Compare each value without maps to that with maps, where it is not absent."""
    for point in points:
        if "full_attn_logging" not in point.values:
            return
        line = f"from bit_transformer import BitTransformerLM as M; m = M(8, 2, **{point.config}); import torch; "
        line += f"print(m(torch.zeros({point['rows']}, {point['length']}).long())[1])"
        bits = tree.bits(point["rows"], point["length"])
        model = tree.model(**point.config).eval()
        try:
            _, full = tree.model(**point.config | {"full_attn_logging": True}).eval()(bits)
        except Exception:  # noqa: S112 - what is wrong with maps is another task's
            continue
        try:
            logits, telemetry = tree.part("safety", "hil_safe_inference")(model, bits, -1.0, -1.0)
        except Exception as error:
            yield failed(f"hil_safe_inference raises {type(error).__name__}: {error}", line)
            return
        if logits is None or not logits.isfinite().all():
            yield failed("hil_safe_inference withholds an answer that is over its floors, or answers NaN", line)
        for name, value in telemetry.items():
            if holds_nan(value):
                yield failed(f"telemetry {name!r} is NaN without attention maps", line)
            if not is_absent(value) and not is_same(value, full.get(name)):
                yield failed(f"telemetry {name!r} has a value without attention maps, another than with them", line)
        yield passed(f"{len(telemetry)} values of telemetry")


@check(task=7, prop="a manager trains, answers and reports without attention maps, and says nothing that is NaN")
@managing
def managers_do_without_maps(session: Session) -> Cases:
    for config in ({"chunk_size": 4, "overlap": 2}, {}):
        session.ask("init", session.data[:8], **CONFIG, **config, full_attn_logging=False)
        for name, rows in (("train_step", session.data[:4]), ("infer", session.data[:2]), ("status", None)):
            answer = session.ask(name, *([] if rows is None else [rows]))
            if holds_nan(answer):
                yield failed(f"{name} answers with NaN: {answer}", session.line)
            yield passed(name)
