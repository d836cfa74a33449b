"""Recognise rows of bits: the text file that the bits encode, and how rows are cut from them."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from .matchers import calls_builtin, elements, index_of, is_inside, is_method, is_number, operation, same_code
from .members import assignments
from .source import Source

CUT = "bits_to_rows"
CUTS = (CUT, "view", "reshape", "unfold", "tensor", "stack")


def text_file_of(source: Source, text: cst.BaseExpression) -> tuple[str, str]:
    """The path of the file that a text is, or is a line of, and what forbids to encode the file instead."""
    value = known(source, text)
    opened = None
    if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute):
        if is_method(value, "read_text"):
            return source.code(value.func.value), _decoded(source, value)
        opened = opened_by(source, value.func.value) if is_method(value, "read") else None
    if isinstance(value, cst.Name):
        loop = next((b.node for b in source.names.bindings(value.value, value) if isinstance(b.node, cst.For)), None)
        opened = opened_by(source, loop.iter) if loop is not None else None
        if loop is not None and opened is not None and not _is_all_of(source, text, loop):
            return _path(source, opened), "their loop does more than encode each line"
    if opened is not None:
        return _path(source, opened), _decoded(source, opened)
    inner = [node for node in source.walk(cst.BaseExpression, inside=value) if node is not value]  # type: ignore[type-abstract]
    inner = [node for node in inner if isinstance(node, (cst.Name, cst.Call))]
    path = next(filter(None, (text_file_of(source, node)[0] for node in inner)), "")
    return path, "the text is changed before it is encoded" if path else ""


def _is_all_of(source: Source, node: cst.CSTNode, loop: cst.For) -> bool:
    """Whether a loop does nothing but the one statement that a node stands in."""
    statement = source.statement(node)
    return len(loop.body.body) == 1 and (statement is loop or source.parents[statement] is loop.body)


def known(source: Source, node: cst.BaseExpression) -> cst.BaseExpression:
    """What a name was last given, through any number of names, where nothing but a with is between."""
    while isinstance(node, cst.Name):
        before = [b for b in source.names.bindings(node.value, node) if source.order[b.node] < source.order[node]]
        before = [b for b in before if b.value is None or not is_inside(source, node, b.node)]
        if not before or before[-1].value is None:
            return node
        around = set(source.ancestors(node))
        place = source.statement(before[-1].node)
        while source.parents[place] not in around:
            place = source.enclosing(place, cst.BaseCompoundStatement)
            if not isinstance(place, cst.With):
                return node
        node = before[-1].value
    return node


def opened_by(source: Source, file: cst.BaseExpression) -> cst.Call | None:
    """The call that opens a file: `open(path)` or `path.open()`, by itself or under a with."""
    file = known(source, file)
    if isinstance(file, cst.Name):
        bound = [binding.node for binding in source.names.bindings(file.value, file)]
        items = [node.item for node in bound if isinstance(node, cst.WithItem)]
        return opened_by(source, items[0]) if len(items) == len(bound) == 1 else None
    return file if calls_builtin(source, file, "open") or is_method(file, "open") else None  # type: ignore[return-value]


def _path(source: Source, opened: cst.Call) -> str:
    if isinstance(opened.func, cst.Attribute):
        return source.code(opened.func.value)
    if not opened.args:
        return source.code(opened)
    path = opened.args[0].value
    bound = [each.node for each in source.names.bindings(path.value, path)] if isinstance(path, cst.Name) else []
    notes = [node.annotation for node in bound if isinstance(node, cst.Param) and node.annotation is not None]
    is_path = any("Path" in source.code(note.annotation) for note in notes) and "str" not in source.code(
        notes[0].annotation
    )
    made = known(source, path)
    is_made = isinstance(made, cst.Call) and source.code(made.func).split(".")[-1] == "Path"
    return source.code(path) if is_path or is_made else f"Path({source.code(path)})"


def _decoded(source: Source, call: cst.Call) -> str:
    """What forbids to read a text as UTF-8."""
    named = {argument.keyword.value: argument.value for argument in call.args if argument.keyword is not None}
    encoding = named.get("encoding")
    spelled = source.code(encoding).strip("'\"").lower().replace("_", "-") if encoding is not None else "utf-8"
    if spelled not in ("utf-8", "utf8") or "errors" in named:
        return "the file is not decoded as plain UTF-8"
    modes = [argument.value for argument in call.args if isinstance(argument.value, cst.SimpleString)]
    is_binary = any(
        "b" in source.code(mode) for mode in modes if mode is not encoding and "mode" not in source.code(mode)
    )
    return "the file is opened as bytes" if is_binary and not is_method(call, "read_text") else ""


def row_cuts(source: Source) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression, cst.BaseExpression]]:
    """What cuts bits into rows: the rows, the bits, and the length of a row."""
    for call in source.walk(cst.Call, having=CUTS):
        made = operation(source, call)
        bare = [argument.value for argument in call.args]
        if (source.names.qualified(call.func) or "").split(".")[-1] == CUT and len(bare) == 2:  # noqa: PLR2004
            yield call, bare[0], bare[1]
        elif made is not None and made.name in ("view", "reshape") and made.is_method:
            sizes = made.operands[1:] if len(made.operands) > 2 else elements(made.operands[-1])  # noqa: PLR2004
            if len(sizes) == 2:  # noqa: PLR2004 - rows and bits
                yield call, made.operands[0], sizes[1]
        elif made is not None and made.name == "unfold" and len(made.operands) == 4:  # noqa: PLR2004
            tensor, dim, size, step = made.operands
            if is_number(dim, 0) and same_code(source, size, step):
                yield call, tensor, size
        elif made is not None and made.name in ("tensor", "stack") and bare and isinstance(bare[0], cst.ListComp):
            yield from _slices(source, call, bare[0])


def _slices(
    source: Source, call: cst.Call, rows: cst.ListComp
) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression, cst.BaseExpression]]:
    """`[bits[i : i + length] for i in range(0, len(bits) - length + 1, length)]`, perhaps of tensors."""
    cut = next(iter(source.walk(cst.Subscript, inside=rows.elt)), None)
    steps = [argument.value for argument in getattr(known(source, rows.for_in.iter), "args", ())]
    if cut is None or len(steps) != 3 or not isinstance(index := index_of(cut)[0], cst.Slice):  # noqa: PLR2004
        return
    item, bits, length = (source.code(node) for node in (rows.for_in.target, cut.value, steps[2]))
    bounds = [source.code(bound).replace(" ", "") for bound in (index.lower, index.upper) if bound is not None]
    whole = source.code(known(source, steps[1])).replace(" ", "") == f"len({bits})-{length}+1".replace(" ", "")
    if bounds == [item, f"{item}+{length}".replace(" ", "")] and whole and is_number(steps[0], 0):
        yield call, cut.value, steps[2]


def bits_origin(source: Source, bits: cst.BaseExpression) -> cst.CSTNode | None:
    """The call that encoded some bits: through names, cuts of their tail, tensors, and a list that it extends."""
    value = known(source, bits)
    if isinstance(bits, cst.Name):
        added, is_list = _added(source, bits), isinstance(value, cst.List) and not value.elements
        if added or is_list:
            return added[0] if len(added) == 1 and (is_list or value is bits) else None
    made = operation(source, value)
    if isinstance(value, cst.Subscript):
        index = index_of(value)[0]
        is_head = isinstance(index, cst.Slice) and (index.lower is None or is_number(index.lower, 0))
        return bits_origin(source, value.value) if is_head and len(value.slice) == 1 else None
    if made is not None and made.name in ("tensor", "as_tensor", "LongTensor") and not made.is_method:
        dtype = made.keywords.get("dtype")
        is_long = dtype is None or source.names.qualified(dtype) in ("torch.long", "torch.int64")
        return bits_origin(source, made.operands[0]) if is_long and made.operands else None
    return value if isinstance(value, cst.Call) else None


def _added(source: Source, name: cst.Name) -> list[cst.BaseExpression]:
    """What a list is extended by."""
    function = source.function(name)
    calls = [c for c in source.walk(cst.Call, inside=function) if is_method(c, "extend", "append", "insert")]
    found = [call.args[-1].value for call in calls if call.args and source.code(call.func.value) == name.value]  # type: ignore[attr-defined]
    for target, value, node in assignments(source, function) if function is not None else ():
        if isinstance(node, cst.AugAssign) and source.code(target) == name.value and value is not None:
            found.append(value)
    return found
