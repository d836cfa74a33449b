"""Train a tiny model of this fork and print what came out, as JSON on the last line. argv[1]: the tree."""

import json
import runpy
import sys
import tempfile
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

TREE = Path(sys.argv[1])
sys.path.insert(0, str(TREE))
torch.set_num_threads(1)

from model import BitTransformerLM  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog, and 12 boxes of jugs go to Quebec.."  # 80 bytes, 20 rows of 36
OPTIONS = ["d_model=16", "nhead=2", "layers=2", "seq_len=36", "chunk_size=8", "overlap=4", "dropout=0.0", "epochs=2"]


def checksum(**more):
    torch.manual_seed(1)
    model = BitTransformerLM(d_model=16, nhead=2, layers=2, ff=32, max_seq_len=36, dropout=0.0, **more).eval()
    bits = torch.randint(0, 2, (2, 36), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(bits)[0].double().abs().sum().item()


def main():
    updates = []
    register_optimizer_step_post_hook(lambda optimizer, *_: updates.append(optimizer.param_groups[0]["lr"]))
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(TEXT, encoding="utf-8")
        sys.argv = ["train.py", f"data={text}", *OPTIONS]
        ran = runpy.run_path(str(TREE / "train.py"), run_name="__main__")
    result = {"losses": ran["losses"], "updates": len(updates), "final_lr": updates[-1]}
    print(json.dumps(result | {"dense": checksum(), "chunked": checksum(chunk_size=8, overlap=4)}))


main()
