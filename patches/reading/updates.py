"""Updates: where a loss is learned from, the model whose loss it is, and the loop that it stands under."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from .classes import constructor_of, names_of, serves, set_in
from .code import Code, is_main_guard, once
from .files import File, Function, is_test
from .frames import DEEPEST, Effect, Reading
from .values import Value

_OF_MODELS = ("parameters", "named_parameters", "train")  # what only a model is asked for
_NO_RUNS = {*_OF_MODELS, "eval", "state_dict", "modules", "buffers", "zero_grad", "to", "requires_grad_", "no_sync"}
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
MOST_CALLERS = 6  # of callers
DEEP = 6  # calls in calls that are followed to a loss
SHALLOW = 1  # calls in calls that are followed where only a scope's own calls are asked for
_MOST_FOLLOWED = 200  # scopes in which a forward is looked for


@dataclass(frozen=True, slots=True)
class Update:
    """A backward, as the innermost scope shows it in whose own text the model runs for its loss."""

    reading: Reading
    backward: ast.Call  # in the scope's text: the backward, or the call by which it is done
    effect: Effect
    loss: Value
    models: tuple[Value, ...]  # whose loss it is
    runs: tuple[ast.Call, ...]  # the calls in the scope's text by which the model runs for the loss
    forwards: frozenset[ast.AST]  # the calls of the model or of its methods, wherever they stand
    learns: bool = True  # whether it is no evaluation, whose loss is made by what stands here as its backward

    @property
    def model(self) -> Value:
        """The first of its models."""
        return self.models[0]

    @property
    def ran(self) -> list[Value]:
        """What its models' calls give, of what the loss is made of."""
        return [each for each in self.loss.walk() if each.at is not None and each.at.node in self.forwards]

    def calls(self, model: Value) -> bool:
        """Whether a model itself is called, and not its methods alone."""
        return model.op == "instance" or any(_is_the(each["func"], model) for each in self.ran if "func" in each.args)


@once
def updates_of_runs(code: Code) -> list[Update]:
    """The updates that a tree's training makes; those that a class makes on request are none where others are."""
    every = updates_in_loops(code)
    return [update for update in every if not _is_on_request(code, update)] or every


@once
def updates_in_loops(code: Code) -> list[Update]:
    """The updates that are made in loops over micro-batches.

    What cannot be imported does not train, nor do a tree's tests, nor what nothing calls beside what is called.
    """
    found = {
        update.backward: update
        for update in _updates(code)
        if not is_test(update.reading.file.path) and is_in_a_run(code, update.reading.file, update.backward)
    }
    able = [update for update in found.values() if _may_run(code, update.reading)]
    return [update for update in able if _is_called(code, update.reading)] or able


def _is_on_request(code: Code, update: Update) -> bool:
    """Whether requests have an update made, others of which make anew what it steps."""
    file, owner = update.reading.file, update.reading.owner
    if owner is None or not serves(owner):
        return False
    funcs = [each.value["func"] for each in update.reading.effects if each.kind == "step"]
    stepped = {each["of"].data for each in funcs if each.op == "attr"}
    others = [each for each in owner.body if isinstance(each, Function) and each is not constructor_of(owner)]
    runs = [code.reading(file, each, owner, deepest=DEEP) for each in others if set_in(each) & stepped]
    return sum(all(effect.kind != "backward" for effect in each.effects) for each in runs) > 1


def _is_called(code: Code, reading: Reading) -> bool:
    """Whether a scope is a script, or anything outside of it mentions its function, or the class of a method."""
    if not isinstance(reading.node, Function):
        return True
    names = {reading.node.name} | ({reading.owner.name} if reading.owner is not None else set())
    own = reading.owner or reading.node
    found = (node for name in names for file in code.files.naming(name) for node in file.uses.get(name, ()))
    return any(not is_within(reading.file, node, own) for node in found) or (
        any(file.aliases.get(name) for name in names for file in code.files.naming(name))
    )


def _may_run(code: Code, reading: Reading) -> bool:
    """Whether anything that can be imported calls a scope, if anything does."""
    if not isinstance(reading.node, Function) or calls_of(code, reading.node):
        return True
    naming = (file for file in code.files.naming(reading.node.name) if file is not reading.file)
    return all(code.is_importable(file.path) for file in naming)


def _updates(code: Code) -> Iterator[Update]:
    pending = [(reading, 0) for reading in mentions(code, "backward", DEEP, _may_be_in_a_run)]
    seen = set[ast.AST]()
    while pending:
        reading, depth = pending.pop(0)
        if reading.node in seen:
            continue
        seen.add(reading.node)
        made = [update for effect in reading.effects if (update := _update(code, reading, effect)) is not None]
        yield from made
        is_done = {update.backward for update in made}
        is_open = any(e.kind == "backward" and e.through not in is_done for e in reading.effects)
        if is_open and depth < MOST_CALLERS and isinstance(reading.node, Function):
            callers = [scope_of(code, caller.file, call, DEEP) for caller, call in calls_of(code, reading.node)]
            pending += [(caller, depth + 1) for caller in callers]


def _update(code: Code, reading: Reading, effect: Effect) -> Update | None:
    """The update of an effect, if it is a backward of a loss for which the model runs in the scope's own text."""
    if effect.kind != "backward" or effect.through is None:
        return None
    func = effect.value["func"]
    losses = [each for name, each in effect.value.args.items() if name == "0"]
    losses += [func["of"]] if func.op == "attr" else []
    found = (update_of(code, reading, effect.through, effect, loss) for loss in losses)
    return next((each for each in found if each and not _is_done_by_a_run(code, each)), None)


def update_of(code: Code, reading: Reading, backward: ast.Call, effect: Effect, loss: Value) -> Update | None:
    """The update of a loss, if models run for it in the scope's own text."""
    made = {model: _forwards(code, reading, loss, model) for model in models(reading) or _called(loss)}
    made = {_called_part(code, loss, model): forwards for model, forwards in made.items() if forwards}
    forwards = frozenset[ast.AST]().union(*made.values())
    runs = tuple(_runs(code, reading, loss, forwards)) if forwards else ()
    return Update(reading, backward, effect, loss, tuple(made), runs, forwards) if runs else None


def _called_part(code: Code, loss: Value, model: Value) -> Value:
    """What a loss calls of a model that is not called itself: the one part that it is, if it is one; else the model."""
    funcs = [each["func"] for each in loss.walk() if "func" in each.args and is_of(each["func"], model)]
    own = {each.key: each for each in funcs if each.op == "attr" and each["of"].key == model.key}
    parts = [each for each in own.values() if code.is_part(each)]
    is_gone_into = model.op == "instance" or any(_is_the(each, model) for each in funcs)
    is_one = len(parts) == 1 and not is_gone_into
    return parts[0] if is_one and all(is_of(each, parts[0]) for each in funcs) else model


def _is_done_by_a_run(code: Code, update: Update) -> bool:
    """Whether the call by which a backward is done is of a function that runs the model for it too."""
    called = update.reading.calls.get(update.backward) if update.backward in update.runs else None
    inner = reading_of(code, called) if called is not None else None
    return inner is not None and any(_update(code, inner, each) is not None for each in inner.effects)


def models(reading: Reading) -> list[Value]:
    """What is asked for its parameters, or told to train, while a scope runs."""
    found: dict[int, Value] = {}
    for effect in reading.effects:
        func = effect.value.get("func") if effect.kind in _OF_MODELS else None
        if func is not None and func.op == "attr":
            found.setdefault(func["of"].key, func["of"])
    return list(found.values())


def _called(loss: Value) -> list[Value]:
    """What a loss is made of by calling it, first of all: its model, where nothing is asked for parameters."""
    calls = [each for each in loss.walk() if "func" in each.args and _is_object(each["func"])]
    inner = [each for each in calls if not any(part is not each and part in calls for part in each.walk())]
    handed = [value for each in loss.walk() if _is_foreign(each) for value in each.items if value.op == "parameter"]
    return list({each.key: each for each in [each["func"] for each in inner] or handed}.values())


def _is_foreign(value: Value) -> bool:
    """Whether a value is what a function returns that is not seen."""
    return "func" in value.args and value["func"].op in ("opaque", "import", "parameter")


def _is_object(value: Value) -> bool:
    """Whether a value is an object that a scope is given, makes or has."""
    if value.op == "attr" and value["of"].op == "self":
        return value.data not in names_of(value["of"].data[1]).methods
    return value.op in ("parameter", "instance", "new", "call", "phi")


def _forwards(code: Code, reading: Reading, loss: Value, model: Value) -> set[ast.AST]:
    """The calls of a model that a loss is made of, wherever they stand."""
    if model.op == "instance":  # of the tree, so its forward has been followed
        return set(_followed(code, reading, model, set()))
    calls = (each for each in loss.walk() if "func" in each.args)
    made = (each.at for each in calls if is_of(each["func"], model) or _is_given(each, model))
    return {at.node for at in made if at is not None}


def _is_given(call: Value, model: Value) -> bool:
    """Whether a model is handed to a function that is not seen."""
    is_checkpoint = "func" in call.args and str(call["func"].data).endswith(".checkpoint")
    return (_is_foreign(call) or is_checkpoint) and any(each.key == model.key for each in call.items)


def _followed(code: Code, reading: Reading, model: Value, seen: set[ast.AST]) -> Iterator[ast.AST]:
    """The calls of a model of the tree, whose forward is followed, in a scope and in what it calls."""
    seen.add(reading.node)
    for node in reading.values:
        callee = reading.values.get(node.func) if isinstance(node, ast.Call) else None
        if callee is not None and is_of(callee, model):
            yield node
    for called in {*reading.calls.values()} - seen:
        inner = reading_of(code, called)
        if inner is not None and len(seen) < _MOST_FOLLOWED and inner.node not in seen:
            yield from _followed(code, inner, model, seen)


def _runs(code: Code, reading: Reading, loss: Value, forwards: Collection[ast.AST]) -> Iterator[ast.Call]:
    """The calls in a scope's text by which a model runs, and on which a loss depends."""
    parts = {each.key for each in loss.walk()}
    for node, value in reading.values.items():
        is_part = isinstance(node, ast.Call) and any(each.key in parts for each in results(value))
        if is_part and runs(code, reading, node, forwards):  # type: ignore[arg-type]
            yield node  # type: ignore[misc]


def runs(code: Code, reading: Reading, node: ast.Call, forwards: Collection[ast.AST], depth: int = 0) -> bool:
    """Whether a call is one of some, or what it calls makes one of them."""
    if node in forwards:
        return True
    called = reading.calls.get(node)
    inner = reading_of(code, called) if called is not None and depth < MOST_CALLERS else None
    if inner is None:
        return False
    nodes = (each for each in inner.values if isinstance(each, ast.Call))
    return any(runs(code, inner, each, forwards, depth + 1) for each in nodes)


def made_of(keys: set[int]) -> Callable[[Value], bool]:
    """What tells whether a value is made of one of some; asked of many values, it looks at each part once."""
    known: dict[int, bool] = dict.fromkeys(keys, True)

    def is_made(value: Value) -> bool:
        pending = [value]
        while pending:
            last = pending[-1]
            if last.key not in known:
                unknown = [each for each in last.items if each.key not in known]
                if unknown:
                    pending += unknown
                    continue
                known[last.key] = any(known[each.key] for each in last.items)
            pending.pop()
        return known[value.key]

    return is_made


def results(value: Value) -> Iterator[Value]:
    """What a call may return, and the members of it."""
    yield value
    if value.op in ("phi", "tuple", "list", "dict"):
        for name, each in value.args.items():
            if name != "test":
                yield from results(each)


def _is_the(callee: Value, model: Value) -> bool:
    """Whether a callee may be a model itself."""
    sides = [callee[side] for side in ("yes", "no")] if callee.op == "phi" else []
    return callee.key == model.key or any(_is_the(each, model) for each in sides)


def is_of(callee: Value, model: Value) -> bool:
    """Whether a callee is a model, or a method of it that may run it."""
    if callee.op == "phi":
        return any(is_of(callee[side], model) for side in ("yes", "no"))
    owner = callee.get("of") if callee.op == "attr" else callee.get("self") if callee.op == "bound" else None
    name = callee.data if callee.op == "attr" else ""
    while owner is not None and owner.op == "attr" and owner.key != model.key:
        owner = owner["of"]  # of a part of it
    return callee.key == model.key or (owner is not None and owner.key == model.key and name not in _NO_RUNS)


def reading_of(code: Code, node: ast.AST) -> Reading | None:
    """A function of the tree that something calls, read by itself."""
    file = code.home(node)
    if file is None or not isinstance(node, Function):
        return None
    return code.reading(file, node, file.owner(node), deepest=DEEP)


@once
def mentions(
    code: Code, name: str, deepest: int = DEEPEST, within: Callable[[Code, File, ast.AST], bool] = lambda *_: True
) -> list[Reading]:
    """The scopes in whose own text a name stands, in files that can be imported: no others run."""
    found = []
    for file in code.files.naming(name):
        if code.is_importable(file.path):
            nodes = [node for node in file.uses.get(name, ()) if within(code, file, node)]
            found += [scope_of(code, file, node, deepest) for node in nodes]
    return list(dict.fromkeys(found))


def scope_of(code: Code, file: File, node: ast.AST, deepest: int = DEEPEST) -> Reading:
    """The reading of the function that a node stands in, or of its module's top."""
    around = file.function(node)
    if around is None:
        guarded = any(is_main_guard(each) for each in (node, *file.ancestors(node)) if isinstance(each, ast.stmt))
        return code.script(file, deepest=deepest) if guarded else code.module(file.path).run.reading
    return code.reading(file, around, file.owner(around), deepest=deepest)


@once
def makings_of(code: Code, owner: ast.ClassDef) -> list[tuple[Reading, ast.Call]]:
    """Every call by which an object of a class is made by its name, with the scope that it stands in."""
    found = []
    for reading in mentions(code, owner.name, SHALLOW):
        for call in (node for node in reading.values if isinstance(node, ast.Call) and node.func in reading.values):
            meant = code.resolved(reading.values[call.func])
            if meant.op == "class" and meant.data[1] is owner:
                found.append((reading, call))
    return found


@once
def calls_of(code: Code, function: Function) -> list[tuple[Reading, ast.Call]]:
    """Every call of a function that is seen, with the scope that it stands in."""
    scopes = [reading for name in aliases_of(code, function.name) for reading in mentions(code, name, SHALLOW)]
    return [(each, call) for each in scopes for call, called in each.calls.items() if called is function]


@once
def aliases_of(code: Code, name: str) -> list[str]:
    """What something of a name is called anywhere: so, or by aliases of its imports."""
    aliases = (each for file in code.files.naming(name) for each in file.aliases.get(name, ()))
    return list(dict.fromkeys([name, *aliases]))


def is_in_a_run(code: Code, file: File, node: ast.AST, depth: int = 0) -> bool:
    """Whether a node stands in a loop, or every mention of its function does, or of theirs."""
    scope = file.function(node) or file.module
    if is_repeated(file, scope, node):
        return True
    if isinstance(scope, ast.Module) or depth > MOST_CALLERS:
        return False
    others = code.files.naming(scope.name)
    found = [(other, each) for other in others for each in other.uses.get(scope.name, ()) if may_be_it(other, each)]
    found = [(other, each) for other, each in found if scope not in other.ancestors(each)]
    return bool(found) and all(is_in_a_run(code, other, each, depth + 1) for other, each in found)


def _may_be_in_a_run(code: Code, file: File, node: ast.AST) -> bool:
    """Whether a node is in a run, or a call of its function stands in a loop beside others on request."""
    scope = file.function(node)
    calls = calls_of(code, scope) if scope is not None else ()
    return is_in_a_run(code, file, node) or any(is_repeated(each.file, each.node, call) for each, call in calls)


def may_be_it(file: File, node: ast.AST) -> bool:
    """Whether a mention may be one of a function: no name of a local variable that is called alike."""
    if not isinstance(node, ast.Name):
        return True
    owner = file.scopes[file.function(node) or file.module].owner(node.id)
    kinds = (Function, ast.alias)
    return owner is None or owner.parent is None or any(isinstance(each, kinds) for each in owner.bound[node.id])


def is_repeated(file: File, scope: ast.AST, node: ast.AST) -> bool:
    """Whether a node of a scope's own text stands in a loop of it, and not in what the loop goes through."""
    for around in file.ancestors(node):
        if around is scope:
            return False
        first = getattr(around, "iter", None) or next((each.iter for each in getattr(around, "generators", ())), None)
        if isinstance(around, _LOOPS) and not (first is not None and is_within(file, node, first)):
            return True
    return False


def is_within(file: File, node: ast.AST, outer: ast.AST) -> bool:
    return node is outer or any(each is outer for each in file.ancestors(node))


def strays(code: Code) -> Iterator[tuple[File, ast.Call, str]]:
    """The backward calls of a tree in which no update of a run was found, and why not."""
    for reading in mentions(code, "backward", DEEP) if not updates_of_runs(code) else ():
        for effect in reading.effects:
            if effect.kind == "backward" and effect.is_own and isinstance(effect.at.node, ast.Call):
                is_known = _update(code, reading, effect) is not None
                why = "no loop over micro-batches leads to it" if is_known else "for which model it is cannot be told"
                yield reading.file, effect.at.node, why
