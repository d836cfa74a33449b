"""One computation, one value: however it is spelled, and wherever its parts stand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files

HEAD = """\
import math
import torch
import torch as th
import torch.nn.functional as F
from torch import nn, triu as upper
from torch.nn import functional as fn


def passed_on(value):
    return value


def chosen(value, *, is_asked=False):
    if is_asked:
        raise ValueError(value)
    return value


class Kept:
    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value


"""
SPELLINGS = {  # of one operation each
    "triu": [
        "torch.triu({0}, diagonal=1)",
        "{0}.triu(1)",
        "upper({0}, 1)",
        "th.triu(diagonal=1, input={0})",
        "{0}.triu_(1)",
    ],
    "softmax": [
        "torch.softmax({0}, dim=-1)",
        "F.softmax({0}, -1)",
        "{0}.softmax(dim=-1)",
        "nn.Softmax(dim=-1)({0})",
        "fn.softmax(input={0}, dim=-1)",
    ],
    "fill": [
        "{0}.masked_fill({1}, -math.inf)",
        "torch.masked_fill({0}, {1}, float('-inf'))",
        "{0}.masked_fill(value=-th.inf, mask={1})",
    ],
    "product": ["{0} @ {1}", "torch.matmul({0}, {1})", "{0}.bmm({1})", "th.matmul(other={1}, input={0})"],
    "sum": ["{0} + {1}", "torch.add({0}, {1})", "{0}.add({1})"],
    "turned": ["{0}.transpose(-2, -1)", "{0}.mT", "torch.transpose({0}, -1, -2)", "{0}.swapaxes(dim0=-2, dim1=-1)"],
    "root": ["{0} / math.sqrt(n)", "{0} / n ** 0.5", "torch.div({0}, math.sqrt(n))", "{0}.div(n**0.5)"],
    "truth": ["{0}.bool()", "{0}.to(torch.bool)", "{0}.type(th.bool)", "{0}.to(dtype=torch.bool)"],
    "ones": ["torch.ones(n, n)", "th.ones((n, n))", "torch.ones(size=[n] * 2)", "torch.ones(*(n, n))"],
}
ARITY = {"fill": 2, "product": 2, "sum": 2, "ones": 0}
TREES = st.recursive(
    st.sampled_from(["x", "y", ("ones",)]),
    lambda inner: st.one_of(*(st.tuples(st.just(op), *[inner] * ARITY.get(op, 1)) for op in SPELLINGS if op != "ones")),
    max_leaves=5,
)
WAYS = [
    "{0}",
    "passed_on({0})",
    "chosen({0})",
    "chosen(value={0}, is_asked=False)",
    "Kept({0}).get()",
    "(lambda v: v)({0})",
    "[{0}][0]",
    "({0}, x)[0]",
    "(t := {0})",
]


class Writer:
    """Writes a computation as statements, in a way that is drawn."""

    def __init__(self, draw):
        self.draw, self.lines, self.count = draw, [], 0

    def text(self, tree):
        if isinstance(tree, str):
            return tree
        op, *parts = tree
        made = self.draw(st.sampled_from(SPELLINGS[op])).format(*(f"({self.text(part)})" for part in parts))
        made = self.draw(st.sampled_from(WAYS)).format(made)
        how = self.draw(st.sampled_from(["inline", "named", "aliased", "branches", "unpacked", "context"]))
        if how == "inline":
            return made
        self.count += 1
        name = f"v{self.count}"
        self.lines += {
            "named": [f"{name} = {made}"],
            "aliased": [f"first_{name}: object = {made}", f"{name} = first_{name}"],
            "branches": ["if n:", f"    {name} = {made}", "else:", f"    {name} = {made}"],
            "unpacked": [f"{name}, _ = {made}, 1"],
            "context": ["with torch.no_grad():", f"    {name} = {made}"],
        }[how]
        return name


def value_of(result, lines=()):
    body = "".join(f"    {line}\n" for line in [*lines, f"return {result}"])
    code = Code(Files(["file.py"], lambda _: (HEAD + f"def f(x, y, n):\n{body}").encode()))
    file = code.files.file("file.py")
    return code.reading(file, file.module.body[-1]).returned


def shown(value):
    """A value as text, without where its parameters come from."""
    data = value.data[2] if value.op == "parameter" else value.data
    return f"{value.op}[{data}]({', '.join(f'{name}={shown(each)}' for name, each in value.args.items())})"


def plain(tree):
    if isinstance(tree, str):
        return tree
    op, *parts = tree
    return SPELLINGS[op][0].format(*(f"({plain(part)})" for part in parts))


@settings(max_examples=150, derandomize=True)
@given(TREES, st.data())
def test_two_spellings_of_one_computation_are_one_value(tree, data):
    writer = Writer(data.draw)
    result = writer.text(tree)
    assert shown(value_of(result, writer.lines)) == shown(value_of(plain(tree)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x.triu(1)", "x.triu(2)"),
        ("x @ y", "y @ x"),
        ("x - y", "y - x"),
        ("torch.dropout(x, 0.1, True)", "torch.dropout(x, 0.1, True).dropout(0.1)"),
        ("x.softmax(-1)", "x.softmax(1)"),
        ("torch.ones(n, n)", "torch.ones(n, n, dtype=torch.bool)"),
        ("x.reshape(n)", "x.flatten()"),
        ("unknown(x)", "x"),
    ],
)
def test_other_computations_are_other_values(one, other):
    assert shown(value_of(one)) != shown(value_of(other))


@pytest.mark.parametrize(
    ("lines", "result", "expected"),
    [
        pytest.param(["z = x", "x = x + 1"], "z", "x", id="a name that is set again"),
        pytest.param(["z = x.clone()", "z.add_(y)"], "z", "x.clone() + y", id="changed in place"),
        pytest.param(["z = x.clone()", "w = z", "z.mul_(2)"], "w", "x.clone() * 2", id="changed under another name"),
        pytest.param(["if n > 1:", "    return x"], "y", "x if n > 1 else y", id="an early return"),
        pytest.param(["if n > 1:", "    raise ValueError"], "y", "y", id="an early raise"),
        pytest.param(
            ["if n > 1:", "    z = x", "    if n > 2:", "        return z", "    y = z"],
            "y",
            "x if (n > 1 and n > 2) else (x if n > 1 else y)",
            id="an early return in a branch that goes on",
        ),
        pytest.param(["try:", "    z = x", "finally:", "    pass"], "z", "x", id="try and finally"),
        pytest.param(["q, k = (each.mT for each in (x, y))"], "k", "y.mT", id="a generator over a display"),
        pytest.param(["a, b, c, d = x.shape"], "c", "x.size(2)", id="sizes that are unpacked"),
        pytest.param(["a, b, c, d = x.shape"], "x.size(-2)", "x.shape[-2]", id="the same size"),
        pytest.param(
            ["def inner(v, w=y):", "    return v + w"], "inner(x)", "x + y", id="a default of the function around"
        ),
        pytest.param(["kept = {}", "kept['a'] = 1"], "x.sum()", "x.sum()", id="something else is written"),
    ],
)
def test_statements(lines, result, expected):
    assert shown(value_of(result, lines)) == shown(value_of(expected, [each for each in lines if "a, b, c, d" in each]))


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        pytest.param(["z = x[1:]", "x.mul_(0)"], "z", id="a view of what was changed"),
        pytest.param(["for _ in range(n):", "    if y:", "        return x"], "y", id="a return in a loop"),
        pytest.param(["@unknown", "def inner(v):", "    return v"], "inner(x)", id="an unknown decorator"),
        pytest.param([], "passed_on(*y)", id="arguments that are not known"),
        pytest.param([], "missing", id="a name without a binding"),
    ],
)
def test_what_is_not_understood_is_opaque(lines, result):
    assert any(each.op == "opaque" for each in value_of(result, lines).walk())


def test_what_is_made_in_very_many_steps_is_opaque_to_those_behind():
    parts = list(value_of("y", ["y = x", *["y = y + 1"] * 1000]).walk())
    assert len(parts) < 600
    assert sum(each.op == "opaque" for each in parts) == 1


def test_einsum_is_a_product_of_matrices():
    batch = value_of("torch.einsum('bhtd,bhsd->bhts', x, y)")
    assert (batch.op, batch["other"].op) == ("matmul", "mT")
    heads_last = value_of("torch.einsum('bthd,bshd->bhts', x, y)")
    assert (heads_last.op, heads_last["input"].op, heads_last["input"].data) == ("matmul", "permute", (0, 2, 1, 3))
    assert value_of("torch.einsum('bhtd,bhtd->bht', x, y)").op == "einsum"
