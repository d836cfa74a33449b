# right: autoencoder, ReduceLROnPlateau on the validation loss once an epoch
import argparse
import torch
from torch import nn, optim
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--batch-size", type=int, default=25)
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--seed", type=int, default=1)


class AE(nn.Module):
    def __init__(self, d=20, z=3):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(d, 24), nn.ReLU(), nn.Linear(24, z))
        self.dec = nn.Sequential(nn.Linear(z, 24), nn.ReLU(), nn.Linear(24, d))

    def forward(self, x):
        return self.dec(self.enc(x))


def train(model, loader, optimizer):
    model.train()
    for x in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()


def test(model, loader):
    model.eval()
    total = count = 0
    with torch.inference_mode():
        for x in loader:
            total += nn.functional.mse_loss(model(x), x, reduction="sum").item()
            count += x.numel()
    return total / count


def main():
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    mix = torch.randn(3, 20)
    rows = torch.randn(260, 3) @ mix + 0.02 * torch.randn(260, 20)
    train_loader = DataLoader(rows[:200], batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(rows[200:], batch_size=60)
    model = AE()
    optimizer = optim.RMSprop(model.parameters(), lr=args.lr)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    for epoch in range(1, args.epochs + 1):
        train(model, train_loader, optimizer)
        val = test(model, test_loader)
        scheduler.step(val)
        print(f"epoch {epoch} val {val:.5f} lr {optimizer.param_groups[0]['lr']:.2e}")


main()
