"""Train a tiny model of this fork and print what came out, as JSON on the last line. argv[1]: the tree."""

import json
import sys
import tempfile
from pathlib import Path

import torch

TREE = Path(sys.argv[1])
sys.path.insert(0, str(TREE))
torch.set_num_threads(1)

from bitnet.nn import BitTransformerLM  # noqa: E402
from settings import compose  # noqa: E402
from train import run  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog, and 12 boxes of jugs go to Quebec.."  # 80 bytes, 20 rows of 36
SHAPE = ["model.width=16", "model.heads=2", "model.depth=2", "model.hidden=32", "model.max_len=36"]


def checksum(**more):
    torch.manual_seed(1)
    model = BitTransformerLM(width=16, heads=2, depth=2, hidden=32, max_len=36, dropout=0.0, **more).eval()
    bits = torch.randint(0, 2, (2, 36), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(bits)[0].double().abs().sum().item()


def main():
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(TEXT, encoding="utf-8")
        more = [f"data.path={text}", "model.chunk=8", "model.lookback=4", "model.dropout=0.0", "train.epochs=2"]
        history = run(compose([*SHAPE, *more]))
    result = {"losses": history.losses, "updates": len(history.losses), "final_lr": history.rates[-1]}
    print(json.dumps(result | {"dense": checksum(), "chunked": checksum(chunk=8, lookback=4)}))


main()
