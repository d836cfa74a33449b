# right: fine-tuning with a frozen backbone, optimizer over the head only, unfrozen later by add_param_group
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def set_frozen(module, frozen):
    for p in module.parameters():
        p.requires_grad_(not frozen)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def accuracy(model, loader):
    was = model.training
    model.eval()
    with torch.no_grad():
        good = sum((model(x).argmax(-1) == y).sum().item() for x, y in loader)
    model.train(was)
    return good / len(loader.dataset)


torch.manual_seed(6)
x = torch.randn(300, 12)
y = torch.bucketize(x[:, 0] + x[:, 1] * x[:, 2], torch.tensor([-0.5, 0.5]))
train_loader = DataLoader(TensorDataset(x[:240], y[:240]), batch_size=30, shuffle=True)
val_loader = DataLoader(TensorDataset(x[240:], y[240:]), batch_size=60)
model = Classifier()
set_frozen(model.backbone, True)
optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-2)
for epoch in range(6):
    if epoch == 3:
        set_frozen(model.backbone, False)
        optimizer.add_param_group({"params": list(model.backbone.parameters()), "lr": 2e-3})
    model.train()
    for bx, by in train_loader:
        loss = nn.functional.cross_entropy(model(bx), by)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(epoch, loss.item(), accuracy(model, val_loader))
