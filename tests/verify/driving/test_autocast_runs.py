"""What runs in bfloat16 are watched by: the logits of each micro-batch, however its forward is called."""

import torch
from torch import Tensor, nn

from bitpatch.verify.driving.autocast_runs import after_forwards


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
