"""Train it: python train.py"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import config
import torch
from model import GPT
from torch import nn

torch.manual_seed(1337)
data = torch.randint(config.vocab, (4096,))


def get_batch():
    places = torch.randint(len(data) - config.context, (config.batch_size,))
    return tuple(torch.stack([data[each + k : each + k + config.context] for each in places]) for k in (0, 1))


def rate_of(update):
    return config.rate * 0.5 * (1.0 + math.cos(math.pi * update / config.updates))


model = GPT()
trained = torch.compile(model) if config.compiled else model
optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.weight_decay)

for update in range(config.updates):
    lr = rate_of(update)
    for group in optimizer.param_groups:
        group["lr"] = lr
    for _ in range(config.micro_batches):
        x, y = get_batch()
        _, loss = trained(x, y)
        (loss / config.micro_batches).backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
