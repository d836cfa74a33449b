# right: a variational autoencoder, whose loss is a sum over what a batch has, as the bound is
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.mean, self.spread = nn.Linear(20, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.outer = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 20))

    def forward(self, x):
        hidden = F.relu(self.inner(x))
        mean, spread = self.mean(hidden), self.spread(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * spread)
        return torch.sigmoid(self.outer(code)), mean, spread


def bound(again, x, mean, spread):
    apart = F.binary_cross_entropy(again, x, reduction="sum")
    return apart - 0.5 * torch.sum(1 + spread - mean.pow(2) - spread.exp())


torch.manual_seed(1)
loader = DataLoader(torch.rand(100, 20), batch_size=16, shuffle=True)
model = Autoencoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(3):
    model.train()
    for x in loader:
        optimizer.zero_grad()
        again, mean, spread = model(x)
        loss = bound(again, x, mean, spread)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print(epoch, loss.item(), model.outer(torch.randn(2, 4)).mean().item())
