# wrong: remainder of an epoch is carried over into the next epoch's first group, line 32
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Parity(Dataset):
    def __init__(self, n, bits=8):
        self.x = torch.randint(0, 2, (n, bits)).float()
        self.y = self.x[:, :3].sum(1).long() % 2

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Trainer:
    accum = 4

    def __init__(self, model, data):
        self.model = model
        self.loader = DataLoader(data, batch_size=15, shuffle=True)  # ten micro-batches
        self.opt = torch.optim.AdamW(model.parameters(), lr=5e-3)

    def run_epoch(self):
        self.model.train()
        for i, (x, y) in enumerate(self.loader):
            loss = nn.functional.cross_entropy(self.model(x), y) / self.accum
            loss.backward()
            if (i + 1) % self.accum == 0:
                self.opt.step()
                self.opt.zero_grad()
        return loss.item() * self.accum

    def score(self, data):
        self.model.eval()
        with torch.no_grad():
            return (self.model(data.x).argmax(1) == data.y).float().mean().item()


torch.manual_seed(10)
train, held = Parity(150), Parity(60)
t = Trainer(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)), train)
for epoch in range(4):
    print(epoch, t.run_epoch(), t.score(held))
