"""Evidence for the next bit from what followed the same context in the text to train on.

A context is a span of whole bytes that ends where the byte begins whose bits are being predicted, and what is
known of that byte. Spans are the last 1 to `orders` bytes, the letters since the word began, and these with the
word before (Mahoney 2005, "Adaptive weighing of context models for lossless data compression"). How often 0 and
1 followed each is counted once, before training, in tables of `slots` places; a row's own part is taken off
while the model trains on it, as no row that it will be asked about is in the tables. The model weighs what the
contexts say by its own state, as one more term of its logits.

Rows are of bytes, nine bits each, and begin with one. A context ends at the row's beginning.

Shapes: B rows, T bits, N = T // 9 whole bytes, K contexts.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .bit_io import BITS_PER_BYTE

WORDS = 2  # contexts of words, beside those of so many bytes
CHECK_BITS = 8  # of a place of a table: they tell its context from others
MOST = 4095  # that a table counts; beyond it both counts shrink alike
PRIOR = 0.4  # added to both counts
SPREAD = 4.0  # what evidence is divided by on its way into the stream
COUNTED_AT_ONCE = 1 << 21  # bits of text, whose contexts compete for a table's places together
HASHED_AT_ONCE = 1 << 17  # bits of these, so that what is made of them stays in a processor's cache

FACTOR = 0x5851F42D4C957F2D  # of the hash of a span: a polynomial modulo 2**64
INVERSE = pow(FACTOR, -1, 1 << 64)
SALT, STIR = -0x61C8864680B583EB, -0x40A7B892E31B1A47


class Contexts(nn.Module):
    """Tables of counts, and how the model takes what they say.

    A place of a table is 32 bits: 8 tell a context from others that fall on the same place, 12 count zeros, 12
    ones. Where two contexts want a place, the one that was seen more often has it, and the other counts as never
    seen.
    """

    def __init__(self, d_model: int, orders: int, slots: int) -> None:
        super().__init__()
        if orders < 1:
            raise ValueError(f"context_orders must be at least 1, got {orders}")
        if slots < 2 or slots & (slots - 1):
            raise ValueError(f"context_slots must be a power of 2, got {slots}")
        self.orders, self.slots = orders, slots
        count = orders + WORDS
        self.register_buffer("tables", torch.zeros(count, slots, dtype=torch.int32))
        self.embed = nn.Linear(2 * count, d_model, bias=False)
        self.weigh = nn.Linear(d_model, count)
        nn.init.zeros_(self.weigh.weight)
        nn.init.constant_(self.weigh.bias, 2 / count)

    def evidence(self, bits: Tensor) -> Tensor:
        """What the contexts of bits [B, T] say of each next bit: log odds and log counts [B, T, 2, K]; no gradient."""
        with torch.no_grad():
            keys = self._keys(bits)
            zeros, ones = self._look_up(keys)
            if self.training:
                own_zeros, own_ones = counts_in_row(keys[:, :, :-1], bits[:, 1:])
                zeros, ones = (zeros - own_zeros).clamp(min=0), (ones - own_ones).clamp(min=0)
            odds = torch.log((ones + PRIOR) / (zeros + PRIOR))
            found = torch.stack([odds, torch.log1p(zeros + ones)], 1)  # [B, 2, K, T]
        return found.permute(0, 3, 1, 2).to(self.weigh.weight.dtype)

    def entered(self, evidence: Tensor) -> Tensor:
        """What evidence [B, T, 2, K] adds to the stream: [B, T, C]."""
        return self.embed(evidence.flatten(2) / SPREAD)

    def odds(self, state: Tensor, evidence: Tensor) -> Tensor:
        """The log odds of a one that a state [B, T, C] makes of evidence [B, T, 2, K], as logits [B, T, 2]."""
        weighed = (self.weigh(state) * evidence[:, :, 0]).sum(-1) / 2
        return torch.stack([-weighed, weighed], -1)

    @torch.no_grad()
    def count(self, rows: Tensor | Dataset) -> None:
        """Fill the tables from rows [rows, T], which are what the model will train on."""
        self.tables.zero_()
        at_once, hashed = (max(1, bits // len(rows[0])) for bits in (COUNTED_AT_ONCE, HASHED_AT_ONCE))
        for batch in DataLoader(rows, at_once, generator=torch.Generator()):
            bits = batch.to(self.tables.device).long()
            seen = torch.cat([self._seen(part) for part in bits.split(hashed)], 1)
            for table, seen_of_context in zip(self.tables, seen, strict=True):
                self._add(table, seen_of_context)

    def _seen(self, bits: Tensor) -> Tensor:
        """What a table can tell of a context, and the bit that followed, of all in bits [B, T]: [K, B * (T - 1)]."""
        told = self._keys(bits)[:, :, :-1] & ((self.slots << CHECK_BITS) - 1)
        return (told << 1 | bits[:, None, 1:]).transpose(0, 1).flatten(1)

    def _add(self, table: Tensor, seen: Tensor) -> None:
        """Count what was seen [n]."""
        seen, times = torch.unique_consecutive(in_order(seen), return_counts=True)
        distinct, places = torch.unique_consecutive(seen >> 1, return_inverse=True)
        zeros, ones = times.new_zeros(2, len(distinct)).index_put((seen & 1, places), times)
        total = zeros + ones
        slot, check = self._split(distinct)
        # Of those that want one place, the most frequent is first.
        rank = total * len(distinct) + torch.arange(len(distinct), device=seen.device)
        place = torch.unique_consecutive(slot, return_inverse=True)[1]
        first = torch.zeros_like(rank).scatter_reduce_(0, place, rank, "amax")
        wins = first[place] == rank
        slot, check, zeros, ones = slot[wins], check[wins], zeros[wins], ones[wins]
        had_check, had_zeros, had_ones = unpack(table[slot])
        is_same = had_check == check
        stays = ~is_same & (had_zeros + had_ones >= zeros + ones)
        zeros = torch.where(stays, had_zeros, zeros + had_zeros * is_same)
        ones = torch.where(stays, had_ones, ones + had_ones * is_same)
        table[slot] = pack(torch.where(stays, had_check, check), zeros, ones)

    def _look_up(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """How often 0 and 1 followed keys [B, K, T]."""
        slot, check = self._split(keys)
        found = self.tables[torch.arange(len(self.tables), device=keys.device)[:, None], slot]
        had_check, zeros, ones = unpack(found)
        known = had_check == check
        return zeros * known, ones * known

    def _split(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The place in a table of each key, and what tells it from others there."""
        return (keys >> CHECK_BITS) & (self.slots - 1), keys & ((1 << CHECK_BITS) - 1)

    def _keys(self, bits: Tensor) -> Tensor:
        """The contexts of each next bit of bits [B, T], as numbers [B, K, T]."""
        B, T = bits.shape
        whole = T // BITS_PER_BYTE
        padded = F.pad(bits.long(), (0, BITS_PER_BYTE * (whole + 1) - T)).unflatten(1, (-1, BITS_PER_BYTE))
        nodes = [torch.ones_like(padded[:, :, 0])]  # a 1, and what is known of the byte
        for place in range(BITS_PER_BYTE - 1):
            nodes.append(2 * nodes[-1] + padded[:, :, place])
        values = nodes[-1][:, :whole] - (1 << BITS_PER_BYTE - 1)  # [B, N]
        spans = span_hashes(values, span_starts(values, self.orders))  # [B, K, N + 1]
        kinds = torch.arange(1, len(self.tables) + 1, device=bits.device)[:, None] * STIR
        keys = stirred((spans ^ kinds)[..., None] + torch.stack(nodes, -1)[:, None] * SALT)
        return keys.flatten(2)[:, :, 1 : T + 1]


def span_starts(values: Tensor, orders: int) -> Tensor:
    """Where the spans begin that end before each of bytes [B, N], and after the last: [B, K, N + 1]."""
    B, N = values.shape
    ends = torch.arange(N + 1, device=values.device).expand(B, -1)
    lower = values | 32
    is_letter = (lower >= ord("a")) & (lower <= ord("z")) | (values >= 128)
    places = ends[:, 1:]
    after_other = F.pad(torch.where(is_letter, 0, places), (1, 0)).cummax(1).values  # where the word here begins
    after_letter = F.pad(torch.where(is_letter, places, 0), (1, 0)).cummax(1).values
    before = after_other.gather(1, after_letter.gather(1, after_other))  # where the word before it begins
    return torch.stack([*((ends - order).clamp(min=0) for order in range(1, orders + 1)), after_other, before], 1)


def span_hashes(values: Tensor, starts: Tensor) -> Tensor:
    """A number for the bytes [B, N] of each span, from its start [B, K, N + 1] to before a byte."""
    N = values.shape[1]
    powers, inverses = (powers_of(base, N + 1, values.device) for base in (FACTOR, INVERSE))
    sums = F.pad(((values + 1) * powers[:N]).cumsum(1), (1, 0))[:, None].expand_as(starts)
    return stirred((sums - sums.gather(2, starts)) * inverses[starts])


def powers_of(base: int, count: int, device: torch.device) -> Tensor:
    """The first powers of a base, modulo 2**64."""
    found, power = [], 1
    for _ in range(count):
        found.append(power - (1 << 64) if power >> 63 else power)
        power = power * base % (1 << 64)
    return torch.tensor(found, device=device)


def stirred(numbers: Tensor) -> Tensor:
    """Numbers whose lower bits depend on all of theirs."""
    numbers = (numbers ^ (numbers >> 31)) * STIR
    return numbers ^ (numbers >> 29)


def counts_in_row(keys: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """How often 0 and 1 follow keys [B, K, T - 1] in their own row, by bits [B, T - 1]: [B, K, T], 0 after the last."""
    rows = torch.arange(len(keys), device=keys.device)[:, None, None]
    distinct, places = torch.unique(keys ^ stirred(rows * SALT), return_inverse=True)
    bits = following[:, None].expand_as(keys)
    total = torch.bincount(places.flatten(), minlength=len(distinct))
    ones = torch.bincount(places[bits == 1], minlength=len(distinct))
    return tuple(F.pad(counts[places], (0, 1)) for counts in (total - ones, ones))


def in_order(numbers: Tensor) -> Tensor:
    """Numbers [n], the smallest first; on a CPU by NumPy, which is several times as fast."""
    return torch.from_numpy(np.sort(numbers.numpy())) if numbers.device.type == "cpu" else numbers.sort().values


def pack(check: Tensor, zeros: Tensor, ones: Tensor) -> Tensor:
    """A place of a table from its parts; both counts shrink alike where one is too large."""
    excess = (torch.maximum(zeros, ones) / MOST).clamp(min=1)
    zeros, ones = ((count / excess).ceil().long() for count in (zeros, ones))
    packed = check << 24 | zeros << 12 | ones
    return torch.where(packed >> 31 == 1, packed - (1 << 32), packed).int()


def unpack(places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check, zeros and ones of places."""
    places = places.long()
    return places >> 24 & 0xFF, places >> 12 & MOST, places & MOST
