"""An attention as its callers make it: its keys and masks; and what torch is not to be, or wrongly is, asked for."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .attention import Attention, Call, in_a_call, sized_as
from .code import Code
from .frames import Reading, plain_test
from .masked import Masking, Unread, is_float_mask, is_multihead, is_nothing
from .masks import causal_mask
from .names import parameters
from .nodes import walk
from .values import Graph, Value, once_each

_VIEWS = {"permute", "swap", "mT", "contiguous", "clone", "flatten", "unflatten", "pad", "reshape", "view"}

_MODES = re.compile("grad|inference_mode|autocast|precision")
_FAR = 3  # calls in calls that lead to an attention
_LONGER = {"cat", "stack", "pad", "kept", "index_copy", "setitem", "scatter", "call", "opaque", "module", "attr"}
_OF_OBJECTS = ("forward", "__call__")
_TRUE, _HALF = (Value("const", {}, each, -1, None) for each in (True, 0.5))  # torch's own
_ASKED = {"need_weights": "4", "attn_mask": "5", "is_causal": "7"}  # of nn.MultiheadAttention, and their places
_TOLD = ("parameter", "opaque", "call", "attr")
_CHOICES = ("phi", "or", "and", "xor", "cast", "invert")


def judged(code: Code, reading: Reading, found: Attention, weighed: int) -> Attention:
    """An attention with what its callers tell of it. Raises Unread for one that torch would compute otherwise."""
    if any(isinstance(each, ast.NamedExpr) for each in walk(found.node)):
        raise Unread(found.softmax, "its weights are named on the way (:=): name them in a statement of their own")
    if found.node in reading.doing:
        raise Unread(found.softmax, "the call that weighs does something else too: write it here")
    if _is_other_mode(reading, found):
        raise Unread(found.softmax, "its weights are made in another mode than their sum (no_grad, autocast)")
    if weighed > 1:
        raise Unread(found.softmax, "its weights weigh several values: make one product of them")
    if any(not mask.is_causal and _hides_more_at_times(mask.mask) for mask in found.masks):
        raise Unread(
            found.softmax, "its mask hides just the future at times, and more at others: ask torch by is_causal"
        )
    calls = list(_calls(code, reading, found))
    found.calls = [each for each in calls if each.reading.calls[each.node] is reading.node]
    is_seen = _is_seen(code, reading, calls)
    if found.dropout is not None and found.dropout.op == "call":
        _require_dropout(reading, found.dropout, calls if is_seen else ())
    for mask in found.masks:
        if not _is_added_right(mask, reading, calls if is_seen else ()):
            raise Unread(mask.mask, "what is added to its scores may be no mask that torch takes")
    if any(map(_drops_always, (Call(reading, found.node, found), *calls))):  # type: ignore[arg-type]
        raise Unread(found.softmax, "its weights are dropped out in evaluation too: drop them only while training")
    found.is_longer = any(each is None or _is_longer(each) for each in (found, *(call.found for call in calls)))
    parts = {part.key: part for mask in found.masks for part in mask.mask.walk()}
    cut = {part.key for each in parts.values() if each.op == "index" for part in each["input"].walk()}
    is_own = any(_is_triangle(part) for key, part in parts.items() if key not in cut)
    is_single = len(found.masks) == 1 and not is_own and not _is_handed(found.masks[0].mask, reading)
    if is_single and is_seen and calls and all(each.is_causal for each in calls):
        found.masks[0] = replace(found.masks[0], is_known=True)
    elif found.masks and not is_own:
        found.asked = list(_asking(reading, found, calls))
    return found


def _calls(code: Code, reading: Reading, found: Attention) -> Iterator[Call]:
    """The calls that lead to an attention, the nearest first, and what each makes of it."""
    known, pending, seen = {reading.node}, [reading], set[ast.AST]()
    for _ in range(_FAR):
        files = {file.path: file for each in pending for file in code.files.naming(_called(each))}
        pending = []
        for caller in (code.reading(file, *each) for file in files.values() for each in file.functions):
            calls = [call for call, function in caller.calls.items() if function in known and call in caller.values]
            if caller.node not in seen and calls:
                seen.add(caller.node)
                pending.append(caller)
            for call in calls if pending[-1:] == [caller] else ():
                made = list(in_a_call(code.graph, caller, call, found)) or [Call(caller, call, None)]
                yield from made[:1] if caller.calls[call] is reading.node else made
        known |= {each.node for each in pending}


def _called(reading: Reading) -> str:
    """The name by which a function is called."""
    name = getattr(reading.node, "name", "")
    return reading.owner.name if name in _OF_OBJECTS and reading.owner is not None else name


def _is_seen(code: Code, reading: Reading, calls: Sequence[Call]) -> bool:
    """Whether a function is named for no more than the calls of it that are seen."""
    name, seen = _called(reading), {each.node.func for each in calls}
    is_object = getattr(reading.node, "name", "") in _OF_OBJECTS
    return is_object or all(node in seen for file in code.files.naming(name) for node in file.uses.get(name, ()))


def _require_dropout(reading: Reading, handed: Value, calls: Sequence[Call]) -> None:
    """Raise Unread where what drops weights is handed in, and may be something else than a Dropout of torch's."""
    own = [each for each in calls if each.reading.calls[each.node] is reading.node]
    other = [e for e in own if e.found is None or e.found.dropout is None or "module" not in e.found.dropout.args]
    if other or not own:
        places = [f"{each.reading.file.path}:{each.node.lineno}:{each.node.col_offset + 1}" for each in other]
        who = ", ".join(places) or "a caller"
        raise Unread(
            handed, f"what drops its weights is handed in, and {who} may hand in something else than a Dropout"
        )


def _is_added_right(mask: Masking, reading: Reading, calls: Sequence[Call]) -> bool:
    """Whether what is added to scores is a mask of floats, or nothing: as it is told here, or by all who hand it in."""
    if mask.kind != "added" or mask.is_causal or is_nothing(mask.mask) or is_float_mask(mask.mask):
        return True
    direct = [each for each in calls if each.reading.calls[each.node] is reading.node]
    rest = [each for each in calls if each not in direct]
    return (
        _is_handed(mask.mask, reading)
        and bool(direct)
        and all(
            each.found is not None and all(_is_added_right(one, each.reading, rest) for one in each.masks)
            for each in direct
        )
    )


def _is_handed(mask: Value, reading: Reading) -> bool:
    return mask.op == "parameter" and mask.data[1] is reading.node


def _asking(reading: Reading, found: Attention, calls: Sequence[Call]) -> Iterator[Call]:
    """The calls that hand in a causal mask. Raises Unread where that is done by another way."""
    is_handed = len(found.masks) == 1 and _is_handed(found.masks[0].mask, reading)
    handing = {reading.node}
    for each in calls:
        called = each.reading.calls[each.node]
        if called not in handing:
            continue
        parts = [part for mask in each.masks for part in mask.mask.walk()]
        if is_handed and called is reading.node and each.is_causal and len(each.masks) == 1:
            yield each
        elif any(_hides_more_at_times(mask.mask) for mask in each.masks):
            name = getattr(each.reading.node, "name", "its caller")
            raise Unread(found.softmax, f"{name} hands it a causal mask: ask torch by is_causal")
        elif any(_is_handed(part, each.reading) for part in parts):
            handing.add(each.reading.node)


@once_each
def _hides_more_at_times(mask: Value) -> bool:
    """Whether a mask is a causal one in one case, or with more that is hidden, and not cut out of one."""
    return _is_triangle(mask) or (mask.op in _CHOICES and any(map(_hides_more_at_times, mask.items)))


def _is_triangle(value: Value) -> bool:
    found = causal_mask(value) if value.op not in ("const", "parameter", "size") else None
    return (
        found is not None
        and not found.is_cut
        and (found.hides_future or found.keeps_past or found.adds_to_future_alone)
    )


def _is_longer(found: Attention) -> bool:
    """Whether there may be more keys than queries: something is done to them alone, or given to them."""
    keys, queries = ([*tensor.walk()] for tensor in (found.keys, found.queries))
    done = Counter(map(_done, keys)) - Counter(map(_done, queries))
    given, own = (
        {each.key for each in some if each.op == "parameter" and getattr(each.data[1], "name", "") != "__init__"}
        for some in (keys, queries)
    )
    return any(name for name, _ in done) or (bool(own) and own < given)


def _done(value: Value) -> tuple[str, object]:
    """What may change how many there are, by its name; nothing of another operation."""
    if value.op not in _LONGER or (value.op == "cat" and value.get("dim", value).number == -1):  # type: ignore[union-attr]
        return "", None
    return value.op, value["func"].data if value.op == "call" else value.data if value.op == "attr" else None


def _is_other_mode(reading: Reading, found: Attention) -> bool:
    """Whether weights are made without gradients, or in another precision, and the weighted sum is not."""
    modes = [_modes(each) for each in (*found.made, found.softmax)]
    is_set = any(effect.kind in ("set_grad_enabled", "set_default_dtype") for effect in reading.effects)
    own = _modes(found.result)
    return is_set or any(mode - own for mode in modes)


def _modes(value: Value) -> set[ast.AST]:
    """The contexts and decorators under which a value is made that say how gradients or numbers are."""
    found: set[ast.AST] = set()
    for each in value.at.file.ancestors(value.at.node) if value.at is not None else ():
        items = [item.context_expr for item in each.items] if isinstance(each, (ast.With, ast.AsyncWith)) else []
        said = " ".join(map(ast.unparse, [*items, *getattr(each, "decorator_list", ())]))
        if _MODES.search(said):
            found.add(each)
    return found


def faults(graph: Graph, reading: Reading, call: Value) -> Iterator[str]:
    """What is wrong with a call by which torch computes attention, whatever the code does not tell."""
    if is_multihead(call):
        yield from _of_multihead(call)
        return
    mask, causal = call.get("attn_mask"), call.get("is_causal") or graph.const(False)
    mask = None if mask is None or mask.is_const(None) else mask
    may_be_causal = not causal.is_const(False, None, 0)
    if mask is not None and may_be_causal and _are_both(mask, causal):
        yield "it is given a mask, and is_causal too, of which torch takes one"
    if mask is not None and _is_inverted(mask):
        yield "its mask is True for the future, and torch lets True be seen: invert it"
    if may_be_causal and any(each.op == "unfold" for each in (call["key"], *call["key"].bases(_VIEWS))):
        yield "its keys are windows, which have more keys than queries, and is_causal counts from the first of each"
    if any(map(_has_heads_last_but_one, (call["query"], call["key"]))):
        yield "its queries or keys have heads where torch wants positions: transpose them"
    if _drops_in_evaluation(reading, call.get("dropout_p")):
        yield "it drops weights in evaluation too: give dropout_p only while training"
    if _is_scaled_twice(graph, call):
        yield "its queries or keys are scaled, and torch scales them again: give scale=1.0"
    scale = call.get("scale")
    if scale is not None and sized_as(graph, scale, call["query"], 0.5):
        yield "its scale is the root of the width, and not one over it"
    yield from _strayed(reading, mask, causal)


def _of_multihead(call: Value) -> Iterator[str]:
    """What keeps a call of nn.MultiheadAttention from scaled_dot_product_attention, or from its is_causal."""
    needed, mask, causal = (call.get(name) or call.get(at) for name, at in _ASKED.items())
    sides = () if mask is None else mask.items[1:] if mask.op == "phi" else (mask,)
    if needed is None or not needed.is_const(False):
        why = "it is asked for weights, as by default, and makes them by hand then"
        yield f"{why}: attend with need_weights=False, and have a map by a call apart"
    elif (causal is None or causal.is_const(False)) and any(each.op in _TOLD or _is_triangle(each) for each in sides):
        yield "its mask may be a causal one, which torch need not be given: say is_causal beside it, where it is"


def _are_both(mask: Value, causal: Value) -> bool:
    """Whether there are times at which there is a mask, and is_causal holds."""
    if mask.op == "phi":
        test, holds = plain_test(causal, True)
        known, is_first = plain_test(mask["test"], True)
        return test.key == known.key and not mask["yes" if holds is is_first else "no"].is_const(None)
    return mask.op not in ("parameter", "opaque", "call", "attr", "unset")


@once_each
def _is_inverted(mask: Value) -> bool:
    """Whether a mask of truth values marks the future, at some times."""
    if mask.op in ("phi", "or"):
        return any(_is_inverted(each) for each in mask.items[mask.op == "phi" :])
    found = causal_mask(mask)
    return found is not None and found.hides_future


def _has_heads_last_but_one(value: Value) -> bool:
    while value.op == "swap" and value["input"].op == "swap" and value.data == value["input"].data:
        value = value["input"]["input"]
    return value.op == "unflatten" and value["dim"].number == -1


def _drops_always(call: Call) -> bool:
    """Whether weights are dropped out by a function that is told to in evaluation too, or is not told otherwise."""
    drop = call.found.dropout if call.found is not None else None
    if drop is None or drop.op != "dropout" or "module" in drop.args or not drop.get("training", _TRUE).is_const(True):  # type: ignore[union-attr]
        return False
    return _drops_in_evaluation(call.reading, drop.get("p", _HALF))


def _drops_in_evaluation(reading: Reading, p: Value | None) -> bool:
    if p is None:
        return False
    if p.op == "phi":
        test, is_asked_for = plain_test(p["test"], True)
        return _is_training(test) and _is_probability(p["no" if is_asked_for else "yes"])
    tests = [reading.values.get(each.test) for each in walk(reading.node) if isinstance(each, ast.If)]
    asked = [part for test in tests if test is not None for part in test.walk()]
    return _is_probability(p) and not any(map(_is_training, asked))


def _is_training(value: Value) -> bool:
    return value.op == "attr" and value.data == "training"


def _is_probability(p: Value) -> bool:
    """Whether it is a number, or a setting, that is not always zero."""
    is_setting = p.op == "parameter" and getattr(p.data[1], "name", "") == "__init__"
    return is_setting or bool(p.number) or (p.op == "attr" and p.data == "p")


def _is_scaled_twice(graph: Graph, call: Value) -> bool:
    if call.get("scale") is not None and not call["scale"].is_const(None):
        return False
    for side in (call["query"], call["key"]):
        for each in (side, *side.bases(_VIEWS)):
            if each.op in ("mul", "div"):
                factor, power = each["other"], 0.5 if each.op == "div" else -0.5
                return any(sized_as(graph, factor, part, power) for part in (side, each, each["input"]))
    return False


def _strayed(reading: Reading, mask: Value | None, causal: Value) -> Iterator[str]:
    """Where a function reads whether it is to be causal, and its attention does not go by it."""
    arguments = reading.node.args if isinstance(reading.node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None
    for name in (each.arg for each in (parameters(arguments) if arguments is not None else ())):
        if name not in ("causal", "is_causal"):
            continue
        if (
            causal.op == "not"
            and causal["input"].op == "parameter"
            and causal["input"].data[1:] == (reading.node, name)
        ):
            yield f"it is causal where {name} says that it is not"
        reads = [each for each in walk(reading.node) if isinstance(each, ast.Name) and each.id == name]
        tests = [each.test for each in walk(reading.node) if isinstance(each, (ast.If, ast.IfExp))]
        is_asked = any(each in reads for test in tests for each in walk(test))
        if mask is None and causal.op == "const" and reads and not is_asked:
            yield f"whether it is causal is not what {name} says, which is read for something else"
