# right: own accelerator-like wrapper, accumulate() context, optimizer and scheduler step only when gradients are complete
import contextlib
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gear:
    def __init__(self, accum):
        self.accum, self.count, self.sync = accum, 0, False

    @contextlib.contextmanager
    def accumulate(self):
        self.count += 1
        self.sync = self.count % self.accum == 0
        yield

    def backward(self, loss):
        (loss / self.accum).backward()

    def wrap(self, optimizer, scheduler):
        return GearedOptimizer(optimizer, self), GearedScheduler(scheduler, self)


class GearedOptimizer:
    def __init__(self, inner, gear):
        self.inner, self.gear = inner, gear

    def step(self):
        if self.gear.sync:
            self.inner.step()

    def zero_grad(self):
        if self.gear.sync:
            self.inner.zero_grad()


class GearedScheduler:
    def __init__(self, inner, gear):
        self.inner, self.gear = inner, gear

    def step(self):
        if self.gear.sync:
            self.inner.step()


def main(epochs=3, accum=3):
    torch.manual_seed(11)
    x = torch.randn(144, 6)
    y = x @ torch.randn(6, 1) + 0.05 * torch.randn(144, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)  # 18 micro-batches, 6 groups
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))
    opt = torch.optim.AdamW(model.parameters(), lr=2e-2)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=epochs * len(loader) // accum)
    gear = Gear(accum)
    optimizer, scheduler = gear.wrap(opt, sched)
    for epoch in range(epochs):
        model.train()
        for bx, by in loader:
            with gear.accumulate():
                loss = nn.functional.mse_loss(model(bx), by)
                gear.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        print(epoch, loss.item(), opt.param_groups[0]["lr"])


main()
