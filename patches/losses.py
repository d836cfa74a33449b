"""Recognise what a training loss is a mean over: the targets of its cross-entropy, but for those that it ignores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import libcst as cst

from .edits import operand
from .matchers import LAYOUTS, elements, followed, is_method, operation
from .members import assignments
from .source import Source

COUNT, IGNORED = "scored_bits", "IGNORED"
MEANS, MODULES = ("cross_entropy", "nll_loss"), ("CrossEntropyLoss", "NLLLoss")
PADS = re.compile(r"\b(ignore_index|masked_fill|pad_sequence|pad_rows|IGNORED)\b")

Bound = Mapping[str, cst.BaseExpression]  # the arguments of a function, by its parameters


def scored(source: Source, loss: cst.BaseExpression, loop: cst.For, batch: str) -> tuple[str, str]:
    """Code that counts what a loss is a mean over, and what forbids to count it.

    A loss that is not seen to be a cross-entropy is taken for a mean over rows, unless the file pads them.
    """
    found = list(dict.fromkeys(_count(source, *each) for each in _entropies(source, loss, loop)))
    problems = [problem for _, problem in found if problem]
    if len(found) > 1 and not problems:
        problems = [f"it is made of several means, over {' and '.join(text for text, _ in found)}: give them one"]
    if not found and PADS.search(source.module.code):
        problems = ["rows are padded here, and it is not seen which targets it is a mean over: call cross_entropy here"]
    if problems:
        return "", problems[0]
    return (f"{COUNT}({found[0][0]})" if found else f"len({batch})"), ""


def _entropies(source: Source, loss: cst.BaseExpression, loop: cst.For) -> Iterator[tuple[cst.Call, Bound]]:
    """The cross-entropies that a loss is made of, here or in a function of the file that is called here."""
    pending, followed_names = [loss], set[str]()
    while pending:
        value = pending.pop()
        for call in source.walk(cst.Call, inside=value):
            if _targets(source, call) is not None:
                yield call, {}
                continue
            defined = source.names.top_level(call.func.value) if isinstance(call.func, cst.Name) else []
            function = defined[-1].node if defined else None
            if isinstance(function, cst.FunctionDef):
                inner = source.walk(cst.Call, inside=function.body)
                yield from ((each, _bound(function, call)) for each in inner if _targets(source, each) is not None)
        for use in source.uses(value):
            if use.value not in followed_names:
                followed_names.add(use.value)
                pending += _assigned(source, loop, use.value)


def _assigned(source: Source, loop: cst.For, name: str) -> Iterator[cst.BaseExpression]:
    """What a loop gives a name, on whatever way; of a tuple all of it."""
    for target, value, node in assignments(source, loop.body):
        if isinstance(target, cst.Name) and target.value == name:
            yield value if value is not None else node.value  # type: ignore[attr-defined]


def _targets(source: Source, call: cst.Call) -> tuple[cst.BaseExpression, dict[str, cst.BaseExpression]] | None:
    """The targets of a cross-entropy, and its settings; None of any other call."""
    made = operation(source, call)
    if made is not None and made.name in MEANS and not made.is_method:
        target = made.argument(1, "target")
        return (target, made.keywords) if target is not None else None
    module = followed(source, call.func)
    kind = source.names.qualified(module.func) if isinstance(module, cst.Call) else None
    if kind is None or kind.split(".")[-1] not in MODULES or len(call.args) < 2:  # noqa: PLR2004 - logits and targets
        return None
    settings = {each.keyword.value: each.value for each in module.args if each.keyword is not None}  # type: ignore[attr-defined]
    return call.args[1].value, settings


def _bound(function: cst.FunctionDef, call: cst.Call) -> Bound:
    names = [param.name.value for param in (*function.params.posonly_params, *function.params.params)]
    placed = [argument.value for argument in call.args if argument.keyword is None]
    named = {argument.keyword.value: argument.value for argument in call.args if argument.keyword is not None}
    return dict(zip(names, placed, strict=False)) | named


def _count(source: Source, call: cst.Call, bound: Bound) -> tuple[str, str]:
    """The targets of a cross-entropy, in terms of the loop, and what forbids to count them."""
    found = _targets(source, call)
    assert found is not None
    targets, settings = found
    reduction = source.code(settings["reduction"]).strip("'\"") if "reduction" in settings else "mean"
    if reduction != "mean" or "weight" in settings:
        return "", "it is no plain mean over its targets"
    if not _ignores_padding(source, settings.get("ignore_index")):
        return "", f"it ignores other targets than {IGNORED}: give them that name"
    targets = _laid_out(source, targets, bound)
    for use in list(source.uses(targets)) if bound else []:
        if use.value in bound:
            if [binding.node for binding in source.names.bindings(use.value, use)][1:]:
                return "", f"its targets are made in {_name(source, call)}: hand them to it"
            targets = targets.deep_replace(use, cst.parse_expression(operand(source, bound[use.value])))
        elif source.names.bindings(use.value, use) is not source.names.top_level(use.value):
            return "", f"its targets are made in {_name(source, call)}: hand them to it"
    return source.code(targets), ""


def _name(source: Source, call: cst.Call) -> str:
    function = source.function(call)
    return function.name.value if function is not None else "the file"


def _laid_out(source: Source, targets: cst.BaseExpression, bound: Bound) -> cst.BaseExpression:
    """Targets without what only lays them out anew; of a function's own name for them, what it was given."""
    while True:
        if is_method(targets, *LAYOUTS, "long"):
            targets = targets.func.value  # type: ignore[attr-defined]
            continue
        made = source.names.value(targets) if bound else None
        if made is None or elements(made) or (isinstance(targets, cst.Name) and targets.value in bound):
            return targets
        targets = made


def _ignores_padding(source: Source, ignored: cst.BaseExpression | None) -> bool:
    """Whether what a cross-entropy ignores is what the file calls so; torch ignores -100 if it is not told."""
    named = source.names.top_level(IGNORED)
    value = source.code(named[-1].value) if named and named[-1].value is not None else "-100"
    text = "-100" if ignored is None else source.code(followed(source, ignored))
    return text in (value, IGNORED)
