"""The parts of an attention as text: what torch's function is given. Raises Unread for what has no text there."""

from __future__ import annotations

import ast

from ..reading.attention import Attention, Masking, Unread, is_default_scale
from ..reading.frames import Reading
from ..reading.values import Graph, Value
from .spelling import reordered, spelled, written

_TRUTHS = {"gt", "ge", "lt", "le", "eq", "ne", "not", "is", "isnot"}


def operand(reading: Reading, found: Attention, value: Value) -> str:
    """What is attended to, where the weighted sum stands."""
    text = written(value, reading, found.node)
    if text is None:
        raise Unread(value, "what is attended to has no name where the weighted sum stands: name it there")
    return text


def mask(reading: Reading, found: Attention) -> list[str]:
    """The mask as a keyword argument."""
    if not found.masks:
        return []
    if len(found.masks) > 1:
        raise Unread(found.softmax, "its scores are masked twice: make one mask of them")
    own = found.masks[0]
    condition = _condition(reading, found, own)
    if own.is_causal:
        return [f"is_causal={condition or True}"]
    where = (own.condition, own.is_asked_for) if own.condition is not None else None
    text = spelled(own.mask, reading, found.node, where)
    if text is None:
        raise Unread(own.mask, "what its mask hides cannot be told: set it for all cases, above the scores")
    text = text if text.isidentifier() or own.kind != "hides" else f"({text})"
    text = f"~{text}" if own.kind == "hides" else text
    if text == f"{condition.partition(' is not None')[0]}":
        return [f"attn_mask={text}"]  # which may be None
    return [f"attn_mask={text} if {condition} else None" if condition else f"attn_mask={text}"]


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
    placed = [*arguments.posonlyargs, *arguments.args]
    defaults = dict(zip([each.arg for each in reversed(placed)], reversed(arguments.defaults), strict=False))
    defaults |= {each.arg: default for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}
    own = next(each for each in (*placed, *arguments.kwonlyargs) if each.arg == value.data[2])
    default = defaults.get(own.arg)
    is_bool = default is None or (isinstance(default, ast.Constant) and isinstance(default.value, bool))
    return is_bool and (own.annotation is None or ast.unparse(own.annotation) == "bool")


def scale(graph: Graph, reading: Reading, found: Attention) -> list[str]:
    """The scale as a keyword argument, where it is not torch's own."""
    if is_default_scale(graph, reading, found):
        return []
    texts = []
    for factor, divides in found.factors:
        text = spelled(factor, reading, found.node)
        if text is None:
            raise Unread(factor, "its scale has no name where the weighted sum stands: name it there")
        is_atom = isinstance(ast.parse(text, mode="eval").body, (ast.Name, ast.Attribute, ast.Call, ast.Constant))
        text = text if is_atom or (not divides and len(found.factors) == 1) else f"({text})"
        texts.append(f"1 / {text}" if divides else text)
    return [f"scale={' * '.join(sorted(texts, key=lambda each: not each.startswith('1 /'))) or '1.0'}"]


def dropout(reading: Reading, found: Attention) -> str:
    """The probability with which weights are dropped, while training only."""
    assert found.dropout is not None
    module, p, training = (found.dropout.get(name) for name in ("module", "p", "training"))
    if module is not None:
        text = spelled(module, reading, found.node)
        if text is None:
            raise Unread(found.dropout, "its dropout has no name where the weighted sum stands")
        is_method = reading.owner is not None and any("Module" in ast.unparse(base) for base in reading.owner.bases)
        is_method = is_method and "self" in reading.before[reading.file.statement(found.node)]
        return f"{text}.p if {'self' if is_method else text}.training else 0.0"
    texts = [spelled(each, reading, found.node) if each is not None else None for each in (p, training)]
    if None in texts:
        raise Unread(found.dropout, "its dropout does not say p and training")
    return texts[0] or "" if texts[1] == "True" else f"{texts[0]} if {texts[1]} else 0.0"


def order(found: Attention) -> str:
    """How the result is laid out, where that is not as torch lays it out."""
    return reordered(found.result) if found.result.op == "permute" else ""
