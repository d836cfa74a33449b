# right: Trainer class with methods, StepLR once an epoch, evaluation after each epoch
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Trainer:
    def __init__(self, model, train_set, val_set, epochs=4, lr=0.05):
        self.model = model
        self.train_loader = DataLoader(train_set, batch_size=16, shuffle=True)
        self.val_loader = DataLoader(val_set, batch_size=32)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.3)
        self.loss_fn = nn.CrossEntropyLoss()
        self.epochs = epochs
        self.history = []

    def training_step(self, batch):
        x, y = batch
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train_epoch(self):
        self.model.train()
        losses = [self.training_step(b) for b in self.train_loader]
        return torch.stack(losses).mean().item()

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        hits = total = 0
        for x, y in self.val_loader:
            hits += (self.model(x).argmax(1) == y).sum().item()
            total += len(y)
        return hits / total

    def fit(self):
        for epoch in range(self.epochs):
            loss = self.train_epoch()
            acc = self.validate()
            self.scheduler.step()
            self.history.append((loss, acc))
            print(f"epoch {epoch}: loss {loss:.4f} val acc {acc:.3f} lr {self.scheduler.get_last_lr()[0]:.4f}")


def main():
    torch.manual_seed(0)
    x = torch.randn(240, 10)
    y = (x[:, :3].sum(1) > 0).long() + (x[:, 3] > 1).long()
    train_set, val_set = random_split(TensorDataset(x, y), [192, 48])
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))
    Trainer(model, train_set, val_set).fit()


if __name__ == "__main__":
    main()
