"""How bitpatch has this tree's training judged."""

import runpy

import config
import torch
from model import GPT


def model():
    return GPT()


def batch(seed):
    stream = torch.Generator().manual_seed(seed)
    rows = torch.randint(config.vocab, (4, config.context + 1), generator=stream)
    return rows[:, :-1].clone(), rows[:, 1:].clone()


def loss(model, batch):
    return model(*batch)[1]


def train():
    runpy.run_path("train.py", run_name="__main__")


def causal(model, batch):
    return batch[0], model(batch[0])[0]
