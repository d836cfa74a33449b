# the model that server.py talks to. one per process, so it is just globals.
import os
import threading

import torch
import torch.nn.functional as F

import safety
from bits import text_to_bits
from model import BitTransformerLM
from optim import make_opt

CYCLE = 100  # updates in a one cycle schedule
PLAN = {"epochs": 1, "extra_steps": 0, "lr": 1e-3, "weight_decay": 0.01}
STATE = {"model": None, "opt": None, "sched": None, "rows": None, "plan": dict(PLAN), "step": 0}
FOLDER = "snapshots"
lock = threading.RLock()


def to_rows(text, n):
    bits = text_to_bits(text)
    if len(bits) < n:
        raise ValueError(f"{len(bits)} bits are less than a row of {n}")
    return torch.tensor(bits[:len(bits) // n * n]).view(-1, n)


def need_model():
    if STATE["model"] is None:
        raise RuntimeError("init or download first")
    return STATE["model"]


def init(text, model_cfg={}, plan={}):
    """new model, to be trained on a text"""
    with lock:
        model = BitTransformerLM(**model_cfg)
        plan = {**PLAN, **plan}
        rows = to_rows(text, model.cfg["max_seq_len"])
        opt = make_opt(model, plan["lr"], plan["weight_decay"])
        sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=plan["lr"], total_steps=CYCLE)
        STATE.update(model=model, opt=opt, sched=sched, rows=rows, plan=plan, step=0)
        safety.gate_reset()
        return status()


def update(batch):
    model, opt = need_model(), STATE["opt"]
    model.train()
    logits, _ = model(batch)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
    if not safety.gate_ok(loss.item()):
        raise safety.Stopped(f"loss {loss.item():.4f}")
    opt.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    STATE["sched"].step()
    STATE["step"] += 1
    return {"step": STATE["step"], "loss": loss.item()}


def train_step(text):
    with lock:
        return update(to_rows(text, need_model().cfg["max_seq_len"]))


def train():
    """what the plan says, on the rows that came with init or download"""
    with lock:
        need_model()
        out = []
        for _ in range(STATE["plan"]["epochs"]):
            for batch in STATE["rows"].split(8):
                out.append(update(batch))
            for _ in range(STATE["plan"]["extra_steps"]):
                out.append(update(batch))
        return out


def scale_up(what, plan={}):
    """double "layers" or "length", the weights that were there stay"""
    with lock:
        old = need_model()
        cfg = dict(old.cfg)
        if what == "layers":
            cfg["layers"] *= 2
        elif what == "length":
            cfg["max_seq_len"] *= 2
        else:
            raise ValueError(what)
        new = BitTransformerLM(**cfg)
        weights = new.state_dict()
        for name, w in old.state_dict().items():
            weights[name][:len(w)] = w
        new.load_state_dict(weights)
        plan = {**STATE["plan"], **plan}
        opt = make_opt(new, plan["lr"], plan["weight_decay"])
        sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=plan["lr"], total_steps=CYCLE)
        STATE.update(model=new, opt=opt, sched=sched, plan=plan)
        return status()


def save(name):
    with lock:
        model = need_model()
        os.makedirs(FOLDER, exist_ok=True)
        torch.save(
            {
                "cfg": model.cfg,
                "weights": model.state_dict(),
                "plan": STATE["plan"],
                "step": STATE["step"],
                "gate": dict(safety.GATE),
            },
            os.path.join(FOLDER, os.path.basename(name) + ".pt"),
        )
        return name


def download(name, text, plan={}):
    """an old snapshot, to go on with it on this text"""
    with lock:
        ck = torch.load(os.path.join(FOLDER, os.path.basename(name) + ".pt"))
        model = BitTransformerLM(**ck["cfg"])
        model.load_state_dict(ck["weights"])
        plan = {**ck["plan"], **plan}
        rows = to_rows(text, model.cfg["max_seq_len"])
        opt = make_opt(model, plan["lr"], plan["weight_decay"])
        sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=plan["lr"], total_steps=CYCLE)
        STATE.update(model=model, opt=opt, sched=sched, rows=rows, plan=plan, step=ck["step"])
        safety.gate_load(ck["gate"])
        return status()


def predict(text):
    """how likely a 1 comes next"""
    with lock:
        model = need_model().eval()
        bits = torch.tensor([text_to_bits(text)])[:, -model.cfg["max_seq_len"]:]
        with torch.no_grad():
            logits, info = model(bits)
        return {"one": logits[0, -1].softmax(0)[1].item(), "C": info["C"].item()}


def status():
    if STATE["model"] is None:
        return {"ready": False}
    return {
        "ready": True,
        "step": STATE["step"],
        "lr": STATE["sched"].get_last_lr()[0],
        "stopped": safety.GATE["tripped"],
        "plan": STATE["plan"],
        "params": sum(p.numel() for p in STATE["model"].parameters()),
    }
