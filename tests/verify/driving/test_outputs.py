"""Logits are found in whatever a forward gives, and nothing else is taken for them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

from bitpatch.verify.driving.outputs import outputs, with_logits
from bitpatch.verify.driving.seams import MissingSeam

LOGITS, MAP = torch.ones(1, 4, 2), torch.zeros(1, 1, 4, 4)


class Named(NamedTuple):
    stats: dict[str, float]
    logits: torch.Tensor
    maps: list[torch.Tensor]


@dataclass
class Record:
    logits: torch.Tensor
    loss: float | None = None


@pytest.mark.parametrize(
    ("out", "rest"),
    [
        pytest.param((LOGITS, {"K": 1.0}), {"K": 1.0}, id="logits and telemetry"),
        pytest.param(LOGITS, {}, id="logits alone"),
        pytest.param([LOGITS, [MAP]], {"1": [MAP]}, id="a list, and a list of maps"),
        pytest.param({"stats": {"K": 1.0}, "logits": LOGITS}, {"K": 1.0}, id="a mapping"),
        pytest.param(Named({"K": 1.0}, LOGITS, [MAP]), {"K": 1.0, "maps": [MAP]}, id="a named tuple"),
        pytest.param(Record(LOGITS), {"loss": None}, id="a record"),
        pytest.param((LOGITS, LOGITS * 3), {"1": LOGITS * 3}, id="the first of two that are alike"),
    ],
)
def test_logits_and_the_rest_are_told_apart(out: Any, rest: dict[str, Any]) -> None:
    found, others = outputs(out)
    assert torch.equal(found, LOGITS)
    assert repr(others) == repr(rest)

    spoilt = with_logits(out, lambda logits: logits * 2)
    assert type(spoilt) is type(out)
    assert torch.equal(outputs(spoilt)[0], LOGITS * 2)
    assert repr(outputs(spoilt)[1]) == repr(rest)


@pytest.mark.parametrize(
    ("out", "lack"),
    [
        pytest.param((MAP, {}), "holds no logits", id="none"),
        pytest.param(LOGITS.long(), "holds no logits", id="numbers that are whole"),
        pytest.param({"a": LOGITS, "b": LOGITS}, "a, b are shaped like logits", id="two without a name"),
    ],
)
def test_what_is_not_known_to_be_logits_is_a_missing_seam(out: Any, lack: str) -> None:
    with pytest.raises(MissingSeam, match=lack):
        outputs(out)
