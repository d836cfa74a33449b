import pytest
import torch

from bitpatch.verify.driving.memory import Memory

BYTES = 400  # of a hundred float32


def test_what_is_gone_counts_no_more() -> None:
    x = torch.zeros(100)
    with Memory() as memory:
        for _ in range(10):
            y = x + 1
        del y
    assert memory.peak == 2 * BYTES
    assert memory.largest == 100


@pytest.mark.parametrize("count", [1, 7])
def test_what_is_held_counts(count: int) -> None:
    x = torch.zeros(100)
    with Memory() as memory:
        held = [x + 1 for _ in range(count)]
    assert memory.peak == len(held) * BYTES


def test_views_and_writes_in_place_take_nothing() -> None:
    x = torch.zeros(100)
    with Memory() as memory:
        x.view(10, 10).t().add_(1)
    assert memory.peak == 0


def test_what_a_graph_holds_counts() -> None:
    x = torch.zeros(100, requires_grad=True)
    with Memory() as memory:
        x.exp().exp().exp().sum().backward()
    assert memory.peak >= 3 * BYTES
