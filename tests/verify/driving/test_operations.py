import functools
import gc
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpatch.verify.driving.operations import (
    SMALLEST,
    Operations,
    Triangle,
    fresh_modules,
    mask_functions,
    reach,
    triangle_of,
)
from bitpatch.verify.driving.tree import Tree
from bitpatch.verify.task_10_mask_cache import through_meta

T = 6
BASELINE = Path(__file__).parents[3] / "baseline"


def births(build: Callable[[], object]) -> list[Triangle]:
    with Operations() as operations:
        build()
    return operations.births


def cached() -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).triu(1)


@functools.cache
def kept() -> Tensor:
    return cached()


def row_by_row() -> Tensor:
    mask = torch.zeros(T, T)
    for row in range(T):
        mask[row, row + 1 :] = float("-inf")
    return mask + 0


def fused_with_padding() -> Tensor:
    key, query = torch.arange(T), torch.arange(T)[:, None]
    return (key > query) | (key < 2)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: torch.rand(T, T).softmax(-1), id="softmaxed scores"),
        pytest.param(lambda: torch.rand(T, T).tril(), id="lower triangle of random numbers"),
        pytest.param(lambda: torch.ones(T, T), id="constant"),
        pytest.param(lambda: torch.eye(T), id="diagonal"),
        pytest.param(lambda: torch.arange(T) - torch.arange(T)[:, None], id="distances, not yet compared"),
        pytest.param(lambda: (torch.arange(T) - torch.arange(T)[:, None]).abs() < 2, id="band"),
        pytest.param(lambda: torch.arange(T) + torch.arange(T)[:, None] < T, id="anti-triangle"),
        pytest.param(lambda: torch.ones(3, 3).triu(), id="too small to tell"),
        pytest.param(lambda: torch.ones(T, T, device="meta").triu(), id="no content"),
        pytest.param(lambda: torch.full((T, T), float("nan")).triu(), id="nan"),
        pytest.param(lambda: torch.zeros(0, T, T).triu(), id="empty"),
        pytest.param(lambda: torch.stack([torch.ones(T, T), torch.zeros(T, T)]), id="pages that differ"),
        pytest.param(
            lambda: F.scaled_dot_product_attention(*torch.rand(3, 1, 1, T, 4), is_causal=True), id="sdpa's own"
        ),
    ],
)
def test_nothing_is_born(build: Callable[[], object]) -> None:
    assert births(build) == []


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: ~kept(), id="opposite sense"),
        pytest.param(lambda: kept()[2:] | False, id="slice"),
        pytest.param(lambda: kept()[:, :2].contiguous().any(), id="slice too small to tell"),
        pytest.param(lambda: kept().to(torch.float64), id="cast"),
        pytest.param(lambda: torch.zeros(T, T).masked_fill(kept(), float("-inf")), id="additive form"),
        pytest.param(lambda: torch.rand(2, T, T).masked_fill(kept(), 0.0), id="use"),
    ],
)
def test_what_comes_of_a_triangle_is_no_birth(build: Callable[[], object]) -> None:
    assert births(lambda: (kept() & True, build())) == births(lambda: kept() & True)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(cached, id="triu of ones"),
        pytest.param(lambda: torch.ones(T, T).tril(), id="tril of ones"),
        pytest.param(lambda: torch.ones(T, T).triu_(1), id="in place"),
        pytest.param(lambda: torch.triu(torch.ones(T, T), out=torch.empty(0)), id="into out="),
        pytest.param(lambda: torch.arange(T) > torch.arange(T)[:, None], id="comparison of positions"),
        pytest.param(lambda: torch.arange(8) >= torch.arange(4)[:, None] + 4, id="window with an overlap"),
        pytest.param(lambda: nn.Transformer.generate_square_subsequent_mask(T), id="torch's own, in -inf"),
        pytest.param(
            lambda: torch.ones(T, T).triu(1)[None, None].expand(2, 1, T, T).clone(), id="cloned with leading axes"
        ),
        pytest.param(lambda: torch.ones(2, T, T).triu(1), id="page for page"),
        pytest.param(lambda: torch.ones(T, T, dtype=torch.bfloat16).triu(-2) * -1e9, id="another offset"),
        pytest.param(
            lambda: torch.zeros(T, T).index_put_(tuple(torch.triu_indices(T, T, 1)), torch.tensor(1.0)), id="indices"
        ),
        pytest.param(row_by_row, id="row by row, seen when it is used"),
        pytest.param(fused_with_padding, id="joined with padding"),
        pytest.param(lambda: torch.tensor([[key > query for key in range(T)] for query in range(T)]), id="from a list"),
    ],
)
def test_a_triangle_is_born_once(build: Callable[[], object]) -> None:
    assert len(births(build)) == 1


def test_each_build_is_a_birth_of_the_same_kind() -> None:
    first, second = births(lambda: (cached(), cached()))
    assert first == second == Triangle(T, T, 1, True, False, torch.bool, torch.device("cpu"))


def test_memory_that_is_used_again_is_another_triangle() -> None:
    def build() -> None:
        for _ in range(20):
            cached()
            gc.collect()

    assert len(births(build)) == 20


def test_birth_in_a_recomputed_backward() -> None:
    def attend(x: Tensor) -> Tensor:
        return x.masked_fill(cached(), 0.0).sum()

    x = torch.rand(T, T, requires_grad=True)
    recomputed = torch.utils.checkpoint.checkpoint
    assert len(births(lambda: recomputed(attend, x, use_reentrant=False).backward())) == 2


@pytest.mark.parametrize("offset", range(-SMALLEST, 8))
def test_offset(offset: int) -> None:
    triangle = triangle_of(torch.ones(5, 7).triu(offset))
    assert (triangle.offset if triangle else None) == (offset if -4 < offset < 7 else None)


def test_used_triangles_are_told_and_copied_ones_are_not() -> None:
    used: list[Tensor] = []
    mask = cached()
    with Operations(used.append):
        view = mask[1:]
        copy = mask.clone()
        torch.rand(T, T).masked_fill(~copy, 0.0)
        torch.rand(T - 1, T).masked_fill(view, 0.0)
    assert [tensor.shape[0] for tensor in used] == [T, T - 1]
    assert used[1] is view


def test_counts_and_largest() -> None:
    with Operations() as operations:
        torch.ones(3, 5).T.relu()
    assert operations.counts["aten::relu"] == 1
    assert operations.largest == 15


def test_reach_of_a_causal_model_is_the_past() -> None:
    tree = Tree(BASELINE)
    assert torch.equal(reach(tree.model(), tree.bits(1, T)), ~cached())
    assert reach(tree.model(), tree.bits(1, T), causal=False).all()


def test_reach_without_an_embedding_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="Embedding"):
        reach(Blind(), torch.zeros(1, T, dtype=torch.long))


class Blind(nn.Module):
    def forward(self, bits: Tensor, causal: bool) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.zeros(*bits.shape, 2), {}


def test_fresh_modules_are_others_and_leave_the_old_ones() -> None:
    tree = Tree(BASELINE)
    before = tree.module("model")
    with fresh_modules(tree):
        inside = tree.module("model")
    assert inside is not before
    assert tree.module("model") is before


MASKED = """
    import functools

    import torch
    from torch import nn

    @functools.cache
    def hidden(size, device):
        return torch.ones(size, size, dtype=torch.bool, device=device).triu(1)

    def unused(size, device):
        raise AssertionError("not what a forward runs")

    class Net(nn.Module):
        def forward(self, bits):
            size = bits.shape[1]
            return bits.float().expand(size, size).masked_fill(hidden(size, bits.device), 0.0)
"""


def test_functions_that_give_masks_are_those_that_run_in_a_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bitmasks_net.py").write_text(textwrap.dedent(MASKED))
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {"where": "bitmasks_net:Net", "options": {}, "roles": {}}
    tree = Tree(tmp_path, driving={"roots": [""], "seams": {"model": model}})
    monkeypatch.setattr(tree, "model", lambda **_: tree.kind())
    assert list(mask_functions(tree, ({},))) == ["hidden"]
    del sys.modules["bitmasks_net"]


class Positions(nn.Module):
    """A module that works out its positions when it is made, and keeps a mask as it likes."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("positions", torch.arange(T)[:, None].sin().expand(T, 4).clone(), persistent=False)
        self.register_buffer("lengths", torch.arange(T), persistent=False)
        self.register_buffer("mask", mask, persistent=False)


@pytest.mark.parametrize("mask", [cached(), torch.full((2, T, T), float("-inf")).triu(1)], ids=["of bools", "to add"])
def test_what_goes_over_meta_loses_masks_and_nothing_else_that_is_kept_apart(mask: Tensor) -> None:
    kept_apart = Positions(mask)
    moved = through_meta(kept_apart)
    assert torch.equal(moved.positions, kept_apart.positions)
    assert torch.equal(moved.lengths, kept_apart.lengths)
    assert not torch.equal(moved.mask, kept_apart.mask)
