import pytest
import torch

from bit_transformer.optimization import configure_optimizer


def test_the_rate_rises_to_lr_and_ends_at_the_floor(make_model):
    optimizer, scheduler = configure_optimizer(make_model(), lr=0.2, weight_decay=0.0, total_steps=50)
    rates = []
    for _ in range(50):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.2, rel=1e-3)
    assert rates[-1] == pytest.approx(0.2 / 25 / 1e4, abs=1e-9)


def test_matrices_decay_and_nothing_else_does(make_model):
    model = make_model()
    optimizer, _ = configure_optimizer(model, lr=1e-3, weight_decay=0.1, total_steps=10)
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and name not in ("embedding.weight", "position.weight")
        assert decay[id(parameter)] == (0.1 if is_matrix else 0.0), name


def test_frozen_parameters_are_not_optimized(make_model):
    model = make_model()
    model.embedding.requires_grad_(False)
    optimizer, _ = configure_optimizer(model, total_steps=10)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert id(model.embedding.weight) not in held


def test_the_number_of_updates_must_be_given(make_model):
    with pytest.raises(TypeError, match="total_steps"):
        configure_optimizer(make_model())


def test_the_optimizer_moves_the_model(make_model):
    model = make_model()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer, _ = configure_optimizer(model, total_steps=10)
    model(torch.randint(0, 2, (2, 9)))[0].square().sum().backward()
    optimizer.step()
    moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
