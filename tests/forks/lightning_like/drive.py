"""Train the `lightning_like` fork for a few updates, and print what came of it as JSON."""

import json
import random
import sys

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

sys.path.insert(0, sys.argv[1])

from bt import BitTransformerLM, Callback, Engine, PretrainModule
from bt.bits import text_to_bits, to_rows
from bt.finetune import FineTuner

TEXT = "Hooks before, hooks after, and an engine in between. " * 4
SIZES = {"d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 32, "max_seq_len": 108}
PAIRS = [(f"{a} + {b} = ", str(a + b)) for a in range(2) for b in range(5)]


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_batch_end(self, engine: Engine, output: dict[str, torch.Tensor]) -> None:
        self.seen.append(output["loss"].item())


def built(**options: object) -> BitTransformerLM:
    torch.manual_seed(1)
    random.seed(1)
    return BitTransformerLM(**SIZES, **options)


@torch.no_grad()
def checksum(net: BitTransformerLM, rows: torch.Tensor) -> float:
    return net.eval()(rows[:2, :101])[0].double().abs().sum().item()


torch.set_num_threads(1)
rows = to_rows(text_to_bits(TEXT), 108)[:12]
steps, losses = [], Losses()
hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
net = built()
metrics = Engine(max_epochs=2, callbacks=[losses]).fit(PretrainModule(net), rows, rows[:2])
tuned = FineTuner(net).run(PAIRS)
hook.remove()
print(
    json.dumps(
        {
            "losses": [*losses.seen, *tuned],
            "updates": len(steps),
            "final_lr": metrics["lr"],
            "dense": checksum(built(), rows),
            "chunked": checksum(built(chunk_size=16, overlap=5), rows),
        }
    )
)
