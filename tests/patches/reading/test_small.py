"""Small tensors: torch computes the same."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files
from bitpatch.patches.reading.small import Small
from bitpatch.patches.reading.tensors import Unknown

SIZES = {"n": 3, "m": 2}
size = st.sampled_from(["n", "m", "n + 1", "2", "m * 2"])
LEAVES = st.one_of(
    st.builds("torch.ones({}, {})".format, size, size),
    st.builds("torch.zeros(({}, {}))".format, size, size),
    st.builds("torch.ones({}, {}, dtype=torch.bool)".format, size, size),
    st.builds("torch.full(({}, {}), {})".format, size, size, st.sampled_from(["2", "True", "float('-inf')", "0.5"])),
    st.builds("torch.arange({})".format, size),
    st.builds("torch.arange(1, {}, dtype=torch.float32)".format, size),
    st.builds("torch.eye({})".format, size),
)
UNARY = st.sampled_from(
    [
        *("{}.triu(1)", "torch.tril({})", "torch.triu(input={}, diagonal=-1)", "{}.bool()", "{}.float()", "{}.long()"),
        *(
            "({}).mT",
            "{}.unsqueeze(0)",
            "{}.unsqueeze(-1)",
            "{}[None]",
            "{}[:, None]",
            "{}[1:]",
            "{}[..., 0]",
            "{}[-1]",
        ),
        *("{}.flatten()", "{}.transpose(0, 1)", "{}.permute(1, 0)", "{}.reshape(-1)", "{}.view(-1, 1)", "{}.cumsum(0)"),
        *(
            "~{}",
            "-{}",
            "torch.logical_not({})",
            "{}.squeeze()",
            "{}.expand(2, -1, -1)",
            "{}.abs()",
            "1 - {}",
            "{} * 2",
        ),
        *(
            "{} == 0",
            "{} > 0.5",
            "{}.to(torch.bool)",
            "{}.contiguous()",
            "torch.zeros_like({})",
            "{}.clone()",
            "{}[:, ::2]",
        ),
    ]
)
BINARY = st.sampled_from(
    [
        *(
            "{} + {}",
            "{} - {}",
            "{} * {}",
            "{} > {}",
            "{} <= {}",
            "{} == {}",
            "{} != {}",
            "{} & {}",
            "{} | {}",
            "{} ^ {}",
        ),
        *("torch.where({}.bool(), {}, 0)", "{}.masked_fill({}.bool(), -1)", "torch.minimum({}, {})", "{} / ({} + 1)"),
    ]
)
TEXTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda form, a: form.format(f"({a})"), UNARY, inner),
        st.builds(lambda form, a, b: form.format(f"({a})", f"({b})"), BINARY, inner, inner),
    ),
    max_leaves=4,
)


def value_of(text):
    code = Code(Files(["file.py"], lambda _: f"import torch\ndef f(n, m):\n    return {text}\n".encode()))
    file = code.files.file("file.py")
    return code.reading(file, file.module.body[1]).returned


def small():
    return Small(lambda value: SIZES[value.data[2]])


def elements(tensor):
    kind = bool if tensor.dtype == torch.bool else float if tensor.is_floating_point() else int
    return tuple(tensor.shape), [kind(each) for each in tensor.flatten().tolist()], kind


@settings(max_examples=600, derandomize=True)
@given(TEXTS)
def test_torch_computes_the_same(text):
    try:
        expected = elements(eval(text, {"torch": torch, **SIZES}))
    except (RuntimeError, IndexError, TypeError):
        assume(False)
    try:
        made = small().tensor(value_of(text))
    except Unknown:
        return
    if any(math.isnan(each) for each in [*made.data, *expected[1]] if isinstance(each, float)):
        return
    kinds = {type(each) for each in made.data}
    assert (made.shape, kinds or {expected[2]}) == (expected[0], {expected[2]})
    assert list(made.data) == pytest.approx(expected[1], rel=1e-6)  # torch counts in float32


@pytest.mark.parametrize(
    "text",
    [
        "torch.ones(n, n).tril() == 0",
        "~torch.ones(n, m, dtype=torch.bool).triu(1)",
        "torch.arange(n)[None, :] > torch.arange(n)[:, None]",
        "torch.full((n, n), float('-inf')).triu(1)",
        "torch.where(torch.ones(n, n).tril().bool(), 0.0, float('-inf'))",
        "(1 - torch.eye(n)).cumsum(1).bool()",
    ],
)
def test_what_masks_are_made_of_is_computed(text):
    made = small().tensor(value_of(text))
    shape, data, _ = elements(eval(text, {"torch": torch, **SIZES}))
    assert (made.shape, list(made.data)) == (shape, data)


@pytest.mark.parametrize(
    "text", ["torch.rand(n, n)", "n.softmax(-1)", "torch.ones(n, n).to(m)", "torch.ones(200, 200)"]
)
def test_what_is_not_known_is_not_guessed(text):
    with pytest.raises(Unknown):
        small().tensor(value_of(text))
