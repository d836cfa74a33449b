# right: a teacher learns, then is evaluated while a student learns from it: another model, another optimizer
import random
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SEED, T = 7, 2.0
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)
inputs, labels = torch.randn(200, 8), torch.randint(4, (200,))


def fit(model, epochs, teacher=None):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    if teacher is not None:
        teacher.eval()
    for epoch in range(epochs):
        order = np.random.permutation(len(inputs))
        for first in range(0, len(inputs), 32):
            rows = order[first:first + 32]
            x, y = inputs[rows], labels[rows]
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            if teacher is not None:
                with torch.no_grad():
                    known = F.softmax(teacher(x) / T, -1)
                soft = F.kl_div(F.log_softmax(logits / T, -1), known, reduction="batchmean") * T ** 2
                loss = 0.25 * soft + 0.75 * loss
            loss.backward()
            optimizer.step()
        print(epoch, loss.item())


teacher = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
student = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 4))
fit(teacher, 3)
fit(student, 3, teacher)
