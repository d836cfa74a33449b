"""Train a tiny model of this fork and print what came out, as JSON on the last line. argv[1]: the tree."""

import json
import random
import sys
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

sys.path.insert(0, str(Path(sys.argv[1]) / "src"))
torch.set_num_threads(1)

from bitformer import BitTransformerLM, ModelConfig, TrainConfig, Trainer  # noqa: E402

SMALL = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 32, "max_len": 36, "dropout": 0.0}


def small(**more):
    torch.manual_seed(1)
    return BitTransformerLM(ModelConfig(**SMALL, **more))


def checksum(**more):
    bits = torch.randint(0, 2, (2, 36), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return small(**more).eval()(bits)[0].double().abs().sum().item()


def main():
    updates = []
    register_optimizer_step_post_hook(lambda optimizer, *_: updates.append(optimizer.param_groups[0]["lr"]))
    rows = torch.randint(0, 2, (18, 36), generator=torch.Generator().manual_seed(3))
    model = small(chunk_size=8, overlap=4)
    torch.manual_seed(4)
    random.seed(4)
    trainer = Trainer(model, rows, TrainConfig(epochs=2))
    trainer.run()
    result = {"losses": trainer.update_losses, "updates": len(updates), "final_lr": updates[-1]}
    print(json.dumps(result | {"dense": checksum(), "chunked": checksum(chunk_size=8, overlap=4)}))


main()
