"""Train the `byhand` fork for a few updates, and print what came of it as JSON."""

import json
import random
import sys

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

sys.path.insert(0, sys.argv[1])

from bit_transformer import BitTransformerLM, text_to_bits, train_loop
from bit_transformer.bit_io import rows_from_bits

TEXT = "Most of it was mended by hand, one report after another. " * 4
SIZES = {"d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 32, "max_seq_len": 108}


def built(**options: object) -> BitTransformerLM:
    torch.manual_seed(1)
    random.seed(1)
    return BitTransformerLM(**SIZES, **options)


@torch.no_grad()
def checksum(model: BitTransformerLM, rows: torch.Tensor) -> float:
    return model.eval()(rows[:2, :101])[0].double().abs().sum().item()


torch.set_num_threads(1)
rows = rows_from_bits(text_to_bits(TEXT), 108)
steps, losses = [], []
hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
history = train_loop(built(), rows, epochs=2, batch_size=4, accum_steps=2, on_update=losses.append)
hook.remove()
print(
    json.dumps(
        {
            "losses": losses,
            "updates": len(steps),
            "final_lr": history[-1]["lr"],
            "dense": checksum(built(), rows),
            "chunked": checksum(built(chunk_size=16, overlap=5), rows),
        }
    )
)
