"""Mixed precision: the contexts that a forward runs in, and which expressions are its logits."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from .code import Code
from .files import File, Function
from .frames import Guard, Reading
from .nodes import walk
from .signatures import VIEWS
from .updates import DEEP, Update, calls_of, is_within, reading_of, results, runs, scope_of
from .values import Place, Value

_NO_DATA = ("shape", "size", "device", "dtype", "ndim", "dim", "numel")
_TOLD = ("parameter", "attr", "index", "setting", "part")  # what may come from an option
_HALF = ("torch.float16", "torch.half")
_ENABLED = ("enabled", "2")  # the argument of torch.autocast that turns it on: by name, and by place


def autocasts(update: Update) -> list[Guard]:
    """The autocast contexts under which the model runs for an update; nothing if it runs outside of them too."""
    reading = update.reading
    around: dict[ast.AST, list[Guard]] = {node: list(_opened(reading, node)) for node in update.runs}
    for effect in reading.effects:
        if effect.at.node in update.forwards and effect.through in update.runs:
            around[effect.at.node] = [*effect.under, *around.get(effect.through or effect.at.node, [])]
    direct = {node: guards for node, guards in around.items() if node in update.forwards} or around
    found = [[guard for guard in guards if _is_autocast(guard)] for guards in direct.values()]
    return [guard for guards in found for guard in guards] if all(found) else []


def is_covered(code: Code, evaluation: Update) -> bool:
    """Whether an evaluation runs under autocast by its own text, or by what its callers open or hand to it."""
    own, around = evaluation.reading, list[bool]()
    for caller, call in calls_of(code, own.node) if isinstance(own.node, Function) else ():
        reading = scope_of(code, caller.file, call, DEEP)
        ran = [e.under for e in reading.effects if e.through is call and e.at.node in evaluation.forwards]
        around.append(any(any(map(_is_autocast, under)) for under in (_opened(reading, call), *ran)))
    funcs = [guard.value.get("func") for run in evaluation.runs for guard in _opened(own, run)]
    is_handed = any(func is not None and func.op == "parameter" for func in funcs)
    return bool(autocasts(evaluation) or (around and (any if is_handed else all)(around)))


def is_called(reading: Reading, contexts: Sequence[Guard], name: str) -> bool:
    """Whether a context comes from a function of the tree, by its name."""
    called = [reading.calls.get(item.context_expr) for each in contexts for item in getattr(each.at.node, "items", ())]
    return any(getattr(each, "name", "") == name for each in called)


def partial_autocast(update: Update) -> ast.AST | None:
    """An autocast context in the text of an update's scope under which not all of its forwards run."""
    for node, value in update.reading.values.items():
        holder = update.reading.file.parents[node]
        if isinstance(holder, ast.withitem) and _is_autocast(Guard("with", value, Place(update.reading.file, node))):
            return node
    return None


def _opened(reading: Reading, node: ast.AST) -> Iterator[Guard]:
    """The contexts that a scope's text opens around a node."""
    for each in reading.file.ancestors(node):
        for item in each.items if isinstance(each, (ast.With, ast.AsyncWith)) else ():
            if item.context_expr in reading.values:
                yield Guard("with", reading.values[item.context_expr], Place(reading.file, each))


def _is_autocast(guard: Guard) -> bool:
    return guard.kind == "with" and any(
        each.op == "global" and str(each.data).endswith(".autocast") for each in guard.value.walk()
    )


def problem(update: Update, found: Sequence[Guard]) -> str:
    """What is wrong with the contexts of an update, if it shows."""
    inside = {guard.at.node for guard in update.effect.under}
    if any(guard.at.node in inside for guard in found):
        return "the backward stands in it too: move it out"
    if any(str(each.data).endswith("GradScaler") for each in update.loss.walk() if each.op == "global"):
        return "the loss is scaled, which bfloat16 does not need: take the scaler out"
    if any(each.op == "global" and each.data in _HALF for guard in found for each in guard.value.walk()):
        return "it is of float16, which needs a scaler: give it dtype=torch.bfloat16"
    if any(_lacks_dtype(each) for guard in found for each in guard.value.walk()):
        return "it has no dtype, and is float16 on CUDA: give it dtype=torch.bfloat16"
    if not all(_is_told(guard) for guard in found):
        return "no option turns it on: take it out, or tell it"
    within = {guard.at.node for guard in found}
    casts = [each for each in update.loss.walk() if each.op == "cast"]
    is_widened = any(part.key == ran.key for ran in update.ran for each in casts for part in each.walk())
    if not is_widened and not _is_loss_inside(update, within):
        return "the loss is made outside of it, of what it left in bfloat16: make it inside, of float32"
    return ""


def _lacks_dtype(value: Value) -> bool:
    is_told = {"dtype", "1"} & value.args.keys() or any(name.startswith("**") for name in value.args)
    return "func" in value.args and str(value["func"].data).endswith(".autocast") and not is_told


def _is_loss_inside(update: Update, within: set[ast.AST]) -> bool:
    """Whether a loss is made under one of some contexts, in the scope's own text or in what it calls there."""
    reading = update.reading
    made = [node for node, value in reading.values.items() if value.key == update.loss.key]
    made += [node for node in update.runs if any(each.key == update.loss.key for each in results(reading.values[node]))]
    inside = any(not within.isdisjoint(reading.file.ancestors(node)) for node in made)
    return inside or within.isdisjoint(walk(reading.node))


def always_on(code: Code) -> Iterator[tuple[File, ast.expr]]:
    """Where a tree enters autocast, or turns it on, and no option says whether."""
    for file in filter(lambda each: code.is_importable(each.path), code.files.holding("autocast")):
        for node in [*file.uses.get("autocast", ()), *file.uses.get("set_autocast_enabled", ())]:
            call = file.parents[node]
            meant = code.module(file.path).expr(node) if isinstance(call, ast.Call) and call.func is node else None
            if meant is None or meant.op != "global" or not str(meant.data).startswith("torch."):
                continue
            assert isinstance(call, ast.Call)
            is_set = str(meant.data).endswith("set_autocast_enabled")
            is_on = is_set and any(isinstance(each, ast.Constant) and each.value is True for each in call.args)
            holder = file.parents[call]
            is_entered = isinstance(holder, (ast.withitem, Function)) or getattr(holder, "attr", "") == "__enter__"
            is_told = len(call.args) > 2 or any(k.arg in (None, "enabled") for k in call.keywords)  # noqa: PLR2004
            if is_on or (not is_set and is_entered and not is_told):
                yield file, call


def _is_told(guard: Guard) -> bool:
    """Whether a context is entered, or does something, by what a scope is told."""
    parts = list(guard.value.walk())
    enabled = [each[name] for each in parts if each.op == "call" for name in _ENABLED if name in each.args]
    if enabled:
        return all(any(part.op in _TOLD for part in each.walk()) for each in enabled)
    under_if = any(isinstance(each, ast.If) for each in guard.at.file.ancestors(guard.at.node))
    return under_if or any(each.op in ("phi", *_TOLD) and not _is_of_device(each, parts) for each in parts)


def _is_of_device(value: Value, parts: Sequence[Value]) -> bool:
    """Whether a value says on which device a context is only."""
    devices = [each for each in parts if each.op == "device" or (each.op == "attr" and each.data == "type")]
    return any(each.key == value.key for device in devices for each in device.walk())


def logits(
    code: Code, reading: Reading, forwards: Collection[ast.AST], inside: Sequence[ast.AST], loss: set[int] | None
) -> list[tuple[Reading, ast.expr]]:
    """The expressions by which what follows a forward reads its logits, in some statements of a scope.

    Where a call does all of it, in what it calls.
    """
    nodes = {
        node: value
        for node, value in reading.values.items()
        if any(is_within(reading.file, node, each) for each in inside)
    }
    made = [node for node in nodes if isinstance(node, ast.Call) and runs(code, reading, node, forwards)]
    firsts = {first.key for node in made for first in _firsts(nodes[node])}
    wholes = {nodes[node].key for node in made if node in forwards}
    found = _reads(reading, nodes, lambda value: value.key in firsts or _is_first_of(value, forwards))
    if not found and not any(each.op == "part" and _is_whole(each["of"], forwards) for each in nodes.values()):
        # a forward that returns just logits
        found = _reads(reading, nodes, lambda value: value.key in wholes or _is_whole(value, forwards))
    outermost = [node for node in found if not any(node is not o and is_within(reading.file, node, o) for o in found)]
    if any(_is_part_of(reading, node, loss) for node in outermost):
        return [(reading, node) for node in outermost]
    inner = [reading_of(code, reading.calls[node]) for node in made if node in reading.calls]
    deeper = (
        logits(code, each, forwards, [each.node], None) for each in inner if each is not None and each is not reading
    )
    return next((each for each in deeper if each), [])


def _is_part_of(reading: Reading, node: ast.expr, loss: set[int] | None) -> bool:
    """Whether a loss is made of what reads some logits."""
    around = [node, *reading.file.ancestors(node)]
    return loss is None or any(each in reading.values and reading.values[each].key in loss for each in around[1:])


def in_place(reading: Reading, found: Sequence[tuple[Reading, ast.expr]], inside: Sequence[ast.AST]) -> ast.AST | None:
    """Where logits are changed in place, or asked to keep a gradient: what is made of them would not see it."""
    keys = {where.values[node].key for where, node in found if where is reading}
    for node in (each for outer in inside for each in walk(outer) if isinstance(each, ast.expr)):
        if node not in reading.values or reading.values[node].key not in keys:
            continue
        around = reading.file.parents[node]
        name = around.attr if isinstance(around, ast.Attribute) else ""
        is_set = isinstance(around, ast.Subscript) and isinstance(around.ctx, ast.Store)
        if is_set or name == "retain_grad" or (name.endswith("_") and not name.endswith("__")):
            return around
    return None


def _reads(reading: Reading, nodes: Mapping[ast.AST, Value], is_logits: Callable[[Value], bool]) -> list[ast.expr]:
    """The expressions that read logits, or views of them by a name."""
    return [
        node
        for node, value in nodes.items()
        if isinstance(node, ast.expr)
        and (is_logits(value) or (isinstance(node, ast.Name) and any(map(is_logits, value.bases(VIEWS)))))
        and _is_read(reading, node)
    ]


def _is_whole(value: Value, forwards: Collection[ast.AST]) -> bool:
    """Whether a value is all that a forward returns."""
    if value.op == "phi":
        return all(_is_whole(value[side], forwards) for side in ("yes", "no"))
    return "func" in value.args and value.at is not None and value.at.node in forwards


def _firsts(value: Value) -> Iterator[Value]:
    """What comes first of the tuples that a call may return."""
    for each in results(value):
        if each.op in ("tuple", "list") and each.args:
            yield each.items[0]


def _is_first_of(value: Value, forwards: Collection[ast.AST]) -> bool:
    """Whether a value is what a forward returns first, or calls its logits."""
    if value.op == "phi":
        return any(_is_first_of(value[side], forwards) for side in ("yes", "no"))
    whole = value.get("of") or value.get("input")
    if whole is None or not _is_whole(whole, forwards):
        return False
    index = value.get("0")
    is_part = value.op in ("part", "attr") and value.data in (0, "logits")
    return is_part or (value.op == "index" and index is not None and index.is_const(0, "logits"))


def _is_read(reading: Reading, node: ast.expr) -> bool:
    """Whether an expression's elements are used: not its shape alone, nor only to give it, or a view of it, a name."""
    file = reading.file
    if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        return False
    top: ast.AST = node
    while True:
        parent = file.parents[top]
        if isinstance(parent, ast.Attribute) and parent.attr in _NO_DATA:
            return False
        around = file.parents[parent] if isinstance(parent, ast.Attribute) else parent
        is_method = isinstance(around, ast.Call) and around.func is parent
        value = reading.values.get(around)
        is_view = value is not None and value.op in VIEWS | {"index", "detach"}
        if not is_view or not (is_method or getattr(parent, "value", None) is top):
            break
        top = around
    return not (isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and parent.value is top)
