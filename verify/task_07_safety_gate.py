"""Judge of task-7: the safety gate stops training by an exponential moving average, after a burn-in.

The average is never read: what a gate allows tells it.
"""

import functools
import io
import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from .evidence import Evidence, at_most, check, failed, passed
from .gates import (
    DECAY,
    FAULTY,
    NEAR,
    RISING,
    THRESHOLD,
    Gates,
    Script,
    averages,
    decide,
    either,
    gated,
    judged,
    same,
    scripted,
    too_near,
)
from .manager_sessions import CONFIG, Cases, RequestFailed, Session, managing, worst_of
from .tree import Tree

LONG = 200  # steps after which it no longer matters how the average started: 0.9**200 is 7e-10
BURN_INS = (0, 1, 2, 10, 37)
RANDOM = tuple(random.Random(7).uniform(0, 4) for _ in range(40))  # noqa: S311 - no secret
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
        for decay in (None, 0.0, 0.5, 0.99) if gates.takes_decay else (None,):
            for losses in SEQUENCES:
                for count in (1, 2, 3, 7, 20, 40):
                    found = recover(gates, losses[:count], decay)
                    wanted = averages(losses[:count], DECAY if decay is None else decay, corrected)[-1]
                    detail = f"the average of {count} losses, the last {list(losses[:count])[-3:]}, is {found:.6g}, "
                    detail += f"not {wanted:.6g}, with decay {decay or 'left out'}"
                    yield at_most(abs(found - wanted) / max(losses), NEAR, detail)

    yield from either(cases)


def recover(gates: Gates, losses: Sequence[float], decay: float | None) -> float:
    """The average after these losses: the threshold at which a gate that judges only the last begins to allow it."""
    low, high = min(losses) - 1, max(losses) + 1
    for _ in range(45):
        middle = (low + high) / 2
        gate = gates.make(len(losses) - 1, middle, decay)
        if [gate.allows(loss) for loss in losses][-1]:
            high = middle
        else:
            low = middle
    return high


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
                yield gates.compare(losses, decide(losses, burn_in, corrected), burn_in)

    yield from either(cases)


@check(task=7, prop="nothing trips while step < burn_in_steps, and a fault does at once afterwards")
@gated
def burn_in_trips_nothing(gates: Gates) -> Cases:
    for burn_in in BURN_INS:
        for fault in (50.0, 1e300):
            yield gates.compare([fault] * (burn_in + 3), [True] * burn_in + [False] * 3, burn_in)
        for fault in (NAN, INF):
            yield gates.compare([fault] * burn_in, [True] * burn_in, burn_in)


@check(task=7, prop="an average that equals the threshold is allowed, one above it is not")
@gated
def threshold_itself_is_allowed(gates: Gates) -> Cases:
    above = THRESHOLD * (1 + 4 * NEAR)
    yield gates.compare([THRESHOLD], [True], 0)
    yield gates.compare([above], [False], 0)
    for decay in (0.0, 0.5) if gates.takes_decay else ():
        yield gates.compare([THRESHOLD] * 20, [True] * 20, 3, decay)
        yield gates.compare([THRESHOLD] * 20 + [above], [True] * 20 + [False], 3, decay)


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
    for burn_in in (0, 3):
        gate = gates.make(burn_in)
        quiet = [bool(gate.allows(0.7)) and not gate.tripped for _ in range(burn_in + 1)]
        yield same([0.7] * len(quiet), quiet, [True] * len(quiet), burn_in)
        losses = [*3 * [50.0], *300 * [0.0]]
        yield same(losses, [gate.allows(loss) for loss in losses], [False] * 303, burn_in)
        if not gate.tripped:
            yield failed("a gate that has tripped has tripped=False")
        gate.reset()
        if gate.tripped:
            yield failed("a gate that was reset has tripped=True")
        yield same([0.7] * 30, [gate.allows(0.7) for _ in range(30)], [True] * 30, burn_in)
        if all(gate.allows(50.0) for _ in range(burn_in + 2)):
            yield failed("a gate that was reset trips no more")


@check(task=7, prop="a gate that is saved anywhere, in the burn-in too, goes on as it was")
@gated
def state_saves_and_loads(gates: Gates) -> Cases:
    def cases(corrected: bool) -> Cases:
        for losses, burn_in in ((RISING, 4), (SEQUENCES[1], 10), (SEQUENCES[2], 2), (RANDOM, 13), (50 * (3.0,), 20)):
            wanted = decide(losses, burn_in, corrected)
            for saved_after in range(len(losses)):
                for restored in goes_on(gates, losses, burn_in, saved_after):
                    yield same(losses, restored, wanted, burn_in)

    yield from either(cases)


def goes_on(gates: Gates, losses: Sequence[float], burn_in: int, saved_after: int) -> Iterator[list[bool]]:
    """What is allowed by a gate and by those that take up its state, which goes through a file and through JSON."""
    gate = gates.make(burn_in)
    before = [gate.allows(loss) for loss in losses[:saved_after]]
    state = gate.state_dict()
    yield before + [gate.allows(loss) for loss in losses[saved_after:]]
    states = [state, through_file(state)]
    with suppress(TypeError):  # a state may hold tensors
        states.append(json.loads(json.dumps(state)))
    for each in states:
        other = gates.make(burn_in)
        for _ in range(saved_after % 3 * (burn_in + 1)):
            other.allows(9.0)
        other.load_state_dict(each)
        yield before + [other.allows(loss) for loss in losses[saved_after:]]


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    """A state as a checkpoint brings it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    restored: dict[str, Any] = torch.load(file, weights_only=True)
    return restored


@check(task=7, prop="the state of a gate from before, which holds only `tripped`, loads")
@gated
def older_state_loads(gates: Gates) -> Cases:
    line = "from bit_transformer import SafetyGate; SafetyGate(2.0).load_state_dict({'tripped': True})"
    for tripped in (True, False):
        gate = gates.make(3)
        try:
            gate.load_state_dict({"tripped": tripped})
        except Exception as error:
            yield failed(f"load_state_dict({{'tripped': {tripped}}}) raises {type(error).__name__}: {error}", line)
            return
        yield same([0.7] * 9, [gate.allows(0.7) for _ in range(9)], [not tripped] * 9, 3)
        yield same([50.0] * 9, [gate.allows(50.0) for _ in range(9)][3:], [False] * 6, 3)


@check(task=7, prop="all requests of a run, single and whole, go through one gate, each once")
@scripted
def a_run_has_one_gate(session: Session, script: Script) -> Cases:
    session.init(40, {"batch_size": 4, "epochs": 3})
    script.start(RISING)
    found = [script.request() for _ in RISING]
    yield from either(functools.partial(judged, session, found, RISING))
    session.init(40, {"batch_size": 4, "epochs": 3})
    script.start(RISING)
    session.rates.clear()
    for _ in range(6):
        script.request()
    with suppress(RequestFailed):
        session.ask("train")
    carried_out = [True] * len(session.rates) + [False] * (len(RISING) - len(session.rates))
    yield from either(functools.partial(judged, session, carried_out, RISING))


@check(task=7, prop="a run that grows, or that is saved and taken up elsewhere, keeps its gate")
@scripted
def a_run_keeps_its_gate(session: Session, script: Script) -> Cases:
    for interrupted_after, grows in ((2, False), (6, False), (20, False), (6, True)):
        session.init(40)
        script.start(RISING)
        found = [script.request() for _ in RISING[:interrupted_after]]
        if grows:
            session.ask("scale_up", "width")
        else:
            session.ask("save", "part")
            session.renew()
            session.ask("download", "part", session.data[:40])
        script.start(RISING[interrupted_after:])
        found += [script.request() for _ in script.losses]
        yield from either(functools.partial(judged, session, found, RISING))


@check(task=7, prop="a new run has a gate that knows nothing of the last, and a burn-in of its own")
@scripted
def a_new_run_starts_afresh(session: Session, script: Script) -> Cases:
    for before, losses in ((20 * [0.7], FAULTY), (20 * [50.0], RISING)):
        session.init(40)
        script.start(before)
        for _ in before:
            script.request()
        session.init(40)
        script.start(losses)
        found = [script.request() for _ in losses]
        yield from either(functools.partial(judged, session, found, losses))


@check(task=7, prop="telemetry that is absent without attention maps is None or left out, and nothing is NaN")
def absent_telemetry_is_explicit(tree: Tree) -> Evidence:
    return worst_of(telemetry_cases(tree))


def telemetry_cases(tree: Tree) -> Cases:
    """Compare each value without maps to that with maps, where it is not absent."""
    chunked: dict[str, Any] = {"chunk_size": 4, "overlap": 2}
    configs: tuple[dict[str, Any], ...] = (chunked, {}, chunked | {"reversible": True, "num_layers": 2})
    for config in configs:
        line = f"from bit_transformer import BitTransformerLM as M; m = M(8, 2, full_attn_logging=False, **{config}); "
        line += "import torch; print(m(torch.zeros(2, 12).long())[1])"
        bits = tree.bits(2, 12)
        model = tree.model(full_attn_logging=False, **config).eval()
        _, full = tree.model(full_attn_logging=True, **config).eval()(bits)
        try:
            logits, telemetry = tree.module("safety").hil_safe_inference(model, bits, 0.0, 0.0)
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


def holds_nan(value: Any) -> bool:
    """Whether a NaN is anywhere in a value."""
    if isinstance(value, Tensor):
        return bool(value.isnan().any())
    if isinstance(value, dict | list | tuple):
        return any(map(holds_nan, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and math.isnan(value)


def is_absent(value: Any) -> bool:
    """Whether a value says that there is none."""
    return value is None or (isinstance(value, dict | list | tuple) and all(map(is_absent, value)))


def is_same(value: Any, other: Any) -> bool:
    """Whether two values of telemetry are equal."""
    if isinstance(value, Tensor):
        return isinstance(other, Tensor) and torch.equal(value, other)
    if isinstance(value, list | tuple):
        return isinstance(other, list | tuple) and len(value) == len(other) and all(map(is_same, value, other))
    return bool(value == other)
