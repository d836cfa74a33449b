import pytest
import torch

from bit_transformer.safety import SafetyError, SafetyGate, hil_safe_inference


def test_a_low_loss_never_stops_training():
    gate = SafetyGate(threshold=2.0)
    assert all(gate.allows(0.7) for _ in range(2000))


def test_a_lasting_fault_stops_training_for_good():
    gate = SafetyGate(threshold=2.0)
    assert not [gate.allows(50.0) for _ in range(20_000)][-1]
    assert not gate.allows(0.7)


def test_a_reset_lets_training_go_on():
    gate = SafetyGate(threshold=2.0)
    for _ in range(20_000):
        gate.allows(50.0)
    gate.reset()
    assert gate.allows(0.7)


def test_a_gate_is_restored_as_it_was():
    gate, restored = SafetyGate(threshold=2.0), SafetyGate(threshold=2.0)
    for _ in range(20_000):
        gate.allows(50.0)
    restored.load_state_dict(gate.state_dict())
    assert restored.state_dict() == gate.state_dict()
    assert not restored.allows(0.7)


@pytest.mark.parametrize("training", [False, True])
def test_an_answer_above_the_floors_is_that_of_the_model(make_model, training):
    model = make_model().train(training)
    bits = torch.randint(0, 2, (2, 12))
    logits, telemetry = hil_safe_inference(model, bits, c_floor=0.0, s_floor=0.0)
    assert model.training is training
    assert not logits.requires_grad
    assert torch.equal(logits, model.eval()(bits)[0])
    assert "symbiosis" in telemetry


@pytest.mark.parametrize("floors", [{"c_floor": 1.1, "s_floor": 0.0}, {"c_floor": 0.0, "s_floor": 1.1}])
def test_an_answer_under_a_floor_is_withheld(make_model, floors):
    model, bits = make_model(), torch.randint(0, 2, (2, 12))
    with pytest.raises(SafetyError, match=r"floor 1\.1"):
        hil_safe_inference(model, bits, **floors)
    logits, telemetry = hil_safe_inference(model, bits, **floors, strict=False)
    assert logits is None
    assert telemetry["lz_complexity"].shape == (2,)
