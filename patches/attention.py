"""Recognise attention that is written out: a scaled product, its masks, a softmax, a weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from .edits import operand
from .matchers import Operation, elements, followed, is_alone, is_inside, operation, operations, square_of_ones
from .source import Source


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


def product(source: Source, node: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
    """The factors of a matrix product: `a @ b`, `torch.matmul(a, b)`, `a.bmm(b)`."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.MatrixMultiply):
        return node.left, node.right
    made = operation(source, node)
    if made is not None and made.name in ("matmul", "bmm") and len(made.operands) == 2:  # noqa: PLR2004
        return made.operands[0], made.operands[1]
    return None


def weighings(source: Source) -> Iterator[tuple[Operation, cst.BaseExpression]]:
    """Each softmax whose result weighs values, and the product that does."""
    for softmax in operations(source, "softmax"):
        function = source.function(softmax.call)
        for node in source.walk(cst.BaseExpression, inside=function):  # type: ignore[type-abstract]
            factors = product(source, node) if function is not None else None
            if factors is not None and _weights_in(source, factors[0], softmax):
                yield softmax, node
                break


def _weights_in(source: Source, factor: cst.BaseExpression, softmax: Operation) -> cst.BaseExpression | None:
    """The use of a softmax's result in the first factor of a product, dropped out or not."""
    made = operation(source, factor)
    inner = made.operands[-1] if made is not None and made.is_method else factor  # self.dropout(weights)
    if made is not None and not made.is_method and made.name == "dropout":
        inner = made.operands[0]
    return inner if followed(source, inner) is softmax.call else None


def read_attention(source: Source, softmax: Operation, weighted: cst.BaseExpression) -> Attention:
    """The parts of an attention; raises UnreadError at what is not understood."""
    line = source.statement(softmax.call)
    block = source.parents[line]
    small = line.body[0] if isinstance(line, cst.SimpleStatementLine) and is_alone(line) else None
    if not isinstance(small, cst.Assign) or small.value is not softmax.call or not isinstance(block, cst.IndentedBlock):
        raise UnreadError(softmax.call, "the softmax is no assignment of its own: name the weights first")
    weights, scores = small.targets[0].target, softmax.operands[0]
    dim = softmax.argument(1, "dim")
    if dim is None or source.code(dim) != "-1":
        raise UnreadError(softmax.call, "the softmax is not over the last dimension, dim=-1")
    if not isinstance(scores, cst.Name) or not isinstance(weights, cst.Name):
        raise UnreadError(softmax.call, "the scores have no name: name them first")
    if source.parents[source.statement(weighted)] is not block:
        raise UnreadError(weighted, "the weighted sum stands in another block than the softmax")
    explicit = _scores_to_weights(source, block, line, scores)
    factors, scale = _scaled_product(source, explicit[0])
    values = product(source, weighted)
    assert values is not None
    return Attention(
        explicit=explicit,
        weights=weights,
        weighted=weighted,
        operands=(source.code(factors[0]), _keys(source, factors[1]), source.code(values[1])),
        mask=_mask(source, explicit, scores.value),
        scale=scale,
        dropout=_dropout(source, values[0]),
    )


def _scores_to_weights(
    source: Source, block: cst.IndentedBlock, line: cst.CSTNode, scores: cst.Name
) -> list[cst.CSTNode]:
    """The neighbouring statements that set the scores, mask them, and take the softmax."""
    statements = list(block.body)
    end = statements.index(line)  # type: ignore[arg-type]
    setting = [at for at, statement in enumerate(statements[:end]) if _sets(source, statement, scores.value)]
    if not setting:
        raise UnreadError(line, f"where {scores.value} is set cannot be told")
    explicit = list(statements[setting[0] : end + 1])
    for statement in explicit[1:-1]:
        if statement not in [statements[at] for at in setting] and not _serves(source, statement, explicit):
            raise UnreadError(statement, "a statement between the scores and the softmax: move it away")
    return explicit


def _sets(source: Source, statement: cst.CSTNode, name: str) -> bool:
    return any(
        isinstance(target.target, cst.Name) and target.target.value == name
        for assign in source.walk(cst.Assign, inside=statement)
        for target in assign.targets
    )


def _serves(source: Source, statement: cst.CSTNode, others: Sequence[cst.CSTNode]) -> bool:
    """Whether a statement only sets a name that nobody uses but some other statements."""
    if not isinstance(statement, cst.SimpleStatementLine) or not isinstance(statement.body[0], cst.Assign):
        return False
    name = source.code(statement.body[0].targets[0].target)
    uses = [use for use in source.uses(source.function(statement)) if use.value == name]
    return all(any(is_inside(source, use, other) for other in others) for use in uses)


def _scaled_product(
    source: Source, statement: cst.CSTNode
) -> tuple[tuple[cst.BaseExpression, cst.BaseExpression], str]:
    """The factors of the scores, and the scale if it is not known to be 1 / sqrt(D)."""
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
    value = small.value if isinstance(small, cst.Assign) else None
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, (cst.Divide, cst.Multiply)):
        factors = product(source, value.left)
        is_divided = isinstance(value.operator, cst.Divide)
        if factors is not None:
            if is_divided and _is_root_of_width(source, value.right, "0.5"):
                return factors, ""
            if not is_divided and _is_root_of_width(source, value.right, "-0.5"):
                return factors, ""
            text = operand(source, value.right)
            return factors, f"scale=1 / {text}" if is_divided else f"scale={text}"
    plain = product(source, value) if value is not None else None
    if plain is None:
        raise UnreadError(statement, "the scores are no scaled product of queries and keys")
    return plain, "scale=1.0"


def _is_root_of_width(source: Source, node: cst.BaseExpression, power: str) -> bool:
    """Whether an expression is a power of the queries' last dimension: math.sqrt(D), D ** -0.5."""
    node = followed(source, node)
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Power):
        return source.code(node.right).strip("()") == power and _is_width(source, node.left)
    is_root = isinstance(node, cst.Call) and source.names.qualified(node.func) == "math.sqrt"
    return power == "0.5" and is_root and _is_width(source, node.args[0].value)  # type: ignore[attr-defined]


def _is_width(source: Source, node: cst.BaseExpression) -> bool:
    if source.code(node).endswith((".size(-1)", ".shape[-1]")):
        return True
    bound = [binding.node for binding in source.names.bindings(node.value, node)] if isinstance(node, cst.Name) else []
    return bool(bound) and all(
        isinstance(assign, cst.Assign)
        and source.code(assign.value).endswith((".shape", ".size()"))
        and [source.code(size) for size in elements(assign.targets[0].target)][-1:] == [source.code(node)]
        for assign in bound
    )


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
    fills = list(operations(source, "masked_fill", inside=masks[0]))
    fill = fills[0].argument(2, "value") if len(fills) == 1 else None
    mask = fills[0].argument(1, "mask") if len(fills) == 1 else None
    if mask is None or fill is None or not _is_minus_infinity(source, fill):
        raise UnreadError(masks[0], 'the scores are not masked by masked_fill(mask, float("-inf"))')
    condition = masks[0].test if isinstance(masks[0], cst.If) and masks[0].orelse is None else None
    if condition is None and not isinstance(masks[0], cst.SimpleStatementLine):
        raise UnreadError(masks[0], "the scores are masked in one branch of several")
    if hides_future(source, mask):
        return f"is_causal={source.code(condition) if condition is not None else 'True'}"
    settings = _settings(source, mask)
    if condition is not None or any(is_inside(source, node, each) for node in settings for each in explicit):
        raise UnreadError(masks[0], "what the mask hides cannot be told: set it for all cases, above the scores")
    return f"attn_mask=~{operand(source, mask)}"


def _settings(source: Source, mask: cst.BaseExpression) -> list[cst.CSTNode]:
    return [b.node for use in source.uses(mask) for b in source.names.bindings(use.value, use) if not b.imported]


def hides_future(source: Source, mask: cst.BaseExpression) -> bool:
    """Whether a mask is the square one that hides just the future: a triangle, or one from the cache."""
    made = operation(source, followed(source, mask))
    node = followed(source, mask)
    if isinstance(node, cst.Call) and source.code(node.func) == "get_tri_mask":
        return True
    if made is None or made.name != "triu" or source.code(made.argument(1, "diagonal") or node) != "1":
        return False
    ones = square_of_ones(source, made.operands[0])
    return ones is not None and ones.is_square and ones.is_bool


def _is_minus_infinity(source: Source, node: cst.BaseExpression) -> bool:
    text = source.code(node).replace("'", '"')
    is_named = isinstance(node, cst.UnaryOperation) and source.names.qualified(node.expression) in (
        "math.inf",
        "torch.inf",
        "numpy.inf",
    )
    return is_named or text in ('float("-inf")', '-float("inf")')


def _dropout(source: Source, factor: cst.BaseExpression) -> str:
    """The probability with which weights are dropped, while training only."""
    if not isinstance(factor, cst.Call):
        return ""
    made = operation(source, factor)
    if made is not None and not made.is_method:
        p, training = made.argument(1, "p"), made.argument(2, "training")
        if p is None or training is None:
            raise UnreadError(factor, "the dropout does not say p and training")
        return f"{operand(source, p)} if {source.code(training)} else 0.0"
    module = source.code(factor.func)
    if not module.startswith("self.") or len(factor.args) != 1:
        raise UnreadError(factor, "what is done to the weights cannot be told")
    return f"{module}.p if self.training else 0.0"
