import random

import torch.nn as nn
import torch.nn.functional as F

from .bits import IGNORE, compress_bits, pad_batch
from .optim import one_cycle_adamw


def bit_loss(logits, targets):
    """Mean cross-entropy of targets[:, 1:] given logits[:, :-1]."""
    return F.cross_entropy(logits[:, :-1].permute(0, 2, 1), targets[:, 1:], ignore_index=IGNORE)


class BitModule(nn.Module):
    """A network and how it learns. Set by the engine: self.engine."""

    def __init__(self, net, **hparams):
        super().__init__()
        self.net = net
        self.hparams = hparams
        self.engine = None

    @property
    def device(self):
        return self.net.device

    def training_step(self, batch, index):
        raise NotImplementedError

    def validation_step(self, batch):
        raise NotImplementedError

    def configure_optimizers(self):
        raise NotImplementedError

    def on_epoch_start(self):
        pass

    def on_epoch_end(self):
        pass


class PretrainModule(BitModule):
    """Next bit on raw rows, on rows that went through the run-length coder, or on the streams."""

    def __init__(self, net, lr=1e-3, weight_decay=0.01, compress_prob=0.5, direct_prob=0.0, causal=True):
        super().__init__(net,
                         lr=lr,
                         weight_decay=weight_decay,
                         compress_prob=compress_prob,
                         direct_prob=direct_prob,
                         causal=causal)
        self.epoch_losses = []

    def configure_optimizers(self):
        return one_cycle_adamw(self.net,
                               lr=self.hparams['lr'],
                               weight_decay=self.hparams['weight_decay'],
                               total_steps=self.engine.estimated_updates)

    def training_step(self, batch, index):
        causal = self.hparams['causal']
        if random.random() < self.hparams['direct_prob']:
            streams = [compress_bits(row) for row in batch]
            inputs, targets = pad_batch(streams, self.net.config['max_seq_len'])
            logits, telemetry = self.net(inputs.to(batch.device), causal=causal)
            targets = targets.to(batch.device)
        elif random.random() < self.hparams['compress_prob']:
            streams = [compress_bits(row) for row in batch]
            logits, telemetry = self.net.forward_compressed(streams, causal=causal)
            targets = batch
        else:
            logits, telemetry = self.net(batch, causal=causal)
            targets = batch
        loss = bit_loss(logits, targets)
        self.epoch_losses.append(loss.detach())
        return {'loss': loss, 'logits': logits.detach(), 'targets': targets, 'telemetry': telemetry}

    def validation_step(self, batch):
        logits, _ = self.net(batch, causal=self.hparams['causal'])
        return bit_loss(logits, batch)

    def on_epoch_end(self):
        self.engine.metrics['loss'] = sum(self.epoch_losses).item() / len(self.epoch_losses)
        self.epoch_losses.clear()
