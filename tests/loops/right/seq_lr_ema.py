# right: warmup then cosine through SequentialLR, EMA of the weights evaluated in the middle of training
import copy
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


class EMA:
    def __init__(self, model, decay=0.9):
        self.shadow = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for s, p in zip(self.shadow.parameters(), model.parameters()):
            s.lerp_(p, 1 - self.decay)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 2))

    def forward(self, x, t):
        return self.net(torch.cat([x, t[:, None]], 1))


def flow_loss(model, x1, gen=None):
    x0 = torch.randn(x1.shape, generator=gen)
    t = torch.rand(len(x1), generator=gen)
    xt = (1 - t[:, None]) * x0 + t[:, None] * x1
    return (model(xt, t) - (x1 - x0)).pow(2).mean()


def spiral(n):
    a = torch.rand(n).sqrt() * 9
    return torch.stack([a * a.cos(), a * a.sin()], 1) / 5


def main():
    torch.manual_seed(12)
    model = Denoiser()
    ema = EMA(model)
    opt = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    steps, warm = 60, 10
    sched = SequentialLR(opt, [LinearLR(opt, 0.1, 1.0, warm), CosineAnnealingLR(opt, steps - warm)], milestones=[warm])
    held = spiral(128)
    for step in range(steps):
        loss = flow_loss(model, spiral(64))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        sched.step()
        ema.update(model)
        if (step + 1) % 20 == 0:
            with torch.no_grad():
                val = flow_loss(ema.shadow, held, torch.Generator().manual_seed(0)).item()
            print(step + 1, loss.item(), val, sched.get_last_lr())


main()
