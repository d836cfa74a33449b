"""Train a tiny model of this fork and print what came out, as JSON on the last line. argv[1]: the tree."""

import json
import random
import sys

import torch
import torch.nn.functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)

from bit_transformer import BitTransformerLM, set_dropout, train_loop  # noqa: E402

SMALL = {"d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 32, "max_seq_len": 36}


def small(**more):
    torch.manual_seed(1)
    model = BitTransformerLM(**SMALL, **more)
    set_dropout(model, 0.0)
    return model


def checksum(**more):
    bits = torch.randint(0, 2, (2, 36), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return small(**more).eval()(bits)[0].double().abs().sum().item()


def recorded(model):
    """The loss of every batch that goes through the model from now on: the loop keeps none but an epoch's mean."""
    seen, losses = [], []

    def loss_of(_module, _inputs, logits):
        pred = logits.detach()[:, :-1].reshape(-1, 2)
        losses.append(F.cross_entropy(pred, seen[-1][:, 1:].reshape(-1)).item())

    model.embedding.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model.out_head.register_forward_hook(loss_of)
    return losses


def main():
    updates = []
    register_optimizer_step_post_hook(lambda optimizer, *_: updates.append(optimizer.param_groups[0]["lr"]))
    rows = torch.randint(0, 2, (18, 36), generator=torch.Generator().manual_seed(3))
    model = small(chunk_size=8, overlap=4)
    torch.manual_seed(4)
    random.seed(4)
    losses = recorded(model)
    train_loop(model, rows, epochs=2)
    result = {"losses": losses, "updates": len(updates), "final_lr": updates[-1]}
    print(json.dumps(result | {"dense": checksum(), "chunked": checksum(chunk_size=8, overlap=4)}))


main()
