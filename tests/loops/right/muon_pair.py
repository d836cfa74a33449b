# right: own Muon for matrices beside AdamW for the rest, both decayed by one function, two micro-steps
import torch
import torch.nn as nn
import torch.nn.functional as F


def orthogonalise(m, rounds=4):
    x = m / (m.norm() + 1e-7)
    flip = x.size(0) > x.size(1)
    if flip:
        x = x.t()
    for _ in range(rounds):
        x = 1.5 * x - 0.5 * (x @ x.t()) @ x
    return x.t() if flip else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.9):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buf = self.state[p].setdefault("buf", torch.zeros_like(p))
                buf.mul_(group["momentum"]).add_(p.grad)
                p.add_(orthogonalise(p.grad.add(buf, alpha=group["momentum"])), alpha=-group["lr"])


class Net(nn.Module):
    def __init__(self, V=24, C=32):
        super().__init__()
        self.emb = nn.Embedding(V, C)
        self.body = nn.Sequential(nn.Linear(3 * C, 64), nn.ReLU(), nn.Linear(64, C), nn.LayerNorm(C))
        self.head = nn.Linear(C, V)

    def forward(self, x):
        return self.head(self.body(self.emb(x).flatten(1)))


torch.manual_seed(4)
model = Net()
matrices = [p for p in model.body.parameters() if p.ndim == 2]
chosen = {id(p) for p in matrices}
others = [p for p in model.parameters() if id(p) not in chosen]
optimizers = [Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=5e-3, weight_decay=0.0)]
for opt in optimizers:
    for g in opt.param_groups:
        g["initial"] = g["lr"]

steps, accum = 30, 2
for step in range(steps):
    for _ in range(accum):
        x = torch.randint(24, (32, 3))
        y = (x[:, 0] + x[:, 2]) % 24
        loss = F.cross_entropy(model(x), y) / accum
        loss.backward()
    scale = 1.0 if step < steps // 2 else 2 * (steps - step) / steps
    for opt in optimizers:
        for g in opt.param_groups:
            g["lr"] = g["initial"] * scale
        opt.step()
    model.zero_grad(set_to_none=True)
    if step % 10 == 9:
        print(step, accum * loss.item(), scale)
