# wrong: i % accum == 0 steps after the very first micro-batch, groups shifted by one, line 16
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fit(model, loader, optimizer, accum, epochs):
    model.train()
    i = 0
    for epoch in range(epochs):
        total = 0.0
        for x, y in loader:
            loss = nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y)
            total += loss.item()
            (loss / accum).backward()
            if i % accum == 0:
                optimizer.step()
                optimizer.zero_grad()
            i += 1
        print(f"epoch {epoch} loss {total / len(loader):.4f}")


torch.manual_seed(3)
x = torch.randn(160, 7)
y = (x[:, 0] * x[:, 1] > 0).float()
loader = DataLoader(TensorDataset(x, y), batch_size=10, shuffle=True)  # 16 micro-batches
model = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 1))
fit(model, loader, torch.optim.Adam(model.parameters(), lr=1e-2), accum=4, epochs=3)
