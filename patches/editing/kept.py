"""More for an object, a record or a module's dict to keep: where it begins, is put back, is saved and is loaded."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import libcst as cst

from ..reading.classes import constructor_of, names_of
from ..reading.code import Code
from ..reading.files import File, Function
from ..reading.names import parameters
from ..reading.playing.figures import Figures
from ..reading.playing.kinds import Raised
from ..reading.source import Source
from ..reading.tensors import Unknown
from ..task import Edit
from .classes import more_arguments, more_entries, more_method, more_parameters, node_of, put_behind
from .edits import insert_after, operand, rewrite


@dataclass(frozen=True, slots=True)
class Holder:
    """What keeps things: a class, or the display that a name of a module stands for; `flags` are those it keeps."""

    source: Source
    file: File
    node: ast.ClassDef | ast.Dict
    flags: Mapping[str, Any]  # and what each of them is at first
    code: Code
    name: str = ""  # of a module's dict
    is_record: bool = False  # whether functions of the module are given its objects, and it has no methods for that

    def form(self, function: Function) -> str:
        """How a function writes what is kept, with {} for its name."""
        if isinstance(self.node, ast.Dict):
            key = next(each for each in self.node.keys if isinstance(each, ast.Constant))
            quote = self.file.text(key)[0]
            return f"{self.name}[{quote}{{}}{quote}]"
        return f"{parameters(function.args)[0].arg}.{{}}"

    @property
    def functions(self) -> list[Function]:
        """The methods of the class, or the functions of the module."""
        body = self.node.body if isinstance(self.node, ast.ClassDef) and not self.is_record else self.file.module.body
        return [each for each in body if isinstance(each, ast.FunctionDef)]

    def taken(self, names: Sequence[str]) -> list[str]:
        """Those of some names that stand for something already."""
        if isinstance(self.node, ast.Dict):
            return sorted({*names} & {str(getattr(key, "value", "")) for key in self.node.keys})
        own, setup = names_of(self.node), constructor_of(self.node)
        given = {each.arg for each in parameters(setup.args)} if setup is not None else set()
        return sorted({*names} & (own.methods | own.stored | own.on_self | given | self.flags.keys()))


def in_form(text: str, form: str) -> str:
    """A line about self's attributes as one about what is kept elsewhere."""
    return re.sub(r"\bself\.(\w+)", lambda found: form.format(found[1]), text)


def begins(
    holder: Holder, behind: str, settings: Sequence[cst.Param], lines: Sequence[str], state: Mapping[str, str]
) -> Iterator[Edit]:
    """Keep more from the start: settings, which may be told, and a state, which begins as it says.

    `behind` is the attribute behind which a constructor sets them, by the lines.
    """
    source, node = holder.source, holder.node
    defaults = {each.name.value: source.module.code_for_node(each.default) for each in settings if each.default}
    if isinstance(node, ast.Dict):
        values = defaults | {name: text.partition(" = ")[2] for name, text in state.items()}
        yield more_entries(source, source.at(node), values)  # type: ignore[arg-type]
        return
    setup = constructor_of(node)
    if setup is None:
        fields = [each for each in node.body if isinstance(each, (ast.AnnAssign, ast.Assign))]
        hints = {
            each.name.value: source.module.code_for_node(each.annotation.annotation)
            for each in settings
            if each.annotation
        }
        new = [f"{name}: {hints[name]} = {text}" for name, text in defaults.items()]
        yield insert_after(source, source.at(fields[-1]), *new, *state.values())
        return
    statements = [each for each in ast.walk(setup) if isinstance(each, ast.stmt)]
    pairs = [(target, each) for each in statements for target, _ in _pairs(each)]
    place = next(each for target, each in pairs if isinstance(target, ast.Attribute) and target.attr == behind)
    function = source.at(setup)
    assert isinstance(function, cst.FunctionDef)
    yield more_parameters(source, function, settings)
    yield put_behind(source, node_of(source, place), *(in_form(each, holder.form(setup)) for each in lines))


def put_back(holder: Holder, but: Function, line: str, first: Mapping[str, str]) -> Iterator[Edit]:
    """Put back what is kept wherever a flag is: by a line, or by the first values where a record is replaced."""
    for function in holder.functions:
        is_other = function is not but and function.name != "__init__"
        for node in ast.walk(function) if is_other else ():
            for target, value in _pairs(node):
                flag = _flag_of(holder, function, target)
                if value is not None and _is_first(holder, flag, value):
                    text = in_form(line, holder.form(function))
                    yield put_behind(holder.source, node_of(holder.source, node), text)  # type: ignore[arg-type]
            match node:
                case ast.Call(keywords=keywords) if holder.is_record and any(
                    _is_first(holder, each.arg or "", each.value) for each in keywords
                ):
                    yield more_arguments(holder.source, holder.source.at(node), first)  # type: ignore[arg-type]


def _is_first(holder: Holder, name: str, value: ast.expr) -> bool:
    """Whether a value is what is kept at first under a name."""
    with suppress(Unknown, Raised):
        return name in holder.flags and bool(
            holder.flags[name] == Figures(holder.code).expression(holder.file.path, value, {})
        )
    return False


def _flag_of(holder: Holder, function: Function, target: ast.expr) -> str:
    """The name under which a target is kept."""
    match target:
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if isinstance(holder.node, ast.ClassDef):
            own = parameters(function.args)[:1]
            return name if own and own[0].arg == owner else ""
        case ast.Subscript(value=ast.Name(id=holder.name), slice=ast.Constant(value=str(name))):
            return name
    return ""


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Target and value of an assignment; the parts of a tuple by themselves, their values where they are known."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    value = getattr(node, "value", None)
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        values = value.elts if isinstance(value, ast.Tuple) and len(parts) > 1 else [value] * len(parts)
        is_known = len(values) == len(parts) and (len(parts) == 1 or isinstance(value, ast.Tuple))
        yield from zip(parts, values if is_known else [None] * len(parts), strict=True)


def inherited_back(holder: Holder, functions: Sequence[Function], line: str) -> Iterator[Edit]:
    """Methods over those that a base has, which put back what the class itself keeps."""
    assert isinstance(holder.node, ast.ClassDef)
    last = holder.source.at(holder.node.body[-1])
    for each in functions:
        head = f"def {each.name}({ast.unparse(each.args)}){f' -> {ast.unparse(each.returns)}' if each.returns else ''}:"
        text = f"{head}\n    super().{each.name}()\n    {in_form(line, holder.form(each))}"
        yield more_method(holder.source, last, text)


def saved(holder: Holder, save: Function, names: Sequence[str]) -> Edit | None:
    """Hand out more with what a function hands out; None where that is not one expression."""
    returns = [each for each in ast.walk(save) if isinstance(each, ast.Return) and each.value is not None]
    if len(returns) != 1 or returns[0].value is None:
        return None
    display, form = returns[0].value, holder.form(save)
    new = {name: form.format(name) for name in names}
    node = holder.source.at(display)
    if isinstance(display, ast.Dict) or (
        isinstance(display, ast.Call) and getattr(display.func, "id", "") == "dict" and not display.args
    ):
        return more_entries(holder.source, node, new)  # type: ignore[arg-type]
    entries = ", ".join(f'"{name}": {text}' for name, text in new.items())
    whole = operand(holder.source, node)
    return rewrite(holder.source, node, lambda _: f"{{**{whole}, {entries}}}")  # type: ignore[arg-type]


def loaded(holder: Holder, load: Function, line: str) -> Edit:
    """Take up more of what a function is given, by a line about `state`."""
    given = parameters(load.args)[-1].arg
    text = re.sub(r"\bstate\b", given, in_form(line, holder.form(load)))
    return put_behind(holder.source, node_of(holder.source, load.body[-1]), text)
