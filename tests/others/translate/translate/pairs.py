"""Pairs of sentences: the second is the first, backwards."""

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

PAD, EDGE = 0, 1


class Pairs(Dataset):
    def __init__(self, count=104, seed=0):
        stream = torch.Generator().manual_seed(seed)
        lengths = torch.randint(5, 12, (count,), generator=stream).tolist()
        self.rows = [torch.randint(2, 32, (each,), generator=stream) for each in lengths]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        return self.rows[place], torch.cat([torch.tensor([EDGE]), self.rows[place].flip(0), torch.tensor([EDGE])])


def padded(pairs):
    return tuple(pad_sequence(list(side), batch_first=True, padding_value=PAD) for side in zip(*pairs))
