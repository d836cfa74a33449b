import os

import pytest
import torch

from bit_transformer.checkpoint import load_checkpoint, save_checkpoint
from bit_transformer.optimization import configure_optimizer
from bit_transformer.quantization import quantize_dynamic


@pytest.mark.parametrize("stack", [{}, {"use_act": True, "reversible": True, "chunk_size": 4}])
def test_a_model_comes_back_as_it_was(make_model, tmp_path, stack):
    model, bits = make_model(**stack), torch.randint(0, 2, (2, 12))
    save_checkpoint(tmp_path / "model.pt", model)
    loaded = load_checkpoint(tmp_path / "model.pt")["model"].eval()
    assert loaded.config == model.config
    assert torch.equal(loaded(bits)[0], model(bits)[0])


def test_training_state_and_extras_come_back(make_model, tmp_path):
    model = make_model()
    optimizer, scheduler = configure_optimizer(model, total_steps=10)
    model(torch.randint(0, 2, (2, 9)))[0].sum().backward()
    optimizer.step()
    scheduler.step()
    save_checkpoint(tmp_path / "model.pt", model, optimizer, scheduler, step=3, plan={"epochs": 2})
    loaded = load_checkpoint(tmp_path / "model.pt")
    assert loaded["extra"] == {"step": 3, "plan": {"epochs": 2}}
    assert loaded["scheduler"]["last_epoch"] == 1
    again, _ = configure_optimizer(loaded["model"], total_steps=10)
    again.load_state_dict(loaded["optimizer"])
    assert len(again.state) == len(optimizer.state)


def test_an_int8_model_comes_back_as_int8(make_model, tmp_path):
    model, bits = quantize_dynamic(make_model()), torch.randint(0, 2, (2, 12))
    save_checkpoint(tmp_path / "model.pt", model)
    assert torch.equal(load_checkpoint(tmp_path / "model.pt")["model"].eval()(bits)[0], model(bits)[0])


def test_a_save_that_fails_leaves_the_old_file_and_no_other(make_model, tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    save_checkpoint(path, make_model())
    before = path.read_bytes()

    def full_disk(_handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, make_model(num_layers=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_damaged_file_is_named(make_model, tmp_path, keep):
    path = tmp_path / "model.pt"
    save_checkpoint(path, make_model())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.pt is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"config": {"d_modl": 3}, "model": {}}, {"model": {}}])
def test_a_file_of_something_else_is_named(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "other.pt")


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"config": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")
