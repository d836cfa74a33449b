"""Recognise attention that is written out: a scaled product, its masks, a softmax, a weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from .edits import operand
from .matchers import (
    Operation,
    followed,
    is_alone,
    is_inside,
    operation,
    operations,
    square_of_ones,
    widest_mask,
)
from .source import Source
from .widths import Factors, is_number, is_root_of_width, set_attribute


class UnreadError(Exception):
    """What looks like attention is written in a way that is not understood."""

    def __init__(self, node: cst.CSTNode, reason: str) -> None:
        super().__init__(reason)
        self.node = node


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention that is written out, as the operands that scaled_dot_product_attention takes."""

    explicit: Sequence[cst.CSTNode]  # the statements from the scores to the weights, and nothing else
    weights: cst.Name  # as it is set
    weighted: cst.BaseExpression  # the weights, dropped out, times the values
    operands: tuple[str, ...]  # queries, keys, values
    mask: str  # "is_causal=..." or "attn_mask=...", or nothing
    scale: str  # "scale=...", where it is not 1 / sqrt(D)
    dropout: str  # the probability as an expression, or nothing
    dropped: cst.CSTNode | None  # the statement that drops weights out, if it is one of its own

    def set_names(self, source: Source) -> set[str]:
        """The names that the statements from the scores to the weights give a value."""
        assigns = [assign for each in self.explicit for assign in source.walk(cst.Assign, inside=each)]
        return {source.code(target.target) for assign in assigns for target in assign.targets}


def product(source: Source, node: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
    """The factors of a matrix product: `a @ b`, `torch.matmul(a, b)`, `a.bmm(b)`."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.MatrixMultiply):
        return node.left, node.right
    made = operation(source, node)
    if made is not None and made.name in ("matmul", "bmm") and len(made.operands) == 2:  # noqa: PLR2004
        return made.operands[0], made.operands[1]
    return None


def weighings(source: Source) -> Iterator[tuple[Operation, list[cst.BaseExpression]]]:
    """Each softmax of scores whose result weighs values, and the products that do; none where they are not read."""
    for softmax in operations(source, "softmax"):
        function = source.function(softmax.call)
        if function is None:
            continue
        nodes = list(source.walk(cst.BaseExpression, inside=function))  # type: ignore[type-abstract]
        factored = [(node, factors) for node in nodes if (factors := product(source, node)) is not None]
        found = [node for node, factors in factored if _dropped_out(source, factors[0], softmax) is not None]
        sums = [node for node, _ in factored] + [made.call for made in operations(source, "einsum", inside=function)]
        if found or _stands_between(source, function, softmax, sums):
            yield softmax, found


def _stands_between(
    source: Source, function: cst.FunctionDef, softmax: Operation, sums: Sequence[cst.BaseExpression]
) -> bool:
    """Whether a softmax is of something made of one sum of products, and another is made of the softmax."""
    scored = [node for node in sums if source.order[node] < source.order[softmax.call]]
    reached = any(
        is_inside(source, node, softmax.call) or _reaches(source, function, node, softmax.call)
        for node in [*scored, *(node for node in sums if is_inside(source, node, softmax.call))]
    )
    others = [node for node in sums if not is_inside(source, node, softmax.call)]
    return reached and any(
        is_inside(source, softmax.call, node) or _reaches(source, function, softmax.call, node) for node in others
    )


def _reaches(source: Source, function: cst.FunctionDef, start: cst.CSTNode, end: cst.CSTNode) -> bool:
    """Whether a later expression uses a name that is set from another expression, through any number of names."""
    names: set[str] = set()
    for assign in source.walk(cst.Assign, inside=function):
        is_made = is_inside(source, start, assign) or names & {use.value for use in source.uses(assign.value)}
        if is_made and not is_inside(source, end, assign):
            names |= {source.code(target.target) for target in assign.targets}
    return source.order[start] < source.order[end] and bool(names & {use.value for use in source.uses(end)})


def _dropped_out(source: Source, factor: cst.BaseExpression, softmax: Operation) -> cst.BaseExpression | None:
    """What of a softmax's result is the first factor of a product: the weights, or the call that drops them out."""
    for call in (factor, followed(source, factor)):
        inner = _operand_of_dropout(source, call)
        if inner is not None and softmax.call in (followed(source, inner), _set_before(source, inner)):
            return call
    return factor if followed(source, factor) is softmax.call else None


def _operand_of_dropout(source: Source, node: cst.BaseExpression) -> cst.BaseExpression | None:
    made = operation(source, node)
    if made is None or not made.operands or (not made.is_method and made.name != "dropout"):
        return None
    return made.operands[-1] if made.is_method and len(made.operands) == 2 else made.operands[0]  # noqa: PLR2004


def _set_before(source: Source, use: cst.BaseExpression) -> cst.BaseExpression | None:
    """What a name was set to, in its own block, before the statement that it stands in: `w` of `w = drop(w)`."""
    here = source.statement(use)
    bound = source.names.bindings(use.value, use) if isinstance(use, cst.Name) else []
    earlier = [binding for binding in bound if source.order[binding.node] < source.order[here]]
    is_near = bool(earlier) and source.parents[source.statement(earlier[-1].node)] is source.parents[here]
    return earlier[-1].value if is_near else None


def read_attention(source: Source, softmax: Operation, products: Sequence[cst.BaseExpression]) -> Attention:
    """The parts of an attention; raises UnreadError at what is not understood."""
    line = source.statement(softmax.call)
    block = source.parents[line]
    weights, scores = _assigned(line), softmax.argument(0, "input")
    if weights is None or _value(line) is not softmax.call or not isinstance(block, cst.IndentedBlock):
        raise UnreadError(softmax.call, "the softmax is no assignment of its own: name the weights first")
    dim = softmax.argument(1, "dim")
    if dim is None or source.code(dim) != "-1":
        raise UnreadError(softmax.call, "the softmax is not over the last dimension, dim=-1")
    if softmax.keywords.keys() - {"input", "dim"} or len(softmax.operands) > 2:  # noqa: PLR2004
        raise UnreadError(softmax.call, "the softmax has a dtype of its own: convert queries, keys and values instead")
    if not isinstance(scores, cst.Name):
        raise UnreadError(softmax.call, "the scores have no name: name them first")
    if len(products) != 1:
        raise UnreadError(
            softmax.call,
            "the weights weigh several values: make one product of them"
            if products
            else "no matrix product of the weights and the values is read: write self.dropout(weights) @ values",
        )
    weighted = products[0]
    if source.parents[source.statement(weighted)] is not block:
        raise UnreadError(weighted, "the weighted sum stands in another block than the softmax")
    explicit = _scores_to_weights(source, block, line, scores)
    factors, scale = _scaled_product(source, explicit[0])
    values = product(source, weighted)
    assert values is not None
    made = _dropped_out(source, values[0], softmax)
    assert made is not None
    found = Attention(
        explicit=explicit,
        weights=weights,
        weighted=weighted,
        operands=(source.code(factors[0]), _keys(source, factors[1]), source.code(values[1])),
        mask=_mask(source, explicit, scores.value),
        scale=scale,
        dropout=_dropout(source, made),
        dropped=None if is_inside(source, made, weighted) else source.statement(made),
    )
    _require_unchanged(source, found)
    return found


def _assigned(statement: cst.CSTNode) -> cst.Name | None:
    """The name that a statement sets, if that is all it does."""
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) and is_alone(statement) else statement
    if not isinstance(small, cst.Assign) or len(small.targets) != 1:
        return None
    target = small.targets[0].target
    return target if isinstance(target, cst.Name) else None


def _value(statement: cst.CSTNode) -> cst.BaseExpression:
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else statement
    assert isinstance(small, cst.Assign)
    return small.value


def _scores_to_weights(
    source: Source, block: cst.IndentedBlock, line: cst.CSTNode, scores: cst.Name
) -> list[cst.CSTNode]:
    """The neighbouring statements that set the scores, mask them, and take the softmax."""
    statements: list[cst.CSTNode] = list(block.body)
    end = statements.index(line)
    setting = [at for at, statement in enumerate(statements[:end]) if _sets(source, statement, scores.value)]
    plain = [at for at in setting if not any(use.value == scores.value for use in _read_in(source, statements[at]))]
    if not plain:
        raise UnreadError(line, f"where {scores.value} is set cannot be told")
    explicit = statements[plain[-1] : end + 1]
    if _assigned(explicit[0]) is None:
        raise UnreadError(explicit[0], "the scores are set together with something else: give them a line of their own")
    for statement in explicit[1:-1]:
        if statement not in [statements[at] for at in setting] and not _serves(source, statement, explicit):
            raise UnreadError(statement, "a statement between the scores and the softmax: move it away")
    return explicit


def _read_in(source: Source, statement: cst.CSTNode) -> Iterator[cst.Name]:
    return (use for use in source.uses(statement) if not isinstance(source.parents[use], cst.AssignTarget))


def _sets(source: Source, statement: cst.CSTNode, name: str) -> bool:
    return any(
        isinstance(target.target, cst.Name) and target.target.value == name
        for assign in source.walk(cst.Assign, inside=statement)
        for target in assign.targets
    )


def _serves(source: Source, statement: cst.CSTNode, others: Sequence[cst.CSTNode]) -> bool:
    """Whether a statement only sets a name that nobody uses but some other statements."""
    name = _assigned(statement)
    if name is None:
        return False
    uses = [use for use in source.uses(source.function(statement)) if use.value == name.value]
    return all(any(is_inside(source, use, other) for other in others) for use in uses)


def _require_unchanged(source: Source, found: Attention) -> None:
    """Refuse where what the call is given is set anew between the scores, where it stood, and the weighted sum."""
    given = cst.parse_expression(f"f({', '.join(filter(None, (*found.operands, found.mask, found.scale)))})")
    names = {node.value for node in _names_in(given)} - {"f"}
    change = changed_between(source, names, found.explicit[0], source.statement(found.weighted))
    if change is not None:
        raise UnreadError(change, "it changes what the scores are made of, before the weighted sum: move it away")
    name = _assigned(found.dropped) if found.dropped is not None else None
    if found.dropped is None:
        return
    later = [use for use in source.uses(source.function(found.dropped)) if name is None or use.value == name.value]
    for use in later:
        is_read = source.order[use] > source.order[found.dropped] and not is_inside(source, use, found.dropped)
        if name is None or (is_read and not is_inside(source, use, found.weighted)):
            raise UnreadError(use, "the weights are read once they are dropped out: read them before")


def _names_in(node: cst.CSTNode) -> Iterator[cst.Name]:
    if isinstance(node, cst.Name):
        yield node
    for child in node.children:
        is_label = child in (getattr(node, "attr", None), getattr(node, "keyword", None))
        yield from () if is_label else _names_in(child)


def changed_between(source: Source, names: set[str], first: cst.CSTNode, last: cst.CSTNode) -> cst.CSTNode | None:
    """What sets, deletes or changes in place one of some names behind the start of a statement and before another."""
    start, end = source.order[first], source.order[last]
    for use in source.uses(source.function(first)):
        if use.value in names and start < source.order[use] < end and _is_changed(source, use):
            return use
    return None


def _is_changed(source: Source, use: cst.CSTNode) -> bool:
    """Whether a name is set, deleted or changed in place where it stands: `x[0] = 1`, `x.fill_(1)`, `x += 1`."""
    parent = source.parents[use]
    while isinstance(parent, (cst.Subscript, cst.Attribute, cst.Tuple, cst.List, cst.Element, cst.StarredElement)):
        is_method = isinstance(parent, cst.Attribute) and isinstance(source.parents[parent], cst.Call)
        if is_method and parent.attr.value.endswith("_"):  # type: ignore[union-attr]
            return True
        use, parent = parent, source.parents[parent]
    is_out = isinstance(parent, cst.Arg) and parent.keyword is not None and parent.keyword.value == "out"
    is_target = isinstance(parent, (cst.AugAssign, cst.AnnAssign, cst.For, cst.NamedExpr)) and parent.target is use
    return is_out or is_target or isinstance(parent, (cst.AssignTarget, cst.Del, cst.AsName))


def _scaled_product(
    source: Source, statement: cst.CSTNode
) -> tuple[tuple[cst.BaseExpression, cst.BaseExpression], str]:
    """The factors of the scores, and the scale if it is not known to be 1 / sqrt(D)."""
    value = _value(statement)
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, (cst.Divide, cst.Multiply)):
        is_divided = isinstance(value.operator, cst.Divide)
        factors, scale = product(source, value.left), value.right
        if factors is None and not is_divided:
            factors, scale = product(source, value.right), value.left
        if factors is not None:
            known = Factors(factors[0], _keys(source, factors[1]))
            if is_root_of_width(source, scale, known, "0.5" if is_divided else "-0.5"):
                return factors, ""
            if not is_number(source, scale):
                raise UnreadError(
                    scale, "the scale may be a tensor, which torch takes none: multiply the queries by it"
                )
            text = operand(source, scale)
            return factors, f"scale=1 / {text}" if is_divided else f"scale={text}"
    plain = product(source, value)
    if plain is None:
        raise UnreadError(statement, "the scores are no scaled product of queries and keys: queries @ keys.mT * scale")
    return plain, "scale=1.0"


def _keys(source: Source, factor: cst.BaseExpression) -> str:
    """The keys [..., S, D], given the second factor [..., D, S] of the scores."""
    made = operation(source, factor)
    if made is not None and made.name == "transpose" and {source.code(d) for d in made.operands[1:]} == {"-1", "-2"}:
        return source.code(made.operands[0])
    if isinstance(factor, cst.Attribute) and factor.attr.value == "mT":
        return source.code(factor.value)
    return f"{operand(source, factor)}.transpose(-2, -1)"


def _mask(source: Source, explicit: Sequence[cst.CSTNode], scores: str) -> str:
    """The one mask that the scores are filled with, as a keyword argument."""
    masks = [statement for statement in explicit[1:-1] if _sets(source, statement, scores)]
    if len(masks) > 1:
        raise UnreadError(masks[1], "the scores are masked twice: make one mask of them")
    if not masks:
        return ""
    lines, condition = _conditional(masks[0])
    if not lines:
        raise UnreadError(masks[0], "the scores are masked in one branch of several")
    name, made = _assigned(lines[-1]), operation(source, _value(lines[-1])) if _assigned(lines[-1]) else None
    is_fill = name is not None and name.value == scores and made is not None and made.name == "masked_fill"
    mask, fill = (made.argument(1, "mask"), made.argument(2, "value")) if made is not None else (None, None)
    if not is_fill or mask is None or fill is None or source.code(made.operands[0]) != scores:  # type: ignore[union-attr]
        raise UnreadError(masks[0], 'the scores are not masked by masked_fill(mask, float("-inf")), and nothing else')
    if not _is_minus_infinity(source, fill):
        raise UnreadError(masks[0], 'the scores are not masked by masked_fill(mask, float("-inf"))')
    for line in lines[:-1]:
        if _assigned(line) is None or _assigned(line).value == scores:  # type: ignore[union-attr]
            raise UnreadError(line, "a statement between the scores and the softmax: move it away")
    if hides_future(source, mask):
        return f"is_causal={_truth(source, condition) if condition is not None else 'True'}"
    settings = _settings(source, mask)
    if condition is not None or any(is_inside(source, node, each) for node in settings for each in explicit):
        raise UnreadError(masks[0], "what the mask hides cannot be told: set it for all cases, above the scores")
    return f"attn_mask=~{operand(source, mask)}"


def _conditional(statement: cst.CSTNode) -> tuple[list[cst.CSTNode], cst.BaseExpression | None]:
    """The lines of a statement, and the condition where they stand under an `if` without an else."""
    if not isinstance(statement, cst.If):
        return ([statement] if isinstance(statement, cst.SimpleStatementLine) else []), None
    return (list(statement.body.body) if statement.orelse is None else []), statement.test


def _truth(source: Source, condition: cst.BaseExpression) -> str:
    """A condition as the bool that torch insists on."""
    bound = source.names.bindings(condition.value, condition) if isinstance(condition, cst.Name) else []
    params = [binding.node for binding in bound if isinstance(binding.node, cst.Param)]
    kinds = [source.code(param.annotation.annotation) for param in params if param.annotation is not None]
    defaults = [source.code(param.default) for param in params if param.default is not None]
    is_bool = isinstance(condition, (cst.Comparison, cst.Name)) and kinds in ([], ["bool"])
    is_bool = is_bool and not [default for default in defaults if default not in ("True", "False")]
    text = source.code(condition)
    return text if is_bool else f"bool({text})"


def _settings(source: Source, mask: cst.BaseExpression) -> list[cst.CSTNode]:
    return [b.node for use in source.uses(mask) for b in source.names.bindings(use.value, use) if not b.imported]


def hides_future(source: Source, mask: cst.BaseExpression) -> bool:
    """Whether a mask is the square one that hides just the future: a triangle, or one from the cache."""
    node = followed(source, mask)
    named = [use for use in source.uses(source.function(mask)) if use.value == source.code(mask)]
    if any(_is_changed(source, use) and not isinstance(source.parents[use], cst.AssignTarget) for use in named):
        return False  # a triangle that is written to is no triangle
    if isinstance(node, cst.Call) and source.code(node.func) == "get_tri_mask":
        return True
    for made in operations(source, "triu", "tril", inside=node):
        ones = square_of_ones(source, made.operands[0]) if made.operands else None
        if ones is not None:
            widest, triangle = widest_mask(source, made, ones)
            return widest is node and triangle.hides_future and triangle.is_square and triangle.is_bool
    return False


def _is_minus_infinity(source: Source, node: cst.BaseExpression) -> bool:
    text = source.code(node).replace("'", '"')
    is_named = isinstance(node, cst.UnaryOperation) and source.names.qualified(node.expression) in (
        "math.inf",
        "torch.inf",
        "numpy.inf",
    )
    return is_named or text in ('float("-inf")', '-float("inf")')


def _dropout(source: Source, made: cst.BaseExpression) -> str:
    """The probability with which weights are dropped, while training only."""
    inner = _operand_of_dropout(source, made)
    dropout = operation(source, made)
    if inner is None or dropout is None:
        return ""
    if not dropout.is_method:
        p, training = dropout.argument(1, "p"), dropout.argument(2, "training")
        if p is None or training is None:
            raise UnreadError(made, "the dropout does not say p and training")
        return f"{operand(source, p)} if {source.code(training)} else 0.0"
    module = source.code(dropout.call.func)
    kinds = [value.func if isinstance(value, cst.Call) else value for value in set_attribute(source, dropout.call.func)]
    if not kinds or any(source.names.qualified(kind) != "torch.nn.Dropout" for kind in kinds):
        raise UnreadError(made, f"what {module} does to the weights cannot be told: expected a torch.nn.Dropout")
    return f"{module}.p if self.training else 0.0"
