"""What runs in bfloat16 are watched by: the logits of each micro-batch, however its forward is called."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bitpatch.verify.driving.autocast_runs import after_forwards, loss_error
from bitpatch.verify.driving.spies import Event
from bitpatch.verify.driving.training_runs import Run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, bits: Tensor) -> tuple[Tensor, dict]:
        return self.head(bits[..., None]), {}

    def forward_compressed(self, streams: list[Tensor]) -> tuple[Tensor, dict]:
        return self.forward(torch.stack(streams))


def test_a_forward_that_no_hook_hears_is_seen_too():
    seen, model = [], Net()
    stop = after_forwards(Net, seen.append)
    model(torch.ones(1, 3))
    model.forward_compressed([torch.ones(3)])
    with torch.no_grad():
        model(torch.ones(1, 3))
    stop()
    model(torch.ones(1, 3))
    assert [tuple(each.shape) for each in seen] == [(1, 3, 2)] * 2


def mean(logits: Tensor, bits: Tensor) -> Tensor:
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), bits[:, 1:].flatten())


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "a mean": (mean, True),
    "a sum over bits": (lambda logits, bits: bits[:, 1:].numel() * mean(logits, bits), True),
    "a sum over rows": (lambda logits, bits: len(bits) * mean(logits, bits), True),
    "a mean that is rounded": (lambda logits, bits: mean(logits, bits).bfloat16().float(), False),
    "a sum that is rounded": (
        lambda logits, bits: (bits[:, 1:].numel() * mean(logits, bits)).bfloat16().float(),
        False,
    ),
    "no number": (lambda logits, bits: mean(logits, bits) * float("nan"), False),
    "nothing": (lambda logits, bits: mean(logits, bits) * 0.0, False),
    "of bits that are not these": (lambda logits, bits: mean(logits, 1 - bits), False),
}


@pytest.mark.parametrize(("loss", "is_exact"), LOSSES.values(), ids=LOSSES)
def test_losses_are_exact_whatever_they_are_sums_over(loss: Callable[[Tensor, Tensor], Tensor], is_exact: bool):
    data = torch.randint(0, 2, (9, 18), generator=torch.Generator().manual_seed(1))
    logits = torch.randn(9, 18, 2, generator=torch.Generator().manual_seed(2))
    events = [
        event
        for part in (slice(0, 8), slice(8, 9))
        for event in (
            Event("micro-batch", bits=data[part]),
            Event("backward", loss=loss(logits[part], data[part])),
        )
    ]
    run = Run("", nn.Identity(), data, events, None, {})
    assert (loss_error(run, [logits[:8], logits[8:]], 1) <= 1e-5) is is_exact
