# right: gradients divided by hand (p.grad.div_) before clip and step, loss itself left whole
import torch
from torch import nn

torch.manual_seed(17)
images = torch.randn(192, 1, 8, 8)
labels = (images.mean((1, 2, 3)) > 0).long() + 2 * (images[:, 0, :4].mean((1, 2)) > 0).long()
net = nn.Sequential(
    nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(6, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 4),
)
params = [p for p in net.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True)
criterion = nn.CrossEntropyLoss()
micro_bs, accum = 12, 4

for epoch in range(3):
    perm = torch.randperm(len(images))
    chunks = perm.split(micro_bs)  # 16 chunks
    pending, shown = 0, 0.0
    for rows in chunks:
        loss = criterion(net(images[rows]), labels[rows])
        loss.backward()
        shown += loss.item()
        pending += 1
        if pending == accum:
            for p in params:
                p.grad.div_(accum)
            nn.utils.clip_grad_norm_(params, 2.0)
            optimizer.step()
            for p in params:
                p.grad = None
            pending = 0
    print("epoch", epoch, "loss", shown / len(chunks))
