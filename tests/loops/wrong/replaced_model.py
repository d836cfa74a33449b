# wrong: optimizer made before the model is replaced, so it holds the old parameters, line 19
import copy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_net():
    return nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 3))


torch.manual_seed(23)
x = torch.randn(180, 8)
y = x[:, :3].argmax(1)
loader = DataLoader(TensorDataset(x, y), batch_size=18, shuffle=True)
model = make_net()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
pretrained = make_net()
model = copy.deepcopy(pretrained)
for epoch in range(3):
    model.train()
    for bx, by in loader:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(bx), by)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print(epoch, loss.item(), (model(x).argmax(1) == y).float().mean().item())
