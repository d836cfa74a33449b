from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bitpatch.verify.driving.devices import strays
from bitpatch.verify.driving.world import changed, surroundings

T = 5


class Masks(nn.Module):
    def __init__(self, device: str | None, moves: bool = False) -> None:
        super().__init__()
        self.device, self.moves = device, moves

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(T, T, device=self.device or x.device).triu(1) > 0
        return x.masked_fill(mask.to(x.device) if self.moves else mask, 0.0)


def test_what_is_made_where_the_input_is_does_not_stray() -> None:
    assert strays(Masks(None), (torch.ones(T, T, requires_grad=True),), {}, graph=False) == ""
    assert strays(Masks("cpu", moves=True), (torch.ones(T, T),), {}, graph=False) == ""


def test_what_is_made_on_the_cpu_strays() -> None:
    assert strays(Masks("cpu"), (torch.ones(T, T),), {}, graph=False)


def test_settings_that_stay_and_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # others write to the folder of the tests meanwhile, and files are looked at
    before = surroundings()
    assert changed(before) == ""
    torch.set_default_dtype(torch.float64)
    try:
        assert changed(before) == "the default dtype"
    finally:
        torch.set_default_dtype(torch.float32)
