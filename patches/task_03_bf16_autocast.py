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
from .loops import assigned_names, function_named, training_loop
from .matchers import is_method
from .source import Source, SourceTree
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss

AMP, CONTEXT, WIDEN = "amp", "autocast", "at_least_float32"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The forward and the loss of a micro-batch, and the way of the option to them."""
    source, given = tree.training, donor("bit_transformer/training.py")
    if source is None:
        return
    function = function_named(source, "train_loop")
    found = training_loop(source, function)
    if found is None:
        yield near_miss(source.site(function.name, "train_loop, but without one backward call in a loop"))
        return
    yield _under_autocast(source, function, *found)
    yield parameter(source, given, "train_loop", AMP)
    yield from option(source, given, f"--{AMP}")
    yield from forwarded(source, given, "train_loop", AMP)
    yield definitions(source, given, CONTEXT, WIDEN)


def _under_autocast(source: Source, function: cst.FunctionDef, loop: cst.For, backward: cst.Call) -> Finding:
    opened = [item for item in source.walk(cst.WithItem, inside=function) if "autocast" in source.code(item.item)]
    if opened:
        return mended(source.site(opened[0], "autocast of forward and loss"))
    assert isinstance(backward.func, cst.Attribute)
    model = function.params.params[0].name.value
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
    for assign in source.walk(cst.Assign, inside=function):
        if source.code(assign.value).endswith(".device") and isinstance(assign.targets[0].target, cst.Name):
            return assign.targets[0].target.value
    return f"next({model}.parameters()).device"


def _widened(source: Source, statements: Sequence[cst.CSTNode], model: str) -> Iterator[Edit]:
    """Widen the logits where the loss takes them: what comes first of a forward, and what is made of it."""
    logits: set[str] = set()
    for statement in statements[:-1]:
        for assign in source.walk(cst.Assign, inside=statement):
            target, used = assign.targets[0].target, {use.value for use in source.uses(assign.value)}
            first = target.elements[0].value if isinstance(target, cst.Tuple) else target
            if isinstance(first, cst.Name) and (_runs(source, assign, model) or used & logits):
                logits.add(first.value)
    for use in source.uses(statements[-1]):
        parent = source.parents[use]
        is_size = isinstance(parent, cst.Attribute) and parent.attr.value in ("shape", "size", "device", "dtype")
        is_set = isinstance(parent, cst.AssignTarget)
        if use.value in logits and not is_size and not is_set:
            yield rewrite(source, use, lambda code: f"{WIDEN}({code})")


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
