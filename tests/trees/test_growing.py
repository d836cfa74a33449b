import pytest
import torch
from trees import running  # noqa: F401 - skips this file where it cannot run

from bit_transformer import BitTransformerLM, growing
from bit_transformer.checkpoint import save_checkpoint


@pytest.mark.parametrize(
    "stack", [{}, {"use_act": True, "reversible": True, "chunk_size": 9, "overlap": 9}], ids=["plain", "task-a"]
)
@pytest.mark.parametrize("double", ["num_layers", "d_model", "max_seq_len"])
def test_a_grown_model_computes_the_same(double, stack, tmp_path, capsys):
    config = {"d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 64, "max_seq_len": 36, **stack}
    small = BitTransformerLM(**config)
    save_checkpoint(tmp_path / "small.safetensors", small)
    wanted = BitTransformerLM(**{**config, double: 4 * config[double], "dim_feedforward": 64})
    if double == "d_model":
        wanted = BitTransformerLM(**{**wanted.config, "dim_feedforward": 256})
    grown = growing.grow_checkpoint(tmp_path / "small.safetensors", wanted.config)
    assert grown.config == wanted.config
    bits = torch.randint(0, 2, (2, 36))
    with torch.no_grad():
        moved = (grown.double().eval()(bits)[0] - small.double().eval()(bits)[0]).abs().max().item()
    assert moved < (1e-5 if double == "d_model" else 1e-9)  # halved weights over sqrt(2) are rounded to float32
    assert float(capsys.readouterr().err.rsplit(" ", 1)[1]) <= 1e-9


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"d_model": 48, "dim_feedforward": 192}, "leads to {'d_model': 64, 'dim_feedforward': 256}"),
        ({"num_layers": 1}, "leads to {'num_layers': 2}"),
        ({"use_act": True}, "leads to {'use_act': False}, expected {'use_act': True}"),
        ({"nhead": 4}, "leads to {'nhead': 2}"),
        ({"chunk_size": 9}, "leads to {'chunk_size': None}"),
    ],
)
def test_what_doubling_does_not_reach_is_refused(change, expected, tmp_path):
    config = {"d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 64, "max_seq_len": 36}
    save_checkpoint(tmp_path / "small.safetensors", BitTransformerLM(**config))
    with pytest.raises(ValueError, match="doubling") as caught:
        growing.grow_checkpoint(tmp_path / "small.safetensors", BitTransformerLM(**{**config, **change}).config)
    assert expected in str(caught.value)


def test_a_growth_that_moves_the_logits_is_refused(tmp_path, monkeypatch):
    def broken(model):
        grown = growing.double_layers(model)
        torch.nn.init.normal_(grown.layers[-1].feedforward[-1].bias, std=1e-6)
        return grown

    config = {"d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 64, "max_seq_len": 36}
    small = BitTransformerLM(**config)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter)
    save_checkpoint(tmp_path / "small.safetensors", small)
    monkeypatch.setitem(growing.DOUBLE, "num_layers", broken)
    with pytest.raises(ValueError, match="growing would move the logits by"):
        growing.grow_checkpoint(tmp_path / "small.safetensors", {**small.config, "num_layers": 4})
