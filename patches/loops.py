"""Recognise a training loop: its micro-batches, the parts of an update, the totals of its schedules."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from .edits import BARE_EQUAL, expression, insert_item
from .matchers import calls_builtin, elements, followed, is_inside, is_method, operation
from .reading.frames import Reading
from .reading.updates import DEEP, Update, calls_of, strays, updates_of_runs
from .source import Source
from .task import BitpatchError, Edit, Finding, mend, mended, near_miss
from .tree import TRAIN_LOOP, SourceTree

CLOCK = "global_step"  # counts optimizer updates
PLANNED = "planned_updates"


@dataclass(frozen=True, slots=True)
class Iteration:
    """The parts of `for item in items`, taken out of an enumerate if there is one."""

    items: cst.BaseExpression
    item: cst.BaseExpression
    counted: bool


def iteration(source: Source, loop: cst.For) -> Iteration | None:
    """What a loop goes through; None where an enumerate's target is not a pair."""
    if not calls_builtin(source, loop.iter, "enumerate"):
        return Iteration(loop.iter, loop.target, counted=False)
    pair = elements(loop.target)
    assert isinstance(loop.iter, cst.Call)
    is_pair = len(pair) == 2 and bool(loop.iter.args)  # noqa: PLR2004
    return Iteration(loop.iter.args[0].value, pair[1], counted=True) if is_pair else None


def counts(source: Source, items: cst.BaseExpression) -> bool:
    """Whether what a loop goes through are numbers: a range, an arange or a randperm, perhaps in a progress bar."""
    items = followed(source, items)
    if calls_builtin(source, items, "range"):
        return True
    made = operation(source, items)
    if made is not None and made.name in ("arange", "randperm"):
        return True
    is_wrapper = isinstance(items, cst.Call) and isinstance(items.func, cst.Name) and bool(items.args)
    return is_wrapper and counts(source, items.args[0].value)  # type: ignore[attr-defined]


def is_only_indexed(source: Source, loop: cst.For, item: cst.BaseExpression) -> bool:
    """Whether a loop's item is a record whose fields are taken: `sample[0]`, `sample["bits"]`."""
    uses = [use for use in source.uses(loop.body) if isinstance(item, cst.Name) and use.value == item.value]
    return bool(uses) and all(_is_field(source, use) for use in uses)


def _is_field(source: Source, use: cst.Name) -> bool:
    parent = source.parents[use]
    if not isinstance(parent, cst.Subscript) or parent.value is not use or len(parent.slice) != 1:
        return False
    index = parent.slice[0].slice
    return isinstance(index, cst.Index) and isinstance(index.value, (cst.Integer, cst.SimpleString))


def steppers(source: Source, function: cst.FunctionDef) -> set[str]:
    """The optimizers, schedulers and scalers of a function, as they are written where they step."""
    calls = [call for call in source.walk(cst.Call, inside=function) if isinstance(call.func, cst.Attribute)]
    found = {source.code(call.func.value) for call in calls if is_method(call, "zero_grad", "get_last_lr", "scale")}  # type: ignore[attr-defined]
    for assign in source.walk(cst.Assign, inside=function):
        made, target = assign.value, assign.targets[0].target
        names = {source.code(part) for part in elements(target) or [target]}
        name = source.names.qualified(made.func) or source.code(made.func) if isinstance(made, cst.Call) else ""
        is_made = name.startswith("torch.optim") or name.endswith("configure_optimizer")
        given = [source.code(argument.value) for argument in made.args] if isinstance(made, cst.Call) else []
        if is_made or (len(names) > 1 and names & found) or (found & set(given) and "sched" in name.lower()):
            found |= names
    return found


def is_update(source: Source, statement: cst.CSTNode, receivers: set[str]) -> bool:
    """Whether a statement is part of an optimizer update: clip, step, zero_grad, or a scheduler's step under an if."""
    if isinstance(statement, cst.If):
        lines = [statement.body] if isinstance(statement.body, cst.SimpleStatementSuite) else statement.body.body
        is_optimizers = "zero_grad" in source.code(statement) or "backward" in source.code(statement)
        return statement.orelse is None and not is_optimizers and all(is_update(source, s, receivers) for s in lines)
    if not isinstance(statement, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
        return False
    return all(_is_part(source, small, receivers) for small in statement.body)


def _is_part(source: Source, small: cst.CSTNode, receivers: set[str]) -> bool:
    if isinstance(small, cst.AugAssign):
        return source.code(small.target) == CLOCK
    if not isinstance(small, (cst.Expr, cst.Assign, cst.AnnAssign)) or small.value is None:
        return False
    if _clips(source, small.value):
        return True
    is_call = isinstance(small, cst.Expr) and is_method(small.value, "step", "zero_grad", "unscale_", "update")
    return is_call and (is_method(small.value, "zero_grad") or source.code(small.value.func.value) in receivers)  # type: ignore[attr-defined]


def _clips(source: Source, node: cst.CSTNode) -> bool:
    made = operation(source, node)
    return made is not None and made.name.startswith("clip_grad")


def update_parts(source: Source, statement: cst.CSTNode, receivers: set[str]) -> Iterator[cst.CSTNode]:
    """What belongs to an update in a statement that is none: a step in a branch, a clip in a sum, gradients by hand."""
    for node in source.walk(cst.CSTNode, inside=statement):  # type: ignore[type-abstract]
        if isinstance(node, cst.Attribute) and node.attr.value in ("grad", "param_groups"):
            yield node
        if _clips(source, node):
            yield node
        if is_method(node, "step", "zero_grad", "unscale_"):
            owner = source.code(node.func.value)  # type: ignore[attr-defined]
            if owner in receivers or is_method(node, "zero_grad") or not _is_profiler(source, node, owner):
                yield node


def _is_profiler(source: Source, step: cst.CSTNode, name: str) -> bool:
    items = source.walk(cst.WithItem, inside=source.function(step))
    opened = {source.code(item.asname.name) for item in items if item.asname is not None}
    return name in opened or "prof" in name


def touches(source: Source, statement: cst.CSTNode, receivers: set[str]) -> bool:
    """Whether a statement hands a whole model, or what steps it, to something that might change gradients."""
    handed = [source.code(argument.value) for call in source.walk(cst.Call, inside=statement) for argument in call.args]
    return bool({"model", *receivers} & set(handed)) or any(text.endswith(".parameters()") for text in handed)


def leaves(source: Source, loop: cst.For) -> Iterator[cst.CSTNode]:
    """The statements that leave a turn of a loop before its end."""
    for node in source.walk(cst.CSTNode, inside=loop.body):  # type: ignore[type-abstract]
        is_jump = isinstance(node, (cst.Continue, cst.Break))
        is_return = isinstance(node, cst.Return)
        if (is_jump and source.enclosing(node, cst.For, cst.While) is loop) or (
            is_return and source.function(node) is source.function(loop)
        ):
            yield node


def used_outside(source: Source, statements: list[cst.CSTNode]) -> cst.Name | None:
    """A use, outside of some statements, of a name that they set."""
    kinds = (cst.Assign, cst.AnnAssign)
    assigns = [node for statement in statements for kind in kinds for node in source.walk(kind, inside=statement)]
    for assign in assigns:
        target = assign.targets[0].target if isinstance(assign, cst.Assign) else assign.target  # type: ignore[attr-defined]
        for use in source.uses(source.function(assign)):
            is_same = isinstance(target, cst.Name) and use.value == target.value
            if is_same and not any(is_inside(source, use, statement) for statement in statements):
                return use
    return None


def schedule_totals(source: Source, function: cst.FunctionDef) -> Iterator[tuple[cst.BaseExpression, bool]]:
    """The totals that a function gives to schedules, and whether each is that of one epoch."""
    for call in source.walk(cst.Call, inside=function):
        if source.enclosing(call, cst.For, cst.While) is not None:
            continue
        for argument in call.args:
            name = argument.keyword.value if argument.keyword is not None else ""
            if name in ("total_steps", "T_max", "steps_per_epoch"):
                yield argument.value, name == "steps_per_epoch"
        is_positional = len(call.args) == 4 and call.args[3].keyword is None  # noqa: PLR2004
        if is_positional and source.code(call.func).endswith("configure_optimizer"):
            yield call.args[3].value, False


def planned_totals(
    source: Source, given: Source, function: cst.FunctionDef, option: str, text: str = ""
) -> Iterator[Finding]:
    """Let a function's schedules go by planned_updates(epochs, micro-batches, ...) that knows an option, or none.

    `text` is how the function writes the option, if not by its name.
    """
    text = text or option
    totals = list(schedule_totals(source, function))
    for total, is_of_an_epoch in totals:
        made = total if is_of_an_epoch else followed(source, total)
        site = source.site(made, "total of the schedule")
        planned = next((call for call in source.walk(cst.Call, inside=made) if source.code(call.func) == PLANNED), None)
        product = made if is_of_an_epoch else _product_with_range(source, function, made)
        if planned is not None:
            yield _told(source, given, planned, option, text)
        elif reads(source, made, option):
            is_each_epochs = option != "extra_steps" or _product_with_range(source, function, made) is not None
            problem = f"{site.note}, but {option} counts outside of the product with the epochs: put it into it"
            yield mended(site) if is_each_epochs or is_of_an_epoch else near_miss(replace(site, note=problem))
        elif product is None:
            yield near_miss(replace(site, note=f"{site.note}, but no product of epochs and steps of an epoch"))
        else:
            yield mend(
                site,
                [Edit(source, product, _planning(source, product, (option, text), _range_lengths(source, function)))],
            )
    schedules = [call for call in source.walk(cst.Call, inside=function) if "sched" in source.code(call.func).lower()]
    if not totals:
        place = schedules[0] if schedules else function.name
        yield near_miss(source.site(place, "schedule, but no total of it that could be planned"))


def reads(source: Source, node: cst.CSTNode, name: str) -> bool:
    """Whether an expression is made of a name, through any number of names."""
    if not name:
        return False
    for use in source.uses(node):
        made = followed(source, use)
        if use.value == name or (made is not use and reads(source, made, name)):
            return True
    return False


def _told(source: Source, given: Source, planned: cst.Call, option: str, text: str) -> Finding:
    """Tell planned_updates an option, in the order of its parameters."""
    site = source.site(planned, f"planned updates, {option}")
    order = [param.name.value for param in function_named(given, PLANNED).params.params]
    named = [argument.keyword.value if argument.keyword is not None else "" for argument in planned.args]
    if not option or option in named or named.count("") > order.index(option) or reads(source, planned, option):
        return mended(site)
    later = [at for at, name in enumerate(named) if name in order[order.index(option) :]]
    new = cst.Arg(keyword=cst.Name(option), value=expression(source, text), equal=BARE_EQUAL)

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        place = later[0] if later else len(updated.args)
        args = insert_item(updated.args, place, new, enclosed=updated.whitespace_before_args)
        return updated.with_changes(args=args)

    return mend(site, [Edit(source, planned, change)])


def training_function(tree: SourceTree) -> tuple[Source, cst.FunctionDef, Reading] | None:
    """The function whose own loop goes through micro-batches: train_loop, or the only one in which a run learns."""
    source = tree.training
    file = tree.code.files.file(source.path) if source is not None else None
    if source is not None and file is not None:
        named = [each for each in file.functions if each[0].name == TRAIN_LOOP and each[1] is None]
        if any(isinstance(each, ast.Attribute) and each.attr == "backward" for each in ast.walk(named[-1][0])):
            return source, function_named(source, TRAIN_LOOP), tree.code.reading(file, *named[-1], deepest=DEEP)
    updates = updates_of_runs(tree.code)
    near = list({each.reading.node: each.reading for each in updates}.values())
    if len(near) != 1 or not all(map(_has_loop, updates)) or (file is not None and near[0].file is not file):
        return None
    source = tree.source(near[0].file.path)
    return source, source.at(near[0].node), near[0]  # type: ignore[arg-type, return-value]


def _has_loop(update: Update) -> bool:
    """Whether an update's own scope is a function, with a `for` loop in which the backward stands."""
    around = list(update.reading.file.ancestors(update.backward))
    inside = around[: around.index(update.reading.node)]
    is_function = isinstance(update.reading.node, ast.FunctionDef)
    return is_function and any(isinstance(each, ast.For) for each in inside)


def strayed(tree: SourceTree) -> Iterator[Finding]:
    """Why the backward calls of a tree have no training loop to patch."""
    updates = updates_of_runs(tree.code)
    for update in updates:
        site = tree.source(update.reading.file.path).site(update.backward, "backward call")
        many = f", one of {len(updates)} updates: expected one" if len(updates) > 1 else ""
        yield near_miss(
            replace(site, note=f"backward call, but in no `for` loop of a function over micro-batches{many}")
        )
    yield from strayed_backwards(tree)


def strayed_backwards(tree: SourceTree) -> Iterator[Finding]:
    """The backward calls of a tree in which no run learns."""
    for file, node, why in strays(tree.code):
        yield near_miss(tree.source(file.path).site(node, f"backward call, but {why}"))


def scheduling_function(tree: SourceTree, source: Source, reading: Reading) -> cst.FunctionDef:
    """The function that makes the schedule of a run: the one with its loop, its class's constructor or a caller."""
    own = source.at(reading.node)  # type: ignore[arg-type]
    assert isinstance(own, cst.FunctionDef)
    if next(schedule_totals(source, own), None) is not None:
        return own
    nodes = [reading.node, *getattr(reading.owner, "body", ())]
    nodes += [caller.node for caller, _ in calls_of(tree.code, reading.node) if caller.file is reading.file]  # type: ignore[arg-type]
    functions = [source.at(each) for each in dict.fromkeys(nodes) if isinstance(each, ast.FunctionDef)]
    made = [each for each in functions if isinstance(each, cst.FunctionDef) and list(schedule_totals(source, each))]
    return made[0] if made else functions[0]  # type: ignore[return-value]


def function_named(source: Source, name: str) -> cst.FunctionDef:
    """The function of a name at a file's top."""
    found = source.names.top_level(name)[-1].node
    if not isinstance(found, cst.FunctionDef):
        site = source.site(found, f"{name} is set again: leave it a function, decorated if need be")
        raise BitpatchError(str(site))
    return found


def trained_model(source: Source, function: cst.FunctionDef) -> str | None:
    """The parameter of a function that is the model: the one of that name, or the one whose parameters are taken."""
    every = function.params
    names = [param.name.value for param in (*every.posonly_params, *every.params, *every.kwonly_params)]
    called = {source.code(call.func) for call in source.walk(cst.Call, inside=function)}
    is_model = [
        name
        for name in names
        if called & {f"{name}.parameters", f"{name}.train", f"{name}.forward", f"{name}.forward_compressed"}
    ]
    return next((name for name in ["model", *is_model] if name in names), None)


def taken_name(
    source: Source, function: cst.FunctionDef, options: Sequence[str] = (), inserted: Sequence[str] = ()
) -> cst.CSTNode | None:
    """Where a function gives its own meaning to a name that is to be an option, or looked up at the file's top.

    An option that is a parameter already is none of these.
    """
    inside = function.body.body[0]
    for name in (*options, *inserted):
        for binding in source.names.bindings(name, inside):
            is_local = is_inside(source, binding.node, function) and not isinstance(binding.node, cst.Param)
            is_used = name in options and any(use.value == name for use in source.uses(function.body))
            is_outer = not is_inside(source, binding.node, function)
            if is_local or (is_outer and is_used):
                return binding.node
    return None


def _planning(
    source: Source, product: cst.BaseExpression, option: tuple[str, str], lengths: set[str]
) -> Callable[[cst.CSTNode], cst.CSTNode]:
    """Make planned_updates(epochs, steps, option=option) of `epochs * steps`, or of the steps of one epoch."""
    is_first = isinstance(product, cst.BinaryOperation) and source.code(product.left) in lengths

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        epochs, steps = "1", updated
        if isinstance(updated, cst.BinaryOperation) and (is_first or source.code(updated.right) in lengths):
            epochs = source.code(updated.left if is_first else updated.right)
            steps = updated.right if is_first else updated.left
        bare = source.code(steps.with_changes(lpar=(), rpar=()))
        more = f", {option[0]}={option[1]}" if option[0] else ""
        return expression(source, f"{PLANNED}({epochs}, {bare}{more})")

    return change


def _range_lengths(source: Source, function: cst.FunctionDef) -> set[str]:
    """The ends of the ranges that a function's loops go through, as they are written."""
    ranges = [c for loop in source.walk(cst.For, inside=function) for c in source.walk(cst.Call, inside=loop.iter)]
    return {source.code(c.args[:2][-1].value) for c in ranges if calls_builtin(source, c, "range") and c.args}


def _product_with_range(
    source: Source, function: cst.FunctionDef, node: cst.BaseExpression
) -> cst.BinaryOperation | None:
    """A product with the length of one of the function's ranges; `max(1, epochs * steps)` is seen through."""
    if isinstance(node, cst.Call) and (calls_builtin(source, node, "max") or calls_builtin(source, node, "int")):
        inner = [argument.value for argument in node.args if not isinstance(argument.value, cst.Integer)]
        return _product_with_range(source, function, inner[0]) if len(inner) == 1 else None
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Multiply):
        is_with_range = _range_lengths(source, function) & {source.code(node.left), source.code(node.right)}
        return node if is_with_range else None
    return None


def without_loop(source: Source, function: cst.FunctionDef) -> Iterator[Finding]:
    """Why a function has no training loop to patch: where each of its backward calls is, or that there is none."""
    calls = [call for call in source.walk(cst.Call, inside=function) if is_method(call, "backward")]
    if not calls:
        yield near_miss(source.site(function.name, f"{function.name.value}, but it makes no backward call itself"))
    for call in calls:
        problem = "in no `for` loop over micro-batches"
        many = f"one of {len(calls)} in {function.name.value}, each an update of its own perhaps: expected one"
        yield near_miss(source.site(call, f"backward call, but {many if len(calls) > 1 else problem}"))


def training_loop(source: Source, function: cst.FunctionDef) -> tuple[cst.For, cst.Call] | None:
    """The loop over micro-batches of a function, and its one backward call; None where there is not one."""
    calls = [call for call in source.walk(cst.Call, inside=function) if is_method(call, "backward")]
    loop = source.enclosing(calls[0], cst.For) if len(calls) == 1 else None
    return (loop, calls[0]) if loop is not None else None


def outermost_loop(source: Source, loop: cst.For) -> cst.For | cst.While:
    """The loop over epochs around a loop over micro-batches, or that loop itself."""
    return [each for each in (loop, *source.ancestors(loop)) if isinstance(each, (cst.For, cst.While))][-1]


def optimizer_step(source: Source, loop: cst.For) -> cst.Call | None:
    """The call in a loop that makes an optimizer update, and not a scheduler's step."""
    calls = [call for call in source.walk(cst.Call, inside=loop) if is_method(call, "step")]
    zeroing = [call for call in source.walk(cst.Call, having=("zero_grad",)) if is_method(call, "zero_grad")]
    zeroed = {source.code(call.func.value) for call in zeroing}  # type: ignore[attr-defined]
    steps = [call for call in calls if source.code(call.func.value) in zeroed]  # type: ignore[attr-defined]
    steps = steps or [call for call in calls if "opt" in source.code(call.func.value)]  # type: ignore[attr-defined]
    return steps[0] if len(steps) == 1 else None
