"""The padding of windows of attention, hidden: by the mask that there is, or in the scores.

Each way gives edits that may do; which of them does is seen in what the edited code computes.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import combinations

from ..reading.files import File
from ..reading.frames import Reading
from ..reading.loops import Turns
from ..reading.masked import is_float_mask
from ..reading.nodes import walk
from ..reading.source import Source
from ..reading.spots import Pair, Spot, Spotted
from ..reading.tensors import Impossible, Number, Tensor, Unknown
from ..reading.values import Value
from ..reading.windows import Case, parts_of
from ..task import Edit
from .attention import WIDTH, called, masking
from .classes import more_arguments
from .edits import insert_after, insert_before, rewrite
from .handing import parameter_from
from .spent import names_in
from .windows import Unwritten


class Names:
    """What a function calls numbers in front of a statement: those names that are these numbers in all cases."""

    def __init__(self, reading: Reading, softmax: Value, cases: Sequence[Case], at: ast.stmt) -> None:
        self._env = reading.before.get(at, {})
        own = next((name for name, known in self._env.items() if known.op == "self"), "")
        attributes = {f"{own}.{name}": value for name, value in reading.attributes.items() if own}
        self._named = {**self._env, **attributes}
        self._scope = reading.file.scopes[reading.node]
        self._cases = cases
        self._turns = [
            (case, turns, tensor) for case in cases for each, turns, tensor in case.weights if each.key == softmax.key
        ]
        self.is_in_loop = any(turns for _, turns, _ in self._turns)

    @cached_property
    def width(self) -> str | None:
        """How many keys a window of a loop has."""
        return self._sum([(case, turns, tensor.shape[-1]) for case, turns, tensor in self._turns])

    def padding(self, name: str, *, is_cut: bool = True) -> Iterator[str]:
        """What says which keys are padding, cut to as many as there are, in every shape. Raises Unwritten."""
        windows = [_window(case) for case in self._cases]
        length = self._name([(case, {}, case.small.length) for case in self._cases]) or self._size()
        chunk, overlap = (
            self._name([(case, {}, found[place]) for case, found in zip(self._cases, windows, strict=True)])
            for place in (0, 1)
        )
        for text, what in ((length, "the sequence's length"), (chunk, "the chunk"), (overlap, "the overlap")):
            if text is None:
                raise Unwritten(f"no name for {what} there: name it first")
        text = f"{name}({length}, {chunk}, {overlap}, {{0}}.device)"
        if not self.is_in_loop:
            yield from (text, f"{text}.unsqueeze(2)")
            return
        starts = [(case, turns, _first(tensor)) for case, turns, tensor in self._turns]
        window, start = self._name([(c, t, n and n[1]) for c, t, n in _numbered(starts, windows, self._cases)]), None
        if window is None:
            start = self._name([(c, t, n and n[0]) for c, t, n in _numbered(starts, windows, self._cases)])
        if (window is None and start is None) or (is_cut and self.width is None):
            raise Unwritten("no name for the window's number or width there: name it first")
        yield f"{text}[0, {window or f'{start} // {chunk}'}" + (f", :, :{self.width}]" if is_cut else "]")

    def is_taken(self, name: str) -> bool:
        """Whether a name means something in the function already."""
        return self._scope.is_taken(name)

    def tensor(self) -> str | None:
        """A tensor that is on the same device."""
        for name, value in self._env.items():
            is_known = value.op not in ("parameter", "self", "function", "const")
            if not is_known and not any(value.key in case.small.leaves for case in self._cases):
                continue
            with suppress(Unknown, IndexError, Impossible):
                case, turns, _ = self._turns[0]
                with case.small.within(turns):
                    if any(isinstance(each, Spot) for each in case.small.tensor(value).data):
                        return name
        return None

    def _size(self) -> str | None:
        small = self._cases[0].small
        for name, value in self._env.items():
            if value.op == "parameter" and value.key in small.leaves:
                rank = small.ranks.get(value.key, small.layout.rank)
                return f"{name}.size({small.layout.dim if rank == small.layout.rank else rank - 2})"
        return None

    def _name(self, wanted: Sequence[tuple[Case, Turns, int | None]]) -> str | None:
        return next((name for name, value in self._named.items() if _fits([value], wanted)), None)

    def _sum(self, wanted: Sequence[tuple[Case, Turns, int | None]]) -> str | None:
        """A name, or two whose sum it is, or a tensor of so many keys."""
        name = self._name(wanted)
        pairs = combinations(self._named.items(), 2) if name is None else ()
        sums = (f" {a} + {b}" for (a, x), (b, y) in pairs if _fits([x, y], wanted))
        every = self._named.items()
        keys = (f"{a}.size(-2)" for a, x in every if _fits([x], wanted, lambda s, of: s.tensor(of).shape[-2]))
        return name or next(sums, None) or next(keys, None)


def _first(tensor: Tensor) -> int | None:
    """The first position whose query a window holds."""
    marks: Sequence[object] = tensor.data
    return min((each.query for each in marks if isinstance(each, Pair) and each.query is not None), default=None)


def _numbered(
    starts: Sequence[tuple[Case, Turns, int | None]],
    windows: Sequence[tuple[int | None, int | None]],
    cases: Sequence[Case],
) -> Iterator[tuple[Case, Turns, tuple[int, int] | None]]:
    """Where each window starts, and its number."""
    chunks = {id(case): chunk for case, (chunk, _) in zip(cases, windows, strict=True)}
    for case, turns, start in starts:
        chunk = chunks[id(case)] or (None if start else 1)
        yield case, turns, None if start is None or chunk is None else (start, start // chunk)


def _window(case: Case) -> tuple[int | None, int | None]:
    """The chunk and the overlap of a case's windows, as far as its weights show them."""
    found: dict[int, int] = {}
    for _, _, tensor in case.weights:
        for place, element in enumerate(tensor.data):
            if isinstance(element, Pair) and element.query is not None and element.query == element.key:
                found.setdefault(element.query, place % tensor.shape[-1])
    overlap = found.get(0)
    return next((query for query in sorted(found) if query and found[query] == overlap), None), overlap


def _fits(
    values: Sequence[Value],
    wanted: Sequence[tuple[Case, Turns, int | None]],
    number_of: Callable[[Spotted, Value], Number] = Spotted.number,
) -> bool:
    """Whether the sum of some values is a number in all cases where it is known."""
    known = [(case.small, turns, number) for case, turns, number in wanted if number is not None]
    try:
        for small, turns, number in known:
            with small.within(turns):
                found = [number_of(small, each) for each in values]
            if any(isinstance(each, (bool, float)) for each in found) or sum(found) != number:
                return False
    except (Unknown, IndexError, Impossible):
        return False
    return bool(known)


def hidden(
    source: Source, reading: Reading, leaks: Sequence[Value], cases: Sequence[Case], name: str
) -> Iterator[list[Edit]]:
    """Hide windows' padding by a mask of a name, or else in scores and masks without one: in every way that may be.

    Raises Unwritten where there is none.
    """
    problem, is_any = Unwritten("no mask or scores of a name there: name it first"), False
    for ways in [
        *(_in_masks(source, reading, each, cases, name) for each in leaks),
        _apart(source, reading, leaks, cases, name),
        _handed(source, reading, leaks[0], cases, name) if len(leaks) == 1 else (),
    ]:
        try:
            for edits in ways:
                is_any = True
                yield edits
        except Unwritten as unwritten:
            problem = unwritten
    if not is_any:
        raise problem


def _in_masks(
    source: Source, reading: Reading, softmax: Value, cases: Sequence[Case], name: str
) -> Iterator[list[Edit]]:
    """Hide padding by the mask that an attention has, behind what sets it."""
    problem = None
    for mask, kind in parts_of(softmax):
        for use in _names_of(reading, mask):
            setting = _setting(reading.file, reading, use)
            if setting is None:
                continue
            try:
                for texts in _texts(kind, use.id, Names(reading, softmax, cases, _next(reading, setting)), name):
                    yield [insert_after(source, source.at(setting), *texts)]
            except Unwritten as unwritten:
                problem = unwritten
    if problem is not None:
        raise problem


def _apart(
    source: Source, reading: Reading, leaks: Sequence[Value], cases: Sequence[Case], name: str
) -> Iterator[list[Edit]]:
    """Hide padding by a mask of its own: in the scores of each softmax, and in what each call of torch's is given."""
    edits, places = list[Edit](), list[ast.stmt]()
    for each in sorted(leaks, key=lambda leak: leak.op):
        call = each.at.node if each.at is not None and each.at.node in reading.values else None
        own = _in_call(source, reading, call) if each.op != "softmax" and isinstance(call, ast.Call) else None
        scores = next(_weighing(reading, each), None)
        if own is None and scores is None:
            raise Unwritten("no mask or scores of a name there: name it first")
        if own is not None:
            places.append(reading.file.statement(call))  # type: ignore[arg-type]
            edits.append(own)
        elif scores is not None:
            places.append(scores[1])
            text = f'{scores[0]} = {scores[0]}.masked_fill(padding, float("-inf"))'
            edits.append(insert_before(source, source.at(scores[1]), text))
    names = Names(reading, leaks[0], cases, places[0])
    tensor = names.tensor()
    if tensor is None or names.is_taken("padding"):
        raise Unwritten("the name padding is taken: rename yours" if tensor else "no tensor of a name there: name one")
    for padding in names.padding(name):
        yield [_set_above(source, reading, places[0], f"padding = {padding.format(tensor)}"), *edits]


def _handed(source: Source, reading: Reading, softmax: Value, cases: Sequence[Case], name: str) -> Iterator[list[Edit]]:
    """Hide padding where the function weighs that is called for a window, by a mask that it is handed."""
    file, at = reading.file, softmax.at.node if softmax.at is not None else None
    home = file.function(at) if at in file.parents and at not in reading.values else None
    calls = [call for call, function in reading.calls.items() if function is home]
    given = [*at.args, getattr(at.func, "value", None)] if isinstance(at, ast.Call) else []
    scores = next((each.id for each in given if isinstance(each, ast.Name) and each.id != "self"), None)
    if home is None or len(calls) != 1 or scores is None:
        return
    statement = file.statement(calls[0])
    names = Names(reading, softmax, cases, statement)
    tensor = names.tensor()
    if tensor is None or names.is_taken("padding") or file.scopes[home].is_taken("padding"):
        raise Unwritten("the name padding is taken: rename yours" if tensor else "no tensor of a name there: name one")
    is_cut = names.width is not None or not names.is_in_loop
    own = "padding" if is_cut else f"padding[:, : {scores}.size(-1)]"
    hiding = f'if padding is not None:\n    {scores} = {scores}.masked_fill({own}, float("-inf"))'
    edits = [*parameter_from("padding=None")(source, source.at(home)).edits]  # type: ignore[arg-type]
    edits += [insert_before(source, source.at(file.statement(at)), hiding)]  # type: ignore[arg-type]
    edits += [more_arguments(source, source.at(calls[0]), {"padding": "padding"})]  # type: ignore[arg-type]
    for padding in names.padding(name, is_cut=is_cut):
        yield [_set_above(source, reading, statement, f"padding = {padding.format(tensor)}"), *edits]


def _in_call(source: Source, reading: Reading, call: ast.Call) -> Edit | None:
    """Hide padding in what torch is given as a mask; None where it is asked for a causal one beside it."""
    file = reading.file
    given = {each.arg: each.value for each in call.keywords}
    mask = given.pop("attn_mask", None)
    places = [file.text(each) for each in call.args]
    if len(places) != 3 or "is_causal" in given or None in given:  # noqa: PLR2004 - queries, keys and values
        return None
    is_choice = isinstance(mask, ast.IfExp) and isinstance(mask.orelse, ast.Constant) and mask.orelse.value is None
    own = mask.body if isinstance(mask, ast.IfExp) and is_choice else mask
    hides = isinstance(own, ast.UnaryOp) and isinstance(own.op, ast.Invert)
    kind = "hides" if hides else "added" if own is not None and is_float_mask(reading.values[own]) else "keeps"
    texts = [(file.text(own.operand if isinstance(own, ast.UnaryOp) and hides else own), kind)] if own else []
    text, alone = masking([*texts, ("padding", "hides")]), masking([("padding", "hides")])
    text = f"{text} if {file.text(mask.test)} else {alone}" if isinstance(mask, ast.IfExp) and is_choice else text
    rest = [f"{name}={file.text(each)}" for name, each in given.items()]
    whole = called(source, call, file.statement(call), file.text(call.func), [*places, f"attn_mask={text}", *rest])
    return rewrite(source, source.at(call), lambda _: whole)  # type: ignore[arg-type]


def _set_above(source: Source, reading: Reading, statement: ast.stmt, text: str) -> Edit:
    """Put a statement behind the last that sets what it uses, in the block of another; or at that block's head."""
    parent = reading.file.parents[statement]
    blocks = [block for _, block in ast.iter_fields(parent) if isinstance(block, list) and statement in block]
    above = blocks[0][: blocks[0].index(statement)]
    used = names_in(text)
    setting = [
        each
        for each in above
        if any(
            isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in used for node in walk(each)
        )
    ]
    if setting:
        return insert_after(source, source.at(setting[-1]), text)
    is_docstring = isinstance(blocks[0][0], ast.Expr) and isinstance(blocks[0][0].value, ast.Constant)
    return insert_before(source, source.at(blocks[0][is_docstring]), text)


def _in_lines(scores: str, padding: str, indent: int) -> str:
    text = f'{scores} = {scores}.masked_fill({padding}, float("-inf"))'
    return text if indent + len(text) <= WIDTH else f'{scores} = {scores}.masked_fill(\n    {padding}, float("-inf")\n)'


def _texts(kind: str, mask: str, names: Names, name: str) -> Iterator[list[str]]:
    """What hides padding by a mask once it is set; one that may be None is made."""
    tensor = names.tensor()
    for padding in names.padding(name):
        own = padding.format(mask)
        match kind:
            case "hides":
                yield [f"{mask} = {mask} | {own}"]
            case "keeps":
                yield [f"{mask} = {mask} & ~{own}"]
            case "added":
                yield [_in_lines(mask, own, 8)]
        if tensor is not None and not names.is_taken("padding"):
            made = f"padding = {padding.format(tensor)}"
            if kind == "hides":
                yield [made, f"{mask} = padding if {mask} is None else {mask} | padding"]
            elif kind == "keeps":
                yield [made, f"{mask} = ~padding if {mask} is None else {mask} & ~padding"]
            else:
                base = f"({tensor}.new_zeros(1) if {mask} is None else {mask})"
                yield [made, f'{mask} = {base}.masked_fill(padding, float("-inf"))']


def _next(reading: Reading, statement: ast.stmt) -> ast.stmt:
    """The statement behind one, where names mean what it made of them."""
    block = reading.file.parents[statement]
    for field in ("body", "orelse"):
        lines = getattr(block, field, None)
        if isinstance(lines, list) and statement in lines[:-1]:
            return lines[lines.index(statement) + 1]  # type: ignore[no-any-return]
    return statement


def _names_of(reading: Reading, mask: Value) -> Iterator[ast.Name]:
    """The names by which a function of its own reads a mask."""
    seen = set()
    for node, value in reading.values.items():
        is_use = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and value.key == mask.key
        if is_use and node.id not in seen:  # type: ignore[attr-defined]
            seen.add(node.id)  # type: ignore[attr-defined]
            yield node  # type: ignore[misc]


def _setting(file: File, reading: Reading, use: ast.Name) -> ast.stmt | None:
    """The last statement that sets a name in the block in which it is read, or around that, where it is always set."""
    scope = file.scopes[reading.node]
    bound = [node for node in ast.walk(reading.node) if isinstance(node, ast.Name) and node.id == use.id]
    bound = [node for node in bound if isinstance(node.ctx, ast.Store)]
    if use.id in scope.elsewhere or not bound:
        return None
    block = file.parents[file.statement(use)]
    while not isinstance(block, ast.Module):
        tops = [each for each in getattr(block, "body", []) if isinstance(each, ast.stmt)]
        setting = [top for top in tops if any(top in file.ancestors(node) for node in bound)]
        setting = [top for top in setting if top.lineno < use.lineno]
        if setting and any(file.statement(node) is setting[0] for node in bound):
            return setting[-1]
        if block is reading.node:
            return None
        block = file.parents[block]
    return None


def _weighing(reading: Reading, softmax: Value) -> Iterator[tuple[str, ast.stmt]]:
    """The name of the scores that a softmax in a function's own text is taken of, and its statement."""
    at = softmax.at
    call = at.node if at is not None and softmax.op == "softmax" and at.node in reading.values else None
    if not isinstance(call, ast.Call):
        return
    given = [*call.args, *(each.value for each in call.keywords), getattr(call.func, "value", None)]
    for each in given:
        if isinstance(each, ast.Name) and reading.values[each].key == softmax["input"].key:
            yield each.id, reading.file.statement(call)
