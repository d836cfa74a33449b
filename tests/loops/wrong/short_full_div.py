# wrong: the flushed last group of two is divided by the full accum of four, line 20
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main(accum=4, epochs=3):
    torch.manual_seed(20)
    w = torch.randn(5, 2)
    x = torch.randn(140, 5)
    loader = DataLoader(TensorDataset(x, torch.sin(x @ w)), batch_size=14, shuffle=True)  # 4 + 4 + 2
    model = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for epoch in range(epochs):
        model.train()
        running = 0.0
        for step, (bx, by) in enumerate(loader, 1):
            loss = nn.functional.mse_loss(model(bx), by)
            running += loss.item()
            loss = loss / accum
            loss.backward()
            if step % accum == 0 or step == len(loader):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        print(epoch, running / len(loader))


if __name__ == "__main__":
    main()
