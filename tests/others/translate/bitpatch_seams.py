"""How bitpatch has this tree's training judged."""

import torch
from translate.net import Translator
from translate.pairs import Pairs, padded
from translate.trainer import Plan, Trainer, scored


def model():
    return Translator()


def batch(seed):
    pairs = Pairs(8, seed)
    return padded([pairs[place] for place in range(len(pairs))])


def loss(model, batch):
    return scored(model, *batch)


def train():
    torch.manual_seed(0)
    Trainer(model(), Pairs(), Plan()).fit()


def causal(model, batch):
    source, target = batch
    return target, model(source, target)
