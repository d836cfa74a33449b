# wrong: evaluation runs with dropout on (no model.eval()), line 24
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Engine:
    def __init__(self, model, train_loader, val_loader):
        self.model, self.train_loader, self.val_loader = model, train_loader, val_loader
        self.opt = torch.optim.AdamW(model.parameters(), lr=5e-3)
        self.sched = torch.optim.lr_scheduler.StepLR(self.opt, 2, gamma=0.5)

    def train(self):
        self.model.train()
        for x, y in self.train_loader:
            self.opt.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x), y)
            loss.backward()
            self.opt.step()
        self.sched.step()

    def validate(self):
        good = 0
        with torch.no_grad():
            for x, y in self.val_loader:
                good += (self.model(x).argmax(1) == y).sum().item()
        return good / len(self.val_loader.dataset)


torch.manual_seed(29)
x = torch.randn(240, 10)
y = (x[:, 0] > x[:, 1]).long()
engine = Engine(
    nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, 2)),
    DataLoader(TensorDataset(x[:180], y[:180]), batch_size=18, shuffle=True),
    DataLoader(TensorDataset(x[180:], y[180:]), batch_size=30),
)
for epoch in range(4):
    engine.train()
    print(epoch, engine.validate())
