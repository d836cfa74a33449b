"""What `verify --script` costs the script that it watches: `python benchmarks/watched_scripts.py [ROUNDS]`.

Three scripts run in processes of their own, in turns: as they are, once more so (A/A: what is noise), and watched.
Printed are the ratios of their processor time, medians of 5 rounds if not told otherwise, and whether their losses are
the same to the bit; exits 1 where they are not, or where a script takes twice its time.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from machine import ran_on
from page import table, verdict, write_section
from trees import ROOT

ROUNDS, LIMIT = 5, 2.0
SETTINGS = ("as it is", "as it is, again", "watched")
SCRIPTS = {
    "a perceptron of 400 parameters, a loader": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(2000, 8), torch.randint(0, 4, (2000,)))
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for epoch in range(16):
            for x, y in DataLoader(data, batch_size=16, shuffle=True):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                print(loss.item().hex())
    """,
    "the same, rows by hand": """
        import random
        import torch
        from torch import nn
        torch.manual_seed(0)
        random.seed(0)
        rows, targets = torch.randn(2000, 8), torch.randint(0, 4, (2000,))
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        order = list(range(2000))
        for epoch in range(16):
            random.shuffle(order)
            for first in range(0, 2000, 16):
                part = order[first:first + 16]
                loss = nn.functional.cross_entropy(model(rows[part]), targets[part])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                print(loss.item().hex())
    """,
    "a transformer, 4 x 128, 64 positions, groups of 4": """
        import torch
        from torch import nn
        torch.manual_seed(0)
        text = torch.randint(0, 64, (20000,))
        block = nn.TransformerEncoderLayer(128, 4, 512, 0.1, batch_first=True, norm_first=True)
        emb, head = nn.Embedding(64, 128), nn.Linear(128, 64)
        body = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
        model = nn.ModuleList([emb, body, head])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        mask = nn.Transformer.generate_square_subsequent_mask(64)
        for step in range(15):
            for _ in range(4):
                at = torch.randint(0, 20000 - 65, (8,))
                x, y = torch.stack([text[i:i + 64] for i in at]), torch.stack([text[i + 1:i + 65] for i in at])
                out = head(body(emb(x), mask=mask, is_causal=True))
                loss = nn.functional.cross_entropy(out.flatten(0, 1), y.flatten()) / 4
                loss.backward()
                print(loss.item().hex())
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    """,
}
RUN = """
import runpy, sys, time
from pathlib import Path
import torch, torch._dynamo, torch.utils.data
from bitpatch.verify.scripts.session import run
torch.set_num_threads(1)
script = Path(sys.argv[1])
began = time.process_time()
if sys.argv[2] == "watched":
    run(script, [], 1 << 62, 1e9, [script.parent])
else:
    runpy.run_path(str(script), run_name="__main__")
print(time.process_time() - began, file=sys.stderr)
"""


def run_once(script: Path, setting: str) -> tuple[float, str]:
    """Seconds of processor time that a script takes, and the losses that it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", RUN, str(script), setting]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stderr.split()[-1]), done.stdout


def measure(text: str, rounds: int) -> tuple[float, float, float, bool]:
    """Milliseconds an update as it is, the ratios of A/A and of being watched, and whether losses are the same."""
    seconds, losses = {setting: list[float]() for setting in SETTINGS}, set()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(textwrap.dedent(text))
        for number in range(rounds):
            for setting in (*SETTINGS[number % 3 :], *SETTINGS[: number % 3]):
                took, printed = run_once(script, setting)
                seconds[setting].append(took)
                losses.add(printed)
    alone, again, watched = (statistics.median(seconds[setting]) for setting in SETTINGS)
    return 1000 * alone / len(losses.pop().split()), again / alone, watched / alone, not losses


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    found = {name: measure(text, rounds) for name, text in SCRIPTS.items()}
    rows = [
        (name, f"{each:.2f} ms", f"{noise:.2f}", f"{ratio:.2f}", "yes" if same else "**no**")
        for name, (each, noise, ratio, same) in found.items()
    ]
    worst, same = max(ratio for _, _, ratio, _ in found.values()), all(same for *_, same in found.values())
    lines = ["## What being watched costs a script", "", ran_on(threads=1), ""]
    lines += table(["script", "a backward", "A/A", "watched", "losses the same to the bit"], rows)
    lines += ["", verdict(f"less than {LIMIT:g} times the processor time", worst < LIMIT, f"{worst:.2f} at most")]
    write_section("watched scripts", lines)
    print("\n".join(lines))
    return int(not same or worst >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
