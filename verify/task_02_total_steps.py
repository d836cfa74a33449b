"""Judge of task-2: a manager's schedule is as long as the training that it was asked for.

The oracle counts updates from the request alone. What a schedule has before it, a copy that is run ahead tells.
"""

from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from .driving.manager_sessions import (
    CONFIG,
    PLAN,
    Cases,
    Plan,
    RequestFailed,
    Send,
    Session,
    dashboard,
    import_from,
    managing,
    mcp_server,
)
from .driving.space import Point, Points, over
from .running.evidence import check, failed, passed

SHORT: Plan = {"batch_size": 8, "epochs": 3, "extra_steps": 1, "lr": 0.004, "weight_decay": 0.03}
LONG: Plan = {"batch_size": 2, "epochs": 5, "extra_steps": 2, "lr": 0.002, "weight_decay": 0.2}  # of 37 rows: 105

# The axes of a plan: of a manager, which need not take what train_loop takes.
AXES = {
    "micro_batch": "batch_size",
    "times": "epochs",
    "extra": "extra_steps",
    "group": "accum_steps",
    "peak": "lr",
    "decay": "weight_decay",
}
PATHS = (
    "width",
    "layers",
    "length",
    "download",
    "download at once",
    "download by another",
    "download without data",
    "growth, then download",
)
CHANGES: tuple[Plan | None, ...] = (None, {"epochs": 40, "batch_size": 5}, {"extra_steps": 4, "lr": 0.001}, LONG)


def plan_of(point: Point) -> Plan:
    """The plan of a point."""
    return {AXES[axis]: value for axis, value in point.values.items() if axis in AXES}


def updates_of(rows: int, plan: Plan) -> int:
    """The updates of a plan that names its batch_size, epochs and extra_steps; accum_steps is 1 if it is not named."""
    micro_batches = -(-rows // plan["batch_size"]) + plan["extra_steps"]
    updates: int = plan["epochs"] * -(-micro_batches // plan.get("accum_steps", 1))
    return updates


def ready(session: Session, rows: int, plan: Plan) -> Cases:
    """Whether the manager is ready to carry out a plan, all of it, and by an optimizer of its model."""
    plan = session.known(plan)
    yield session.plans(updates_of(rows, plan), plan.get("lr", PLAN["lr"]))
    yield session.decays(plan.get("weight_decay", PLAN["weight_decay"]))
    yield session.holds_the_model()


@check(task=2, prop="init plans epochs * ceil((ceil(rows / batch_size) + extra_steps) / accum_steps) updates as asked")
@over(
    rows=(37, 3, 40, 101, 1, 1000),  # that fill the last micro-batch or do not, fewer than one; about 100 updates
    micro_batch=(8, 1, 5, 7),
    times=(1, 3, 30),
    extra=(0, 1, 2),
    group=(1, 3),
    peak=(0.003, 0.05),
    decay=(0.01, 0.3, 0.0),
)
@managing
def init_plans_what_is_asked(session: Session, points: Points) -> Cases:
    for point in points:  # with one manager: what was planned before is no longer asked
        plan = plan_of(point)
        session.init(point["rows"], plan)
        yield from ready(session, point["rows"], plan)
        del session.calls[3:]


@check(task=2, prop="growth and download plan anew: the plan there was as the request changes it, on the data given")
@over(path=PATHS, change=CHANGES, after=(0, 2), reversible=(False, True))
@managing
def later_paths_plan_what_is_asked(session: Session, points: Points) -> Cases:
    for point in points:
        session.init(37, SHORT, **point.config)
        for _ in range(point["after"]):
            session.step()
        rows, plan = take(session, point["path"], 37, SHORT, point["change"])
        yield from ready(session, rows, plan)
        if "download" in point["path"] and not same_moments(session.kept, session.moments()):
            yield failed("the optimizer has not the moments that it had when the snapshot was saved", session.line)
        session.ask("scale_up", "length")  # by the plan that was made last
        yield from ready(session, rows, plan)
        del session.calls[3:]


def take(session: Session, path: str, rows: int, plan: Plan, change: Plan | None) -> tuple[int, Plan]:
    """Go on by a path, from a plan that the request may change: the rows and the plan that are asked then."""
    more = {} if change is None else {"plan": session.known(change)}
    if path == "growth, then download":
        session.ask("scale_up", "layers", **more)
        more = {}
    if "download" not in path:
        session.ask("scale_up", path, **more)
        return rows, plan | (change or {})
    session.ask("save", "kept")
    session.kept = session.moments()
    if path == "download by another":
        session.renew()
    elif path != "download at once":
        session.init(50, LONG | {"epochs": 1})  # what is planned in between is no longer asked
    rows = rows if path in ("download at once", "download without data") else 21
    given = [] if path == "download without data" else [session.data[:rows]]
    session.ask("download", "kept", *given, **more)
    return rows, plan | (change or {})


def same_moments(kept: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> bool:
    """Whether an optimizer keeps the same of each parameter."""
    return kept.keys() == found.keys() and all(
        kept[name].keys() == found[name].keys()
        and all(torch.equal(value, found[name][key]) for key, value in kept[name].items())
        for name in kept
    )


@check(task=2, prop="the schedule of a snapshot is not taken up, whatever its total was")
@managing
def download_leaves_old_schedules(session: Session) -> Cases:
    session.init(37, SHORT)
    session.step()
    path = session.ask("save", "old")
    load, save = (
        import_from(session.tree, ["bit_transformer.checkpoint"], f"{each}_checkpoint") for each in ("load", "save")
    )
    old = OneCycleLR(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 1.0, total_steps=100, cycle_momentum=False)
    extra = load(path)["extra"]
    save(path, session.model, session.optimizer, old, **extra)
    session.calls.append("# with the state of OneCycleLR(total_steps=100) as the snapshot's 'scheduler'")
    session.ask("download", "old", session.data[:37], plan={"batch_size": 5})
    yield from trains(session, 37, SHORT | {"batch_size": 5})


@check(task=2, prop="a full run is a whole cycle that ends at the floor, and requests beyond it stay there")
@over(
    path=("init", "layers", "download", "growth, then download"),
    rows=(21, 3),
    micro_batch=(8, 5),
    times=(1, 2),
    extra=(0, 2),
    group=(1, 3),
    windows=((None, 0), (4, 2)),
    held_out=(0, 5),
)
@managing
def full_runs_end_at_the_floor(session: Session, points: Points) -> Cases:
    for point in points:
        plan = SHORT | plan_of(point)
        session.init(rows := point["rows"], plan, point["held_out"], **point.config)
        if point["path"] != "init":
            session.step()
            rows, plan = take(session, point["path"], rows, plan, None)
        if point["path"] == "download without data":
            session.ask("download", "kept", session.data[:rows])
        yield from trains(session, rows, plan)
        del session.calls[3:]


@check(task=2, prop="what the tree's own plan is, where the request names none, its updates tell")
@managing
def own_plans_are_carried_out(session: Session) -> Cases:
    for given in (None, {"epochs": 3}, {"extra_steps": 2}):
        session.init(37, given)
        rates = session.ahead(1000)
        session.rates.clear()
        session.ask("train")
        made = [each[0] for each in session.rates]
        total = getattr(session.schedule, "total_steps", len(made))
        if total != len(made) or made != rates[: len(made)] or made[-1] != min(made):
            yield failed(f"the plan {given} has {len(made)} updates, and a schedule of {total}", session.line)
        yield passed(f"{len(made)} updates")


def trains(session: Session, rows: int, plan: Plan) -> Cases:
    """Whether the plan, carried out, is a whole cycle of so many updates, and what is asked beyond it at the floor."""
    yield from ready(session, rows, plan)
    rates = session.ahead(updates_of(rows, session.known(plan)))
    before = [parameter.detach().clone() for parameter in session.model.parameters()]
    yield session.follows(rates + (4 + len(rates)) * rates[-1:], lambda: overrun(session))
    if all(map(torch.equal, before, session.model.parameters())):
        yield failed("a run leaves the model as it was", session.line)


def overrun(session: Session) -> None:
    """Carry the plan out, and ask for more updates, and for all of them again."""
    session.ask("train")
    for _ in range(4):
        session.step(8)
    session.ask("train")


@check(task=2, prop="requests for single updates follow one cycle, whatever is asked between them")
@managing
def requests_share_one_cycle(session: Session) -> Cases:
    rows, plan = 20, SHORT | {"extra_steps": 0}
    for path in ("", "width", "download by another"):
        session.init(20, plan)
        if path:
            rows, plan = take(session, path, 20, plan, None)
        rates = session.ahead(updates_of(rows, plan))
        yield session.follows(rates, partial(ask_all, session, len(rates)))


def ask_all(session: Session, updates: int) -> None:
    """Ask for single updates, and for all else that changes nothing."""
    asked: list[tuple[Any, ...]] = [
        ("status",),
        ("infer", session.data[:1]),
        ("save", "part"),
        ("scale_up", "depth"),
        ("download", "nothing"),
    ]
    for update in range(updates):
        session.step(1 + update % 9)
        name, *args = asked[update % len(asked)]
        with suppress(RequestFailed):
            session.ask(name, *args)


@check(task=2, prop="the dashboard's requests plan the same, each by its own plan")
@managing
def dashboard_plans_what_is_asked(session: Session) -> Cases:
    yield from asked_through(session, dashboard(session))


@check(task=2, prop="the MCP server's tools plan the same, each by its own plan")
@managing
def mcp_server_plans_what_is_asked(session: Session) -> Cases:
    yield from asked_through(session, mcp_server(session))


def asked_through(session: Session, ask: Send) -> Cases:
    """Make, train, save, grow and take up a model by requests with plans of their own."""
    text = "".join(chr(97 + at % 26) for at in range(74))  # 37 rows: 2 bytes of 9 bits each
    ask("init", text=text, config=CONFIG, plan=SHORT)
    yield from ready(session, 37, SHORT)
    yield session.follows(session.ahead(updates_of(37, SHORT)), lambda: ask("train"))
    ask("save", name="one")
    ask("scale_up", dimension="width", plan={"epochs": 40, "batch_size": 5})
    yield from ready(session, 37, SHORT | {"epochs": 40, "batch_size": 5})
    ask("download", name="one", text=text[:42], plan={"batch_size": 2, "weight_decay": 0.4})
    yield from ready(session, 21, SHORT | {"batch_size": 2, "weight_decay": 0.4})

    def ask_for_each() -> None:
        for _ in range(5):
            ask("train_step", text=text[:8])

    yield session.follows(session.ahead(5), ask_for_each)
    ask("download", name="one")
    yield from ready(session, 37, SHORT)
