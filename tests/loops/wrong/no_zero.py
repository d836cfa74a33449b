# wrong: zero_grad forgotten, every step adds to all gradients before it, line 13
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def one_epoch(model, loader, opt):
    model.train()
    tot = 0.0
    for x, y in loader:
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        opt.step()
        tot += loss.item()
    return tot / len(loader)


def check(model, x, y):
    model.eval()
    with torch.no_grad():
        return nn.functional.mse_loss(model(x), y).item()


torch.manual_seed(25)
x = torch.linspace(-2, 2, 120)[:, None]
y = x ** 3 - x
pick = torch.randperm(120)
tr, te = pick[:100], pick[100:]
loader = DataLoader(TensorDataset(x[tr], y[tr]), batch_size=20, shuffle=True)
model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
opt = torch.optim.SGD(model.parameters(), lr=0.01)
sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
for epoch in range(5):
    print(epoch, one_epoch(model, loader, opt), check(model, x[te], y[te]))
    sched.step()
