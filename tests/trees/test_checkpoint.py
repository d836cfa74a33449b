import json
import os
import subprocess
import sys

import pytest
import torch

from bit_transformer import checkpoint
from bit_transformer.checkpoint import load_checkpoint, read_content, save_checkpoint, write_content
from bit_transformer.optimization import configure_optimizer
from bit_transformer.quantization import quantize_static


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
    bits = torch.randint(0, 2, (2, 12))
    model = quantize_static(make_model(), bits)
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


# Content -------------------------------------------------------------------------------------------


def test_content_comes_back_with_its_types(tmp_path):
    content = {
        "numbers": [0, -1.5, 1e-300, True, None, float("inf")],
        "betas": (0.9, 0.999),
        "state": {0: {"step": torch.tensor(3.0)}, "name": {}},
        "empty": torch.zeros(0, 2),
        "bits": torch.tensor([True, False]),
        "half": torch.randn(2, 3, dtype=torch.bfloat16),
        "rows": torch.arange(6).view(2, 3).t(),
        "text": "ünï\n",
    }
    write_content(tmp_path / "file", content)
    found = read_content(tmp_path / "file")
    assert list(found) == list(content)
    assert found["numbers"] == content["numbers"]
    assert found["numbers"][3] is True
    assert found["betas"] == (0.9, 0.999)
    assert found["text"] == content["text"]
    assert list(found["state"]) == [0, "name"]
    for name in ("empty", "bits", "half", "rows"):
        assert torch.equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype


def test_equal_content_makes_equal_files_and_shared_tensors_are_kept_apart(tmp_path):
    shared = torch.randn(4)
    for name in ("a", "b"):
        write_content(tmp_path / name, {"one": shared, "two": shared[:2], "list": [shared, {"x": shared}]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(read_content(tmp_path / "a")["list"][1]["x"], shared)


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"got set as '.*extra\.odd'"):
        write_content(tmp_path / "file", {"extra": {"odd": {1, 2}}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["metadata", "tensor"])
def test_a_changed_byte_is_found(tmp_path, place):
    path = tmp_path / "file"
    write_content(path, {"loss": 0.125, "weight": torch.ones(8)})
    raw = path.read_bytes()
    at = raw.index(b"0.125") + 4 if place == "metadata" else len(raw) - 1
    path.write_bytes(raw[:at] + (b"6" if place == "metadata" else b"\x3e") + raw[at + 1 :])
    with pytest.raises(ValueError, match=r"checksum|damaged"):
        read_content(path)


def test_a_newer_version_says_to_use_newer_code(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 7)
    write_content(tmp_path / "file", {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its version is 7, and this code reads 1: use a newer one"):
        read_content(tmp_path / "file")


def test_the_error_of_a_disk_names_the_file_and_the_mend_is_left_to_the_caller(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/model\.pt cannot be written: "):
        write_content(tmp_path / "file" / "model.pt", {})


LOAD_AND_SAVE = """
import json, sys
import torch
from bit_transformer.checkpoint import load_checkpoint, write_content
from bit_transformer.optimization import configure_optimizer

found = load_checkpoint(sys.argv[1])
model = found["model"].eval()
optimizer, scheduler = configure_optimizer(model, total_steps=10)
optimizer.load_state_dict(found["optimizer"])
scheduler.load_state_dict(found["scheduler"])
with torch.no_grad():
    moved = (model(found["extra"]["bits"])[0] - found["extra"]["logits"]).abs().max().item()
content = {"config": model.config, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
write_content(sys.argv[2], {**content, "scheduler": scheduler.state_dict(), "extra": found["extra"]})
print(json.dumps({"moved": moved, "lr": optimizer.param_groups[0]["lr"]}))
"""


def test_a_patched_and_an_unpatched_tree_read_each_others_checkpoints(make_model, tree, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    other = {"baseline": "reference", "reference": "baseline"}.get(tree.name)
    if other is None:
        pytest.skip("a tree of its own has no other side")
    # Without overlap, and with whole chunks: there the unpatched tree computes the same.
    model, bits = make_model(use_act=True, reversible=True, chunk_size=4).train(), torch.randint(0, 2, (2, 12))
    optimizer, scheduler = configure_optimizer(model, total_steps=10)
    model(bits)[0].square().sum().backward()
    optimizer.step()
    scheduler.step()
    with torch.no_grad():
        logits = model.eval()(bits)[0]
    save_checkpoint(here, model, optimizer, scheduler, bits=bits, logits=logits)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LOAD_AND_SAVE, str(here), str(there)]
    run = subprocess.run(command, cwd=tree.parent / other, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["moved"] < 1e-12
    assert found["lr"] == scheduler.get_last_lr()[0]
    assert there.read_bytes() == here.read_bytes()
    assert torch.equal(load_checkpoint(there)["model"].eval()(bits)[0], logits)
