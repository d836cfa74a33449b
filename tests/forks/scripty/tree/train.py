# python train.py data=wiki.txt epochs=3 d_model=256
import random
import sys
import time
from ast import literal_eval

import torch
import torch.nn.functional as F

from bits import squeeze
from model import BitTransformerLM
from optim import make_opt
from safety import GATE, gate_ok
from wikitext_schedule import load_rows

CONFIG = {
    # model
    "d_model": 128,
    "nhead": 8,
    "layers": 4,
    "seq_len": 1152,
    "chunk_size": None,
    "overlap": 0,
    "full_attn_logging": True,
    "dropout": 0.1,
    "causal": True,
    # training
    "data": "wiki.train.txt",
    "epochs": 1,
    "extra_steps": 0,
    "lr": 1e-3,
    "weight_decay": 0.01,
    "compress_prob": 0.5,
    "clip": 1.0,
    "seed": 0,
    "device": "cpu",
    "out": "",
}

for arg in sys.argv[1:]:
    key, _, value = arg.partition("=")
    if key not in CONFIG:
        sys.exit(f"no such option: {key}")
    try:
        CONFIG[key] = literal_eval(value)
    except (ValueError, SyntaxError):
        CONFIG[key] = value  # a plain string

torch.manual_seed(CONFIG["seed"])
random.seed(CONFIG["seed"])
device = torch.device(CONFIG["device"])

# ---- data

if CONFIG["data"].endswith(".pt"):
    rows = torch.load(CONFIG["data"])
else:
    rows = load_rows(CONFIG["data"], CONFIG["seq_len"])
n_val = max(1, len(rows) // 10)
val, rows = rows[-n_val:].to(device), rows[:-n_val]
print(f"{len(rows)} rows, {n_val} for validation")

# ---- model

model = BitTransformerLM(
    d_model=CONFIG["d_model"],
    nhead=CONFIG["nhead"],
    layers=CONFIG["layers"],
    ff=4 * CONFIG["d_model"],
    max_seq_len=CONFIG["seq_len"],
    chunk_size=CONFIG["chunk_size"],
    overlap=CONFIG["overlap"],
    full_attn_logging=CONFIG["full_attn_logging"],
    dropout=CONFIG["dropout"],
).to(device)

opt = make_opt(model, CONFIG["lr"], CONFIG["weight_decay"])
total = CONFIG["epochs"] * max(1, len(rows) // 8)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=CONFIG["lr"], total_steps=total)


def loss_on(batch):
    if model.training and random.random() < CONFIG["compress_prob"]:
        logits, info = model.forward_compressed([squeeze(r) for r in batch], CONFIG["causal"])
    else:
        logits, info = model(batch, CONFIG["causal"])
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()), info


# ---- go

losses = []
epoch = 0
t0 = time.time()
while epoch < CONFIG["epochs"]:
    model.train()
    at = 0
    while at + 8 <= len(rows):
        batch = rows[at:at + 8].to(device)
        at += 8
        loss, info = loss_on(batch)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG["clip"])
        opt.step()
        if sched.last_epoch < total:
            sched.step()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            print(f"{len(losses):6d}  loss {losses[-1]:.4f}  K {info['K'].mean():.3f}  {time.time() - t0:.0f}s")

    # rows that did not fill a batch, then the last batch again if asked for
    left = 1 if at < len(rows) else 0
    for i in range(left + CONFIG["extra_steps"]):
        if i < left:
            batch = rows[at:].to(device)
        loss, info = loss_on(batch)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG["clip"])
        opt.step()
        if sched.last_epoch < total:
            sched.step()
        losses.append(loss.item())

    model.eval()
    with torch.no_grad():
        val_loss = sum(loss_on(b)[0].item() * len(b) for b in val.split(8)) / len(val)
    print(f"epoch {epoch}: train {losses[-1]:.4f}  val {val_loss:.4f}  lr {sched.get_last_lr()[0]:.2e}")
    epoch += 1
    if not gate_ok(val_loss):
        print(f"val loss over {GATE['limit']}, stopping here")
        break

if CONFIG["out"]:
    torch.save({"cfg": model.cfg, "weights": model.state_dict(), "gate": dict(GATE)}, CONFIG["out"])
