"""Arguments of a training loop that reach where they act, and change nothing else. In child processes only.

Each argument of the loop's signature that is known here is changed, and what a run shows of itself is compared: what
must follow follows, and all else is as it was. The same goes for the flags of the command line, one by one.
"""

import contextlib
import inspect
import io
import logging
import sys
from collections.abc import Collection, Sequence
from typing import Any
from unittest.mock import patch

from .space import kept
from .spies import Event, Ledger
from .training_runs import Run, Stopped, command_line, planned_rows, run_command, train
from .tree import Tree
from .world import started_processes

BASE: dict[str, Any] = {"epochs": 2, "extra_steps": 1, "compress_prob": 1.0, "warmup_steps": 2, "lr": 0.01}
EACH = {"arguments", "autocast"}  # traits of which there is one a micro-batch
# By argument: another value, what must follow, and what may. What is not named may not change.
FOLLOWS: dict[str, tuple[Any, set[str], set[str]]] = {
    "epochs": (3, {"updates", "rows", "rates"}, {"forms", "arguments", "autocast"}),
    "extra_steps": (4, {"updates", "rows", "rates"}, {"forms", "arguments", "autocast"}),
    "batch_size": (5, {"rows"}, {"updates", "rates", "order", "forms", "arguments", "autocast"}),
    "accum_steps": (3, {"updates", "rates"}, {"forms", "arguments"}),
    "num_workers": (1, {"processes"}, set()),
    "compress_prob": (0.0, {"forms"}, {"arguments"}),
    "direct_prob": (1.0, {"forms"}, {"arguments"}),
    "warmup_steps": (0, {"forms"}, {"arguments"}),
    "global_step": (2, {"forms"}, {"arguments"}),
    "log": (True, {"printed"}, set()),
    "forward_kwargs": ({"causal": False}, {"arguments"}, set()),
    "lr": (0.03, {"rate"}, set()),
    "weight_decay": (0.25, {"decay"}, set()),
    "amp": ("bf16", {"autocast"}, set()),
}


def unreached(tree: Tree, ledger: Ledger, names: Sequence[str], others: dict[str, Any]) -> str:
    """What is wrong with how some arguments of the loop reach where they act, other options being on; or nothing."""
    base = {name: value for name, value in (BASE | others).items() if tree.loop_takes(name)}
    base |= {} if tree.loop_takes("batch_size") else {"extra_steps": 0}  # whose schedule does not know them: task-1
    before = traits(tree, ledger, base)
    for name in names:
        value, must, may = FOLLOWS[name]
        if not tree.loop_takes(name) or not kept(tree, name, (value,)) or base.get(name) == value:
            continue
        after = traits(tree, ledger, base | {name: value})
        moved = {trait for trait in before if before[trait] != after[trait]}
        if not moved and tree.seams.own("train") is not None and name not in tree.states:
            continue  # what no task brings, bitpatch_seams.py may leave out
        if missing := must - moved:
            return f"{name}={value!r} does not change the {', '.join(sorted(missing))} of a run with {base}"
        each = [pair for trait in must & EACH for pair in zip(before[trait], after[trait], strict=True)]
        if any(old == new for old, new in each):
            return f"{name}={value!r} does not reach every micro-batch of a run with {base}"
        if strange := moved - must - may:
            return f"{name}={value!r} changes the {', '.join(sorted(strange))} of a run with {base}"
    return ""


def traits(tree: Tree, ledger: Ledger, options: dict[str, Any]) -> dict[str, Any]:
    """What a run shows of its arguments, each in the terms of the one that should move it."""
    printed = io.StringIO()
    informed = patch.object(logging.Logger, "info", autospec=True)
    with started_processes() as processes, contextlib.redirect_stdout(printed), informed as logged:
        run = train(tree, ledger, 20 if tree.loop_takes("batch_size") else 96, light=True, **options)
    entered = [event for event in run.events if event.bits is not None]
    usual = len(planned_rows(len(run.data), run.options.get("batch_size", 8)))  # micro-batches of an epoch, none again
    peak = max(run.rates, default=0.0) or 1.0
    groups = ledger.optimizer.param_groups if ledger.optimizer else []
    return {
        "updates": len(run.updates),
        "rows": [len(bits) for bits in run.micro_batches],
        "order": [place for places in run.order[0][:usual] for place in places],
        "forms": [form_of(event, run) for event in entered],
        "rate": run.rates[0] if run.rates else None,
        "rates": [round(rate / peak, 6) for rate in run.rates],
        "decay": max((group.get("weight_decay", 0.0) for group in groups), default=0.0),
        "arguments": [event.arguments for event in entered],
        "autocast": [event.is_autocast for event in entered],
        "processes": len(processes),
        "printed": bool(printed.getvalue()) or any("torch" not in call.args[0].name for call in logged.call_args_list),
    }


def form_of(event: Event, run: Run) -> str:
    """The form in which a micro-batch entered the model."""
    known = {tuple(row) for row in run.data.tolist()}
    plain = "raw" if event.bits is not None and known.issuperset(map(tuple, event.bits.tolist())) else "direct"
    is_asked = plain == "direct" and not run.streams and not run.options.get("direct_prob")  # for nothing else
    return "compressed" if event.form == "streams" or is_asked else plain


def unreached_flags(tree: Tree, ledger: Ledger, needed: Collection[str], names: Collection[str] = ()) -> str:
    """What is wrong with how flags reach the loop's arguments of their names; those of `names` may be missing."""
    usual = looped_with(tree, ledger, [])
    if usual is None:
        return ""  # the command does not call train_loop: how it then behaves is for others to see
    for name in (*needed, *names):
        value = FOLLOWS[name][0]
        flags = [f"--{name}", str(value)]
        given = looped_with(tree, ledger, flags)
        if given is None and name in names:
            continue
        if given is None or given.get(name) != value:
            found = "nothing is trained" if given is None else f"train_loop has {name}={given.get(name)!r}"
            return f"{command_line(flags)}: {found}"
        if strange := [other for other in given if other != name and given[other] != usual.get(other)]:
            return f"{command_line(flags)}: {strange[0]}={given[strange[0]]!r}, without it {usual.get(strange[0])!r}"
    return ""


def looped_with(tree: Tree, ledger: Ledger, flags: list[str]) -> dict[str, Any] | None:
    """The options with which the command calls train_loop, which does nothing; None if it does not."""
    if tree.seams.is_told:
        return None
    loop, calls = tree.module("training").train_loop, list[dict[str, Any]]()
    signature = inspect.signature(loop)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(dict(list(bound.arguments.items())[2:]))  # but for the model and its rows
        return [{"epoch": 0, "loss": 0.0, "accuracy": 0.0}]

    places = [
        (module, name)
        for module in list(sys.modules.values())
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is loop
    ]
    for module, name in places:
        setattr(module, name, recorded)
    try:
        with contextlib.suppress(Stopped, Exception), contextlib.redirect_stderr(io.StringIO()):
            run_command(tree, ledger, flags)
    finally:
        for module, name in places:
            setattr(module, name, loop)
    return calls[0] if calls else None
