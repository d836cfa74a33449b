"""Fit it, and look at what it knows after each epoch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def images(count, seed):
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=stream)
    return TensorDataset(torch.randn(count, 1, 8, 8, generator=stream) + labels[:, None, None, None] / 10, labels)


@torch.no_grad()
def accuracy(model, loader):
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loader)
    model.train()
    return right / len(loader.dataset)


def fit(model, data, held_out, epochs=3, batch_size=16, rate=0.05, accumulate=2):
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    total = epochs * (len(loader) // accumulate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total)
    for _ in range(epochs):
        for number, (x, y) in enumerate(loader, 1):
            loss = nn.functional.cross_entropy(model(x), y)
            (loss / accumulate).backward()
            if number % accumulate == 0:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        accuracy(model, DataLoader(held_out, batch_size))
