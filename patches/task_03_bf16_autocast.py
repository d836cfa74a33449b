"""Run forward and loss in bfloat16, where `--amp bf16` asks for it.

The forward and the loss of a micro-batch go under torch.amp.autocast on the model's device; backward,
clip and step stay outside, and the loss is computed from float32 logits. bfloat16 has the exponents
of float32, so there is no gradient scaler.

Contract: extends. With amp="off", the default, nothing is entered and nothing is cast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from .donor import definitions, donor, forwarded, option, parameter
from .edits import move_under, rewrite
from .loops import assigned_names, function_named, taken_name, trained_model, training_loop, without_loop
from .matchers import is_method
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

VIEWS = ("flatten", "view", "reshape", "transpose", "permute", "squeeze", "contiguous", "unflatten")
AMP, CONTEXT, WIDEN = "amp", "autocast", "at_least_float32"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The forward and the loss of a micro-batch, and the way of the option to them."""
    source, given = tree.training, donor("bit_transformer/training.py")
    if source is None:
        return
    function = function_named(source, "train_loop")
    found = training_loop(source, function)
    if found is None:
        yield from without_loop(source, function)
        return
    opened = [item for item in source.walk(cst.WithItem, inside=function) if "autocast" in source.code(item.item)]
    ours = [item for item in opened if isinstance(item.item, cst.Call) and source.code(item.item.func) == CONTEXT]
    if opened and not ours:
        told = any(use.value == AMP for use in source.uses(function.body))
        yield (
            mended(source.site(opened[0], "autocast in an idiom of its own"))
            if told
            else near_miss(source.site(opened[0], f"autocast, but no {AMP} that turns it on: take it out, or tell it"))
        )
        return
    model, params = trained_model(source, function), (*function.params.params, *function.params.kwonly_params)
    if model is None:
        yield near_miss(source.site(function.name, "train_loop, but which parameter is the model cannot be told"))
        return
    if ours:
        yield mended(source.site(ours[0], "autocast of forward and loss"))
    else:
        own = [param for param in params if param.name.value == AMP]
        taken = taken_name(source, function, [AMP], [CONTEXT, WIDEN]) or (own[0] if own else None)
        brought = _under_autocast(source, function, *found, model)
        if taken is not None:
            yield near_miss(source.site(taken, "a name that the patch gives train_loop has another meaning: rename it"))
            yield from () if brought.edits else (brought,)
            return
        yield brought
    yield parameter(source, given, "train_loop", AMP)
    yield from option(source, given, f"--{AMP}")
    yield from forwarded(source, given, "train_loop", AMP)
    yield definitions(source, given, CONTEXT, WIDEN, "AMP")


def _under_autocast(
    source: Source, function: cst.FunctionDef, loop: cst.For, backward: cst.Call, model: str
) -> Finding:
    assert isinstance(backward.func, cst.Attribute)
    statements = list(loop.body.body)
    place = next(
        at
        for at, each in enumerate(statements)
        if each is source.statement(backward) or backward_in(source, each, backward)
    )
    losses = {use.value for use in source.uses(backward.func.value)}
    ends = [at for at, each in enumerate(statements[:place]) if losses & assigned_names(source, each)]
    starts = [at for at, each in enumerate(statements[:place]) if _runs(source, each, model)]
    if not ends or not starts or starts[0] > ends[-1]:
        return near_miss(source.site(backward, "backward call, but no forward and loss as statements before it"))
    moved = statements[starts[0] : ends[-1] + 1]
    site = source.site(moved[0], "forward and loss")
    device = _device(source, function, model)
    widened = list(_widened(source, moved, model))
    if not widened:
        return near_miss(source.site(moved[-1], "loss, but which of its operands are the logits cannot be told"))
    return mend(site, [*move_under(source, [f"with {CONTEXT}({device}, {AMP}):"], moved), *widened])


def backward_in(source: Source, statement: cst.CSTNode, backward: cst.Call) -> bool:
    """Whether a backward call stands in a statement."""
    return statement in source.ancestors(backward)


def _runs(source: Source, statement: cst.CSTNode, model: str) -> bool:
    """Whether a statement calls the model, or hands it to a function."""
    return any(_is_forward(source, call, model) for call in source.walk(cst.Call, inside=statement))


def _is_forward(source: Source, call: cst.Call, model: str) -> bool:
    if is_method(call, "forward", "forward_compressed", "__call__"):
        return source.code(call.func.value) == model  # type: ignore[attr-defined]
    given = [source.code(argument.value) for argument in call.args]
    return source.code(call.func) == model or model in given


def _device(source: Source, function: cst.FunctionDef, model: str) -> str:
    """The model's device, by the name that train_loop has for it."""
    plain = f"next({model}.parameters()).device"
    for assign in source.walk(cst.Assign, inside=function):
        target = assign.targets[0].target
        is_one = isinstance(target, cst.Name) and len(source.names.bindings(target.value, target)) == 1
        if is_one and source.code(assign.value) in (plain, f"{model}.device"):
            return source.code(target)
    return plain


def _widened(source: Source, statements: Sequence[cst.CSTNode], model: str) -> Iterator[Edit]:
    """Widen the logits, what comes first of a forward, where anything but another view is made of them."""
    logits: set[str] = set()
    for statement in statements:
        runs = _runs(source, statement, model)
        for assign in source.walk(cst.Assign, inside=statement):
            target = assign.targets[0].target
            first = target.elements[0].value if isinstance(target, cst.Tuple) else target
            if isinstance(first, cst.Name) and (_runs(source, assign, model) or _is_view(assign.value, logits)):
                logits.add(first.value)
                runs = True
        for use in source.uses(statement) if not runs else ():
            taken = _tensor(source, use)
            if use.value in logits and taken is not None and not isinstance(source.parents[use], cst.AssignTarget):
                yield rewrite(source, taken, lambda code: f"{WIDEN}({code})")


def _is_view(node: cst.BaseExpression, logits: set[str]) -> bool:
    """Whether an expression only shapes anew what a name holds: `logits[:, :-1].flatten(0, 1)`."""
    while not isinstance(node, cst.Name):
        if is_method(node, *VIEWS):
            node = node.func.value  # type: ignore[attr-defined]
        elif isinstance(node, cst.Subscript):
            node = node.value
        else:
            return False
    return node.value in logits


def _tensor(source: Source, use: cst.Name) -> cst.BaseExpression | None:
    """What is a tensor of a use of a forward's result: itself, its first part, or its field of logits."""
    parent = source.parents[use]
    if isinstance(parent, cst.Attribute):
        if parent.attr.value in ("shape", "size", "device", "dtype"):
            return None
        is_field = not isinstance(source.parents[parent], cst.Call) and parent.attr.value not in ("T", "mT")
        return (parent if parent.attr.value == "logits" else None) if is_field else use
    if isinstance(parent, cst.Subscript) and parent.value is use and len(parent.slice) == 1:
        index = source.code(parent.slice[0].slice).strip("\"'")
        is_field = isinstance(parent.slice[0].slice, cst.Index)
        return (parent if index in ("0", "logits") else None) if is_field else use
    return use


task = Task(
    number=3,
    slug="bf16-autocast",
    title="BF16 autocast",
    contract=Contract.EXTENDS,
    summary="--amp bf16 runs forward and loss in bfloat16; parameters, gradients and the loss stay float32",
    why=__doc__,
    sought="a forward and a loss as statements before the backward call of train_loop's loop",
    find=find,
)
