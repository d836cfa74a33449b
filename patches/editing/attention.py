"""The parts of an attention as text: what torch's function is given. Raises Unread for what has no text there."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

import libcst as cst

from ..reading.attention import Attention, is_default_scale
from ..reading.frames import Reading
from ..reading.masked import Masking, Unread
from ..reading.masks import causal_mask
from ..reading.names import defaults_of, parameters
from ..reading.nodes import expression
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.values import Graph, Value
from ..task import Edit
from .apart import NEEDED
from .classes import more_arguments
from .handing import parameter_from
from .spelling import reordered, spelled, written

ASKED = "is_causal"
WIDTH = 120  # columns of a line
_TRUTHS = {"gt", "ge", "lt", "le", "eq", "ne", "not", "is", "isnot"}


def operands(reading: Reading, found: Attention) -> Iterator[str]:
    """What is attended to, where the weighted sum stands; scaled, where it has a name so alone."""
    for name in ("queries", "keys", "values"):
        value = getattr(found, name)
        text = written(value, reading, found.node)
        if text is None and name in found.scaled:
            value, own = found.scaled[name]
            text = written(value, reading, found.node)
            found.factors = [each for each in found.factors if all(each is not other for other in own)]
        if text is None:
            raise Unread(value, "what is attended to has no name where the weighted sum stands: name it there")
        yield text


def mask(reading: Reading, found: Attention) -> list[str]:
    """The mask as a keyword argument, or two where callers may ask for a causal one."""
    if not found.masks:
        return []
    own = found.masks[0]
    if own.is_causal and len(found.masks) == 1:
        return [f"{ASKED}={_causal(reading, found)}"]
    causal, others = ([each for each in found.masks if each.is_causal is kind] for kind in (True, False))
    if [len(causal), len(others)] == [1, 1] and others[0].condition is not None:
        return _causal_or_both(reading, found, causal[0], others[0])
    at_times = [each for each in found.masks if each.condition is not None]
    if len(at_times) > 1:
        raise Unread(found.softmax, "its scores are masked under two conditions: make one mask of them")
    texts = [(each, (_text(reading, found, each), each.kind)) for each in reversed(found.masks)]
    text, rest = (masking([text for each, text in texts if each not in some]) for some in ((), at_times))
    condition = _condition(reading, found, at_times[0]) if at_times else ""
    if text == condition.removesuffix(" is not None"):
        condition = ""  # which may be None
    if found.asked:
        condition = f"{condition} and not {ASKED}" if condition else f"not {ASKED}"
    asking = [f"{ASKED}={ASKED}"] if found.asked else []
    return [f"attn_mask={text} if {condition} else {rest}" if condition else f"attn_mask={text}", *asking]


def _causal_or_both(reading: Reading, found: Attention, causal: Masking, other: Masking) -> list[str]:
    """A causal mask alone, as torch has it, or with another one, where that is asked for."""
    text, more = _text(reading, found, causal), _text(reading, found, other)
    if not text.isidentifier():
        raise Unread(causal.mask, "its scores are masked twice, and the causal mask has no name: name it")
    if found.is_longer:
        raise Unread(found.softmax, "its scores are masked under two conditions: make one mask of them")
    both, alone = masking([(text, causal.kind), (more, other.kind)]), masking([(more, other.kind)])
    when, asked_for = _condition(reading, found, causal), _condition(reading, found, other)
    both = f"({both} if {when} else {alone})" if when else both
    is_plain = asked_for.removesuffix(" is not None")
    is_plain = f"not ({asked_for})" if is_plain == asked_for else f"{is_plain} is None"
    return [
        f"attn_mask={both} if {asked_for} else None",
        f"{ASKED}={when} and {is_plain}" if when else f"{ASKED}={is_plain}",
    ]


def _text(reading: Reading, found: Attention, mask: Masking) -> str:
    where = (mask.condition, mask.is_asked_for) if mask.condition is not None else None
    text = spelled(mask.mask, reading, found.node, where)
    if text is None:
        raise Unread(mask.mask, "what its mask hides cannot be told: set it for all cases, above the scores")
    made = {each.key for each in found.made}
    alike = (each["input"] for each in mask.mask.walk() if each.op.endswith("_like"))
    if any(part.key in made for each in alike for part in each.walk()):
        raise Unread(mask.mask, "its mask is made like the scores, which only it would need then: give it a length")
    return text


def masking(texts: Sequence[tuple[str, str]]) -> str:
    """One mask, as torch takes it, of the texts and kinds of some: what is added, or else what may be seen."""
    texts = [(text[1:], "keeps") if kind == "hides" and _is_inverted(text) else (text, kind) for text, kind in texts]
    added, hides, keeps = ([text for text, kind in texts if kind == each] for each in ("added", "hides", "keeps"))
    if added and (hides or keeps):
        hidden = _joined("|", [*hides, *(f"~{_operand(each)}" for each in keeps)])
        return f'{_operand(_joined("+", added))}.masked_fill({hidden}, float("-inf"))'
    seen = [*keeps, f"~{_operand(_joined('|', hides))}"] if hides else keeps
    return _joined("+", added) or _joined("&", seen) or "None"


def _is_inverted(text: str) -> bool:
    return isinstance(tree := expression(text), ast.UnaryOp) and isinstance(tree.op, ast.Invert)


def _joined(operator: str, texts: Sequence[str]) -> str:
    return f" {operator} ".join(map(_operand, texts) if len(texts) > 1 else texts)


def _operand(text: str) -> str:
    kinds = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.UnaryOp)
    return text if isinstance(expression(text), kinds) else f"({text})"


def _causal(reading: Reading, found: Attention) -> str:
    """When a causal mask is asked for: not of one query among more keys, where torch would hide all but one."""
    own = found.masks[0]
    condition = _condition(reading, found, own)
    if not found.is_longer:
        return condition or "True"
    built = causal_mask(own.mask)
    texts = (spelled(each, reading, found.node) for each in (built.lengths if built is not None else ()))
    length = next(filter(None, texts), None)
    if length is None:
        raise Unread(own.mask, "there may be more keys than queries, and how many these are has no name: name it")
    return f"{condition} and {length} > 1" if condition else f"{length} > 1"


def asked(
    tree: SourceTree, source: Source, reading: Reading, found: Attention, needed: Mapping[ast.Call, str]
) -> Iterator[Edit]:
    """What makes callers ask for a causal mask that they hand in, and a map: parameters, and arguments of each."""
    defaults = ({ASKED: "False"} if found.asked else {}) | ({NEEDED: "True"} if needed else {})
    for name in defaults:
        if reading.file.scopes[reading.node].is_taken(name):
            raise Unread(found.softmax, f"the name {name} is taken: rename yours")
    if not defaults:
        return
    own = source.at(reading.node)  # type: ignore[arg-type]
    assert isinstance(own, cst.FunctionDef)
    is_typed = any(each.annotation is not None for each in parameters(reading.node.args))  # type: ignore[attr-defined]
    texts = [f"{name}: bool = {value}" if is_typed else f"{name}={value}" for name, value in defaults.items()]
    yield from parameter_from(", ".join(texts))(source, own).edits
    asking = {each.node for each in found.asked}
    for each in found.calls:
        caller, new = tree.source(each.reading.file.path), dict[str, str]()
        if each.node in asking and each.found is not None:
            new[ASKED] = _causal(each.reading, each.found)
        if each.node in needed:
            new[NEEDED] = needed[each.node]
        if new:
            yield more_arguments(caller, caller.at(each.node), new)  # type: ignore[arg-type]


def _condition(reading: Reading, found: Attention, mask: Masking) -> str:
    """When a mask is asked for, as the bool that torch insists on; nothing where it always is."""
    if mask.condition is None:
        return ""
    text = spelled(mask.condition, reading, found.node)
    if text is None:
        raise Unread(mask.mask, "when it is masked cannot be told where the weighted sum stands")
    is_bool = mask.condition.op in _TRUTHS or _says_bool(mask.condition)
    if mask.condition.op == "is" and not mask.is_asked_for and text.endswith(" is None"):
        return text.replace(" is None", " is not None")
    if not mask.is_asked_for:
        return f"not {text}" if text.isidentifier() else f"not ({text})"
    return text if is_bool else f"bool({text})"


def _says_bool(value: Value) -> bool:
    """Whether a parameter is annotated as a bool, or has one as its default, or says nothing at all."""
    if value.op != "parameter":
        return False
    arguments = value.data[1].args
    own = next(each for each in parameters(arguments) if each.arg == value.data[2])
    default = defaults_of(arguments).get(own)
    is_bool = default is None or (isinstance(default, ast.Constant) and isinstance(default.value, bool))
    return is_bool and (own.annotation is None or ast.unparse(own.annotation) == "bool")


def called(source: Source, node: ast.expr, statement: ast.stmt, function: str, arguments: Sequence[str]) -> str:
    """The call in one line, or, where that is too long, with its arguments in a line of their own, or in one each."""
    line, own = source.code(source.at(statement)), source.code(source.at(node))
    around = line.replace(own, "").splitlines()[-1].strip()
    text = f"{function}({', '.join(arguments)})"
    if statement.col_offset + len(around) + len(text) <= WIDTH:
        return text
    inner = ", ".join(arguments)
    if statement.col_offset + 4 + len(inner) > WIDTH:
        inner = ",\n    ".join(arguments) + ","
    return f"{function}(\n    {inner}\n)"


def scale(graph: Graph, reading: Reading, found: Attention) -> list[str]:
    """The scale as a keyword argument, where it is not torch's own."""
    if is_default_scale(graph, reading, found):
        return []
    texts = []
    for factor, divides in found.factors:
        text = spelled(factor, reading, found.node)
        if text is None:
            raise Unread(factor, "its scale has no name where the weighted sum stands: name it there")
        is_atom = isinstance(expression(text), (ast.Name, ast.Attribute, ast.Call, ast.Constant))
        text = text if is_atom or (not divides and len(found.factors) == 1) else f"({text})"
        texts.append(f"1 / {text}" if divides else text)
    return [f"scale={' * '.join(sorted(texts, key=lambda each: not each.startswith('1 /'))) or '1.0'}"]


def dropout(reading: Reading, found: Attention) -> str:
    """The probability with which weights are dropped, while training only."""
    assert found.dropout is not None
    own = "func" if found.dropout.op == "call" else "module"
    module, p, training = (found.dropout.get(name) for name in (own, "p", "training"))
    if module is not None:
        text = spelled(module, reading, found.node)
        if text is None:
            raise Unread(found.dropout, "its dropout has no name where the weighted sum stands")
        is_method = reading.owner is not None and any("Module" in ast.unparse(base) for base in reading.owner.bases)
        is_method = is_method and "self" in reading.before[reading.file.statement(found.node)]
        return f"{text}.p if {'self' if is_method else text}.training else 0.0"
    texts = ["0.5" if p is None else spelled(p, reading, found.node), "True"]  # torch's own
    texts[1:] = [spelled(training, reading, found.node)] if training is not None else texts[1:]
    if None in texts:
        raise Unread(found.dropout, "what its dropout is told has no name where the weighted sum stands: name it there")
    return texts[0] or "" if texts[1] == "True" else f"{texts[0]} if {texts[1]} else 0.0"


def order(found: Attention) -> str:
    """How the result is laid out, where that is not as torch lays it out."""
    return reordered(found.result) if found.result.op == "permute" else ""
