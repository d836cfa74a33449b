# right: GradScaler on cpu, autocast bf16 over the forward only, unscale_ before clip, accumulation of 2
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build():
    return nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 3))


def train_one_epoch(model, loader, optimizer, scaler, accum, max_norm):
    model.train()
    optimizer.zero_grad()
    running = 0.0
    for i, (x, y) in enumerate(loader, start=1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss / accum).backward()
        running += loss.item()
        if i % accum == 0:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return running / len(loader)


if __name__ == "__main__":
    torch.manual_seed(2)
    t = torch.linspace(0, 6.28, 32)
    y = torch.randint(3, (160,))
    x = torch.sin(t * (y[:, None] + 1)) + 0.3 * torch.randn(160, 32)
    loader = DataLoader(TensorDataset(x[:, None], y), batch_size=16, shuffle=True)  # ten micro-batches
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for epoch in range(4):
        print(epoch, train_one_epoch(model, loader, optimizer, scaler, accum=2, max_norm=1.0), scaler.get_scale())
