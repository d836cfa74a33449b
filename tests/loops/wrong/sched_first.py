# wrong: scheduler stepped before the optimizer's step, line 13
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset


def train(net, loader, optimizer, scheduler, loss_fn):
    net.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(net(x), y)
        loss.backward()
        scheduler.step()
        optimizer.step()
    return loss.item()


def evaluate(net, x, y):
    net.eval()
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


torch.manual_seed(15)
x = torch.randn(200, 2)
y = (x.norm(dim=1) > 1.2).long()
loader = DataLoader(TensorDataset(x[:160], y[:160]), batch_size=20, shuffle=True)
net = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
epochs = 5
optimizer = optim.AdamW(net.parameters(), lr=1e-2)
scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(loader))
for e in range(epochs):
    print(e, train(net, loader, optimizer, scheduler, nn.CrossEntropyLoss()), evaluate(net, x[160:], y[160:]))
