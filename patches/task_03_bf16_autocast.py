"""Run forward and loss in bfloat16, where `--amp bf16` asks for it.

The forward and the loss of a micro-batch go under torch.amp.autocast on the model's device; backward,
clip and step stay outside, and the loss is computed from float32 logits. bfloat16 has the exponents
of float32, so there is no gradient scaler.

Contract: extends. With amp="off", the default, nothing is entered and nothing is cast.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .editing.donor import definitions, donor
from .editing.edits import move_under, rewrite
from .editing.options import Told, brought_to, taken, told
from .editing.replaying import replayed
from .editing.spelling import device_of
from .editing.spent import strayed_backwards
from .reading.autocast import always_on, autocasts, in_place, is_called, is_covered, logits, partial_autocast, problem
from .reading.evaluations import evaluations
from .reading.steps import unclipped
from .reading.tree import SourceTree
from .reading.turns import done_in, forward_and_loss, unmovable
from .reading.updates import Update, updates_of_runs
from .task import Contract, Finding, Task, apart, mend, mended, near_miss

MEANS = ("cross_entropy", "nll_loss")  # of which torch computes in float32 under autocast
AMP, CONTEXT, WIDEN = "amp", "autocast", "at_least_float32"
UNREACHED = "evaluation that is to run under autocast as updates do, but their amp is not seen: move it to them"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The forward and the loss of each update, and the way of the option to them."""
    given, updates = donor("bit_transformer/training.py"), updates_of_runs(tree.code)
    yield from (*strayed_backwards(tree), *(replayed(tree) if updates else ()))
    options, units = dict[ast.AST, Told](), dict[ast.AST, list[ast.AST]]()
    users: list[tuple[list[ast.AST], dict[str, list[str]]]] = []  # units, and by file the names that they need
    handed: dict[ast.AST, tuple[list[list[ast.AST]], Finding]] = {}  # units, and what hands the option to evaluations
    done = set[ast.AST]()  # what is under autocast by now, or widened
    for update in updates:
        reading, source = update.reading, tree.source(update.reading.file.path)
        by_hand, names, parts = autocasts(update), dict[str, list[str]](), set[ast.AST]()
        found, why = list[Finding](), problem(update, by_hand) if by_hand else ""
        if why:
            found.append(near_miss(source.site(update.backward, f"autocast of forward and loss, but {why}")))
        elif by_hand:
            found.append(mended(source.site(update.runs[0], "autocast of forward and loss")))
        if not by_hand or (not why and is_called(reading, by_hand, CONTEXT)):
            option = options[reading.node] = options.get(reading.node) or told(tree, reading, given, AMP)[0]
            names[source.path] = [CONTEXT, WIDEN, "AMP"]
        if not by_hand:
            for file, opened in always_on(tree.code):
                note = "autocast, but no option is seen that turns it on: take it out, or tell it"
                yield near_miss(tree.source(file.path).site(opened, note))
            found += _under_autocast(tree, update, option, names, done, parts)
        unit: list[ast.AST] = [update.backward] * (not parts & done)  # else it goes with what it shares
        units[update.backward] = unit
        done |= parts
        users.append((unit, names))
        yield from apart(unit, found)
    for measured, of in evaluations(tree.code):
        source, names = tree.source(measured.reading.file.path), dict[str, list[str]]()
        if is_covered(tree.code, measured) or done & {*measured.reading.file.ancestors(measured.backward)}:
            continue
        told_of = [] if any(map(autocasts, of)) else [(options[each.reading.node], each) for each in of]
        text, brought = brought_to(tree, measured, told_of, AMP, given)
        unit = _units([units[each.backward] for each in of])
        if text:
            names[source.path] = [CONTEXT, WIDEN, "AMP"]
            for node, each in brought.items():
                handed.setdefault(node, ([], each))[0].append(unit)
            found = list(_under_autocast(tree, measured, replace(told_of[0][0], text=text), names, done, done))
        else:
            found = [near_miss(source.site(measured.backward, UNREACHED))]
        users.append((unit, names))
        yield from apart(unit, found)
    for some, each in handed.values():
        yield from apart(_units(some), [each])
    for scope, option in options.items():
        yield from apart(_units([units[u.backward] for u in updates if u.reading.node is scope]), option.findings)
    for path in dict.fromkeys(path for _, names in users for path in names):
        every = dict.fromkeys(name for _, names in users for name in names.get(path, ()))
        unit = _units([unit for unit, names in users if path in names])
        yield from apart(unit, [definitions(tree.source(path), given, *every)])


def _units(users: Sequence[Sequence[ast.AST]]) -> list[ast.AST]:
    """The updates that use something, where each could be done without the others."""
    return [unit for each in users for unit in each] if all(users) else []


def _under_autocast(
    tree: SourceTree, update: Update, option: Told, names: dict[str, list[str]], done: set[ast.AST], parts: set[ast.AST]
) -> Iterator[Finding]:
    """The forward and the loss of one update; what that touches goes to `parts`, and is not touched if it is done."""
    reading, source = update.reading, tree.source(update.reading.file.path)
    statements, is_last = forward_and_loss(update)
    device, loss = device_of(update.model, reading, statements[0]), {each.key for each in update.loss.walk()}
    found = logits(tree.code, reading, update.forwards, statements, loss)
    shared, others = [each for each in statements if each in done], taken(reading, {AMP: option}, [CONTEXT, WIDEN])
    parts.update(statements)
    is_amid = is_last or done_in(reading, statements) & {"backward", "step"}
    is_scaled = any(str(each.data).endswith("GradScaler") for each in update.loss.walk() if each.op == "global")
    is_unknown = not found and update.loss.op not in MEANS
    notes: list[tuple[ast.AST | None, str]] = [
        *((each, "forward and loss of several backwards: give each its own") for each in shared),
        *((node, f"a name that the patch brings has another meaning: {why}") for node, why in others),
        (update.backward if is_amid else None, "backward call, but no forward and loss as statements before it"),
        (update.backward if is_scaled else None, "a loss that is scaled, needless in bfloat16: take that out"),
        (unclipped(reading), "a step without a clip, as others have: clip its gradient, then apply"),
        (statements[0] if device is None else None, "forward and loss, but their model has no name here: name it"),
        (statements[-1] if is_unknown else None, "loss, but which of its operands are the logits cannot be told"),
        (in_place(reading, found, statements), "logits that are changed in place: change what is made of them"),
        (
            partial_autocast(update),
            "autocast, but no forward of this update is in it: take it out, or put it round them",
        ),
        *unmovable(reading, update, statements),
    ]
    obstacles = [(node, note) for node, note in notes if node is not None]
    yield from (near_miss(source.site(node, note)) for node, note in obstacles)  # type: ignore[arg-type]
    if obstacles:
        return
    heads = [f"with {CONTEXT}({device}, {option.text}):"]
    edits = list(move_under(source, heads, [source.at(each) for each in statements]))
    for where, node in found:
        target = tree.source(where.file.path)
        if node not in done and node not in parts:
            edits.append(rewrite(target, target.at(node), lambda code: f"{WIDEN}({code})"))  # type: ignore[arg-type]
        parts.add(node)
        names.setdefault(target.path, []).append(WIDEN)
    yield mend(source.site(statements[0], "forward and loss"), edits)


task = Task(
    number=3,
    slug="bf16-autocast",
    title="BF16 autocast",
    contract=Contract.EXTENDS,
    seam="update",
    option="amp",
    summary="--amp bf16 runs forward and loss in bfloat16; parameters, gradients and the loss stay float32",
    why=__doc__,
    sought="a forward, a loss and its backward in a loop over micro-batches",
    find=find,
)
