# wrong: evaluation keeps gradients on (no no_grad, losses summed with their graphs), line 19
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train_epoch(model, loader, opt):
    model.train()
    for x, y in loader:
        opt.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        opt.step()


def evaluate(model, loader):
    model.eval()
    total = torch.zeros(())
    for x, y in loader:
        total = total + nn.functional.mse_loss(model(x), y, reduction="sum")
    return total / len(loader.dataset)


torch.manual_seed(32)
x = torch.randn(200, 3)
y = (x[:, :1] * x[:, 1:2]) + x[:, 2:]
train_loader = DataLoader(TensorDataset(x[:150], y[:150]), batch_size=15, shuffle=True)
val_loader = DataLoader(TensorDataset(x[150:], y[150:]), batch_size=25)
model = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Dropout(0.05), nn.Linear(32, 1))
opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5)
history = []
for epoch in range(5):
    train_epoch(model, train_loader, opt)
    val = evaluate(model, val_loader)
    history.append(val)
    sched.step(val.item())
    print(epoch, val.item(), opt.param_groups[0]["lr"])
