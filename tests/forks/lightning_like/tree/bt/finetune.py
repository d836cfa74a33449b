"""Fine-tuning on (prompt, answer) pairs. Only the answer's bits are scored.

It has a loop of its own because the engine cuts rows of one length and this does not.
"""
import random

import torch

from .bits import IGNORE, pad_batch, text_to_bits
from .modules import bit_loss
from .optim import one_cycle_adamw


class FineTuner:

    def __init__(self, net, epochs=1, lr=2e-4, clip=1.0, seed=0):
        self.net = net
        self.epochs = epochs
        self.lr = lr
        self.clip = clip
        self.random = random.Random(seed)

    def run(self, pairs):
        """Train on all pairs; returns the losses, one an update."""
        examples = [self._encode(prompt, answer) for prompt, answer in pairs]
        total = self.epochs * max(1, len(examples) // 8)
        optimizer, scheduler = one_cycle_adamw(self.net, self.lr, 0.0, total)
        losses = []
        done = 0
        self.net.train()
        for _ in range(self.epochs):
            self.random.shuffle(examples)
            for at in range(0, len(examples), 8):
                inputs, targets = self._collate(examples[at:at + 8])
                logits, _ = self.net(inputs)
                loss = bit_loss(logits, targets)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
                optimizer.step()
                done += 1
                if done <= total:
                    scheduler.step()
                losses.append(loss.item())
        self.net.eval()
        return losses

    def _encode(self, prompt, answer):
        asked, told = text_to_bits(prompt), text_to_bits(answer)
        return torch.tensor(asked + told), torch.tensor([IGNORE] * len(asked) + told)

    def _collate(self, examples):
        bits, targets = zip(*examples)
        inputs, targets = pad_batch(bits, self.net.config['max_seq_len'], targets)
        return inputs.to(self.net.device), targets.to(self.net.device)
