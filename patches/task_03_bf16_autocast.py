"""Run forward and loss in bfloat16, where `--amp bf16` asks for it.

The forward and the loss of a micro-batch go under torch.amp.autocast on the model's device; backward,
clip and step stay outside, and the loss is computed from float32 logits. bfloat16 has the exponents
of float32, so there is no gradient scaler.

Contract: extends. With amp="off", the default, nothing is entered and nothing is cast.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from .donor import definitions, donor
from .editing.options import Told, taken, told
from .editing.spelling import spelled
from .editing.spent import strayed_backwards
from .edits import move_under, rewrite
from .reading.autocast import always_on, autocasts, in_place, logits, partial_autocast, problem
from .reading.frames import Guard, Reading
from .reading.turns import done_in, forward_and_loss, unmovable
from .reading.updates import Update, updates_of_runs
from .task import Contract, Finding, Task, apart, mend, mended, near_miss
from .tree import SourceTree

MEANS = ("cross_entropy", "nll_loss")  # of which torch computes in float32 under autocast
AMP, CONTEXT, WIDEN = "amp", "autocast", "at_least_float32"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The forward and the loss of each update, and the way of the option to them."""
    given, updates = donor("bit_transformer/training.py"), updates_of_runs(tree.code)
    yield from strayed_backwards(tree)
    options: dict[ast.AST, Told] = {}
    needed: dict[str, list[str]] = {}
    users: dict[object, list[list[ast.AST]]] = defaultdict(list)  # of a scope's options, of a file's names
    done = set[ast.AST]()  # what is under autocast by now, or widened
    for update in updates:
        reading, source = update.reading, tree.source(update.reading.file.path)
        by_hand, names, parts = autocasts(update), dict[str, list[str]](), set[ast.AST]()
        found, why = list[Finding](), problem(update, by_hand) if by_hand else ""
        if why:
            found.append(near_miss(source.site(update.backward, f"autocast of forward and loss, but {why}")))
        elif by_hand:
            found.append(mended(source.site(update.runs[0], "autocast of forward and loss")))
        if not by_hand or (not why and _is_ours(reading, by_hand)):
            option = options[reading.node] = options.get(reading.node) or told(tree, reading, given, AMP)[0]
            names[source.path] = [CONTEXT, WIDEN, "AMP"]
        if not by_hand:
            for file, opened in always_on(tree.code):
                note = "autocast that no option turns on: take it out, or tell it"
                yield near_miss(tree.source(file.path).site(opened, note))
            found += _under_autocast(tree, update, option, names, done, parts)
        unit: list[ast.AST] = [update.backward] * (not parts & done)  # else it goes with what it shares
        done |= parts
        for path in names:
            needed.setdefault(path, []).extend(names[path])
        for user in (reading.node, *names):
            users[user].append(unit)
        yield from apart(unit, found)
    for scope, brought in options.items():
        yield from apart(_units(users[scope]), brought.findings)
    for path, every in needed.items():
        yield from apart(_units(users[path]), [definitions(tree.source(path), given, *dict.fromkeys(every))])


def _units(users: Sequence[Sequence[ast.AST]]) -> list[ast.AST]:
    """The updates that use something, where each could be done without the others."""
    return [unit for each in users for unit in each] if all(users) else []


def _is_ours(reading: Reading, contexts: Sequence[Guard]) -> bool:
    """Whether a context comes from the function that this patch brings."""
    items = [item for each in contexts for item in getattr(each.at.node, "items", ())]
    called = [reading.calls.get(item.context_expr) for item in items]
    return any(getattr(each, "name", "") == CONTEXT for each in called)


def _under_autocast(
    tree: SourceTree,
    update: Update,
    option: Told,
    needed: dict[str, list[str]],
    done: Collection[ast.AST],
    parts: set[ast.AST],
) -> Iterator[Finding]:
    """The forward and the loss of one update; what that touches goes to `parts`, and is not touched if it is done."""
    reading, source = update.reading, tree.source(update.reading.file.path)
    statements, is_last = forward_and_loss(update)
    device, loss = _device(reading, update, statements[0]), {each.key for each in update.loss.walk()}
    found = logits(tree.code, reading, update.forwards, statements, loss)
    obstacles: list[tuple[ast.AST, str]] = [
        (each, "forward and loss of several backwards: give each its own") for each in statements if each in done
    ]
    parts.update(statements)
    for node, why in taken(reading, {AMP: option}, [CONTEXT, WIDEN]):
        obstacles.append((node, f"a name that the patch brings has another meaning: {why}"))
    if is_last or done_in(reading, statements) & {"backward", "step"}:
        obstacles.append((update.backward, "backward call, but no forward and loss as statements before it"))
    if any(str(each.data).endswith("GradScaler") for each in update.loss.walk() if each.op == "global"):
        obstacles.append(
            (update.backward, "backward of a loss that is scaled, which bfloat16 does not need: take that out")
        )
    if device is None:
        obstacles.append((statements[0], "forward and loss, but which model it is has no name here: name it"))
    if not found and update.loss.op not in MEANS:
        obstacles.append((statements[-1], "loss, but which of its operands are the logits cannot be told"))
    if (changed := in_place(reading, found, statements)) is not None:
        obstacles.append((changed, "logits that are changed in place: change what is made of them"))
    if (autocast := partial_autocast(update)) is not None:
        obstacles.append(
            (autocast, "autocast, but no forward of this update is in it: take it out, or put it round them")
        )
    obstacles += unmovable(reading, update, statements)
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
        needed.setdefault(target.path, []).append(WIDEN)
    yield mend(source.site(statements[0], "forward and loss"), edits)


def _device(reading: Reading, update: Update, at: ast.stmt) -> str | None:
    """The model's device, by the name that the scope has for it."""
    for name, value in reading.before.get(at, {}).items():
        if value.op == "device" and any(each.key == update.model.key for each in value.walk()):
            return name
    model = spelled(update.model, reading, at)
    return f"next({model}.parameters()).device" if model is not None else None


task = Task(
    number=3,
    slug="bf16-autocast",
    title="BF16 autocast",
    contract=Contract.EXTENDS,
    seam="update",
    summary="--amp bf16 runs forward and loss in bfloat16; parameters, gradients and the loss stay float32",
    why=__doc__,
    sought="a forward, a loss and its backward in a loop over micro-batches",
    find=find,
)
