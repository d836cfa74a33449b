"""Judge of task-2: a manager's schedule is as long as the training that it was asked for.

The oracle counts updates from the request alone, and torch's own OneCycleLR says what the rate of each is.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from .evidence import Evidence, check, failed, passed
from .manager_sessions import CONFIG, Cases, Plan, RequestFailed, Session, import_from, managing

DASHBOARDS = ("dashboard.app", "bit_transformer.dashboard_app", "bit_transformer.dashboard")
SERVERS = ("mcp_server", "bit_transformer.mcp_server")

# Rows and plan: rows that fill the last micro-batch and rows that do not, fewer rows than a micro-batch.
PLANS: tuple[tuple[int, Plan], ...] = (
    (40, {"batch_size": 8, "epochs": 1, "extra_steps": 0}),
    (37, {"batch_size": 8, "epochs": 3, "extra_steps": 2}),
    (37, {"batch_size": 5, "epochs": 2, "extra_steps": 1}),
    (3, {"batch_size": 8, "epochs": 1, "extra_steps": 0}),
    (3, {"batch_size": 8, "epochs": 2, "extra_steps": 0}),
    (99, {"batch_size": 1, "epochs": 1, "extra_steps": 1}),
    (101, {"batch_size": 1, "epochs": 1, "extra_steps": 0}),
    (1000, {"batch_size": 7, "epochs": 30, "extra_steps": 2}),
)
SHORT: Plan = {"batch_size": 8, "epochs": 3, "extra_steps": 1, "lr": 0.004}
LONG: Plan = {"batch_size": 2, "epochs": 5, "extra_steps": 2, "lr": 0.002}  # of 37 rows: 105 updates


def updates_of(rows: int, plan: Plan) -> int:
    """The updates of a plan that names its batch_size, epochs and extra_steps; accum_steps is 1 if it is not named."""
    micro_batches = -(-rows // plan["batch_size"]) + plan["extra_steps"]
    updates: int = plan["epochs"] * -(-micro_batches // plan.get("accum_steps", 1))
    return updates


@check(task=2, prop="init plans epochs * (ceil(rows / batch_size) + extra_steps) updates, of its own request")
@managing
def init_plans_what_is_asked(session: Session) -> Cases:
    for rows, plan in PLANS:  # with one manager: what was planned before is no longer asked
        session.init(rows, plan)
        yield session.plans(updates_of(rows, plan))


@check(task=2, prop="scale_up plans anew, by the plan as the request changes it, in each dimension")
@managing
def scale_up_plans_what_is_asked(session: Session) -> Cases:
    for dimension in ("width", "layers", "length"):
        session.init(37, SHORT)
        session.ask("scale_up", dimension)
        yield session.plans(updates_of(37, SHORT))
        session.step()
        session.ask("scale_up", dimension, plan={"epochs": 40, "batch_size": 5})
        changed = SHORT | {"epochs": 40, "batch_size": 5}
        yield session.plans(updates_of(37, changed))
        session.ask("scale_up", dimension, plan={"extra_steps": 0})
        yield session.plans(updates_of(37, changed | {"extra_steps": 0}))


@check(task=2, prop="download plans anew, by the snapshot's plan as the request changes it, on the data that it gives")
@managing
def download_plans_what_is_asked(session: Session) -> Cases:
    session.init(37, SHORT)
    for _ in range(3):
        session.step()
    session.ask("save", "one")
    session.init(50, LONG)
    for _ in range(2):  # by the manager that has since been given another plan, then by a new one
        session.ask("download", "one", session.data[:37])
        yield session.plans(updates_of(37, SHORT))
        session.ask("download", "one", session.data[:21], plan={"batch_size": 2, "epochs": 12})
        yield session.plans(updates_of(21, SHORT | {"batch_size": 2, "epochs": 12}))
        session.ask("download", "one", plan={"extra_steps": 4})
        yield session.plans(updates_of(37, SHORT | {"extra_steps": 4}))
        session.renew()
    session.ask("download", "one")
    session.ask("scale_up", "width", plan=LONG)
    session.ask("save", "two")
    session.init(40, SHORT)
    session.ask("download", "two", session.data[:40])
    yield session.plans(updates_of(40, LONG))


@check(task=2, prop="the schedule of a snapshot is not taken up, whatever its total was")
@managing
def download_leaves_old_schedules(session: Session) -> Cases:
    session.init(37, SHORT)
    session.step()
    path = session.ask("save", "old")
    checkpoint, manager = session.tree.module("checkpoint"), session.manager
    old = OneCycleLR(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 1.0, total_steps=100, cycle_momentum=False)
    extra = checkpoint.load_checkpoint(path)["extra"]
    checkpoint.save_checkpoint(path, manager.model, manager.optimizer, old, **extra)
    session.calls.append("# with the state of OneCycleLR(total_steps=100) as the snapshot's 'scheduler'")
    session.ask("download", "old", session.data[:37], plan={"batch_size": 5})
    yield from trains(session, updates_of(37, SHORT | {"batch_size": 5}), SHORT["lr"])


@check(task=2, prop="the schedule moves the manager's optimizer, and that holds just the current model's parameters")
@managing
def schedule_moves_the_current_model(session: Session) -> Cases:
    session.init(37, SHORT)
    yield holds_the_model(session)
    for dimension in ("width", "layers", "length"):
        session.ask("scale_up", dimension)
        yield holds_the_model(session)
    session.ask("save", "one")
    session.ask("download", "one")
    yield holds_the_model(session)
    session.renew()
    session.ask("download", "one", session.data[:37])
    yield holds_the_model(session)
    session.init(37, SHORT)
    yield holds_the_model(session)


def holds_the_model(session: Session) -> Evidence:
    """Whether schedule, optimizer and model belong together, and an update moves the model."""
    manager = session.manager
    held = {id(parameter) for group in manager.optimizer.param_groups for parameter in group["params"]}
    own = {id(parameter) for parameter in manager.model.parameters()}
    if held != own:
        return failed(f"the optimizer holds {len(own & held)} of the model's {len(own)} and others", session.line)
    if getattr(manager.scheduler, "optimizer", None) is not manager.optimizer:
        return failed("the schedule is of another optimizer than the manager's", session.line)
    before = [parameter.detach().clone() for parameter in manager.model.parameters()]
    session.step()
    if all(map(torch.equal, before, manager.model.parameters())):
        return failed("an update leaves the model as it was", session.line)
    return passed(f"{len(own)} parameters")


@check(task=2, prop="a full run raises nothing and makes as many updates as planned, the last at the floor")
@managing
def full_runs_end_at_the_floor(session: Session) -> Cases:
    for rows, plan in (*PLANS[:5], PLANS[6], (20, SHORT | {"epochs": 2, "accum_steps": 3})):
        plan = plan | {"lr": 0.003}
        try:
            session.init(rows, plan)
        except (TypeError, RequestFailed):
            if "accum_steps" in plan:  # this manager does not accumulate
                continue
            raise
        yield from trains(session, updates_of(rows, plan), 0.003)
    for given in (None, {"epochs": 3}):  # what the tree's own plan is, its updates tell
        session.init(37, given)
        session.rates.clear()
        session.ask("train")
        yield session.plans(len(session.rates))


@check(task=2, prop="a full run after scale_up or download is a whole OneCycle too, from its start to the floor")
@managing
def later_runs_are_whole_cycles(session: Session) -> Cases:
    session.init(37, SHORT)
    session.step()
    for dimension, plan in (("width", LONG), ("layers", {"epochs": 1}), ("length", SHORT)):
        session.ask("scale_up", dimension, plan=plan)
        yield from trains(session, updates_of(37, LONG | plan), (LONG | plan)["lr"])
    session.init(37, SHORT)
    for _ in range(5):
        session.step()
    session.ask("save", "part")
    session.ask("train")
    session.ask("download", "part", session.data[:37])
    yield from trains(session, updates_of(37, SHORT), SHORT["lr"])
    session.ask("download", "part", session.data[:37], plan={"extra_steps": 3, "lr": 0.001})
    yield from trains(session, updates_of(37, SHORT | {"extra_steps": 3}), 0.001)


def trains(session: Session, updates: int, peak: float) -> Cases:
    """Whether the plan, carried out, is a OneCycle of so many updates."""
    yield session.plans(updates)
    yield session.follows(session.cycle(updates, peak), lambda: session.ask("train"))


@check(task=2, prop="requests for single updates follow one OneCycle, whatever is asked between them")
@managing
def requests_share_one_cycle(session: Session) -> Cases:
    session.init(37, SHORT)
    rates = session.cycle(updates_of(37, SHORT), SHORT["lr"])

    def ask_all() -> None:
        for update in range(len(rates)):
            session.step(1 + update % 9)
            session.ask("status")
            session.ask("infer", session.data[:1])
            session.ask("save", "part")

    yield session.follows(rates, ask_all)


@check(task=2, prop="requests beyond the plan raise nothing, and stay at the floor")
@managing
def requests_beyond_the_plan_stay_at_the_floor(session: Session) -> Cases:
    for path in ("init", "scale_up", "download"):
        session.init(3, SHORT | {"epochs": 2})
        if path == "scale_up":
            session.ask("scale_up", "layers")
        if path == "download":
            session.ask("save", "one")
            session.ask("download", "one", session.data[:3])
        rates = session.cycle(4, SHORT["lr"])
        yield session.follows(rates + 9 * rates[-1:], lambda: overrun(session, 9))


def overrun(session: Session, times: int) -> None:
    """Carry the plan out, and ask for more updates."""
    session.ask("train")
    for _ in range(times):
        session.step()


@check(task=2, prop="the dashboard's requests plan the same, each by its own plan")
@managing
def dashboard_plans_what_is_asked(session: Session) -> Cases:
    app = import_from(session.tree, DASHBOARDS, "create_app")(session.manager)
    client = app.test_client()
    headers = {"Authorization": f"Bearer {app.config.get('TOKEN')}"}  # which a dashboard without a token ignores

    def post(name: str, /, **body: Any) -> None:
        answer = client.post(f"/{name}", json=body, headers=headers)
        if answer.status_code != HTTPStatus.OK:
            raise RequestFailed(f"POST /{name} is answered with {answer.status}: {answer.get_data(as_text=True)}")

    yield from asked_through(session, post)


@check(task=2, prop="the MCP server's tools plan the same, each by its own plan")
@managing
def mcp_server_plans_what_is_asked(session: Session) -> Cases:
    server = import_from(session.tree, SERVERS, "build_server")(session.manager)

    def call(name: str, /, **arguments: Any) -> None:
        try:
            asyncio.run(server.call_tool(name, arguments))
        except Exception as error:
            raise RequestFailed(f"the tool {name} fails: {error}") from error

    yield from asked_through(session, call)


def asked_through(session: Session, send: Callable[..., object]) -> Cases:
    """Make, train, save, grow and take up a model by requests with plans of their own."""

    def ask(name: str, /, **body: Any) -> None:
        session.calls.append(f"{name} {body}")
        send(name, **body)

    session.calls = ["these requests, one after the other: "]
    text = "".join(chr(97 + at % 26) for at in range(74))  # 37 rows: 2 bytes of 9 bits each
    ask("init", text=text, config=CONFIG, plan=SHORT)
    yield session.plans(updates_of(37, SHORT))
    yield session.follows(session.cycle(updates_of(37, SHORT), SHORT["lr"]), lambda: ask("train"))
    ask("save", name="one")
    ask("scale_up", dimension="width", plan={"epochs": 40, "batch_size": 5})
    yield session.plans(updates_of(37, SHORT | {"epochs": 40, "batch_size": 5}))
    ask("download", name="one", text=text[:42], plan={"batch_size": 2})
    taken = SHORT | {"batch_size": 2}
    yield session.plans(updates_of(21, taken))
    rates = session.cycle(updates_of(21, taken), SHORT["lr"])[:5]

    def ask_for_each() -> None:
        for _ in rates:
            ask("train_step", text=text[:8])

    yield session.follows(rates, ask_for_each)
    ask("download", name="one")
    yield session.plans(updates_of(37, SHORT))
