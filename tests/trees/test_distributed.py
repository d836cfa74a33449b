import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bit_transformer.distributed import (
    all_reduce_mean,
    get_rank,
    get_world_size,
    init_distributed,
    is_main_process,
    shutdown_distributed,
    wrap_model,
)


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    shutdown_distributed()


def test_one_process_needs_no_group(make_model, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    model = make_model()
    assert wrap_model(model, init_distributed()) is model
    assert (get_rank(), get_world_size(), is_main_process()) == (0, 1, True)
    assert all_reduce_mean(torch.tensor(3.0)) == 3
    shutdown_distributed()


@pytest.mark.usefixtures("group_of_one")
def test_a_mean_leaves_its_argument_alone():
    values = torch.tensor([1.0, 2.0])
    all_reduce_mean(values).zero_()
    assert values.tolist() == [1, 2]


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("reversible", [False, True])
def test_gradients_pass_through_the_wrapper(make_model, reversible):
    model = make_model(reversible=reversible, use_act=True)
    bits = torch.randint(0, 2, (2, 9))
    expected = torch.autograd.grad(model(bits)[0].square().sum(), [*model.parameters()])
    DistributedDataParallel(model)(bits)[0].square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
