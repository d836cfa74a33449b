"""Small wrong changes of Python code: each operator says what may stand in the place of a node.

An operator takes a node and the nodes around it, outermost first, and yields changes: text for a node, or for all from
one node to a later one. What is annotated, and what only tells somebody something, is left alone.
"""

import contextlib
import functools
import textwrap
import types
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import libcst as cst
import libcst.matchers as m
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

Around = Sequence[cst.CSTNode]
EMPTY = cst.Module([])
DOCSTRING = m.SimpleStatementLine([m.Expr(m.SimpleString() | m.ConcatenatedString())])
ADD_ARGUMENT = m.SimpleStatementLine([m.Expr(m.Call(m.Attribute(attr=m.Name("add_argument"))))])
METHOD = m.Call(m.Attribute(m.Name()))
TOLD = {"help", "description", "prog", "epilog", "message"}  # keywords of what is said to somebody
COMPARISONS = {"<": "<= >=", "<=": "< >", ">": ">= <=", ">=": "> <", "==": "!=", "!=": "=="}
COMPARISONS |= {"is": "is_not", "is not": "is", "in": "not_in", "not in": "in"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "//", "**": "*", "|": "&", "&": "|", "<<": ">>"}
ARITHMETIC |= {"+=": "-=", "-=": "+=", "*=": "/="}


@dataclass(frozen=True, slots=True)
class Change:
    """Text in the place of a node, or of all up to another; `at` is the part of it that is meant."""

    first: cst.CSTNode
    text: str
    last: cst.CSTNode | None = None
    at: cst.CSTNode | None = None


Operator = Callable[[cst.CSTNode, Around], Iterator[Change]]
OPERATORS: dict[str, Operator] = {}


def operator(function: Operator) -> Operator:
    """Register an operator by the name of its function."""
    OPERATORS[function.__name__.replace("_", "-")] = function
    return function


@dataclass(frozen=True, slots=True)
class Mutation:
    """A file's text with one change in it, found again by `name` as long as its function has that code."""

    name: str
    operator: str
    lines: range  # that are changed
    start: tuple[int, int]  # from this line and column
    end: tuple[int, int]  # to this one `after` stands for `before`
    before: str
    after: str
    text: str  # of the whole file


def mutations(
    text: str,
    stem: str,
    lines: Container[int],
    names: Container[str] = (),
    operators: Mapping[str, Operator] = OPERATORS,
) -> Iterator[Mutation]:
    """The mutations of some lines of a file, or only some by name; each of other bytecode than the file and the rest."""
    raw = text.encode()
    wrapper = MetadataWrapper(cst.parse_module(raw), unsafe_skip_copy=True)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    seen, counts = {essence(compile(text, stem, "exec"))}, Counter[str]()
    for node, around in walk(wrapper.module):
        scopes = [each.name.value for each in around if isinstance(each, cst.FunctionDef | cst.ClassDef)]
        for kind, function in operators.items():
            for change in function(node, around):
                at, last = spans[change.at or change.first], spans[change.last or change.first]
                start, end = spans[change.first].start, last.start + last.length
                before, after = raw[start:end].decode(), indented(change.text, raw, start)
                digest = sha256(f"{before} {after}".encode()).hexdigest()[:6]
                name = ".".join([stem, *scopes, kind, digest])
                counts[name] += 1  # the same change of the same code may be there once more
                name = f"{name}.{counts[name]}"
                stop = end if change.last else at.start + at.length
                changed = range(position(raw, at.start)[0], position(raw, stop)[0] + 1)
                if not any(line in lines for line in changed) or (names and name not in names):
                    continue
                mutant = raw[:start].decode() + after + raw[end:].decode()
                with contextlib.suppress(SyntaxError):  # a break outside of its loop, an argument after a keyword
                    does = essence(compile(mutant, stem, "exec"))
                    if does not in seen:
                        seen.add(does)
                        place = position(raw, start), position(raw, end)
                        yield Mutation(name, kind, changed, *place, before, after, mutant)


def position(raw: bytes, byte: int) -> tuple[int, int]:
    """Line and column, from 1, of a byte of a text."""
    return raw.count(b"\n", 0, byte) + 1, len(raw[raw.rfind(b"\n", 0, byte) + 1 : byte].decode()) + 1


def walk(node: cst.CSTNode, around: tuple[cst.CSTNode, ...] = ()) -> Iterator[tuple[cst.CSTNode, Around]]:
    """A node and all under it that does something, each with what is around it."""
    if isinstance(node, cst.Annotation | cst.FormattedString | cst.Import | cst.ImportFrom):
        return
    if m.matches(node, m.Arg(keyword=m.Name(m.MatchIfTrue(TOLD.__contains__))) | m.Call(m.Name("print"))):
        return
    if m.matches(node, m.Expr(m.SimpleString() | m.ConcatenatedString()) | m.If(m.Comparison(m.Name("__name__")))):
        return
    yield node, around
    for child in node.children:
        yield from walk(child, (*around, node))


def essence(code: types.CodeType) -> tuple[object, ...]:
    """What a code object does, without where its lines are."""
    constants = tuple(
        essence(each) if isinstance(each, types.CodeType) else (type(each).__name__, repr(each))
        for each in code.co_consts
    )
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return code.co_name, code.co_code, code.co_exceptiontable, constants, names, counts


def code(node: cst.CSTNode) -> str:
    """A node's text, as if it were not indented and nothing stood above it."""
    if hasattr(node, "leading_lines"):
        node = node.with_changes(leading_lines=())
    return EMPTY.code_for_node(node).strip()


def indented(text: str, raw: bytes, start: int) -> str:
    """Text whose further lines are indented as the line is that a place is on."""
    line = raw[raw.rfind(b"\n", 0, start) + 1 : start].decode()
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.indent(text, indent)[len(indent) :]


def function_around(around: Around) -> cst.FunctionDef | None:
    return next((node for node in reversed(around) if isinstance(node, cst.FunctionDef)), None)


@functools.cache
def bound(function: cst.FunctionDef) -> list[str]:
    """The names that a function binds, as often as it does."""
    places = m.findall(function, m.Param() | m.AssignTarget() | m.For() | m.AsName())
    targets = [each.target if hasattr(each, "target") else each.name for each in places]
    return [name.value for target in targets for name in m.findall(target, m.Name())]


@functools.cache
def receivers(function: cst.FunctionDef) -> list[cst.CSTNode]:
    """The methods of plain names that a function calls."""
    return [each.func for each in m.findall(function, METHOD)]


@functools.cache
def kinds(function: cst.FunctionDef) -> dict[str, str]:
    """The annotations of a function's parameters."""
    params = [each for each in m.findall(function.params, m.Param()) if each.annotation]
    return {each.name.value: code(each.annotation.annotation) for each in params}


@functools.cache
def gives_something(function: cst.FunctionDef) -> bool:
    """Whether a function returns or yields something."""
    return any(
        getattr(each, "value", None) or isinstance(each, cst.Yield)
        for each in m.findall(function, m.Return() | m.Yield())
    )


def neighbours(node: cst.CSTNode, around: Around) -> tuple[Sequence[cst.CSTNode], int]:
    """The statements of the block that a statement is in, and which of them it is; nothing where it is none."""
    if around and isinstance(node, cst.BaseStatement) and isinstance(around[-1], cst.IndentedBlock):
        return around[-1].body, around[-1].body.index(node)
    return (), 0


@operator
def comparison(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if isinstance(node, cst.BaseCompOp):
        yield from (Change(node, other.replace("_", " ")) for other in COMPARISONS[code(node)].split())


@operator
def arithmetic(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if isinstance(node, cst.BaseBinaryOp | cst.BaseAugOp) and code(node) in ARITHMETIC:
        yield Change(node, ARITHMETIC[code(node)])
    if m.matches(node, m.UnaryOperation(m.Minus() | m.BitInvert())):
        yield Change(node, code(node.expression))
    if isinstance(node, cst.AugAssign):
        yield Change(node, f"{code(node.target)} = {code(node.value)}")


@operator
def boolean(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if isinstance(node, cst.And | cst.Or):
        yield Change(node, "or" if isinstance(node, cst.And) else "and")
    if isinstance(node, cst.BooleanOperation):
        yield Change(node, code(node.left))
        yield Change(node, code(node.right))
    if m.matches(node, m.UnaryOperation(m.Not())):
        yield Change(node, code(node.expression))


def other_constants(node: cst.CSTNode) -> Iterator[Change]:
    """Constants that are not this one, but near it."""
    if isinstance(node, cst.Integer):
        yield Change(node, str(node.evaluated_value + 1))
        yield Change(node, str(node.evaluated_value - 1))
    elif isinstance(node, cst.Float):
        yield Change(node, repr(node.evaluated_value * 2 or 1.0))
        yield Change(node, "0.0")
    elif isinstance(node, cst.SimpleString):
        yield Change(node, repr(node.evaluated_value + type(node.evaluated_value)(b"x" if node.prefix == "b" else "x")))
    elif m.matches(node, m.Name("True") | m.Name("False")):
        yield Change(node, str(node.value == "False"))


@operator
def constant(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    is_told = isinstance(node, cst.SimpleString) and any(isinstance(each, cst.Raise) for each in around)
    if not is_told and not (around and isinstance(around[-1], cst.Param)):
        yield from other_constants(node)


@operator
def default(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if around and isinstance(around[-1], cst.Param) and around[-1].default is node:
        yield from [Change(node, "True")] if m.matches(node, m.Name("None")) else other_constants(node)


@operator
def condition(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if around and getattr(around[-1], "test", None) is node:
        yield Change(node, f"not ({code(node)})")
        yield Change(node, "False")
        if not isinstance(around[-1], cst.While):
            yield Change(node, "True")


@operator
def dropped_statement(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    """Any small statement but the only one that binds a name."""
    targets = (
        [each.target for each in node.targets] if isinstance(node, cst.Assign) else [getattr(node, "target", None)]
    )
    if isinstance(node, cst.Expr | cst.AugAssign | cst.Raise | cst.Del):
        yield Change(node, "pass")
    elif isinstance(node, cst.Assign | cst.AnnAssign) and (function := function_around(around)):
        names = [each.value for each in targets if isinstance(each, cst.Name)]
        yield from [Change(node, "pass")] if all(bound(function).count(name) > 1 for name in names) else []


@operator
def dropped_argument(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if isinstance(node, cst.Arg) and isinstance(around[-1], cst.Call) and not node.star:
        call = around[-1]
        yield called_with(call, [arg for arg in call.args if arg is not node], node)


@operator
def swapped_arguments(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if isinstance(node, cst.Arg) and isinstance(around[-1], cst.Call):
        args = list(around[-1].args)
        here = args.index(node)
        if here + 1 < len(args) and not any(arg.keyword or arg.star for arg in args[here : here + 2]):
            args[here : here + 2] = args[here + 1], args[here]
            yield called_with(around[-1], args, node)


def called_with(call: cst.Call, args: Sequence[cst.Arg], at: cst.Arg) -> Change:
    listed = ", ".join(code(arg.with_changes(comma=cst.MaybeSentinel.DEFAULT)) for arg in args)
    return Change(call, f"{code(call.func)}({listed})", at=at)


@operator
def moved_line(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    """Two neighbours change places, where that can make a difference."""
    block, here = neighbours(node, around)
    for then in block[here + 1 : here + 2]:
        if not isinstance(node, cst.FunctionDef | cst.ClassDef) and not m.matches(node, DOCSTRING):
            yield from [] if are_independent(node, then) else [Change(node, f"{code(then)}\n{code(node)}", last=then)]


def are_independent(*pair: cst.CSTNode) -> bool:
    """Whether two statements are options of a parser, or assignments that call nothing and do not see each other's."""
    if all(m.matches(each, ADD_ARGUMENT) for each in pair):
        return True
    plain = m.SimpleStatementLine([m.Assign() | m.AnnAssign()])
    calls = m.Call(m.Name(m.MatchIfTrue(lambda name: name not in {"len", "max", "min"}))) | m.Call(m.Attribute())
    if not all(m.matches(each, plain) and not m.findall(each, calls) for each in pair):
        return False
    bound = [{code(target.target) for target in m.findall(each, m.AssignTarget() | m.AnnAssign())} for each in pair]
    used = [{code(name) for name in m.findall(each, m.Name() | m.Attribute())} for each in pair]
    return not (bound[0] & used[1] or bound[1] & used[0])


@operator
def other_receiver(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    """A method of another local thing: one of which the same is called, else the first that anything is called of."""
    function = function_around(around)
    if function and m.matches(node, METHOD) and node.func.value.value in (local := bound(function)):
        others = [each for each in receivers(function) if each.value.value in {*local} - {node.func.value.value}]
        same = [each for each in others if each.attr.value == node.func.attr.value]
        yield from (Change(node.func.value, each.value.value) for each in (same or others)[:1])


@operator
def other_parameter(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    """The next parameter that has the same annotation."""
    function = function_around(around)
    if not function or not isinstance(node, cst.Name) or any(isinstance(each, cst.Param) for each in around):
        return
    if node in (function.name, getattr(around[-1], "keyword", None), getattr(around[-1], "attr", None)):
        return
    alike = [name for name, kind in kinds(function).items() if kind == kinds(function).get(node.value)]
    if len(alike) > 1:
        yield Change(node, alike[(alike.index(node.value) + 1) % len(alike)])


@operator
def early_return(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    """Nothing from a statement on: of a function that returns nothing, or of a turn of a loop, or of the loop."""
    _, here = neighbours(node, around)
    if here and isinstance(around[-2], cst.FunctionDef):
        yield from [] if gives_something(around[-2]) else [Change(node, "return")]
    elif here and isinstance(around[-2], cst.For | cst.While):
        yield from (Change(node, word) for word in ("continue", "break"))


@operator
def returned_value(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    if isinstance(node, cst.Return) and node.value is not None:
        yield Change(node, "return None")


@operator
def dropped_frame(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    """What stands around a block without it: a decorator, a context, an exception's handler."""
    if isinstance(node, cst.Decorator):
        yield Change(node, "")
    elif isinstance(node, cst.With) and not any(item.asname for item in node.items):
        yield Change(node, code(cst.If(cst.Name("True"), node.body)), at=node.items[0])
    elif isinstance(node, cst.ExceptHandler):
        yield Change(node.body, "raise")


@operator
def slice_bound(node: cst.CSTNode, around: Around) -> Iterator[Change]:
    for side in ("lower", "upper"):
        if isinstance(node, cst.Slice) and getattr(node, side):
            yield Change(node, code(node.with_changes(**{side: None})), at=getattr(node, side))
